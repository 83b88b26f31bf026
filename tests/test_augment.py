"""Augmentation: equal to a slow reference, a pure function of its key, and never cached."""

import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlearn.augment import (
    Augmented,
    augment,
    cutmix,
    l2_sp,
    margin,
    mixup,
    out_of_fold,
    oversample,
    soft_targets,
    suspects,
    twins,
    views,
)
from ftlearn.data import Columns, HeldOut, generator, order, overlap
from ftlearn.features import cache, knn, linear_probe
from ftlearn.freezing import fingerprint, freeze, unfreeze
from ftlearn.losses import binary_cross_entropy, cross_entropy, mse
from ftlearn.models import split
from ftlearn.training import Step, accumulate, accuracy, evaluate, fit, predict, train
from ftlearn.transforms import Affine, Blur, Colour, Crop, Each, Elastic, Erase, Flip, Noise

TRANSFORMS = [
    Flip(),
    Flip(0.5, vertical=True),
    Crop(2),
    Crop(2, fill="reflect"),
    Crop(2, fill="edge"),
    Crop(2, fill=9),
    Affine(20, 0.2, 0.2, 0.1),
    Affine(20, 0.2, 0.2, 0.1, fill="edge"),
    Affine(20, 0.2, 0.2, 0.1, fill=9),
    Elastic(0.1),
    Elastic(0.1, cells=3, fill="reflect"),
    Blur(1.5),
    Noise(0.2),
    Erase(0.7, 0.6, fill=3),
    Colour(0.4, 0.4, 0.4),
]
ids = [repr(t) for t in TRANSFORMS]


def pictures(device="cpu", n=12, channels=3, dtype=torch.uint8, height=9, width=7):
    x = torch.randint(0, 256, (n, channels, height, width), generator=generator(1))
    x = x.to(dtype) if dtype == torch.uint8 else (x / 255).to(dtype)
    return x.to(device)


def plain(device="cpu", n=12, batch_size=5, **settings):
    y = torch.arange(n) % 3
    return Columns(pictures(device, n), y.to(device), batch_size=batch_size, **settings)


# ---------------------------------------------------------------- transforms


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_shape_type_and_device_are_kept_and_the_input_is_not_touched(transform, dtype, device):
    for channels in (1, 3):
        x = pictures(device, channels=channels, dtype=dtype)
        before = x.clone()
        new = transform(x, generator(0))
        assert (new.shape, new.dtype, new.device) == (x.shape, x.dtype, x.device)
        assert torch.equal(x, before) and new.float().isfinite().all()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_a_seed_decides_and_the_global_generator_is_left_alone(transform, device):
    x, state = pictures(device), torch.get_rng_state()
    once = transform(x, generator(0))
    assert torch.equal(once, transform(x, generator(0)))
    assert not torch.equal(once, transform(x, generator(1)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_copies_of_one_picture_become_different_ones(transform):
    new = transform(pictures(n=1).repeat(40, 1, 1, 1), generator(0))
    least = 2 if isinstance(transform, Flip) else 10
    assert len(new.flatten(1).unique(dim=0)) >= least


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_the_device_does_not_change_the_numbers(transform, device):
    x = pictures()
    away = transform(x.to(device), generator(0)).cpu().int() - transform(x, generator(0)).int()
    assert away.abs().max() <= 1  # rounding, where a kernel adds in another order


# the slow references draw the same numbers, and then go image by image with other means


def numbers(random, low, high, *shape):
    return low + (high - low) * torch.rand(shape, generator=random)


def slow_flip(t, x, random):
    flipped = numbers(random, 0, 1, len(x), 1, 1, 1).flatten() < t.share
    axis = 1 if t.vertical else 2
    return torch.stack([i.flip(axis) if f else i for i, f in zip(x, flipped, strict=True)])


def slow_crop(t, x, random):
    modes = {"edge": dict(mode="edge"), "reflect": dict(mode="symmetric")}
    how = modes.get(t.fill) or dict(mode="constant", constant_values=t.fill)
    down, right = torch.randint(-t.pad, t.pad + 1, (2, len(x)), generator=random) + t.pad
    out, (h, w) = [], x.shape[2:]
    for image, a, b in zip(x.numpy(), down.tolist(), right.tolist(), strict=True):
        padded = np.pad(image, [(0, 0), (t.pad, t.pad), (t.pad, t.pad)], **how)
        out.append(torch.tensor(padded[:, a : a + h, b : b + w]))
    return torch.stack(out)


def read(image, row, column, fill):
    """One pixel between pixels, bilinear, in plain Python."""
    h, w = image.shape

    def at(r, c):
        if fill == "edge":
            r, c = min(max(r, 0), h - 1), min(max(c, 0), w - 1)
        inside = 0 <= r < h and 0 <= c < w
        return float(image[r, c]) if inside else float(fill)

    if fill == "edge":
        row, column = min(max(row, 0), h - 1), min(max(column, 0), w - 1)
    r, c = math.floor(row), math.floor(column)
    a, b = row - r, column - c
    top = (1 - b) * at(r, c) + b * at(r, c + 1)
    return (1 - a) * top + a * ((1 - b) * at(r + 1, c) + b * at(r + 1, c + 1))


def slow_affine(t, x, random):
    draws, (n, channels, h, w) = numbers(random, -1, 1, 5, len(x)).tolist(), x.shape
    out = torch.empty(x.shape)
    for i in range(n):
        turn, zoom, shear, right, down = (d[i] for d in draws)
        turn, zoom = math.radians(turn * t.turn), math.exp(zoom * math.log1p(t.scale))
        shear = shear * t.shear
        turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        matrix = turned @ np.array([[1, shear], [0, 1]]) / zoom
        move = np.array([t.shift * right * w, t.shift * down * h])
        for row in range(h):
            for column in range(w):
                place = np.array([column - (w - 1) / 2, row - (h - 1) / 2])
                c, r = matrix @ place + move + [(w - 1) / 2, (h - 1) / 2]
                for k in range(channels):
                    out[i, k, row, column] = read(x[i, k].numpy(), r, c, t.fill)
    return out.round().to(x.dtype)


def slow_elastic(t, x, random):
    arrows = torch.randn(len(x), 2, t.cells, t.cells, generator=random)
    (h, w), out = x.shape[2:], torch.empty(x.shape)
    for i, arrow in enumerate(arrows):
        big = F.interpolate(arrow[None], (h, w), mode="bicubic", align_corners=True)[0] * t.bend
        for row in range(h):
            for column in range(w):
                c, r = column + big[0, row, column].item() * w, row + big[1, row, column].item() * h
                for k in range(x.shape[1]):
                    out[i, k, row, column] = read(x[i, k].numpy(), r, c, t.fill)
    return out.round().to(x.dtype)


def slow_blur(t, x, random):
    from scipy.ndimage import gaussian_filter1d

    sigmas = numbers(random, 0, t.sigma, len(x), 1).flatten().clamp(min=1e-3).tolist()
    out, radius = [], math.ceil(3 * t.sigma)
    for image, sigma in zip(x.numpy().astype(float), sigmas, strict=True):
        for axis in (1, 2):
            image = gaussian_filter1d(image, sigma, axis, mode="nearest", radius=radius)
        out.append(torch.tensor(image))
    return torch.stack(out).round().to(x.dtype)


def slow_noise(t, x, random):
    strengths = numbers(random, 0, t.strength * 255, len(x), 1, 1, 1).flatten()
    noise = torch.randn(x.shape, generator=random)
    rows = zip(x, strengths, noise, strict=True)
    return torch.stack([(i + s * e).clamp(0, 255).round().to(x.dtype) for i, s, e in rows])


def slow_erase(t, x, random):
    covered = numbers(random, 0, 1, len(x), 1, 1, 1).flatten() < t.share
    spans = []
    for size in x.shape[2:]:
        length = (numbers(random, 0, t.size, len(x), 1, 1, 1) * size).ceil().clamp(1, size)
        first = (numbers(random, 0, 1, len(x), 1, 1, 1) * (size - length + 1)).floor()
        spans.append([(int(a), int(a + b)) for a, b in zip(first, length, strict=True)])
    out = x.clone()
    for image, on, (a, b), (c, d) in zip(out, covered, *spans, strict=True):
        if on:
            image[:, a:b, c:d] = t.fill
    return out


def slow_colour(t, x, random):
    from torchvision.transforms.v2 import functional as v2

    factors = [
        numbers(random, 1 - a, 1 + a, len(x), 1, 1, 1).flatten().tolist()
        for a in (t.brightness, t.contrast, t.saturation)
    ]
    out = []
    for image, light, contrast, colour in zip(x, *factors, strict=True):
        image = v2.adjust_brightness(image.double() / 255, light)
        image = v2.adjust_saturation(v2.adjust_contrast(image, contrast), colour)
        out.append((255 * image).round().to(x.dtype))
    return torch.stack(out)


SLOW = {Flip: slow_flip, Crop: slow_crop, Affine: slow_affine, Elastic: slow_elastic}
SLOW |= {Blur: slow_blur, Noise: slow_noise, Erase: slow_erase, Colour: slow_colour}
MIRRORED = [t for t in TRANSFORMS if isinstance(t, Elastic) and t.fill == "reflect"]


@pytest.mark.parametrize("transform", [t for t in TRANSFORMS if t not in MIRRORED], ids=repr)
def test_a_batch_equals_a_slow_loop_over_images(transform, device):
    x = pictures()
    new = transform(x.to(device), generator(4)).cpu()
    old = SLOW[type(transform)](transform, x, generator(4))
    away = (new.int() - old.int()).abs()
    exact = isinstance(transform, Flip | Crop | Erase)
    assert away.max() <= (0 if exact else 1)  # one grey level: a half may be rounded either way
    assert (away > 0).float().mean() < 0.01


@pytest.mark.parametrize(
    "still",
    [
        Flip(0),
        Crop(0),
        Affine(0, 0, 0, 0),
        Elastic(0),
        Blur(0),
        Noise(0),
        Erase(0),
        Colour(0, 0, 0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_strength_is_no_change(still, dtype):
    x = pictures(dtype=dtype)
    assert torch.allclose(still(x, generator(0)).float(), x.float(), atol=1e-6)


def test_values_stay_in_the_range_of_the_images():
    x = pictures() // 16  # 0 to 15, as the digits are
    for t in (Noise(1, maximum=16), Colour(1, 1, 1, maximum=16)):
        assert t(x, generator(0)).max() <= 16
    floats = pictures(dtype=torch.float32)
    for t in (Noise(1), Colour(1, 1, 1)):
        assert 0 <= t(floats, generator(0)).min() and t(floats, generator(0)).max() <= 1


def test_any_transform_of_one_image_is_run_from_a_seed(device):
    from torchvision.transforms import v2

    x, state = pictures(device), torch.get_rng_state()
    both = Each(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop((9, 7), padding=2)]))
    new = both(x, generator(0))
    assert torch.equal(new, both(x, generator(0))) and not torch.equal(new, both(x, generator(1)))
    assert new.device == x.device and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", [Crop, Affine, Elastic, Erase])
def test_a_grey_value_is_rounded_alike_by_all_and_refused_out_of_range(kind, device):
    settings = {Crop: dict(pad=2), Affine: dict(turn=0, scale=0, shear=0, shift=0.5)}
    settings |= {Elastic: dict(bend=0.5), Erase: dict(share=1)}
    dark = torch.zeros(40, 1, 5, 5, dtype=torch.uint8, device=device)
    assert kind(fill=9.7, **settings[kind])(dark, generator(0)).max() == 10
    bright = kind(fill=300.5, **settings[kind])(dark.float(), generator(0))
    assert bright.max() == 300.5  # floats have no range of their own
    for wrong in (300, -1, 255.5):
        with pytest.raises(ValueError, match=f"fill={wrong}: the images are uint8"):
            kind(fill=wrong, **settings[kind])(dark, generator(0))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=ids)
def test_the_layout_of_a_batch_in_memory_does_not_matter(transform, device):
    x = pictures(device, dtype=torch.float32)
    for other in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        assert other.stride() != x.stride()
        new, old = transform(other, generator(0)), transform(x, generator(0))
        assert torch.allclose(new, old, atol=1e-5)
    strided = Columns(x.to(memory_format=torch.channels_last), torch.arange(12), batch_size=5)
    assert len(list(augment(strided, transform).batches())) == 3


def test_the_shift_of_affine_is_of_the_picture_as_it_was():
    """A dot in the middle moves by shift times the side times the zoom, at most."""
    dots = torch.zeros(500, 1, 101, 101)
    dots[:, :, 50, 50] = 1e3
    new = Affine(0, 1.0, 0, 0.1)(dots, generator(0))
    seen = new.flatten(1).amax(1) > 0
    at = new.flatten(1).argmax(1)[seen]
    away = torch.stack([at // 101 - 50, at % 101 - 50]).abs().max()
    assert 12 <= away <= 0.1 * 101 * 2 + 1


def test_each_seeds_no_gpu_for_a_batch_on_the_cpu(monkeypatch):
    """torch.manual_seed would start every GPU over again, and that of all other code with it."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    noise = Each(lambda image: image + torch.rand(image.shape))
    x = torch.zeros(3, 1, 4, 4)
    assert torch.equal(noise(x, generator(0)), noise(x, generator(0))) and seeded == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_each_draws_from_a_seed_on_the_gpu_and_puts_its_generator_back():
    noise = Each(lambda image: image + torch.rand(image.shape, device=image.device))
    x, before = torch.zeros(3, 1, 4, 4, device="cuda"), torch.cuda.get_rng_state()
    torch.rand(1, device="cuda")
    moved = torch.cuda.get_rng_state()
    assert not torch.equal(before, moved)
    assert torch.equal(noise(x, generator(0)), noise(x, generator(0)))
    assert torch.equal(torch.cuda.get_rng_state(), moved)


def test_each_puts_the_generator_back_after_an_error():
    def broken(image):
        torch.rand(3)
        raise RuntimeError("no")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        Each(broken)(pictures(), generator(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("transform", [Noise(0.1), Colour()], ids=["Noise", "Colour"])
def test_a_range_that_is_not_the_transforms_is_refused_before_training(transform):
    digits, wide = torch.rand(6, 1, 8, 8) * 16, dict(maximum=16)
    whole = type(transform)(maximum=16)
    for foreign, says in [
        (digits, "from 0 to 1, but these go from"),
        ((digits - 8) / 5, "leave normalisation to the model"),
        (digits - 20, "maximum="),
    ]:
        with pytest.raises(ValueError, match=says):
            augment(Columns(foreign, torch.arange(6)), transform)
    assert len(augment(Columns(digits, torch.arange(6)), whole)) == 6, wide
    with pytest.raises(ValueError, match="from 0 to 16, but these go from 0 to 200"):
        bytes_ = torch.full((6, 1, 8, 8), 200, dtype=torch.uint8)
        bytes_[:, :, 0] = 0
        augment(Columns(bytes_, torch.arange(6)), whole)


# ------------------------------------------------------------------- the set


def same(a, b):
    return all(torch.equal(c, d) for one, two in zip(a, b, strict=True) for c, d in zip(one, two))


CHANGES = {
    "augment": lambda data, seed=0: augment(data, Crop(2), Noise(0.1), seed=seed),
    "mixup": lambda data, seed=0: mixup(data, 3, seed=seed),
    "cutmix": lambda data, seed=0: cutmix(data, 3, seed=seed),
    "both": lambda data, seed=0: mixup(augment(data, Crop(2), seed=seed), 3, seed=seed),
}


@pytest.mark.parametrize("name", CHANGES)
def test_batches_are_a_pure_function_of_seed_epoch_and_position(name, device):
    data = CHANGES[name](plain(device, shuffle=True))
    for epoch in (0, 3):
        whole = list(data.batches(epoch))
        assert same(whole, list(CHANGES[name](plain(device, shuffle=True)).batches(epoch)))
        for start in range(data.steps + 1):
            assert same(whole[start:], list(data.batches(epoch, start)))
    assert not same(list(data.batches(0)), list(data.batches(1)))
    other = CHANGES[name](plain(device, shuffle=True), seed=1)
    assert not same(list(data.batches(0)), list(other.batches(0)))
    assert not same(list(data.batches(0)), list(data.like(seed=5).batches(0)))


def test_the_set_has_the_plain_ones_length_settings_and_labels(device):
    data = plain(device, shuffle=True, seed=3)
    moving = augment(data, Crop(1))
    assert isinstance(moving, Columns) and moving.constant is False
    assert (len(moving), moving.steps, moving.device) == (len(data), data.steps, data.device)
    assert (moving.batch_size, moving.shuffle, moving.seed) == (5, True, 3)
    pairs = list(zip(moving.batches(2), data.batches(2), strict=True))
    assert all(torch.equal(a[1], b[1]) and a[0].dtype == b[0].dtype for a, b in pairs)
    assert "Crop(pad=1" in repr(moving) and "12 examples" in repr(moving)


def test_settings_rows_and_device_reach_the_plain_set(device):
    moving = augment(plain(shuffle=True), Crop(1))
    small = moving.like(batch_size=4, shuffle=False, seed=2)
    assert isinstance(small, Augmented) and small.steps == 3
    assert [len(x) for x, _ in small.batches()] == [4, 4, 4] and small.plain.batch_size == 4
    assert next(small.batches())[1].tolist() == [0, 1, 2, 0]
    few = moving.take(torch.arange(6))
    assert isinstance(few, Augmented) and len(few) == 6
    assert next(moving.to(device).batches())[0].device.type == device.type
    with pytest.raises(TypeError, match="no setting 'size'"):
        moving.like(size=3)


def test_two_changes_around_each_other_draw_different_numbers():
    flip = Flip(0.5)
    data = plain(n=64, batch_size=64)
    twice = augment(augment(data, flip), flip)
    x, new = data.columns[0], next(twice.batches())[0]
    assert not torch.equal(x, new)  # the same numbers twice would put every picture back


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 9 * 7, 3)

    def forward(self, x):
        return self.head(x.float().flatten(1) / 255)


def test_scores_and_predictions_are_of_the_plain_images():
    torch.manual_seed(0)
    model, data = Net(), plain(n=30, shuffle=True)
    for change in CHANGES.values():
        assert torch.equal(predict(model, change(data)), predict(model, data))
        assert evaluate(model, change(data)) == evaluate(model, data)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("append", [False, True])
def test_an_augmented_set_cannot_be_cached(name, append):
    with pytest.raises(ValueError, match="cache"):
        cache(freeze(Net()), CHANGES[name](plain()), append=append)


def test_derived_columns_and_held_out_sets_are_refused():
    net = freeze(nn.Sequential(nn.Flatten(), nn.Linear(189, 3)))
    floats = Columns(pictures(dtype=torch.float32), torch.arange(12) % 3)
    with pytest.raises(ValueError, match="Column 0 was computed from the images"):
        augment(cache(net, floats), Crop(1))
    taught = cache(net, floats, append=True)
    with pytest.raises(ValueError, match="Column 2 was computed from the images"):
        augment(taught, Crop(1))
    with pytest.raises(ValueError, match="held-out set"):
        views(HeldOut(pictures(), torch.zeros(12).long()), 2, Crop(1))


def trained(data, epochs, start=0, model=None):
    torch.manual_seed(0)
    model = model or Net()
    step = Step(model, cross_entropy(), torch.optim.SGD(model.parameters(), 0.1))
    for tick in train(step, data, epochs, start=start):
        yield tick, model


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_goes_on_where_it_stopped_bit_for_bit(name):
    data = CHANGES[name](plain(shuffle=True))
    *_, (_, straight) = trained(data, 2)
    stopped = next(model for tick, model in trained(data, 2) if tick.i == 3)
    *_, (_, resumed) = trained(data, 2, start=4, model=stopped)
    assert fingerprint(straight) == fingerprint(resumed)


def test_streamed_photos_are_augmented_alike_with_any_number_of_workers(tmp_path):
    from PIL import Image

    from ftlearn.folder import image_folder
    from ftlearn.photos import Preprocess

    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    settings = dict(batch_size=4, report=False, near=None)

    def photos(**more):
        return image_folder(tmp_path, Preprocess(8, 8), **settings, **more).train

    memory, one, three = photos(), photos(memory=0, workers=1), photos(memory=0, workers=3)
    for change in (lambda data: augment(data, Crop(2), Flip()), lambda data: cutmix(data, 2)):
        found = [list(change(data).batches(1, 1)) for data in (memory, one, three)]
        assert same(found[0], found[1]) and same(found[1], found[2])
    stored = views(one, 2, Flip())
    assert type(stored) is Columns and len(stored) == 2 * len(one)
    assert same(stored.in_order().batches(), views(memory, 2, Flip()).in_order().batches())


def one_argument(x):
    return x


def no_result(x, random):
    return None


def wants_a_number(x, random):
    return x + "1"


def test_a_transform_of_one_image_gets_a_sentence_about_each():
    from torchvision.transforms import v2

    for one in (
        v2.RandomHorizontalFlip(),
        v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(5), v2.Compose([v2.RandomCrop(4)])]),
        nn.Identity(),
        one_argument,
        no_result,
        wants_a_number,
    ):
        with pytest.raises(TypeError, match=r"write Each\(\.\.\.\) around it") as caught:
            augment(plain(), one)
        sentence = str(caught.value)
        assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
        assert "tensor(" not in sentence


def test_an_error_inside_of_a_transform_stays_its_own():
    def broken(x, random):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        augment(plain(), broken)


def test_the_trial_has_two_examples():
    sizes = []

    def watched(x, random):
        sizes.append(len(x))
        return x

    augment(plain(), watched)
    assert sizes == [2]


def test_what_happens_to_the_images_is_told_in_words_that_every_process_repeats():
    chain = mixup(augment(plain(), Crop(1), one_argument_of_a_batch, seed=4), 3, seed=2)
    assert chain.changes == (
        "Crop(pad=1, fill=0), one_argument_of_a_batch from seed 4",
        "mixup of 3 classes with alpha 1 from seed 2",
    )
    hidden = augment(plain(), Each(lambda image: image))
    assert "0x" not in hidden.changes[0] and "Each(transform=<function" in hidden.changes[0]


def one_argument_of_a_batch(x, random):
    return x


# --------------------------------------------------------------------- views


def test_views_are_the_epochs_of_the_unshuffled_augmented_set(device):
    data = plain(device, shuffle=True)
    stored, live = views(data, 3, Crop(2), seed=4), augment(data.in_order(), Crop(2), seed=4)
    assert type(stored) is Columns and len(stored) == 36 and stored.shuffle
    for k in range(3):
        x, y = [torch.cat(c) for c in zip(*live.batches(k), strict=True)]
        assert torch.equal(stored.columns[0][12 * k : 12 * k + 12], x)
        assert torch.equal(stored.columns[1][12 * k : 12 * k + 12], y)
    mixed = views(mixup(data, 3), 2)
    assert mixed.columns[1].shape == (24, 3) and mixed.columns[0].dtype == torch.uint8


@pytest.mark.parametrize("shuffle", [False, True])
def test_training_on_cached_views_is_training_on_the_views(device, shuffle):
    torch.manual_seed(0)
    body = freeze(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())).to(device)
    x = pictures(device, 12, 1, torch.float32)
    data = Columns(x, torch.arange(12, device=device) % 3, batch_size=6, shuffle=shuffle)
    stored, losses, heads = views(data, 3, Affine(), Noise()), [], []
    for live in (True, False):
        torch.manual_seed(1)
        head = nn.Linear(4 * 7 * 5, 3).to(device)
        model, used = (nn.Sequential(body, head), stored) if live else (head, cache(body, stored))
        step = Step(model, cross_entropy(), torch.optim.Adam(head.parameters()))
        losses.append(fit(step, used, epochs=3, report=False).losses)
        heads.append(fingerprint(head))
    assert losses[0] == losses[1] and heads[0] == heads[1]


@pytest.mark.parametrize("kind", [mixup, cutmix])
@pytest.mark.parametrize("size", [5, 10])
def test_views_of_a_mixed_set_have_partners_from_all_classes(kind, size):
    """A draw is sorted by class: read in stored order, a batch of five is all one digit."""
    y = torch.arange(10).repeat_interleave(5)
    data = kind(Columns(pictures(n=50), y, batch_size=size, shuffle=True), 10)
    stored = views(data, 8)
    hard = lambda targets: (targets.amax(1) > 0.999).double().mean()
    live = torch.cat([t for epoch in range(8) for _, t in data.batches(epoch)])
    assert hard(stored.columns[1]) < hard(live) + 0.1 < 0.55
    flipped = views(augment(data, Flip()), 8)  # mixed first, and changed afterwards
    assert torch.equal(flipped.columns[1], stored.columns[1])


@pytest.mark.parametrize("name", ["mixup", "cutmix", "both"])
def test_views_of_a_mixed_set_are_epochs_in_another_order_put_back(name, device):
    data = CHANGES[name](plain(device, batch_size=4, shuffle=True, seed=6))
    stored = views(data, 3)
    assert type(stored) is Columns and stored.shuffle
    for epoch in range(3):
        rows = order(12, 6, epoch).to(device)
        live = list(data.take(rows).like(shuffle=False).batches(epoch))
        for column, parts in zip(stored.columns, zip(*live, strict=True), strict=True):
            assert torch.equal(column[12 * epoch : 12 * epoch + 12][rows], torch.cat(parts))
    own = stored.columns[1].view(3, 12, 3)
    assert all((own[:, i, i % 3] > 0).float().mean() >= 2 / 3 for i in range(12))  # its own label
    assert not torch.equal(own[0], own[1])


def test_views_take_a_seed_only_with_transforms():
    one, two = [views(plain(), 1, Crop(2), seed=seed) for seed in (0, 5)]
    assert not torch.equal(one.columns[0], two.columns[0])
    assert torch.equal(one.columns[0], views(plain(), 1, Crop(2)).columns[0])
    for data in (mixup(plain(), 3), augment(plain(), Crop(2))):
        with pytest.raises(ValueError, match="seed is 5, but the set is augmented already"):
            views(data, 1, seed=5)


# -------------------------------------------------------------------- mixing


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_is_the_formula(device, alpha):
    x = pictures(dtype=torch.float32).to(device)
    y = (torch.arange(12) % 3).to(device)
    new, soft = mixup(Columns(x, y, batch_size=12), 3, alpha).change((x, y), generator(7))
    random = generator(7)
    seed = int(torch.randint(2**62, (), generator=random))
    shares = np.random.default_rng(seed).beta(alpha, alpha, 12)
    partner = torch.randperm(12, generator=random).tolist()
    for i, (share, j) in enumerate(zip(shares.tolist(), partner, strict=True)):
        assert torch.allclose(new[i], share * x[i] + (1 - share) * x[j], atol=1e-6)
        target = torch.zeros(3, device=device)
        target[y[i]] += share
        target[y[j]] += 1 - share
        assert torch.allclose(soft[i], target, atol=1e-6)


def test_cutmix_pastes_one_box_and_counts_its_pixels(device):
    y = torch.arange(40, device=device)
    x = y.float().view(40, 1, 1, 1).expand(40, 1, 9, 7).contiguous()
    data = Columns(x, y, batch_size=40)
    new, soft = next(cutmix(data, 40).batches())
    mixed = 0
    for i in range(40):
        values = new[i, 0].unique().tolist()
        assert len(values) <= 2
        for value in values:
            share = (new[i, 0] == value).float().mean()
            assert torch.isclose(soft[i, int(value)], share, atol=1e-6)
            if value != i:
                mixed += 1
                rows, columns = (new[i, 0] == value).nonzero(as_tuple=True)
                area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
                assert len(rows) == area  # a full rectangle
    assert mixed > 20


def test_mixed_bytes_are_rounded(device):
    x, y = pictures(device), torch.arange(12, device=device) % 3
    new, _ = mixup(Columns(x, y), 3).change((x, y), generator(7))
    random = generator(7)
    seed = int(torch.randint(2**62, (), generator=random))
    share = torch.tensor(np.random.default_rng(seed).beta(1, 1, 12)).float().view(-1, 1, 1, 1)
    partner = torch.randperm(12, generator=random)
    exact = share * x.cpu() + (1 - share) * x.cpu()[partner]
    assert (exact - exact.floor() > 0.5).any()
    assert torch.equal(new.cpu(), exact.round().to(torch.uint8))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_is_the_formula_of_the_paper(alpha, device):
    """Yun et al. (2019): a box of sqrt(1 - share) of each side around a random place, clipped."""
    n, height, width = 30, 9, 7
    x, y = pictures(n=n), torch.arange(n) % 3
    data = Columns(x.to(device), y.to(device), batch_size=n)
    new, soft = cutmix(data, 3, alpha).change(data.columns, generator(3))
    random = generator(3)
    seed = int(torch.randint(2**62, (), generator=random))
    shares = np.random.default_rng(seed).beta(alpha, alpha, n).tolist()
    partner = torch.randperm(n, generator=random).tolist()
    downs, rights = [torch.rand(n, generator=random).tolist() for _ in range(2)]
    for i in range(n):
        cut = math.sqrt(1 - shares[i])
        top, bottom = [(downs[i] + side * cut / 2) * height for side in (-1, 1)]
        left, right = [(rights[i] + side * cut / 2) * width for side in (-1, 1)]
        old, pasted = x[i].clone(), 0
        for row in range(height):
            for column in range(width):
                if top < row + 0.5 < bottom and left < column + 0.5 < right:
                    old[:, row, column] = x[partner[i], :, row, column]
                    pasted += 1
        target = torch.zeros(3)
        target[y[i]] += 1 - pasted / (height * width)
        target[y[partner[i]]] += pasted / (height * width)
        assert torch.equal(new[i].cpu(), old) and torch.allclose(soft[i].cpu(), target, atol=1e-6)


@pytest.mark.parametrize("kind", [mixup, cutmix])
def test_labels_are_checked_behind_other_changes_too(kind):
    soft = lambda value: Columns(pictures(), torch.full((12, 3), value), batch_size=5)
    for wrap in (lambda data: data, lambda data: augment(data, Flip())):
        with pytest.raises(ValueError, match="from 0 to 1"):
            kind(wrap(plain()), 2)
        with pytest.raises(ValueError, match="soft targets are a probability"):
            kind(wrap(Columns(pictures(), torch.rand(12), batch_size=5)), 3)
        with pytest.raises(ValueError, match="sum to 1.5"):
            kind(wrap(soft(0.5)), 3)
        assert len(kind(wrap(soft(1 / 3)), 3)) == 12
    with pytest.raises(ValueError, match="a mixup of 3 classes"):
        kind(augment(mixup(plain(), 3), Flip()), 5)
    with pytest.raises(ValueError, match="classes"):
        kind(mixup(plain(), 5), 3)


@pytest.mark.parametrize("classes", [10.0, None, "3", 0, 1, -3, True])
def test_classes_are_a_whole_number_of_at_least_two(classes):
    for do in (
        lambda: mixup(plain(), classes),
        lambda: soft_targets(torch.zeros(3).long(), classes),
    ):
        with pytest.raises(ValueError, match="classes is .*: give a whole number of at least 2"):
            do()
    assert mixup(plain(), np.int64(3)).change.classes == 3


@pytest.mark.parametrize("kind", [mixup, cutmix])
def test_a_batch_of_one_has_no_partner(kind):
    with pytest.raises(ValueError, match="larger batch_size"):
        kind(plain(batch_size=1), 3)
    with pytest.raises(ValueError, match="larger batch_size"):
        kind(plain(), 3).like(batch_size=1)
    with pytest.raises(ValueError, match="needs 2 examples"):
        kind(plain(), 3).take(slice(0, 1))
    assert augment(plain(batch_size=1), Flip()).steps == 12


@pytest.mark.parametrize("kind", [mixup, cutmix])
def test_every_loss_takes_soft_targets_and_accuracy_does_not(kind):
    x, y = next(kind(plain(), 3).batches())
    assert x.dtype == torch.uint8 and y.dtype == torch.float32 and y.shape == (5, 3)
    assert torch.allclose(y.sum(1), torch.ones(5))
    for objective in (
        cross_entropy(),
        cross_entropy(0.1, [1, 2, 3]),
        mse(),
        binary_cross_entropy(),
    ):
        loss, z = objective(Net(), x, y)
        assert loss.isfinite()
    with pytest.raises(ValueError, match="probabilities"):
        accuracy(z, x, y)


def test_soft_targets_can_be_mixed_again():
    data = plain()
    soft = data.like(data.columns[0], soft_targets(data.columns[1], 3))
    for batches in (mixup(soft, 3).batches(), cutmix(mixup(data, 3), 3).batches()):
        assert all(torch.allclose(y.sum(1), torch.ones(len(y))) for _, y in batches)
    assert same(mixup(soft, 3).batches(), mixup(data, 3).batches())


# ---------------------------------------------------- model, classes, labels


def test_l2_sp_is_its_formula_and_leaves_frozen_weights_out():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), torch.randn(5, 4)
    freeze(model[0])
    batch, start = (data, torch.arange(5) % 3), [p.detach().clone() for p in model.parameters()]
    pulled = l2_sp(cross_entropy(), model, 0.3)
    assert torch.equal(pulled(model, *batch)[0], cross_entropy()(model, *batch)[0])
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p)
    far = sum((p - q).square().sum() for p, q in list(zip(model.parameters(), start))[2:])
    loss = cross_entropy()(model, *batch)[0] + 0.15 * far
    found = pulled(model, *batch)[0]
    assert torch.isclose(found, loss)
    wanted = torch.autograd.grad(loss, list(model[1].parameters()))
    given = torch.autograd.grad(found, list(model[1].parameters()))
    assert all(torch.allclose(a, b) for a, b in zip(wanted, given, strict=True))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x))


BATCH = torch.randn(6, 4, generator=generator(8)), torch.arange(6) % 3


def pull(pulled, model):
    """What the pull adds to the loss."""
    return (pulled(model, *BATCH)[0] - cross_entropy()(model, *BATCH)[0]).item()


def pushed(*parts):
    with torch.no_grad():
        for part in parts:
            for p in part.parameters():
                p += 1.0


def test_l2_sp_pulls_a_copy_of_the_model(device):
    model = Two()
    pulled, twin = l2_sp(cross_entropy(), model, 1.0), copy.deepcopy(model)
    pushed(twin)
    far = sum(p.numel() for p in twin.parameters()) / 2
    assert pull(pulled, twin) == pytest.approx(far, rel=1e-4) and abs(pull(pulled, model)) < 1e-6
    assert pull(copy.deepcopy(pulled), twin) == pytest.approx(far, rel=1e-4)
    elsewhere = [column.to(device) for column in BATCH]
    twin.to(device)
    added = pulled(twin, *elsewhere)[0] - cross_entropy()(twin, *elsewhere)[0]
    assert added.item() == pytest.approx(far, rel=1e-4)


def test_l2_sp_pulls_what_is_unfrozen_later():
    model = Two()
    freeze(model.body)
    pulled = l2_sp(cross_entropy(), model, 1.0)
    pushed(model.body)
    assert pull(pulled, model) == 0
    unfreeze(model.body)
    assert pull(pulled, model) == pytest.approx(25 / 2, rel=1e-4)


def test_l2_sp_knows_parts_of_its_model_by_identity():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    pulled, (body, rest) = l2_sp(cross_entropy(), model, 1.0), split(model, "1")
    wrapped = nn.Sequential(freeze(body), nn.Sequential(rest))  # other names
    pushed(rest)
    assert pull(pulled, wrapped) == pytest.approx(18 / 2, rel=1e-4)


def test_l2_sp_says_so_if_something_learns_that_it_has_never_seen():
    model = Two()
    pulled = l2_sp(cross_entropy(), model, 1.0)
    model.head = nn.Linear(5, 4)
    with pytest.raises(ValueError, match=r"'head.weight' of shape \(4, 5\) was not in the model"):
        pulled(model, *BATCH)
    other = nn.Sequential(Two())
    with pytest.raises(ValueError, match="'0.body.weight'.*was not in the model"):
        pulled(other, *BATCH)


def test_l2_sp_pulls_new_layers_to_zero():
    model = Two()
    for new in ("head", ["head"], ("head",)):
        pulled = l2_sp(cross_entropy(), model, 2.0, new=new)
        norm = sum(p.square().sum() for p in model.head.parameters()).item()
        assert pull(pulled, model) == pytest.approx(norm, rel=1e-4)
    with pytest.raises(ValueError, match="no module 'hed'"):
        l2_sp(cross_entropy(), model, 1.0, new=["hed"])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model, x, y):
        z = model(x) * self.scale
        return F.cross_entropy(z, y), z


def test_l2_sp_around_an_objective_that_learns():
    model, objective = Two(), Scaled()
    pulled = l2_sp(objective, model, 1.0)
    learned = [*model.parameters(), *objective.parameters()]
    assert [*pulled.parameters()] == [*objective.parameters()]
    Step(model, pulled, torch.optim.SGD(learned, 0.1))(*BATCH)
    assert objective.scale != 1


class Unused(Two):
    def forward(self, x):
        return self.head(x[:, :1].expand(-1, 5))


def test_l2_sp_does_not_hide_a_parameter_that_takes_no_part():
    model = Unused()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = fingerprint(model)
    with pytest.raises(ValueError, match="'body.weight' is trainable but took no part"):
        Step(model, l2_sp(cross_entropy(), model, 0.1), optimizer)(*BATCH)
    assert fingerprint(model) == before
    freeze(model.body)
    optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
    pulled = l2_sp(cross_entropy(), model, 1.0)
    Step(model, pulled, optimizer)(*BATCH)
    before = pull(pulled, model)
    unfreeze(model.body)  # what learns has changed, so the question is asked again
    pushed(model.body)
    assert pull(pulled, model) == pytest.approx(before, rel=1e-4)


def test_l2_sp_with_dropout_slices_and_without_gradients():
    torch.manual_seed(0)
    one = nn.Sequential(Two(), nn.Dropout(0.5))
    two = copy.deepcopy(one)
    for model, pulled in ((one, True), (two, False)):  # the question at the start draws nothing
        objective = l2_sp(cross_entropy(), model, 0.0) if pulled else cross_entropy()
        step = Step(model, objective, torch.optim.SGD(model.parameters(), 0.1))
        torch.manual_seed(1)
        for _ in range(3):
            step(*BATCH)
    assert fingerprint(one) == fingerprint(two)
    whole, parts = Two(), Two()
    parts.load_state_dict(whole.state_dict())
    steps = [
        Step(m, l2_sp(cross_entropy(), m, 5.0), torch.optim.SGD(m.parameters(), 0.1))
        for m in (whole, parts)
    ]
    sliced = accumulate(steps[1], 3)
    for _ in range(5):
        steps[0](*BATCH)
        sliced(*BATCH)
    assert torch.allclose(whole.body.weight, parts.body.weight, atol=1e-6)
    with torch.no_grad():
        assert l2_sp(cross_entropy(), whole, 1.0)(whole, *BATCH)[0].isfinite()


def test_l2_sp_goes_through_a_recipe_that_unfreezes_from_phase_to_phase():
    """Also where the frozen part is cached, or stands before what learns under another name."""
    from ftlearn import Phase, follow, glyphnet

    torch.manual_seed(0)
    data = Columns(torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    recipe = [Phase("head", epochs=2, lr=1e-2), Phase("layer3", epochs=2, lr=1e-2)]
    moved = {}
    for strength in (0.0, 100.0):
        for memory in (4e9, 0):
            torch.manual_seed(0)
            model = glyphnet(10, "letters")
            old = [p.detach().clone() for p in model.layer3.parameters()]
            objective = l2_sp(cross_entropy(), model, strength)
            follow(
                model,
                recipe,
                data.like(batch_size=10),
                objective=objective,
                memory=memory,
                report=False,
            )
            far = sum((p - q).square().sum() for p, q in zip(model.layer3.parameters(), old))
            moved[strength, memory] = far.item()
    assert moved[100.0, 4e9] < 0.5 * moved[0.0, 4e9]
    assert moved[100.0, 0] == pytest.approx(moved[100.0, 4e9], rel=0.05)


def test_oversampling_makes_all_classes_as_frequent_as_the_largest(device):
    y = torch.tensor([0] * 7 + [1] * 3 + [2], device=device)
    data = Columns(torch.arange(11, device=device), y, shuffle=True)
    even = oversample(data)
    assert even.columns[1].bincount().tolist() == [7, 7, 7] and even.shuffle
    assert set(even.columns[0].tolist()) == set(range(11))
    counts = even.columns[0].bincount()[7:10].tolist()
    assert sorted(counts) == [2, 2, 3]
    moving = oversample(augment(plain(), Crop(1)))
    assert isinstance(moving, Augmented)


def blobs(n=120, classes=4, seed=0, device="cpu"):
    torch.manual_seed(seed)
    y = torch.arange(n) % classes
    h = 2 * torch.eye(classes, 6)[y] + 0.4 * torch.randn(n, 6)
    return Columns(h.to(device), y.to(device))


def test_out_of_fold_is_cross_val_predict():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict

    data, fold = blobs(), torch.full((120,), -1)

    def watched(some):
        seen = {tuple(row) for row in some.columns[0].tolist()}
        left = torch.tensor([tuple(row) not in seen for row in data.columns[0].tolist()])
        fold[left] = int(fold.max()) + 1
        return linear_probe(some)

    z = out_of_fold(data, watched, folds=4, seed=3)
    assert fold.bincount().tolist() == [30] * 4
    for f in range(4):  # each class is dealt out evenly
        counts = data.columns[1][fold == f].bincount()
        assert counts.min() >= 7 and counts.max() <= 8
    h = F.normalize(data.columns[0], dim=1).numpy()
    oracle = cross_val_predict(
        LogisticRegression(C=30.0, max_iter=1000),
        h, data.columns[1].numpy(), cv=PredefinedSplit(fold.numpy()), method="predict_proba",
    )  # fmt: skip
    assert np.allclose(z.softmax(1).numpy(), oracle, atol=1e-4)


def remembers(some):
    """A model whose four logits are 1 for what it was fitted to, and 0 for all else."""
    seen = some.columns[0]

    class Seen(nn.Module):
        def forward(self, h):
            known = (h[:, None] == seen).all(2).any(1).float()
            return known[:, None].repeat(1, 4)

    return Seen()


def test_no_model_sees_the_row_that_it_judges(device):
    assert out_of_fold(blobs(device=device), remembers, folds=7).sum() == 0


def test_planted_errors_are_ranked_first(device):
    data, bad = blobs(device=device), torch.arange(0, 120, 10)
    y = data.columns[1].clone()
    y[bad] = (y[bad] + 1) % 4
    ranked = suspects(data.like(data.columns[0], y))
    assert sorted(ranked.tolist()) == list(range(120))
    assert len(set(ranked[:12].tolist()) & set(bad.tolist())) >= 10


def folds_of(data, **settings):
    """The fold of every row, watched from the fits."""
    fold, count = torch.full((len(data),), -1), [0]

    def watched(some):
        seen = {tuple(row) for row in some.columns[0].tolist()}
        left = torch.tensor([tuple(row) not in seen for row in data.columns[0].tolist()])
        fold[left] = count[0]
        count[0] += 1
        return linear_probe(some)

    out_of_fold(data, watched, **settings)
    return fold


def test_the_seed_deals_other_folds():
    data = blobs()
    one, again, two = folds_of(data, seed=0), folds_of(data, seed=0), folds_of(data, seed=1)
    assert torch.equal(one, again) and not torch.equal(one, two)


def test_rows_of_a_group_stay_in_one_fold(device):
    data = blobs(device=device)
    groups = (torch.arange(120) // 8).to(device)  # 15 groups of two of each class
    fold = folds_of(data, groups=groups, folds=3)
    assert all(len(fold[groups.cpu() == g].unique()) == 1 for g in range(15))
    assert fold.bincount().tolist() == [40, 40, 40]
    for names in (groups * 10**9 - 5, groups.tolist()):
        assert torch.equal(fold, folds_of(data, groups=names, folds=3))


def test_rows_that_are_their_own_groups_are_dealt_as_without():
    data = blobs()
    alone = torch.randperm(120, generator=generator(3))
    assert torch.equal(folds_of(data, seed=4), folds_of(data, seed=4, groups=alone))


def test_no_model_sees_a_copy_of_the_row_that_it_judges(device):
    rows = torch.arange(120, device=device).repeat(2)
    twice = blobs(device=device).take(rows)
    assert out_of_fold(twice, remembers, groups=rows).sum() == 0
    assert out_of_fold(twice, remembers).sum() > 0.5 * 4 * 240  # most copies are in another fold


def test_equal_losses_keep_the_order_of_the_rows():
    class Same(nn.Module):
        def forward(self, h):
            return torch.zeros(len(h), 4)

    assert suspects(blobs(2000), lambda some: Same()).tolist() == list(range(2000))


def single(c):
    """31 rows, of which class c has one."""
    sizes = [10, 10, 10, 10]
    sizes[c] = 1
    y = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    return Columns(torch.randn(31, 6, generator=generator(9)), y)


@pytest.mark.parametrize("c", [0, 2, 3])
def test_a_class_of_one_row_is_refused_by_number(c):
    for head in (linear_probe, lambda data: knn(data, k=1)):
        with pytest.raises(ValueError, match=f"Class {c} has 1 row in one fold"):
            out_of_fold(single(c), head)
    two = single(c).take(torch.cat([torch.arange(31), (single(c).columns[1] == c).nonzero()[0]]))
    assert out_of_fold(two).shape == (32, 4)  # two rows are never in one fold
    with pytest.raises(ValueError, match=f"Class {c} has 2 rows in one fold"):
        out_of_fold(two, groups=fused(two, c))


def fused(data, c):
    """Groups in which the rows of class c are one."""
    groups = torch.arange(len(data))
    groups[data.columns[1] == c] = 99
    return groups


def test_folds_may_be_a_number_of_numpy():
    z = out_of_fold(blobs(), folds=np.int64(5), seed=np.int64(2))
    assert torch.equal(z, out_of_fold(blobs(), folds=5, seed=2))


# ---------------------------------------------------- copies in another part


def slow_twins(x, y, shift):
    """Image by image, shift by shift, numpy's correlation of what overlaps."""
    x, y = x.double().numpy(), y.double().numpy()
    height, width = x.shape[2:]
    like = np.zeros((len(x), len(y)))
    for i, one in enumerate(x):
        for j, two in enumerate(y):
            found = []
            for a in range(-shift, shift + 1):
                for b in range(-shift, shift + 1):
                    rows, columns = range(height), range(width)
                    pairs = [
                        (one[:, r, c], two[:, r - a, c - b])
                        for r in rows for c in columns
                        if 0 <= r - a < height and 0 <= c - b < width
                    ]  # fmt: skip
                    left, right = [np.concatenate(side) for side in zip(*pairs, strict=True)]
                    flat = left.std() == 0 or right.std() == 0
                    found.append(0.0 if flat else np.corrcoef(left, right)[0, 1])
            like[i, j] = max(found)
    return like


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_twins_equal_a_slow_loop(shift, device):
    x, y = pictures(n=7, height=6, width=5), pictures(n=9, height=6, width=5).flip(0, 3).float()
    y[2] = 7.0  # an image of one value
    like = torch.tensor(slow_twins(x, y, shift))
    sets = [Columns(t.to(device)) for t in (x, y)]
    rows, partners, likeness = [t.cpu() for t in twins(*sets, shift=shift)]
    assert sorted(rows.tolist()) == list(range(7)) and rows.dtype == partners.dtype == torch.int64
    assert torch.allclose(likeness.double(), like[rows].amax(1), atol=1e-5)
    assert torch.allclose(like[rows, partners], like[rows].amax(1), atol=1e-5)
    assert (likeness.diff() <= 0).all()


def hidden(change, seed=0):
    """Pictures of which ten are changed copies of some of the others'."""
    random = generator(seed, 5)
    others = torch.randint(0, 256, (60, 1, 9, 7), generator=random).byte()
    x = torch.randint(0, 256, (80, 1, 9, 7), generator=random).byte()
    where, who = (
        torch.randperm(80, generator=random)[:10],
        torch.randperm(60, generator=random)[:10],
    )
    x[where] = change(others[who])
    return Columns(x), Columns(others), where, who


def test_a_copy_that_moved_is_found_only_if_it_may_move():
    data, others, where, who = hidden(lambda x: F.pad(x, (1, -1, -1, 1)))
    assert len(overlap(data, others)) == 0
    rows, partners, likeness = twins(data, others)
    assert set(rows[:10].tolist()) == set(where.tolist()) and likeness[9] > 0.999 > likeness[10]
    assert {*zip(rows[:10].tolist(), partners[:10].tolist(), strict=True)} == {
        *zip(where.tolist(), who.tolist(), strict=True)
    }
    rows, _, likeness = twins(data, others, shift=0)
    assert likeness[0] < 0.9


def test_brightness_and_contrast_do_not_matter():
    data, others, where, _ = hidden(lambda x: x // 2 + 40)
    rows, _, likeness = twins(data, others, shift=0)
    assert set(rows[:10].tolist()) == set(where.tolist()) and likeness[9] > 0.99


def test_twins_are_found_in_any_block():
    random = generator(4)
    others = torch.randint(0, 256, (2100, 1, 4, 4), generator=random).byte()
    rows = torch.randperm(2100, generator=random)
    x = others[rows][:1500]
    found, partners, likeness = twins(Columns(x), Columns(others))
    assert torch.equal(partners[found.argsort()], rows[:1500]) and likeness.min() > 0.999


def test_twins_read_no_test_set_and_change_nothing():
    test = HeldOut(pictures())
    before = test.columns[0].clone()
    rows, partners, _ = twins(Columns(pictures()), test)
    assert test.reads == 0 and torch.equal(test.columns[0], before)
    assert torch.equal(rows, partners)
    plain_ones = twins(augment(plain(), Flip(1)), test)[2]  # of the images as they are
    assert plain_ones.min() > 0.999


def test_margin_is_numpys(device):
    z = 3 * torch.randn(50, 5, generator=generator(2))
    p = np.sort(z.double().softmax(1).numpy())
    assert np.allclose(margin(z.to(device)).cpu(), p[:, -1] - p[:, -2], atol=1e-6)


# ----------------------------------------------------------------- bad input

REFUSED = [
    ("without transforms", ValueError, "needs a transform", lambda: augment(plain())),
    ("a transform that is none", TypeError, "3 is no transform", lambda: augment(plain(), 3)),
    ("something that is no set", TypeError, "data is a list", lambda: augment([1], Flip())),
    ("features", ValueError, "only images", lambda: augment(Columns(torch.zeros(3, 4)), Flip())),
    ("a negative seed", ValueError, "seed is -1", lambda: augment(plain(), Flip(), seed=-1)),
    ("another shape", ValueError, "has to keep both", lambda: augment(plain(), lambda x, r: x[:, :1])),
    ("another type", ValueError, "has to keep both", lambda: augment(plain(), lambda x, r: x.float())),
    ("no views", ValueError, "k is 0", lambda: views(plain(), 0, Flip())),
    ("views of nothing", ValueError, "needs a transform", lambda: views(plain(), 2)),
    ("a crop larger than the image", ValueError, "less than 7", lambda: augment(plain(), Crop(7))),
    ("too few classes", ValueError, "from 0 to 1", lambda: mixup(plain(), 2)),
    ("alpha of nothing", ValueError, "alpha is 0", lambda: mixup(plain(), 3, alpha=0)),
    ("a third column", ValueError, "3 columns", lambda: cutmix(Columns(pictures(), torch.zeros(12).long(), torch.zeros(12)), 3)),
    ("labels as floats", ValueError, "soft targets are a probability", lambda: soft_targets(torch.zeros(4), 3)),
    ("sums of two", ValueError, "row 1.*sum to 2.000", lambda: soft_targets(torch.tensor([[0.5, 0.5], [1, 1]]), 2)),
    ("a negative probability", ValueError, "row 0", lambda: soft_targets(torch.tensor([[1.5, -0.5]]), 2)),
    ("NaN probabilities", ValueError, "row 0", lambda: soft_targets(torch.tensor([[float("nan"), 1]]), 2)),
    ("a pull that pushes", ValueError, "strength is -1", lambda: l2_sp(mse(), Net(), -1)),
    ("soft classes to balance", ValueError, "class numbers only", lambda: oversample(mixup(plain(), 3).plain.like(pictures(), torch.ones(12, 3)))),
    ("a model that is none", TypeError, "model is a function", lambda: l2_sp(Net(), cross_entropy(), 0.1)),
    ("a class of transforms", TypeError, r"Flip is a class: write Flip\(\)", lambda: augment(plain(), Flip)),
    ("a list of transforms", TypeError, "The transforms are in a list", lambda: augment(plain(), [Flip(), Crop(1)])),
    ("mixing as a transform", TypeError, "Each", lambda: augment(plain(), mixup)),
    ("a whole-batch transform in Each", ValueError, "leave Each away", lambda: Each(Flip())),
    ("nothing in Each", ValueError, "give a transform of one image", lambda: Each(None)),
    ("a class in Each", ValueError, "give a transform of one image", lambda: Each(Flip)),
    ("Each with another shape", ValueError, "keeps the shape", lambda: augment(plain(), Each(lambda image: image[:, :3]))),
    ("Each with no image", ValueError, "into a NoneType", lambda: augment(plain(), Each(lambda image: None))),
    ("mixing a list", TypeError, "data is a list", lambda: mixup([1], 3)),
    ("mixing images alone", ValueError, "The set has 1 columns", lambda: mixup(Columns(pictures()), 3)),
    ("a list to balance", TypeError, "data is a list", lambda: oversample([1])),
    ("nothing to balance by", ValueError, "one column", lambda: oversample(Columns(pictures()))),
    ("a test set to balance", ValueError, "held-out set", lambda: oversample(HeldOut(torch.arange(4), torch.tensor([0, 0, 0, 1])))),
    ("negative classes", ValueError, "the least -1", lambda: oversample(Columns(pictures(), torch.arange(12) - 1))),
    ("a list to judge", TypeError, "data is a list", lambda: out_of_fold([1])),
    ("no labels to judge", ValueError, "one column", lambda: suspects(Columns(torch.zeros(4, 2)))),
    ("soft labels to judge", ValueError, "class numbers only", lambda: suspects(Columns(torch.zeros(8, 2), torch.full((8, 4), 0.25)))),
    ("more folds than rows", ValueError, "folds is 9: give a number from 2 to the 8 rows", lambda: out_of_fold(blobs(8), folds=9)),
    ("more folds than groups", ValueError, "from 2 to the 3 groups", lambda: out_of_fold(blobs(12), groups=torch.arange(12) % 3)),
    ("half a fold", ValueError, "folds is 2.5", lambda: out_of_fold(blobs(), folds=2.5)),
    ("too few groups", ValueError, r"groups are torch.int64 \(3,\): give 120 whole", lambda: out_of_fold(blobs(), groups=torch.arange(3))),
    ("half groups", ValueError, "whole numbers", lambda: out_of_fold(blobs(), groups=torch.rand(120))),
    ("a negative seed of folds", ValueError, "seed is -1", lambda: suspects(blobs(), seed=-1)),
    ("a head of too few classes", ValueError, "answer with 2 classes, but labels go up to 3", lambda: out_of_fold(blobs(), lambda some: nn.Linear(6, 2))),
    ("features that move", ValueError, "change from epoch to epoch", lambda: suspects(augment(plain(), Flip()))),
    ("twins of a list", TypeError, "data is a list", lambda: twins(plain(), [1])),
    ("twins of features", ValueError, "only images", lambda: twins(blobs(), blobs())),
    ("twins of other sizes", ValueError, r"\(3, 9, 7\).*\(3, 9, 8\).*one size", lambda: twins(plain(), Columns(pictures(width=8)))),
    ("twins of other channels", ValueError, "bring both to one size", lambda: twins(plain(), Columns(pictures(channels=1)))),
    ("a shift of half the picture", ValueError, "shift is 4: give a whole number of pixels from 0 to 3", lambda: twins(plain(), plain(), shift=4)),
    ("a negative shift", ValueError, "shift is -1", lambda: twins(plain(), plain(), shift=-1)),
    ("half a pixel", ValueError, "shift is 0.5", lambda: twins(plain(), plain(), shift=0.5)),
    ("the margin of a list", ValueError, "z is a list", lambda: margin([[1, 2]])),
    ("the margin of one class", ValueError, r"\(4, 1\): give logits", lambda: margin(torch.zeros(4, 1))),
    ("the margin of one row", ValueError, r"shape \(4,\)", lambda: margin(torch.zeros(4))),
    ("one fold", ValueError, "folds is 1", lambda: out_of_fold(blobs(), folds=1)),
    *((f"{t} of {v}", ValueError, f"{t} cannot have {s}={re.escape(repr(v))}", lambda t=t, s=s, v=v: KINDS[t](**{s: v}))
      for t, s, v in [
        ("Flip", "share", 2), ("Flip", "share", -0.1), ("Crop", "pad", -1), ("Crop", "pad", 1.5),
        ("Crop", "fill", "mirror"), ("Affine", "turn", -5), ("Affine", "scale", float("nan")),
        ("Affine", "fill", None), ("Elastic", "bend", -1), ("Elastic", "cells", 1),
        ("Elastic", "fill", "wrap"), ("Blur", "sigma", -1), ("Blur", "sigma", float("inf")),
        ("Noise", "strength", -0.1), ("Noise", "maximum", -16), ("Erase", "size", 1.5),
        ("Crop", "fill", [0, 0, 0]), ("Affine", "fill", (0,)), ("Erase", "fill", [1]),
        ("Erase", "fill", "edge"), ("Colour", "contrast", "much"), ("Colour", "maximum", -1),
    ]),
]  # fmt: skip
KINDS = {k.__name__: k for k in (Flip, Crop, Affine, Elastic, Blur, Noise, Erase, Colour)}


@pytest.mark.parametrize(
    ("kind", "says", "do"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_bad_input_is_one_sentence(kind, says, do):
    with pytest.raises(kind, match=says) as caught:
        do()
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400


def test_a_recipe_on_augmented_images_caches_nothing(capsys):
    """The frozen part sees other images in every epoch, so it has to run in every epoch."""
    from ftlearn import Phase, follow, glyphnet

    plain = Columns(torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    moving = augment(plain.like(batch_size=10), Crop(1))
    model, passes = glyphnet(10), []
    model.stem.register_forward_hook(lambda *_: passes.append(1))
    history = follow(model, [Phase("head", epochs=3)], moving)
    assert "nothing is cached" in capsys.readouterr().out
    assert len(passes) == len(history.losses) == 6


def test_a_run_does_not_go_on_under_another_augmentation(tmp_path):
    from ftlearn import Phase, follow, glyphnet

    plain = Columns(torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    plain = plain.like(batch_size=10)

    def run(data, path):
        model = glyphnet(10)
        return follow(model, [Phase("head", epochs=1)], data, report=False, checkpoint=path)

    sets = [
        plain, augment(plain, Crop(1)), augment(plain, Crop(1), seed=3), mixup(plain, 10),
        augment(plain, Affine(45)), augment(augment(plain, Crop(1)), Affine(45)),
        augment(plain, Each(lambda image: image)),
    ]  # fmt: skip
    for i, first in enumerate(sets):
        run(first, tmp_path / f"{i}.ckpt")
        for j, second in enumerate(sets):
            if i == j:
                run(second, tmp_path / f"{i}.ckpt")
            else:
                with pytest.raises(ValueError, match="belongs to a run with another augmentation"):
                    run(second, tmp_path / f"{i}.ckpt")


# ----------------------------------------- wrong labels: cleanlab's answers (references/noise.py)

NOISE = json.loads((Path(__file__).parent / "references" / "noise.json").read_text())


@pytest.fixture(scope="module")
def noise():
    """Probabilities (exact), labels as they are, and which of these are wrong."""
    p = torch.tensor(NOISE["ten-thousandths"])
    assert p.shape == (900, 10) and set(p.sum(1).tolist()) == {10_000}
    y, bad = torch.tensor([int(c) for c in NOISE["labels"]]), torch.zeros(900, dtype=torch.bool)
    bad[NOISE["planted"]] = True
    assert bad.sum() == 90
    return p, y, bad


def by_loss(p, y):
    """The order of `suspects`, of equal losses the smaller row first."""
    loss = F.cross_entropy((p.double() / 10_000).log(), y, reduction="none")
    return loss.round(decimals=9).argsort(descending=True, stable=True)


@pytest.fixture(scope="module")
def letters_features():
    from ftlearn.glyphs import digits
    from ftlearn.models import glyphnet, split

    pool = digits()[0]
    return cache(freeze(split(glyphnet(10, "letters"), "head")[0]), pool), pool.columns[1]


def test_the_stored_problem_is_ours(noise, letters_features):
    """Same digits, same wrong labels, same probabilities up to the rounding of a solver."""
    (p, y, bad), (features, right) = noise, letters_features
    assert torch.equal(bad, y != right)
    z = out_of_fold(features.like(features.columns[0], y))
    assert (z.double().softmax(1) - p / 10_000).abs().max() < 0.01


def test_the_loss_ranks_labels_as_cleanlabs_self_confidence(noise):
    p, y, _ = noise
    assert by_loss(p, y).tolist() == NOISE["orders"]["self_confidence"]["rows"]


def test_suspects_are_the_ranking_of_their_own_logits(noise, letters_features):
    """By the probability of the label, lowest first, in numpy."""
    (_, y, bad), (features, _) = noise, letters_features
    data = features.like(features.columns[0], y)
    ranked = suspects(data, seed=3).numpy()
    z = out_of_fold(data, seed=3).double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    trust = (e / e.sum(1, keepdims=True))[np.arange(900), y]
    assert sorted(ranked) == list(range(900))
    assert (np.diff(np.log(trust[ranked])) > -1e-6).all()
    assert bad[ranked[:90]].sum() >= 85


def test_no_score_of_cleanlab_finds_more_of_the_planted_errors(noise):
    """Of the first 90 labels 89 are wrong by the loss, 88 and 87 by cleanlab's other scores."""
    p, y, bad = noise
    found = {name: int(bad[o["rows"][:90]].sum()) for name, o in NOISE["orders"].items()}
    ours = int(bad[by_loss(p, y)[:90]].sum())
    assert ours == found["self_confidence"] == 89
    assert found == {name: NOISE["draws"]["even"][name][0] for name in found}
    assert found["normalized_margin"] == 87 and found["confidence_weighted_entropy"] == 88


def test_what_cleanlabs_rules_add_to_the_ranking_is_the_number(noise):
    """By low self-confidence: our first rows, cut where cleanlab counts. By default: 2 others."""
    p, y, bad = noise
    rules = {name: rule["rows"] for name, rule in NOISE["issues"].items()}
    first = {name: by_loss(p, y)[: len(rows)].tolist() for name, rows in rules.items()}
    assert set(first["low_self_confidence"]) == set(rules["low_self_confidence"])
    for name, rows in rules.items():
        counts = [len(rows), int(bad[rows].sum()), int(bad[first[name]].sum())]
        assert counts == NOISE["draws"]["even"][name][0]
    assert NOISE["draws"]["even"]["prune_by_noise_rate"][0] == [80, 78, 80]  # of 90
    assert NOISE["draws"]["even"]["low_self_confidence"][0] == [70, 70, 70]


def test_over_twenty_draws_it_depends_on_the_errors_who_finds_more():
    """Errors that fall evenly: the ranking. Ones read as sevens, and so on: cleanlab's default."""
    even, pairs = (
        torch.tensor(NOISE["draws"][k]["prune_by_noise_rate"]) for k in ("even", "pairs")
    )
    assert even.shape == pairs.shape == (20, 3)
    assert (even[:, 2] >= even[:, 1]).all() and (pairs[:, 2] < pairs[:, 1]).all()
    precision = [(hits[:, 1:] / hits[:, :1]).mean(0).tolist() for hits in (even, pairs)]
    assert precision[0] == pytest.approx([0.968, 0.992], abs=5e-4)  # cleanlab, the loss
    assert precision[1] == pytest.approx([0.829, 0.676], abs=5e-4)
    for kind in ("even", "pairs"):  # the second rule is the ranking
        assert all(b == c for _, b, c in NOISE["draws"][kind]["low_self_confidence"])

"""Augmentation: equal to a slow reference, a pure function of its key, and never cached."""

import json
import math
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
    views,
)
from ftlearn.data import Columns, HeldOut, generator
from ftlearn.features import cache, linear_probe
from ftlearn.freezing import fingerprint, freeze
from ftlearn.losses import binary_cross_entropy, cross_entropy, mse
from ftlearn.training import Step, accuracy, evaluate, fit, predict, train
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


def test_no_model_sees_the_row_that_it_judges(device):
    data = blobs(device=device)

    def fit_rows(some):
        seen = some.columns[0]

        class Seen(nn.Module):
            def forward(self, h):
                near = torch.cdist(h, seen).min(1).values
                return torch.stack([(near == 0).float()] * 4, 1)

        return Seen()

    assert out_of_fold(data, fit_rows, folds=7).sum() == 0


def test_planted_errors_are_ranked_first(device):
    data, bad = blobs(device=device), torch.arange(0, 120, 10)
    y = data.columns[1].clone()
    y[bad] = (y[bad] + 1) % 4
    ranked = suspects(data.like(data.columns[0], y))
    assert sorted(ranked.tolist()) == list(range(120))
    assert len(set(ranked[:12].tolist()) & set(bad.tolist())) >= 10


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
    ("one fold", ValueError, "folds is 1", lambda: out_of_fold(blobs(), folds=1)),
    *((f"{t} of {v}", ValueError, f"{t} cannot have {s}={v!r}", lambda t=t, s=s, v=v: KINDS[t](**{s: v}))
      for t, s, v in [
        ("Flip", "share", 2), ("Flip", "share", -0.1), ("Crop", "pad", -1), ("Crop", "pad", 1.5),
        ("Crop", "fill", "mirror"), ("Affine", "turn", -5), ("Affine", "scale", float("nan")),
        ("Affine", "fill", None), ("Elastic", "bend", -1), ("Elastic", "cells", 1),
        ("Elastic", "fill", "wrap"), ("Blur", "sigma", -1), ("Blur", "sigma", float("inf")),
        ("Noise", "strength", -0.1), ("Noise", "maximum", -16), ("Erase", "size", 1.5),
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

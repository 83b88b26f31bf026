"""Folders of photos: every kind of file, what the audit finds, splits without leaks, streaming."""

import io
import json
import threading
import unicodedata
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import nn

import ftlearn.survey
from ftlearn.data import Columns, HeldOut
from ftlearn.features import cache
from ftlearn.folder import (
    Preprocess,
    Streamed,
    audit,
    image_folder,
    open_image,
    sample_photos,
    to_rgb,
)
from ftlearn.freezing import freeze
from ftlearn.photos import PhotoError, changes, read_image
from ftlearn.survey import Seen, alike

SMALL = Preprocess(24, 20)


def picture(seed, size=(40, 32)):
    """Smooth noise: two seeds look different, a copy of one looks like it."""
    wide, high = size
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def put(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def tree(root, **counts):
    """A class tree with so many different pictures per class."""
    seed = 0
    for name, number in counts.items():
        for i in range(number):
            put(root / name.replace("__", "/") / f"{i:02d}.png", picture(seed))
            seed += 1
    return root


def jpeg(image, quality=60):
    raw = io.BytesIO()
    image.save(raw, "jpeg", quality=quality)
    return raw.getvalue()


def read(path, **settings):
    return image_folder(path, SMALL, report=False, **settings)


def every_batch(data, epoch=0):
    return [tensor for batch in data.batches(epoch) for tensor in batch]


def equal(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


# One photo ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("high, wide", [(256, 256), (300, 500), (501, 333), (100, 77), (257, 301)])
def test_the_pixels_are_torchvisions(high, wide):
    from torchvision.models import ResNet18_Weights
    from torchvision.transforms import functional as F

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (high, wide, 3), np.uint8))
    preset = ResNet18_Weights.DEFAULT.transforms()
    ours = F.normalize(F.convert_image_dtype(Preprocess()(image)), preset.mean, preset.std)
    assert torch.equal(ours, preset(image))


@pytest.mark.parametrize("word", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_every_interpolation_is_torchvisions(word):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    image = picture(0, (71, 50))
    resized = F.resize(image, 32, InterpolationMode(word), antialias=True)
    theirs = F.pil_to_tensor(F.center_crop(resized, 31))
    assert torch.equal(Preprocess(32, 31, word)(image), theirs)


def test_preprocess_is_a_value_that_survives_json():
    settings = Preprocess(232, 224, "bicubic", 1)
    assert Preprocess(**json.loads(json.dumps(asdict(settings)))) == settings
    assert hash(settings) == hash(Preprocess(232, 224, "bicubic", 1))
    with pytest.raises(AttributeError):
        settings.crop = 3
    counted = Preprocess(np.int64(232), np.int32(224), "bicubic", np.uint8(1))
    assert counted == settings and json.dumps(asdict(counted)) == json.dumps(asdict(settings))


def test_grey_is_grey():
    x = Preprocess(24, 20, channels=1)(picture(0))
    assert x.shape == (1, 20, 20) and x.dtype == torch.uint8
    assert torch.equal(x, Preprocess(24, 20, channels=1)(picture(0).convert("L")))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "PA", "LA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_modes_become_rgb(mode):
    image = picture(0).convert("P").convert(mode) if mode == "PA" else picture(0).convert(mode)
    once = to_rgb(image)
    assert once.mode == "RGB" and once.size == image.size and image.mode == mode
    assert to_rgb(once).tobytes() == once.tobytes()
    assert Preprocess(24, 20)(image).shape == (3, 20, 20)


def test_rgb_is_left_alone_and_copied():
    image = picture(0)
    image.info["note"] = "mine"
    assert to_rgb(image).tobytes() == image.tobytes() and image.info == {"note": "mine"}


def test_transparent_is_white(tmp_path):
    clear = Image.new("RGBA", (9, 9), (200, 0, 0, 0))
    assert to_rgb(clear).getpixel((4, 4)) == (255, 255, 255)
    half = Image.new("RGBA", (9, 9), (0, 0, 0, 51))
    assert to_rgb(half).getpixel((4, 4)) == (204, 204, 204)
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 9, 99, 199])
    path = put(tmp_path / "palette.png", palette, transparency=1)
    assert read_image(path)[1] == ("palette", "transparent")
    assert open_image(path).getpixel((4, 4)) == (255, 255, 255)
    path = put(tmp_path / "bytes.png", palette, transparency=b"\xff\x00")
    assert open_image(path).getpixel((4, 4)) == (255, 255, 255)
    path = put(tmp_path / "key.png", Image.new("RGB", (9, 9), (1, 2, 3)), transparency=(1, 2, 3))
    assert open_image(path).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 257, 257 * 128, 65535]], np.uint16).repeat(4, 0)
    image, changed = read_image(put(tmp_path / name, Image.fromarray(values)))
    assert changed == ("16-bit",)
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_fractions_and_large_numbers():
    assert to_rgb(Image.fromarray(np.float32([[0, 0.5, 1]]))).getpixel((1, 0)) == (128,) * 3
    assert to_rgb(Image.fromarray(np.float32([[0, 99, 300]]))).getpixel((1, 0)) == (99,) * 3
    assert to_rgb(Image.fromarray(np.float32([[np.nan, 99]]))).getpixel((0, 0)) == (0,) * 3
    assert to_rgb(Image.fromarray(np.int32([[-5, 70000]]))).getpixel((1, 0)) == (255,) * 3


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_every_way_to_hold_the_camera(tmp_path, way, ending):
    exif = Image.Exif()
    exif[0x0112] = way
    path = put(tmp_path / f"held.{ending}", picture(0), exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    ours, changed = read_image(path)
    assert ours.tobytes() == upright.tobytes() and ours.size == upright.size
    assert to_rgb(ours).tobytes() == ours.tobytes()
    if ending != "tif":  # PIL turns those while it reads them
        assert changed == (("EXIF-turned",) if way > 1 else ())


def test_damaged_exif_costs_no_photo(tmp_path):
    path = tmp_path / "exif.jpg"
    picture(0).save(path, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff garbage")
    assert open_image(path).size == (40, 32)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "blue")]
    for ending in ("gif", "png", "webp"):
        options = {"lossless": True} if ending == "webp" else {}
        path = tmp_path / f"moving.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert open_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_kinds_of_file(tmp_path):
    for ending in ("bmp", "gif", "ppm", "tif", "png", "webp", "jp2", "ico"):
        path = put(tmp_path / f"photo.{ending}", picture(0, (32, 32)))
        assert open_image(path).size == (32, 32)
    path = put(tmp_path / "four.jpg", picture(0).convert("CMYK"))
    image, changed = read_image(path)
    assert changed == ("CMYK",)
    assert np.abs(np.asarray(image, int) - np.asarray(picture(0), int)).mean() < 8
    lying = put(tmp_path / "a.png", picture(0)).rename(tmp_path / "called.jpg")
    assert open_image(lying).tobytes() == picture(0).tobytes()


def test_changes_in_words():
    assert changes(picture(0)) == ()
    assert changes(picture(0).convert("LA")) == ("grey", "transparent")
    assert changes(picture(0).convert("YCbCr")) == ("YCbCr",)
    assert changes(Image.fromarray(np.float32([[0, 1]]))) == ("float 0-1",)
    assert changes(Image.fromarray(np.float32([[np.nan, 1.1]]))) == ("float 0-255",)


def bomb(path):
    """A small file of 200 million white pixels."""
    return put(path, Image.new("1", (20000, 10000), 1))


def test_unreadable_files_are_named_in_one_sentence(tmp_path, monkeypatch):
    whole = jpeg(picture(0, (200, 200)), 95)
    png = io.BytesIO()
    picture(0, (200, 200)).save(png, "png")
    contents = {
        "zero.jpg": (b"", "zero bytes"),
        "text.jpg": (b"not an image", "is no image"),
        "start.jpg": (whole[:4], "is no image"),
        "half.jpg": (whole[: len(whole) // 2], "truncated or damaged"),
        "half.png": (png.getvalue()[:3000], "truncated or damaged"),
        "page.ps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
    }
    for name, (data, words) in contents.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(PhotoError, match=words) as caught:
            open_image(path)
        said = str(caught.value)
        assert name in said and said.endswith(".") and "\n" not in said and len(said) < 400
    with pytest.raises(FileNotFoundError, match="There is no image .*gone.jpg"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(PhotoError, match="89 million pixels"):
        open_image(bomb(tmp_path / "bomb.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PhotoError, match="0 million pixels"):
        open_image(put(tmp_path / "large.png", picture(0)))


def test_an_image_that_was_only_opened_may_still_be_cut_short(tmp_path):
    path = tmp_path / "half.jpg"
    path.write_bytes(jpeg(picture(0, (200, 200)), 95)[:3000])
    with Image.open(path) as image, pytest.raises(PhotoError, match="half.jpg is truncated"):
        Preprocess()(image)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(resize=0, crop=0), "crop is 0"),
        (dict(resize=200, crop=224), "resize is 200"),
        (dict(resize=[256]), "give whole numbers"),
        (dict(crop=True), "crop is True"),
        (dict(interpolation="cubic"), "No interpolation 'cubic'"),
        (dict(channels=4), "channels is 4"),
        (dict(channels=True), "channels is True"),
        (dict(channels=3.0), "channels is 3.0"),
    ],
)
def test_nonsense_is_refused(settings, words):
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        Preprocess(**settings)


def test_a_stripe_is_refused_before_it_fills_the_memory():
    with pytest.raises(PhotoError, match="9000x5"):
        Preprocess()(Image.new("RGB", (9000, 5)))
    with pytest.raises(TypeError, match="This is a ndarray"):
        to_rgb(np.zeros((4, 4, 3)))


# The audit ---------------------------------------------------------------------------------------


def test_a_good_folder_has_nothing_to_report(tmp_path):
    found = audit(tree(tmp_path / "pets", cat=4, dog=5), SMALL)
    assert (
        repr(found) == f"{tmp_path}/pets: 9 images in 2 classes. Nothing to report.\n  cat 4, dog 5"
    )
    assert found.counts == {"": {"cat": 4, "dog": 5}} and found.imbalance == 1.25


def test_everything_that_can_be_mended_is_reported(tmp_path):
    root = tree(tmp_path / "pets", cat=5, dog=20)
    (root / "cat/zero.jpg").touch()
    (root / "cat/half.jpg").write_bytes(jpeg(picture(0, (200, 200)))[:700])
    (root / "cat/text.jpg").write_text("hello")
    (root / "cat/link.jpg").symlink_to(root / "nowhere.jpg")
    (root / "cat/notes.txt").write_text("hello")
    put(root / "loose.png", picture(90))
    for junk in (".git/x.png", ".ipynb_checkpoints/y.png", "cat/.ipynb_checkpoints/00.png"):
        put(root / junk, picture(91))
    put(root / "__MACOSX/cat/a.png", picture(92))
    (root / "dog/Thumbs.db").touch()
    (root / "dog/.DS_Store").touch()
    (root / "empty").mkdir()
    (root / "broken").mkdir()
    (root / "broken/zero.png").touch()
    put(root / "dog/grey.png", picture(70).convert("L"))
    put(root / "dog/palette.png", picture(71).convert("P"))
    put(root / "dog/alpha.png", picture(72).convert("RGBA"))
    put(root / "dog/four.jpg", picture(73).convert("CMYK"))
    deep = np.asarray(picture(74).convert("L")).astype(np.uint16) * 257
    put(root / "dog/deep.png", Image.fromarray(deep))
    exif = Image.Exif()
    exif[0x0112] = 6
    put(root / "dog/held.jpg", picture(75), exif=exif)
    put(root / "dog/deeper/still/tiny.png", picture(76, (12, 12)))
    found = audit(root, SMALL)
    assert found.classes == ["cat", "dog"] and found.empty == ["broken", "empty"]
    assert found.counts == {"": {"cat": 5, "dog": 27}}
    names = {"cat/half.jpg", "cat/link.jpg", "cat/text.jpg", "cat/zero.jpg", "broken/zero.png"}
    assert set(found.unreadable) == names
    assert found.unreadable["cat/zero.jpg"] == "has zero bytes"
    assert found.outside == ["loose.png"] and found.others == ["cat/notes.txt"]
    assert found.ignored == 6
    assert found.small == ["dog/deeper/still/tiny.png"]
    kinds = {"grey", "palette", "transparent", "CMYK", "16-bit", "EXIF-turned"}
    assert found.changed == dict.fromkeys(kinds, 1)
    assert not found.copies and not found.near_copies and not found.conflicts and not found.leaks
    text = repr(found)
    assert "5 files cannot be used" in text and "5.4 images of the largest" in text
    assert max(map(len, text.split("\n"))) < 600


def test_long_findings_are_cut_short(tmp_path):
    root = tree(tmp_path, cat=3, dog=3)
    for i in range(17):
        (root / f"cat/zero{i:02d}.jpg").touch()
    line = next(k for k in repr(audit(root, SMALL)).split("\n") if "cannot" in k)
    assert line.count("zero bytes") == 5 and line.endswith("and 12 more")


def test_copies_are_found(tmp_path):
    root = tree(tmp_path, cat=6, dog=6)
    (root / "cat/again.png").write_bytes((root / "cat/00.png").read_bytes())
    put(root / "dog/same.bmp", Image.open(root / "dog/01.png"))
    (root / "cat/saved.jpg").write_bytes(jpeg(Image.open(root / "cat/02.png")))
    put(root / "dog/half.png", Image.open(root / "dog/03.png").resize((20, 16)))
    put(
        root / "dog/wrong.png",
        ImageEnhance.Brightness(Image.open(root / "cat/04.png")).enhance(0.9),
    )
    found = audit(root, SMALL)
    assert found.copies == [["cat/00.png", "cat/again.png"], ["dog/01.png", "dog/same.bmp"]]
    near = [["cat/02.png", "cat/saved.jpg"], ["cat/04.png", "dog/wrong.png"]]
    assert found.near_copies == [*near, ["dog/03.png", "dog/half.png"]]
    assert found.conflicts == [["cat/04.png", "dog/wrong.png"]]
    assert audit(root, SMALL, near=None).near_copies == []


def test_alike_against_all_pairs_one_by_one():
    thumbs = np.stack([np.asarray(picture(i).resize((16, 16))) for i in range(12)])
    thumbs = np.concatenate([thumbs, thumbs[:5] // 2 + 40, np.full((2, 16, 16, 3), 7, np.uint8)])
    flat = thumbs.reshape(len(thumbs), 256, 3).astype(float)
    flat = (flat - flat.mean(1, keepdims=True)).reshape(len(thumbs), -1)
    norm = np.linalg.norm(flat, axis=1)
    pairs = [(i, j) for j in range(17) for i in range(j)]
    pairs = [(i, j) for i, j in pairs if flat[i] @ flat[j] >= 0.95 * norm[i] * norm[j]]
    assert sorted(alike(thumbs)) == sorted([*pairs, (17, 18)])
    assert {(i, i + 12) for i in range(5)} <= set(pairs)


def test_blocks_do_not_change_what_is_alike():
    thumbs = np.random.default_rng(0).integers(0, 256, (1200, 16, 16, 3), dtype=np.uint8)
    thumbs[700], thumbs[1100] = thumbs[3], thumbs[600]
    assert sorted(alike(thumbs)) == [(3, 700), (600, 1100)]


@pytest.mark.parametrize("workers", [1, 4])
def test_every_file_is_decoded_once_in_a_fixed_order(tmp_path, monkeypatch, workers):
    root, calls = tree(tmp_path, cat=7, dog=7), []
    original = read_image
    monkeypatch.setattr(ftlearn.survey, "read_image", lambda p: (calls.append(p), original(p))[1])
    photos = read(root, workers=workers)
    assert sorted(calls) == sorted(root.glob("*/*.png")) and len(photos.train) > 0
    assert [s.path for s in photos.audit.seen] == [
        f"{c}/{i:02d}.png" for c in ("cat", "dog") for i in range(7)
    ]


def test_parts_as_they_are_given(tmp_path):
    root = tree(
        tmp_path, train__cat=5, train__dog=6, val__cat=2, val__dog=2, test__cat=2, test__dog=3
    )
    put(root / "test/unlabelled.jpg", picture(99))
    (root / "annotations").mkdir()
    (root / "annotations/all.json").write_text("{}")
    found = audit(root, SMALL)
    assert list(found.counts) == ["train", "valid", "test"]
    assert found.counts["valid"] == {"cat": 2, "dog": 2}
    assert found.outside == ["test/unlabelled.jpg"] and found.beside == ["annotations"]


def test_a_class_may_be_called_train(tmp_path):
    found = audit(tree(tmp_path, train=3, car=3), SMALL)
    assert found.classes == ["car", "train"] and list(found.counts) == [""]


@pytest.mark.parametrize(
    "names",
    [
        ("training", "test"),
        ("train", "testing"),
        ("Training", "eval", "Test"),
        ("train", "evaluation"),
    ],
)
def test_parts_by_their_other_names(tmp_path, names):
    root = tree(tmp_path, **{f"{name}__{c}": 3 for name in names for c in ("cat", "dog")})
    found = audit(root, SMALL)
    part = {"tr": "train", "te": "test", "ev": "valid"}
    assert found.classes == ["cat", "dog"]
    assert list(found.counts) == [part[name[:2].lower()] for name in names]


def test_a_part_twice_by_another_name(tmp_path):
    root = tree(tmp_path, train__cat=2, training__cat=2, test__cat=2)
    refused("has train and training, the same part twice", root)


@pytest.mark.parametrize("names", [("images", "masks"), ("train/images", "train/masks")])
def test_classes_that_lie_one_level_down_are_refused(tmp_path, names):
    counts = {f"{name}/{c}".replace("/", "__"): 2 for name in names for c in ("cat", "dog")}
    root = tree(tmp_path, **counts)
    said = refused("has the same folders, cat, dog, in each of images, masks: if the", root)
    assert "name these train, valid and test" in said
    put(root / names[0] / "one.png", picture(50))  # an image of its own: these are the classes
    assert audit(root, SMALL).classes == ["images", "masks"]


def test_folders_inside_a_class_may_have_any_names(tmp_path):
    root = tree(tmp_path / "a", cat__day=2, cat__night=2, dog__day=2, dog__dusk=2)
    assert audit(root, SMALL).counts == {"": {"cat": 4, "dog": 4}}
    root = tree(tmp_path / "b", cat__images=2, dog__images=2)
    assert audit(root, SMALL).classes == ["cat", "dog"]


def test_two_spellings_of_a_name_are_one_class(tmp_path):
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != taken_apart
    parts = {f"train__{composed}": 3, f"val__{taken_apart}": 2, "train__zoo": 3, "val__zoo": 2}
    photos = read(tree(tmp_path / "a", **parts))
    assert photos.classes == [composed, "zoo"] and len(photos.valid) == 4
    photos = read(tree(tmp_path / "b", **{composed: 3, taken_apart: 3, "zoo": 6}), test=0)
    assert photos.audit.counts[""] == {composed: 6, "zoo": 6}
    assert all(path.is_file() for paths in photos.paths.values() for path in paths)


def test_photos_of_iphones_are_named(tmp_path):
    root = tree(tmp_path, cat=3, dog=3)
    (root / "cat/notes.txt").touch()
    assert "convert" not in repr(audit(root, SMALL))
    (root / "cat/IMG_1.HEIC").touch()
    text = "2 files of other kinds, left out (convert HEIC and HEIF to JPEG): cat/IMG_1.HEIC, cat"
    assert text in repr(audit(root, SMALL))
    for name in ("a", "b"):
        (tmp_path / "new" / name).mkdir(parents=True)
        (tmp_path / "new" / name / "1.heif").touch()
    refused("no image in them: see a/1.heif, b/1.heif .convert HEIC", tmp_path / "new")


def test_links_in_a_circle_end(tmp_path):
    root = tree(tmp_path, cat=3, dog=3)
    (root / "cat/up").symlink_to(root / "cat")
    (root / "fox").symlink_to(root / "dog")
    assert audit(root, SMALL).counts[""] == {"cat": 3, "dog": 3, "fox": 3}


# The three sets ----------------------------------------------------------------------------------


def test_split_is_stratified_seeded_and_complete(tmp_path):
    root = tree(tmp_path, ant=20, bee=10, cow=3)
    photos = read(root, valid=0.2, test=0.3)
    counts = {p: [s.parent.name for s in paths] for p, paths in photos.paths.items()}
    assert {p: [names.count(c) for c in photos.classes] for p, names in counts.items()} == {
        "train": [10, 5, 1],
        "valid": [4, 2, 1],
        "test": [6, 3, 1],
    }
    everything = sorted(path for paths in photos.paths.values() for path in paths)
    assert everything == sorted(root.glob("*/*.png"))
    assert read(root, valid=0.2, test=0.3).paths == photos.paths
    assert read(root, valid=0.2, test=0.3, seed=1).paths != photos.paths
    assert isinstance(photos.test, HeldOut) and photos.test.reads == 0
    assert photos.train.shuffle and not photos.valid.shuffle and not photos.test.shuffle


def test_rows_images_labels_and_paths_belong_together(tmp_path):
    photos = read(tree(tmp_path, cat=6, dog=9), batch_size=4)
    for part in ("train", "valid", "test"):
        x, y = getattr(photos, part).columns
        assert x.dtype == torch.uint8 and y.dtype == torch.int64
        for pixels, label, path in zip(x, y, photos.paths[part], strict=True):
            assert torch.equal(pixels, SMALL(open_image(path)))
            assert photos.classes[label] == path.parent.name


@pytest.mark.parametrize("seed", range(5))
def test_copies_never_straddle_parts(tmp_path, seed):
    root = tree(tmp_path, cat=12, dog=12)
    for path in sorted(root.glob("*/*.png")):
        if int(path.stem) % 2:
            path.with_name(f"{path.stem}_copy.jpg").write_bytes(jpeg(Image.open(path)))
        if int(path.stem) % 3 == 0:
            path.with_name(f"{path.stem}_again.png").write_bytes(path.read_bytes())
    photos = read(root, seed=seed)
    parts = {p: {(s.parent.name, s.name[:2]) for s in paths} for p, paths in photos.paths.items()}
    assert sum(map(len, parts.values())) == 24
    assert all({c for c, _ in names} == {"cat", "dog"} for names in parts.values())


def test_contradicting_labels_stay_in_training(tmp_path):
    root = tree(tmp_path, cat=8, dog=8)
    for i in range(3):
        (root / f"dog/wrong{i}.png").write_bytes((root / f"cat/0{i}.png").read_bytes())
    for seed in range(4):
        names = {f"{p.parent.name}/{p.stem}" for p in read(root, seed=seed).paths["train"]}
        assert {f"dog/wrong{i}" for i in range(3)} | {f"cat/0{i}" for i in range(3)} <= names


def test_given_parts_lose_training_images_with_copies_in_later_ones(tmp_path):
    root = tree(
        tmp_path, train__cat=5, train__dog=5, valid__cat=3, valid__dog=3, test__cat=3, test__dog=3
    )
    (root / "train/cat/leak.jpg").write_bytes(jpeg(Image.open(root / "test/cat/00.png")))
    (root / "train/dog/leak.png").write_bytes((root / "valid/dog/01.png").read_bytes())
    (root / "valid/cat/leak.png").write_bytes((root / "test/cat/02.png").read_bytes())
    photos = read(root)
    assert [len(photos.paths[p]) for p in ("train", "valid", "test")] == [10, 6, 6]
    assert not any("leak" in path.name for paths in photos.paths.values() for path in paths)
    assert len(photos.audit.leaks) == 3
    assert "2 images left out of train" in repr(photos.audit)
    assert "1 image left out of valid" in repr(photos.audit)


def test_missing_parts(tmp_path):
    root = tree(tmp_path / "a", train__cat=10, train__dog=10, test__cat=2, test__dog=2)
    photos = read(root, valid=0.2)
    assert [len(p) for p in photos.paths.values()] == [16, 4, 4]
    assert "no valid folder: dealt out of train" in repr(photos.audit)
    photos = read(tree(tmp_path / "b", train__cat=4, train__dog=4, val__cat=2, val__dog=2))
    assert photos.test is None and photos.paths["test"] == []
    assert "no test folder" in repr(photos.audit) and "test: none" in repr(photos)
    photos = read(tree(tmp_path / "c", train__cat=10, train__dog=10), valid=0.2, test=0.1)
    assert [len(p) for p in photos.paths.values()] == [14, 4, 2]
    assert read(tree(tmp_path / "d", cat=4, dog=4), test=0).test is None


def test_reports_once_and_prints_well(tmp_path, capsys):
    root = tree(tmp_path / "pets", cat=10, dog=10)
    photos = image_folder(root, SMALL, workers=1)
    assert capsys.readouterr().out == f"{photos.audit}\n"
    assert repr(photos).split("\n") == [
        "2 classes, images 3x20x20, in memory",
        "  train: 12 images (cat 6, dog 6)",
        "  valid: 4 images (cat 2, dog 2)",
        "  test: 4 images (cat 2, dog 2)",
    ]
    image_folder(root, SMALL, report=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [3, 4, 5, 9])
def test_large_shares_leave_something_to_train_on(tmp_path, number):
    photos = read(tree(tmp_path, cat=number, dog=number), valid=0.45, test=0.45)
    counts = {p: {s.parent.name for s in paths} for p, paths in photos.paths.items()}
    assert all(names == {"cat", "dog"} for names in counts.values())


def test_unreadable_files_are_left_out_of_the_sets(tmp_path):
    root = tree(tmp_path, cat=5, dog=5)
    (root / "cat/00.png").write_bytes(b"")
    photos = read(root)
    assert sum(map(len, photos.paths.values())) == 9
    assert photos.audit.unreadable == {"cat/00.png": "has zero bytes"}


# Streaming ---------------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path):
    root = tree(tmp_path / "pets", cat=20, dog=21)
    return read(root, batch_size=4), read(root, batch_size=4, memory=0, workers=3)


def test_streamed_batches_are_those_in_memory(both):
    memory, streamed = both
    assert type(memory.train) is Columns and isinstance(streamed.train, Streamed)
    assert memory.paths == streamed.paths and memory.train.steps == streamed.train.steps
    for part in ("train", "valid", "test"):
        ours, theirs = getattr(memory, part), getattr(streamed, part)
        for epoch in range(2):
            assert equal(every_batch(ours, epoch), every_batch(theirs, epoch))
    late = [list(data.batches(3, start=2)) for data in (memory.train, streamed.train)]
    assert all(equal(a, b) for a, b in zip(*late, strict=True))


def test_a_program_may_change_its_folder(tmp_path, monkeypatch):
    tree(tmp_path / "pets", cat=5, dog=5)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    photos = read("pets", memory=0)
    monkeypatch.chdir("elsewhere")
    assert len(every_batch(photos.train)) == 2
    assert all(path.is_absolute() for paths in photos.paths.values() for path in paths)


def test_workers_change_nothing(tmp_path):
    root = tree(tmp_path, cat=12, dog=12)
    one, four = (read(root, workers=n) for n in (1, 4))
    assert equal(one.train.columns, four.train.columns) and one.paths == four.paths
    one, four = (read(root, workers=n, memory=0) for n in (1, 4))
    assert equal(every_batch(one.train), every_batch(four.train))


def test_streamed_sets_do_what_columns_do(both):
    memory, streamed = (photos.train for photos in both)
    rows = torch.tensor([5, 0, 3, 9, 2])
    for change in (
        lambda data: data.in_order(),
        lambda data: data.take(rows),
        lambda data: data.take(slice(3, 20)),
        lambda data: data.take(data.columns[1] == 1),
        lambda data: data.like(batch_size=7, shuffle=False),
        lambda data: data.to("cpu").like(seed=5),
        lambda data: data.like(data.columns[0], 1 - data.columns[1]),
        lambda data: data.like(*data.columns, torch.arange(len(data))),
    ):
        assert isinstance(change(streamed), Streamed)
        assert equal(every_batch(change(memory)), every_batch(change(streamed)))
    assert repr(streamed) == "Streamed(29 files as uint8 (3, 20, 20), int64 () on cpu)"
    with pytest.raises(ValueError, match="start is -1"):
        next(streamed.batches(start=-1))
    assert list(streamed.batches(start=streamed.steps)) == []


class Mean(nn.Module):
    def forward(self, x):
        return x.float().mean((2, 3))


def test_features_of_a_streamed_set_are_in_memory(both):
    memory, streamed = both
    body = freeze(Mean())
    ours, theirs = cache(body, memory.train), cache(body, streamed.train)
    assert type(theirs) is Columns and equal(ours.columns, theirs.columns)
    assert theirs.derived == ours.derived and theirs.shuffle and theirs.batch_size == 4
    more = cache(body, streamed.train, append=True)
    assert isinstance(more, Streamed)
    assert equal(every_batch(more), every_batch(cache(body, memory.train, append=True)))
    held = cache(body, streamed.test)
    assert isinstance(held, HeldOut) and streamed.test.reads == 1
    list(held.batches())
    list(streamed.test.in_order().batches())
    assert streamed.test.reads == held.reads == 3


def test_training_on_a_streamed_set_is_training_in_memory(both):
    from ftlearn import Step, cross_entropy, evaluate, fit

    found = []
    for photos in both:
        torch.manual_seed(0)
        model = nn.Sequential(Mean(), nn.BatchNorm1d(3), nn.Linear(3, 2))
        step = Step(model, cross_entropy(), torch.optim.SGD(model.parameters(), 0.1))
        fit(step, photos.train, photos.valid, epochs=2)
        found.append((list(model.state_dict().values()), evaluate(model, photos.test)))
    assert equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_threads_end_with_the_iterator(both):
    _, streamed = both
    before = threading.active_count()
    batches = streamed.train.batches()
    next(batches)
    assert threading.active_count() > before
    del batches
    assert threading.active_count() == before
    for _ in streamed.train.batches():
        break
    list(streamed.train.batches())
    assert threading.active_count() == before


@pytest.mark.parametrize("harm", ["gone", "damaged", "stripe"])
def test_a_file_that_changes_meanwhile_is_named(both, harm):
    _, streamed = both
    before, path = threading.active_count(), streamed.paths["train"][3]
    if harm == "gone":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(path.read_bytes()[:60])
    else:
        Image.new("RGB", (900, 2)).save(path)
    with pytest.raises((FileNotFoundError, PhotoError), match=str(path)) as caught:
        list(streamed.train.batches())
    assert str(caught.value).endswith(".") and threading.active_count() == before


def test_the_limit_on_memory_decides(tmp_path):
    root = tree(tmp_path, cat=5, dog=5)
    assert isinstance(read(root, memory=10 * 3 * 20 * 20 - 1).train, Streamed)
    assert not isinstance(read(root, memory=10 * 3 * 20 * 20).train, Streamed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_streaming_to_a_gpu(both):
    memory, streamed = (photos.train.to("cuda") for photos in both)
    assert equal(every_batch(memory), every_batch(streamed))


# What is refused ---------------------------------------------------------------------------------


def refused(words, root, **settings):
    with pytest.raises((ValueError, OSError), match=words) as caught:
        read(root, **settings)
    said = str(caught.value)
    assert said.endswith(".") and "\n" not in said and len(said) < 400, said
    return said


def test_folders_that_are_refused(tmp_path):
    refused("There is no folder", tmp_path / "none")
    refused("is a file", put(tmp_path / "a.png", picture(0)))
    refused("no class folders", tmp_path)
    refused("one class only, cat", tree(tmp_path / "one", cat=3))
    refused(
        "a/dog if the classes lie in there|one class only",
        tree(tmp_path / "deep", a__cat=3, a__dog=3),
    )
    (tmp_path / "none_inside/cat").mkdir(parents=True)
    refused("no image in them", tmp_path / "none_inside")
    for name in ("cat/a.png", "dog/b.png"):
        (tmp_path / "broken" / name).parent.mkdir(parents=True)
        (tmp_path / "broken" / name).touch()
    refused("None of the 2 images .* cat/a.png has zero bytes", tmp_path / "broken")
    refused("class dog .* has 2 images, too few for 3 parts", tree(tmp_path / "few", cat=5, dog=2))


def test_parts_that_are_refused(tmp_path):
    root = tree(
        tmp_path / "a", train__cat=3, train__dog=3, val__cat=2, val__fox=2, test__cat=1, test__dog=1
    )
    said = refused("valid lacks dog and only valid has fox", root)
    assert "other classes in valid than in train" in said
    refused("no train folder", tree(tmp_path / "b", test__cat=3, valid__cat=3))
    refused("same part twice", tree(tmp_path / "c", train__cat=2, val__cat=2, valid__cat=2))
    refused(
        "fox with 2 images beside train", tree(tmp_path / "d", train__cat=2, train__dog=2, fox=2)
    )
    root = tree(tmp_path / "e", train__cat=1, train__dog=3, test__cat=2, test__dog=2)
    (root / "train/cat/00.png").write_bytes((root / "test/cat/00.png").read_bytes())
    refused("All images of cat in train", root)
    root = tree(tmp_path / "f", train__cat=3, train__dog=3, test__cat=2, test__dog=1)
    (root / "test/dog/00.png").write_bytes(b"")
    refused("test lacks dog", root)


def test_a_class_of_copies_cannot_be_split(tmp_path):
    root = tree(tmp_path, cat=6, dog=2)
    for i in range(2, 6):
        (root / f"dog/0{i}.jpg").write_bytes(jpeg(Image.open(root / f"dog/0{i % 2}.png"), 90 - i))
    refused("6 images; count copies once, .*, and only 2 are left, too few for 3 parts", root)
    assert len(read(root, near=None).train) > 0
    for path in (root / "dog").iterdir():
        (root / "cat" / f"again_{path.name}").write_bytes(path.read_bytes())
    refused("class dog .* has 6 images; .* another class has too, and none is left", root)


@pytest.mark.parametrize(
    "given, words",
    [
        ("resnet18", "preprocess is a str: give a Preprocess"),
        (224, "preprocess is a int: give a Preprocess"),
        (0, "preprocess is a int"),
        ((None, SMALL), "preprocess is a pair: give its second part"),
    ],
)
def test_a_preprocess_is_asked_for(tmp_path, given, words):
    root = tree(tmp_path, cat=3, dog=3)
    for act in (image_folder, audit):
        with pytest.raises(TypeError, match=words) as caught:
            act(root, given)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(valid=0), "valid is 0"),
        (dict(valid=1.5), "valid is 1.5"),
        (dict(test=-0.1), "test is -0.1"),
        (dict(test="some"), "test is 'some'"),
        (dict(valid=0.5, test=0.5), "leave nothing to train on"),
        (dict(workers=0), "workers is 0"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(seed="a"), "seed is 'a'"),
        (dict(seed=-1), "seed is -1"),
        (dict(memory="4 GB"), "memory is '4 GB'"),
        (dict(near=95), "near is 95"),
    ],
)
def test_settings_that_are_refused(tmp_path, settings, words):
    refused(words, tree(tmp_path, cat=3, dog=3), **settings)


# The sample --------------------------------------------------------------------------------------


def test_sample_photos(tmp_path):
    root = sample_photos(tmp_path / "sample", per_class=12)
    assert {p.name: len(list(p.iterdir())) for p in root.iterdir()} == {"china": 12, "flower": 12}
    again = sample_photos(tmp_path / "again", per_class=12)
    for path in root.glob("*/*"):
        assert path.read_bytes() == (again / path.relative_to(root)).read_bytes()
    found = audit(root, SMALL)
    assert "Nothing to report" in repr(found)
    with pytest.raises(FileExistsError, match="china is there already"):
        sample_photos(root)
    with pytest.raises(ValueError, match="per_class is 0"):
        sample_photos(tmp_path / "new", per_class=0)
    assert not (tmp_path / "new").exists()


def test_a_seen_file_knows_its_place():
    seen = Seen("train/cat/1.jpg", "train", "cat")
    assert (seen.label, seen.error) == ("cat", "") and Path(seen.path).name == "1.jpg"

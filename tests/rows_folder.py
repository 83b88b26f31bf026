"""Bad photos and folders: (cause, exception, words of its sentence, what the user did)."""

import io

import numpy as np
from PIL import Image

from ftlearn.folder import Preprocess, audit, image_folder, open_image, sample_photos, to_rgb

SMALL = Preprocess(24, 20)


def photo(folder, name, seed=0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40, 32)).save(path)
    return path


def photos(folder, *names):
    for seed, name in enumerate(names):
        photo(folder, name, seed)
    return folder


def split(folder, *names, **settings):
    image_folder(photos(folder, *names), SMALL, report=False, **settings)


def raw(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def half(folder):
    whole = io.BytesIO()
    Image.effect_noise((90, 90), 80).save(whole, "jpeg")
    return raw(folder, "half.jpg", whole.getvalue()[:1500])


def bomb(folder):
    Image.new("1", (20000, 10000)).save(folder / "bomb.png")
    return folder / "bomb.png"


def class_of_copies(folder):
    for i in range(4):
        photo(folder, f"cat/{i}.png", i)
        photo(folder, f"dog/{i}.png", 9)
    image_folder(folder, SMALL, report=False)


def all_leaked(folder):
    for part, seeds in (("train", [1, 2]), ("test", [1, 3])):
        photo(folder, f"{part}/cat/0.png", seeds[0])
        for i in range(3):
            photo(folder, f"{part}/dog/{i}.png", 10 * seeds[1] + i)
    image_folder(folder, SMALL, report=False)


def vanished(folder):
    names = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    found = image_folder(photos(folder, *names), SMALL, memory=0, report=False)
    path = found.paths["train"][0]
    data = path.read_bytes()
    path.unlink()
    try:
        list(found.train.batches())
    finally:
        path.write_bytes(data)


def twice(folder):
    sample_photos(folder, 2)
    sample_photos(folder, 2)


ROWS = [
    ("an image that is not there", FileNotFoundError, "There is no image .*gone.jpg", lambda d: open_image(d / "gone.jpg")),
    ("a folder as an image", IsADirectoryError, "is a folder: give the name of an image", lambda d: open_image(d)),
    ("a number as an image", TypeError, "This is a int, not the path of an image", lambda d: open_image(7)),
    ("an image of zero bytes", ValueError, "empty.jpg has zero bytes", lambda d: open_image(raw(d, "empty.jpg", b""))),
    ("a text called .jpg", ValueError, "text.jpg is no image", lambda d: open_image(raw(d, "text.jpg", b"hello"))),
    ("half an image", ValueError, "half.jpg is truncated or damaged", lambda d: open_image(half(d))),
    ("a decompression bomb", ValueError, "bomb.png has more than 89 million pixels", lambda d: open_image(bomb(d))),
    ("an array as an image", TypeError, "This is a ndarray, not a PIL image", lambda d: to_rgb(np.zeros((4, 4, 3)))),
    ("a stripe", ValueError, "9000x5 pixels, one side more than 100 times", lambda d: SMALL(Image.new("L", (9000, 5)))),
    ("a crop larger than the image", ValueError, "resize is 200 and crop is 224", lambda d: Preprocess(200)),
    ("an unknown interpolation", ValueError, "No interpolation 'cubic'", lambda d: Preprocess(interpolation="cubic")),
    ("four channels", ValueError, "channels is 4", lambda d: Preprocess(channels=4)),
    ("no such folder", FileNotFoundError, "There is no folder .*none", lambda d: audit(d / "none")),
    ("a file as a folder", NotADirectoryError, "is a file: give the folder", lambda d: audit(photo(d, "a.png"))),
    ("a folder without classes", ValueError, "has no class folders", lambda d: audit(d)),
    ("classes without images", ValueError, "class folders but no image", lambda d: audit(raw(d, "cat/a.txt", b"x").parents[1])),
    ("one class", ValueError, "images of one class only, cat", lambda d: split(d, "cat/a.png")),
    ("nothing that can be read", ValueError, "None of the 2 images", lambda d: [raw(d, f"{c}/a.png", b"") for c in "ab"] and audit(d)),
    ("parts with other classes", ValueError, "valid lacks dog and only valid has fox", lambda d: split(d, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/fox/d.png")),
    ("a part twice", ValueError, "has val and valid, the same part twice", lambda d: split(d, "train/a/1.png", "val/a/2.png", "valid/a/3.png")),
    ("no training part", ValueError, "but no train folder", lambda d: split(d, "test/a/1.png", "test/b/2.png")),
    ("a class beside the parts", ValueError, "fox with 1 images beside train", lambda d: split(d, "train/a/1.png", "train/b/2.png", "fox/3.png")),
    ("a class too small to be split", ValueError, "class b in .* has 2 images, too few for 3 parts", lambda d: split(d, "a/1.png", "a/2.png", "a/3.png", "b/4.png", "b/5.png")),
    ("a class of copies", ValueError, "4 images; count copies once, .*, and only 1 is left", class_of_copies),
    ("a class that leaks altogether", ValueError, "All images of cat in train", all_leaked),
    ("shares of everything", ValueError, "leave nothing to train on", lambda d: split(d, "a/1.png", valid=0.5, test=0.5)),
    ("no validation share", ValueError, "valid is 0", lambda d: split(d, "a/1.png", valid=0)),
    ("a network's name as preprocessing", TypeError, "preprocess is a str: give a Preprocess", lambda d: image_folder(d, "resnet18")),
    ("a size as preprocessing", TypeError, "preprocess is a int: give a Preprocess", lambda d: image_folder(d, 224)),
    ("all that backbone returns as preprocessing", TypeError, "preprocess is a pair: give its second part", lambda d: image_folder(d, (None, SMALL))),
    ("a letter as a seed", ValueError, "seed is 'a': give a whole number", lambda d: split(d, "a/1.png", seed="a")),
    ("classes one level down", ValueError, "the same folders, cat, dog, in each of images, masks", lambda d: split(d, *(f"{a}/{b}/1.png" for a in ("images", "masks") for b in ("cat", "dog")))),
    ("photos of iPhones only", ValueError, "no image in them: see .*heic .convert HEIC and HEIF to JPEG", lambda d: [raw(d, f"{c}/a.heic", b"x") for c in "ab"] and audit(d)),
    ("a truth as channels", ValueError, "channels is True", lambda d: Preprocess(channels=True)),
    ("no threads", ValueError, "workers is 0", lambda d: split(d, "a/1.png", workers=0)),
    ("memory in words", ValueError, "memory is '4 GB'", lambda d: split(d, "a/1.png", memory="4 GB")),
    ("a photo that is gone during training", FileNotFoundError, "There is no image", vanished),
    ("samples over samples", FileExistsError, "china is there already", twice),
]  # fmt: skip

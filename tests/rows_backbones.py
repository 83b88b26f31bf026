"""Bad backbones and downloads: (cause, exception, words of its sentence, what the user did)."""

import torch
from loopback import shelf
from torch import nn

from ftlearn.backbones import backbone
from ftlearn.models import named
from ftlearn.weights import download

SHA = "0" * 64


def saved(folder, thing):
    torch.save(thing, folder / "net.pth")
    return folder / "net.pth"


def written(folder, content):
    (folder / "net.pth").write_bytes(content)
    return folder / "net.pth"


def ten_classes():
    from torchvision.models import squeezenet1_1

    return squeezenet1_1(num_classes=10).state_dict()


def fetched(folder, url=None, sha256=SHA, timeout=10.0, **faults):
    """Download 1,000 bytes from a server with these faults."""
    with shelf() as server:
        server.files["net.pth"] = bytes(1000)
        for name, value in faults.items():
            setattr(server, name, value)
        url = url or server.url("net.pth")
        download(url, sha256, folder, progress=False, timeout=timeout, pause=0)


def in_the_way(folder):
    (folder / "file").write_text("no folder")
    fetched(folder / "file" / "cache")


def two_blocks():
    return nn.Sequential(*(nn.ModuleDict({"norm": nn.Linear(2, 2)}) for _ in range(2)))


ROWS = [
    # backbones
    ("an unknown backbone", ValueError, "no backbone 'resnet19': the nearest names are resnet18", lambda d: backbone("resnet19")),
    ("a detector as a backbone", ValueError, "no backbone 'fasterrcnn", lambda d: backbone("fasterrcnn_resnet50_fpn")),
    ("weights that were never published", ValueError, "resnet18 has no weights 'IMAGENET1K_V2': choose from IMAGENET1K_V1", lambda d: backbone("resnet18", "IMAGENET1K_V2")),
    ("pretrained=True", ValueError, "resnet18 has no weights True", lambda d: backbone("resnet18", True)),
    ("other weights for letters", ValueError, "letters has no weights 'cats'", lambda d: backbone("letters", "cats")),
    ("a weights file that is not there", FileNotFoundError, "There are no weights at .*gone.pth", lambda d: backbone("resnet18", d / "gone.pth")),
    ("a folder as weights", IsADirectoryError, "is a folder: give the .safetensors file", lambda d: backbone("resnet18", d)),
    ("a whole model in a pickle", ValueError, "holds a torch.nn.modules.linear.Linear, and building it could run code", lambda d: backbone("resnet18", saved(d, nn.Linear(2, 2)))),
    ("a web page as weights", ValueError, "is damaged or no file of torch.save", lambda d: backbone("resnet18", written(d, b"<!doctype html>"))),
    ("a checkpoint without tensors", ValueError, "is no dictionary of tensors by name", lambda d: backbone("resnet18", saved(d, {"epoch": 3}))),
    ("weights with another head", ValueError, r"'classifier.1.weight' as \(10, 512, 1, 1\), but it is \(1000, 512, 1, 1\)", lambda d: backbone("squeezenet1_1", saved(d, ten_classes()))),
    # downloads
    ("no connection", ValueError, "There is no connection to 127.0.0.1:9 .*backbone='letters'", lambda d: fetched(d, "http://127.0.0.1:9/net.pth")),
    ("a file that the server has not", ValueError, "There is no file at .*404", lambda d: fetched(d, files={})),
    ("a server that refuses", ValueError, "answered 403 Forbidden", lambda d: fetched(d, status=[403])),
    ("another file than expected", ValueError, "has SHA-256 541b3e9daa09.*, not 0000.*: it was removed", lambda d: fetched(d)),
    ("a connection that keeps dropping", ValueError, "was cut off at 6 of 1000 bytes: call again", lambda d: fetched(d, cuts=[1, 2, 3])),
    ("a server that falls silent", ValueError, "got nothing for 0.25 s", lambda d: fetched(d, timeout=0.25, stall_at=20)),
    ("another file in the cache", ValueError, "move it away to download it again", lambda d: (written(d, b"mine"), fetched(d))),
    ("an address that is none", ValueError, "is no address of a file on the web", lambda d: fetched(d, "file:///net.pth")),
    ("half a bracket in an address", ValueError, "is no address of a file on the web", lambda d: fetched(d, "http://[::1/net.pth")),
    ("an accent in an address", ValueError, "in plain ASCII", lambda d: fetched(d, "https://host/é.pth")),
    ("a folder in the place of a file", ValueError, "cannot be read .Is a directory.: move it away", lambda d: ((d / "net.pth").mkdir(), fetched(d))),
    ("no hash", ValueError, "give at least its first 8 hexadecimal digits", lambda d: fetched(d, sha256="")),
    ("a cache that cannot be written", ValueError, "Cannot write to .*: move away what is in the way", in_the_way),
    # names
    ("the end of many names", ValueError, "2 modules that end in 'norm': choose a name such as '0.norm'", lambda d: named(two_blocks(), "norm")),
]  # fmt: skip

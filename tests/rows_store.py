"""Bad stores and settings: (cause, exception, words of its sentence, what the user did)."""

import torch
from torch import nn

from ftlearn import Columns, cache, freeze
from ftlearn.augment import augment
from ftlearn.store import StoreError, opened, stored
from ftlearn.transforms import Flip

SET = Columns(torch.arange(48.0).view(12, 4), torch.arange(12) % 3, batch_size=5)
BODY = freeze(nn.Linear(4, 6))
MOVING = augment(Columns(torch.rand(8, 3, 4, 4), torch.arange(8)), Flip())


class Twin(nn.Linear):
    """The weights of BODY, and another answer."""

    def __init__(self):
        super().__init__(4, 6)
        self.load_state_dict(BODY.state_dict())

    def forward(self, x):
        return super().forward(x).relu()


class Answers(nn.Module):
    """A module that answers with what a function makes of its input."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def said(answer, data=SET, **settings):
    return cache(freeze(Answers(answer)), data, **settings)


def again(folder, module=BODY, data=SET, **settings):
    """Cache into a folder, then cache something else into the same one."""
    cache(BODY, SET, path=folder / "kept")
    cache(module, data, path=folder / "kept", **settings)


def changed(folder, name, edit, read=None):
    """Cache into a folder, change the bytes of one of its files, read it."""
    cache(BODY, SET, path=folder / "kept")
    file = folder / "kept" / name
    data = edit(file.read_bytes())
    file.unlink() if data is None else file.write_bytes(data)
    (read or opened)(folder / "kept")


def half_done(folder):
    """Stop at the second batch, then open what there is."""
    passes = []

    def stopping(x):
        passes.append(1)
        return x if len(passes) < 2 else 1 / 0

    try:
        said(stopping, path=folder / "part")
    except ZeroDivisionError:
        opened(folder / "part")


def a_file(folder):
    (folder / "notes.txt").write_text("mine")
    return folder


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


ROWS = [
    # settings
    ("a negative budget", ValueError, "budget is -1: give a number of bytes", lambda d: cache(BODY, SET, budget=-1)),
    ("a budget in words", ValueError, "budget is '4 GB'", lambda d: cache(BODY, SET, path=d / "new", budget="4 GB")),
    ("a budget that is not a number", ValueError, "budget is nan", lambda d: cache(BODY, SET, budget=float("nan"))),
    ("whole numbers as half precision", ValueError, "dtype is torch.int8: give torch.float16", lambda d: cache(BODY, SET, dtype=torch.int8)),
    ("a type in words", ValueError, "dtype is 'half'", lambda d: cache(BODY, SET, dtype="half")),
    ("a number for a folder", TypeError, "path is 7: give the name of a folder", lambda d: cache(BODY, SET, path=7)),
    ("no name for a folder", TypeError, "path is '': give the name", lambda d: cache(BODY, SET, path="")),
    ("a file for a folder", StoreError, "notes.txt is a file: give the name of a folder", lambda d: cache(BODY, SET, path=a_file(d) / "notes.txt")),
    ("a folder inside a file", StoreError, "notes.txt.new .Not a directory.*or give another path", lambda d: cache(BODY, SET, path=a_file(d) / "notes.txt" / "new")),
    ("a folder of other files", StoreError, "holds other files, and no store.json: give a new", lambda d: cache(BODY, SET, path=a_file(d))),
    # what does not fit
    ("outputs above the budget", StoreError, r"288 bytes, but the budget is 100: give path=.*dtype=torch.float16, or", lambda d: cache(BODY, SET, budget=100)),
    ("half outputs above the budget", StoreError, "144 bytes, but the budget is 100: give path='a folder' to keep them on disk, or a larger", lambda d: cache(BODY, SET, budget=100, dtype=torch.float16)),
    ("numbers that float16 cannot hold", StoreError, r"up to 1.9e\+05, which float16 cannot hold", lambda d: said(lambda x: 1e4 * x, dtype=torch.float16)),
    ("one output for a batch", StoreError, r"gave \(1, 4\) for a batch of 5", lambda d: said(lambda x: x.mean(0, keepdim=True))),
    ("outputs that grow", StoreError, r"gave \(2, 2\) for a batch of 2.*same shape", lambda d: said(lambda x: x.new_zeros(len(x), len(x)), path=d / "new")),
    ("complex numbers in a file", StoreError, "cannot hold torch.complex64: leave out path", lambda d: said(lambda x: x + 1j, path=d / "new")),
    # what does not belong
    ("the cache of other weights", StoreError, "of a module with other weights", lambda d: again(d, freeze(nn.Linear(4, 6)))),
    ("the cache of other layers", StoreError, "of other layers or other code", lambda d: again(d, freeze(Twin()))),
    ("the cache of other images", StoreError, "of other data: give another path, or delete", lambda d: again(d, data=SET.take(torch.arange(12).flip(0)))),
    ("the cache of fewer images", StoreError, "of a set of another length", lambda d: again(d, data=SET.take(slice(0, 9)))),
    ("a cache in another precision", StoreError, "made with dtype=None, not torch.float16", lambda d: again(d, dtype=torch.float16)),
    ("a cache of other batches", StoreError, r"batch_size=5, not 4.*cache data.like\(batch_size=5\)", lambda d: again(d, data=SET.like(batch_size=4))),
    # what is damaged
    ("a changed byte in a cache", StoreError, "0.safetensors is damaged.*delete the folder", lambda d: changed(d, "0.safetensors", flip)),
    ("a cache that is cut short", StoreError, "0.safetensors is cut short", lambda d: changed(d, "0.safetensors", lambda b: b[:-4])),
    ("a cache without its file", StoreError, "0.safetensors is missing", lambda d: changed(d, "0.safetensors", lambda b: None)),
    ("a changed card", StoreError, "store.json is damaged: give another path", lambda d: changed(d, "store.json", lambda b: b.replace(b"float32", b"float16"))),
    ("a cache without its card", StoreError, "kept holds other files, and no store.json", lambda d: changed(d, "store.json", lambda b: None)),
    # sets
    ("opening a folder that is not there", StoreError, "none holds no store: check the path", lambda d: opened(d / "none")),
    ("opening an unfinished cache", StoreError, "part is not complete: call what writes it again", half_done),
    ("storing a set that changes", ValueError, "store data.plain and augment", lambda d: stored(MOVING, d / "new")),
]  # fmt: skip

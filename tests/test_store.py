"""Outputs in memory, in files, continued, refused: always the same bytes, and none of another."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ftlearn import Columns, HeldOut, Step, bf16, cache, cross_entropy, evaluate, fit, freeze, split
from ftlearn import store as tool
from ftlearn.augment import augment
from ftlearn.folder import Streamed, StreamedHeldOut
from ftlearn.photos import Preprocess
from ftlearn.store import StoreError, Widened, filled, free_memory, opened, stored, written
from ftlearn.transforms import Flip

ROOT = Path(__file__).resolve().parents[1]
ROWS, SIZE = 50, 8  # seven batches, the last of two


class Body(nn.Module):
    """A linear layer that counts its passes, and can stop at one of them."""

    def __init__(self, width=6):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.passes, self.stop = nn.Linear(4, width), 0, None

    def forward(self, x):
        if self.passes == self.stop:
            raise KeyboardInterrupt
        self.passes += 1
        return self.linear(x).relu()


class Several(Body):
    """Three outputs: floats, floats of another shape, whole numbers."""

    def forward(self, x):
        h = super().forward(x)
        return h, {"grid": h[:, :, None] * x[:, None], "best": h.argmax(1)}


def numbers(rows=ROWS, device="cpu", **settings):
    random = torch.Generator().manual_seed(1)
    x, y = torch.randn(rows, 4, generator=random), torch.arange(rows) % 3
    return Columns(x.to(device), y.to(device), **dict(batch_size=SIZE, shuffle=True) | settings)


def same(a, b):
    return len(a.columns) == len(b.columns) and all(
        x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a.columns, b.columns)
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name[0] != "."}


@pytest.mark.parametrize("budget", [0, 1e9])
@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kind", [Body, Several])
def test_files_hold_the_bytes_of_the_cache_in_memory(tmp_path, kind, append, budget, device):
    body = freeze(kind().to(device))
    plain = cache(body, numbers(device=device), append=append)
    kept = cache(body, numbers(device=device), append=append, path=tmp_path / "new", budget=budget)
    assert kept.device.type == ("cpu" if budget == 0 else device.type)
    assert same(kept.to("cpu"), plain.to("cpu")) and kept.derived == plain.derived
    assert type(kept) is Columns and (kept.batch_size, kept.shuffle, kept.seed) == (8, True, 0)
    batches = zip(kept.batches(epoch=3), plain.batches(epoch=3), strict=True)
    assert all(torch.equal(a.cpu(), b.cpu()) for one in batches for a, b in zip(*one, strict=True))


def test_the_files_are_safetensors(tmp_path):
    kept = cache(freeze(Several()), numbers(), path=str(tmp_path), budget=0)
    for i, column in enumerate(kept.columns[:3]):
        assert torch.equal(load_file(tmp_path / f"{i}.safetensors")["data"], column)


def test_a_finished_store_is_opened_without_a_pass(tmp_path):
    body, data = freeze(Body()), numbers()
    first = cache(body, data, path=tmp_path, budget=0)
    before = contents(tmp_path)
    assert body.passes == 7
    for budget in (0, 1e9, None):
        assert same(cache(body, data, path=tmp_path, budget=budget), first)
    relabelled = data.like(data.columns[0], data.columns[1] + 1, shuffle=False, seed=5)
    other = cache(body, relabelled, path=tmp_path)  # labels and order are not the module's input
    assert torch.equal(other.columns[1], relabelled.columns[1]) and not other.shuffle
    assert body.passes == 7 and contents(tmp_path) == before
    assert torch.equal(cache(freeze(Body()), data, path=tmp_path).columns[0], first.columns[0])


@pytest.mark.parametrize("stop", range(8))
@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch, stop, seconds):
    monkeypatch.setattr(tool, "SECONDS", seconds)
    body, data = freeze(Several()), numbers()
    whole = cache(body, data, path=tmp_path / "whole")
    body.passes, body.stop = 0, stop
    if stop < 7:
        with pytest.raises(KeyboardInterrupt):
            cache(body, data, path=tmp_path / "part")
        assert stop or not (tmp_path / "part").exists(), "nothing was begun"
    body.stop = None
    again = cache(body, data, path=tmp_path / "part")
    assert body.passes == 7 and same(again, whole)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_stop_between_the_files_of_one_batch(tmp_path, monkeypatch, written):
    """Some outputs of the batch are in their files, the others are not: none of them counts."""
    body, data, raw, calls = freeze(Several()), numbers(), tool._raw, []

    def failing(tensor):
        calls.append(1)
        if len(calls) == 2 * 3 + written + 1:  # in the third batch of three outputs
            raise OSError(28, "No space left on device")
        return raw(tensor)

    whole = cache(body, data, path=tmp_path / "whole")
    facts = tool.origin_of(body, data, 0)
    monkeypatch.setattr(tool, "origin_of", lambda *_: facts)
    monkeypatch.setattr("ftlearn.features.origin_of", lambda *_: facts)
    monkeypatch.setattr(tool, "_raw", failing)
    body.passes = 0
    with pytest.raises(StoreError, match="No space left on device.*goes on"):
        cache(body, data, path=tmp_path / "part")
    monkeypatch.setattr(tool, "_raw", raw)
    assert body.passes == 3 and json.loads((tmp_path / "part/store.json").read_text())["rows"] == 16
    assert same(cache(body, data, path=tmp_path / "part"), whole) and body.passes == 3 + 5
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from test_store import *
tool.SECONDS = float(sys.argv[2])
body = freeze(Several())
body.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL) if body.passes == 4 else None)
cache(body, numbers(), path=sys.argv[1], budget=0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("seconds, passes", [("0", 3), ("1e9", 7)])
def test_a_killed_run_goes_on(tmp_path, seconds, passes):
    """With a card per batch four of seven are done; without any card but the first, none is."""
    command = [sys.executable, "-c", KILLED, tmp_path / "part", seconds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    (tmp_path / "part/.store.json.0123abcd.partial").write_text("{")  # a kill while writing it
    body, data = freeze(Several()), numbers()
    again = cache(body, data, path=tmp_path / "part", budget=0)
    assert body.passes == passes and same(again, cache(body, data))
    cache(body, data, path=tmp_path / "whole")
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "part").iterdir() if p.name[0] == ".") == [".lock"]


def test_a_kill_between_the_first_card_and_its_files(tmp_path):
    body, data = freeze(Body()), numbers()
    cache(body, data, path=tmp_path)
    tool._save(tmp_path, tool._card(tmp_path) | {"rows": 0}, [])
    (tmp_path / "0.safetensors").unlink()
    body.stop = body.passes  # and the next call stops before it has anything
    with pytest.raises(KeyboardInterrupt):
        cache(body, data, path=tmp_path)
    body.stop = None
    assert same(cache(body, data, path=tmp_path), cache(body, data))


def edit(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


DAMAGE = {
    "first byte": lambda d: d.__setitem__(0, d[0] ^ 1),
    "a byte in the middle": lambda d: d.__setitem__(400, d[400] ^ 64),
    "last byte": lambda d: d.__setitem__(-1, d[-1] ^ 1),
    "cut short": lambda d: d.__delitem__(slice(-5, None)),
    "empty": lambda d: d.clear(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_file_is_refused(tmp_path, damage, finished):
    body, data = freeze(Body()), numbers()
    body.stop = None if finished else 5
    try:
        cache(body, data, path=tmp_path)
    except KeyboardInterrupt:
        body.stop = None
    edit(tmp_path / "0.safetensors", DAMAGE[damage])
    before, passes = contents(tmp_path), body.passes
    with pytest.raises(
        StoreError, match=r"0\.safetensors is (damaged|cut short).*delete the folder"
    ):
        cache(body, data, path=tmp_path)
    assert contents(tmp_path) == before and body.passes == passes


def test_a_missing_file_and_bytes_behind_the_end(tmp_path):
    body, data = freeze(Several()), numbers()
    whole = cache(body, data, path=tmp_path)
    edit(tmp_path / "1.safetensors", lambda d: d.extend(b"more"))
    with pytest.raises(StoreError, match=r"1\.safetensors is damaged"):
        cache(body, data, path=tmp_path)
    edit(tmp_path / "1.safetensors", lambda d: d.__delitem__(slice(-4, None)))
    assert same(cache(body, data, path=tmp_path), whole)
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(StoreError, match=r"2\.safetensors is missing"):
        opened(tmp_path)


CARDS = {
    "no JSON": lambda text: text[:-9],
    "a list": lambda text: "[]",
    "empty": lambda text: "",
    "bytes that are no text": lambda text: text.replace("origin", "\udcff"),
    "another format": lambda text: text.replace("ftlearn store 1", "ftlearn store 2"),
    "other rows": lambda text: text.replace('"rows": 50', '"rows": 48'),
    "another type": lambda text: text.replace("float32", "float16"),
    "another sum": lambda text: text.replace('"sha256": "', '"sha256": "0'),
}


@pytest.mark.parametrize("change", CARDS)
def test_a_changed_card_is_refused(tmp_path, change):
    body, data = freeze(Body()), numbers()
    cache(body, data, path=tmp_path)
    text = CARDS[change]((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_bytes(text.encode(errors="surrogateescape"))
    before = contents(tmp_path)
    for act in (lambda: opened(tmp_path), lambda: cache(body, data, path=tmp_path)):
        with pytest.raises(StoreError, match=r"store\.json is damaged: give another path"):
            act()
    assert contents(tmp_path) == before


class Shifted(Body):
    """The same weights; other code."""

    def forward(self, x):
        return super().forward(x + 1)


def learned(body):
    with torch.no_grad():
        body.linear.bias[0] += 1e-7
    return body


def one_pixel(data):
    x = data.columns[0].clone()
    x[17, 2] += 1e-6
    return data.like(x, data.columns[1])


OTHERS = {
    "weights": (learned, lambda d: d, {}, "a module with other weights"),
    "code": (lambda b: freeze(Shifted()), lambda d: d, {}, "other layers or other code"),
    "wrapped": (lambda b: freeze(nn.Sequential(b)), lambda d: d, {}, "a module with other weights"),
    "one value": (lambda b: b, one_pixel, {}, "other data"),
    "order": (lambda b: b, lambda d: d.take(torch.arange(ROWS).flip(0)), {}, "other data"),
    "fewer": (lambda b: b, lambda d: d.take(slice(0, 40)), {}, "a set of another length"),
    "dtype": (lambda b: b, lambda d: d, dict(dtype=torch.float16), "dtype=None, not torch.float16"),
    "amp": (lambda b: b, lambda d: d, dict(amp=bf16("cpu")), "amp=None, not torch.bfloat16"),
    "batches": (lambda b: b, lambda d: d.like(batch_size=9), {}, "batch_size=8, not 9"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("other", OTHERS)
def test_what_does_not_belong_is_refused_and_nothing_is_lost(tmp_path, other, finished):
    body, data = freeze(Body()), numbers()
    body.stop = None if finished else 3
    try:
        cache(body, data, path=tmp_path)
    except KeyboardInterrupt:
        body.stop = None
    before, (module, change, settings, words) = contents(tmp_path), OTHERS[other]
    with pytest.raises(StoreError, match=words):
        cache(module(body), change(data), path=tmp_path, **settings)
    assert contents(tmp_path) == before


def test_a_view_is_known_by_its_cut(tmp_path, images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Tanh(), nn.Linear(8, 4))
    model, data = model.to(images[0].device), Columns(*images, batch_size=8)
    one, two = freeze(split(model, "3")[0]), freeze(split(model, "3")[0])
    first = cache(one, data, path=tmp_path)
    assert same(cache(two, data, path=tmp_path), first)
    with pytest.raises(StoreError, match="other layers or other code"):
        cache(freeze(split(model, "4")[0]), data, path=tmp_path)


def test_above_the_budget_is_refused_after_one_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    body, data = freeze(Body()), numbers()
    with pytest.raises(
        StoreError, match=r"1,200 bytes.*budget is 1,199.*path=.*dtype=torch\.float16"
    ):
        cache(body, data, budget=1199)
    assert body.passes == 1 and list(tmp_path.iterdir()) == []
    assert cache(body, data, budget=1200).columns[0].nbytes == 1200
    assert cache(body, data, budget=600, dtype=torch.float16).columns[0].nbytes == 600
    with pytest.raises(StoreError) as caught:
        cache(body, data, budget=10, dtype=torch.float16)
    assert "dtype" not in str(caught.value)


def test_without_a_budget_half_of_the_free_memory_is_the_limit(monkeypatch):
    body, data = freeze(Body()), numbers()
    monkeypatch.setattr(tool, "free_memory", lambda device: 2399)
    with pytest.raises(StoreError, match="budget is 1,199"):
        cache(body, data)
    for free in (2400, None):
        monkeypatch.setattr(tool, "free_memory", lambda device, free=free: free)
        cache(body, data)


def test_free_memory_is_read_from_each_system(tmp_path, device):
    assert free_memory(device) is None or free_memory(device) > 1e6
    (tmp_path / "meminfo").write_text("MemTotal:  999 kB\nMemAvailable:    123 kB\nHugePages: 0\n")
    assert tool._linux(tmp_path / "meminfo") == 123 * 1024
    for name, text in (
        ("max", "1000\n"),
        ("current", "700\n"),
        ("stat", "anon 5\ninactive_file 30\nactive_file 2\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert tool._container(tmp_path) == 332
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(ValueError):
        tool._container(tmp_path)
    assert tool._mac("(page size of 4096 bytes)\nPages free:   3.\nPages inactive: 2.") == 5 * 4096


def test_free_memory_is_unknown_where_nothing_says_so(monkeypatch):
    def silent():
        raise OSError

    for asked in ({}, {sys.platform: (silent,)}):
        monkeypatch.setattr(tool, "_ASKED", asked)
        assert free_memory() is None and tool.limit() == float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("path", [None, "store"])
def test_half_precision_is_stored_and_float32_arrives(tmp_path, dtype, path, device):
    body, data = freeze(Several().to(device)), numbers(device=device)
    plain, path = cache(body, data), path and tmp_path / path
    half = cache(body, data, dtype=dtype, path=path)
    assert [c.dtype for c in half.columns] == [dtype, dtype, torch.int64, torch.int64]
    for a, b in zip(half.columns[:2], plain.columns):
        assert torch.equal(a, b.to(dtype))
    for name in ("like", "in_order", "take", "to", "copy", "pickle"):
        changed = {
            "like": lambda: half.like(batch_size=5, seed=2),
            "in_order": half.in_order,
            "take": lambda: half.take(torch.arange(0, ROWS, 3, device=device)),
            "to": lambda: half.to("cpu"),
            "copy": lambda: copy.copy(half),
            "pickle": lambda: pickle.loads(pickle.dumps(half)),
        }[name]()
        assert type(changed) is Widened and changed.derived == half.derived
        batch = next(changed.batches(epoch=1))
        assert [c.dtype for c in batch] == [torch.float32, torch.float32, torch.int64, torch.int64]
    head = nn.Sequential(nn.Linear(6, 3)).to(device)
    step = Step(head, cross_entropy(), torch.optim.SGD(head.parameters(), 0.1))
    few = half.like(half.columns[0], half.columns[3])
    fit(step, few, few, epochs=2, report=False)  # nobody writes .float()


def test_what_was_half_before_stays_half():
    x = torch.randn(12, 4).half()
    data = Columns(x, torch.arange(12), batch_size=4)
    assert next(cache(freeze(nn.ReLU()), data).batches())[0].dtype == torch.float16
    appended = cache(freeze(nn.ReLU()), data, append=True, dtype=torch.float16)
    assert [c.dtype for c in next(appended.batches())] == [
        torch.float16,
        torch.int64,
        torch.float32,
    ]
    assert appended.narrow == {2: torch.float16}
    images = appended.like(torch.zeros(12, 4, dtype=torch.uint8))
    assert next(images.batches())[0].dtype == torch.uint8


def test_half_columns_follow_a_chain():
    data, two = numbers(), freeze(Several())
    appended = cache(two, data, append=True, dtype=torch.bfloat16)  # x, y, h, grid, best
    assert appended.narrow == {2: torch.bfloat16, 3: torch.bfloat16}
    more = cache(two, appended)  # three columns where there was one
    assert more.narrow == {4: torch.bfloat16, 5: torch.bfloat16}
    assert [c.dtype for c in next(more.batches())][2:] == [
        torch.int64,
        torch.int64,
        torch.float32,
        torch.float32,
        torch.int64,
    ]
    once = cache(freeze(nn.Linear(6, 2)), appended, column=2)  # reads float32, as it arrives
    assert once.columns[2].dtype == torch.float32 and once.narrow == {3: torch.bfloat16}


def test_numbers_that_half_cannot_hold_are_refused(tmp_path):
    class Loud(nn.Module):
        def forward(self, x):
            return 1e5 * torch.ones(len(x), 2)

    with pytest.raises(StoreError, match=r"1e\+05.*float16 cannot hold.*bfloat16"):
        cache(freeze(Loud()), numbers(), dtype=torch.float16, path=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert cache(freeze(Loud()), numbers(), dtype=torch.bfloat16).columns[0].isfinite().all()


def test_autocast_answers_are_stored_as_they_are_and_widened(tmp_path):
    body, data = freeze(Body()), numbers()
    plain, kept = (
        cache(body, data, amp=bf16("cpu")),
        cache(body, data, amp=bf16("cpu"), path=tmp_path),
    )
    assert same(plain, kept) and kept.columns[0].dtype == torch.bfloat16
    assert next(kept.batches())[0].dtype == torch.float32  # a head need not know


def test_a_test_set_stays_guarded(tmp_path):
    held = HeldOut(*numbers().columns, batch_size=SIZE, quiet=True)
    kept = cache(freeze(Body()), held, path=tmp_path / "h", dtype=torch.float16)
    assert isinstance(kept, HeldOut) and held.reads == 1 and type(kept).__name__ == "WidenedHeldOut"
    list(kept.take(slice(0, 9)).batches())
    assert held.reads == kept.reads == 2 and isinstance(pickle.loads(pickle.dumps(kept)), HeldOut)
    cache(freeze(Body()), held, path=tmp_path / "h", dtype=torch.float16)
    assert held.reads == 2, "opened: nobody has looked at the images"
    again = stored(held, tmp_path / "images", budget=0)
    list(again.batches())
    assert held.reads == 4 and isinstance(opened(tmp_path / "images"), HeldOut)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 1)])
def test_every_shape_of_output(tmp_path, shape):
    class Shape(nn.Module):
        def forward(self, x):
            return x.new_ones(len(x), *shape, dtype=torch.bool)

    kept = cache(freeze(Shape()), numbers(), path=tmp_path, budget=0)
    assert same(kept, cache(freeze(Shape()), numbers())) and kept.columns[0].shape == (ROWS, *shape)


@pytest.mark.parametrize("budget, mapped", [(1199, True), (1200, False), (None, False)])
def test_what_fits_into_the_budget_is_read_into_memory(tmp_path, budget, mapped):
    """A map is a view behind the file's header; a tensor in memory holds its own bytes alone."""
    for _ in range(2):  # written, and opened
        h = cache(freeze(Body()), numbers(), path=tmp_path, budget=budget).columns[0]
        assert (h.untyped_storage().nbytes() > h.nbytes == 1200) == mapped


def test_a_write_into_a_mapped_column_does_not_reach_the_file(tmp_path):
    body, data = freeze(Body()), numbers()
    kept = cache(body, data, path=tmp_path, budget=0)
    kept.columns[0].zero_()
    assert same(cache(body, data, path=tmp_path), cache(body, data))


def test_only_one_process_writes(tmp_path):
    inside, refused = threading.Event(), threading.Event()

    class Slow(Body):
        def forward(self, x):
            if self.passes == 2:
                inside.set()
                assert refused.wait(30)
            return super().forward(x)

    body, data, found = freeze(Slow()), numbers(), []
    thread = threading.Thread(target=lambda: found.append(cache(body, data, path=tmp_path)))
    thread.start()
    assert inside.wait(30)
    with pytest.raises(StoreError, match="Another process is writing"):
        cache(freeze(Slow()), data, path=tmp_path)
    refused.set()
    thread.join()
    assert len(found) == 1 and body.passes == 7
    (tmp_path / ".lock").write_bytes(b"stale")  # left by a process that is gone: nobody holds it
    assert same(cache(body, data, path=tmp_path), found[0]) and body.passes == 7


def test_another_process_that_was_first_has_done_the_work(tmp_path, monkeypatch):
    body, other, data, alone = freeze(Body()), freeze(Body()), numbers(), tool._alone

    def late(folder):
        monkeypatch.setattr(tool, "_alone", alone)
        cache(other, data, path=folder)
        return alone(folder)

    monkeypatch.setattr(tool, "_alone", late)
    assert same(cache(body, data, path=tmp_path), cache(other, data)) and body.passes == 0


@pytest.mark.skipif(sys.platform == "win32", reason="fcntl is for Unix")
def test_a_file_system_without_locks_is_written_without(tmp_path, monkeypatch):
    import errno
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert same(cache(freeze(Body()), numbers(), path=tmp_path), cache(freeze(Body()), numbers()))


def test_a_missing_file_of_an_unfinished_store(tmp_path):
    body, data = freeze(Several()), numbers()
    body.stop = 3
    with pytest.raises(KeyboardInterrupt):
        cache(body, data, path=tmp_path)
    (tmp_path / "1.safetensors").unlink()
    before, body.stop = contents(tmp_path), None
    with pytest.raises(StoreError, match=r"1\.safetensors is missing"):
        cache(body, data, path=tmp_path)
    assert contents(tmp_path) == before and body.passes == 3


@pytest.mark.parametrize("number", [0, 3])
def test_an_error_of_the_module_is_not_one_of_writing(tmp_path, number):
    class Reading(Body):
        def forward(self, x):
            if self.passes == number:
                raise FileNotFoundError("no such photo")
            return super().forward(x)

    with pytest.raises(FileNotFoundError, match="^no such photo$"):
        cache(freeze(Reading()), numbers(), path=tmp_path / "new")
    assert (tmp_path / "new").exists() == (number > 0)


def test_a_full_disk_is_seen_before_the_run(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1199})
    monkeypatch.setattr(tool.shutil, "disk_usage", lambda folder: usage)
    body = freeze(Body())
    with pytest.raises(StoreError, match="1,200 bytes, but the disk .* has 1,199 free"):
        cache(body, numbers(), path=tmp_path / "new")
    assert body.passes == 1 and not (tmp_path / "new").exists()


def test_outputs_that_cannot_be_stored_row_by_row(tmp_path):
    class Odd(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.answer = answer

        def forward(self, x):
            return self.answer(x)

    odd = {
        "one row": lambda x: x.mean(0, keepdim=True),
        "a number": lambda x: x.sum(),
        "another width": lambda x: x.new_zeros(len(x), len(x)),
        "nothing": lambda x: (),
    }
    for name, answer in odd.items():
        for path in (None, tmp_path / name):
            with pytest.raises(StoreError, match="a row per example"):
                cache(freeze(Odd(answer)), numbers(), path=path)


def test_progress_is_shown_only_when_it_takes_long(capsys, monkeypatch):
    clock = iter(range(10_000))
    cache(freeze(Body()), numbers(), report=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(tool.time, "perf_counter", lambda: 6.0 * next(clock))
    cache(freeze(Body()), numbers(), report=False)
    assert capsys.readouterr().out == ""
    assert list(tool.shown(range(9), 9)) == list(range(9))
    assert "the other 8 batches: 8 of 8" in capsys.readouterr().out


@pytest.fixture
def photos(tmp_path):
    """A streamed set of 20 images in files, and the same in memory."""
    from PIL import Image

    folder, random = tmp_path / "photos", torch.Generator().manual_seed(0)
    folder.mkdir()
    for i in range(20):
        pixels = torch.randint(256, (9, 9, 3), generator=random, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    files = [folder / f"{i}.png" for i in range(20)]
    return dict(files=files, preprocess=Preprocess(8, 8), workers=1, batch_size=6)


class Mean(nn.Module):
    def forward(self, x):
        return x.float().mean((2, 3))


@pytest.mark.parametrize("kind", [Streamed, StreamedHeldOut])
def test_a_streamed_set_is_stored_and_cached(tmp_path, photos, kind):
    data, body = kind(torch.arange(20), torch.arange(20) % 2, **photos), freeze(Mean())
    plain = cache(body, data)
    kept = cache(body, data, path=tmp_path / "h", budget=0)
    assert same(plain, kept) and isinstance(kept, HeldOut) == (kind is StreamedHeldOut)
    appended = cache(body, data, append=True, dtype=torch.float16, path=tmp_path / "a")
    assert isinstance(appended, kind) and next(appended.batches())[2].dtype == torch.float32
    assert type(appended.like(plain.columns[0], *appended.columns[1:])).__name__.startswith(
        "Widened"
    )
    pixels = stored(data, tmp_path / "x", budget=0)
    assert not isinstance(pixels, Streamed) and pixels.columns[0].shape == (20, 3, 8, 8)
    assert torch.equal(next(pixels.batches())[0], next(data.batches())[0])
    assert same(cache(body, pixels), plain)
    renumbered = kind(
        torch.arange(20).flip(0), torch.arange(20) % 2, **photos | {"files": photos["files"][::-1]}
    )
    assert same(cache(body, renumbered, path=tmp_path / "h"), plain), "the files are the input"


def test_a_changed_photo_makes_the_store_stale(tmp_path, photos):
    data, body = Streamed(torch.arange(20), torch.arange(20), **photos), freeze(Mean())
    cache(body, data, path=tmp_path / "h")
    larger = Streamed(*data.columns, **photos | {"preprocess": Preprocess(9, 8)})
    with pytest.raises(StoreError, match="other data"):
        cache(body, larger, path=tmp_path / "h")
    cache(body, data, path=tmp_path / "h")
    photos["files"][3].write_bytes(photos["files"][4].read_bytes())
    with pytest.raises(StoreError, match="other data"):
        cache(body, data, path=tmp_path / "h")


def test_any_set_is_stored_and_opened(tmp_path):
    data = cache(freeze(Several()), numbers(), append=True, dtype=torch.bfloat16).like(seed=9)
    again = stored(data, tmp_path / "s", budget=0)
    for found in (again, opened(tmp_path / "s", budget=0), opened(tmp_path / "s")):
        assert same(found, data) and vars(found).keys() == vars(data).keys()
        assert (found.narrow, found.derived, found.seed) == (data.narrow, data.derived, 9)
        assert [c.dtype for c in next(found.batches())] == [c.dtype for c in next(data.batches())]
    assert same(stored(data.like(batch_size=3), tmp_path / "s"), data)
    with pytest.raises(StoreError, match="other data"):
        stored(data.like(*data.columns[:4], data.columns[4] + 1), tmp_path / "s")
    with pytest.raises(ValueError, match="augment"):
        stored(augment(Columns(torch.rand(8, 1, 4, 4), torch.arange(8)), Flip()), tmp_path / "t")


def test_a_cache_is_opened_without_its_module(tmp_path):
    body = freeze(Several())
    made = cache(body, cache(freeze(nn.ReLU()), numbers()), path=tmp_path, dtype=torch.float16)
    found = opened(tmp_path)
    assert (
        all(torch.equal(a, b) for a, b in zip(found.columns, made.columns))
        and len(found.columns) == 3
    )
    assert found.derived == made.derived and found.narrow == made.narrow


def test_training_from_files_is_training_in_memory(tmp_path):
    body, data, found = freeze(Body()), numbers(), []
    for settings in ({}, dict(path=tmp_path, budget=0)):
        torch.manual_seed(0)
        head = nn.Linear(6, 3)
        step, some = (
            Step(head, cross_entropy(), torch.optim.Adam(head.parameters())),
            cache(body, data, **settings),
        )
        found.append((fit(step, some, epochs=3, report=False).losses, evaluate(head, some)))
    assert found[0] == found[1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_filled_or_written_is_whole(tmp_path, number):
    """No row is left as the memory was found."""
    parts = [(len(p), [p]) for p in torch.arange(12.0).view(6, 2).split(4)]
    data = Columns(torch.arange(6), batch_size=4)
    rows = [0, 4, 6][number]
    for act in (
        lambda: filled(parts[:number], 6),
        lambda: written(tmp_path, {"batch_size": 4}, lambda start: iter(parts[start:number]), data),
    ):
        if number == 2:
            assert torch.equal(act()[0], torch.arange(12.0).view(6, 2))
        else:
            with pytest.raises(StoreError, match=f"outputs for {rows} of 6 examples"):
                act()


LARGE = """
import sys
import torch
from torch import nn
from ftlearn import Columns, Step, cache, cross_entropy, freeze, train
from ftlearn.store import opened, stored

ROWS, BUDGET = 163_840, 16_000_000

def anonymous():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return 1024 * int(lines["RssAnon"].split()[0])

class Images(Columns):
    "Images that are made when their batch is asked for, as a set in files too large for memory."
    def batches(self, epoch=0, start=0):
        for (number,) in super().batches(epoch, start):
            yield ((number[:, None] * torch.arange(1, 1025) % 251).to(torch.uint8),)
    def like(self, *columns, **changes):
        if columns:
            return Columns(*columns, batch_size=self.batch_size)
        return super().like(**changes)

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1024, 256)
    def forward(self, x):
        peak()
        return self.linear(x / 255)

highest = [0]
def peak():
    highest[0] = max(highest[0], anonymous())

def run(rows, folder, budget, epochs):
    images = stored(Images(torch.arange(rows), batch_size=256), folder + "/x", budget=budget)
    body = freeze(Body())
    features = cache(body, images, path=folder + "/h", budget=budget)
    y = torch.arange(rows) % 10
    data = features.like(features.columns[0], y, shuffle=True)
    head = nn.Linear(256, 10)
    for tick in train(Step(head, cross_entropy(), torch.optim.SGD(head.parameters(), 0.01)), data, epochs):
        if tick.i % 16 == 0:
            peak()
    return images.columns[0].nbytes, features.columns[0].nbytes

torch.set_num_threads(1)
run(1024, sys.argv[1] + "/small", 0, 1)  # what torch itself takes at first
before = anonymous()
highest[0] = 0
images, features = run(ROWS, sys.argv[1] + "/large", BUDGET, 2)
print(images, features, BUDGET, highest[0] - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_a_set_ten_times_larger_than_the_budget_trains_in_flat_memory(tmp_path):
    command = [sys.executable, "-W", "error", "-c", LARGE, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    shutil.rmtree(tmp_path / "large", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    images, features, budget, grown = map(int, done.stdout.split()[-4:])
    assert images >= 10 * budget and features >= 10 * budget
    assert grown < budget, f"{grown:,} bytes more memory, budget {budget:,}"

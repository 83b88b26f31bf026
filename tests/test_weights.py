"""weights: what was saved comes back to the bit, and nothing else comes back at all."""

import errno
import hashlib
import io
import json
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from loopback import Answer, shelf
from safetensors.torch import save_file
from torch import nn

import ftlearn.weights
from ftlearn.weights import (
    WeightsError,
    bundled,
    check_fit,
    download,
    file_sha256,
    load_into,
    load_weights,
    save_weights,
    writing,
)


def net(classes=3):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "net.safetensors", net().state_dict(), {"recipe": "fresh", "seed": 0})
    return tmp_path / "net.safetensors"


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


# writing


def test_writing_replaces_in_one_step(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with writing(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old" and beside.parent == tmp_path
    assert target.read_text() == "new" and listing(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("odd")])
def test_writing_keeps_the_old_file_when_it_fails(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), writing(target) as beside:
        beside.write_text("half")
        raise error
    assert target.read_text() == "old" and listing(tmp_path) == ["a.txt"]


def test_writing_leaves_nothing_when_the_rename_fails(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("read-only file system")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="read-only"), writing(tmp_path / "a.txt") as beside:
        beside.write_text("new")
    assert listing(tmp_path) == []


def test_two_writers_do_not_meet(tmp_path):
    with writing(tmp_path / "a") as one, writing(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1" and listing(tmp_path) == ["a"]


def test_writing_obeys_the_umask(tmp_path):
    (tmp_path / "plain").write_text("x")
    with writing(tmp_path / "ours") as beside:
        beside.write_text("x")
    save_weights(tmp_path / "net.safetensors", net().state_dict(), {})
    rights = (tmp_path / "plain").stat().st_mode
    for name in ("ours", "net.safetensors", "net.json"):
        assert (tmp_path / name).stat().st_mode == rights


def test_writing_nothing_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path / "a"):
        pass
    assert listing(tmp_path) == []


def test_writing_refuses_a_folder_and_a_missing_one(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: give the name"), writing(tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match="make it first"), writing(tmp_path / "no" / "a"):
        pass


# saving


def test_tensors_and_card_come_back(path):
    model = net()
    made = save_weights(path, model.state_dict(), {"recipe": "fresh"})
    state, card = load_weights(path)
    assert card == made and card["recipe"] == "fresh" and card["file"] == "net.safetensors"
    assert card["bytes"] == path.stat().st_size and card["sha256"] == file_sha256(path)
    assert list(sorted(state)) == sorted(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value) and state[name].dtype == value.dtype


def test_half_precision_halves_floats_and_keeps_counters(tmp_path):
    state = net().state_dict()
    save_weights(tmp_path / "h.safetensors", state, {}, half=True)
    back, _ = load_weights(tmp_path / "h.safetensors")
    assert back["0.weight"].dtype == torch.half
    assert back["1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(back["0.weight"].float(), state["0.weight"].half().float())
    assert load_into(net(), back)[0].weight.dtype == torch.float32


def test_half_precision_refuses_what_would_become_infinite(tmp_path):
    with pytest.raises(ValueError, match="'a' has numbers above 65504"):
        save_weights(tmp_path / "h.safetensors", {"a": torch.tensor([1e5])}, {}, half=True)


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    state = net().state_dict()
    one = save_weights(tmp_path / "a.safetensors", state, {})
    two = save_weights(tmp_path / "b.safetensors", dict(reversed(state.items())), {"x": 1})
    assert one["sha256"] == two["sha256"]


def test_views_and_shared_tensors_are_saved(tmp_path):
    x = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "v.safetensors", {"x": x, "t": x.T, "row": x[1], "again": x}, {})
    back, _ = load_weights(tmp_path / "v.safetensors")
    assert torch.equal(back["t"], x.T) and torch.equal(back["again"], x)


@pytest.mark.parametrize(
    "name, state, card, error, says",
    [
        ("a.pth", {}, {}, ValueError, "should end in .safetensors"),
        ("a.safetensors", {"step": 3}, {}, TypeError, "'step' is a int"),
        ("a.safetensors", {}, {"x": torch.ones(1)}, TypeError, "not JSON serializable"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path, name, state, card, error, says):
    with pytest.raises(error, match=says):
        save_weights(tmp_path / name, state, card)
    assert listing(tmp_path) == []


def test_a_failing_save_keeps_the_old_pair(path, monkeypatch):
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(TypeError):
        save_weights(path, net().state_dict(), {"x": object()})
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


# loading


def pickled(_):
    data = io.BytesIO()
    torch.save({"a": torch.ones(2)}, data)
    return data.getvalue()


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "was changed: its SHA-256 is"),
        (lambda b: b[:20] + bytes([b[20] ^ 32]) + b[21:], "was changed"),
        (lambda b: b[:-1], r"is truncated, \d+ of \d+ bytes"),
        (lambda b: b[:9], "is truncated"),
        (lambda b: b + b"\0", "was changed"),
        (lambda b: b"", "is no safetensors file"),
        (lambda b: b"<!doctype html><title>404</title>" * 9, "is no safetensors file"),
        (pickled, "is a pickle, which can run code"),
        (lambda b: pickle.dumps({"a": list(range(300))}), "is a pickle, which can run code"),
    ],
)
def test_other_bytes_are_refused(path, change, says):
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(WeightsError, match=says):
        load_weights(path)


def test_every_single_byte_counts(tmp_path):
    path = tmp_path / "s.safetensors"
    save_weights(path, {"a": torch.ones(2)}, {})
    good = path.read_bytes()
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ 4]) + good[i + 1 :])
        with pytest.raises(WeightsError):
            load_weights(path)


def test_a_pickle_is_never_opened(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "it ran"), "w"))

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError):
        load_weights(path)
    assert not (tmp_path / "it ran").exists()


def test_missing_files_and_folders_are_told_apart(path):
    with pytest.raises(FileNotFoundError, match="There are no weights at"):
        load_weights(path.with_name("gone.safetensors"))
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_weights(path.parent)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="There is no card"):
        load_weights(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bytes": "many", "sha256": ""}', "not json"])
def test_a_broken_card_is_named(path, text):
    path.with_suffix(".json").write_text(text)
    with pytest.raises(WeightsError, match="is no card"):
        load_weights(path)


def test_a_hash_from_elsewhere_replaces_the_card(path):
    right = file_sha256(path)
    assert load_weights(path, sha256=right.upper())[1]["recipe"] == "fresh"
    with pytest.raises(WeightsError, match="expected 000000000000"):
        load_weights(path, sha256="0" * 64)
    path.with_suffix(".json").unlink()
    state, card = load_weights(path, sha256=right)
    assert card == {} and len(state) == len(net().state_dict())


def test_a_damaged_file_with_its_own_hash_is_still_refused(path):
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    facts = {"bytes": len(data) - 4, "sha256": file_sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(path)


# into a model


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda s: s.pop("0.weight"), r"has no '0.weight', which is \(4, 1, 3, 3\)"),
        (lambda s: s.update(more=torch.ones(2)), r"has 'more' \(2,\), which the model has not"),
        (
            lambda s: s.update({"3.weight": torch.ones(5, 4)}),
            r"has '3.weight' as \(5, 4\), but it is \(3, 4\) in the model",
        ),
        (
            lambda s: s.update({"conv.weight": s.pop("0.weight")}),
            "has no '0.weight'.* Nearest names: conv.weight",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_not_copied(change, says):
    model, state = net(), net().state_dict()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    change(state)
    with pytest.raises(WeightsError, match=says):
        load_into(model, state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_first_difference_in_the_order_of_the_model_is_named():
    state = net(5).state_dict()
    del state["1.bias"]
    with pytest.raises(WeightsError, match="^That file has no '1.bias'"):
        check_fit(net(), state, "That file")


def test_load_into_returns_the_same_model_with_these_numbers():
    source, model = net().eval(), net().eval()
    assert load_into(model, source.state_dict()) is model
    x = torch.rand(2, 1, 3, 3)
    assert torch.equal(model(x), source(x))


# what ships


def test_bundled_names_what_there_is():
    with pytest.raises(ValueError, match="No weights 'lettres' are bundled: choose from"):
        bundled("lettres")


def test_what_ships_is_small_and_is_what_its_card_says():
    from importlib.resources import files

    names = [p.name for p in (files("ftlearn") / "bundled").iterdir()]
    shipped = [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]
    assert shipped
    for name in shipped:
        state, card = load_weights(bundled(name))
        assert card["bytes"] <= 3_000_000 and card["recipe"]
        assert all(v.dtype == torch.half for v in state.values() if v.is_floating_point())


def test_a_file_without_tensors_is_a_file(tmp_path):
    save_file({}, tmp_path / "e.safetensors")
    digest = file_sha256(tmp_path / "e.safetensors")
    assert load_weights(tmp_path / "e.safetensors", digest) == ({}, {})


# from the web

DATA = bytes(range(256)) * 400  # 102,400 bytes
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with shelf() as server:
        server.files["net.pth"] = DATA
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    """`download` of the server's file with short waits; keywords change what is asked for."""

    def call(name="net.pth", sha256=SHA, **options):
        options = {"folder": tmp_path, "timeout": 5.0, "pause": 0, "progress": False, **options}
        return download(server.url(name), sha256, **options)

    return call


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 400


def test_a_file_is_fetched_once(server, fetch, tmp_path):
    assert fetch() == tmp_path / "net.pth"
    assert (tmp_path / "net.pth").read_bytes() == DATA and listing(tmp_path) == ["net.pth"]
    assert fetch() == fetch(sha256=SHA[:8]) == fetch(sha256=SHA.upper()) == tmp_path / "net.pth"
    assert server.asked == [None] and sum(server.sent) == len(DATA)


def test_the_place_is_the_cache_of_torch(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = fetch(folder=None)
    assert path == tmp_path / "home" / "hub" / "checkpoints" / "net.pth"
    assert path == Path(torch.hub.get_dir()) / "checkpoints" / "net.pth"


def test_what_torch_has_put_there_is_found_without_a_request(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "net.pth").write_bytes(DATA)
    assert fetch(folder=None, sha256=SHA[:8]) == folder / "net.pth" and server.asked == []


def test_a_wrong_file_that_was_there_is_neither_used_nor_lost(server, fetch, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="move it away to download it again") as error:
        fetch()
    assert one_sentence(error) and server.asked == []
    assert (tmp_path / "net.pth").read_bytes() == b"something else"


def test_an_empty_folder_has_no_such_file(server, fetch, tmp_path):
    with pytest.raises(WeightsError, match="There is no file at http.*gone.pth .404") as error:
        fetch("gone.pth")
    assert one_sentence(error) and len(server.asked) == 1 and "gone.pth" not in listing(tmp_path)


@pytest.mark.parametrize("code, asked", [(403, 1), (429, 3), (503, 3)])
def test_a_server_that_refuses_is_asked_again_if_that_may_help(server, fetch, code, asked):
    server.status = [code] * 9
    with pytest.raises(WeightsError, match=f"answered {code} .*give a local file") as error:
        fetch()
    assert one_sentence(error) and len(server.asked) == asked


def test_a_server_that_is_busy_for_a_moment(server, fetch):
    server.status = [503]
    assert fetch().read_bytes() == DATA and len(server.asked) == 2


def test_a_connection_that_drops_is_taken_up_again(server, fetch, tmp_path):
    server.cuts = [30_000, 20_000]
    assert fetch().read_bytes() == DATA and listing(tmp_path) == ["net.pth"]
    assert server.asked == [None, "bytes=30000-", "bytes=50000-"]
    assert sum(server.sent) == len(DATA)


def test_a_connection_that_drops_before_the_answer(server, fetch):
    server.status = [None]
    assert fetch().read_bytes() == DATA and len(server.asked) == 2


def test_what_stays_truncated_is_kept_for_the_next_call(server, fetch, tmp_path):
    server.cuts = [30_000, 20_000, 10_000]
    with pytest.raises(WeightsError, match="was cut off at 60000 of 102400 bytes") as error:
        fetch()
    assert one_sentence(error) and listing(tmp_path) == ["net.pth.partial"]
    assert (tmp_path / "net.pth.partial").read_bytes() == DATA[:60_000]
    assert fetch().read_bytes() == DATA and sum(server.sent) == len(DATA)


def test_a_server_without_ranges_starts_again(server, fetch):
    server.ranges, server.cuts = False, [30_000]
    assert fetch().read_bytes() == DATA
    assert sum(server.sent) == 30_000 + len(DATA)


def test_a_server_that_does_not_say_how_long_the_file_is(server, fetch, capsys):
    server.length = False
    assert fetch(progress=True).read_bytes() == DATA


def test_a_wrong_hash_names_both_and_leaves_nothing(server, fetch, tmp_path):
    server.files["net.pth"] = DATA[:-1] + b"!"
    found = hashlib.sha256(server.files["net.pth"]).hexdigest()
    with pytest.raises(WeightsError, match=f"has SHA-256 {found}, not {SHA}: it was rem") as error:
        fetch()
    assert one_sentence(error) and listing(tmp_path) == [] and len(server.asked) == 1


@pytest.mark.parametrize("old", [b"not the beginning", b"x" * len(DATA), b"x" * 200_000])
def test_a_partial_file_of_something_else_is_not_held_against_the_server(
    server, fetch, tmp_path, old
):
    (tmp_path / "net.pth.partial").write_bytes(old)
    assert fetch().read_bytes() == DATA and len(server.asked) == 2


def test_a_partial_file_that_only_lacks_its_name(server, fetch, tmp_path):
    (tmp_path / "net.pth.partial").write_bytes(DATA)
    assert fetch().read_bytes() == DATA and server.sent == []


def test_a_partial_file_longer_than_what_a_server_without_ranges_sends(server, fetch, tmp_path):
    server.ranges = False
    (tmp_path / "net.pth.partial").write_bytes(DATA + b"more")
    assert fetch().read_bytes() == DATA


def test_a_slow_server_is_not_a_stalled_one(server, fetch):
    server.trickle = 8_192  # 13 pieces, 50 ms apart: longer in all than the timeout
    assert fetch(timeout=0.5).read_bytes() == DATA and len(server.asked) == 1


def test_a_stalled_server_is_left_after_the_timeout(server, fetch, tmp_path):
    server.stall_at = 20_000
    with pytest.raises(WeightsError, match="got nothing for 0.25 s at 60000 of 102400") as error:
        fetch(timeout=0.25)
    assert one_sentence(error) and listing(tmp_path) == ["net.pth.partial"]
    server.stall_at = None
    assert fetch().read_bytes() == DATA and sum(server.sent) == len(DATA)


def test_a_server_that_never_answers(monkeypatch, tmp_path):
    import socket

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/net.pth"
        with pytest.raises(WeightsError, match="got nothing for 0.05 s: call again"):
            download(url, SHA, tmp_path, False, timeout=0.05, pause=0)
    with pytest.raises(WeightsError, match="There is no connection to 127.0.0.1:.*refused"):
        download(url, SHA, tmp_path, False)


def test_offline_gets_a_sentence_at_once_with_what_works(server, fetch, monkeypatch):
    import socket

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(WeightsError, match="Name or service not known") as error:
        fetch()
    assert "weights=..., or use backbone='letters', which ships" in str(error.value)
    assert one_sentence(error) and server.asked == []


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread here")
def test_ctrl_c_in_the_middle_and_a_second_call(server, fetch, tmp_path):
    main, seen = threading.main_thread().ident, []
    server.stall_at = 40_000

    def interrupt():
        partial = tmp_path / "net.pth.partial"
        while (
            not partial.exists() or partial.stat().st_size == 0
        ):  # before that, no `with` holds it
            time.sleep(0.01)
        seen.append(listing(tmp_path))
        signal.pthread_kill(main, signal.SIGINT)

    server.at_stall = interrupt
    with pytest.raises(KeyboardInterrupt):
        fetch()
    server.stall_at = None
    kept = (tmp_path / "net.pth.partial").stat().st_size
    assert seen == [["net.pth.partial"]] == [listing(tmp_path)] and kept <= 40_000
    assert fetch().read_bytes() == DATA and listing(tmp_path) == ["net.pth"]
    assert server.asked == [None, f"bytes={kept}-" if kept else None]
    assert sum(server.sent) == len(DATA) + 40_000 - kept


def test_several_at_once_write_one_good_file(server, fetch, tmp_path):
    server.trickle = 10_240
    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda _: fetch(), range(6)))
    assert paths == [tmp_path / "net.pth"] * 6 and paths[0].read_bytes() == DATA


@pytest.mark.parametrize("length", [True, False])
def test_several_at_once_and_fast(server, tmp_path, length):
    server.length = length
    with ThreadPoolExecutor(6) as pool:
        for i in range(15):
            meet, folder = threading.Barrier(6), tmp_path / str(i)

            def call(_, meet=meet, folder=folder):
                meet.wait()
                return download(server.url("net.pth"), SHA, folder, progress=False, pause=0)

            paths = list(pool.map(call, range(6)))
            assert paths == [folder / "net.pth"] * 6 and paths[0].read_bytes() == DATA


@pytest.mark.parametrize("others", [1, 2, 3])
def test_what_another_process_takes_away_is_found_under_its_name(
    server, fetch, tmp_path, monkeypatch, others
):
    """Between the question and the answer the partial file goes; the last time for good."""
    partial, taken = tmp_path / "net.pth.partial", []

    def urlopen(*args, true=ftlearn.weights.urlopen, **options):
        partial.unlink()
        taken.append(1)
        if len(taken) == others:
            (tmp_path / "net.pth").write_bytes(DATA)
        return true(*args, **options)

    monkeypatch.setattr(ftlearn.weights, "urlopen", urlopen)
    assert fetch().read_bytes() == DATA and len(taken) == others


def test_the_beginning_of_another_process_is_not_held_against_the_server(
    server, fetch, tmp_path, monkeypatch
):
    """Ours was complete and got its name from another one; a third had begun anew."""

    def attempt(*_, true=ftlearn.weights._attempt):
        said = true(*_)
        (tmp_path / "net.pth.partial").rename(tmp_path / "net.pth")
        (tmp_path / "net.pth.partial").write_bytes(DATA[:10])
        return said

    monkeypatch.setattr(ftlearn.weights, "_attempt", attempt)
    assert fetch().read_bytes() == DATA
    assert listing(tmp_path) == ["net.pth", "net.pth.partial"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(server, fetch, tmp_path):
    (tmp_path / "net.pth.partial").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="Cannot write to .*No space left") as error:
        fetch()
    assert one_sentence(error) and "TORCH_HOME" in str(error.value)


def test_a_folder_that_cannot_be_made_or_written(server, fetch, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        WeightsError, match="Cannot write to .*file.*: move away what is in the way"
    ):
        fetch(folder=tmp_path / "file" / "cache")

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(WeightsError, match="Permission denied.: see who may write there"):
        fetch()


@pytest.mark.parametrize(
    "name, words",
    [
        ("net.pth", "net.pth cannot be read .Is a directory.: move it away"),
        ("net.pth.partial", "Cannot write to .*partial .Is a directory.: move away what is in the"),
    ],
)
def test_a_folder_where_the_file_should_be(fetch, tmp_path, name, words):
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsError, match=words) as error:
        fetch()
    assert one_sentence(error) and listing(tmp_path) == [name]


@pytest.mark.parametrize("length", ["abc", "-5", ""])
def test_a_length_that_is_none_is_no_length(server, fetch, monkeypatch, length):
    send = Answer.send_header
    change = {"Content-Length": length}
    monkeypatch.setattr(Answer, "send_header", lambda self, k, v: send(self, k, change.get(k, v)))
    assert fetch(progress=True).read_bytes() == DATA and len(server.asked) == 1


@pytest.mark.parametrize(
    "target, words",
    [
        (None, "leads on to no file .302."),  # to itself, for ever
        ("file:///etc/passwd", "leads on to no file .302."),
        ("http://127.0.0.1:port/net.pth", "leads on to an address that is none"),
    ],
)
def test_redirects_that_lead_nowhere(server, fetch, monkeypatch, target, words):
    def redirect(self, code):
        self.send_response(code)
        self.send_header("Location", target or self.path)
        self.end_headers()

    monkeypatch.setattr(Answer, "send_error", redirect)
    server.status = [302] * 99
    with pytest.raises(WeightsError, match=words) as error:
        fetch()
    assert one_sentence(error)


def test_a_redirect_to_half_an_address(fetch, monkeypatch):
    def urlopen(*_, **__):  # the true one would leave a socket to the garbage collector
        raise ValueError("Invalid IPv6 URL")

    monkeypatch.setattr(ftlearn.weights, "urlopen", urlopen)
    with pytest.raises(WeightsError, match="leads on to an address that is none") as error:
        fetch()
    assert one_sentence(error)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "net.pth",
        "ftp://host/net.pth",
        "https://host/",
        "https:///net.pth",
        "https://h/a b",
        "https://h/a\nb",
        "https://host/é.pth",
        "http://[::1/net.pth",
        "http://host:port/net.pth",
        None,
    ],
)
def test_only_addresses_of_files_on_the_web_are_asked(url, tmp_path):
    with pytest.raises(WeightsError, match="is no address of a file on the web") as error:
        download(url, SHA, tmp_path)
    assert one_sentence(error)


@pytest.mark.parametrize("sha256", ["", "abc", None, "z" * 64, SHA + "0", 12345678])
def test_a_hash_is_asked_for(fetch, sha256):
    with pytest.raises(WeightsError, match="give at least its first 8 hexadecimal digits"):
        fetch(sha256=sha256)


def test_progress_is_a_line_where_there_is_no_terminal(fetch, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    fetch(progress=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("kB of 102kB, 0 s") and said[-1] == "net.pth: 102kB of 102kB, 0 s"


def test_progress_is_a_bar_in_a_terminal(fetch, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fetch(progress=True)
    said = capsys.readouterr()
    assert said.out == "" and "net.pth:" in said.err and "102k" in said.err

"""Pretraining: sources, endless data, one cycle, the average, and the same bytes twice."""

import json

import pytest
import torch
from torch import nn

from ftlearn import pretrain as module
from ftlearn.models import glyphnet
from ftlearn.pretrain import (
    SOURCES,
    Average,
    Stream,
    fractals,
    letters,
    one_cycle,
    pretrain,
    random_labels,
)
from ftlearn.weights import bundled, file_sha256, load_weights


def test_random_labels_keep_pictures_and_class_sizes_and_nothing_else():
    (x, y), (same, dealt) = letters(), random_labels()
    assert x is same and torch.equal(y.bincount(), dealt.bincount())
    agree = (y == dealt).float().mean()
    assert agree < 0.02
    assert torch.equal(dealt, random_labels()[1])


def test_fractals_are_pure_and_in_the_letters_format():
    x, y = fractals(classes=6, variants=3, points=400)
    again, _ = fractals(classes=6, variants=3, points=400)
    assert torch.equal(x, again) and x.dtype == torch.uint8 and x.shape == (18, 1, 48, 48)
    assert y.bincount().tolist() == [3] * 6
    assert x[:, :, :5].sum() == x[..., -5:].sum() == 0


def test_batches_are_pure_functions_of_seed_and_position():
    pictures, labels = fractals(classes=3, variants=2, points=200)
    stream = Stream(pictures, labels, 4, batch_size=8, seed=1)
    batches = list(stream.batches())
    assert len(batches) == stream.steps == 4 and len(stream) == 32
    for a, b in zip(batches[2:], stream.batches(start=2), strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    other = next(Stream(pictures, labels, 4, batch_size=8, seed=2).batches())
    assert not torch.equal(other[0], batches[0][0])
    assert not torch.equal(next(stream.batches(epoch=1))[0], batches[0][0])


def test_one_cycle_rises_and_falls():
    rates = [one_cycle(i / 100) for i in range(101)]
    assert rates[0] == 0 and max(rates) == rates[25] == 1 and abs(rates[-1]) < 1e-12
    assert rates[:26] == sorted(rates[:26]) and rates[25:] == sorted(rates[25:], reverse=True)


def test_the_average_follows_by_its_rule():
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    average = Average(model, decay=0.5)
    assert average.model is not model
    expected = model[0].weight.detach().clone()
    for i in range(1, 30):
        with torch.no_grad():
            model[0].weight += 1
        average()
        keep = min(0.5, i / (i + 9))
        expected = keep * expected + (1 - keep) * model[0].weight.detach()
    assert torch.allclose(average.model[0].weight, expected, atol=1e-5)


@pytest.fixture
def small(monkeypatch):
    source = fractals(classes=5, variants=2, points=200)
    monkeypatch.setitem(SOURCES, "fractals", lambda: source)


def test_the_same_run_writes_the_same_bytes(small, tmp_path):
    state = torch.get_rng_state()
    first, second = [pretrain("fractals", 20, path=tmp_path / f"{n}.safetensors") for n in "ab"]
    assert torch.equal(torch.get_rng_state(), state)
    assert first["sha256"] == second["sha256"] == file_sha256(tmp_path / "a.safetensors")
    other = pretrain("fractals", 20, seed=1, path=tmp_path / "c.safetensors")
    assert other["sha256"] != first["sha256"]


def test_the_card_says_how_and_the_network_loads(small, tmp_path):
    path = tmp_path / "w.safetensors"
    card = pretrain("fractals", 2, path=path)
    assert json.loads(path.with_suffix(".json").read_text()) == card
    assert {"recipe", "seed", "versions", "source", "source accuracy", "bytes"} <= set(card)
    state, _ = load_weights(path)
    assert all(v.dtype in (torch.float16, torch.int64) for v in state.values())
    model = glyphnet(5, path).eval()
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


def test_an_unknown_source_or_place_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="no source 'cats': choose from letters, random labels"):
        pretrain("cats", 1, path=tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="safetensors file in a folder that exists"):
        pretrain(updates=1, path=tmp_path / "nowhere" / "w.safetensors")
    with pytest.raises(ValueError, match="safetensors file in a folder that exists"):
        pretrain(updates=1, path=tmp_path / "w.pt")
    for updates in (0, -3, 2.5):
        with pytest.raises(ValueError, match=f"updates is {updates}: give a whole number of at"):
            pretrain(updates=updates, path=tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_bundled_weights_are_what_their_card_says():
    state, card = load_weights(bundled("letters"))
    assert card["source"] == "letters" and card["updates"] == module.UPDATES
    assert card["bytes"] < 3_000_000 and len(card["classes"]) == len(state["head.2.bias"])
    assert card["source accuracy"] > 0.7


def test_the_bundled_network_reads_letters_that_it_has_not_seen():
    stream = Stream(*letters(), 2, 250, seed=12345)
    card = load_weights(bundled("letters"))[1]
    model = glyphnet(len(card["classes"]), "letters").eval()
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean().item() for x, y in stream.batches()]
    assert abs(sum(right) / 2 - card["source accuracy"]) < 0.08

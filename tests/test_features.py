"""Cached features are live features; the heads are scikit-learn's."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlearn import features, store
from ftlearn.data import Columns, HeldOut
from ftlearn.features import (
    Unit,
    cache,
    knn,
    linear_probe,
    nearest_class_mean,
    pseudo_labels,
)
from ftlearn.freezing import fingerprint, freeze
from ftlearn.losses import cross_entropy
from ftlearn.models import split
from ftlearn.training import Step, evaluate, fit, predict


def trained(model, head, data, epochs=3):
    optimizer = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], 1e-3)
    torch.manual_seed(3)
    return fit(Step(model, cross_entropy(), optimizer), data, epochs=epochs).losses


def used(model, images):
    """A model whose batch statistics have seen something."""
    model.train()(images[0])
    return model


@pytest.mark.parametrize("shuffle", [False, True])
def test_training_on_the_cache_gives_the_same_bits(model, images, shuffle):
    body, head = split(used(model, images), "head")
    freeze(body)
    twin, data = copy.deepcopy(head), Columns(*images, batch_size=8, shuffle=shuffle)
    live = trained(model, head, data)
    assert live == trained(twin, twin, cache(body, data))
    assert fingerprint(head) == fingerprint(twin)


def test_an_uneven_last_batch_stays_within_the_promise(model, images):
    body, head = split(used(model, images), "head")
    freeze(body)
    twin, data = copy.deepcopy(head), Columns(*images, batch_size=13, shuffle=True)
    even = cache(body, data.like(batch_size=8)).columns[0]
    assert (cache(body, data).columns[0] - even).abs().max() <= 1e-5 * even.abs().max()
    pairs = zip(trained(model, head, data, 7), trained(twin, twin, cache(body, data), 7))
    assert max(abs(a - b) for a, b in list(pairs)[:20]) <= 1e-4


def test_the_body_runs_once_over_the_set_and_is_left_alone(model, images):
    body, _ = split(used(model, images), "head")
    freeze(body)
    model.train()
    before, modes, calls = fingerprint(model), [p.training for p in model.modules()], []
    random = torch.get_rng_state()
    hook = body.register_forward_pre_hook(lambda *_: calls.append(1))
    data = cache(body, Columns(*images, batch_size=8))
    hook.remove()
    assert len(calls) == 4
    assert fingerprint(model) == before and torch.equal(torch.get_rng_state(), random)
    assert modes == [p.training for p in model.modules()]
    assert not data.columns[0].requires_grad and data.device == images[0].device


def test_only_what_is_frozen_is_cached(model, images):
    body, _ = split(model, "head")
    with pytest.raises(ValueError, match=r"cache\(freeze\(module\), data\)"):
        cache(body, Columns(*images))
    body.requires_grad_(False)  # the naive recipe is not enough
    with pytest.raises(ValueError, match="frozen module"):
        cache(body, Columns(*images))


class Two(nn.Module):
    def forward(self, x):
        return x + 1, {"a": x * 2, "b": [x.sum(1)]}


def four():
    x = torch.arange(12.0).view(4, 3)
    return Columns(x, torch.arange(4), batch_size=3, shuffle=True)


def test_several_outputs_become_a_column_each():
    data, two = four(), freeze(Two())
    x, y = data.columns
    new = cache(two, data)
    expected = x + 1, x * 2, x.sum(1), y
    assert all(torch.equal(a, b) for a, b in zip(new.columns, expected, strict=True))
    assert new.derived == dict.fromkeys(range(3), fingerprint(two)) and data.derived == {}
    appended = cache(two, data, append=True)
    expected = x, y, x + 1, x * 2, x.sum(1)
    assert all(torch.equal(a, b) for a, b in zip(appended.columns, expected, strict=True))
    assert set(appended.derived) == {2, 3, 4}


def test_settings_are_kept_and_another_column_can_be_read():
    class Double(nn.Module):
        def forward(self, y):
            return 2 * y

    data = four().like(batch_size=2, seed=7)
    new = cache(freeze(Double()), data, column=1)
    assert (new.batch_size, new.shuffle, new.seed) == (2, True, 7)
    assert new.columns[0] is data.columns[0] and new.columns[1].tolist() == [0, 2, 4, 6]
    assert set(new.derived) == {1}
    held = HeldOut(*data.columns, quiet=True)
    assert isinstance(cache(freeze(Double()), held, column=1), HeldOut)


@pytest.mark.parametrize("column", [-1, 2])
def test_a_column_that_is_not_there_is_refused(column):
    with pytest.raises(ValueError, match=f"There is no column {column}: the set has 2"):
        cache(freeze(nn.Identity()), four(), column=column)


def test_marks_follow_their_columns_through_a_chain():
    linear, two = freeze(nn.Linear(3, 3)), freeze(Two())
    once = cache(linear, four())
    both = cache(freeze(nn.Identity()), once, append=True)
    assert both.derived == {
        0: fingerprint(linear),
        2: f"{fingerprint(linear)}+{fingerprint(nn.Identity())}",
    }
    chain = cache(two, both)  # three columns where there was one: the last mark moves by two
    start = f"{fingerprint(linear)}+"
    assert set(chain.derived) == {0, 1, 2, 4} and chain.derived[4] == both.derived[2]
    assert all(chain.derived[i] == start + fingerprint(two) for i in range(3))


@pytest.mark.parametrize("folder", [None, "outputs"])
def test_the_weights_are_hashed_once_for_a_set(folder, tmp_path, monkeypatch):
    linear, again = freeze(nn.Linear(3, 3)), freeze(nn.Linear(3, 2))
    once, calls, marks = cache(linear, four()), [], (fingerprint(linear), fingerprint(again))
    for place in features, store:
        monkeypatch.setattr(place, "fingerprint", lambda m: calls.append(m) or fingerprint(m))
    path = folder and tmp_path / folder
    for _ in range(2):  # made, then read
        assert cache(again, once, path=path, report=False).derived == {0: "+".join(marks)}
        assert calls == [again] and not calls.clear()


def blobs(device="cpu", classes=4, each=15, width=6, seed=0, batch_size=16):
    torch.manual_seed(seed)
    centres = 2 * torch.eye(classes, width)
    y = torch.arange(classes * each) % classes
    h = centres[y] + 0.7 * torch.randn(len(y), width) + 0.3
    return Columns(h.to(device), y.to(device), batch_size=batch_size)


def unit(data):
    return F.normalize(data.columns[0].flatten(1), dim=1).cpu().numpy()


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learns(device, classes):
    from sklearn.linear_model import LogisticRegression

    data, new = blobs(device, classes), blobs(device, classes, seed=1)
    head = linear_probe(data, strength=3.0)
    oracle = LogisticRegression(C=3.0, max_iter=1000).fit(unit(data), data.columns[1].cpu().numpy())
    z = predict(head, new)
    assert z.shape == (len(new), classes) and z.device.type == device.type
    assert np.allclose(z.softmax(1).cpu(), oracle.predict_proba(unit(new)), atol=1e-4)
    share = (oracle.predict(unit(new)) == new.columns[1].cpu().numpy()).mean()
    assert evaluate(head, new) == pytest.approx(share)


def test_the_nearest_mean_is_scikit_learns(device):
    from sklearn.neighbors import NearestCentroid

    data, new = blobs(device), blobs(device, seed=1)
    oracle = NearestCentroid().fit(unit(data), data.columns[1].cpu().numpy())
    z = predict(nearest_class_mean(data), new)
    assert (z.argmax(1).cpu().numpy() == oracle.predict(unit(new))).all()
    distance = torch.cdist(torch.tensor(unit(new)), torch.tensor(oracle.centroids_).float())
    term = (z.cpu() + distance.square() / 2).std(1)  # the same for every class
    assert term.max() < 1e-5


@pytest.mark.parametrize("k", [1, 4, 5])
def test_the_neighbours_are_scikit_learns(device, k):
    from sklearn.neighbors import KNeighborsClassifier

    data, new = blobs(device), blobs(device, seed=1)
    oracle = KNeighborsClassifier(k).fit(unit(data), data.columns[1].cpu().numpy())
    z = predict(knn(data, k), new)
    assert (z.argmax(1).cpu().numpy() == oracle.predict(unit(new))).all()
    assert np.allclose(z.cpu() / k, oracle.predict_proba(unit(new)))


HEADS = {"probe": linear_probe, "mean": nearest_class_mean, "knn": lambda data: knn(data, 3)}


@pytest.mark.parametrize("name", HEADS)
def test_body_and_head_are_a_model(model, images, name):
    body, _ = split(used(model, images), "head")
    freeze(body)
    x, y = images[0], torch.arange(32, device=images[0].device) % 4
    data = Columns(x, y, batch_size=8)
    head = HEADS[name](cache(body, data))
    assert isinstance(head, nn.Module)
    z = predict(nn.Sequential(body, head), data)
    assert torch.equal(z, predict(head, cache(body, data))) and z.shape == (32, 4)
    again = copy.deepcopy(head)
    again.load_state_dict(head.state_dict())
    assert fingerprint(again) == fingerprint(head)


@pytest.mark.parametrize("name", HEADS)
def test_only_the_direction_counts(name):
    data = blobs()
    head, strong = HEADS[name](data), HEADS[name](data.like(5 * data.columns[0], data.columns[1]))
    assert torch.allclose(predict(head, data), predict(strong, data), atol=1e-3)
    maps = torch.randn(8, 6, 1, 1)
    assert (
        torch.equal(Unit()(maps), Unit()(maps.flatten(1)))
        and Unit()(maps.bfloat16()).dtype == torch.float32
    )


def test_the_probe_can_be_trained_on_from_where_it_is():
    data = blobs()
    head = linear_probe(data)
    assert all(p.requires_grad for p in head.parameters())
    first = trained(head, head, data, epochs=1)[0]
    assert first < 1.0  # far below ln 4: it starts as the probe


@pytest.mark.parametrize("fit_head", [linear_probe, nearest_class_mean])
def test_a_class_without_examples_is_named(fit_head):
    data = blobs()
    with pytest.raises(ValueError, match="Class 2 has no example"):
        fit_head(data.take(data.columns[1] != 2))


@pytest.mark.parametrize("k", [0, 61, -1])
def test_more_neighbours_than_examples_are_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}, but there are 60 examples"):
        knn(blobs(), k)


def test_pseudo_labels_name_clusters_and_read_only_what_is_labelled(device):
    data = blobs(device, each=100)
    rows = torch.arange(4, device=device)
    guess = pseudo_labels(data, rows)
    assert guess.dtype == torch.int64 and guess.shape == (400,) and guess.device.type == device.type
    assert torch.equal(guess[rows], data.columns[1][rows])
    one = predict(nearest_class_mean(data.take(rows)), data).argmax(1)
    right = (guess == data.columns[1]).float().mean()
    assert right >= (one == data.columns[1]).float().mean() and right > 0.8
    hidden = torch.zeros_like(data.columns[1]).index_copy(0, rows, data.columns[1][rows])
    assert torch.equal(guess, pseudo_labels(data.like(data.columns[0], hidden), rows))
    assert torch.equal(guess, pseudo_labels(data, rows))


# ------------------------------------------------------- sets that change from epoch to epoch


class Restless(Columns):
    """A set whose examples change from epoch to epoch."""

    constant = False


def test_a_cache_of_a_set_that_changes_is_refused_before_anything_runs():
    passes, body = [], freeze(nn.Flatten())
    body.register_forward_hook(lambda *_: passes.append(1))
    data = Restless(torch.randn(12, 1, 4, 4), torch.arange(12) % 3, batch_size=2)
    for append in (False, True):
        with pytest.raises(ValueError, match="change from epoch to epoch, which a cache cannot"):
            cache(body, data, append=append)
    assert passes == []


@pytest.mark.parametrize("head", [linear_probe, nearest_class_mean, knn])
def test_a_head_that_would_see_no_change_refuses_a_set_that_changes(head):
    h, y = torch.randn(12, 4), torch.arange(12) % 3
    head(Columns(h, y))
    with pytest.raises(ValueError, match="change from epoch to epoch"):
        head(Restless(h, y))


FITS = {**HEADS, "guesses": lambda data: pseudo_labels(data, torch.arange(60))}


@pytest.mark.parametrize("fit_head", FITS.values(), ids=FITS)
def test_only_class_numbers_are_learned_and_only_features_read(fit_head, device):
    data = blobs(device=device)
    h, y = data.columns
    last = int(y.max())
    wrong = [torch.where(y == last, -1, y), y.float(), y[:, None]]
    for labels in wrong:
        with pytest.raises(ValueError, match="by class numbers only"):
            fit_head(data.like(h, labels))
    images = (h[:, :4].reshape(-1, 1, 2, 2) * 10).to(torch.uint8)
    for inputs in (images, h[:, 0]):
        with pytest.raises(ValueError, match="no features: cache features first"):
            fit_head(data.like(inputs, y))
    narrow = fit_head(
        data.like(h, y.to(torch.int32))
    )  # whole numbers of any width are class numbers
    said = fit_head(data), narrow
    if isinstance(narrow, nn.Module):
        said = [predict(head, data) for head in said]
    assert torch.equal(*said)

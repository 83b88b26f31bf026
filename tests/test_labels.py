"""The experiment: pure draws, a runner that goes on where it stopped, intervals, and the table."""

import json

import numpy as np
import pytest
import torch

from ftlearn import labels
from ftlearn.data import Columns
from ftlearn.explore import overlapping_labels
from ftlearn.labels import (
    ARMS,
    BUDGETS,
    DEMO,
    PLAN,
    draw,
    everything,
    figure,
    fits,
    folds,
    interval,
    measure,
    merged,
    report,
    stored,
    summary,
)

Y = torch.arange(60) % 10


def test_draws_are_balanced_pure_and_different():
    for k in (1, 3, 6):
        rows = draw(Y, k, 4)
        assert Y[rows].bincount().tolist() == [k] * 10
        assert len(set(rows.tolist())) == 10 * k
        assert torch.equal(rows, draw(Y, k, 4))
    assert not torch.equal(draw(Y, 3, 0), draw(Y, 3, 1))
    state = torch.get_rng_state()
    draw(Y, 1, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_draw_needs_enough_examples():
    with pytest.raises(ValueError, match="only 6 examples"):
        draw(Y, 7, 0)


def test_the_final_world_draws_from_1200_and_scores_on_the_last_597():
    from sklearn.datasets import load_digits

    world = everything()
    truth = load_digits()
    assert len(world.pool) == 1200 and len(world.test) == 597
    assert world.pool.columns[1].tolist() == truth.target[:1200].tolist()
    assert np.array_equal(world.test.columns[0][:, 0].numpy(), truth.images[1200:])


def test_every_score_is_counted():
    world = everything()
    before = world.test.reads
    world.score(
        lambda_model := torch.nn.Sequential(torch.nn.Flatten(), Cast(), torch.nn.Linear(64, 10))
    )
    assert world.test.reads == before + 1 and lambda_model is not None


class Cast(torch.nn.Module):
    """Bytes to floats."""

    def forward(self, x):
        return x.float()


def test_folds_are_contiguous_and_disjoint():
    pool = Columns(torch.arange(10))
    parts = list(folds(pool, 4))
    assert [len(fold) for _, fold in parts] == [2, 3, 2, 3]
    assert torch.cat([fold.columns[0] for _, fold in parts]).tolist() == list(range(10))
    for rest, fold in parts:
        assert sorted(rest.columns[0].tolist() + fold.columns[0].tolist()) == list(range(10))


@pytest.fixture
def counted(monkeypatch):
    """An arm that costs nothing and counts its calls."""
    calls = []
    monkeypatch.setitem(ARMS, "probe", lambda world, rows, seed: calls.append(seed) or 0.5)
    return calls


def test_the_runner_goes_on_where_it_stopped(counted):
    world = everything()
    plan = [("probe", (1, 5), 3)]
    rows = []
    for row in measure(world, plan):
        rows.append(row)
        if len(rows) == 4:
            break
    assert fits(plan, rows) == 2
    rest = list(measure(world, plan, rows))
    assert len(counted) == 6
    assert [(r["labels"], r["draw"]) for r in rows + rest] == [
        (k, d) for k in (1, 5) for d in range(3)
    ]


def test_evidence_keeps_its_file_current_and_resumes(counted, tmp_path, monkeypatch):
    trained = []

    def fake(source, path, updates):
        trained.append(source)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr(labels, "pretrain", fake)
    monkeypatch.setattr(labels, "compare", lambda source, *_: [dict(arm=source)])
    path, plan = tmp_path / "labels.json", [("probe", (1,), 2)]
    said = []
    labels.evidence(path, tmp_path / "scratch", plan, updates=(1, 1), show=said.append)
    once = json.loads(path.read_text())
    assert len(once["rows"]) == 2 and trained == list(labels.SOURCES)
    assert {"torch", "processor", "script"} <= set(once["environment"])
    labels.evidence(path, tmp_path / "scratch", plan, updates=(1, 1), show=said.append)
    assert len(counted) == 2 and len(trained) == 3
    assert json.loads(path.read_text())["rows"] == once["rows"]
    assert "2 of 2 fits" in said[-1]


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        mean, half = interval(random.normal(3.0, 1.0, 5))
        hits += abs(mean - 3.0) <= half
    assert 0.935 <= hits / 2000 <= 0.965
    assert np.isnan(interval([0.5])[1])


def test_one_cycle_rises_and_falls():
    from ftlearn.pretrain import one_cycle

    assert one_cycle(0) == pytest.approx(0) and one_cycle(0.25) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(0) and one_cycle(0.125) == pytest.approx(0.5)


def test_the_stored_results_hold_the_whole_plan():
    results = stored()
    assert fits(PLAN, results["rows"]) == 0
    assert {row["arm"] for row in results["sources"]} == set(labels.SOURCES)
    cells = summary(results["rows"])
    assert set(cells) == {(arm, k) for arm in ARMS for k in BUDGETS}
    assert all(0 < mean < 1 and half > 0 for mean, half, _ in cells.values())


def test_the_demo_replaces_only_what_it_measured():
    rows = stored()["rows"]
    live = [dict(arm="probe", labels=5, draw=0, accuracy=0.25)]
    both = merged(rows, live)
    assert [r for r in both if (r["arm"], r["labels"]) == ("probe", 5)] == live
    assert len(both) == sum((r["arm"], r["labels"]) != ("probe", 5) for r in rows) + 1
    text = repr(report(rows, live))
    assert "0.250 ± nan (1*)" in text
    assert all(arm in text for arm in ARMS)
    assert fits(DEMO) == 20 * 4 * 2 + 3 + 3


def test_the_figure_names_every_arm_and_no_label_covers_another():
    picture = figure(stored()["rows"])
    texts = [t.get_text() for t in picture.axes[0].texts]
    assert sorted(texts) == sorted(ARMS)
    assert not overlapping_labels(picture)

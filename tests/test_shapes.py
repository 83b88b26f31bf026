"""The experiment of lesson 08: its plan, its fits, and that what is stored is complete."""

import pytest
import torch

from ftlearn import experiment, shapes


def job(task="few", arm="cosine", optimizer="AdamW", updates=60, peak=1e-3, draw=100):
    return dict(part="tuning", **shapes.line(task, arm, optimizer, updates), peak=peak, draw=draw)


def test_a_fit_is_a_function_of_its_job_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first = shapes.measure(**job())
    assert torch.equal(torch.get_rng_state(), before)
    assert shapes.measure(**job()) == first
    assert shapes.measure(**job(draw=101)) != first != shapes.measure(**job(arm="constant"))


@pytest.mark.parametrize("task", shapes.TASKS)
def test_arms_of_a_draw_have_the_same_images_and_the_same_weights(task):
    (one, data, _), (other, again, _) = [shapes.TASKS[task](False, 3) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(data.columns, again.columns))
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_unseen_digits_are_those_of_the_validation_part_until_the_end():
    sizes = {final: len(shapes.TASKS["scratch"](final, 0)[2]) for final in (False, True)}
    assert sizes == {False: 300, True: 597}


def test_every_run_has_the_updates_that_its_line_says(monkeypatch):
    counts = []
    kind = shapes.Step
    made = lambda *things: counts.append(kind(*things)) or counts[-1]
    monkeypatch.setattr(shapes, "Step", made)
    for task, updates in (("few", 60), ("once", 60), ("scratch", 36)):
        shapes.measure(**job(task, updates=updates))
        states = counts.pop().optimizer.state.values()
        assert {int(state["step"]) for state in states} == {updates}


def test_the_arm_that_is_cut_follows_the_long_run():
    for i in range(36):
        cut = shapes.schedule("cosine, cut", 36)(i / 36)
        assert cut == pytest.approx(shapes.SHAPES["cosine"](i / shapes.LONGEST), abs=1e-12)


def test_a_peak_is_tuned_by_the_tuning_rows_alone():
    rows = [job(peak=p, draw=d) | {"accuracy": 1 - p} for p in (0.1, 0.2) for d in (100, 101)]
    rows += [r | {"part": "final", "accuracy": 5 * r["peak"]} for r in rows]
    assert shapes.tuned_peak(rows, "few", "cosine", "AdamW", 60) == 0.1


def test_what_is_stored_is_complete():
    rows = shapes.stored()
    assert experiment.todo(shapes.plan(rows), rows) == []
    assert not set(shapes.DRAWS) & set(shapes.TUNING_DRAWS)
    for *names, peaks in shapes.LINES:
        assert len(shapes.final(rows, *names)) == 10
        places, means, halves = shapes.summit(rows, *names)
        assert places == sorted(peaks) and len(means) == len(halves) == len(peaks)

"""The runner of the experiments: what is left to do, that it goes on where it stopped, its file."""

import json

import pytest

from ftlearn import experiment
from ftlearn.labels import interval

CHOSEN = [dict(part="tuning", rate=rate, draw=draw) for rate in (1, 2) for draw in range(10)]


class Here:
    """A pool of no processes."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def shutdown(self, **_):
        pass

    map = staticmethod(map)


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(experiment, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(experiment, "_answer", lambda measure, job: measure(**job))


def plan(rows):
    """Ten draws of two rates, then twenty more of the better one."""
    if experiment.todo(CHOSEN, rows):
        return CHOSEN
    rate = experiment.best(rows, "rate", part="tuning")
    return CHOSEN + [dict(part="final", rate=rate, draw=draw) for draw in range(20)]


def measure(part, rate, draw):
    return {"accuracy": 0.1 * rate + 0.01 * draw}


def test_the_second_stage_uses_what_the_first_has_chosen(here, tmp_path):
    results = experiment.run(tmp_path / "r.json", plan, measure, "a script")
    final = [row for row in results["rows"] if row["part"] == "final"]
    assert len(results["rows"]) == 40 and {row["rate"] for row in final} == {2}
    assert json.loads((tmp_path / "r.json").read_text()) == results
    assert results["script"] == "a script" and results["environment"]["threads"] == 1


@pytest.mark.parametrize("after", [0, 1, 7, 20, 33, 39])
def test_stopped_anywhere_it_goes_on_and_nothing_is_done_twice(after, here, tmp_path):
    whole, asked = experiment.run(tmp_path / "whole.json", plan, measure, ""), []

    def stops(**job):
        if len(asked) == after:
            raise KeyboardInterrupt
        asked.append(job)
        return measure(**job)

    with pytest.raises(KeyboardInterrupt):
        experiment.run(tmp_path / "r.json", plan, stops, "")
    again = []
    results = experiment.run(
        tmp_path / "r.json", plan, lambda **job: again.append(job) or measure(**job), ""
    )
    assert results["rows"] == whole["rows"] and len(again) == 40 - after


def test_rows_of_other_weights_are_not_gone_on_with(here, tmp_path):
    experiment.run(tmp_path / "r.json", plan, measure, "")
    other = json.loads((tmp_path / "r.json").read_text()) | {"weights": "others"}
    experiment.write_results(tmp_path / "r.json", other)
    asked = []
    experiment.run(tmp_path / "r.json", plan, lambda **job: asked.append(job) or measure(**job), "")
    assert len(asked) == 40


def test_two_processes_give_the_rows_of_one(tmp_path):
    kinds = dict(workers=2, script="")
    two = experiment.run(tmp_path / "two.json", lambda rows: CHOSEN[:4], measure, **kinds)
    assert [row["accuracy"] for row in two["rows"]] == [
        measure(**j)["accuracy"] for j in CHOSEN[:4]
    ]
    assert all(row["seconds"] >= 0 for row in two["rows"])


def test_a_file_that_is_no_results_file_is_kept(tmp_path):
    path = tmp_path / "notes.json"
    for text in ("not json", "[1]", '{"rows": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="no results file"):
            experiment.run(path, plan, measure, "")
        assert path.read_text() == text


def test_a_job_is_done_if_a_row_holds_all_its_values():
    jobs = [dict(arm="a", setting=[1, 0.5]), dict(arm="a", setting=[1, 0.25])]
    rows = [dict(setting=[1, 0.5], arm="a", more=3), dict(arm="b", setting=[1, 0.25])]
    assert experiment.todo(jobs, rows) == jobs[1:]
    assert experiment.todo([dict(arm="c", rate=1)], [dict(arm="c")]) == [dict(arm="c", rate=1)]


def test_differences_are_paired_and_in_the_order_of_the_draws():
    rows = [
        dict(arm=arm, labels=5, draw=d, accuracy=a + 0.1 * d)
        for arm, a in (("a", 0.3), ("b", 0.2))
        for d in (2, 0, 1)
    ]
    middle, half = experiment.difference(rows, dict(arm="a"), dict(arm="b"), labels=5)
    assert middle == pytest.approx(0.1) and half == pytest.approx(0, abs=1e-12)
    assert interval(experiment.values(rows, arm="a").tolist())[1] > 0.1
    assert experiment.values(rows, arm="b").tolist() == pytest.approx([0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="cannot be paired"):
        experiment.difference(rows[:-1], dict(arm="a"), dict(arm="b"))


def test_the_best_setting_is_that_of_the_highest_mean_and_of_equals_the_first():
    rows = [
        dict(rate=rate, draw=draw, accuracy=accuracy)
        for rate, scores in {3: (0.5, 0.7), 1: (0.9, 0.1), 2: (0.6, 0.6)}.items()
        for draw, accuracy in enumerate(scores)
    ]
    assert experiment.best(rows, "rate") == 3
    assert experiment.best(rows[2:], "rate") == 2

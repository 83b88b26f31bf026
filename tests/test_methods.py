"""The experiment of lesson 09: its plan, that it goes on where it stopped, and what is stored."""

import json

import pytest
import torch

from ftlearn import methods
from ftlearn.labels import interval


@pytest.fixture
def tiny(monkeypatch):
    """A plan of a few fits that take no time, done in this process."""

    class Here:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = staticmethod(map)

    asked = []

    def fit(method, setting, labels, number, final):
        asked.append((method, setting, labels, number, final))
        score = setting[0] + 0.01 * number
        row = dict(method=method, setting=list(setting), labels=labels, draw=number, accuracy=score)
        return row | ({"letters": 0.5} if final else {})

    two = {"a": (methods.full, [(0.1,), (0.2,)]), "b": (methods.head_only, [(0.3,), (0.1,)])}
    monkeypatch.setattr(methods, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(methods, "fit_once", fit)
    monkeypatch.setattr(methods, "METHODS", two)
    monkeypatch.setattr(methods, "SLOW", {"a, slow": (methods.full, (0.01,))})
    return asked


def test_tuning_comes_first_and_its_choice_is_used(tiny, tmp_path):
    results = methods.evidence(tmp_path / "m.json", workers=1)
    assert [job[-1] for job in tiny] == [False] * 20 + [True] * 120
    assert {(job[0], job[1]) for job in tiny[20:]} == {
        ("a", (0.2,)),
        ("b", (0.3,)),
        ("a, slow", (0.01,)),
    }
    assert len(results["tuning"]) == 20 and len(results["rows"]) == 120
    stored = json.loads((tmp_path / "m.json").read_text())
    assert stored["chosen"] == {"a": [0.2], "b": [0.3]} and stored["test_reads"] == 120


@pytest.mark.parametrize("after", [7, 20, 33, 139])
def test_stopped_anywhere_it_goes_on(after, tiny, tmp_path, monkeypatch):
    whole = methods.evidence(tmp_path / "whole.json", workers=1)
    fit, count = methods.fit_once, []

    def stops(*job):
        count.append(1)
        if len(count) > after:
            raise KeyboardInterrupt
        return fit(*job)

    monkeypatch.setattr(methods, "fit_once", stops)
    with pytest.raises(KeyboardInterrupt):
        methods.evidence(tmp_path / "m.json", workers=1)
    tiny.clear()
    monkeypatch.setattr(methods, "fit_once", fit)
    again = methods.evidence(tmp_path / "m.json", workers=1)
    assert again["tuning"] == whole["tuning"] and again["rows"] == whole["rows"]
    assert len(tiny) <= 140 - after + 10, "at most the last ten are done again"


def test_methods_have_the_same_budget_and_as_many_settings():
    for make, settings in methods.METHODS.values():
        assert len(settings) == len(set(settings)) == 9
        assert all(
            sum(p.updates for p in make(*setting)) == methods.UPDATES for setting in settings
        )
    assert not set(methods.DRAWS) & set(methods.TUNING_DRAWS)


def test_what_is_stored_is_complete_and_was_tuned_as_said():
    results = methods.stored()
    assert methods.jobs(results) == []
    assert results["chosen"] == {m: list(s) for m, s in methods.tuned(results["tuning"]).items()}
    assert results["test_reads"] == len(results["rows"]) == 4 * 10 * 7
    for labels in methods.BUDGETS:
        for method in [*methods.METHODS, *methods.SLOW]:
            assert len(methods.column(results["rows"], method, labels)) == 10


def test_differences_are_paired():
    rows = [
        dict(method=m, labels=5, draw=d, accuracy=a + 0.1 * d)
        for m, a in (("a", 0.3), ("b", 0.2))
        for d in (2, 0, 1)
    ]
    mean, half = methods.difference(rows, "a", "b", 5)
    assert mean == pytest.approx(0.1) and half == pytest.approx(0, abs=1e-12)
    assert interval(methods.column(rows, "a", 5).tolist())[1] > 0.1
    torch.testing.assert_close(methods.column(rows, "b", 5), torch.tensor([0.2, 0.3, 0.4]).double())

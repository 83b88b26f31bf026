"""Exercises of lesson 07: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch

from ftlearn import check
from ftlearn.rates import RateTrace


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex07_{number}")() is False
    assert getattr(check, f"ex07_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 7.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex07_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 7.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert says in said
    return verdict


def nadamw(w, g, memory, t, lr, decay, **fault):
    """NAdam with decoupled decay; each fault changes one thing."""
    weigh = lambda t: 0.9 if "constant" in fault else 0.9 * (1 - 0.5 * 0.96 ** (0.004 * t))
    if "coupled" in fault:
        g = g + decay * w
    elif "none" not in fault:
        w = w * (1 - decay * (1 if "full" in fault else lr))
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g * g
    memory["product"] = now = memory.get("product", 1) * weigh(t)
    root = (memory["v"] / (1 - 0.999**t)).sqrt() + 1e-8
    if "adam" in fault:
        return w - lr * memory["m"] / (1 - 0.9**t) / root
    ahead = weigh(t + 1) * memory["m"] / (1 - now * weigh(t + 1))
    return w - lr * (ahead + (1 - weigh(t)) * g / (1 - now)) / root


def faulty(**fault):
    return lambda w, g, memory, t, lr, decay: nadamw(w, g, memory, t, lr, decay, **fault)


def in_place(w, g, memory, t, lr, decay):
    return w.copy_(nadamw(w, g, memory, t, lr, decay))


@pytest.mark.parametrize("answer", [nadamw, in_place])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (faulty(none=True), "without any decay"),
        (faulty(coupled=True), "went through the means"),
        (faulty(full=True), "1 - lr * decay"),
        (faulty(constant=True), "does not grow"),
        (faulty(adam=True), "look-ahead is missing"),
        (lambda w, g, memory, t, lr, decay: w - lr * g, "away from torch's"),
        (lambda w, g, memory, t, lr, decay: w.sum(), "shape ()"),
        (lambda w, g, memory, t: w, "raised TypeError"),
        (3, "raised TypeError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


def held(groups):
    return [p for group in groups for p in group["params"]]


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def covered(groups, model):
    return sorted(map(id, held(groups))) == sorted(map(id, trainable(model)))


def as_sets(groups, model):
    return set(map(id, held(groups))) == set(map(id, trainable(model)))


def by_count(groups, model):
    return len(held(groups)) == len(trainable(model))


def by_value(groups, model):
    found = held(groups)
    same = lambda p: [q for q in found if q.shape == p.shape and torch.equal(p, q)]
    return len(found) == len(trainable(model)) and all(same(p) for p in trainable(model))


def frozen_too(groups, model):
    return sorted(map(id, held(groups))) == sorted(map(id, model.parameters()))


def at_least(groups, model):
    return set(map(id, trainable(model))) <= set(map(id, held(groups)))


def by_module(groups, model):
    wanted = [id(p) for m in model.modules() for p in m._parameters.values() if p.requires_grad]
    return sorted(map(id, held(groups))) == sorted(wanted)


def test_ex_2_right(capsys):
    assert judge(2, covered, capsys)
    assert judge(2, lambda groups, model: torch.tensor(covered(groups, model)), capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (as_sets, "it says True, but"),
        (by_count, "it says True, but"),
        (by_value, "it says True, but"),
        (frozen_too, "it says False, but"),
        (at_least, "it says True, but"),
        (by_module, "shared parameter"),
        (lambda groups, model: None, "return True or False"),
        (lambda groups, model: True, "in no group"),
        (lambda groups, model: False, "covers it"),
        (lambda groups: True, "raised TypeError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_the_sweep_is_what_the_finder_would_read():
    rates, losses = check.sweep()
    assert len(rates) == len(losses) == 100 and check.sweep() == (rates, losses)
    assert 4e-3 < RateTrace(rates, losses).suggestion < 1e-2


@pytest.mark.parametrize("answer", [6e-3, 3e-3, 1e-2, "0.006", torch.tensor(0.005)])
def test_ex_3_right(answer, capsys):
    assert judge(3, answer, capsys)


def test_ex_3_takes_the_suggestion(capsys):
    assert judge(3, RateTrace(*check.sweep()).suggestion, capsys)


def test_ex_3_refuses_the_lowest_point(capsys):
    rates, losses = check.sweep()
    assert not judge(3, rates[losses.index(min(losses))], capsys, "bottom")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (1e-5, "hardly begun"),
        (1e-3, "hardly begun"),
        (0.1, "bottom"),
        (0.017, "most of the fall is over"),
        (0.03, "most of the fall is over"),
        (0.035, "bottom"),
        (1.0, "rises"),
        (47, "number of an update"),
        (0, "between"),
        (-1e-3, "between"),
        ("fast", "raised ValueError"),
        (float("nan"), "between"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)

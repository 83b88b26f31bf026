"""Exercises of lesson 06: the checkers take right answers and refuse plausible wrong ones."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ftlearn import check, labels


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex06_{number}")() is False
    assert getattr(check, f"ex06_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 6.{number}: not tried yet\n"


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex06_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 6.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict


def once(body, x, batch_size, restore=True, still=True, gradients=False):
    modes = [(part, part.training) for part in body.modules()]
    if still:
        body.eval()
    with torch.set_grad_enabled(gradients):
        h = torch.cat([body(batch) for batch in x.split(batch_size)])
    for part, training in modes if restore else ():
        part.training = training
    return h


def back_to_training(body, x, batch_size):
    h = once(body, x, batch_size, restore=False)
    body.train()
    return h


def last_batch_dropped(body, x, batch_size):
    return once(body, x[: len(x) // batch_size * batch_size], batch_size)


def shuffled(body, x, batch_size):
    return once(body, x.flip(0), batch_size)


def all_at_once(body, x, batch_size):
    return once(body, x, len(x))


def detached_too_late(body, x, batch_size):
    return once(body, x, batch_size, gradients=True)


def in_training_mode(body, x, batch_size):
    return once(body, x, batch_size, still=False)


def never_restored(body, x, batch_size):
    return once(body, x, batch_size, restore=False)


def a_list(body, x, batch_size):
    return list(once(body, x, batch_size))


def test_ex_1_right(capsys):
    assert judge(1, once, capsys)


WRONG = back_to_training, last_batch_dropped, shuffled, all_at_once, detached_too_late
WRONG += in_training_mode, never_restored, a_list, lambda body, x, batch_size: body(x), "cache"


@pytest.mark.parametrize("answer", WRONG)
def test_ex_1_wrong(answer, capsys):
    assert not judge(1, answer, capsys)


def new_head(model, classes):
    model = copy.deepcopy(model)
    model[-1] = nn.Linear(model[-1].in_features, classes)
    return model


def zero_head(model, classes):
    model = new_head(model, classes)
    nn.init.zeros_(model[-1].weight)
    return model


def in_place(model, classes):
    model[-1] = nn.Linear(model[-1].in_features, classes)
    return model


def shared_body(model, classes):
    return nn.Sequential(*model[:-1], nn.Linear(model[-1].in_features, classes))


def old_rows_kept(model, classes):
    new = new_head(model, classes)
    with torch.no_grad():
        new[-1].weight[:3] = model[-1].weight[:3]
    return new


def only_if_different(model, classes):
    return copy.deepcopy(model) if classes == model[-1].out_features else new_head(model, classes)


def appended(model, classes):
    return copy.deepcopy(model).append(nn.Linear(model[-1].out_features, classes))


def body_drawn_again(model, classes):
    model = new_head(model, classes)
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return model


def number_changed(model, classes):
    model = copy.deepcopy(model)
    model[-1].out_features = classes
    return model


@pytest.mark.parametrize("answer", [new_head, zero_head])
def test_ex_2_right(answer, capsys):
    assert judge(2, answer, capsys)


WRONG = in_place, shared_body, old_rows_kept, only_if_different, appended, body_drawn_again
WRONG += number_changed, lambda model, classes: nn.Linear(8, classes), "replace_head"


@pytest.mark.parametrize("answer", WRONG)
def test_ex_2_wrong(answer, capsys):
    assert not judge(2, answer, capsys)


def results(scratch, probe):
    budgets = 1, 5, 10, 20
    arms = {"from scratch": scratch, "probe": probe}
    return {
        "rows": [
            dict(arm=arm, labels=k, draw=d, accuracy=a + 0.01 * (2 * d - 1), seconds=0.1)
            for arm, curve in arms.items()
            for k, a in zip(budgets, curve, strict=True)
            for d in range(2)
        ]
    }


CROSSING = results([0.6, 0.8, 0.9, 0.95], [0.85, 0.9, 0.95, 0.97])
RIGHT = math.sqrt(50)  # halfway from 5 to 10 along the logarithm


@pytest.mark.parametrize("answer", [RIGHT, 7, "7", 6.5, 7.7])
def test_ex_3_right(answer, capsys, monkeypatch):
    monkeypatch.setattr(labels, "stored", lambda: CROSSING)
    assert judge(3, answer, capsys)


@pytest.mark.parametrize("answer", [1, 5, 6, 9, 10, 20, math.inf, 0, -3, "many", math.nan])
def test_ex_3_wrong(answer, capsys, monkeypatch):
    monkeypatch.setattr(labels, "stored", lambda: CROSSING)
    assert not judge(3, answer, capsys)


def test_ex_3_never_reached(capsys, monkeypatch):
    never = results([0.6, 0.7, 0.75, 0.8], [0.85, 0.9, 0.95, 0.97])
    monkeypatch.setattr(labels, "stored", lambda: never)
    assert judge(3, math.inf, capsys) and not judge(3, 20, capsys)


@pytest.mark.parametrize("answer", [{"b", "d"}, ["d", "b"], "bd", ("B", "D")])
def test_ex_4_right(answer, capsys):
    assert judge(4, answer, capsys)


@pytest.mark.parametrize(
    "answer", [{"a"}, {"b"}, {"d"}, {"b", "d", "a"}, {"b", "c"}, set("abcde"), "e", set(), {"f"}, 4]
)
def test_ex_4_wrong(answer, capsys):
    assert not judge(4, answer, capsys)


def test_the_solutions_run_as_they_are_printed(capsys):
    notebook = Path(__file__).parents[1] / "nbs" / "06_features.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    names = {"torch": torch, "nn": nn}  # what the lesson has imported
    for solution in re.findall(r"(?s)<details>.*?</details>", prose):
        for code in re.findall(r"(?s)```python\n(.*?)```", solution):
            exec(code, names)  # noqa: S102
    assert judge(1, names["once"], capsys) and judge(2, names["new_head"], capsys)

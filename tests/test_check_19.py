"""Exercises of lesson 19: the checkers take right answers and refuse plausible wrong ones."""

import re

import numpy as np
import pytest
import torch

from ftlearn import check

OPERATIONS = 2 * (32 * 8 * 8) * 128 * (64 * 3 * 3)
BYTES = 2 * (32 * 64 * 16 * 16 + 128 * 64 * 3 * 3 + 32 * 128 * 8 * 8)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex19_{number}")() is False
    assert getattr(check, f"ex19_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 19.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex19_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 19.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert re.search(says, said), said
    return verdict


@pytest.mark.parametrize(
    "answer",
    [
        (OPERATIONS, BYTES),
        [OPERATIONS, BYTES],
        torch.tensor([OPERATIONS, BYTES]),
        np.array([OPERATIONS, BYTES]),
        (float(OPERATIONS), float(BYTES)),
        (torch.tensor(OPERATIONS), np.int64(BYTES)),
    ],
)
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((OPERATIONS // 2, BYTES), "two operations"),
        ((4 * OPERATIONS, BYTES), "8 by 8"),
        ((2 * OPERATIONS, BYTES), "operations: places"),
        ((OPERATIONS // 9, BYTES), "operations: places"),
        ((OPERATIONS + 32 * 64 * 128, BYTES), "operations: places"),
        ((OPERATIONS, 2 * BYTES), "bfloat16 has two bytes"),
        ((OPERATIONS, BYTES // 2), "bytes: the pictures"),
        ((OPERATIONS, BYTES - 2 * 128 * 64 * 9), "the kernels"),
        ((OPERATIONS, BYTES + 2 * 128), "bytes: the pictures"),
        ((OPERATIONS, OPERATIONS / BYTES), "bytes"),
        ((BYTES, OPERATIONS), "order|operations"),
        ((OPERATIONS // 32, BYTES // 32), "32|operations"),
        ((OPERATIONS,), "these are 1 numbers?: give two"),
        ((OPERATIONS, BYTES, OPERATIONS / BYTES), "these are 3 numbers: give two"),
        (OPERATIONS, "give two|raised TypeError"),
        ("many", "raised ValueError"),
        ({}, "these are 0 numbers: give two"),
        ((float("nan"), BYTES), "raised ValueError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


@pytest.mark.parametrize(
    "answer",
    [
        {7, 13, 14},
        [14, 13, 7],
        (7, 13, 14, 7),
        torch.tensor([7, 13, 14]),
        np.array([7, 13, 14]),
        {7: "if", 13: "mask", 14: "min"},
        iter([7, 13, 14]),
        ["7", "13", "14"],
    ],
)
def test_ex_2_right(answer, capsys):
    assert judge(2, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({7, 13}, "1 more line waits"),
        ({7}, "2 more lines wait"),
        (set(), "3 more lines wait"),
        ({7, 13, 14, 15}, "line 15 does not wait in every update: .*after the epoch"),
        ({5, 7, 13, 14}, "line 5 does not.*nobody has looked"),
        ({7, 11, 13, 14}, "line 11 does not.*shapes are known"),
        ({7, 12, 13, 14}, "line 12 does not.*nobody has asked"),
        ({6, 7, 13, 14}, "line 6 does not"),
        ({7, 9, 13, 14}, "line 9 does not"),
        ({0, 7, 13, 14}, "line 0"),
        ({6, 12, 13}, "line 6"),
        (7, "raised TypeError"),
        ("all of them", "raised ValueError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_ex_2_agrees_with_what_is_heard():
    """The loop of the exercise under `device_reads`, line by line."""
    from torch.nn import functional as F

    from ftlearn.speed import device_reads

    torch.manual_seed(0)
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    z, best = torch.randn(8, 3, requires_grad=True), {"loss": torch.tensor(9.0)}
    loss, total = F.cross_entropy(z, y), torch.zeros(())
    lines = {
        5: lambda: F.cross_entropy(z, y),
        6: lambda: loss.backward(),
        7: lambda: 1 if torch.isnan(loss) else 0,
        11: lambda: total + loss.detach() * len(x),
        12: lambda: total + (z.argmax(1) == y).sum(),
        13: lambda: x[z.softmax(1).max(1).values < 0.5],
        14: lambda: min(best["loss"], loss.detach()),
    }
    assert {line for line, act in lines.items() if device_reads(act)} == set(check._WAITS19)
    assert set(check._QUIET19).isdisjoint(check._WAITS19)


def ratio(epochs=10, back=3):
    from ftlearn.models import glyphnet, split
    from ftlearn.speed import cost

    body, rest = split(glyphnet(10, weights=None), at="layer3")
    x = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    with torch.no_grad():
        b, r = cost(body, x).operations, cost(rest, body(x)).operations
    return epochs * (b + back * r) / (b + epochs * back * r)


def test_ex_3_right(capsys):
    right = ratio()  # as the lesson's solution has it, from the ways forth
    for answer in (right, check._ratio19(), 1.1 * right, round(right, 2), f"{right}"):
        assert judge(3, answer, capsys)
    for answer in (torch.tensor(right), np.float32(right), torch.tensor([right])):
        assert judge(3, answer, capsys)


def test_ex_3_wrong(capsys):
    right = ratio()
    assert not judge(3, 10, capsys, "ten would be right if the rest cost nothing")
    assert not judge(3, 1 / right, capsys, "above 1")
    assert not judge(3, ratio(back=1), capsys, "training the rest takes 3 r")
    assert not judge(3, ratio(back=2), capsys, "training the rest takes 3 r")
    assert not judge(3, 1.2 * right, capsys, "count b and r")
    assert not judge(3, 1.0, capsys, "count b and r|ratio")
    assert not judge(3, 0, capsys, "above 1")
    assert not judge(3, -right, capsys, "above 1")
    assert not judge(3, float("nan"), capsys, "count b and r|number")
    assert not judge(3, float("inf"), capsys, "count b and r|limit")
    assert not judge(3, "a lot", capsys, "raised ValueError")
    assert not judge(3, [1, 2], capsys, "raised TypeError")


def test_checking_moves_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check.ex19_1((1, 2)), check.ex19_2({1}), check.ex19_3(4)
    assert torch.equal(torch.get_rng_state(), before)

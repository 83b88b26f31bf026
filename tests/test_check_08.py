"""Exercises of lesson 08: the checkers take right answers and refuse plausible wrong ones."""

import math
import re

import numpy as np
import pytest
import torch

from ftlearn import check
from ftlearn.schedules import (
    chain,
    constant,
    cooldown,
    cosine,
    factors,
    linear,
    points,
    warmup,
    warmup_stable_decay,
)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex08_{number}")() is False
    assert getattr(check, f"ex08_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 8.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex08_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 8.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert re.search(says, said)
    return verdict


def by_hand(progress):
    if progress < 0.2:
        return progress / 0.2
    return (1 + math.cos(math.pi * (progress - 0.2) / 0.8)) / 2


def single(p):
    """Everything in float32."""
    p = torch.tensor(p)
    wave = (1 + torch.cos(torch.pi * (p - 0.2) / 0.8)) / 2
    return torch.where(p < 0.2, p / 0.2, wave)


def rough(p):
    """Pi by heart."""
    return p / 0.2 if p < 0.2 else (1 + math.cos(3.14159265 * (p - 0.2) / 0.8)) / 2


@pytest.mark.parametrize(
    "answer", [by_hand, warmup(cosine(), 0.2), single, rough, lambda p: {"lr": by_hand(p)}]
)
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


def half(x):
    return (1 + math.cos(math.pi * x)) / 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda p: p / 0.2 if p < 0.2 else half(p), "under way"),
        (lambda p: p / 0.2 if p < 0.2 else half(p - 0.2), "not down at the end"),
        (lambda p: p / 0.2 if p < 0.2 else half(2 * (p - 0.2) / 0.8), "comes up again"),
        (lambda p: by_hand(p + 1 / 50), "one update early"),
        (half, "no rise"),
        (lambda p: min(p / 0.2, half(p)), "under way"),
        (warmup(cosine(), 0.1), "at update"),
        (warmup(linear(), 0.2), "at update"),
        (lambda p: by_hand(p) if p < 1 else 1.0, "progress 1, it is at 1, not 0"),
        (lambda p: by_hand(p) + 1e-5, "at update 0 of 50 it gives 1e-05, not 0"),
        (lambda p: max(by_hand(p), 0.01), "at update 0 of 50 it gives 0.01, not 0"),
        (lambda p: math.nan, "it gives nan"),
        (lambda i, n: 0.0, "raised TypeError"),
        (0.5, "raised TypeError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


def repaired(schedule, updates):
    used = []
    for i in range(updates):
        used.append(schedule(i / updates))
    return used


@pytest.mark.parametrize(
    "answer",
    [
        repaired,
        factors,
        lambda s, n: (s(i / n) for i in range(n)),
        lambda s, n: torch.tensor([s(i / n) for i in range(n)]),  # float32
        lambda s, n: [s(p) for p in np.linspace(0, 1, n, endpoint=False)],
    ],
)
def test_ex_2_right(answer, capsys):
    assert judge(2, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (check.late_loop, "as it was"),
        (lambda s, n: [s((i + 1) / n) for i in range(n)], "one update early"),
        (lambda s, n: [s(i / max(1, n - 1)) for i in range(n)], "at i / n"),
        (lambda s, n: [s(0.0)] + [s(i / n) for i in range(n - 1)], "used twice"),
        (lambda s, n: [s(i / n) for i in range(n + 1)], "13 factors for 12 updates"),
        (lambda s, n: check.late_loop(s, n)[1:], "11 factors for 12 updates"),
        (lambda s, n: [s(i // 4 / 3) for i in range(n)], "at update"),
        (lambda s, n: [s(min(i / n, 0.95)) for i in range(n)], "at update 96 of 100"),
        (lambda s, n: [s(i / n) + 1e-5 * (not i) for i in range(n)], "at update 0 of 12"),
        (lambda s: [], "raised TypeError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def budget(updates):
    return warmup_stable_decay(min(20 / updates, 0.25), 0.2)


def in_shares(rise):
    return warmup_stable_decay(rise, 0.2)


def counted(updates):
    rise = min(20 / updates, 0.25)
    return warmup_stable_decay(rise, min(80 / updates, 1 - rise))


def in_pieces(updates):
    rise = min(20 / updates, 0.25)
    return points([(0, 0), (rise, 1), (0.8, 1), (1, 0)])


def lowest(updates, kind=float):
    """Without the algebra: the lowest of three lines."""
    rise = min(20 / updates, 0.25)
    return lambda p: kind(min(p / rise, 1, (1 - p) / 0.2))


@pytest.mark.parametrize(
    "answer",
    [
        budget,
        in_pieces,
        lowest,
        lambda n: cooldown(warmup(constant(), min(20 / n, 0.25)), 0.2),
        lambda n: lowest(n, torch.tensor),  # float32
        lambda n: lowest(n, np.float32),
        lambda n: lowest(n, lambda f: {"lr": f}),
    ],
)
def test_ex_3_right(answer, capsys):
    assert judge(3, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda n: points([(0, 0), (20 / n, 1), (1, 1)]), "it never falls"),
        (lambda n: warmup(constant(), min(20 / n, 0.25)), "it never falls"),
        (lambda n: warmup_stable_decay(0.25, 0.2), "grows with the run"),
        (lambda n: warmup_stable_decay(0.05, 0.2), "fixed share"),
        (lambda n: warmup_stable_decay(min(20 / n, 0.5), 0.2), "a quarter of the run at most"),
        (lambda n: cooldown(constant(), 0.2), "no warm-up"),
        (counted, "counted in updates"),
        (lambda n: warmup_stable_decay(min(20 / n, 0.25), 0.2, "cosine"), "at update"),
        (lambda n: chain((0.25, linear(0, 1)), (0.75, cosine())), "at update"),
        (lambda n: in_shares(0.25 if n < 100 else 20 / n), "80 updates: |90 updates: "),
        (lambda n: in_shares(0.25 if n <= 50 else 20 / n), "60 updates: "),
        (lambda n: in_shares(0.25 if n <= 40 else 20 / n), "41 updates: "),
        (lambda n: in_shares(min(20, n // 4) / n), "41 updates: at update"),
        (lambda n: in_shares(min(20, round(n / 4)) / n), "41 updates: at update"),
        (lambda n: in_shares({20: 0.25, 40: 0.25, 100: 0.2, 400: 0.05}[n]), "raised KeyError"),
        (lambda n: in_shares(max(0.05, min(20 / n, 0.25))), "1000 updates: "),
        (lambda n: lambda p: 0.5 if p == 1 else budget(n)(p), "progress 1, it is at 0.5, not 0"),
        (lambda n: factors(budget(n), n), "return a function"),
        (lambda: None, "raised TypeError"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)

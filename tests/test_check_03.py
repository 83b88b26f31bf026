"""Exercises of lesson 03: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch
from torch.nn import functional as F

from ftlearn import check


def each(z, y):
    return z.logsumexp(1) - z[torch.arange(len(y)), y]


def stable(z, y):
    return each(z, y).mean()


def by_hand(z, y):
    z = z - z.max(1, keepdim=True).values
    return (z.exp().sum(1).log() - z[range(len(y)), y]).mean()


def naive(z, y):
    return -z.softmax(1)[range(len(y)), y].log().mean()


def overflowing(z, y):
    return (z.exp().sum(1).log() - z[range(len(y)), y]).mean()


def with_epsilon(z, y):
    return -(z.softmax(1)[range(len(y)), y] + 1e-12).log().mean()


def clamped(z, y):
    return -z.softmax(1)[range(len(y)), y].clamp(min=1e-7).log().mean()


def soft(z, p):
    return -(p * z.log_softmax(1)).sum(1).mean()


def weighted(z, y, w):
    return (w[y] * each(z, y)).sum() / w[y].sum()


RIGHT = [(1, stable), (1, by_hand), (1, F.cross_entropy)]
RIGHT += [(2, soft), (2, F.cross_entropy), (3, weighted), (3, F.cross_entropy)]
WRONG = [
    (1, naive, "subtract before"),
    (1, overflowing, "subtract before"),
    (1, with_epsilon, "it is cut off"),
    (1, clamped, "it is cut off"),
    (1, lambda z, y: stable(z.clamp(-100, 100), y), "it is cut off"),
    (1, lambda z, y: -stable(z, y), "negative"),
    (1, lambda z, y: each(z, y).sum(), "sum over"),
    (1, each, "one number"),
    (1, lambda z, y: F.cross_entropy(z.softmax(1), y), "a softmax too many"),
    (1, lambda z, y: -z.log_softmax(0)[range(len(y)), y].mean(), "is right"),
    (1, lambda z, y: stable(z, y).detach(), "your answer raised RuntimeError"),
    (2, lambda z, p: -(p * z.log_softmax(1)).mean(), "five times too small"),
    (2, lambda z, p: -(p * z.log_softmax(1)).sum(), "sum over"),
    (2, lambda z, p: stable(z, p.argmax(1)), "likeliest"),
    (2, lambda z, p: F.kl_div(z.log_softmax(1), p, reduction="batchmean"), "Kullback"),
    (2, lambda z, p: -(z.softmax(1) * p.log()).sum(1).mean(), "exchanged"),
    (2, lambda z, p: -(p * z.softmax(1).log()).sum(1).mean(), "0 times minus infinity"),
    (2, lambda z, p: (z.softmax(1) - p).pow(2).sum(1).mean(), "is right"),
    (3, lambda z, y, w: (w[y] * each(z, y)).mean(), "number of examples"),
    (3, lambda z, y, w: (w[y] * each(z, y)).sum() / w.sum(), "weights of the classes"),
    (3, lambda z, y, w: (w[y] * each(z, y)).sum(), "weighted sum"),
    (3, lambda z, y, w: stable(z, y), "no effect"),
    (3, lambda z, y, w: stable(z * w, y), "on the logits"),
    (3, lambda z, y, w: weighted(z, z.argmax(1), w), "is right"),
    (3, lambda z, y: stable(z, y), "your answer raised TypeError"),
]


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex03_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 3.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict, said


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex03_{number}")() is False
    assert getattr(check, f"ex03_{number}")(None) is False
    assert capsys.readouterr().out == f"ex 3.{number}: not tried yet\n" * 2


@pytest.mark.parametrize("number, answer", RIGHT)
def test_right(number, answer, capsys):
    assert judge(number, answer, capsys)[0] is True


@pytest.mark.parametrize("number, answer, words", WRONG)
def test_wrong(number, answer, words, capsys):
    verdict, said = judge(number, answer, capsys)
    assert verdict is False and words in said

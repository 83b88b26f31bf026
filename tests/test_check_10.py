"""Exercises of lesson 10: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch
from torch.nn import functional as F

from ftlearn import check
from ftlearn.augment import margin, suspects
from ftlearn.features import knn
from ftlearn.training import predict


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex10_{number}")() is False
    assert getattr(check, f"ex10_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 10.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex10_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 10.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert says in said
    return verdict


@pytest.fixture(scope="module")
def ranked():
    return suspects(check.noisy())


def test_ex_1_right(ranked, capsys):
    mask = torch.zeros(300, dtype=torch.bool).index_fill(0, ranked[:30], True)
    for answer in (ranked[:30], set(ranked[:30].tolist()), mask):
        assert judge(1, answer, capsys)


def test_ex_1_wrong(ranked, capsys):
    data = check.noisy()
    itself = predict(knn(data, k=1), data)  # the nearest neighbour of a row is the row
    seen = F.cross_entropy(itself, data.columns[1], reduction="none").argsort(descending=True)
    assert not judge(1, seen[:30], capsys, "get to see it first")
    assert not judge(1, ranked[-30:], capsys, "surprise least")
    assert not judge(
        1, torch.randperm(300, generator=torch.Generator().manual_seed(0))[:30], capsys
    )
    assert not judge(1, [*ranked[:15].tolist(), *ranked[-15:].tolist()], capsys, "finds more")
    assert not judge(1, ranked[:60], capsys, "60 different rows")
    assert not judge(1, ranked[:30] + 300, capsys, "there is no row")
    assert not judge(1, "the first", capsys, "raised")


REJECTED = {"mirrored", "upside down", "turned by up to 180 degrees", "shifted by up to six pixels"}


def test_ex_2_right(capsys):
    assert judge(2, REJECTED, capsys) and judge(2, sorted(REJECTED), capsys)
    assert set(check.offers()) > REJECTED


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"mirrored", "upside down"}, "2 more must go"),
        (REJECTED - {"mirrored"}, "no 2 any more"),
        (REJECTED - {"shifted by up to six pixels"}, "left its frame"),
        (REJECTED | {"a little noise"}, "may be used"),
        (REJECTED | {"turned by up to 10 degrees"}, "may be used"),
        ("mirrored", "3 more must go"),
        (set(), "4 more must go"),
        ({"flip"}, "is no name"),
        (7, "raised TypeError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_ex_3_right(capsys):
    assert judge(3, lambda z, n: margin(z).argsort()[:n], capsys)
    assert judge(3, lambda z, n: margin(z).topk(n, largest=False).indices.tolist(), capsys)


def entropy(z, n):
    p = z.softmax(1)
    return (p * p.log()).sum(1).argsort()[:n]


def spoils(z, n):
    rows = margin(z).argsort()[:n]
    z -= z.max()
    return rows


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda z, n: margin(z).argsort(descending=True)[:n], "the surest rows"),
        (lambda z, n: z.softmax(1).amax(1).argsort()[:n], "the second best counts"),
        (
            lambda z, n: z.topk(2, 1).values.diff(dim=1)[:, 0].argsort(descending=True)[:n],
            "softmax",
        ),
        (entropy, "the entropy"),
        (lambda z, n: torch.arange(n), "not the rows"),
        (lambda z, n: margin(z).argsort(), "20 different row numbers"),
        (lambda z, n: margin(z)[:n], "20 different row numbers"),
        (spoils, "changed the logits"),
        (lambda z: z, "raised TypeError"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)

"""Exercises of lesson 02: the checkers take right answers and refuse plausible wrong ones."""

import math

import pytest
import torch

from ftlearn import check
from ftlearn.models import glyphnet, split

RIGHT = {"layer2", "layer2.conv1", "head"}
PLACES = [*RIGHT, "layer2.conv2", "layer2.downsample", "layer3.bn2"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex02_{number}")() is False
    assert capsys.readouterr().out == f"ex 2.{number}: not tried yet\n"


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex02_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 2.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict


def test_the_right_places_are_the_ones_that_split_takes():
    def cuttable(at):
        try:
            return bool(split(glyphnet(), at))
        except ValueError:
            return False

    assert {at for at in PLACES if cuttable(at)} == RIGHT


@pytest.mark.parametrize("answer", [RIGHT, sorted(RIGHT), tuple(RIGHT)])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


@pytest.mark.parametrize(
    "answer",
    [
        {"layer2", "head"},
        PLACES,
        {"layer2", "head", "layer2.downsample"},
        "layer2",
        {"fc"},
        3,
        set(),
    ],
)
def test_ex_1_wrong(answer, capsys):
    assert not judge(1, answer, capsys)


def widen(weight, bands):
    old = weight.shape[1]
    if bands < old:
        return torch.stack([weight[:, i::bands].sum(1) for i in range(bands)], 1)
    source = torch.arange(bands) % old
    return weight[:, source] / torch.bincount(source)[source].view(1, -1, 1, 1)


def tiled(weight, bands):
    return weight[:, torch.arange(bands) % 3]


def scaled(weight, bands):
    return tiled(weight, bands) * 3 / bands


def averaged(weight, bands):
    return weight.mean(1, keepdim=True).repeat(1, bands, 1, 1)


def blurred(weight, bands):
    return averaged(weight, bands) * 3 / bands


def in_place(weight, bands):
    return weight.mul_(3 / bands)[:, torch.arange(bands) % 3]


def zero(weight, bands):
    return torch.cat([weight, torch.zeros(6, max(bands - 3, 0), 3, 3)], 1)


def test_ex_2_right(capsys):
    assert judge(2, widen, capsys)
    assert judge(2, lambda w, n: w if n == 3 else blurred(w, n), capsys)


@pytest.mark.parametrize(
    "answer", [tiled, scaled, averaged, blurred, in_place, zero, lambda w, n: None, lambda w: w, 7]
)
def test_ex_2_wrong(answer, capsys):
    assert not judge(2, answer, capsys)


def test_ex_3_right(capsys):
    assert judge(3, lambda k: math.sqrt(2 / k.weight[0].numel()), capsys)
    assert judge(3, lambda k: torch.tensor(2 / k.weight[0].numel()).sqrt(), capsys)


@pytest.mark.parametrize(
    "answer",
    [
        lambda k: 2 / k.weight[0].numel(),
        lambda k: math.sqrt(1 / k.weight[0].numel()),
        lambda k: math.sqrt(2 / len(k.weight)),
        lambda k: math.sqrt(2 / k.weight.shape[1]),
        lambda k: math.sqrt(2 / k.in_features),
        lambda k: math.sqrt(2 / (getattr(k, "in_channels", 0) * 9 or k.in_features)),
        lambda k: None,
        0.1,
    ],
)
def test_ex_3_wrong(answer, capsys):
    assert not judge(3, answer, capsys)

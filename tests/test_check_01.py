"""Exercises of lesson 01: the checkers take right answers and refuse plausible wrong ones."""

import unicodedata

import pytest
import torch
from torch.nn import functional as F

from ftlearn import check
from ftlearn.glyphs import NUMBERS, is_letter


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex01_{number}")() is False
    assert capsys.readouterr().out == f"ex 1.{number}: not tried yet\n"


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex01_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 1.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict


def ends(picture):
    rows = (picture > 0).any(1).nonzero().flatten()
    columns = (picture > 0).any(0).nonzero().flatten()
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def resized(box, **how):
    return F.interpolate(box[None, None], (32, 32), **({"mode": "bilinear"} | how))[0, 0]


def fit(picture, **how):
    top, bottom, left, right = ends(picture)
    return resized(picture[top:bottom, left:right], **how)


def pulled(picture):
    "The lesson's way: a grid over the box."
    (top, bottom, left, right), (high, wide) = ends(picture), picture.shape
    across = torch.stack([(right - left) / wide, torch.zeros(()), (left + right) / wide - 1])
    down = torch.stack([torch.zeros(()), (bottom - top) / high, (top + bottom) / high - 1])
    grid = F.affine_grid(torch.stack([across, down])[None], (1, 1, 32, 32), align_corners=False)
    return F.grid_sample(picture[None, None], grid, align_corners=False)[0, 0]


def test_ex_1_right(capsys):
    assert judge(1, fit, capsys)
    assert judge(1, lambda p: fit(p, mode="nearest"), capsys)
    assert judge(1, lambda p: fit(p, antialias=True), capsys)
    assert judge(1, lambda p: fit(p, align_corners=True), capsys)
    assert judge(1, pulled, capsys)


def short(picture):
    top, bottom, left, right = ends(picture)
    return resized(picture[top : bottom - 1, left : right - 1])


def rows_only(picture):
    top, bottom, _, _ = ends(picture)
    return resized(picture[top:bottom])


def square(picture):
    top, bottom, left, right = ends(picture)
    side = max(bottom - top, right - left)
    return resized(picture[top : top + side, left : left + side])


def moved(picture):
    top, bottom, left, right = ends(picture)
    box = picture[top:bottom, left:right]
    return F.pad(box, (0, 32 - box.shape[1], 0, 32 - box.shape[0]))


def in_place(picture):
    new = fit(picture)
    picture.zero_()
    return new


WRONG_1 = {
    "not cut": resized,
    "the last row is lost": short,
    "only the rows": rows_only,
    "a square box": square,
    "moved, not scaled": moved,
    "transposed": lambda p: fit(p).T,
    "black and white": lambda p: (fit(p) > 0).float(),
    "upside down": lambda p: fit(p).flip(0),
    "another size": lambda p: fit(p)[:8, :8],
    "still a batch": lambda p: fit(p)[None, None],
    "the picture is changed": in_place,
    "brighter than half": lambda p: resized(p[(p > 0.5).any(1)][:, (p > 0.5).any(0)]),
    "nothing": lambda p: None,
    "no function": 3,
}


@pytest.mark.parametrize("name", WRONG_1)
def test_ex_1_wrong(name, capsys):
    assert not judge(1, WRONG_1[name], capsys)


def children():
    return {c for c in check.candidates() if not NUMBERS.isdisjoint(unicodedata.name(c).split())}


def test_the_candidates_are_letters_to_python_and_the_lesson_parts_them():
    assert check.candidates().isalpha()
    assert children() == {c for c in check.candidates() if not is_letter(c)}


def test_ex_2_right(capsys):
    assert judge(2, children(), capsys)
    assert judge(2, "".join(children()), capsys)
    assert judge(2, sorted(children()), capsys)


WRONG_2 = {
    "by category": lambda c: unicodedata.category(c)[0] == "N",
    "by value": lambda c: unicodedata.numeric(c, None) is not None,
    "by look": lambda c: c in "OlЗбȢЧ",
    "only tones": lambda c: "TONE" in unicodedata.name(c),
    "without the old names": lambda c: {"TONE", "TWO"} & set(unicodedata.name(c).split()),
    "all": lambda c: True,
    "not from scripts we know": lambda c: not unicodedata.name(c).startswith("LATIN"),
}


@pytest.mark.parametrize("name", WRONG_2)
def test_ex_2_wrong(name, capsys):
    assert not judge(2, [c for c in check.candidates() if WRONG_2[name](c)], capsys)


@pytest.mark.parametrize("answer", ["7", "", 5, [], [5]])
def test_ex_2_other_things(answer, capsys):
    assert not judge(2, answer, capsys)


def cut(picture, share):
    ink = torch.zeros(picture.numel(), dtype=torch.bool)
    ink[picture.flatten().argsort(descending=True)[: round(share * picture.numel())]] = True
    return ink.view(picture.shape)


def ranked(picture, share):
    rank = picture.flatten().argsort(descending=True, stable=True).argsort()
    return (rank < round(share * picture.numel())).view_as(picture)


def level(picture, share):
    return picture.flatten().sort().values[int((1 - share) * (picture.numel() - 1))]


def lightest(picture, share):
    return cut(-picture, share)


def changing(picture, share):
    return cut(picture.add_(1e-4 * torch.rand(picture.shape)), share)


WRONG_3 = {
    "above a level": lambda p, s: p > level(p, s),
    "at or above a level": lambda p, s: p >= level(p, s),
    "a quantile": lambda p, s: p > p.quantile(1 - s),
    "half the darkest": lambda p, s: p > 0.5 * p.max(),
    "the share as a level": lambda p, s: p > s,
    "the lightest": lightest,
    "the rest": lambda p, s: ~cut(p, s),
    "the first pixels": lambda p, s: cut(-torch.arange(p.numel()).view(p.shape), s),
    "flat": lambda p, s: cut(p, s).flatten(),
    "numbers": lambda p, s: cut(p, s).float(),
    "noise written into the picture": changing,
    "rounded down": lambda p, s: cut(p, int(s * p.numel()) / p.numel()),
    "no function": 0.3,
}


def test_ex_3_right(capsys):
    assert judge(3, cut, capsys) and judge(3, ranked, capsys)


@pytest.mark.parametrize("name", WRONG_3)
def test_ex_3_wrong(name, capsys):
    assert not judge(3, WRONG_3[name], capsys)

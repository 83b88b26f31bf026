"""Exercises of the first page: the checkers take right answers and refuse plausible wrong ones."""

import re

import numpy as np
import pytest
import torch

from ftlearn import check
from ftlearn.labels import BUDGETS, stored, summary
from ftlearn.training import inference, predict


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"exindex_{number}")() is False
    assert getattr(check, f"exindex_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex index.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"exindex_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex index.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert re.search(says, said), said
    return verdict


@pytest.mark.parametrize("answer", [10, 10.0, "10", torch.tensor(10), np.int64(10)])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (1, "with 1 it reads 0.55"),
        (5, "with 5 it reads 0.829 of them, and the probe 0.877"),
        (20, "fewer are enough"),
        (100, "give one of them"),
        (0.9, "give one of them"),
        (float("nan"), "give one of them"),
        ("ten", "raised ValueError"),
        ((5, 10), "raised TypeError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


def test_ex_1_is_what_the_table_says():
    cells = summary(stored()["rows"])
    goal = cells["probe", 1][0]
    assert next(k for k in BUDGETS if cells["from scratch", k][0] >= goal) == 10
    assert cells["from scratch", 10][0] - cells["from scratch", 10][1] > goal  # beyond its interval


def rows(model, data):
    return (predict(model, data).argmax(1) != data.columns[1]).nonzero().flatten()


def mask(model, data):
    return predict(model, data).argmax(1) != data.columns[1]


def by_hand(model, data):
    with inference(model):
        read = model(data.columns[0]).argmax(1)
    return {i for i, (a, b) in enumerate(zip(read.tolist(), data.columns[1].tolist())) if a != b}


def batch_by_batch(model, data):
    found = []
    with inference(model):
        for x, y in data.in_order().batches():
            found += (model(x).argmax(1) != y).tolist()
    return [i for i, is_wrong in enumerate(found) if is_wrong]


@pytest.mark.parametrize("answer", [rows, mask, by_hand, batch_by_batch])
def test_ex_2_right(answer, capsys):
    assert judge(2, answer, capsys)


def in_the_mode_it_was_in(model, data):
    with torch.no_grad():
        return model(data.columns[0]).argmax(1) != data.columns[1]


def left_in_evaluation(model, data):
    with torch.no_grad():
        return model.eval()(data.columns[0]).argmax(1) != data.columns[1]


def put_in_training(model, data):
    found = left_in_evaluation(model, data)
    model.train()
    model.stem.eval()
    return found


def in_shuffled_order(model, data):
    with inference(model):
        return torch.cat([model(x).argmax(1) != y for x, y in data.batches()])


def within_batches(model, data):
    with inference(model):
        wrong = [model(x).argmax(1) != y for x, y in data.in_order().batches()]
    return [i for batch in wrong for i in batch.nonzero().flatten().tolist()]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (in_the_mode_it_was_in, "batch statistics move"),
        (left_in_evaluation, "another mode"),
        (put_in_training, "another mode"),
        (in_shuffled_order, "This set is shuffled"),
        (within_batches, "others"),
        (lambda model, data: ~mask(model, data), "reads rightly"),
        (lambda model, data: mask(model, data).sum(), "that is one number"),
        (lambda model, data: 20, "that is one number"),
        (lambda model, data: mask(model, data).float().mean(), "that is one number"),
        (lambda model, data: [], "you name 0, and 0 others"),
        (lambda model, data: rows(model, data)[:-1], "you name 19, and 0 others"),
        (lambda model, data: range(60), "you name 20, and 40 others"),
        (lambda model: [], "raised TypeError"),
        (torch.arange(0, 60, 3), "raised TypeError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_ex_2_asks_about_a_known_third():
    model, data, right = check._reader_index()
    assert set(rows(model, data).tolist()) == right and len(right) == 20
    assert model.training and data.steps > 1


@pytest.mark.parametrize("answer", [0.026, 0.03, 0.024, "0.026", torch.tensor(0.025)])
def test_ex_3_right(answer, capsys):
    assert judge(3, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (0.003, "mean of 100 draws"),
        (0.0026, "mean of 100 draws"),
        (0.00026, "the root goes the other way"),
        (0.0132, "two draws of three"),
        (0.052, "the whole width"),
        (2.6, "in points"),
        (0.5, "stands in brackets"),
        (0, "stands in brackets"),
        (-0.026, "stands in brackets"),
        (float("nan"), "stands in brackets"),
        ("little", "raised ValueError"),
        ((0.94, 0.99), "raised TypeError"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)


def test_ex_3_is_what_the_draws_do():
    """Of the 100 stored draws about 95 are within the right answer of their mean."""
    found = [r for r in stored()["rows"] if (r["arm"], r["labels"]) == ("probe", 5)]
    scores = np.array([row["accuracy"] for row in found])
    inside = abs(scores - scores.mean()) < 2 * scores.std(ddof=1)
    assert len(scores) == 100 and 0.92 <= inside.mean() <= 0.98
    assert abs(2 * scores.std(ddof=1) - 0.026) < 0.001


def test_checking_moves_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check.exindex_1(5), check.exindex_2(rows), check.exindex_3(1)
    assert torch.equal(torch.get_rng_state(), before)

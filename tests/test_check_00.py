"""Exercises of lesson 00: the checkers take right answers and refuse plausible wrong ones."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ftlearn import check
from ftlearn.data import order, overlap

X = torch.as_tensor(load_digits().images) / 16
COPIES, TOUCHED = [31, 120, 333, 410, 571], [7, 205, 288, 499]


def by_distance():
    train, test = check.planted()
    near = torch.cdist(test.columns[0].flatten(1).float(), train.columns[0].flatten(1).float())
    return (near.min(1).values < 4).nonzero().flatten()


def by_equality():
    train, test = check.planted()
    return overlap(test, train)


def values(part):
    return part.mean().item(), part.std().item()


def rest(examples, size, seed, epoch, start):
    return order(examples, seed, epoch)[start * size :]


def by_numpy(examples, size, seed, epoch, start):
    return np.random.default_rng((seed, epoch)).permutation(examples)[start * size :]


def of_the_global_generator(examples, size, seed, epoch, start):
    return torch.randperm(examples)[start * size :]


def seeding_the_global_generator(examples, size, seed, epoch, start):
    torch.manual_seed(1000 * seed + epoch)
    return torch.randperm(examples)[start * size :]


def of_the_sum(examples, size, seed, epoch, start):
    draw = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(examples, generator=draw)[start * size :]


def of_the_seed_alone(examples, size, seed, epoch, start):
    return order(examples, seed)[start * size :]


def of_those_left(examples, size, seed, epoch, start):
    return order(examples - start * size, seed, epoch)


def skipping_examples(examples, size, seed, epoch, start):
    return order(examples, seed, epoch)[start:]


def with_repeats(examples, size, seed, epoch, start):
    draw = torch.Generator().manual_seed(1000 * seed + epoch)
    return torch.randint(0, examples, (examples,), generator=draw)[start * size :]


def whole_batches(examples, size, seed, epoch, start):
    return order(examples, seed, epoch)[start * size : examples // size * size]


RIGHT = [
    (1, by_distance()),
    (1, set(COPIES + TOUCHED)),
    (1, np.isin(np.arange(597), COPIES + TOUCHED)),
    (2, values(X[:900])),
    (2, (X[:900].mean(), X[:900].std(correction=0))),
    (3, rest),
    (3, by_numpy),
]
WRONG = [
    (1, by_equality(), "4 more are copies with a few dots changed"),
    (1, TOUCHED, "5 exact copies are missing"),
    (1, COPIES + TOUCHED + [8], "test row 8 is nobody's copy"),
    (1, [1200 + row for row in COPIES + TOUCHED], "test row 1207 is nobody's copy"),
    (1, "all of them", "your answer raised"),
    (2, values(X), "whole file"),
    (2, values(X[:1200]), "validation"),
    (2, values(16 * X[:900]), "raw numbers"),
    (2, (X[:900].mean(), X[:900].var()), "variance"),
    (2, (X[:900].mean(), X[:900].std((1, 2)).mean()), "the std is not"),
    (2, values(X[1200:]), "not the mean and the std"),
    (2, 0.3, "your answer raised TypeError"),
    (3, of_the_global_generator, "global generator"),
    (3, seeding_the_global_generator, "global generator"),
    (3, of_the_sum, "has the order of seed"),
    (3, of_the_seed_alone, "has the order of seed"),
    (3, of_those_left, "goes on with other rows"),
    (3, skipping_examples, "goes on with other rows"),
    (3, with_repeats, "exactly once"),
    (3, whole_batches, "exactly once"),
    (3, lambda examples: None, "your answer raised TypeError"),
]


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex00_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 0.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict, said


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex00_{number}")() is False
    assert getattr(check, f"ex00_{number}")(None) is False
    assert capsys.readouterr().out == f"ex 0.{number}: not tried yet\n" * 2


@pytest.mark.parametrize("number, answer", RIGHT)
def test_right(number, answer, capsys):
    assert judge(number, answer, capsys)[0] is True


@pytest.mark.parametrize("number, answer, words", WRONG)
def test_wrong(number, answer, words, capsys):
    verdict, said = judge(number, answer, capsys)
    assert verdict is False and words in said


def test_what_was_planted():
    assert by_equality().tolist() == COPIES
    assert by_distance().tolist() == sorted(COPIES + TOUCHED)
    assert all(
        column.dtype == torch.uint8 for column in [part.columns[0] for part in check.planted()]
    )


def test_a_checker_leaves_the_random_numbers_as_they_were(capsys):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    check.ex00_3(seeding_the_global_generator)
    assert torch.equal(state, torch.get_rng_state())

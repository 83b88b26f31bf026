"""Lesson 04's checkers accept a right answer and refuse plausible wrong ones."""

import pytest
import torch
from torch.nn import functional as F

from ftlearn import check


@torch.no_grad()
def right_step(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p.add_(p.grad, alpha=-lr)
            p.grad = None


@torch.no_grad()
def uphill(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p += lr * p.grad
            p.grad = None


@torch.no_grad()
def new_names(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p = p - lr * p.grad


@torch.no_grad()
def without_rate(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p -= p.grad
            p.grad = None


@torch.no_grad()
def keeps_gradients(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p -= lr * p.grad


def inside_the_graph(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p -= lr * p.grad
            p.grad = None


@torch.no_grad()
def stumbles_over_frozen(parameters, lr):
    for p in parameters:
        p -= lr * p.grad
        p.grad = None


def unfreezes(parameters, lr):
    right_step(parameters, lr)
    for p in parameters:
        p.requires_grad_(True)


def loop(clear=True, softmax=False, before=True, floats=True):
    def train(model, batches, lr):
        optimizer, losses = torch.optim.SGD(model.parameters(), lr), []
        for x, y in batches:
            z = model(x).softmax(1) if softmax else model(x)
            loss = F.cross_entropy(z, y)
            if clear and before:
                optimizer.zero_grad()
            loss.backward()
            if clear and not before:
                optimizer.zero_grad()
            optimizer.step()
            losses.append(loss.item() if floats else loss)
        return losses

    return train


@torch.no_grad()
def right_mean(model, batches):
    total, examples = 0.0, 0
    for x, y in batches:
        total += F.cross_entropy(model(x), y).item() * len(y)
        examples += len(y)
    return total / examples


def mean_of_means(model, batches):
    return sum(F.cross_entropy(model(x), y).item() for x, y in batches) / len(batches)


def holds_graphs(model, batches):
    total = sum(F.cross_entropy(model(x), y) * len(y) for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def plain_sum(model, batches):
    return sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches)


def leaves_gradients(model, batches):
    F.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
    return right_mean(model, batches)


@torch.no_grad()
def right_score(model, x, y):
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    score = (model(x).argmax(1) == y).float().mean().item()
    for part, training in before:
        part.training = training
    return score


def in_train_mode(model, x, y):
    score = (model(x).argmax(1) == y).float().mean().item()
    model.train()
    return score


def wakes_all(model, x, y):
    score = (model.eval()(x).argmax(1) == y).float().mean().item()
    model.train()
    return score


def restores_the_top(model, x, y):
    training = model.training
    score = (model.eval()(x).argmax(1) == y).float().mean().item()
    model.train(training)
    return score


def stays_in_eval(model, x, y):
    return (model.eval()(x).argmax(1) == y).float().mean().item()


def a_count(model, x, y):
    return right_score(model, x, y) * len(y)


RIGHT = {"ex04_1": right_step, "ex04_2": loop(), "ex04_3": right_mean, "ex04_4": right_score}
WRONG = {
    "ex04_1": [
        uphill,
        new_names,
        without_rate,
        keeps_gradients,
        inside_the_graph,
        stumbles_over_frozen,
        unfreezes,
    ],
    "ex04_2": [
        loop(clear=False, softmax=True),
        loop(clear=False),
        loop(softmax=True),
        loop(before=False),
        loop(floats=False),
        lambda model, batches, lr: [],
        lambda model, batches, lr: loop()(model, batches, lr)[:-1],
        lambda model, batches, lr: loop()(model, batches, lr / 2),
    ],
    "ex04_3": [mean_of_means, holds_graphs, plain_sum, leaves_gradients, 1.0],
    "ex04_4": [in_train_mode, wakes_all, restores_the_top, stays_in_eval, a_count, 0.5],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name, capsys):
    assert getattr(check, name)(RIGHT[name]) is True
    assert capsys.readouterr().out.startswith(f"ex 4.{name[-1]}: correct ✓")


@pytest.mark.parametrize("name", RIGHT)
def test_untried(name, capsys):
    assert getattr(check, name)() is False
    assert capsys.readouterr().out == f"ex 4.{name[-1]}: not tried yet\n"


@pytest.mark.parametrize("name, wrong", [(n, wrong) for n in WRONG for wrong in WRONG[n]])
def test_wrong(name, wrong, capsys):
    assert getattr(check, name)(wrong) is False
    out = capsys.readouterr().out
    assert "correct" not in out and len(out) > 20


@pytest.mark.parametrize("name", RIGHT)
def test_random_numbers_are_left_alone(name):
    before = torch.get_rng_state()
    getattr(check, name)(RIGHT[name])
    assert torch.equal(torch.get_rng_state(), before)

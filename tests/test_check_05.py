"""Exercises of lesson 05: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch
from torch import nn

from ftlearn import check
from ftlearn.freezing import freeze, unfreeze
from ftlearn.models import split, stages


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex05_{number}")() is False
    assert getattr(check, f"ex05_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 5.{number}: not tried yet\n"


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex05_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 5.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict


def hold(body):
    body.requires_grad_(False)
    body.eval()
    body.train = lambda mode=True: body
    return body


def hold_each(body):
    body.requires_grad_(False)
    for part in body.modules():
        part.eval()
        part.train = lambda mode=True, part=part: part


@pytest.mark.parametrize("answer", [hold, hold_each])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


def only_gradients(body):
    body.requires_grad_(False)


def one_eval(body):
    body.requires_grad_(False).eval()


def weights_learn(body):
    body.eval()
    body.train = lambda mode=True: body


def no_statistics(body):
    body.requires_grad_(False)
    for part in body.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.track_running_stats = False


def momentum_zero(body):
    body.requires_grad_(False)
    for part in body.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 0.0


def dropout_forgotten(body):
    body.requires_grad_(False)
    for part in body.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
            part.train = lambda mode=True, part=part: part


def only_the_children(body):
    body.requires_grad_(False)
    for part in body.children():
        if not list(part.children()):
            part.eval()
            part.train = lambda mode=True, part=part: part


WRONG = only_gradients, one_eval, weights_learn, no_statistics, momentum_zero
WRONG += dropout_forgotten, only_the_children, "freeze", lambda body: 1 / 0


@pytest.mark.parametrize("answer", WRONG)
def test_ex_1_wrong(answer, capsys):
    assert not judge(1, answer, capsys)


def moved(model, update):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    update()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def no_copy(model, update):
    before = model.state_dict()
    update()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def shallow_copy(model, update):
    before = dict(model.state_dict())
    update()
    return {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}


def no_buffers(model, update):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    update()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def nearly_equal(model, update):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    update()
    after = model.state_dict()
    return {
        n for n, t in after.items() if not torch.allclose(t.float(), before[n].float(), atol=1e-3)
    }


def what_may_learn(model, update):
    update()
    return {name for name, p in model.named_parameters() if p.requires_grad}


def called_twice(model, update):
    update()
    return moved(model, update)


def as_list(model, update):
    return sorted(moved(model, update))


def test_ex_2_right(capsys):
    assert judge(2, moved, capsys)


WRONG = no_copy, shallow_copy, no_buffers, nearly_equal, what_may_learn, called_twice, as_list
WRONG += lambda model, update: set(model.state_dict()), {"0.bias"}


@pytest.mark.parametrize("answer", WRONG)
def test_ex_2_wrong(answer, capsys):
    assert not judge(2, answer, capsys)


def norms(model):
    return [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]


def learning(module):
    return [p for p in module.parameters() if p.requires_grad]


def moving(model, at):
    body, rest = split(model, at)
    freeze(body)
    unfreeze(rest)
    for part in norms(model):
        freeze(part)
    return learning(model)


def all_frozen_first(model, at):
    freeze(model)
    names = [name for name, _ in stages(model)]
    for _, stage in stages(model)[names.index(at) :]:
        for part in stage.modules():
            if not isinstance(part, nn.BatchNorm2d):
                part.frozen = False
                for p in part.parameters(recurse=False):
                    p.requires_grad = True
    return learning(model)


@pytest.mark.parametrize("answer", [moving, all_frozen_first])
def test_ex_3_right(answer, capsys):
    assert judge(3, answer, capsys)


def norms_first(model, at):
    for part in norms(model):
        freeze(part)
    body, rest = split(model, at)
    freeze(body)
    unfreeze(rest)
    return learning(model)


def norms_forgotten(model, at):
    body, rest = split(model, at)
    freeze(body)
    unfreeze(rest)
    return learning(model)


def never_thawed(model, at):
    freeze(split(model, at)[0])
    for part in norms(model):
        freeze(part)
    return learning(model)


def never_frozen_again(model, at):
    unfreeze(split(model, at)[1])
    for part in norms(model):
        freeze(part)
    return learning(model)


def gradients_only(model, at):
    body, rest = split(model, at)
    body.requires_grad_(False)
    rest.requires_grad_(True)
    for part in norms(model):
        part.requires_grad_(False).eval()
    return learning(model)


def statistics_only(model, at):
    body, rest = split(model, at)
    freeze(body)
    unfreeze(rest)
    for part in norms(rest):
        part.frozen = True
    return learning(model)


def list_too_long(model, at):
    moving(model, at)
    return list(split(model, at)[1].parameters())


def head_alone(model, at):
    moving(model, at)
    return learning(model.head)


def generator_for_the_optimizer(model, at):
    moving(model, at)
    return (p for p in model.parameters() if p.requires_grad)


def new_head(model, at):
    nn.init.normal_(model.head[-1].weight)
    return moving(model, at)


WRONG = norms_first, norms_forgotten, never_thawed, never_frozen_again, gradients_only
WRONG += statistics_only, list_too_long, head_alone, generator_for_the_optimizer, new_head
WRONG += {"BatchNorm2d"}, lambda model, at: 1 / 0


@pytest.mark.parametrize("answer", WRONG)
def test_ex_3_wrong(answer, capsys):
    assert not judge(3, answer, capsys)

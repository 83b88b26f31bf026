"""Exercises of lesson 05: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch
from torch import nn

from ftlearn import check


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


BATCH, INSTANCE, STILL = (
    "BatchNorm2d",
    "InstanceNorm2d(track_running_stats=True)",
    "BatchNorm2d(momentum=0)",
)
LAYERS = {
    BATCH: nn.BatchNorm2d(2),
    INSTANCE: nn.InstanceNorm2d(2, track_running_stats=True),
    STILL: nn.BatchNorm2d(2, momentum=0.0),
    "LayerNorm": nn.LayerNorm([2, 3, 3]),
    "GroupNorm": nn.GroupNorm(1, 2),
    "Dropout": nn.Dropout(),
    "InstanceNorm2d": nn.InstanceNorm2d(2),
}


def test_ex_3_is_true_of_the_layers(capsys):
    x = torch.randn(4, 2, 3, 3)

    def writes(layer):
        return bool(moved(layer, lambda: layer.train()(x)))

    names = {name for name, layer in LAYERS.items() if writes(layer)}
    assert judge(3, names, capsys) and judge(3, sorted(names), capsys)


@pytest.mark.parametrize(
    "answer",
    [{BATCH}, {BATCH, INSTANCE}, {BATCH, STILL}, set(LAYERS), {BATCH, INSTANCE, STILL, "Dropout"},
     BATCH, set(), {"BatchNorm1d"}, 3, {BATCH, "InstanceNorm2d", STILL}],
)  # fmt: skip
def test_ex_3_wrong(answer, capsys):
    assert not judge(3, answer, capsys)

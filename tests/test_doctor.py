"""The doctor finds each fault, is silent for the healthy, and leaves everything bit-identical."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlearn import Columns, HeldOut, Step, cross_entropy, fit, freeze, mse, replace_head
from ftlearn.doctor import doctor


def examples(count=60, classes=4, seed=0):
    """Points around the corners of a box, one class each."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    corners = 1.5 * torch.randn(classes, 6, generator=torch.Generator().manual_seed(9))
    return corners[y] + 0.3 * torch.randn(count, 6, generator=g), y


X, Y = examples()


def columns(x=X, y=Y, **settings):
    return Columns(x, y, **{"batch_size": 20, **settings})


def net(*last, seed=0):
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(16)
    return nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Linear(16, 4), *last)


def adam(model, lr=3e-3):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)


def failed(report):
    return {finding.code for finding in report.failed}


def head_only():
    model = net()
    freeze(model[:3])
    return model


def zero_head():
    return replace_head(net(), 4)


def with_dropout():
    return nn.Sequential(*net()[:3], nn.Dropout(0.5), net()[3])


HEALTHY = {"net": net, "head only": head_only, "zero head": zero_head, "dropout": with_dropout}


@pytest.mark.parametrize("name", HEALTHY)
def test_the_healthy_are_left_in_peace(name):
    model = HEALTHY[name]()
    valid = Columns(*examples(seed=1))
    report = doctor(model, columns(), optimizer=adam(model), valid=valid)
    assert report.ok, report.failed
    assert "✗" not in repr(report) and "<table>" in report._repr_html_()


def test_families_are_healthy(model, images):
    """A ResNet, a VGG with dropout and a ViT on noise images, as they come."""
    report = doctor(model, Columns(*images, batch_size=16), optimizer=adam(model, 1e-3))
    assert report.ok, report.failed


def test_trained_is_healthy():
    model = net()
    fit(Step(model, cross_entropy(), adam(model)), columns(), epochs=40)
    assert doctor(model, columns(), optimizer=adam(model)).ok


def test_regression_is_not_asked_about_classes():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    report = doctor(model, columns(y=X[:, :2] ** 2), mse(), adam(model))
    assert report.ok and "softmax" not in report and "labels" not in report


@pytest.mark.parametrize("objective", [cross_entropy(label_smoothing=0.1), nn.CrossEntropyLoss()])
def test_objectives_of_both_kinds(objective):
    assert doctor(net(), columns(), objective).ok


def test_soft_targets_are_healthy():
    assert doctor(net(), columns(y=F.one_hot(Y, 4) * 0.9 + 0.025)).ok


def test_takes_tensors_and_loaders():
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, Y), batch_size=20, shuffle=True
    )
    before = torch.get_rng_state()
    assert doctor(net(), (X, Y)).ok and doctor(net(), loader, valid=(X + 1, Y)).ok
    net()
    torch.set_rng_state(before)
    doctor(model := net(), loader)
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    net()
    assert model and torch.equal(drawn, torch.get_rng_state())


def nothing_trainable():
    model = net().requires_grad_(False)
    return doctor(model, columns())


def head_missing():
    model = net()
    return doctor(model, columns(), optimizer=adam(model[:3]))


def old_head():
    model = net()
    optimizer = adam(model)
    model[3] = nn.Linear(16, 4)
    return doctor(model, columns(), optimizer=optimizer)


def frozen_held():
    model = net()
    optimizer = adam(model)
    freeze(model[0])
    return doctor(model, columns(), optimizer=optimizer)


def huge_start():
    model = net()
    nn.init.normal_(model[3].weight, std=30)
    return doctor(model, columns())


def frozen_norm_moves():
    model = net()
    model[:3].requires_grad_(False)
    return doctor(model, columns())


def broken_weights():
    model = net()
    model[3].bias.data.fill_(float("nan"))
    return doctor(model, columns())


def contradiction():
    x = X[:1] + 1e-7 * torch.randn(60, 6)
    return doctor(net(), columns(x, torch.arange(60) % 4))


def dead_end():
    torch.manual_seed(0)
    layers = [layer for _ in range(14) for layer in (nn.Linear(6, 6), nn.Sigmoid())]
    return doctor(nn.Sequential(*layers, nn.Linear(6, 4)), columns())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = net(), nn.Linear(6, 4)

    def forward(self, x):
        return self.used(x)


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x).detach()


class Half(nn.Module):
    """A body behind a detach."""

    def __init__(self):
        super().__init__()
        self.body, self.head = net()[:3], nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(x).detach())


def nan_input():
    x = X.clone()
    x[3, 2] = float("nan")
    return doctor(net(), columns(x))


def old_task():
    return doctor(replace_head(net(), 100), columns())


def slow():
    model = net()
    return doctor(model, columns(), optimizer=torch.optim.SGD(model.parameters(), 1e-9))


def fast():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    return doctor(model, columns(), optimizer=torch.optim.SGD(model.parameters(), 1e4))


FAULTS = {
    "nothing trainable": (nothing_trainable, "trainable", "set requires_grad"),
    "head not in the optimizer": (head_missing, "head", "'3.bias' is trainable but not in"),
    "old head in the optimizer": (old_head, "foreign", "holds 2 parameters that are not in"),
    "frozen in the optimizer": (frozen_held, "held", "'0.bias' is frozen but in the optimizer"),
    "loss far above ln C": (huge_start, "start", "far above ln 4 = 1.39"),
    "nan at the start": (broken_weights, "start", "is nan before any update"),
    "two softmaxes": (lambda: doctor(net(nn.Softmax(1)), columns()), "softmax", "above 0.7437"),
    "frozen norm moves": (frozen_norm_moves, "still", "'1' has frozen weights"),
    "labels of int32": (lambda: doctor(net(), columns(y=Y.int())), "labels", "labels.long()"),
    "labels as floats": (lambda: doctor(net(), columns(y=Y.float())), "labels", "labels.long()"),
    "labels from 1": (lambda: doctor(net(), columns(y=Y + 1)), "labels", "run from 1 to 4"),
    "labels as a column": (lambda: doctor(net(), columns(y=Y[:, None])), "labels", "(20, 1)"),
    "targets of noise": (
        lambda: doctor(net(), columns(y=torch.randn(60, 4))), "labels", "no probabilities"),
    "train in valid": (
        lambda: doctor(net(), columns(), valid=Columns(X[:7], Y[:7])), "overlap", "7 training"),
    "contradicting labels": (contradiction, "memory", "by heart"),
    "nan in the input": (nan_input, "finite", "column 0 of the data holds nan"),
    "constant input": (lambda: doctor(net(), columns(X * 0 + 1)), "inputs", "all inputs"),
    "input of bytes": (lambda: doctor(net(), columns(X * 100)), "scale", "near 1"),
    "input divided twice": (lambda: doctor(net(), columns(X / 299)), "scale", "near 1"),
    "an unused layer": (lambda: doctor(Unused(), columns()), "gradients", "'spare.weight'"),
    "a detached body": (lambda: doctor(Half(), columns()), "gradients", "'body.0.weight'"),
    "a detached output": (lambda: doctor(Cut(), columns()), "loss", "detach()"),
    "vanishing gradients": (dead_end, "gradients", "vanishes"),
    "a batch of one": (lambda: doctor(net(), columns(batch_size=59)), "batch", "the last batch"),
    "all batches of one": (lambda: doctor(net(), columns(batch_size=1)), "batch", "every batch"),
    "the old task's head": (old_task, "outputs", "has 100 outputs"),
    "a rate too small": (slow, "rate", "raise the learning rate"),
    "a rate too large": (fast, "rate", "lower the learning rate"),
    "no bend": (
        lambda: doctor(nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4)), columns()),
        "affine", "2 layers of weights"),
    "a class as a loss": (
        lambda: doctor(net(), columns(), nn.CrossEntropyLoss), "loss", "CrossEntropyLoss()"),
    "no labels": (lambda: doctor(net(), Columns(X)), "loss", "missing 1 required"),
    "a wrong shape": (lambda: doctor(net(), columns(X[:, :5])), "runs", "cannot be run"),
}  # fmt: skip


MORE = {  # faults that have another one for a consequence
    "old head in the optimizer": {"head"},
    "constant input": {"memory"},
    "contradicting labels": {"gradients"},
    "vanishing gradients": {"memory"},
    "input of bytes": {"start"},
    "input divided twice": {"memory"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_nothing_else(name):
    make, code, words = FAULTS[name]
    report = make()
    assert code in failed(report) <= {code} | MORE.get(name, set()), repr(report)
    assert words in report[code].sentence
    assert "\n" not in report[code].sentence and report[code].sentence.endswith(".")


def test_everything_is_left_bit_identical(model, images, device):
    data = Columns(*images, batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    fit(Step(model, cross_entropy(), optimizer), data)
    next(model.children()).eval()  # a mode of its own
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    cuda = torch.cuda.get_rng_state() if device.type == "cuda" else None
    doctor(model, data, optimizer=optimizer, valid=data)
    for old, new in zip(states, (model.state_dict(), optimizer.state_dict())):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert cuda is None or torch.equal(torch.cuda.get_rng_state(), cuda)
    assert all((p.grad == 1).all() and p.requires_grad for p in model.parameters())


def test_the_test_set_is_not_read():
    valid = HeldOut(*examples(seed=1))
    doctor(net(), columns(), valid=valid)
    assert valid.reads == 0


def test_an_objective_with_parameters_is_copied_too():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, model, x, y):
            z = model(x) * self.scale
            return F.cross_entropy(z, y), z

    objective, model = Learned(), net()
    both = [*model.parameters(), *objective.parameters()]
    report = doctor(model, columns(), objective, torch.optim.Adam(both, 3e-3))
    assert report.ok, report.failed
    assert objective.scale.item() == 1 and objective.scale.grad is None


def test_the_same_answer_twice():
    assert repr(doctor(with_dropout(), columns())) == repr(doctor(with_dropout(), columns()))

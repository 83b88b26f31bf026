"""Frozen means constant: parameters, buffers and outputs, whatever happens around them."""

import copy

import pytest
import torch
from torch import nn

from ftlearn.data import Columns
from ftlearn.freezing import fingerprint, freeze, is_frozen, unfreeze
from ftlearn.losses import cross_entropy
from ftlearn.models import split, stages
from ftlearn.training import Step, eval_mode, evaluate, fit, train, train_mode


def optimizer(module, kind=torch.optim.AdamW, **settings):
    return kind([p for p in module.parameters() if p.requires_grad], 1e-2, **settings)


def update(model, images, epochs=2):
    data = Columns(*images, batch_size=8, shuffle=True)
    return fit(
        Step(model, cross_entropy(), optimizer(model, weight_decay=0.1)), data, epochs=epochs
    )


def bits(module):
    """Every parameter and buffer, those that are not saved too."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: t.detach().clone() for name, t in named}


def moved(module, before):
    return {name for name, t in bits(module).items() if not torch.equal(t, before[name])}


def middle(model):
    names = [name for name, _ in stages(model)]
    return names[len(names) // 2]


@pytest.mark.parametrize("cut", ["head", "middle"])
def test_parameters_and_buffers_keep_their_bits(model, images, cut):
    body, head = split(model, "head" if cut == "head" else middle(model))
    freeze(body)
    before, rest = bits(body), bits(head)
    model.train()
    update(model, images)
    assert not moved(body, before)
    assert moved(head, rest) >= {name for name, _ in head.named_parameters()}


def test_the_naive_recipe_moves_the_buffers_and_nothing_else(model, images):
    body, _ = split(model, "head")
    body.requires_grad_(False)
    before = bits(body)
    update(model, images)
    statistics = {n for n in before if n.endswith(("running_mean", "running_var", "_tracked"))}
    assert moved(body, before) == statistics


def test_frozen_outputs_are_those_of_evaluation_mode(model, images):
    body, _ = split(model, "head")
    freeze(body)
    expected = body.eval()(images[0])
    train_mode(model)
    assert torch.equal(body(images[0]), expected)
    assert model.training and not any(part.training for part in body.modules())


def test_train_called_before_every_epoch_does_no_harm(model, images):
    body, _ = split(model, "head")
    before = bits(freeze(body))
    step = Step(model, cross_entropy(), optimizer(model))
    for tick in train(step, Columns(*images, batch_size=8), epochs=3):
        if tick.last:
            model.train()
    assert not moved(body, before)


def everything_that_moves():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Dropout(0.5), nn.Identity())
    block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), inner, nn.Dropout1d(0.3))
    block.register_buffer("scratch", torch.zeros(2), persistent=False)
    return nn.Sequential(block, nn.Linear(6, 3))


def test_dropout_and_norms_without_parameters_are_quiet():
    model, x = everything_that_moves(), torch.randn(40, 6) + 3
    before = bits(freeze(model[0]))
    fit(Step(model, cross_entropy(), optimizer(model)), Columns(x, torch.arange(40) % 3), epochs=3)
    assert not moved(model[0], before)
    assert torch.equal(train_mode(model)[0](x), eval_mode(model)[0](x))


def test_freeze_marks_every_module_and_says_which():
    model = freeze(everything_that_moves())
    assert all(part.frozen for part in model.modules()) and is_frozen(model)
    unfreeze(model[1])
    assert not is_frozen(model) and is_frozen(model[0]) and not is_frozen(model[1])
    assert model[1].weight.requires_grad and not model[0][0].weight.requires_grad


def test_freeze_and_unfreeze_return_the_same_module_and_can_be_repeated():
    model = everything_that_moves()
    assert freeze(model) is model and freeze(model) is model and unfreeze(model) is model
    assert all(p.requires_grad for p in model.parameters()) and not is_frozen(model)
    assert is_frozen(copy.deepcopy(freeze(model)))


def test_unfrozen_statistics_and_dropout_live_again():
    model, x = everything_that_moves(), torch.randn(40, 6) + 3
    unfreeze(freeze(model))
    before = bits(model)
    fit(Step(model, cross_entropy(), optimizer(model)), Columns(x, torch.arange(40) % 3))
    assert moved(model, before) == set(before) - {"0.scratch"}
    assert not torch.equal(train_mode(model)(x), model(x))


def test_unfreeze_leaves_integer_parameters_alone():
    model = nn.Linear(2, 2)
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    unfreeze(freeze(model))
    assert model.weight.requires_grad and not model.table.requires_grad


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_stale_gradient_moves_nothing(kind):
    layer = nn.Linear(3, 3)
    settings = dict(momentum=0.9) if kind is torch.optim.SGD else {}
    stale = kind(layer.parameters(), 0.1, weight_decay=0.1, **settings)
    layer(torch.ones(1, 3)).sum().backward()
    stale.step()
    stale.zero_grad(set_to_none=False)
    before = bits(freeze(layer))
    stale.step()
    assert not moved(layer, before)


def test_a_frozen_parameter_in_the_optimizer_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    everything = torch.optim.SGD(model.parameters(), 0.1)
    freeze(model[0])
    with pytest.raises(ValueError, match=r"'0\.weight' is frozen but in the optimizer"):
        Step(model, cross_entropy(), everything)


def test_optimizer_set_is_trainable_set_after_a_freeze(model, images):
    freeze(split(model, "head")[0])
    step = Step(model, cross_entropy(), optimizer(model))
    held = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    update(model, images, epochs=1)


def test_evaluate_leaves_the_mark_and_the_modes(model, images):
    body, _ = split(model, "head")
    freeze(body)
    train_mode(model)
    modes = [part.training for part in model.modules()]
    evaluate(model, Columns(*images))
    assert modes == [part.training for part in model.modules()] and is_frozen(body)


@pytest.mark.parametrize("wrong", [(nn.Linear(1, 1),) * 2, nn.Linear(1, 1).parameters(), "layer1"])
@pytest.mark.parametrize("call", [freeze, unfreeze])
def test_what_is_no_module_is_refused(call, wrong):
    with pytest.raises(TypeError, match=f"{call.__name__} takes a module, not a"):
        call(wrong)


def test_fingerprint_sees_every_bit_and_nothing_else(model):
    print_before = fingerprint(model)
    assert fingerprint(copy.deepcopy(model).eval()) == print_before == fingerprint(freeze(model))
    with torch.no_grad():
        p = next(model.parameters())
        p.view(-1)[0] = torch.nextafter(p.view(-1)[0], torch.tensor(9.0, device=p.device))
    assert fingerprint(model) != print_before


def test_fingerprint_sees_names_types_shapes_and_unsaved_buffers():
    def named(name, value, persistent=True):
        module = nn.Module()
        module.register_buffer(name, value, persistent)
        return fingerprint(module)

    zeros = torch.zeros(4)
    prints = [
        named("a", zeros),
        named("b", zeros),
        named("a", zeros.view(2, 2)),
        named("a", zeros.int()),
        named("a", torch.ones(4), persistent=False),
        named("a", zeros.bfloat16()),
        named("a", torch.zeros(())),
    ]
    assert len(set(prints)) == len(prints)
    assert named("a", torch.arange(6.0).view(2, 3).T) == named(
        "a", torch.tensor([[0.0, 3], [1, 4], [2, 5]])
    )

"""Rates: groups that cover a model once, as timm sees it, and a finder that leaves no traces."""

import copy
import math
import random
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from families import FAMILIES
from timm.optim import param_groups_layer_decay
from torch import nn
from torchvision import models as zoo

from ftlearn.data import Columns
from ftlearn.explore import overlapping_labels
from ftlearn.freezing import fingerprint, freeze
from ftlearn.losses import cross_entropy
from ftlearn.models import Normalize, glyphnet, split, stages
from ftlearn.rates import RateTrace, layers, lr_find, param_groups
from ftlearn.training import Step, accumulate, check_parameters, train, train_mode

ORACLES = {
    "resnet18": lambda: timm.create_model("resnet18", pretrained=False),
    "resnet26": lambda: timm.create_model("resnet26", pretrained=False),
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=32, patch_size=8, embed_dim=24, depth=4
    ),
    "deit3": lambda: timm.create_model(
        "deit3_small_patch16_224", pretrained=False, img_size=32, embed_dim=48, depth=3
    ),
}


def settings_of(groups, model, rate="lr"):
    """{name: (rate, decay)} from groups; each parameter may occur once."""
    names = {id(p): name for name, p in model.named_parameters()}
    held = [(names[id(p)], (g[rate], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(dict(held)) == len(held)
    return dict(held)


def wrapped(net):
    """A model as `backbone` makes it."""
    return nn.Sequential(OrderedDict(normalize=Normalize(0.5, 0.2), net=net))


class Holder(nn.Module):
    """A hand-made wrapper, whose forward depends on values."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x / 255) if x.max() > 1 else self.net(x)


FORMS = {
    "bare": lambda net: net,
    "wrapped": wrapped,
    "wrapped twice": lambda net: wrapped(wrapped(net)),
    "held": Holder,
}


@pytest.mark.parametrize("family", ORACLES)
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "partly frozen"])
@pytest.mark.parametrize("form", FORMS)
def test_groups_are_those_of_timm(family, frozen, form):
    model = ORACLES[family]()
    if frozen:
        freeze(model.get_submodule("layer2" if "resnet" in family else "blocks.1"))
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(model, 0.05, undecayed, layer_decay=0.75)
    theirs = settings_of(theirs, model, "lr_scale")
    ours = settings_of(param_groups(FORMS[form](model), 1.0, 0.75, 0.05), model)
    assert ours.keys() == theirs.keys()
    assert {n: d for n, (_, d) in ours.items()} == {n: d for n, (_, d) in theirs.items()}
    assert all(ours[n][0] == pytest.approx(theirs[n][0], rel=1e-12) for n in ours)


def on_meta(make):
    with torch.device("meta"):
        return make()


DEPTHS = {
    "resnet18": (10, lambda: on_meta(zoo.resnet18)),
    "vgg11_bn": (11, lambda: on_meta(zoo.vgg11_bn)),
    "vit_b_16": (14, lambda: on_meta(zoo.vit_b_16)),
    "mobilenet_v2": (20, lambda: on_meta(zoo.mobilenet_v2)),
    "efficientnet_b0": (19, lambda: on_meta(zoo.efficientnet_b0)),
    "convnext_tiny": (23, lambda: on_meta(zoo.convnext_tiny)),
    "swin_t": (17, lambda: on_meta(zoo.swin_t)),
    "densenet121": (121, lambda: on_meta(zoo.densenet121)),
    "squeezenet1_1": (10, lambda: on_meta(zoo.squeezenet1_1)),
    "googlenet": (13, lambda: on_meta(lambda: zoo.googlenet(init_weights=False))),
    "glyphnet": (5, glyphnet),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depths_of_known_networks(name):
    depth, make = DEPTHS[name]
    model = make()
    found = layers(model)
    assert len(found) == depth and all(found)
    assert sorted(n for layer in found for n, _ in layer) == sorted(dict(model.named_parameters()))
    head = stages(model)[-1][1]
    assert {id(p) for p in head.parameters()} <= {id(p) for _, p in found[-1]}
    assert [[f"net.{n}" for n, _ in layer] for layer in found] == [
        [n for n, _ in layer] for layer in layers(wrapped(model))
    ]


def test_layers_leave_the_model_alone(model):
    model.train()
    next(model.children()).eval()
    before = fingerprint(model), [m.training for m in model.modules()], set(vars(model))
    layers(model)
    assert before == (fingerprint(model), [m.training for m in model.modules()], set(vars(model)))


def test_norms_join_the_layer_before():
    net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    names = [[n for n, _ in layer] for layer in layers(net)]
    assert names == [
        ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"],
        ["3.weight", "3.bias"],
    ]


class Unused(nn.Module):
    """A parameter of its own, a branch that forward never calls, and a layer called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.token, self.aside = nn.Parameter(torch.zeros(1, 4)), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.again(self.again(self.first(x) + self.token)))


def test_every_parameter_has_one_place():
    found = [[n for n, _ in layer] for layer in layers(Unused())]
    assert found == [
        ["token", "first.weight", "first.bias"],
        ["again.weight", "again.bias"],
        ["head.weight", "head.bias", "aside.weight", "aside.bias"],
    ]


def test_order_is_that_of_forward():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x))

    assert [layer[0][0] for layer in layers(Reversed())] == ["first.weight", "last.weight"]


class Moody(nn.Module):
    """A forward that cannot be followed."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.b(self.a(x) if x.sum() > 0 else x)


class Skip(nn.Module):
    """Four layers, of which the second and the third have a shortcut around them."""

    def __init__(self, early=False):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.early = early

    def forward(self, x):
        n = x.shape[0] if self.early else x.size(0) * 1
        h = self.a(x)
        h = h + self.c(self.b(h))
        return self.d(h.reshape(n, -1))


class Beside(nn.Module):
    """Nothing is cut: every input stays alive."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.b(x) * self.a(x)


def starts(model):
    return [layer[0][0].removesuffix(".weight") for layer in layers(model)]


def test_a_forward_that_cannot_be_followed():
    assert starts(Moody()) == ["a", "b"]
    assert starts(wrapped(Moody())) == ["net.a", "net.b"]
    assert starts(Holder(Moody())) == ["net.a", "net.b"]
    assert len(layers(nn.Sequential(nn.Linear(4, 4), Moody()))) == 2  # one piece
    assert len(layers(nn.Linear(4, 2))) == 1


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_shortcut_in_a_networks_own_forward(form, early):
    names = starts(FORMS[form](Skip(early)))
    assert [name.split(".")[-1] for name in names] == ["a", "b", "d"]
    assert sum(len(layer) for layer in layers(FORMS[form](Skip()))) == 8


@pytest.mark.parametrize("form", FORMS)
def test_where_nothing_can_be_cut_children_are_layers(form):
    found = layers(FORMS[form](Beside()))
    assert [layer[0][0].split(".")[-2] for layer in found] == ["b", "a"]
    assert len(param_groups(FORMS[form](Beside()), 1.0, 0.5)) == 2


def test_a_piece_in_a_chain_stays_one():
    assert len(layers(nn.Sequential(nn.Linear(4, 4), Skip(), Beside(), nn.Linear(4, 4)))) == 4


@pytest.mark.parametrize("family", ORACLES)
def test_a_body_that_cannot_be_followed_under_a_new_head(family):
    net = ORACLES[family]()
    depth = len(layers(net))
    net.reset_classifier(0)
    model = nn.Sequential(OrderedDict(net=net, head=nn.Linear(net.num_features, 3)))
    assert len(layers(model)) == depth
    head = {id(p) for p in model.head.parameters()}
    assert head <= {id(p) for _, p in layers(model)[-1]}


def test_groups_hold_the_trainable_ones_once(model):
    freeze(stages(model)[1][1])
    groups = param_groups(model, 1e-3, 0.7, 0.1)
    assert all(set(g) == {"params", "lr", "weight_decay"} for g in groups)
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert len({(g["lr"], g["weight_decay"]) for g in groups}) == len(groups)
    check_parameters(Step(model, cross_entropy(), torch.optim.AdamW(groups)))


def test_only_matrices_and_kernels_decay():
    model = FAMILIES["vit"]()
    decayed = {
        n for n, (_, d) in settings_of(param_groups(model, 1.0, 1.0, 0.1), model).items() if d
    }
    expected = {n for n, p in model.named_parameters() if p.ndim == 2 or "conv_proj.weight" in n}
    assert decayed == expected - {"class_token", "encoder.pos_embedding"}
    swin = on_meta(zoo.swin_t)
    chosen = settings_of(param_groups(swin, 1.0, 1.0, 0.1), swin)
    assert not any(d for n, (_, d) in chosen.items() if "relative_position" in n or "norm" in n)
    assert len(param_groups(model, 1.0, 1.0, 0.1)) == 2 and len(param_groups(model, 1.0)) == 1


@pytest.mark.parametrize(
    ("make", "decayed"),
    [
        (lambda: nn.Embedding(5, 4), []),
        (lambda: nn.LayerNorm((5, 4)), []),
        (lambda: nn.GroupNorm(2, 4), []),
        (lambda: nn.GRU(3, 3), ["weight_ih_l0", "weight_hh_l0"]),
        (lambda: nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), []),
        (lambda: nn.ConvTranspose2d(2, 2, 3), ["weight"]),
    ],
)
def test_what_decays_is_a_matrix_or_a_kernel(make, decayed):
    model = make()
    chosen = settings_of(param_groups(model, 1.0, 1.0, 0.1), model)
    assert [n for n in dict(model.named_parameters()) if chosen[n][1]] == decayed


def test_equal_values_are_not_equal_parameters():
    same = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)])
    for p in same.parameters():
        nn.init.zeros_(p)
    assert sum(len(g["params"]) for g in param_groups(same, 0.1)) == 6


def test_tied_parameters_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.middle = nn.Embedding(5, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 5)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.middle(self.embed(x)))

    found = [[n for n, _ in layer] for layer in layers(Tied())]
    assert found == [["embed.weight"], ["middle.weight", "middle.bias"], ["head.bias"]]
    model = Tied()
    rates = settings_of(param_groups(model, 1.0, 0.5), model)
    assert rates["embed.weight"][0] == 0.25 and rates["head.bias"][0] == 1.0


@pytest.mark.parametrize("at", ["layer1", "layer2", "layer3", "head"])
def test_views(at):
    model = glyphnet()
    body, rest = split(model, at)
    ours = [id(p) for part in (body, rest) for layer in layers(part) for _, p in layer]
    assert sorted(ours) == sorted(id(p) for p in model.parameters())
    assert len(layers(body)) + len(layers(rest)) == 5


def test_a_body_under_another_head():
    body, _ = split(glyphnet(), "head")
    assert len(layers(nn.Sequential(body, nn.Flatten(), nn.Linear(256, 3)))) == 5
    net = zoo.resnet18(num_classes=2)
    net.fc = nn.Identity()
    assert len(layers(nn.Sequential(net, nn.Linear(512, 3)))) == 10


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lr": 0}, "lr is 0"),
        ({"lr": -1e-3}, "lr is -0.001"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": math.inf}, "lr is inf"),
        ({"layer_decay": 0}, "layer_decay is 0"),
        ({"layer_decay": 1.01}, "layer_decay is 1.01"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"model": freeze(nn.Linear(2, 2))}, "Nothing is trainable"),
        ({"model": nn.ReLU()}, "Nothing is trainable"),
    ],
)
def test_numbers_that_cannot_be_meant(wrong, says):
    with pytest.raises(ValueError, match=says) as caught:
        param_groups(**({"model": nn.Linear(2, 2), "lr": 0.1} | wrong))
    assert one_sentence(caught)


def one_sentence(caught):
    text = str(caught.value)
    return "\n" not in text and text.endswith(".") and len(text) < 400


def test_what_is_no_module():
    with pytest.raises(TypeError, match="pass an nn.Module") as caught:
        param_groups(nn.Linear(2, 2).parameters(), 0.1)
    assert one_sentence(caught)


# the finder leaves no traces


class Projected(nn.Module):
    """An objective with a parameter, a buffer, a teacher, and noise from every global source."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.teacher = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, model, x, y):
        self.seen += 1
        with torch.no_grad():
            self.teacher.lerp_(self.scale, 0.1)  # frozen, and moved by hand
        noise = random.random() + np.random.rand()  # noqa: NPY002
        z = model(x) * self.scale * (1 + 0.1 * noise)
        return nn.functional.cross_entropy(z, y), z


class Counter:
    """An after-hook with a state."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1


def network():
    """Batch normalisation and dropout, a frozen part included."""
    frozen = freeze(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)))
    live = [nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
    return nn.Sequential(frozen, *live, nn.Linear(8 * 16, 5))


OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, amsgrad=True),
    "adamw, tensor rates": lambda groups: torch.optim.AdamW(
        [g | {"lr": torch.tensor(g["lr"])} for g in groups]
    ),
    "nadam": torch.optim.NAdam,
}


def build(device, name):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model, objective = network().to(device), Projected().to(device)
    groups = param_groups(model, 1e-2, 0.5, 0.05)
    groups += [{"params": [objective.scale], "lr": 1e-3, "weight_decay": 0.0}]
    return Step(model, objective, OPTIMIZERS[name](groups), after=[Counter()])


def dataset(device):
    hand = torch.Generator().manual_seed(5)
    x, y = torch.rand(24, 1, 8, 8, generator=hand), torch.arange(24) % 5
    return Columns(x, y, batch_size=8, shuffle=True).to(device)


def tensors(value, path=""):
    """Every tensor and number inside nested dictionaries and lists, by path."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return {path: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value}
    return {k: v for key, inner in pairs for k, v in tensors(inner, f"{path}/{key}").items()}


def everything(step, device):
    """All that a run depends on, as a flat dictionary of copies."""
    state = {"modules": step.modules.state_dict(), "optimizer": step.optimizer.state_dict()}
    state["gradients"] = [p.grad for p in step.modules.parameters()]
    state["modes"] = [m.training for m in step.modules.modules()]
    state["step"] = [step.checked, step.after[0].calls, len(step.after)]
    state["chance"] = [torch.get_rng_state(), random.getstate(), str(np.random.get_state())]  # noqa: NPY002
    if device.type == "cuda":
        state["chance"].append(torch.cuda.get_rng_state(device))
    return tensors(state)


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype and torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def decay(progress):
    return {"lr": 1 - progress, "momentum": 1 - 0.1 * progress}


def run(device, name, search, before=0):
    """Six updates, with a search after `before` of them; also the batches that were seen."""
    step, data, seen = build(device, name), dataset(device), []
    if search and not before:
        search(step, data)
    for tick in train(step, data, epochs=2, schedule=decay):
        seen.append(tick.batch[0].cpu())
        if search and tick.i + 1 == before:
            search(step, data)
    return everything(step, device), torch.cat(seen)


@pytest.mark.parametrize("before", [0, 2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_same_with_and_without(device, name, before):
    straight, order = run(device, name, None)
    searched, again = run(device, name, lambda s, d: lr_find(s, d, updates=12), before)
    same(straight, searched)
    assert torch.equal(order, again)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("updates_before", [0, 4])
def test_nothing_is_touched(device, name, updates_before):
    step, data = build(device, name), dataset(device)
    for tick in train(step, data, epochs=2) if updates_before else ():
        if tick.i + 1 == updates_before:
            break
    step.model[1].train()
    step.model[2].eval()
    next(step.model.parameters()).grad = None
    live = step.model[1].weight
    live.grad = torch.full_like(live, 0.5)  # half of an accumulated gradient
    parts = [id(t) for t in (live.grad, *step.modules.parameters(), *step.modules.buffers())]
    before = everything(step, device)
    trace = lr_find(step, data, updates=12)
    same(before, everything(step, device))
    now = [id(t) for t in (live.grad, *step.modules.parameters(), *step.modules.buffers())]
    assert now == parts and len(trace.losses) == 12


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_touched_by_an_interrupted_search(device, name, fault):
    step, data = build(device, name), dataset(device)
    list(train(step, data, epochs=1))

    class Interrupted:
        def __call__(self, *batch):
            if step.objective.seen > 8:
                raise fault("stop")
            return original(*batch)

    original = step.objective.forward
    before = everything(step, device)
    step.objective.forward = Interrupted()
    with pytest.raises(fault):
        lr_find(step, data)
    del step.objective.forward
    same(before, everything(step, device))


def test_the_optimizer_keeps_its_own_tensors(device):
    step, data = build(device, "adamw, tensor rates"), dataset(device)
    list(train(step, data, epochs=1))
    held = [id(v) for state in step.optimizer.state.values() for v in state.values()]
    held += [id(group["lr"]) for group in step.optimizer.param_groups]
    lr_find(step, data, updates=10)
    now = [id(v) for state in step.optimizer.state.values() for v in state.values()]
    assert held == now + [id(group["lr"]) for group in step.optimizer.param_groups]


def test_a_search_inside_a_scheduled_run_uses_the_groups_own_rates(device):
    step, data, used = build(device, "sgd"), dataset(device), []
    highest = max(g["lr"] for g in step.optimizer.param_groups)

    class Spy(Columns):
        def batches(self, epoch=0, start=0):
            for batch in super().batches(epoch, start):
                yield batch
                used.append([g["lr"] for g in step.optimizer.param_groups])

    step.optimizer.param_groups[0]["schedule"] = lambda progress: 7.0
    for tick in train(step, data, epochs=2, schedule=decay):
        if tick.i == 3:
            inside = [dict(g) for g in step.optimizer.param_groups]
            spy = Spy(*data.columns, batch_size=8)
            trace = lr_find(step, spy, lowest=1e-3, highest=1e-1, updates=10)
            assert [dict(g) for g in step.optimizer.param_groups] == inside
    own = [g["lr"] for g in step.optimizer.param_groups]
    assert trace.rates[0] == 1e-3 and trace.rates[-1] == pytest.approx(1e-1)
    first = used[0]
    assert first == pytest.approx([1e-3 * lr / highest for lr in own])
    assert "schedule" in step.optimizer.param_groups[0]


def test_hooks_and_the_first_check(device):
    step = build(device, "sgd")
    lr_find(step, dataset(device), updates=10)
    assert step.after[0].calls == 0 and step.checked is False


def test_accumulated_steps_can_be_searched(device):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).to(device)
    step = Step(model, cross_entropy(), torch.optim.SGD(param_groups(model, 0.1)))
    sliced = accumulate(step, 2)
    one, other = (lr_find(s, dataset(device), updates=20).losses for s in (step, sliced))
    assert one == pytest.approx(other, rel=1e-5)


# the curve


def plain(lr=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    return Step(model, cross_entropy(), torch.optim.SGD(param_groups(model, lr)))


def test_the_rates_are_the_ones_used_and_the_losses_are_numbers():
    data = dataset(torch.device("cpu"))
    trace = lr_find(plain(), data, 1e-3, 1.0, updates=40)
    ratios = [b / a for a, b in zip(trace.rates, trace.rates[1:], strict=False)]
    assert trace.rates[0] == 1e-3 and ratios == pytest.approx([1000 ** (1 / 39)] * 39)
    assert all(type(v) is float for v in trace.rates + trace.losses)
    step = plain()
    expected = [
        tick.loss.item()
        for tick in train(step, data, 40, lambda p: trace.rates[min(round(p * 120), 39)])
        if tick.i < 40
    ]
    assert trace.losses == expected


def test_the_top_rate_does_not_matter_only_the_ratios():
    data = dataset(torch.device("cpu"))
    one, other = (lr_find(plain(lr), data, updates=30) for lr in (1.0, 1e-5))
    assert one.losses == pytest.approx(other.losses, rel=1e-4)


def test_it_stops_when_the_loss_explodes():
    data = dataset(torch.device("cpu"))
    x = data.columns[0] * 100
    trace = lr_find(plain(), data.like(x, data.columns[1]), 1e-8, 1e4)
    assert len(trace.losses) < 100 and all(map(math.isfinite, trace.losses))
    assert trace.rates[-1] < 1e4


def curve(losses, lowest=1e-6, highest=1.0):
    n = len(losses)
    return RateTrace([lowest * (highest / lowest) ** (i / (n - 1)) for i in range(n)], losses)


def test_the_suggestion_is_halfway_down():
    falling = [2.3 - 2 / (1 + math.exp(-4 * (6 * i / 99 - 3))) for i in range(100)]
    assert curve(falling).suggestion == pytest.approx(1e-3, rel=0.2)
    spiky = falling[:90] + [9.0, 0.1, 8.0, 0.1, 7.0] + falling[95:]
    assert curve(spiky).suggestion == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("losses", [[2.3] * 50, [2.3 + 0.01 * i for i in range(50)], [0.0] * 50])
def test_a_curve_that_does_not_fall_suggests_nothing(losses):
    with pytest.raises(ValueError, match="too little to suggest a rate") as caught:
        _ = curve(losses).suggestion
    assert one_sentence(caught)
    curve(losses).draw()


@pytest.mark.parametrize("start", [1e-5, 1e-3, 0.3])
def test_the_figure_is_readable_wherever_the_suggestion_is(start):
    losses = [2.3 if 1e-6 * 10 ** (6 * i / 99) < start else 0.3 for i in range(100)]
    figure = curve(losses).draw()
    assert overlapping_labels(figure) == []
    words = [t for t in figure.axes[0].texts if "suggestion" in t.get_text()]
    figure.draw_without_rendering()
    assert words[0].get_window_extent().x1 <= figure.bbox.x1
    assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lowest": 1.0, "highest": 1.0}, "lowest must be above 0 and below highest"),
        ({"lowest": 2.0}, "lowest must be above 0"),
        ({"lowest": 0}, "lowest must be above 0"),
        ({"highest": math.inf}, "below highest"),
        ({"updates": 9}, "updates is 9"),
        ({"updates": 20.0}, "updates is 20.0"),
        ({"updates": True}, "updates is True"),
    ],
)
def test_ranges_that_cannot_work(wrong, says):
    with pytest.raises(ValueError, match=says) as caught:
        lr_find(plain(), dataset(torch.device("cpu")), **wrong)
    assert one_sentence(caught)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_broken_from_the_start(value):
    data = dataset(torch.device("cpu"))
    x = torch.full_like(data.columns[0], value)
    step = plain()
    before = fingerprint(step.modules)
    with pytest.raises(ValueError, match="before any rate matters") as caught:
        lr_find(step, data.like(x, data.columns[1]))
    assert one_sentence(caught) and fingerprint(step.modules) == before


def test_rates_of_zero():
    step = plain()
    step.optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(ValueError, match="rates of the optimizer are 0") as caught:
        lr_find(step, dataset(torch.device("cpu")))
    assert one_sentence(caught)


def test_data_that_is_no_columns():
    with pytest.raises(TypeError, match="wrap the tensors"):
        lr_find(plain(), torch.zeros(4, 64))


def test_a_copy_of_the_model_is_found_too():
    model = glyphnet()
    assert len(layers(copy.deepcopy(train_mode(model)))) == 5

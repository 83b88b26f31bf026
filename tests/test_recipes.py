"""Recipes: data that says who learns, how fast and when; and a run that keeps its promises."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from torch import nn

from ftlearn import Columns, bf16, cross_entropy, evaluate, glyphnet, is_frozen, runs
from ftlearn.explore import overlapping_labels
from ftlearn.models import named, stages
from ftlearn.recipes import (
    SCHEDULES,
    Phase,
    Recipe,
    check_recipe,
    default_recipe,
    prepare,
    timeline,
)
from ftlearn.runs import constants, follow
from ftlearn.schedules import (
    constant,
    cosine,
    factors,
    linear,
    one_cycle,
    trace,
    warmup,
    warmup_stable_decay,
)

QUIET = dict(report=False)


def data(device="cpu", n=32, size=8, classes=10):
    """A learnable set: the label is in the brightness of the image."""
    torch.manual_seed(1)
    y = torch.arange(n) % classes
    x = torch.randn(n, 3, 32, 32) + y[:, None, None, None]
    return Columns(x.to(device), y.to(device), batch_size=size)


def few():
    """Digits in two batches."""
    x = torch.randint(0, 17, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return Columns(x, torch.arange(20) % 10, batch_size=10)


def state(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])] == []


def learned(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# ---------------------------------------------------------------- data


def test_a_recipe_goes_to_json_and_back():
    recipe = Recipe(
        [
            Phase("head", epochs=3, lr=1e-2),
            Phase("layer3", updates=7, layer_decay=0.5, schedule="constant", patience=2),
            Phase("all", statistics="live", weight_decay=0.0),
            Phase("all", only="norm"),
        ]
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert type(Recipe.from_json(recipe.to_json())) is Recipe


def test_a_recipe_prints_a_sentence_per_phase():
    text = repr(Recipe([Phase("head", epochs=3, lr=1e-2), Phase("layer3", updates=7, patience=2)]))
    first, second = text.split("\n")
    assert (
        first
        == "1. Train the head for 3 epochs at a rate of 0.01 and weight decay 0.01, in one cycle."
    )
    assert second.startswith("2. Train layer3 and what follows for at least 7 updates")
    assert second.endswith("with batch statistics frozen, until 2 epochs bring nothing better.")
    assert str(Phase(patience=1)).endswith(", until 1 epoch brings nothing better")


def test_every_field_of_a_phase_changes_its_sentence():
    plain = Phase("all", epochs=2, updates=1)
    others = dict(
        train="head", epochs=3, updates=4, lr=0.5, layer_decay=0.5, weight_decay=0.0,
        schedule="constant", only="bias", statistics="live", patience=1,
    )  # fmt: skip
    assert set(others) == set(vars(plain))
    sentences = {str(replace(plain, **{name: value})) for name, value in others.items()}
    assert len(sentences | {str(plain)}) == len(others) + 1


def test_the_default_spreads_its_decay_over_the_depth():
    """From the head to the first layer the rate falls by the same factor, whatever the depth."""
    from torchvision.models import resnet18, vit_b_16

    assert default_recipe(glyphnet(10))[0].layer_decay == 0.3
    with torch.device("meta"):
        assert default_recipe(resnet18())[0].layer_decay == 0.59
        assert default_recipe(vit_b_16())[0].layer_decay == 0.69


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    phase = Phase(
        "head", epochs=np.int64(2), lr=np.logspace(-3, -2, 2)[0], weight_decay=np.float32(0.5)
    )
    assert Recipe.from_json(Recipe([phase]).to_json()) == Recipe([phase])
    plain = Phase("head", epochs=2, lr=1e-3, weight_decay=0.5)
    assert phase == plain and str(phase) == str(plain)
    assert {type(value) for value in vars(phase).values()} == {int, float, str, type(None)}
    assert len(follow(glyphnet(10), [phase], few(), **QUIET).losses) == 4
    assert timeline(glyphnet(10), [phase], np.int64(2))[2] == [4]


def test_a_phase_cannot_be_changed():
    with pytest.raises(AttributeError):
        Phase("head").lr = 1


# ---------------------------------------------------------------- who learns


def test_head_only_trains_the_head(model):
    body, rest = prepare(model, Phase("head"))
    head = named(model, "head")
    assert learned(model) == {n for n, _ in model.named_parameters() if n.startswith(f"{head}.")}
    assert is_frozen(body) and not is_frozen(rest)


def test_all_trains_all_but_batch_normalisation(model):
    body, rest = prepare(model, Phase("all"))
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert body is None and rest is model
    assert learned(model) == {
        n for n, _ in model.named_parameters() if n.rsplit(".", 1)[0] not in norms
    }
    prepare(model, Phase("all", statistics="live"))
    assert learned(model) == {n for n, _ in model.named_parameters()}
    assert not any(is_frozen(model.get_submodule(n)) for n in norms)


@pytest.mark.parametrize(
    "only, words", [("bias", ("bias",)), ("norm", ("bn", "ln", "downsample.1"))]
)
def test_only_trains_these_and_the_head(only, words):
    torch.manual_seed(0)
    model = FAMILIES["resnet"]()
    prepare(model, Phase("all", only=only))
    names = learned(model)
    head = {n for n in names if n.startswith("fc.")}
    assert head == {"fc.weight", "fc.bias"}
    assert names - head and all(any(w in n for w in words) for n in names - head)
    assert all(m.frozen for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_stage_may_be_named_without_its_prefix():
    model = nn.Sequential()
    model.add_module("net", FAMILIES["resnet"]())
    prepare(model, Phase("layer4"))
    assert {n.split(".")[1] for n in learned(model)} == {"layer4", "fc"}


def test_looking_at_a_recipe_leaves_the_model_as_it_is():
    model = glyphnet(10)
    prepare(model, Phase("layer2"))
    model.train()
    marks = [(m.training, getattr(m, "frozen", False)) for m in model.modules()]
    before = learned(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    check_recipe(model, default_recipe(model))
    assert all((p.grad == 1).all() for p in model.parameters())
    timeline(model, default_recipe(model), 3)
    assert marks == [(m.training, getattr(m, "frozen", False)) for m in model.modules()]
    assert learned(model) == before


def test_the_timeline_is_what_the_optimizer_gets():
    """The rate of every stage at every update, planned and used."""
    model, used = glyphnet(10), []
    small = Columns(torch.randint(0, 17, (20, 1, 8, 8)), torch.arange(20) % 10, batch_size=10)
    recipe = [
        Phase("head", updates=3, lr=1e-2),
        Phase("layer3", epochs=2, lr=1e-3, layer_decay=0.5),
    ]
    owner = {id(p): name for name, part in stages(model) for p in part.parameters()}

    class Spy(torch.optim.AdamW):
        def step(self, *args):
            rates = {owner[id(p)]: g["lr"] for g in self.param_groups for p in g["params"]}
            used.append(rates)
            return super().step(*args)

    names, rates, ends = timeline(model, recipe, small.steps)
    follow(model, recipe, small, optimizer=Spy, **QUIET)
    assert ends == [4, 8] and len(used) == 8
    for i, row in enumerate(used):
        planned = {n: r for n, r in zip(names, rates[:, i].tolist()) if r == r}  # not NaN
        assert planned == pytest.approx(row, abs=1e-9)


@contextmanager
def traced():
    """What the optimizers of a run use, phase after phase: (an optimizer for `follow`, rates)."""
    with ExitStack() as stack:
        rates = []

        def optimizer(groups, lr):
            made = torch.optim.AdamW(groups, lr)
            rates.append(stack.enter_context(trace(made)))
            return made

        yield optimizer, rates


SHAPES = {
    "one_cycle": one_cycle(),
    "constant": constant(),
    "linear": linear(),
    "cosine": cosine(),
    "warmup_cosine": warmup(cosine()),
    "warmup_stable_decay": warmup_stable_decay(),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_of_a_phase_is_what_the_optimizer_gets(name):
    """Four updates: the rates that were used, those of the timeline, and lr times the factors."""
    model = glyphnet(10)
    phase = Phase("head", epochs=2, lr=0.01, schedule=name)
    recipe = Recipe.from_json(Recipe([phase]).to_json())
    with traced() as (optimizer, rates):
        follow(model, recipe, few(), optimizer=optimizer, **QUIET)
    factor = factors(SHAPES[name], 4)
    assert [set(lr) for lr in rates[0].lr] == [{0.01 * f} for f in factor]
    _, planned, ends = timeline(model, recipe, 2)
    assert ends == [4] and planned[-1].tolist() == pytest.approx([0.01 * f for f in factor])


def test_all_schedules_have_a_sentence_and_differ():
    sentences = {str(Phase(schedule=name)) for name in SCHEDULES}
    assert list(SCHEDULES) == list(SHAPES) and len(sentences) == len(SCHEDULES)
    assert len({tuple(factors(schedule, 20)) for schedule in SCHEDULES.values()}) == len(SCHEDULES)
    assert all(name in Phase.__doc__ for name in SCHEDULES)


def test_an_unknown_schedule_is_told_all_names():
    for schedule in ("cosinus", cosine(), None, ["linear"]):
        with pytest.raises(ValueError, match="A phase cannot have schedule=") as caught:
            Phase(schedule=schedule)
        assert all(repr(name) in str(caught.value) for name in SCHEDULES)


def test_a_timeline_takes_the_rate_of_a_schedule_that_moves_the_momentum_too(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "linear", one_cycle(momentum=0.9))
    model = glyphnet(10)
    plain = timeline(model, [Phase("head", epochs=3)], 2)
    both = timeline(model, [Phase("head", epochs=3, schedule="linear")], 2)
    assert torch.equal(plain[1][-1], both[1][-1]) and plain[2] == both[2]


def test_a_recipe_draws_itself():
    assert overlapping_labels(default_recipe(glyphnet(10)).draw(glyphnet(10), 2)) == []


# ---------------------------------------------------------------- what it promises


@pytest.mark.parametrize("family", ["resnet", "vgg"])
def test_with_and_without_the_cache_the_same_bits(family, device):
    ends = []
    for memory in (0, 4e9):
        torch.manual_seed(0)
        model = FAMILIES[family]().to(device)
        at = stages(model)[-2][0]
        recipe = [Phase("head", epochs=2), Phase(at, epochs=2)]
        history = follow(model, recipe, data(device), data(device), memory=memory, **QUIET)
        ends.append((state(model), history.losses))
    assert same(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]


def test_the_constant_part_runs_once():
    """Frames through the frozen stem: one pass over the training and one over the validation set."""
    model, passes = FAMILIES["resnet"](), []
    model.conv1.register_forward_hook(lambda *_: passes.append(1))
    follow(model, [Phase("head", epochs=5)], data(), data(), memory=4e9, **QUIET)
    look = 2  # one example each, to see how large the features are
    assert len(passes) == 4 + 4 + look
    passes.clear()
    follow(model, [Phase("head", epochs=5)], data(), data(), memory=0, **QUIET)
    assert len(passes) == 5 * (4 + 4) + 4 + look


def test_the_cache_is_filled_with_the_precision_of_the_run():
    """Under autocast the frozen part runs in bfloat16, cached or not."""
    ends = []
    for memory in (0, 4e9):
        torch.manual_seed(0)
        model = FAMILIES["resnet"]()
        history = follow(
            model, [Phase("head", epochs=2)], data(), amp=bf16("cpu"), memory=memory, **QUIET
        )
        ends.append(history.losses)
    assert ends[0] == ends[1]


class Shifting(Columns):
    """Images that are other ones in every epoch."""

    constant = False

    def batches(self, epoch=0, start=0):
        for x, y in super().batches(epoch, start):
            yield x + epoch, y


def test_what_changes_from_epoch_to_epoch_is_not_cached(capsys):
    moving = Shifting(*data().columns, batch_size=8)
    history = follow(FAMILIES["resnet"](), [Phase("head", epochs=2)], moving)
    assert "nothing is cached" in capsys.readouterr().out and len(history.losses) == 8


class Careless(nn.Module):
    """Calls dropout as a function of its own mode, before the cut."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        h = nn.functional.dropout(self.conv(x), 0.5, self.training)
        return self.head(h.mean((2, 3)))


def test_a_frozen_part_is_constant_without_the_cache_too():
    ends = []
    for memory in (0, 4e9):
        torch.manual_seed(0)
        model = Careless()
        ends.append(follow(model, [Phase("head", epochs=2)], data(), memory=memory, **QUIET).losses)
    assert ends[0] == ends[1]


def test_an_objective_may_learn_too():
    class Warm(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_temperature = nn.Parameter(torch.zeros(()))

        def forward(self, model, x, y, *_):
            z = model(x)
            return nn.functional.cross_entropy(z * self.log_temperature.exp(), y), z

    objective = Warm()
    follow(
        FAMILIES["resnet"](),
        [Phase("head", epochs=2), Phase("all")],
        data(),
        objective=objective,
        **QUIET,
    )
    assert objective.log_temperature.item() != 0


def test_what_is_frozen_stands_still_and_the_rest_moves(model, device):
    before = state(model)
    prepare(model, Phase("head"))
    still = constants(model)
    follow(model, [Phase("head", epochs=2)], data(device), **QUIET)
    assert constants(model) == still
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == learned(model)


def test_a_frozen_tensor_that_moves_is_named():
    model = FAMILIES["resnet"]()

    def objective(model_, x, y):
        with torch.no_grad():
            model.bn1.running_mean += 1
        return cross_entropy()(model_, x, y)

    with pytest.raises(RuntimeError, match="'bn1.running_mean' is frozen but has changed"):
        follow(model, [Phase("head")], data(), objective=objective, **QUIET)


def test_moments_go_on_by_identity():
    """AdamW counts the updates of each parameter: the head has those of both phases."""
    model, made = glyphnet(10), []
    small = Columns(torch.randint(0, 17, (20, 1, 8, 8)), torch.arange(20) % 10, batch_size=10)

    def optimizer(groups, lr):
        made.append(torch.optim.AdamW(groups, lr))
        return made[-1]

    recipe = [Phase("head", updates=4), Phase("layer3", updates=6)]
    follow(model, recipe, small, optimizer=optimizer, **QUIET)
    steps = {
        name: made[1].state[p]["step"].item()
        for name, p in model.named_parameters()
        if p in made[1].state
    }
    assert steps.pop("head.2.weight") == steps.pop("head.2.bias") == 10
    assert steps and set(steps.values()) == {6}


def test_the_global_random_state_stays(device):
    """The model has dropout, which draws random numbers; those of the caller are not touched."""
    model, small = FAMILIES["vgg"]().to(device), data(device)
    before = torch.get_rng_state(), [torch.cuda.get_rng_state()] if device.type == "cuda" else []
    follow(model, [Phase("all", epochs=1)], small, **QUIET)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(torch.cuda.get_rng_state(), state) for state in before[1])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(device):
    ends = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = FAMILIES["vgg"]().to(device)
        follow(model, [Phase("all", epochs=2)], data(device), seed=seed, **QUIET)
        ends.append(state(model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


# ---------------------------------------------------------------- the best weights


class Scripted:
    """A metric that returns planned scores, one per evaluation."""

    def __init__(self, scores):
        self.scores, self.seen, self.left = list(scores), [], []

    def __call__(self, pred, x, y):
        if not self.left:  # a new evaluation
            self.left = [None] * 4
            self.seen.append(self.scores[len(self.seen)])
        self.left.pop()
        return torch.full((len(y),), self.seen[-1])


def watched(model, snapshots):
    """An optimizer that keeps the weights as they are after every update."""

    class Watch(torch.optim.SGD):
        def step(self, *args):
            super().step(*args)
            snapshots.append(state(model))

    return Watch


def test_the_best_epoch_of_a_phase_is_kept():
    model, seen = glyphnet(10), []
    small = Columns(torch.randint(0, 17, (8, 1, 8, 8)), torch.arange(8), batch_size=2)
    metric = Scripted([0.1, 0.5, 0.9, 0.3, 0.2])
    follow(
        model,
        [Phase("all", epochs=4)],
        small,
        small,
        metric=metric,
        optimizer=watched(model, seen),
        **QUIET,
    )
    assert same(state(model), seen[2 * 4 - 1]), "the weights at the end of the second epoch"


def test_a_phase_that_only_makes_it_worse_is_undone():
    model, seen = glyphnet(10), []
    small = Columns(torch.randint(0, 17, (8, 1, 8, 8)), torch.arange(8), batch_size=2)
    before = state(model)
    metric = Scripted([0.9, 0.5, 0.4])
    follow(
        model,
        [Phase("all", epochs=2)],
        small,
        small,
        metric=metric,
        optimizer=watched(model, seen),
        **QUIET,
    )
    assert same(state(model), before) and not same(seen[-1], before)


def test_patience_starts_anew_with_every_phase():
    """A phase that follows a better one is not stopped by the other's best score."""
    model = glyphnet(10)
    small = Columns(torch.randint(0, 17, (8, 1, 8, 8)), torch.arange(8), batch_size=2)
    first = [0.1, 0.8, 0.7, 0.7]  # before; best; two without a better one: stop
    second = [0.5, 0.4, 0.6, 0.4, 0.4]  # below the first phase's best all the time
    metric = Scripted(first + second)
    recipe = [Phase("head", epochs=9, patience=2), Phase("all", epochs=9, patience=2)]
    history = follow(model, recipe, small, small, metric=metric, **QUIET)
    assert [row["phase"] for row in history.rows] == [1] * 3 + [2] * 4


def failing(at, error, inner=None):
    """An objective that raises at update number `at`."""
    calls = []

    def objective(model, *batch):
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == at + 1:
                raise error
        return (inner or cross_entropy())(model, *batch)

    return objective


@pytest.mark.parametrize("at", [5, 9, 13])
def test_after_ctrl_c_the_best_weights_are_back(at, capsys):
    torch.manual_seed(0)
    model = FAMILIES["resnet"]()
    recipe = [Phase("head", epochs=2, lr=1e-2), Phase("all", epochs=2, lr=0.1)]
    history = follow(model, recipe, data(), data(), failing(at, KeyboardInterrupt()))
    best = max(row["score"] for row in history.rows)
    assert history.interrupted and "Stopped in phase" in capsys.readouterr().out
    assert evaluate(model, data()) >= best and not model.training


def test_after_an_error_the_best_weights_are_back():
    torch.manual_seed(0)
    model, snapshots = FAMILIES["resnet"](), []
    objective = failing(9, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        follow(model, [Phase("head", epochs=5, lr=1e-2)], data(), data(), objective,
               optimizer=watched(model, snapshots), **QUIET)  # fmt: skip
    assert any(same(state(model), seen) for seen in snapshots[3::4]), "the end of an epoch"


# ---------------------------------------------------------------- stopped and resumed

PLAN = [
    Phase("head", epochs=2, lr=1e-2),
    Phase("all", epochs=9, lr=1e-2, patience=1),  # stops early
    Phase("head", epochs=1, lr=1e-3),  # the body has learned by now, and is constant again
]


def likelihood(pred, x, y):
    """A score that moves in every epoch."""
    return -nn.functional.cross_entropy(pred, y, reduction="none")


SCORED = dict(metric=likelihood, report=False)


def network():
    torch.manual_seed(0)
    return FAMILIES["vgg"]()  # dropout and batch normalisation


def plain(history):
    return [
        {k: v for k, v in row.items() if k != "seconds"} for row in history.rows
    ], history.losses


@pytest.fixture(scope="module")
def straight():
    model = network()
    history = follow(model, PLAN, data(), data(), **SCORED)
    assert 1 <= sum(row["phase"] == 2 for row in history.rows) < 9 and len(history.losses) == 24
    return state(model), plain(history)


@pytest.mark.parametrize("at", range(24))
def test_killed_anywhere_it_ends_in_the_same_bits(at, straight, tmp_path, monkeypatch):
    """24 updates in three phases; every second case also saves in mid-epoch."""
    if at % 2:
        monkeypatch.setattr(runs, "_saver", partial(runs._saver, seconds=0))
    path = tmp_path / "run.safetensors"
    with pytest.raises(OSError):
        follow(network(), PLAN, data(), data(), failing(at, OSError()), checkpoint=path, **SCORED)
    model = network()
    history = follow(model, PLAN, data(), data(), checkpoint=path, **SCORED)
    assert plain(history) == straight[1]
    assert same(state(model), straight[0])


def test_a_finished_run_is_not_run_again(straight, tmp_path):
    path = tmp_path / "run.safetensors"
    follow(network(), PLAN, data(), data(), checkpoint=path, **SCORED)
    model = network()
    history = follow(model, PLAN, data(), data(), failing(0, OSError()), checkpoint=path, **SCORED)
    assert same(state(model), straight[0]) and plain(history) == straight[1]


def test_resumed_in_a_new_process(straight, tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(OSError):
        follow(network(), PLAN, data(), data(), failing(13, OSError()), checkpoint=path, **SCORED)
    code = (
        "import torch; from test_recipes import *;"
        f"m = network(); follow(m, PLAN, data(), data(), checkpoint={str(path)!r}, **SCORED);"
        f"torch.save(m.state_dict(), {str(tmp_path / 'end.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    assert same(torch.load(tmp_path / "end.pt", weights_only=True), straight[0])


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    follow(network(), PLAN[:1], data(), checkpoint=path, **SCORED)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another recipe"):
        follow(network(), [*PLAN[:1], *PLAN[2:]], data(), checkpoint=path, **SCORED)
    with pytest.raises(ValueError, match="another number of images"):
        follow(network(), PLAN[:1], data(n=40), checkpoint=path, **SCORED)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "what, changes",
    [
        ("seed", dict(seed=1)),
        ("batch size", dict(data=data().like(batch_size=16))),
        ("number of validation images", dict(valid=data())),
        ("labels", dict(data=data().like(data().columns[0], 9 - data().columns[1]))),
        ("optimizer", dict(optimizer=torch.optim.SGD)),
        ("memory limit", dict(memory=0)),
    ],
)
def test_a_run_does_not_go_on_as_another_one(what, changes, tmp_path):
    path = tmp_path / "run.safetensors"
    follow(network(), PLAN[:1], data(), checkpoint=path, **SCORED)
    changes = dict(data=data(), checkpoint=path) | changes
    with pytest.raises(ValueError, match=f"with another {what}"):
        follow(network(), PLAN[:1], **changes, **QUIET)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    follow(network(), PLAN[:1], data(), checkpoint=path, **SCORED)
    model = FAMILIES["resnet"]()
    before = state(model)
    with pytest.raises(ValueError, match="run.safetensors has"):
        follow(model, PLAN[:1], data(), checkpoint=path, **SCORED)
    assert same(state(model), before)


@pytest.mark.parametrize("at", [3, 9])
def test_resumed_without_the_cache_too(at, tmp_path):
    path, straight = tmp_path / "run.safetensors", network()
    follow(straight, PLAN, data(), data(), memory=0, **SCORED)
    with pytest.raises(OSError):
        follow(
            network(),
            PLAN,
            data(),
            data(),
            failing(at, OSError()),
            memory=0,
            checkpoint=path,
            **SCORED,
        )
    model = network()
    follow(model, PLAN, data(), data(), memory=0, checkpoint=path, **SCORED)
    assert same(state(model), state(straight))

"""Schedules: every shape against its peers at 60 updates, and the plan against what ran.

Progress is i / N throughout: update i of N, from 0. Where a peer counts otherwise (OneCycleLR puts
its ends on the updates 0 and N - 1), the test says so and uses the peer's grid.
"""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import scheduler as timm
from torch import nn
from torch.optim import lr_scheduler as torchs

from ftlearn import pretrain
from ftlearn.checkpoint import load_checkpoint, save_checkpoint
from ftlearn.data import Columns
from ftlearn.explore import overlapping_labels
from ftlearn.losses import cross_entropy
from ftlearn.schedules import (
    Handles,
    Plateau,
    chain,
    constant,
    cooldown,
    cosine,
    cosine_restarts,
    draw_handles,
    exponential,
    extend,
    factors,
    from_handles,
    inverse_square_root,
    linear,
    multi_step,
    one_cycle,
    part,
    picture,
    plan,
    points,
    polynomial,
    step,
    trace,
    warmup,
    warmup_stable_decay,
)
from ftlearn.training import Step, accumulate, train

N = 60
CLOSE = dict(rel=0, abs=1e-9)
STORED = json.loads((Path(__file__).parent / "references" / "schedules.json").read_text())


def dummy(lr=1.0, **settings):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, **settings)


def used(make, updates=N, **settings):
    """The rate at every update of the usual torch loop: optimizer.step, then scheduler.step."""
    optimizer = dummy(**settings)
    scheduler = make(optimizer)
    with trace(optimizer) as rates:
        for _ in range(updates):
            optimizer.step()
            scheduler.step()
    return [lr for (lr,) in rates.lr], [m for (m,) in rates.momentum]


def by_updates(make, updates=N):
    """The rate at every update with a timm scheduler: step_update(number of updates done)."""
    optimizer = dummy()
    scheduler = make(optimizer)
    with trace(optimizer) as rates:
        for i in range(updates):
            scheduler.step_update(i)
            optimizer.step()
    return [lr for (lr,) in rates.lr]


def stairs(optimizer):
    return torchs.StepLR(optimizer, 18, 0.3)


def cyclic(optimizer):
    return torchs.CyclicLR(optimizer, 0.1, 1.0, 20, 20, cycle_momentum=False)


def sequence(o):
    rise, fall = torchs.LinearLR(o, 0.1, 1.0, 12), torchs.CosineAnnealingLR(o, N - 12)
    return torchs.SequentialLR(o, [rise, fall], [12])


SAW = [(0, 0.1), (1 / 3, 1.0), (2 / 3, 0.1), (1, 1.0)]
TORCH = {  # all of them on the grid i / N, N = 60
    "constant": (lambda o: torchs.ConstantLR(o, 0.25, 15), chain((0.25, constant(0.25)), (0.75, constant()))),
    "step": (stairs, step(18 / N, 0.3)),
    "multi_step": (lambda o: torchs.MultiStepLR(o, [30, 45], 0.1), multi_step([0.5, 0.75], 0.1)),
    "exponential": (lambda o: torchs.ExponentialLR(o, 0.95), exponential(1, 0.95**N)),
    "linear": (lambda o: torchs.LinearLR(o, 1 / 3, 1.0, N), linear(1 / 3, 1)),
    "linear, then flat": (lambda o: torchs.LinearLR(o, 0.1, 1.0, 15), chain((0.25, linear(0.1, 1)), (0.75, constant()))),
    "polynomial": (lambda o: torchs.PolynomialLR(o, N, 2.5), polynomial(power=2.5)),
    "cosine": (lambda o: torchs.CosineAnnealingLR(o, N, 0.05), cosine(1, 0.05)),
    "equal restarts": (lambda o: torchs.CosineAnnealingWarmRestarts(o, 20), cosine_restarts(3)),
    "growing restarts": (lambda o: torchs.CosineAnnealingWarmRestarts(o, 4, 2, 0.01), cosine_restarts(4, growth=2, stop=0.01)),
    "sawtooth": (cyclic, points(SAW)),
    "sequence": (sequence, warmup(cosine(), 0.2, start=0.1)),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_shapes_are_those_of_torch(name):
    theirs, _ = used(TORCH[name][0])
    assert factors(TORCH[name][1], N) == pytest.approx(theirs, **CLOSE)


@pytest.mark.parametrize("updates", [60, 101])
@pytest.mark.parametrize("share", [0.25, 0.3])
def test_one_cycle_is_torchs_with_momentum(updates, share):
    """OneCycleLR has its peak at update share * N - 1 and its end at N - 1: the grid i / (N - 1)."""
    make = lambda o: torchs.OneCycleLR(o, 1.0, total_steps=updates, pct_start=share)
    theirs, momentum = used(make, updates, lr=1.0, momentum=0.9)
    rise = (share * updates - 1) / (updates - 1)
    ours = one_cycle(rise, start=1 / 25, stop=1 / 25e4, momentum=0.85 / 0.95)
    ours = [ours(i / (updates - 1)) for i in range(updates)]
    assert [f["lr"] for f in ours] == pytest.approx(theirs, **CLOSE)
    assert [0.95 * f["momentum"] for f in ours] == pytest.approx(momentum, **CLOSE)


def test_one_cycle_in_three_straight_lines_is_torchs():
    """Up, down by as much, and out: the grid i / (N - 1) again."""
    make = lambda o: torchs.OneCycleLR(
        o, 1.0, total_steps=N, pct_start=0.3, anneal_strategy="linear", three_phase=True
    )
    theirs, _ = used(make, momentum=0.9)
    ends = [0, (0.3 * N - 1) / (N - 1), (0.6 * N - 2) / (N - 1), 1]
    ours = points(list(zip(ends, [1 / 25, 1, 1 / 25, 1 / 25e4])))
    assert [ours(i / (N - 1)) for i in range(N)] == pytest.approx(theirs, **CLOSE)


def test_one_cycle_is_what_pretraining_uses_to_the_bit():
    for updates in (1, 7, 60, 3500):
        ours = [one_cycle()(i / updates) for i in range(updates + 1)]
        assert ours == [pretrain.one_cycle(i / updates) for i in range(updates + 1)]


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("rest", [0, 3])
def test_plateau_is_torchs(better, rest):
    """One score per step of both: 160 noisy scores that get better, then stand still."""
    torch.manual_seed(0)
    scores = (torch.linspace(2, 1, 160).clamp(min=1.5) + 0.05 * torch.randn(160)).tolist()
    scores = scores if better == "lower" else [3 - s for s in scores]
    optimizer = dummy()
    mode = {"lower": "min", "higher": "max"}[better]
    theirs = torchs.ReduceLROnPlateau(optimizer, mode, 0.5, 4, 1e-3, cooldown=rest, min_lr=0.02)
    ours, seen = Plateau(0.5, 4, better, 1e-3, rest, 0.02), []
    for i, score in enumerate(scores):
        theirs.step(score)
        assert ours.update(score) == ours(i / 160) == optimizer.param_groups[0]["lr"]
        seen.append(ours.value)
    assert seen[0] == 1 and seen[-1] == 0.02 and len(set(seen)) >= 5


def test_plateau_goes_on_from_its_state():
    scores = [1.0, 0.9, 0.95, 0.93, 0.97, 0.96, 0.99, 0.98, 0.97, 0.99]
    whole, first, second = (Plateau(0.5, 1, rest=1) for _ in range(3))
    expected = [whole.update(s) for s in scores]
    found = [first.update(s) for s in scores[:5]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert found + [second.update(s) for s in scores[5:]] == expected
    assert expected[0] == 1 and expected[-1] < 0.3


def late(name, **settings):
    """timm's warm-up that is laid over the schedule: a line up to 1, then the schedule's rest."""
    shape = {"cosine": cosine, "polynomial": polynomial}[name](**settings)
    return chain((0.1, linear(0.01, 1)), (0.9, part(shape, 0.1, 1)))


WARM = dict(warmup_t=6, warmup_lr_init=0.01, t_in_epochs=False)
PREFIX = WARM | dict(warmup_prefix=True)
TIMM = {  # updates done / N; a prefix shifts the schedule by the warm-up, which then has N - 6 left
    "cosine": (lambda o: timm.CosineLRScheduler(o, N, 0.02, t_in_epochs=False), cosine(1, 0.02)),
    "cosine, warm-up before": (lambda o: timm.CosineLRScheduler(o, N - 6, 0.02, **PREFIX), warmup(cosine(1, 0.02), 0.1, start=0.01)),
    "cosine, warm-up over": (lambda o: timm.CosineLRScheduler(o, N, 0.02, **WARM), late("cosine", stop=0.02)),
    "cosine, cycles": (lambda o: timm.CosineLRScheduler(o, 4, 0.0, 2.0, 0.5, 4, t_in_epochs=False), cosine_restarts(4, 2.0, 0.5)),
    "polynomial": (lambda o: timm.PolyLRScheduler(o, N, 0.5, 0.02, t_in_epochs=False), polynomial(1, 0.02, 0.5)),
    "polynomial, warm-up over": (lambda o: timm.PolyLRScheduler(o, N, 2.0, **WARM), late("polynomial", power=2.0)),
    "step": (lambda o: timm.StepLRScheduler(o, 18, 0.3, t_in_epochs=False), step(18 / N, 0.3)),
    "step, warm-up before": (lambda o: timm.StepLRScheduler(o, 18, 0.3, **PREFIX), warmup(step(18 / 54, 0.3), 0.1, start=0.01)),
    "multi_step": (lambda o: timm.MultiStepLRScheduler(o, [30, 45], 0.1, t_in_epochs=False), multi_step([29 / N, 44 / N])),  # it looks up t + 1
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_shapes_are_those_of_timm(name):
    assert factors(TIMM[name][1], N) == pytest.approx(by_updates(TIMM[name][0]), **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("stable", ["constant", "rsqrt"])
def test_warmup_stable_decay_is_timms(kind, stable):
    """6 updates of warm-up before 54, the last 18 of which fall: updates done / N."""
    wsd = pytest.importorskip("timm.scheduler.wsd_lr").WSDLRScheduler  # timm 1.0.31 or later
    settings = dict(stable_fn=stable, decay_fn=kind, warmup_t=6, t_in_epochs=False)
    theirs = by_updates(lambda o: wsd(o, 54, 18, **settings))
    ours = cooldown(
        inverse_square_root(0.1) if stable == "rsqrt" else warmup(constant(), 0.1),
        0.3,
        kind.replace("1-sqrt", "root"),
    )
    assert factors(ours, N) == pytest.approx(theirs, **CLOSE)


TRANSFORMERS = {  # LambdaLR over the updates done: a warm-up of 6, and i - 6 of the 54 that remain
    "constant": warmup(constant(), 0.1),
    "linear": warmup(linear(), 0.1),
    "cosine": warmup(cosine(), 0.1),
    "cosine without warmup": cosine(),
    "cosine restarts": warmup(cosine_restarts(3), 0.1),
    "cosine above 0": chain((0.1, linear(0, 1)), (0.9, cosine(1, 0.1))),
    "polynomial": warmup(polynomial(1, 0.05, 2.0), 0.1),
    "inverse square root": inverse_square_root(0.1),
    "inverse square root, slow": inverse_square_root(0.1, scale=0.4),
    "wsd": warmup_stable_decay(0.1, 0.3, "cosine"),
    "wsd, linear": warmup_stable_decay(0.1, 0.3),
    "wsd, root": cooldown(warmup(constant(), 0.1, "root"), 0.3, "root"),
    "wsd above 0": cooldown(warmup(constant(), 0.1, "cosine", start=0.2), 0.3, "cosine", stop=0.2),
}


@pytest.mark.parametrize("name", STORED["transformers"])
def test_shapes_are_those_of_transformers(name):
    theirs = STORED["transformers"][name]["factors"]
    assert len(theirs) == N
    assert factors(TRANSFORMERS[name], N) == pytest.approx(theirs, **CLOSE)


FASTAI = {  # `pct_train`, which is i / N, before every batch
    "SchedLin": linear(0.2, 1),
    "SchedCos": cosine(1, 0.1),
    "SchedExp": exponential(1, 0.01),
    "SchedPoly": part(polynomial(0.1, 1, 3), 1, 0),  # fastai's powers grow from the start
    "combine_scheds": chain((0.25, linear(0.1, 1)), (0.5, cosine(1, 0.5)), (0.25, exponential(0.5, 0.01))),
}  # fmt: skip


@pytest.mark.parametrize("name", FASTAI)
def test_shapes_are_those_of_fastai(name):
    theirs = STORED["fastai"][name]["factors"]
    close = dict(rel=0, abs=1e-6) if name == "combine_scheds" else CLOSE  # it adds up in float32
    assert len(theirs) == N
    assert factors(FASTAI[name], N) == pytest.approx(theirs, **close)


def test_one_cycle_is_what_a_fastai_learner_used():
    """fastai's momentum goes .95, .85, .95; its cycle begins at 1/25 and ends at 1e-5."""
    theirs = STORED["fastai"]["fit_one_cycle"]
    ours = one_cycle(0.25, start=1 / 25, stop=1e-5, momentum=0.85 / 0.95)
    ours = [ours(i / N) for i in range(N)]
    assert [f["lr"] for f in ours] == pytest.approx(theirs["factors"], rel=0, abs=1e-6)
    assert [0.95 * f["momentum"] for f in ours] == pytest.approx(theirs["momentum"], abs=1e-6)


ENDS = {  # first factor, last factor (at progress (N - 1) / N), factor at 1
    "constant": (constant(0.5), 0.5, 0.5, 0.5),
    "linear": (linear(0.2, 0.8), 0.2, 0.8 - 0.6 / N, 0.8),
    "cosine": (cosine(), 1, (1 - math.cos(math.pi / N)) / 2, 0),
    "exponential": (exponential(1, 0.01), 1, 0.01 * 100 ** (1 / N), 0.01),
    "polynomial": (polynomial(power=3), 1, 1 / N**3, 0),
    "step": (step(0.1, 0.5), 1, 0.5**9, 0.5**10),
    "multi_step": (multi_step([0, 0.5, 1], 0.1), 0.1, 0.01, 0.001),
    "cosine_restarts": (cosine_restarts(3), 1, (1 - math.cos(3 * math.pi / N)) / 2, 0),
    "one_cycle": (one_cycle(), 0, (1 - math.cos(math.pi / N / 0.75)) / 2, 0),
    "inverse_square_root": (inverse_square_root(0.1), 0, (0.1 / (1 - 1 / N)) ** 0.5, 0.1**0.5),
    "warmup_stable_decay": (warmup_stable_decay(), 0, 5 / N, 0),
    "warmup": (warmup(cosine(), 0.1, start=0.3), 0.3, (1 - math.cos(math.pi / N / 0.9)) / 2, 0),
    "cooldown": (cooldown(constant(), 0.1, stop=0.1), 1, 0.1 + 0.9 * 10 / N, 0.1),
    "chain": (chain((0.5, constant(0.3)), (0.5, linear(1, 0.5))), 0.3, 0.5 + 1 / N, 0.5),
    "part": (part(linear(), 0.5, 0.25), 0.5, 0.75 - 0.25 / N, 0.75),
    "points": (points([(0, 0.1), (0.5, 1), (1, 0.2)]), 0.1, 0.2 + 1.6 / N, 0.2),
    "plateau": (Plateau(), 1, 1, 1),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_first_and_the_last_update(name):
    schedule, first, last, end = ENDS[name]
    found = factors(schedule, N)
    assert len(found) == N
    assert (found[0], found[-1], schedule(1.0)) == pytest.approx((first, last, end), **CLOSE)


@pytest.mark.parametrize("updates", [7, 10, 30, 100, 600, 3000, 7919])
def test_no_stair_is_one_update_early_or_late(updates):
    """Counted in whole numbers; 0.3 / 0.1 is 2.9999999999999996 and must not cost a stair."""
    for every in {1, 3, max(1, updates // 10), updates // 3}:
        found = factors(step(every / updates, 0.5), updates)
        assert found == [0.5 ** (i // every) for i in range(updates)]
        at = [k * every / updates for k in range(1, updates // every + 1)]
        assert factors(multi_step(at, 0.5), updates) == found


@pytest.mark.parametrize("updates", [10, 30, 70, 100, 1000])
def test_a_chain_changes_at_the_right_update(updates):
    tenths = [(0.1, constant(float(k))) for k in range(10)]
    expected = [float(i * 10 // updates) for i in range(updates)]
    assert factors(chain(*tenths), updates) == expected
    assert chain(*tenths)(1.0) == 9


def test_empty_pieces_are_left_out():
    assert factors(warmup(cosine(), 0), N) == factors(cosine(), N)
    assert factors(cooldown(cosine(), 0), N) == factors(cosine(), N)
    assert chain((0, constant(7.0)), (1, linear()), (0, constant(7.0)))(1.0) == 0
    assert factors(warmup_stable_decay(0.0, 0.0), 3) == [1, 1, 1]


def test_a_warmup_scales_the_rate_and_leaves_the_momentum():
    both = warmup(one_cycle(0.5, start=0.5, momentum=0.8), 0.5)
    assert both(0.0) == {"lr": 0.0, "momentum": 1.0}
    assert both(0.25) == {"lr": 0.25, "momentum": 1.0}
    assert both(0.75) == {"lr": 1.0, "momentum": 0.8}
    assert cooldown(one_cycle(0.5, momentum=0.8), 1.0)(0.5) == {"lr": 0.5, "momentum": 0.8}


def test_schedules_print_as_their_calls_and_are_pure():
    schedule = warmup(cosine(stop=0.1), 0.2, kind="cosine")
    assert repr(schedule) == "warmup(cosine(stop=0.1), 0.2, kind='cosine')"
    assert factors(eval(repr(schedule)), N) == factors(schedule, N)
    backwards = [schedule(i / N) for i in reversed(range(N))]
    assert backwards[::-1] == factors(schedule, N)


# what ran


def examples(count=50, **settings):
    torch.manual_seed(3)
    return Columns(torch.randn(count, 4), torch.arange(count) % 3, **settings)


def trainer(make=torch.optim.SGD, groups=None, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    groups = groups or [{}, {}]
    parts = [
        {"params": [*layer.parameters()]} | g for layer, g in zip((model[0], model[2]), groups)
    ]
    return Step(model, cross_entropy(), make(parts, 0.1, **settings))


SGD, ADAMW = torch.optim.SGD, torch.optim.AdamW


@pytest.mark.parametrize("batch_size", [10, 16], ids=["even", "uneven"])
@pytest.mark.parametrize("slices", [1, 3], ids=["whole", "accumulated"])
@pytest.mark.parametrize("make", [SGD, ADAMW], ids=["SGD", "AdamW"])
def test_the_plan_is_what_runs(batch_size, slices, make):
    data = examples(batch_size=batch_size, shuffle=True)
    one = trainer(make, [{"lr": 0.01}, {}])
    one = accumulate(one, slices) if slices > 1 else one
    schedule = warmup(one_cycle(0.3, 0.1, momentum=0.9 if make is ADAMW else None), 0.1)
    meant = plan(one, data, 4, schedule)
    with trace(one.optimizer) as rates:
        list(train(one, data, 4, schedule))
    assert rates == meant and len(rates) == 4 * data.steps
    assert rates.lr == [(0.01 * f, 0.1 * f) for f in factors(schedule, len(rates))]
    assert [g["lr"] for g in one.optimizer.param_groups] == [0.01, 0.1]


def test_a_group_with_its_own_schedule():
    data = examples(batch_size=16)
    one = trainer(groups=[{"schedule": points([(0, 0), (1, 1)])}, {}])
    for schedule in (None, cosine()):
        meant = plan(one, data, 3, schedule)
        with trace(one.optimizer) as rates:
            list(train(one, data, 3, schedule))
        assert rates == meant
        other = factors(schedule or constant(), 12)
        own = factors(points([(0, 0), (1, 1)]), 12)
        assert own == pytest.approx([i / 12 for i in range(12)])
        assert rates.lr == [(0.1 * a, 0.1 * b) for a, b in zip(own, other)]


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_run_that_is_resumed_in_mid_epoch(stop, tmp_path):
    data, schedule = examples(batch_size=16, shuffle=True), one_cycle(0.3)
    first, second = trainer(), trainer()
    meant = plan(first, data, 3, schedule)
    with trace(first.optimizer) as before:
        for tick in train(first, data, 3, schedule):
            if tick.i == stop - 1:
                save_checkpoint(tmp_path / "run", first, stop)
                break
    done = load_checkpoint(tmp_path / "run", second)
    rest = plan(second, data, 3, schedule, start=done)
    with trace(second.optimizer) as after:
        list(train(second, data, 3, schedule, start=done))
    assert after == rest
    assert before.lr + after.lr == meant.lr and before.momentum + after.momentum == meant.momentum


class Kept:
    """An after-hook that only carries a state into the checkpoint: every hook's is stored."""

    def __init__(self, plateau):
        self.state_dict, self.load_state_dict = plateau.state_dict, plateau.load_state_dict

    def __call__(self):
        pass


SCORES = [0.5, 0.6, 0.55, 0.58, 0.57, 0.7, 0.65]  # an epoch each; it falls three times


def listening(stop=None, start=0, path=None, own=False):
    """Rates, weights and plateau of 7 epochs of 4 updates, saved and left after update `stop`."""
    plateau = Plateau(0.5, patience=0, better="higher", rest=1)
    one = trainer(torch.optim.AdamW, groups=[{"schedule": plateau}, {}] if own else None)
    one.after = (Kept(plateau),)
    if start:
        assert load_checkpoint(path, one) == start
    schedule = cosine() if own else plateau
    with trace(one.optimizer) as rates:
        for tick in train(one, examples(batch_size=16), 7, schedule, start):
            if tick.last:
                plateau.update(SCORES[tick.epoch])
            if tick.i == stop:
                save_checkpoint(path, one, tick.i + 1)
                break
    return rates.lr, [p.detach() for p in one.model.parameters()], plateau.state_dict()


@pytest.mark.parametrize("own", [False, True], ids=["of the run", "of a group"])
@pytest.mark.parametrize("stop", [3, 9, 11, 19, 22])
def test_a_run_with_a_plateau_is_resumed_bit_for_bit(stop, own, tmp_path):
    """The state stands in the checkpoint itself, so that the two cannot come apart."""
    lr, weights, state = listening(own=own)
    before, *_ = listening(stop, path=tmp_path / "run", own=own)
    after, resumed, ended = listening(start=stop + 1, path=tmp_path / "run", own=own)
    assert state["value"] == 0.125 and ended == state
    assert before + after == lr and len(before) == stop + 1
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))


OWN = chain((0.5, constant(0.5)), (0.5, linear(0.5, 0)))


@pytest.mark.parametrize("how", ["stretch", "continue", OWN], ids=["stretch", "continue", "own"])
@pytest.mark.parametrize("done", [6, 12])
def test_a_run_that_is_extended(how, done):
    """12 updates were planned, `done` ran, 20 it shall be: what ran is what the plan said."""
    data, schedule, one = examples(batch_size=16), cosine(1, 0.1), trainer()
    with trace(one.optimizer) as rates:
        for tick in train(one, data, 3, schedule):
            if tick.i == done - 1:
                break
    longer = extend(schedule, done, 12, 20, how)
    meant = plan(one, data, 5, longer, start=done)
    with trace(one.optimizer) as more:
        list(train(one, data, 5, longer, start=done))
    assert more == meant and len(more) == 20 - done
    found = [lr / 0.1 for lr, _ in rates.lr + more.lr]
    planned = factors(schedule, 12)
    assert found[:done] == pytest.approx(planned[:done], **CLOSE)
    rest = [(done / 12) + (1 - done / 12) * k / (20 - done) for k in range(20 - done)]
    expected = {
        "stretch": factors(schedule, 20)[done:],
        "continue": [schedule(p) for p in rest],
        OWN: factors(OWN, 20 - done),
    }
    assert found[done:] == pytest.approx(expected[how], **CLOSE)
    if how == "continue":
        assert abs(found[done] - schedule(done / 12)) < 1e-9  # no jump
    if how == "stretch":
        assert found[done] > planned[done - 1]  # the jump that the reader was told of


def test_a_stretched_run_that_is_not_longer_is_the_run():
    assert factors(extend(cosine(), 0, 12, 12, "stretch"), 12) == factors(cosine(), 12)
    assert factors(extend(cosine(), 5, 12, 12, "continue"), 12) == pytest.approx(
        factors(cosine(), 12), **CLOSE
    )


def test_trace_lets_go_and_sees_tensor_rates():
    one, data = trainer(), examples(batch_size=16)
    for group in one.optimizer.param_groups:
        group["lr"] = torch.tensor(0.1)
    meant = plan(one, data, 1, cosine())
    with pytest.raises(KeyboardInterrupt), trace(one.optimizer) as rates:
        for tick in train(one, data, 1, cosine()):
            if tick.i == 2:
                raise KeyboardInterrupt
    assert rates.lr == meant.lr[:3]
    list(train(one, data))
    assert len(rates) == 3 and not one.optimizer._optimizer_step_pre_hooks
    assert float(one.optimizer.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_plan_touches_nothing():
    one, data = trainer(ADAMW), examples(batch_size=16)
    before = [{k: v for k, v in g.items() if k != "params"} for g in one.optimizer.param_groups]
    before = json.dumps(before)
    plan(one, data, 2, one_cycle(momentum=0.9))
    after = [{k: v for k, v in g.items() if k != "params"} for g in one.optimizer.param_groups]
    assert json.dumps(after) == before and not one.optimizer.state


BROKEN = {
    "nan": (math.nan, "'lr' is nan at progress 0.5"),
    "infinity": (math.inf, "'lr' is inf at progress 0.5"),
    "below 0": (-0.25, "'lr' is -0.25 at progress 0.5"),
    "NaN of numpy": (np.float32("nan"), "'lr' is nan at progress 0.5"),
    "nothing": (None, "'lr' is a NoneType at progress 0.5"),
    "a tensor": (torch.tensor(0.5), "'lr' is a Tensor at progress 0.5"),
    "momentum": ({"lr": 1.0, "momentum": -1}, "'momentum' is -1 at progress 0.5"),
    "a misspelt rate": ({"rate": 1.0}, "a factor for 'rate', which this optimizer does not have"),
}


@pytest.mark.parametrize("own", [False, True], ids=["of the run", "of a group"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_factor_is_refused_before_its_update(name, own):
    """Updates 0 and 1 of 4 run; update 2 does not, and the groups have their own rates back."""
    (value, words), data = BROKEN[name], examples(batch_size=16)
    schedule = lambda p: value if p >= 0.5 else 1 - p
    one, same = trainer(groups=[{}, {"schedule": schedule} if own else {}]), trainer()
    schedule = cosine() if own else schedule
    with pytest.raises(ValueError, match=words):
        plan(one, data, 1, schedule)
    seen = []
    with pytest.raises(ValueError, match=words) as caught:
        for _ in train(one, data, 1, schedule):
            seen.append([p.clone() for p in one.model.parameters()])
    assert len(seen) == 2 and str(caught.value).endswith(".")
    now = zip(seen[-1], one.model.parameters(), same.model.parameters())
    assert all(torch.equal(a, b) and not torch.equal(b, first) for a, b, first in now)
    assert [g["lr"] for g in one.optimizer.param_groups] == [0.1, 0.1]


def test_momentum_for_an_optimizer_that_has_none():
    one = trainer(torch.optim.Adagrad)
    with pytest.raises(ValueError, match="factor for 'momentum', which this optimizer does not"):
        next(train(one, examples(), 1, one_cycle(momentum=0.9)))
    next(train(one, examples(), 1, one_cycle()))


def test_any_kind_of_number_is_a_factor():
    data, found = examples(batch_size=16), []
    for kind in (float, np.float32, np.float64, lambda f: Fraction(f)):
        one = trainer()
        list(train(one, data, 1, lambda p, kind=kind: kind(1 - p)))
        list(train(one, data, 1, lambda p: 1))  # whole numbers too
        found.append([p.detach() for p in one.model.parameters()])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


def test_a_rate_that_is_no_number_is_planned_as_none():
    """The factor is fine, but the group's own rate is not."""
    one, data = trainer(), examples(batch_size=16)
    one.optimizer.param_groups[1]["lr"] = math.nan
    with pytest.raises(ValueError, match="rate of nan at update 0 of 4"):
        plan(one, data, 1, cosine())


def test_pictures_have_readable_labels():
    several = {"cosine": cosine(), "straight": linear(), "one cycle": one_cycle(momentum=0.9)}
    for figure in (picture(several), picture(cosine(), 20)):
        assert overlapping_labels(figure) == []
    (line,) = picture(cosine(), 20).axes[0].get_lines()
    assert line.get_ydata().tolist() == factors(cosine(), 20)
    figure = plan(
        trainer(groups=[{"lr": 0.01}, {}]), examples(batch_size=16), 3, one_cycle()
    ).draw()
    assert len(figure.axes[0].get_lines()) == 2 and overlapping_labels(figure) == []


# drawn by hand

HILL = (0, 1, 0.7, 0.3, 0)


def fake_race(schedule):
    """Scores without training: the mean factor, three times."""
    return [sum(factors(schedule, 20)) / 20 + k / 100 for k in range(3)]


def test_five_heights_make_a_schedule():
    assert [from_handles(HILL)(p) for p in (0, 0.25, 0.5, 0.75, 1)] == list(HILL)
    assert from_handles(HILL)(0.125) == pytest.approx(0.5)
    with pytest.raises(ValueError):
        from_handles((1, 2))


def test_the_figure_of_a_race_is_a_pure_function():
    asked = []
    race = lambda schedule: asked.append(repr(schedule)) or fake_race(schedule)
    first, second = draw_handles(HILL, race), draw_handles(HILL, race)
    assert asked[:2] == asked[2:] and asked[1] == "cosine()"
    curves, scores = first.axes
    assert list(curves.get_lines()[1].get_ydata()) == list(HILL)
    assert curves.get_lines()[0].get_ydata()[-1] == 0
    assert list(scores.get_lines()[0].get_ydata()) == fake_race(from_handles(HILL))
    for figure in (first, second, draw_handles(HILL), draw_handles(HILL, race, rival=linear())):
        assert overlapping_labels(figure) == []
    assert draw_handles(HILL).axes[1].get_title() == "not raced yet"


def test_sliders_redraw_and_race_only_when_asked():
    pytest.importorskip("ipywidgets")
    asked = []
    race = lambda schedule: asked.append(repr(schedule)) or fake_race(schedule)
    box = Handles(race, {"hill": HILL}).live()
    (*bars, button), view = box.children[0].children, box.children[1]
    assert [bar.value for bar in bars] == list(HILL) and asked == []
    before = view.value
    bars[2].value = 0.1
    assert view.value != before and asked == [] and "0.1" in view.value
    button.click()
    assert asked[0] == "points([(0, 0.0), (0.25, 1.0), (0.5, 0.1), (0.75, 0.3), (1, 0.0)])"


def test_a_page_without_a_kernel_has_the_shapes():
    bundle = Handles(fake_race, {"hill": HILL, "flat": (1, 1, 1, 1, 1)})._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "hill" in bundle["text/html"] and "flat" in bundle["text/html"]

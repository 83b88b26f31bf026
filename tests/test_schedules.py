"""Schedules: every shape against its peers at 60 updates, and the plan against what ran.

Progress is i / N throughout: update i of N, from 0. Where a peer counts otherwise (OneCycleLR puts
its ends on the updates 0 and N - 1), the test says so and uses the peer's grid.
"""

import copy
import json
import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import scheduler as timm
from timm.scheduler.wsd_lr import WSDLRScheduler
from torch import nn
from torch.optim import lr_scheduler as torchs
from torch.optim.swa_utils import SWALR

from ftlearn import pretrain
from ftlearn.checkpoint import load_checkpoint, save_checkpoint
from ftlearn.data import Columns
from ftlearn.explore import overlapping_labels
from ftlearn.losses import cross_entropy
from ftlearn.schedules import (
    Handles,
    Plateau,
    Rates,
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
    paced,
    part,
    picture,
    plan,
    points,
    polynomial,
    step,
    tanh,
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


def cycled(optimizer):
    """Two cycles of 30 updates, the second half as high; the momentum the other way round."""
    return torchs.CyclicLR(
        optimizer, 0.1, 1.0, 15, 15, "triangular2", 1.0, None, "cycle", True, 0.8, 0.9
    )


def shrinking(optimizer):
    return torchs.CyclicLR(optimizer, 0.1, 1.0, 10, 20, "exp_range", 0.97, cycle_momentum=False)


def rising(optimizer):
    """An exponential rise to 1 over 12 updates, by LambdaLR, since ExponentialLR only leaves 1."""
    rise, flat = (
        torchs.LambdaLR(optimizer, lambda i: 0.01 ** (1 - i / 12)),
        torchs.ConstantLR(optimizer, 1.0),
    )
    return torchs.SequentialLR(optimizer, [rise, flat], [12])


def falling(optimizer):
    flat, fall = (
        torchs.ConstantLR(optimizer, 1.0),
        torchs.ExponentialLR(optimizer, 0.01 ** (1 / 12)),
    )
    return torchs.SequentialLR(optimizer, [flat, fall], [48])


def sequence(o):
    rise, fall = torchs.LinearLR(o, 0.1, 1.0, 12), torchs.CosineAnnealingLR(o, N - 12)
    return torchs.SequentialLR(o, [rise, fall], [12])


SAW = [(0, 0.1), (1 / 3, 1.0), (2 / 3, 0.1), (1, 1.0)]
TEETH = points([(0, 0), (1 / 6, 1), (0.5, 0), (2 / 3, 1), (1, 0)])  # of shrinking
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
    "triangular2": (cycled, points([(0, 0.1), (0.25, 1), (0.5, 0.1), (0.75, 0.55), (1, 0.1)])),
    "exp_range": (shrinking, lambda p: 0.1 + 0.9 * TEETH(p) * exponential(1, 0.97**N)(p)),
    "exponential warm-up": (rising, warmup(constant(), 0.2, "exponential", start=0.01)),
    "exponential cooldown": (falling, cooldown(constant(), 0.2, "exponential", stop=0.01)),
    "exponential decay": (falling, warmup_stable_decay(0, 0.2, "exponential", stop=0.01)),
    "averaging, cosine": (lambda o: SWALR(o, 0.05, 30), chain((0.5, cosine(1, 0.05)), (0.5, constant(0.05)))),
    "averaging, linear": (lambda o: SWALR(o, 0.05, 30, "linear"), chain((0.5, linear(1, 0.05)), (0.5, constant(0.05)))),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_shapes_are_those_of_torch(name):
    theirs, _ = used(TORCH[name][0], momentum=0.9 if name == "triangular2" else 0)
    assert factors(TORCH[name][1], N) == pytest.approx(theirs, **CLOSE)


def by_plan(schedule, momentum, updates=N):
    """The momentum that a schedule's factors make of this one, at every update."""
    weight = nn.Linear(1, 2)
    one = Step(weight, cross_entropy(), torch.optim.SGD(weight.parameters(), 1.0, momentum))
    data = Columns(torch.zeros(updates, 1), torch.zeros(updates).long(), batch_size=1)
    return [m for (m,) in plan(one, data, 1, schedule).momentum]


def test_the_momentum_of_a_cycle_is_torchs():
    """CyclicLR: from .9 down to .8 and back, the second time down to .85."""
    _, theirs = used(cycled, momentum=0.9)
    low = [1, 0.8 / 0.9, 1, 0.85 / 0.9, 1]
    ours = points(list(zip([0, 0.25, 0.5, 0.75, 1], low)))
    found = by_plan(lambda p: {"momentum": ours(p)}, 0.9)
    assert (theirs[0], theirs[15], theirs[45]) == pytest.approx((0.9, 0.8, 0.85))
    assert found == pytest.approx(theirs, **CLOSE)


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
    theirs, momentum = used(make, momentum=0.9)
    ends = [0, (0.3 * N - 1) / (N - 1), (0.6 * N - 2) / (N - 1), 1]
    ours = points(list(zip(ends, [1 / 25, 1, 1 / 25, 1 / 25e4])))
    assert [ours(i / (N - 1)) for i in range(N)] == pytest.approx(theirs, **CLOSE)
    ours = points(list(zip(ends, [0.95, 0.85, 0.95, 0.95])))
    assert [ours(i / (N - 1)) for i in range(N)] == pytest.approx(momentum, **CLOSE)


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


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_plateau_is_timms(better):
    """PlateauLRScheduler.step(epoch, score), whose warm-up is over after epoch 0."""
    scores = [1 / (1 + i) + 0.05 * math.cos(i) for i in range(N)]
    scores = scores if better == "lower" else [2 - s for s in scores]
    optimizer = dummy()
    settings = dict(decay_rate=0.5, patience_t=3, threshold=1e-3, cooldown_t=2, lr_min=0.01)
    with pytest.warns(FutureWarning, match="deprecated"):
        mode = {"lower": "min", "higher": "max"}[better]
        theirs = timm.PlateauLRScheduler(optimizer, mode=mode, **settings)
    ours, seen = Plateau(0.5, 3, better, 1e-3, 2, 0.01), []
    for i, score in enumerate(scores):
        theirs.step(i + 1, score)
        assert ours.update(score) == optimizer.param_groups[0]["lr"]
        seen.append(ours.value)
    assert (seen[0], seen[-1]) == (1, 0.01) and len(set(seen)) > 5


def test_plateau_is_transformers():
    """Their schedule takes a score after every update; the rate at update 0 is that of no score."""
    theirs, ours = STORED["plateau"], Plateau(0.5, 2, threshold=0.01, rest=1)
    found = [1.0] + [ours.update(score) for score in theirs["scores"]]
    assert len(theirs["factors"]) == N and found[-2] < 0.01
    assert found[:N] == pytest.approx(theirs["factors"], **CLOSE)


@pytest.mark.parametrize("sign", [1, -1], ids=["lower", "higher"])
def test_worse_is_never_better(sign):
    """Below 0 torch's relative threshold takes every one of these scores for a new best."""
    better, mode = {1: ("lower", "min"), -1: ("higher", "max")}[sign]
    optimizer, ours = dummy(), Plateau(0.5, 2, better, threshold=0.1)
    theirs = torchs.ReduceLROnPlateau(optimizer, mode, 0.5, 2, 0.1)
    worse = [-1.0 + 0.05 * i for i in range(7)] if sign > 0 else [-1.0 - 0.04 * i for i in range(7)]
    for score in worse:
        theirs.step(score)
        ours.update(score)
    assert ours.best == -1.0 and ours.value == 0.25
    assert optimizer.param_groups[0]["lr"] == 1.0 and theirs.best == worse[-1]
    assert ours.update(-1.0 - sign * 0.2) == 0.25 and ours.best == -1.0 - sign * 0.2


def test_a_plateau_is_a_schedule_like_the_others():
    plateau = Plateau(np.float32(0.5), np.int64(2), rest=1)
    assert repr(plateau) == repr(eval(repr(plateau)))
    assert "Plateau(factor=0.5, patience=2" in repr(warmup(plateau, 0.1))
    for progress in (math.nan, -0.1, 1.1, "half", None):
        with pytest.raises(ValueError, match="The progress is"):
            plateau(progress)
    for score in (3, torch.tensor(2.0), np.float32(2.5), 2.5, 2.5, 2.5):
        plateau.update(score)
    again = pickle.loads(pickle.dumps(plateau))
    assert again.state_dict() == plateau.state_dict() == json.loads(json.dumps(again.state_dict()))
    assert again(0.3) == plateau(0.3) == 0.5


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


def paces(optimizer):
    return timm.PolyLRScheduler(optimizer, N, 1.5, 0.02, k_decay=3.0, t_in_epochs=False)


WARM = dict(warmup_t=6, warmup_lr_init=0.01, t_in_epochs=False)
PREFIX = WARM | dict(warmup_prefix=True)
TIMM = {  # updates done / N; a prefix shifts the schedule by the warm-up, which then has N - 6 left
    "cosine": (lambda o: timm.CosineLRScheduler(o, N, 0.02, t_in_epochs=False), cosine(1, 0.02)),
    "cosine, warm-up before": (lambda o: timm.CosineLRScheduler(o, N - 6, 0.02, **PREFIX), warmup(cosine(1, 0.02), 0.1, start=0.01)),
    "cosine, warm-up over": (lambda o: timm.CosineLRScheduler(o, N, 0.02, **WARM), late("cosine", stop=0.02)),
    "cosine, cycles": (lambda o: timm.CosineLRScheduler(o, 4, 0.0, 2.0, 0.5, 4, t_in_epochs=False), cosine_restarts(4, 2.0, 0.5)),
    "polynomial": (lambda o: timm.PolyLRScheduler(o, N, 0.5, 0.02, t_in_epochs=False), polynomial(1, 0.02, 0.5)),
    "polynomial, warm-up over": (lambda o: timm.PolyLRScheduler(o, N, 2.0, **WARM), late("polynomial", power=2.0)),
    "cosine, k-decay": (lambda o: timm.CosineLRScheduler(o, N, 0.02, k_decay=2.0, t_in_epochs=False), paced(cosine(1, 0.02), 2)),
    "polynomial, k-decay": (paces, paced(polynomial(1, 0.02, 1.5), 3)),
    "tanh": (lambda o: timm.TanhLRScheduler(o, N, lr_min=0.02, t_in_epochs=False), tanh(1, 0.02)),
    "tanh, another piece": (lambda o: timm.TanhLRScheduler(o, N, -4.0, 5.0, t_in_epochs=False), tanh(begin=-4, end=5)),
    "tanh, warm-up before": (lambda o: timm.TanhLRScheduler(o, N - 6, **PREFIX), chain((0.1, linear(0.01, 1)), (0.9, tanh()))),
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
    settings = dict(stable_fn=stable, decay_fn=kind, warmup_t=6, t_in_epochs=False)
    theirs = by_updates(lambda o: WSDLRScheduler(o, 54, 18, **settings))
    ours = cooldown(
        inverse_square_root(0.1) if stable == "rsqrt" else warmup(constant(), 0.1),
        0.3,
        kind.replace("1-sqrt", "root"),
    )
    assert factors(ours, N) == pytest.approx(theirs, **CLOSE)


WAVES = chain((1 / 3, cosine()), (1 / 3, cosine(0, 1)), (1 / 3, cosine()))
ENDS_USED = ("cosine above 0, both ends used", "cosine above 0, own warm-up")  # i / (N - 1)
TRANSFORMERS = {  # LambdaLR over the updates done: a warm-up of 6, and i - 6 of the 54 that remain
    "constant": warmup(constant(), 0.1),
    "linear": warmup(linear(), 0.1),
    "cosine": warmup(cosine(), 0.1),
    "cosine without warmup": cosine(),
    "cosine, one and a half waves": warmup(WAVES, 0.1),
    "cosine above 0, both ends used": warmup(cosine(1, 0.1), 5 / (N - 1), start=1 / 6),
    "cosine above 0, own warm-up": warmup(cosine(1, 0.1), 5 / (N - 1), start=0.4),
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
    ours, last = TRANSFORMERS[name], N - 1 if name in ENDS_USED else N
    assert [ours(i / last) for i in range(N)] == pytest.approx(theirs, **CLOSE)


SGDR = cosine_restarts(4, growth=2)
FASTAI = {  # `pct_train`, which is i / N, before every batch
    "SchedNo": constant(0.7),
    "SchedLin": linear(0.2, 1),
    "SchedCos": cosine(1, 0.1),
    "SchedExp": exponential(1, 0.01),
    "SchedPoly": part(polynomial(0.1, 1, 3), 1, 0),  # fastai's powers grow from the start
    "combine_scheds": chain((0.25, linear(0.1, 1)), (0.5, cosine(1, 0.5)), (0.25, exponential(0.5, 0.01))),
    "fit_flat_cos": cooldown(constant(), 0.25, "cosine", stop=1e-5),
    "fit_sgdr": SGDR,  # cycles of 1, 2, 4 and 8 epochs
}  # fmt: skip
IN_FLOAT32 = ("combine_scheds", "fit_flat_cos", "fit_sgdr")  # where fastai adds up shares


@pytest.mark.parametrize("name", FASTAI)
def test_shapes_are_those_of_fastai(name):
    theirs = STORED["fastai"][name]["factors"]
    close = dict(rel=0, abs=1e-6) if name in IN_FLOAT32 else CLOSE
    assert len(theirs) == N
    ours = factors(FASTAI[name], N)
    for late in (12, 28) if name == "fit_sgdr" else ():  # rounding: two restarts one update late
        assert (ours[late], theirs[late]) == (1, pytest.approx(0, abs=1e-9))
        theirs = theirs[:late] + [1] + theirs[late + 1 :]
    assert ours == pytest.approx(theirs, **close)


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
    "tanh": (tanh(), (1 + math.tanh(7)) / 2, (1 - math.tanh(3 - 10 / N)) / 2, (1 - math.tanh(3)) / 2),
    "paced": (paced(linear(), 2), 1, 1 - (1 - 1 / N) ** 2, 0),
    "exponential warm-up": (warmup(linear(), 0.1, "exponential", 0.01), 0.01, 1 / 54, 0),
    "exponential cooldown": (cooldown(constant(), 0.2, "exponential", 0.01), 1, 0.01 ** (1 - 1 / 12), 0.01),
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
}  # fmt: skip


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


@pytest.mark.parametrize("kind", ["linear", "cosine", "root", "exponential"])
def test_every_kind_of_rise_and_fall(kind):
    """From .01, or to it, over 12 of 60 updates; a rise is the fall of its kind, backwards."""
    formula = {
        "linear": lambda q: 0.01 + 0.99 * q,
        "cosine": lambda q: 0.01 + 0.99 * (1 - math.cos(math.pi * q)) / 2,
        "root": lambda q: 1 - 0.99 * (1 - q) ** 0.5,
        "exponential": lambda q: 0.01 ** (1 - q),
    }[kind]
    rise = [formula(min(1, i / 12)) for i in range(N)]
    fall = [formula(min(1, (N - i) / 12)) for i in range(N)]
    assert factors(warmup(constant(), 0.2, kind, 0.01), N) == pytest.approx(rise, **CLOSE)
    for ours in (cooldown(constant(), 0.2, kind, 0.01), warmup_stable_decay(0, 0.2, kind, 0.01)):
        assert factors(ours, N) == pytest.approx(fall, **CLOSE)


def test_a_schedule_of_the_momentum_alone_leaves_the_rate():
    alone = lambda p: {"momentum": 0.9 - p / 10}
    assert factors(alone, 4) == [1.0] * 4
    assert warmup(alone, 0.5)(0.25) == {"lr": 0.5, "momentum": 0.9}
    assert cooldown(alone, 0.5)(0.75) == {"lr": 0.5, "momentum": 0.9 - 0.75 / 10}
    assert extend(alone, 2, 4, 8, "continue")(0.25) == alone(0.5)


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda: warmup(cosine(), kind="exponential"), "start"),
        (lambda: cooldown(cosine(), kind="exponential"), "stop"),
        (lambda: warmup_stable_decay(kind="exponential"), "stop"),
    ],
)
def test_an_exponential_names_the_argument_that_it_needs(make, name):
    with pytest.raises(ValueError, match=f"give {name} above 0, such as {name}=0.01"):
        make()


NUMBERS = [np.float32, np.float64, np.array, torch.tensor, Fraction]


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_any_number_will_do_and_prints_as_pythons(kind):
    half = kind(0.5)
    pairs = {
        "linear(0.5, 0)": linear(half, 0),
        "warmup(cosine(stop=0.5), 0.5)": warmup(cosine(stop=half), half),
        "multi_step([0.5], 0.5)": multi_step([half], half),
        "points([(0, 1), (0.5, 0.5), (1, 0)])": points([(0, 1), (half, half), (1, 0)]),
        "one_cycle(0.5, momentum=0.5)": one_cycle(half, momentum=half),
    }
    for words, schedule in pairs.items():
        assert kind is Fraction or repr(schedule) == words
        assert factors(schedule, N) == pytest.approx(factors(eval(words), N))
    counts = (np.int64(3), np.array(3), torch.tensor(3))
    assert {repr(cosine_restarts(n)) for n in counts} == {"cosine_restarts(3)"}
    assert factors(cosine(), np.int64(3)) == factors(cosine(), 3)


def test_what_is_read_once_is_kept_as_a_list():
    places = [0.5]
    kept = multi_step(places)
    places.append(0.1)
    assert repr(kept) == "multi_step([0.5])" and kept(0.2) == 1
    once = [points((i / 2, 1 - i / 2) for i in range(3)), points(zip([0, 0.5, 1], [1, 0.5, 0]))]
    assert {repr(line) for line in once} == {
        "points([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])",
        "points([(0, 1), (0.5, 0.5), (1, 0)])",
    }
    assert repr(multi_step(x for x in [0.5])) == repr(multi_step(np.array([0.5]))) == repr(kept)
    assert factors(points(np.array([[0, 1], [1, 0]])), N) == factors(linear(), N)
    pieces = [(0.5, linear()), [0.5, cosine()]]
    assert factors(chain(pieces), N) == factors(chain(*pieces), N)


def test_restarts_may_grow_beyond_all_numbers():
    """The last of 400 cycles, each ten times as long as the one before, is nine tenths of the run."""
    many = cosine_restarts(400, growth=10.0)
    assert many(1.0) == 0 and many(0.1 + 0.45) == pytest.approx(0.5)
    flat = factors(cosine_restarts(3, decay=0.1, stop=0.01), 60)[40:]
    assert flat == pytest.approx([0.01] * 20, **CLOSE)  # the lowest cycle may be flat


@pytest.mark.parametrize("name", ENDS)
def test_a_schedule_can_go_to_another_process(name):
    schedule = ENDS[name][0]
    for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert repr(again) == repr(schedule)
        assert [again(i / N) for i in range(N)] == [schedule(i / N) for i in range(N)]


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


MOVED = {  # a piece that moves the momentum, then one that does not
    "chain": chain((0.5, part(one_cycle(0.5, momentum=0.9), 0, 0.5)), (0.5, cosine())),
    "extended": extend(one_cycle(momentum=0.9), 4, 12, 20, cosine()),
    "the other way round": chain((0.5, cosine()), (0.5, one_cycle(momentum=0.8))),
    "a momentum alone": chain((0.5, lambda p: {"momentum": 0.5}), (0.5, linear())),
}


@pytest.mark.parametrize("make", [SGD, ADAMW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("stop", [4, 6, 13])
@pytest.mark.parametrize("name", MOVED)
def test_no_piece_leaves_its_momentum_to_the_next(name, stop, make):
    """12 or 20 updates straight, and broken off and resumed: the same rates and weights, to the bit."""
    data, schedule = examples(batch_size=10, shuffle=True), MOVED[name]
    settings = {"momentum": 0.9} if make is SGD else {}
    own = [{"schedule": schedule}, {}]  # the body by its own, the head by the run's

    def run(one, start=0, until=20):
        with trace(one.optimizer) as rates:
            for tick in train(one, data, 4, schedule, start):
                if tick.i + 1 == until:
                    break
        return rates

    straight, broken = trainer(make, own, **settings), trainer(make, own, **settings)
    whole = plan(straight, data, 4, schedule)
    assert run(straight) == whole and len({m for m, _ in whole.momentum}) > 1
    late = plan(broken, data, 4, schedule, start=stop)
    assert (late.lr, late.momentum) == (whole.lr[stop:], whole.momentum[stop:])
    run(broken, until=stop)
    groups = broken.optimizer.param_groups  # they have their own again
    assert {g["betas"][0] if make is ADAMW else g["momentum"] for g in groups} == {0.9}
    assert run(broken, stop) == late
    for a, b in zip(straight.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_torch_scheduler_beside_train_keeps_its_rates():
    """It keeps `initial_lr` in the groups too; without a schedule of ours, nothing is touched."""
    one, data = trainer(), examples(batch_size=16)
    theirs = torchs.CosineAnnealingLR(one.optimizer, 12)
    with trace(one.optimizer) as rates:
        for _ in range(3):
            for _ in train(one, data, 1):
                theirs.step()
    expected = [0.05 * (1 + math.cos(math.pi * i / 12)) for i in range(12)]
    assert [lr for lr, _ in rates.lr] == pytest.approx(expected, **CLOSE)
    assert one.optimizer.param_groups[0]["initial_lr"] == 0.1


def test_the_rate_is_the_groups_and_not_that_of_another_scheduler():
    one, data = trainer(), examples(batch_size=16)
    torchs.StepLR(one.optimizer, 100)
    for group in one.optimizer.param_groups:
        group["lr"] = 0.5
    list(train(one, data, 1))
    assert [group["lr"] for group in one.optimizer.param_groups] == [0.5, 0.5]
    meant = plan(one, data, 1, cosine())
    with trace(one.optimizer) as rates:
        list(train(one, data, 1, cosine()))
    assert rates == meant and rates.lr[0] == (0.5, 0.5)
    assert [group["lr"] for group in one.optimizer.param_groups] == [0.5, 0.5]


def test_two_schedulers_in_one_optimizer():
    """One group is torch's, the other carries a schedule of its own."""
    one, data = trainer(groups=[{}, {"schedule": linear()}]), examples(batch_size=16)
    theirs = torchs.LambdaLR(one.optimizer, [lambda i: 0.5**i, lambda i: 1.0])
    with trace(one.optimizer) as rates:
        for _ in train(one, data, 1):
            theirs.step()
    assert rates.lr == [(0.1 * 0.5**i, 0.1 * (1 - i / 4)) for i in range(4)]


def test_a_run_inside_a_run_and_a_group_that_comes_later():
    """Rates are put aside group by group, at its first update; a nested run gives them back."""
    one, data = trainer(), examples(batch_size=16)
    extra = nn.Linear(3, 3)
    with trace(one.optimizer) as rates:
        for tick in train(one, data, 2, linear()):
            if tick.i == 1:
                list(train(one, data, 1))
            if tick.i == 3:
                list(train(one, data, 1, constant(0.5)))
                one.model.append(extra)
                one.modules[0] = one.model
                one.optimizer.add_param_group({"params": [*extra.parameters()], "lr": 0.8})
    body = [lr[0] for lr in rates.lr]
    outer = [0.1 * (1 - i / 8) for i in range(8)]
    within = 4 * [outer[1]] + outer[2:4] + 4 * [0.05]
    assert body == pytest.approx(outer[:2] + within + outer[4:], **CLOSE)
    assert [lr[2] for lr in rates.lr[12:]] == pytest.approx(
        [0.8 * (1 - i / 8) for i in range(4, 8)]
    )
    assert [group["lr"] for group in one.optimizer.param_groups] == [0.1, 0.1, 0.8]
    assert not any("own rates" in group for group in one.optimizer.param_groups)
    lines = rates.draw().axes[0].get_lines()
    assert [sum(math.isfinite(y) for y in line.get_ydata()) for line in lines] == [16, 16, 4]


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
        "continue": [schedule(p) for p in rest] if done < 12 else 8 * [planned[-1]],
        OWN: factors(OWN, 20 - done),
    }
    assert found[done:] == pytest.approx(expected[how], **CLOSE)
    if how == "continue":
        assert found[done] == pytest.approx(schedule(min(done, 11) / 12), **CLOSE)  # no jump
    if how == "stretch":
        assert found[done] > planned[done - 1]  # the jump that the reader was told of


def test_a_stretched_run_that_is_not_longer_is_the_run():
    assert factors(extend(cosine(), 0, 12, 12, "stretch"), 12) == factors(cosine(), 12)
    assert factors(extend(cosine(), 5, 12, 12, "continue"), 12) == pytest.approx(
        factors(cosine(), 12), **CLOSE
    )


@pytest.mark.parametrize("of", [10, 20, 30])
def test_what_is_continued_after_the_end_is_what_was_used(of):
    """A stair at progress 1 was never used; neither was the start of what comes after the end."""
    for schedule in (
        step(0.5, 0.1),
        chain((0.5, cosine()), (0.5, cosine(1, 0.1))),
        one_cycle(momentum=0.5),
    ):
        longer = extend(schedule, of, of, 2 * of, "continue")
        used = schedule((of - 1) / of)
        assert [longer(i / (2 * of)) for i in range(of, 2 * of)] == of * [used]
        assert factors(longer, 2 * of)[:of] == pytest.approx(factors(schedule, of), **CLOSE)


@pytest.mark.parametrize("how", ["continue", "stretch", constant(0.0)], ids=str)
def test_a_run_that_would_go_on_without_a_rate(how):
    off = points([(0, 1), (0.4, 0), (1, 0)])
    with pytest.raises(ValueError, match="0 in all updates from 8 to 20") as caught:
        extend(off, 8, 12, 20, how)
    assert str(caught.value).endswith(".") and len(str(caught.value)) < 400
    assert extend(off, 8, 12, 20, constant(0.1))(0.5) == 0.1


def test_a_group_is_extended_by_itself():
    """train stretches what a group carries; whoever wants it otherwise extends that too."""
    data, counts = examples(batch_size=16), dict(done=8, of=12, to=20, how="continue")
    own = linear(1, 0.2)
    one = trainer(groups=[{"schedule": own}, {}])
    before = plan(one, data, 3, cosine()).lr[:8]
    longer = extend(cosine(), **counts)
    assert plan(one, data, 5, longer, 8).lr[0][0] == 0.1 * own(8 / 20)  # stretched
    one.optimizer.param_groups[0]["schedule"] = extend(own, **counts)
    meant = plan(one, data, 5, longer, 8)
    with trace(one.optimizer) as rates:
        list(train(one, data, 5, longer, 8))
    assert rates == meant and len(meant) == 12
    rest = [8 / 12 + 4 / 12 * k / 12 for k in range(12)]
    assert [body for body, _ in meant.lr] == pytest.approx([0.1 * own(p) for p in rest], **CLOSE)
    assert meant.lr[0] < before[-1] and meant.lr[0] == pytest.approx(
        (0.1 * own(8 / 12), 0.1 * cosine()(8 / 12))
    )


def test_train_itself_stretches():
    data, one = examples(batch_size=16), trainer()
    list(train(one, data, 3, cosine()))
    with trace(one.optimizer) as rates:
        list(train(one, data, 5, cosine(), start=12))
    assert [lr for lr, _ in rates.lr] == [0.1 * f for f in factors(cosine(), 20)[12:]]


@pytest.mark.parametrize("warm", [1, 10, 40])
def test_an_end_that_is_decided_late(warm):
    """Planned for 1000 updates, after 60 it is 80: the run is the one that was planned for 80."""
    late = extend(warmup(constant(), warm / 1000), 60, 1000, 80, linear())
    assert factors(late, 80) == pytest.approx(
        factors(warmup_stable_decay(warm / 80, 0.25), 80), **CLOSE
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
    assert len(rates) == 3 and not one.optimizer._optimizer_step_post_hooks
    assert float(one.optimizer.param_groups[0]["lr"]) == pytest.approx(0.1)


def test_an_update_that_raises_is_none():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], 0.1)
    with pytest.raises(ZeroDivisionError), trace(optimizer) as rates:
        optimizer.step(lambda: weight.sum())
        optimizer.step(lambda: 1 / 0)
    assert rates == Rates([(0.1,)], [(None,)])


def test_tensor_rates_are_filled_in_place():
    """A captured graph holds the tensors themselves: learning rates, momenta and Adam's betas."""
    data, schedule = examples(batch_size=16), one_cycle(0.5, 0.5, momentum=0.5)
    one = trainer(
        ADAMW,
        [{"lr": torch.tensor(0.1), "betas": (torch.tensor(0.9), torch.tensor(0.99))}] * 2,
        foreach=False,
    )
    two = trainer(
        SGD, [{"lr": torch.tensor(0.1), "momentum": torch.tensor(0.9)}] * 2, foreach=False
    )
    kept = lambda step: [
        id(v)
        for g in step.optimizer.param_groups
        for v in (g["lr"], g.get("momentum"), *g.get("betas", ()))
    ]
    for make in (one, two):
        ids, plain = kept(make), trainer(SGD, momentum=0.9)
        meant = plan(make, data, 2, schedule)
        assert (
            kept(make) == ids
            and [float(g["lr"]) for g in make.optimizer.param_groups] == [pytest.approx(0.1)] * 2
        )
        with trace(make.optimizer) as rates:
            for _ in train(make, data, 2, schedule):
                assert kept(make) == ids
        assert rates == meant and all(type(m) is float for pair in rates.momentum for m in pair)
        expected = plan(plain, data, 2, schedule)
        assert np.allclose(rates.lr, expected.lr) and np.allclose(rates.momentum, expected.momentum)
        assert plan(make, data, 1).momentum[0] == pytest.approx((0.9, 0.9)) and kept(make) == ids


def test_plan_touches_nothing():
    one, data = trainer(ADAMW), examples(batch_size=16)
    before = [{k: v for k, v in g.items() if k != "params"} for g in one.optimizer.param_groups]
    before = json.dumps(before)
    plan(one, data, 2, one_cycle(momentum=0.9))
    after = [{k: v for k, v in g.items() if k != "params"} for g in one.optimizer.param_groups]
    assert json.dumps(after) == before and not one.optimizer.state


@pytest.mark.parametrize(
    "arguments",
    [dict(start=100), dict(start=-3), dict(epochs=0), dict(epochs=2.5), dict(data=[1, 2])],
    ids=str,
)
def test_plan_refuses_what_train_refuses(arguments):
    one, arguments = trainer(), dict(data=examples(batch_size=16), epochs=3) | arguments
    said = []
    for call in (plan, train):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(one, schedule=cosine(), **arguments)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1] and said[0][1].endswith(".")


def test_plan_of_nothing_left():
    one, data = trainer(), examples(batch_size=16)
    rest = plan(one, data, 3, cosine(), start=12)
    assert rest == Rates() and len(rest) == 0
    with pytest.raises(ValueError, match="nothing to draw"):
        rest.draw()


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
        for _ in train(one, data, 1, lambda p, kind=kind: kind(1 - p)):
            assert type(one.optimizer.param_groups[0]["lr"]) is float  # as a checkpoint takes it
        list(train(one, data, 1, lambda p: 1))  # whole numbers too
        found.append([p.detach() for p in one.model.parameters()])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1])
def test_an_own_rate_that_is_no_rate(rate):
    """The factor is fine, but what it is multiplied with is not."""
    one, data = trainer(), examples(batch_size=16)
    one.optimizer.param_groups[1]["lr"] = rate
    before = [p.clone() for p in one.model.parameters()]
    for call in (plan, lambda *arguments: next(train(*arguments))):
        with pytest.raises(ValueError, match=f"A parameter group has a lr of {rate}") as caught:
            call(one, data, 1, cosine())
        assert str(caught.value).endswith(".")
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters()))
    assert not any("own rates" in group for group in one.optimizer.param_groups)


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


def test_the_figure_of_the_rates():
    """Every update is a dot, nothing lies on the axis, and a momentum that moves has its own panel."""
    one = trainer(ADAMW, [{"schedule": constant(0.0)}, {}])
    data, moving = examples(batch_size=16), one_cycle(momentum=0.5)
    still, moved = plan(one, data, 3, cosine()), plan(one, data, 3, moving)
    (rates,), (above, below) = still.draw().axes, moved.draw(names=("body", "head")).axes
    for axis in (rates, above):
        body, head = axis.get_lines()
        assert body.get_marker() == "o" and len(head.get_ydata()) == 12
        assert axis.get_ylim()[0] < 0 == max(body.get_ydata())
    assert list(above.get_lines()[1].get_ydata()) == [head for _, head in moved.lr]
    assert list(below.get_lines()[1].get_ydata()) == [head for _, head in moved.momentum]
    assert below.get_ylabel() == "momentum" and overlapping_labels(above.figure) == []
    assert {text.get_text() for text in above.texts} == {"body", "head"}
    assert plan(one, data, 20, cosine()).draw().axes[0].get_lines()[0].get_marker() in ("None", "")
    with pytest.raises(ValueError, match="nothing to draw"):
        Rates().draw()


# drawn by hand

HILL = (0, 1, 0.7, 0.3, 0)


def fake_race(schedule):
    """Scores without training: the mean factor, three times."""
    return [sum(factors(schedule, 20)) / 20 + k / 100 for k in range(3)]


def test_five_heights_make_a_schedule():
    assert [from_handles(HILL)(p) for p in (0, 0.25, 0.5, 0.75, 1)] == list(HILL)
    assert from_handles(np.array(HILL))(0.125) == pytest.approx(0.5)
    for heights in ((1, 2), 3, (1, 1, 1, 1, math.nan)):
        with pytest.raises(ValueError) as caught:
            from_handles(heights)
        assert str(caught.value).endswith(".")


def test_the_figure_of_a_race_is_a_pure_function():
    asked = []
    race = lambda schedule: asked.append(repr(schedule)) or fake_race(schedule)
    first, second = draw_handles(HILL, race), draw_handles(HILL, race)
    assert asked[:2] == asked[2:] and asked[1] == "cosine()"
    curves, scores = first.axes
    yours, rival, handles = curves.get_lines()
    assert list(handles.get_ydata()) == list(HILL) == list(yours.get_ydata()[::25])
    assert rival.get_ydata()[-1] == 0
    assert list(scores.get_lines()[0].get_ydata()) == fake_race(from_handles(HILL))
    for figure in (first, second, draw_handles(HILL), draw_handles(HILL, race, rival=linear())):
        assert overlapping_labels(figure) == []


def written(figure):
    curves, scores = figure.axes
    return [text.get_text() for text in curves.texts], [
        t.get_text() for t in scores.get_xticklabels()
    ]


def test_the_figure_says_who_is_who_and_who_has_raced():
    raced = lambda schedule: fake_race(schedule) if repr(schedule) == "linear()" else []
    assert written(draw_handles(HILL, fake_race)) == (["yours", "cosine"], ["yours", "cosine"])
    half = ["yours\nnot raced yet", "linear"]
    assert written(draw_handles(HILL, raced, linear())) == (["yours", "linear"], half)
    assert written(draw_handles(HILL, rival=lambda p: 1 - p))[0] == ["yours", "rival"]


def test_any_scores_and_any_rival():
    """A tensor of scores, scores below the axis, a rival that moves the momentum."""
    figure = draw_handles(HILL, lambda s: torch.tensor([0.2, 0.3]), one_cycle(momentum=0.9))
    assert written(figure)[0] == ["yours", "one_cycle"] and figure.axes[1].get_ylim()[0] < 0.2
    assert figure.axes[0].get_lines()[1].get_ydata()[25] == 1


def live(race):
    """The widgets of a `Handles`: five sliders, the button, the figure, the place for errors."""
    pytest.importorskip("ipywidgets")
    top, view, errors = Handles(race, {"hill": HILL}).live().children
    (*bars, button) = top.children
    return bars, button, view, errors


def test_sliders_redraw_and_race_only_when_asked():
    asked = []
    bars, button, view, _ = live(lambda s: asked.append(repr(s)) or fake_race(s))
    assert [bar.value for bar in bars] == list(HILL) and asked == []
    assert not any(bar.continuous_update for bar in bars)  # no figure for places on the way
    before = view.value
    bars[2].value = 0.1
    assert view.value != before and asked == [] and "0.1" in view.value
    button.click()
    lowered = "points([(0, 0.0), (0.25, 1.0), (0.5, 0.1), (0.75, 0.3), (1, 0.0)])"
    assert asked == [lowered, "cosine()"]


def test_a_race_is_kept_and_the_rival_runs_once(monkeypatch):
    shown, asked = [], []

    def drawn(heights, race):
        figure = draw_handles(heights, race)
        shown.append(written(figure)[1])
        return figure

    monkeypatch.setattr("ftlearn.schedules.draw_handles", drawn)
    bars, button, *_ = live(lambda s: asked.append(repr(s)) or fake_race(s))
    button.click()
    bars[2].value = 0.1  # the rival's scores stay
    bars[2].value = 0.7  # back to the shape that was raced
    button.click()
    bars[0].value = 0.5
    button.click()
    new, both = ["yours\nnot raced yet", "cosine"], ["yours", "cosine"]
    assert shown[0] == [f"{name}\nnot raced yet" for name in both]
    assert shown[1:] == [both, new, both, both, new, both]
    assert asked.count("cosine()") == 1 and len(asked) == 3


def test_the_button_says_that_it_races_and_survives_an_error(caplog):
    seen = []

    def race(schedule):
        seen.append((button.disabled, button.description))
        if len(seen) > 1:
            raise RuntimeError("lost")
        return [0.9]

    bars, button, _, errors = live(race)
    button.click()  # without a kernel, ipywidgets logs what the callback raised
    assert "lost" in caplog.text
    assert seen == 2 * [(True, "racing ...")]
    assert (button.disabled, button.description) == (False, "race")
    assert type(errors).__name__ == "Output"


def test_a_page_without_a_kernel_has_the_shapes():
    bundle = Handles(fake_race, {"hill": HILL, "flat": (1, 1, 1, 1, 1)})._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert "hill" in bundle["text/html"] and "flat" in bundle["text/html"]

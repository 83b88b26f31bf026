"""Lesson 19: what is faster gives the same numbers, and nothing is moved, waited for or lost."""

import contextlib
import copy
import inspect
import math

import numpy as np
import pytest
import torch
from families import FAMILIES, small_resnet, small_vit
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import ftlearn.speed as speed
from ftlearn.augment import augment
from ftlearn.checkpoint import load_checkpoint, save_checkpoint
from ftlearn.data import Columns, HeldOut
from ftlearn.explore import overlapping_labels
from ftlearn.features import cache
from ftlearn.folder import Preprocess, Streamed
from ftlearn.freezing import fingerprint, freeze, unfreeze
from ftlearn.losses import cross_entropy
from ftlearn.models import glyphnet, split, stages
from ftlearn.rates import lr_find
from ftlearn.schedules import cosine, one_cycle, plan
from ftlearn.speed import (
    Prefetched,
    Timings,
    channels_last,
    compiled,
    copy_rate,
    cost,
    device_reads,
    fast,
    fused,
    gradient_checkpointing,
    graphed,
    matrix_rate,
    mixed_precision,
    prefetched,
    roofline,
    side_by_side,
)
from ftlearn.training import (
    Step,
    accumulate,
    bf16,
    check_order,
    evaluate,
    fit,
    inference,
    predict,
    train,
    train_mode,
)
from ftlearn.transforms import Flip
from ftlearn.weights import load_weights, save_weights

RATE = 2**-7  # the same number in float32 and in float64
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, RATE),
    "adam": lambda p: torch.optim.Adam(p, RATE, weight_decay=0.01),
    "sgd": lambda p: torch.optim.SGD(p, RATE, momentum=0.9, nesterov=True),
    "plain sgd": lambda p: torch.optim.SGD(p, RATE),
}


def convnet(channels=3):
    """Convolutions, batch normalisation, dropout; 8 by 8 pixels, 5 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        ),
        nn.Sequential(
            nn.Conv2d(8, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3)
        ),
        nn.Flatten(),
        nn.Linear(54, 5),
    )


def trainable(*modules):
    return [p for module in modules for p in module.parameters() if p.requires_grad]


def step_of(model=None, optimizer="adamw", objective=None, **settings):
    model = convnet() if model is None else model
    learned = [objective] if isinstance(objective, nn.Module) else []
    optimizer = OPTIMIZERS[optimizer](trainable(model, *learned))
    return Step(model, objective or cross_entropy(), optimizer, **settings)


def some(examples=20, channels=3, size=8, device="cpu"):
    torch.manual_seed(1)
    x, y = torch.randn(examples, channels, size, size), torch.randint(0, 5, (examples,))
    return x.to(device), y.to(device)


def a_set(examples=20, **settings):
    return Columns(*some(examples), **(dict(batch_size=8, shuffle=True, seed=3) | settings))


def losses(step, batch, updates=5):
    return torch.stack([step(*batch)[0] for _ in range(updates)])


def close(one, other, tolerance):
    return (one - other).abs().max() <= tolerance * other.abs().max()


def state_of(step):
    """Everything that a run is made of, as one comparable value."""
    tensors = [t for s in step.optimizer.state.values() for t in s.values()]
    groups = [{k: v for k, v in g.items() if k != "params"} for g in step.optimizer.param_groups]
    return (
        fingerprint(step.modules),
        [t.tolist() if isinstance(t, torch.Tensor) else t for t in tensors],
        [part.training for part in step.modules.modules()],
        [p.grad is None for p in step.modules.parameters()],
        torch.get_rng_state().tolist(),
        str(groups),
    )


# measuring ----------------------------------------------------------------------------------


def test_functions_take_turns_and_the_first_turns_are_not_timed(monkeypatch):
    seen, clock = [], iter(range(1, 100))
    monkeypatch.setattr(speed, "_clocked", lambda f: (f(), next(clock))[1])
    turns = side_by_side({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 3, 2)
    assert "".join(seen) == "ab" * 5
    assert turns.seconds == {"a": [5, 7, 9], "b": [6, 8, 10]}
    assert turns.median("a") == 7


def test_ratios_are_taken_within_the_turns_and_quartiles_are_numpys():
    torch.manual_seed(0)
    a, b = torch.rand(11).add(0.1).tolist(), torch.rand(11).add(0.1).tolist()
    turns = Timings({"a": a, "b": b})
    middle, low, high = turns.ratio("a", "b")
    expected = np.quantile(np.array(a) / np.array(b), [0.5, 0.25, 0.75])
    assert np.allclose([middle, low, high], expected, rtol=1e-12)
    assert turns.ratio("a", "a") == (1, 1, 1)
    assert turns.median("b") == np.median(b)


def test_timings_print_how_many_times_as_fast_as_the_first():
    text = repr(Timings({"slow": [0.4, 0.4, 0.4], "quick": [0.1, 0.2, 0.1]}))
    slow, quick = [line for line in text.splitlines() if "slow" in line or "quick" in line]
    assert "400.00" in slow and "1.00" in slow
    assert "100.00" in quick and "4.00" in quick and "3.00-4.00" in quick


def test_one_function_alone_can_be_timed():
    assert "alone" in repr(side_by_side({"alone": lambda: None}, rounds=2, warmup=0))


def test_an_error_in_a_timed_function_is_its_own():
    with pytest.raises(KeyError, match="mine"):
        side_by_side({"a": lambda: {}["mine"]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_matrix_rate_counts_two_operations_per_product(dtype, monkeypatch):
    shapes = []

    def clocked(function):
        out = function()
        shapes.append(function.__closure__[0].cell_contents.dtype)
        return out or 0.5

    monkeypatch.setattr(speed, "_clocked", clocked)
    monkeypatch.setattr(speed, "_best", lambda f, tries: (shapes.append(f().dtype), 0.5)[1])
    convolution = 2 * 64 * 16 * 16 * 64 * 64 * 3 * 3
    assert matrix_rate(dtype, "cpu", size=16) == convolution / 0.5
    assert matrix_rate(dtype, "cpu", size=1024) == 2 * 1024**3 / 0.5
    assert shapes == [dtype] * 4


def test_rates_are_positive_and_finite():
    for rate in (matrix_rate(size=32), matrix_rate(torch.bfloat16, size=32), copy_rate(size=4096)):
        assert 0 < rate < math.inf


@pytest.mark.parametrize("size", [4096, 4094])
def test_copy_rate_counts_what_is_read_and_what_is_written(size, monkeypatch):
    moved = []
    monkeypatch.setattr(speed, "_best", lambda f: (moved.append(f().nbytes), 0.25)[1])
    assert copy_rate("cpu", size) == 2 * moved[0] / 0.25


def test_the_best_of_some_tries_after_one_that_is_not_timed(monkeypatch):
    calls, clock = [], iter([5, 3, 4, 9, 8])
    monkeypatch.setattr(speed, "_clocked", lambda f: (f(), next(clock))[1])
    assert speed._best(lambda: calls.append(1)) == 3
    assert len(calls) == 6


@pytest.mark.parametrize(("gain", "worth"), [(0.7, False), (1.29, False), (1.3, True), (8, True)])
def test_sixteen_bits_only_where_they_pay(gain, worth, monkeypatch):
    rates = {torch.bfloat16: gain, torch.float32: 1.0}
    monkeypatch.setattr(speed, "_product_rate", lambda dtype, device=None, size=None: rates[dtype])
    amp = mixed_precision()
    assert (amp is not None) is worth
    if worth:
        with amp:
            assert F.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == torch.bfloat16
    model = nn.Linear(8, 3)
    data = Columns(torch.randn(8, 8), torch.zeros(8, dtype=torch.int64))
    evaluate(model, data, amp=mixed_precision("cpu"))


# counting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "operations", "numbers"),
    [
        (nn.Linear(12, 7), (5, 12), 2 * 5 * 12 * 7, 5 * 12 + 12 * 7 + 7 + 5 * 7),
        (
            nn.Conv2d(4, 6, 3, padding=1, bias=False),
            (2, 4, 8, 8),
            2 * 2 * 64 * 6 * 36,
            512 + 216 + 768,
        ),
        (
            nn.Conv2d(4, 6, 3, stride=2, bias=False),
            (2, 4, 9, 9),
            2 * 2 * 16 * 6 * 36,
            648 + 216 + 192,
        ),
        (
            nn.Conv2d(4, 8, 3, groups=2, bias=False),
            (2, 4, 8, 8),
            2 * 2 * 36 * 8 * 18,
            512 + 144 + 576,
        ),
        (nn.Conv2d(4, 4, 5, groups=4), (1, 4, 8, 8), 2 * 16 * 4 * 25, 256 + 104 + 64),
        (nn.Conv1d(3, 5, 4, bias=False), (2, 3, 10), 2 * 2 * 7 * 5 * 12, 60 + 60 + 70),
    ],
)
def test_forward_costs_are_those_by_hand(layer, shape, operations, numbers):
    for dtype in (torch.float32, torch.bfloat16):
        counted = cost(layer.to(dtype), torch.ones(shape, dtype=dtype))
        assert (counted.operations, counted.bytes) == (operations, dtype.itemsize * numbers)
        assert counted.intensity == operations / (dtype.itemsize * numbers)


def test_a_product_of_matrices_costs_the_same_in_every_spelling():
    a, b = torch.ones(6, 5), torch.ones(5, 4)
    for product in (lambda: a @ b, lambda: torch.mm(a, b), lambda: torch.einsum("ij,jk->ik", a, b)):
        counted = cost(product)
        assert (counted.operations, counted.bytes) == (240, 4 * (30 + 20 + 24))
    batched = cost(torch.bmm, torch.ones(3, 6, 5), torch.ones(3, 5, 4))
    assert (batched.operations, batched.bytes) == (720, 3 * 4 * 74)


def test_the_way_back_costs_once_for_weights_and_once_for_inputs():
    layer, x = nn.Linear(12, 7, bias=False), torch.ones(5, 12)
    once = 2 * 5 * 12 * 7
    assert cost(lambda: layer(x).sum().backward()).operations == 2 * once
    x.requires_grad_()
    assert cost(lambda: layer(x).sum().backward()).operations == 3 * once
    assert cost(torch.no_grad()(lambda: layer(x))).operations == once


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_those_of_torchs_own_counter(family):
    torch.manual_seed(0)
    model, x = FAMILIES[family](), torch.randn(2, 3, 32, 32)
    both = lambda: model(x).sum().backward()
    with FlopCounterMode(display=False) as counter:
        both()
    assert cost(both).operations == counter.get_total_flops() > 0


def test_evaluation_costs_a_transformer_as_much_as_its_way_forth():
    """Without gradients torch takes another way through attention."""
    model, x = small_vit(), torch.randn(2, 3, 32, 32)
    forth = cost(model.eval(), x).operations
    with inference(model):
        assert cost(model, x).operations == forth


def test_views_move_nothing():
    x = torch.ones(6, 4, 2)
    for view in (
        lambda: x.view(6, 8),
        lambda: x.reshape(48),
        lambda: x.transpose(0, 1),
        lambda: x.permute(2, 0, 1),
        lambda: x[2:4, :, None],
        lambda: x.expand(3, 6, 4, 2),
        lambda: x.detach(),
        lambda: x.flatten(1).unsqueeze(0).squeeze(0).unbind(0),
        lambda: x.chunk(3) + x.split(2),
        lambda: x.contiguous().to(torch.float32),
    ):
        assert cost(view).bytes == 0


def test_a_linear_layer_over_places_moves_no_more_than_over_rows():
    layer = nn.Linear(4, 3)
    rows, places = cost(layer, torch.ones(10, 4)), cost(layer, torch.ones(2, 5, 4))
    assert (places.operations, places.bytes) == (rows.operations, rows.bytes)


def test_what_is_changed_in_place_is_read_and_written():
    x, y = torch.ones(10), torch.ones(10)
    assert cost(lambda: x.add_(y)).bytes == 120
    assert cost(lambda: torch._foreach_add_([x], [y])).bytes == 120
    assert cost(lambda: torch.add(x, y)).bytes == 120


def test_a_fused_update_moves_seven_numbers_per_weight():
    """It reads the weight, its gradient and two means, and writes all but perhaps the gradient."""
    model = nn.Linear(100, 100, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    assert 7 * 4 * 10_000 <= cost(optimizer.step).bytes <= 8 * 4 * 10_000 + 32


def test_counting_runs_the_function_once_and_changes_no_number():
    calls = []
    cost(lambda x: calls.append(x + 1), torch.ones(2))
    assert len(calls) == 1
    one, other = step_of(), step_of()
    batch = some(8)
    torch.manual_seed(5)
    expected = losses(one, batch, 3)
    torch.manual_seed(5)
    found = []
    for _ in range(3):
        assert cost(lambda: found.append(other(*batch)[0])).operations > 0
    assert torch.equal(torch.stack(found), expected)


def test_a_function_that_moves_nothing_has_a_cost():
    nothing = cost(lambda: None)
    assert (nothing.operations, nothing.bytes) == (0, 0)
    assert "0 operations on 0 bytes" in repr(nothing)
    assert nothing.intensity == 0


def test_a_cost_prints_as_a_sentence():
    assert repr(cost(nn.Linear(512, 1024), torch.ones(64, 512))) == (
        "67,108,864 operations on 2,494,464 bytes, 26.9 per byte"
    )


# waiting ------------------------------------------------------------------------------------

T, ONE, MASK = torch.tensor([1.5, 2.5]), torch.tensor(3), torch.tensor([True, False])
READS = [
    ("item", lambda: ONE.item(), ["item"]),
    ("tolist", lambda: T.tolist(), ["tolist"]),
    ("an if", lambda: 1 if ONE > 2 else 0, ["__bool__"]),
    ("not", lambda: not ONE, ["__bool__"]),
    ("assert", lambda: math.isnan(T[0]), ["__float__"]),
    ("float", lambda: float(ONE), ["__float__"]),
    ("int", lambda: int(ONE), ["__int__"]),
    ("range", lambda: range(ONE), ["__index__"]),
    ("a list at", lambda: [0, 1, 2, 3][ONE], ["__index__"]),
    ("numpy", lambda: T.numpy(), ["numpy"]),
    ("cpu", lambda: T.cpu(), ["cpu"]),
    ("in", lambda: 1.5 in T, ["__contains__"]),
    ("repr", lambda: repr(T), ["__repr__"]),
    ("str", lambda: str(T), ["__repr__"]),
    ("f-string", lambda: f"{ONE}", ["__format__"]),
    ("f-string with digits", lambda: f"{T[0]:.2f}", ["__format__"]),
    ("percent", lambda: "%f" % T[0], ["__float__"]),  # noqa: UP031
    ("min of Python", lambda: min(T[0], T[1]), ["__bool__"]),
    ("nonzero", lambda: T.nonzero(), ["nonzero"]),
    ("argwhere", lambda: torch.argwhere(T), ["nonzero"]),
    ("where of one", lambda: torch.where(MASK), ["nonzero"]),
    ("a mask", lambda: T[MASK], ["a mask as index"]),
    ("a mask and a slice", lambda: T[:, None][MASK, 0:1], ["a mask as index"]),
    ("masked_select", lambda: T.masked_select(MASK), ["masked_select"]),
    ("equal", lambda: torch.equal(T, T), ["equal"]),
    ("unique", lambda: T.unique(), ["_unique2"]),
    ("unique rows", lambda: T[:, None].unique(dim=0), ["unique_dim"]),
    ("bincount", lambda: ONE[None].bincount(), ["bincount"]),
    ("twice", lambda: (ONE.item(), T.tolist()), ["item", "tolist"]),
]
SOMEHOW = [
    ("allclose", lambda: torch.allclose(T, T)),
    ("is_nonzero", lambda: torch.is_nonzero(ONE)),
    ("asarray", lambda: np.asarray(T)),
    ("to the cpu", lambda: T.to("cpu")),
    ("to a cpu device", lambda: T.to(device=torch.device("cpu"), non_blocking=True)),
    ("classes of one_hot", lambda: F.one_hot(ONE[None])),
    ("a tensor as a place", lambda: torch.arange(5)[ONE]),
    ("a tensor as an end", lambda: torch.arange(5)[:ONE]),
    ("repeats", lambda: T.repeat_interleave(torch.tensor([1, 2]))),
    ("complex", lambda: complex(ONE)),
    ("a mask that is filled", lambda: T.clone().__setitem__(MASK, torch.ones(1))),
]  # fmt: skip
QUIET = [
    ("sums", lambda: (T * 2).sum().sqrt()),
    ("comparisons", lambda: (T > 1) & (T < 2)),
    ("where", lambda: torch.where(MASK, T, 0.0)),
    ("masked_fill", lambda: T.masked_fill(MASK, 0.0)),
    ("an index", lambda: T[torch.tensor([1, 0])]),
    ("index_add", lambda: T.index_add(0, torch.tensor([0, 1]), T)),
    ("shapes", lambda: (len(T), T.shape[0], T.numel(), T.ndim, T.dtype, T.device)),
    ("slices", lambda: (T[0], T[:1], T[None], T[..., -1])),
    ("rows", lambda: list(T)),
    ("argmax", lambda: T.argmax().eq(ONE).float()),
    ("topk", lambda: T.topk(1).indices),
    ("one_hot", lambda: F.one_hot(ONE[None], 5)),
    ("detach", lambda: T.detach().clone()),
    ("types", lambda: T.to(torch.bfloat16).float()),
    ("losses", lambda: F.cross_entropy(T[None], torch.tensor([1]))),
    ("dropout", lambda: F.dropout(T)),
    ("norms", lambda: torch._foreach_norm([T])),
]


@pytest.mark.parametrize(("act", "names"), [r[1:] for r in READS], ids=[r[0] for r in READS])
def test_every_way_to_ask_is_noted_once(act, names):
    assert device_reads(act) == names


@pytest.mark.parametrize("act", [r[1] for r in SOMEHOW], ids=[r[0] for r in SOMEHOW])
def test_hidden_ways_to_ask_are_noted(act):
    assert device_reads(act)


@pytest.mark.parametrize("act", [r[1] for r in QUIET], ids=[r[0] for r in QUIET])
def test_what_stays_on_the_device_is_not_noted(act):
    assert device_reads(act) == []


def test_the_answers_are_right_while_it_listens():
    found = []
    device_reads(lambda: found.extend([ONE.item(), T.tolist(), bool(ONE), f"{T[0]:.1f}", 1.5 in T]))
    assert found == [3, [1.5, 2.5], True, "1.5", True]


def test_it_stops_listening_also_after_an_error():
    from torch.overrides import _get_current_function_mode_stack as asking
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as reading

    with pytest.raises(KeyError):
        device_reads(lambda: {}[ONE.item()])
    assert not asking() and not reading()
    with pytest.raises(KeyError):
        cost(lambda: {}["missing"])
    assert not reading()


def test_it_listens_inside_another_and_inside_autocast():
    inner = []
    outer = device_reads(lambda: inner.extend(device_reads(lambda: (ONE.item(), T.nonzero()))))
    assert inner == ["item", "nonzero"]
    assert outer == inner
    with bf16("cpu"):
        assert device_reads(lambda: (T @ T).item()) == ["item"]
    assert device_reads(bf16("cpu")(lambda: (T @ T).item())) == ["item"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_update_asks_for_nothing(optimizer):
    step, batch = fused(step_of(optimizer=optimizer)), some(8)
    step(*batch)
    assert device_reads(step, *batch) == []
    step.amp = bf16("cpu")
    assert device_reads(step, *batch) == []


def test_counters_on_the_cpu_are_noted():
    step, batch = step_of(), some(8)
    step(*batch)
    assert set(device_reads(step, *batch)) <= {"item"}


@pytest.mark.parametrize("schedule", [None, cosine()])
def test_what_fit_asks_for_does_not_grow_with_the_updates(schedule):
    few, many = a_set(16), a_set(56)
    asked = [
        device_reads(lambda d=d: fit(fused(step_of()), d, a_set(8), 2, schedule))
        for d in (few, many)
    ]
    assert asked[0] == asked[1]


# channels last ------------------------------------------------------------------------------


def test_channels_last_keeps_objects_names_and_values(model, images):
    names, parameters = list(model.state_dict()), list(model.parameters())
    before = fingerprint(model)
    assert channels_last(model) is model
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert fingerprint(model) == before
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_channels_last_learns_the_same(channels, optimizer):
    batch = some(8, channels)
    plain, other = (step_of(convnet(channels).eval(), optimizer) for _ in range(2))
    channels_last(other.model)
    assert close(losses(other, batch), losses(plain, batch), 1e-4)


def test_channels_last_of_a_family_learns_the_same(model, images):
    twin = channels_last(copy.deepcopy(model))
    one, other = (step_of(m.eval(), "plain sgd") for m in (model, twin))
    assert close(losses(other, images), losses(one, images), 1e-4)


def test_channels_last_without_convolutions_changes_nothing():
    model = nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    strides = [p.stride() for p in model.parameters()]
    assert [p.stride() for p in channels_last(model).parameters()] == strides


def test_channels_last_of_a_part_is_the_part_of_the_whole():
    model = glyphnet(10, None)
    body, head = split(model, "head")
    channels_last(body)
    x = torch.randn(2, 1, 8, 8)
    assert all(a is b for a, b in zip(body.parameters(), model.parameters()))
    assert torch.equal(head(body(x)), model(x))


def test_channels_last_of_volumes_leaves_what_has_no_such_order():
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv1d(2, 2, 1))
    before = fingerprint(model)
    assert fingerprint(channels_last(model)) == before


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_channels_last_after_some_updates_keeps_the_optimizers_memory(optimizer):
    batch = some(8)
    plain, other = (step_of(convnet().eval(), optimizer) for _ in range(2))
    losses(plain, batch), losses(other, batch)
    channels_last(other.model)
    check_order(other.optimizer)
    assert close(losses(other, batch), losses(plain, batch), 1e-4)


@pytest.mark.parametrize("run_of", [train, fit], ids=["train", "fit"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_fused_optimizers_memory_in_another_order_is_refused(optimizer, run_of):
    """Its kernel walks through memory as it lies, and would pair weights with others' means."""
    step, batch, data = fused(step_of(optimizer=optimizer)), some(8), a_set(20)
    check_order(step.optimizer)
    losses(step, batch)
    check_order(step.optimizer)
    channels_last(step.model)
    before = state_of(step)
    with pytest.raises(ValueError, match=r"\(8, 3, 3, 3\) lies in another order"):
        check_order(step.optimizer)
    with pytest.raises(ValueError, match="lies in another order"):
        run_of(step, data)
    assert state_of(step) == before
    speed._laid(step.model, torch.contiguous_format)
    check_order(step.optimizer)
    fit(step, data)


def test_the_other_way_round_is_refused_too_and_in_any_group():
    model = channels_last(convnet())
    groups = [dict(params=[p]) for p in model.parameters()]
    step = fused(Step(model, cross_entropy(), torch.optim.AdamW(groups)))
    losses(step, some(8))
    check_order(step.optimizer)
    weight = model[1][0].weight
    weight.data = weight.data.contiguous()
    with pytest.raises(ValueError, match=r"\(6, 8, 3, 3\) lies in another order"):
        train(step, a_set(20))


def test_an_optimizer_without_memory_has_no_order():
    for step in (fused(step_of()), fused(step_of(optimizer="plain sgd"))):
        channels_last(step.model)
        check_order(step.optimizer)
    losses(step, some(8), 2)
    speed._laid(step.model, torch.contiguous_format)
    fit(step, a_set(20))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (lambda: nn.Conv2d(3, 6, 1), 8),
        (lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1), 8),
        (lambda: nn.Conv2d(3, 6, (1, 1), stride=2), 4),
    ],
    ids=["1x1", "depthwise", "1x1, strided"],
)
def test_kernels_that_lie_alike_in_both_orders_are_accepted(layer, size):
    """Their strides differ where they are not used."""
    torch.manual_seed(0)
    model = nn.Sequential(layer(), nn.Flatten(), nn.Linear(6 * size * size, 5))
    plain, other = (fused(step_of(copy.deepcopy(model))) for _ in range(2))
    batch = some(8)
    losses(plain, batch), losses(other, batch)
    channels_last(other.model)
    check_order(other.optimizer)
    train(other, a_set(20))
    assert close(losses(other, batch), losses(plain, batch), 1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_checkpoint_of_the_other_order_is_laid_out_as_the_weights(optimizer, tmp_path):
    batch, path = some(8), tmp_path / "c.safetensors"
    plain, other = (fused(step_of(convnet().eval(), optimizer)) for _ in range(2))
    losses(plain, batch)
    save_checkpoint(path, plain, 5)
    channels_last(other.model)
    load_checkpoint(path, other)
    check_order(other.optimizer)
    for p, q in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        for name, t in plain.optimizer.state[p].items():
            assert torch.equal(other.optimizer.state[q][name], t)
    assert is_last(other.model)
    assert close(losses(other, batch), losses(plain, batch), 1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_checkpoint_goes_on_under_channels_last_and_a_fused_optimizer(optimizer, tmp_path):
    """Their kernels walk through memory in one order for weights and for what is remembered."""
    batch = some(8)

    def built():
        step = step_of(convnet().eval(), optimizer)
        channels_last(step.model)
        return fused(step)

    plain, other = built(), built()
    losses(plain, batch)
    save_checkpoint(tmp_path / "c.safetensors", plain, 5)
    load_checkpoint(tmp_path / "c.safetensors", other)
    assert torch.equal(losses(other, batch), losses(plain, batch))


# fused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_fused_optimizer_learns_the_same(optimizer, device):
    batch = some(8, device=device)
    plain, other = (step_of(convnet().to(device).eval(), optimizer) for _ in range(2))
    assert fused(other) is other
    assert close(
        losses(other, batch, 20), losses(plain, batch, 20), 1e-6 if device.type == "cpu" else 1e-4
    )
    pairs = zip(plain.model.parameters(), other.model.parameters(), strict=True)
    assert all(close(b, a, 1e-5 if device.type == "cpu" else 1e-3) for a, b in pairs)


def test_fused_can_be_asked_for_twice_also_after_updates():
    step, batch = fused(step_of()), some(8)
    step(*batch)
    assert fused(fused(step)) is step


def test_a_fused_adagrad_that_has_made_no_update():
    """It fills its memory when it is built."""
    model, twin = convnet().eval(), convnet().eval()
    step = Step(model, cross_entropy(), torch.optim.Adagrad(model.parameters(), RATE))
    plain = Step(twin, cross_entropy(), torch.optim.Adagrad(twin.parameters(), RATE))
    batch = some(8)
    try:
        fused(step)
    except ValueError as error:
        assert "no fused Adagrad" in str(error)
        return
    assert close(losses(fused(step), batch, 20), losses(plain, batch, 20), 1e-6)


@pytest.mark.parametrize("kind", [torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Adamax])
def test_fused_refuses_what_has_no_kernel_and_changes_nothing(kind):
    model = convnet()
    step = Step(model, cross_entropy(), kind(model.parameters(), 1e-3))
    before = state_of(step)
    with pytest.raises(ValueError, match=f"no fused {kind.__name__}"):
        fused(step)
    assert state_of(step) == before
    losses(step, some(8), 2)


def test_fused_refuses_a_used_optimizer_and_changes_nothing():
    step, batch = step_of(), some(8)
    step(*batch)
    before = state_of(step)
    with pytest.raises(ValueError, match="already made updates"):
        fused(step)
    assert state_of(step) == before


@pytest.mark.parametrize("first", [lambda s: s, fused], ids=["plain", "fused"])
@pytest.mark.parametrize("second", [lambda s: s, fused], ids=["plain", "fused"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_goes_on_in_a_step_built_otherwise(first, second, optimizer, tmp_path):
    """The kernel of the saved run goes on, so the bits are those of the saved run."""
    data, path = a_set(), tmp_path / "c.safetensors"
    torch.manual_seed(7)
    whole = first(step_of(optimizer=optimizer))
    found = []
    for tick in train(whole, data, 2, cosine()):
        found.append(tick.loss.item())
        if tick.i == 3:
            save_checkpoint(path, whole, 4)
    again = second(step_of(optimizer=optimizer))
    done = load_checkpoint(path, again)
    rest = [tick.loss.item() for tick in train(again, data, 2, cosine(), start=done)]
    assert rest == found[4:]
    assert fingerprint(again.model) == fingerprint(whole.model)


def test_a_fused_step_follows_a_schedule():
    plain, other = step_of(convnet().eval()), fused(step_of(convnet().eval()))
    data = a_set(24)
    for part in (plain.model, other.model):
        for layer in part.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    a = fit(plain, data, epochs=2, schedule=one_cycle()).losses
    b = fit(other, data, epochs=2, schedule=one_cycle()).losses
    assert torch.allclose(torch.tensor(a), torch.tensor(b), rtol=1e-4)
    assert other.optimizer.param_groups[0]["lr"] == RATE


def test_a_fused_step_learns_in_groups():
    model = convnet()
    groups = [dict(params=[p], lr=RATE / (i + 1)) for i, p in enumerate(model.parameters())]
    step = fused(Step(model, cross_entropy(), torch.optim.AdamW(groups)))
    assert all(g["fused"] for g in step.optimizer.param_groups)
    step(*some(8))


# compiled -----------------------------------------------------------------------------------


@pytest.fixture
def compiler():
    """The compiler begins and ends with nothing in its memory."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_step_learns_the_same_and_saves_the_same_names(backend, compiler, tmp_path):
    batch = some(8)
    plain, other = step_of(convnet().eval()), step_of(convnet().eval())
    names = list(plain.model.state_dict())
    assert compiled(other, backend=backend) is other
    assert close(losses(other, batch), losses(plain, batch), 1e-5)
    assert list(other.model.state_dict()) == names
    path = tmp_path / "w.safetensors"
    save_weights(path, other.model.state_dict(), {})
    loaded = convnet()
    loaded.load_state_dict(load_weights(path)[0])
    assert fingerprint(loaded) == fingerprint(other.model)
    compiled(other, backend=backend)
    losses(other, batch, 2)


@pytest.mark.filterwarnings("ignore")
def test_what_is_unfrozen_after_compiling_learns(compiler):
    model, batch = convnet(), some(8)
    freeze(model[0])
    step = compiled(step_of(model, "plain sgd"), backend="aot_eager")
    train_mode(step.modules)
    losses(step, batch, 2)
    unfreeze(model)
    step = step_of(model, "plain sgd")
    train_mode(step.modules)
    before = [p.detach().clone() for p in model.parameters()]
    losses(step, batch, 2)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters()))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_evaluated_copied_and_cached(compiler):
    step = compiled(step_of(convnet().eval()), backend="eager")
    data = a_set(shuffle=False)
    step(*some(8))
    assert torch.equal(predict(step.model, data), predict(copy.deepcopy(step.model), data))


# one launch ---------------------------------------------------------------------------------


def memory(step):
    """Where everything lies that a recording of an update reads and writes."""
    optimizer = step.optimizer
    state = [optimizer.state[p] for g in optimizer.param_groups for p in g["params"]]
    tensors = [*step.modules.parameters(), *step.modules.buffers()]
    tensors += [t for s in state for _, t in sorted(s.items())]
    tensors += [g["lr"] for g in optimizer.param_groups]
    return [t.data_ptr() if isinstance(t, torch.Tensor) else t for t in tensors]


@pytest.fixture
def recorder(monkeypatch):
    """In the place of a GPU's: runs the function again, if the memory it knows is still in use."""

    def recorded(function, device):
        for _ in range(3):
            function()
        step, outputs = inspect.getclosurevars(function).nonlocals["self"], function()
        known, settings = memory(step), speed._fixed(step.optimizer)
        recorded.replays = 0

        def replay():
            recorded.replays += 1
            assert memory(step) == known, "a recording would write to memory that nobody reads"
            assert speed._fixed(step.optimizer) == settings
            for output, new in zip(outputs, function(), strict=True):
                output.copy_(new)

        return outputs, replay

    monkeypatch.setattr(speed, "_RECORDABLE", {"cpu", "cuda"})
    monkeypatch.setattr(speed, "_recorded", recorded)
    return recorded


def with_tensor_rates(step):
    """The plain twin of a recorded step: fused, with its rates in float32."""
    for group in fused(step).optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
    return step


def run(step, data, epochs=2, schedule=None, start=0):
    torch.manual_seed(11)
    return [tick.loss for tick in train(step, data, epochs, schedule, start)]


@pytest.mark.parametrize("schedule", [None, cosine(0.7, 0.1)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_recorded_step_is_the_plain_one_to_the_bit(optimizer, schedule, recorder):
    """Batch normalisation, dropout, a smaller last batch, and losses that nothing overwrites."""
    data = a_set(20)
    plain, other = with_tensor_rates(step_of(optimizer=optimizer)), step_of(optimizer=optimizer)
    other = graphed(other, *next(data.batches()))
    expected, found = run(plain, data, schedule=schedule), run(other, data, schedule=schedule)
    assert recorder.replays == 4
    assert torch.stack(found).tolist() == torch.stack(expected).tolist()
    assert state_of(other)[:3] == state_of(plain)[:3]
    assert [float(g["lr"]) for g in other.optimizer.param_groups] == [RATE]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_recording_moves_nothing(optimizer, recorder):
    step = step_of(optimizer=optimizer)
    freeze(step.model[0])
    step = step_of(step.model, optimizer)
    step.model.eval()
    batch = some(8)
    before = fingerprint(step.modules), [m.training for m in step.modules.modules()]
    random = torch.get_rng_state()
    other = graphed(step, *batch)
    assert (fingerprint(step.modules), [m.training for m in step.modules.modules()]) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in step.modules.parameters())
    assert not any(t.any() for s in other.optimizer.state.values() for t in s.values())
    assert float(other.optimizer.param_groups[0]["lr"]) == RATE


def test_a_recorded_step_with_a_frozen_part(recorder):
    data = a_set(20)
    steps = []
    for make in (with_tensor_rates, lambda s: graphed(s, *next(data.batches()))):
        model = convnet()
        freeze(model[0])
        steps.append(make(step_of(model)))
    before = fingerprint(steps[1].model[0])
    expected, found = run(steps[0], data), run(steps[1], data)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert fingerprint(steps[1].model[0]) == before


class Weighted(nn.Module):
    """An objective that learns a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model, x, y):
        z = model(x)
        return F.cross_entropy(self.scale * z, y), z


def test_a_recorded_objective_learns_and_is_put_back(recorder):
    data = a_set(20)
    plain = with_tensor_rates(step_of(objective=Weighted()))
    other = graphed(step_of(objective=Weighted()), *next(data.batches()))
    assert other.objective.scale == 1
    assert torch.equal(torch.stack(run(other, data)), torch.stack(run(plain, data)))
    assert torch.equal(other.objective.scale, plain.objective.scale) and other.objective.scale != 1


def test_hooks_run_once_after_every_update_and_not_while_recording(recorder):
    seen, means = [], {}
    step = step_of()

    def mean():
        seen.append(1)
        for name, p in step.model.named_parameters():
            means[name] = 0.5 * means.get(name, p.detach().clone()) + 0.5 * p.detach()

    step.after = (mean,)
    data = a_set(20)
    other = graphed(step, *next(data.batches()))
    assert not seen
    run(other, data)
    assert len(seen) == 6
    plain = with_tensor_rates(step_of())
    expected = {n: p.detach().clone() for n, p in plain.model.named_parameters()}
    expected = {}
    torch.manual_seed(11)
    for _ in train(plain, data, 2):
        for name, p in plain.model.named_parameters():
            expected[name] = 0.5 * expected.get(name, p.detach().clone()) + 0.5 * p.detach()
    assert all(torch.equal(means[name], expected[name]) for name in expected)


def test_a_momentum_that_moves_is_refused_before_the_update(recorder):
    data = a_set(20)
    other, plain = graphed(step_of(), *next(data.batches())), with_tensor_rates(step_of())
    torch.manual_seed(11)
    done = 0
    with pytest.raises(ValueError, match="Something else than the learning rate has moved"):
        for _ in train(other, data, 2, one_cycle(momentum=0.8)):
            done += 1
    torch.manual_seed(11)
    updates = train(plain, data, 2, one_cycle(momentum=0.8))
    for _ in range(done):
        next(updates)
    assert fingerprint(other.model) == fingerprint(plain.model)
    losses(other, some(8), 2)  # its own momentum is back


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (torch.optim.RMSprop, {}, "A recorded RMSprop"),
        (torch.optim.NAdam, {}, "A recorded NAdam"),
        (torch.optim.Adagrad, {}, "A recorded Adagrad"),
        (torch.optim.SGD, dict(momentum=0.9, dampening=0.1), "SGD without dampening"),
    ],
)
def test_recording_refuses_optimizers_and_changes_nothing(kind, settings, says, recorder):
    model = convnet()
    step, batch = Step(model, cross_entropy(), kind(model.parameters(), 1e-3, **settings)), some(8)
    before = state_of(step)
    with pytest.raises(ValueError, match=says):
        graphed(step, *batch)
    assert state_of(step) == before


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_recording_a_used_step_keeps_the_optimizers_memory(optimizer, recorder):
    batch = some(8)
    plain, step = (with_tensor_rates(step_of(convnet().eval(), optimizer)) for _ in range(2))
    losses(plain, batch, 3), losses(step, batch, 3)
    before = state_of(step)
    other = graphed(step, *batch)
    assert state_of(other)[:5] == before[:5]
    assert torch.equal(losses(other, batch), losses(plain, batch))
    assert recorder.replays == 5 and state_of(other)[:2] == state_of(plain)[:2]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_recording_a_used_step_that_was_not_fused_keeps_its_memory(optimizer, recorder):
    batch = some(8)
    plain, step = (step_of(convnet().eval(), optimizer) for _ in range(2))
    losses(plain, batch, 3), losses(step, batch, 3)
    before = state_of(step)
    other = graphed(step, *batch)
    assert state_of(other)[:5] == before[:5]
    assert close(losses(other, batch), losses(plain, batch), 1e-4)
    assert recorder.replays == 5


def test_what_fails_while_recording_a_used_step_keeps_its_memory(recorder):
    step, batch = step_of(), some(8)
    losses(step, batch, 3)
    before, calls = state_of(step), []

    def broken(model, x, y):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("mine")
        return cross_entropy()(model, x, y)

    step.objective = broken
    with pytest.raises(KeyError):
        graphed(step, *batch)
    assert state_of(step) == before


def test_recording_refuses_a_cpu_and_no_batch():
    for batch in ((), some(8)):
        step = step_of()
        before = state_of(step)
        with pytest.raises(ValueError, match="A CUDA graph needs a GPU"):
            graphed(step, *batch)
        assert state_of(step) == before


def test_recording_refuses_a_step_that_is_not_one_pass(recorder):
    """A recording of `accumulate` would take the whole batch at once."""
    model = convnet()
    freeze(model[0]), freeze(model[1])
    with pytest.raises(ValueError, match="Only a plain Step can be recorded, .* accumulate"):
        graphed(accumulate(step_of(model), 2), *some(8))


def test_recording_refuses_a_step_of_ones_own_and_changes_nothing(recorder):
    class Own(Step):
        def __call__(self, *batch):
            return super().__call__(*batch)

    model = convnet()
    step = Own(model, cross_entropy(), torch.optim.AdamW(model.parameters(), RATE))
    batch = some(8)
    before = state_of(step)
    with pytest.raises(ValueError, match="Only a plain Step can be recorded, and this is Own"):
        graphed(step, *batch)
    assert state_of(step) == before


def test_a_batch_of_another_shape_runs_unrecorded(recorder):
    other, plain = graphed(step_of(), *some(8)), with_tensor_rates(step_of())
    for size, replays in ((8, 1), (5, 1), (12, 1), (8, 2)):
        found = []
        for step in (other, plain):
            train_mode(step.modules)
            torch.manual_seed(size)
            found.append(step(*some(size)))
        assert recorder.replays == replays and len(found[0][1]) == size
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert state_of(other)[:2] == state_of(plain)[:2]


def test_what_fails_while_recording_leaves_the_step_as_it_was(recorder):
    model = convnet()
    model.unused = nn.Linear(2, 2)
    model.forward = lambda x: nn.Sequential.forward(model[:4], x)
    step, batch = step_of(model), some(8)
    before = state_of(step)[:5]
    with pytest.raises(ValueError, match="'unused.weight' is trainable but took no part"):
        graphed(step, *batch)
    assert state_of(step)[:5] == before


def test_a_batch_of_another_type_is_not_squeezed_into_the_example(recorder):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))

    def objective(model, x, y):
        z = model(x.float())
        return F.cross_entropy(z, y), z

    x, y = some(8)
    other = graphed(step_of(model, objective=objective), (x * 10).to(torch.uint8), y)
    twin = copy.deepcopy(model)
    expected = objective(twin, x.sigmoid(), y)[0]
    assert torch.equal(other(x.sigmoid(), y)[0], expected.detach())


@pytest.mark.parametrize("first", ["recorded", "plain"])
@pytest.mark.parametrize("second", ["recorded", "plain"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_goes_on_in_a_recorded_step(first, second, optimizer, recorder, tmp_path):
    """A recording knows the optimizer's memory by its place: what is loaded has to go there."""
    data, path = a_set(20), tmp_path / "c.safetensors"
    make = {"recorded": lambda s: graphed(s, *next(data.batches())), "plain": with_tensor_rates}
    whole, found = make[first](step_of(optimizer=optimizer)), []
    torch.manual_seed(11)
    for tick in train(whole, data, 2, cosine()):
        found.append(tick.loss)
        if tick.i == 3:
            save_checkpoint(path, whole, 4)
    again = make[second](step_of(optimizer=optimizer))
    done = load_checkpoint(path, again)
    rest = [tick.loss for tick in train(again, data, 2, cosine(), start=done)]
    assert torch.stack(rest).tolist() == torch.stack(found[4:]).tolist()
    assert fingerprint(again.model) == fingerprint(whole.model)


def test_a_checkpoint_of_a_plain_run_goes_on_in_a_recorded_step(recorder, tmp_path):
    data, path = a_set(20), tmp_path / "c.safetensors"
    whole, found = step_of(), []
    torch.manual_seed(11)
    for tick in train(whole, data, 2):
        found.append(tick.loss)
        if tick.i == 3:
            save_checkpoint(path, whole, 4)
    again = graphed(step_of(), *next(data.batches()))
    rest = [t.loss for t in train(again, data, 2, start=load_checkpoint(path, again))]
    assert torch.allclose(torch.stack(rest), torch.stack(found[4:]), rtol=1e-5)


def test_after_numbers_broke_a_recorded_optimizer_starts_afresh(recorder):
    data = a_set(20, shuffle=False)
    other = graphed(step_of(), *next(data.batches()))
    broken = data.like(
        data.columns[0].clone().index_fill_(0, torch.tensor([9]), math.nan), data.columns[1]
    )
    with pytest.raises(FloatingPointError):
        fit(other, broken)
    plain = with_tensor_rates(step_of())
    assert torch.equal(torch.stack(run(other, data)), torch.stack(run(plain, data)))


def test_after_numbers_broke_a_batch_of_another_shape_may_come_first(recorder):
    """It fills the optimizer's memory anew, and the recording knows the old one."""
    other, plain = graphed(step_of(), *some(8)), with_tensor_rates(step_of())
    for step in (other, plain):
        torch.manual_seed(2)
        train_mode(step.modules)
        losses(step, some(8), 2)
        step.optimizer.state.clear()  # as `fit` does
        step(*some(5))
        losses(step, some(8), 2)
    assert state_of(other)[:2] == state_of(plain)[:2]


def test_a_range_test_leaves_a_recorded_step_as_it_was(recorder):
    data = a_set(20)
    other, plain = graphed(step_of(), *next(data.batches())), with_tensor_rates(step_of())
    lr_find(other, data, updates=10)
    assert torch.equal(torch.stack(run(other, data)), torch.stack(run(plain, data)))


def test_recorded_groups_follow_their_own_schedules_in_sixteen_bits(recorder):
    data, steps = a_set(20), []
    for make in (with_tensor_rates, lambda s: graphed(s, *next(data.batches()))):
        model = convnet()
        groups = [
            dict(params=[*model[0].parameters()], lr=RATE / 4, schedule=cosine()),
            dict(params=[*model[1].parameters(), *model[3].parameters()], lr=RATE),
        ]
        optimizer = torch.optim.AdamW(groups)
        steps.append(make(Step(model, cross_entropy(), optimizer, amp=bf16("cpu"))))
    expected, found = (run(step, data, schedule=cosine(1, 0.5)) for step in steps)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert [float(g["lr"]) for g in steps[1].optimizer.param_groups] == [RATE / 4, RATE]


def test_slices_of_a_recorded_step_are_taken_unrecorded(recorder):
    model, batch = convnet(), some(8)
    freeze(model[0]), freeze(model[1])
    twin = copy.deepcopy(model)
    other = accumulate(graphed(step_of(model), *batch), 2)
    plain = accumulate(with_tensor_rates(step_of(twin)), 2)
    train_mode(model), train_mode(twin)
    assert torch.equal(losses(other, batch), losses(plain, batch))


def test_a_plan_moves_no_rate_of_a_recorded_step(recorder):
    data = a_set(20)
    other = graphed(step_of(), *next(data.batches()))
    rates = plan(other, data, 2, cosine())
    assert [len(rates.lr), rates.lr[0], float(other.optimizer.param_groups[0]["lr"])] == [
        6,
        (RATE,),
        RATE,
    ]


def test_fit_with_a_recorded_step(recorder):
    data = a_set(20)
    histories = []
    for make in (with_tensor_rates, lambda s: graphed(s, *next(data.batches()))):
        step = make(step_of())
        torch.manual_seed(11)
        histories.append(fit(step, data, a_set(16), epochs=2, schedule=cosine()))
        assert not step.model.training
    assert histories[0].losses == histories[1].losses
    assert [r["score"] for r in histories[0].rows] == [r["score"] for r in histories[1].rows]


def test_a_recorded_update_asks_for_nothing(recorder):
    other = graphed(step_of(), *some(8))
    assert device_reads(other, *some(8)) == []


def test_recording_twice_is_refused_or_right(recorder):
    batch = some(8)
    try:
        other = graphed(graphed(step_of(), *batch), *batch)
    except ValueError as error:
        assert "recorded" in str(error)
        return
    plain = with_tensor_rates(step_of())
    torch.manual_seed(0)
    found = losses(other, batch)
    torch.manual_seed(0)
    train_mode(plain.modules)
    assert torch.equal(found, losses(plain, batch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_cuda_graph_learns_as_the_plain_step(optimizer):
    x, y = some(20, device="cuda")
    data = Columns(x, y, batch_size=8, shuffle=True, seed=3)
    plain, other = (step_of(convnet().cuda(), optimizer) for _ in range(2))
    for part in [*plain.model.modules(), *other.model.modules()]:
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    other = graphed(other, *next(data.batches()))
    expected, found = run(plain, data, schedule=cosine()), run(other, data, schedule=cosine())
    assert close(torch.stack(found), torch.stack(expected), 1e-4)


# recomputing --------------------------------------------------------------------------------


def gradients(model, x, y, seed=3):
    model.zero_grad()
    torch.manual_seed(seed)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], [b.clone() for b in model.buffers()]


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


def names_of(model):
    """What is recomputed by default: all stages but the last."""
    return [name for name, _ in stages(model)[:-1]]


@pytest.mark.parametrize("amp", [contextlib.nullcontext, lambda: bf16("cpu")], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_recomputing_gives_the_same_bits(family, amp):
    """Losses, gradients, batch statistics and the counters of batches; dropout, two updates."""
    torch.manual_seed(0)
    model = FAMILIES[family]().train()
    twin = copy.deepcopy(model)
    names = list(model.state_dict())
    assert gradient_checkpointing(model) is model
    assert list(model.state_dict()) == names
    torch.manual_seed(1)
    batch = torch.randn(4, 3, 32, 32), torch.arange(4)
    one, other = step_of(model, amp=amp()), step_of(twin, amp=amp())
    torch.manual_seed(2)
    found = losses(one, batch, 2)
    torch.manual_seed(2)
    assert torch.equal(found, losses(other, batch, 2))
    assert fingerprint(model) == fingerprint(twin)
    one, other = (gradients(m, *batch) for m in (model, twin))
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1]) and equal(one[2], other[2])
    assert equal([model.eval()(batch[0])], [twin.eval()(batch[0])])


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("efficientnet_b0", 32), ("mobilenet_v3_small", 32), ("densenet121", 32)],
)
def test_recomputing_in_torchvisions_models(name, size):
    """In-place activations, stochastic depth, dropout, concatenation."""
    import torchvision

    torch.manual_seed(0)
    settings = dict(num_classes=5)
    if name == "densenet121":
        settings |= dict(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8)
        model = torchvision.models.DenseNet(**settings).train()
    else:
        model = getattr(torchvision.models, name)(**settings).train()
    twin = gradient_checkpointing(copy.deepcopy(model))
    batch = torch.randn(3, 3, size, size), torch.arange(3)
    one, other = gradients(model, *batch), gradients(twin, *batch)
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1]) and equal(one[2], other[2])


def test_what_is_recomputed_runs_twice_in_training_and_once_in_evaluation():
    model, runs = convnet(), []
    for i in (0, 1, 3):
        model[i].register_forward_pre_hook(lambda *a, i=i: None)
        for part in model[i].modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                part.register_forward_pre_hook(lambda *a, i=i: runs.append(i))
    gradient_checkpointing(model, ["0", "1"])
    x, y = some(4)
    gradients(model.train(), x, y)
    assert runs == [0, 1, 3, 1, 0]
    runs.clear()
    with inference(model):
        model(x)
    assert runs == [0, 1, 3]
    runs.clear()
    freeze(model[0])
    gradients(train_mode(model), x, y)
    assert runs == [0, 1, 3, 1]


def test_less_is_kept_for_the_way_back():
    def kept(model):
        own, sizes = {p.data_ptr() for p in model.parameters()}, {}
        note = lambda t: sizes.setdefault(t.data_ptr(), t.nbytes) and t
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            out = model(torch.ones(4, 3, 32, 32)).sum()
        out.backward()
        return sum(n for at, n in sizes.items() if at not in own)

    torch.manual_seed(0)
    model = small_resnet()
    assert kept(gradient_checkpointing(copy.deepcopy(model))) < 0.75 * kept(model)


def test_a_recomputed_stage_is_still_what_it_was():
    model = gradient_checkpointing(small_resnet())
    layer = model.layer1
    assert isinstance(layer, nn.Sequential) and type(layer).__name__ == "Sequential"
    assert "Recomputed" not in repr(model) and len(layer) == 1
    kind = type(layer)
    gradient_checkpointing(model, ["layer1"])
    assert type(layer) is kind


def test_the_default_can_be_asked_for_twice():
    model = gradient_checkpointing(small_resnet())
    kinds = [type(m) for m in model.modules()]
    gradient_checkpointing(model)
    assert [type(m) for m in model.modules()] == kinds


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recomputed_model_has_the_same_stages_and_can_be_split(family):
    torch.manual_seed(0)
    model = FAMILIES[family]()
    names = [name for name, _ in stages(model)]
    x = torch.randn(2, 3, 32, 32)
    expected = model.eval()(x)
    gradient_checkpointing(model)
    assert [name for name, _ in stages(model)] == names
    body, head = split(model, names[-2])
    assert torch.allclose(head(body(x)), expected, atol=1e-6)


def test_the_parts_of_a_split_are_recomputed():
    torch.manual_seed(0)
    model = small_resnet().train()
    twin = copy.deepcopy(model)
    gradient_checkpointing(model, ["layer3"])
    body, rest = split(model, "layer2")
    batch = torch.randn(3, 3, 32, 32), torch.arange(3)
    one, other = gradients(nn.Sequential(body, rest), *batch), gradients(twin, *batch)
    assert torch.equal(one[0], other[0])
    assert {g.sum().item() for g in one[1]} == {g.sum().item() for g in other[1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_of_a_recomputed_model_is_its_own(family):
    torch.manual_seed(0)
    model = gradient_checkpointing(FAMILIES[family]()).train()
    twin = copy.deepcopy(model)
    assert {id(t) for t in model.parameters()}.isdisjoint({id(t) for t in twin.parameters()})
    before, batch = fingerprint(model), (torch.randn(3, 3, 32, 32), torch.arange(3))
    one = gradients(twin, *batch)
    assert fingerprint(model) == before
    other = gradients(model, *batch)
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1]) and equal(one[2], other[2])


def test_a_recomputed_model_can_be_pickled():
    import io

    model, file = gradient_checkpointing(small_resnet()), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert fingerprint(torch.load(file, weights_only=False)) == fingerprint(model)


def test_a_stage_that_is_called_twice_is_put_back_to_where_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
    twin = gradient_checkpointing(nn.Sequential(copy.deepcopy(model)), ["0"])
    x = torch.randn(4, 3, 6, 6)
    for part in (model, twin):
        part(part(x)).sum().backward()
    assert equal([*model.buffers()], [*twin.buffers()])
    assert equal([p.grad for p in model.parameters()], [p.grad for p in twin.parameters()])


def test_statistics_that_the_way_forth_uses_are_those_of_the_way_forth():
    """Spectral normalisation moves a vector in every pass, and divides by what it gives."""
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    model = nn.Sequential(nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU()), nn.Linear(5, 3)).train()
    twin = gradient_checkpointing(copy.deepcopy(model), ["0"])
    x, y = torch.randn(4, 6), torch.arange(4) % 3
    one, other = gradients(model, x, y), gradients(twin, x, y)
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1]) and equal(one[2], other[2])


class Named(nn.Module):
    """A stage that is called with names, and one that answers with two tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Scaled(), nn.Linear(4, 3)

    def forward(self, x):
        h, _ = self.first(x, factor=2.0)
        return self.second(h)


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)

    def forward(self, x, factor=1.0):
        h = super().forward(x) * factor
        return h.relu(), h


def test_a_stage_may_be_called_with_names_and_answer_with_several_tensors():
    torch.manual_seed(0)
    model = Named()
    twin = gradient_checkpointing(copy.deepcopy(model), ["first"])
    x, y = torch.randn(4, 4), torch.arange(4) % 3
    one, other = gradients(model, x, y), gradients(twin, x, y)
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1])


def test_an_input_that_is_changed_in_place_gives_an_error_or_the_same_bits():
    """What a stage keeps is its input; whoever writes on it changes what is computed again."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = torch.tanh(self.first(x)) * 1.0
            branch = self.second(h)
            h += branch
            return h

    for model, name in (
        (
            nn.Sequential(
                nn.Linear(4, 4), nn.Sequential(nn.Hardswish(inplace=True), nn.Linear(4, 3))
            ),
            "1",
        ),
        (Residual(), "second"),
    ):
        torch.manual_seed(0)
        x, y = torch.randn(4, 4), torch.arange(4) % 3
        twin = gradient_checkpointing(copy.deepcopy(model), [name])
        try:
            expected = gradients(model, x, y)
        except RuntimeError:  # torch refuses the plain one
            expected = None
        try:
            found = gradients(twin, x, y)
        except (RuntimeError, ValueError):
            continue
        assert expected and equal(found[1], expected[1])


def test_wrong_names_are_refused_in_short_and_nothing_is_changed():
    model = small_resnet()
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(ValueError, match="no module 'layer9'") as caught:
        gradient_checkpointing(model, ["layer1", "layer9"])
    assert len(str(caught.value)) < 400 and "layer" in str(caught.value).split("layer9")[1]
    assert [type(m) for m in model.modules()] == kinds
    with pytest.raises((TypeError, ValueError), match="layer1|list"):
        gradient_checkpointing(small_resnet(), "layer1")


def test_nested_names_recompute_too():
    torch.manual_seed(0)
    model = small_resnet().train()
    twin = gradient_checkpointing(copy.deepcopy(model), ["layer1", "layer1.0", ""])
    batch = torch.randn(3, 3, 32, 32), torch.arange(3)
    one, other = gradients(model, *batch), gradients(twin, *batch)
    assert torch.equal(one[0], other[0]) and equal(one[1], other[1]) and equal(one[2], other[2])


@pytest.mark.filterwarnings("ignore")
def test_a_recomputed_model_can_be_compiled(compiler):
    batch = some(8)
    plain, other = step_of(), step_of()
    for part in [*plain.model.modules(), *other.model.modules()]:
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    gradient_checkpointing(other.model, ["0", "1"])
    compiled(other, backend="aot_eager")
    assert close(losses(other, batch), losses(plain, batch), 1e-5)
    for a, b in zip(plain.model.buffers(), other.model.buffers(), strict=True):
        assert close(b, a, 1e-5)


def test_a_recomputed_model_is_recorded(recorder):
    data = a_set(20)
    plain, other = with_tensor_rates(step_of()), step_of()
    gradient_checkpointing(other.model, ["0", "1"])
    other = graphed(other, *next(data.batches()))
    assert torch.equal(torch.stack(run(other, data)), torch.stack(run(plain, data)))
    assert fingerprint(other.model) == fingerprint(plain.model)


# data ---------------------------------------------------------------------------------------


def all_equal(one, other):
    pairs = list(zip(one, other, strict=True))
    return len(pairs) > 0 and all(
        torch.equal(a, b) and a.dtype == b.dtype
        for p, q in pairs
        for a, b in zip(p, q, strict=True)
    )


def photos(folder, kind=Streamed, **settings):
    """Six pictures of 8 by 8 in files."""
    from PIL import Image

    torch.manual_seed(0)
    files = []
    for i in range(6):
        pixels = torch.randint(0, 255, (8, 8, 3), dtype=torch.uint8).numpy()
        files.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(files[-1])
    look = Preprocess(resize=8, crop=8)
    return kind(torch.arange(6), torch.arange(6) % 2, files=files, preprocess=look, **settings)


def sets(folder):
    x, y = some(21)
    disk = np.memmap(folder / "x.bin", "float32", "w+", shape=tuple(x.shape))
    disk[:] = x.numpy()
    bytes_ = (x.abs() * 50).to(torch.uint8)
    return {
        "in order": Columns(x, y, batch_size=8),
        "shuffled": Columns(x, y, batch_size=5, shuffle=True, seed=4),
        "one left over": Columns(x, y, batch_size=4, shuffle=True),
        "whole": Columns(x, y, x[:, 0], batch_size=100),
        "from disk": Columns(disk, y, batch_size=8, shuffle=True),
        "streamed": photos(folder, batch_size=4, shuffle=True),
        "augmented": augment(Columns(bytes_, y, batch_size=8, shuffle=True), Flip()),
        "features": cache(freeze(nn.Flatten()), Columns(x, y, batch_size=8), dtype=torch.float16),
    }


KINDS = "in order,shuffled,one left over,whole,from disk,streamed,augmented,features".split(",")


@pytest.mark.parametrize("kind", KINDS)
def test_prefetched_batches_are_those_of_the_set(kind, tmp_path, device):
    data = sets(tmp_path)[kind]
    ahead = prefetched(data, device)
    on = lambda batches: [tuple(c.cpu() for c in batch) for batch in batches]
    assert isinstance(ahead, Prefetched) and len(ahead) == len(data) and ahead.steps == data.steps
    assert ahead.batch_size == data.batch_size and ahead.shuffle == data.shuffle
    for epoch in (0, 1, 3):
        assert all_equal(on(ahead.batches(epoch)), data.batches(epoch))
    if data.steps > 1:
        assert all_equal(on(ahead.batches(2, 1)), data.batches(2, 1))
    assert list(ahead.batches(0, data.steps)) == []
    assert all(c.device.type == device.type for batch in ahead.batches() for c in batch)
    assert all_equal(on(ahead.in_order().batches()), data.in_order().batches())
    rows = torch.tensor([3, 0, 5])
    assert all_equal(on(ahead.take(rows).batches()), data.take(rows).batches())
    other = ahead.like(batch_size=3, seed=9)
    assert isinstance(other, Prefetched) and other.device.type == device.type
    assert all_equal(on(other.batches(1)), data.like(batch_size=3, seed=9).batches(1))
    with pytest.raises(TypeError, match="no setting 'size'"):
        ahead.like(size=3)
    assert getattr(ahead, "constant", True) == getattr(data, "constant", True)
    assert all_equal(on(ahead.to(device).batches(1)), data.batches(1))
    assert not isinstance(ahead.to("cpu"), Prefetched)


def test_prefetched_twice_and_with_other_columns():
    data = a_set(20)
    ahead = prefetched(prefetched(data))
    assert all_equal(ahead.batches(1), data.batches(1))
    other = ahead.like(data.columns[0] * 2, data.columns[1])
    assert all_equal(other.batches(), data.like(data.columns[0] * 2, data.columns[1]).batches())


def test_one_batch_is_asked_for_ahead_and_no_more():
    asked = []

    class Noted(Columns):
        def batches(self, epoch=0, start=0):
            for i, batch in enumerate(super().batches(epoch, start)):
                asked.append(i)
                yield batch

    batches = prefetched(Noted(*some(20), batch_size=5), "cpu").batches()
    assert asked == []
    next(batches)
    assert asked == [0, 1]
    next(batches)
    assert asked == [0, 1, 2]
    batches.close()
    assert asked == [0, 1, 2]


def test_prefetched_says_where_batches_arrive_and_what_is_behind_it(tmp_path):
    data = a_set(20)
    words = repr(prefetched(data, "cpu"))
    assert "refetched" in words and "20 examples of float32 (3, 8, 8), int64 ()" in words
    assert "6 files" in repr(prefetched(photos(tmp_path), "cpu"))
    assert prefetched(data, "meta").device == torch.device("meta")
    assert next(prefetched(data, "meta").batches())[0].device.type == "meta"
    assert data.device.type == "cpu"


def test_prefetched_augmented_on_the_device_is_on_the_device():
    """`fit` keeps its losses where the set says that its batches are; elsewhere, it would wait."""
    data = augment(prefetched(a_set(20), "meta"), Flip())
    assert data.device == next(data.batches())[0].device


@pytest.mark.parametrize("quiet", [False, True])
def test_a_prefetched_test_set_counts_each_read_once_and_says_so(quiet, capsys):
    model = freeze(convnet())
    held = HeldOut(*some(20), batch_size=8, quiet=quiet)
    ahead = prefetched(held, "cpu")
    score = evaluate(model, ahead)
    said = capsys.readouterr().out
    assert held.reads == 1
    assert said == (
        "" if quiet else f"held-out score {score:.3f} (this test set was read 1 time)\n"
    )
    predict(model, ahead)
    evaluate(model, held)
    assert held.reads == 3
    assert evaluate(model, ahead.take(slice(0, 8))) >= 0 and held.reads == 4


def test_a_prefetched_test_set_is_still_a_test_set():
    ahead = prefetched(HeldOut(*some(20), batch_size=8), "cpu")
    assert isinstance(ahead, HeldOut) and ahead.reads == 0
    assert isinstance(ahead.in_order(), HeldOut)
    with pytest.raises(ValueError):
        augment(ahead, Flip())


def test_training_on_a_prefetched_set_is_training_on_the_set(capsys):
    data, valid = a_set(20), a_set(16, shuffle=False)
    histories = []
    for use in (lambda d: d, lambda d: prefetched(d, "cpu")):
        torch.manual_seed(11)
        step = step_of()
        histories.append(fit(step, use(data), use(valid), epochs=2, schedule=cosine()))
        histories[-1].bits = fingerprint(step.model)
    assert histories[0].losses == histories[1].losses
    assert histories[0].bits == histories[1].bits
    assert [r["score"] for r in histories[0].rows] == [r["score"] for r in histories[1].rows]


def test_a_run_on_a_prefetched_set_goes_on_in_the_middle_of_an_epoch(tmp_path):
    data, path, found = prefetched(a_set(20), "cpu"), tmp_path / "c.safetensors", []
    whole = step_of()
    torch.manual_seed(11)
    for tick in train(whole, data, 2):
        found.append(tick.loss)
        if tick.i == 3:
            save_checkpoint(path, whole, 4)
    again = step_of()
    rest = [t.loss for t in train(again, data, 2, start=load_checkpoint(path, again))]
    assert torch.equal(torch.stack(rest), torch.stack(found[4:]))


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("append", [False, True])
def test_a_prefetched_set_is_cached_as_the_set(dtype, append):
    body, data = freeze(convnet()[:3].eval()), a_set(20)
    plain, ahead = (
        cache(body, d, append=append, dtype=dtype) for d in (data, prefetched(data, "cpu"))
    )
    assert all_equal(ahead.batches(1), plain.batches(1))
    assert all_equal(ahead.in_order().batches(), plain.in_order().batches())
    rows = torch.tensor([3, 0, 5])
    assert all_equal(ahead.take(rows).batches(), plain.take(rows).batches())
    assert all_equal(ahead.like(batch_size=3).batches(), plain.like(batch_size=3).batches())


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_prefetched_set_is_cached_in_files_as_the_set(dtype, tmp_path):
    body, data = freeze(convnet()[:3].eval()), a_set(20)
    plain = cache(body, data, path=tmp_path / "plain", dtype=dtype)
    for _ in range(2):  # computed, then read
        ahead = cache(body, prefetched(data, "cpu"), path=tmp_path / "ahead", dtype=dtype)
        assert all_equal(ahead.batches(1), plain.batches(1))
        assert all_equal(ahead.in_order().batches(), plain.in_order().batches())
        assert ahead.derived == plain.derived
    held = prefetched(HeldOut(*some(20), batch_size=8, quiet=True), "cpu")
    assert isinstance(cache(body, held, path=tmp_path / "held", dtype=dtype), HeldOut)


@pytest.mark.parametrize("append", [False, True])
def test_a_set_cached_in_sixteen_bits_keeps_them_and_gives_float32(append):
    body, data = freeze(convnet()[:3].eval()), a_set(20)
    plain, ahead = (
        cache(body, d, append=append, amp=bf16("cpu")) for d in (data, prefetched(data, "cpu"))
    )
    at = -1 if append else 0
    for found in (plain, ahead, ahead.in_order(), ahead.take(slice(0, 9))):
        batch = next(found.batches())
        assert found.columns[at].dtype == torch.bfloat16
        assert batch[at].dtype == torch.float32
        assert torch.equal(batch[at], batch[at].bfloat16().float())
    assert all_equal(ahead.batches(1), plain.batches(1))
    with torch.no_grad(), bf16("cpu"):
        expected = torch.cat([body(b[0]) for b in data.in_order().batches()])
    assert expected.dtype == torch.bfloat16 and torch.equal(plain.columns[at], expected)


def test_a_prefetched_set_remembers_what_was_computed():
    body, data = freeze(convnet()[:3].eval()), a_set(20)
    plain, ahead = (cache(body, d) for d in (data, prefetched(data, "cpu")))
    assert ahead.derived == plain.derived != {}
    for change in (lambda d: d.in_order(), lambda d: d.take(slice(0, 9)), lambda d: d.like(seed=1)):
        assert change(ahead).derived == change(plain).derived == plain.derived
    assert data.derived == {}


def test_features_computed_on_the_device_join_labels_that_are_not():
    """As a cache on a GPU does: outputs there, the other columns where the set is."""
    data = prefetched(a_set(20), "meta")
    features = torch.empty(20, 7, device="meta")
    new = data.like(features, *data.columns[1:])
    assert [c.device.type for c in next(new.batches())] == ["meta", "meta"]


def test_prefetched_refuses_what_is_no_set():
    for data in ([1, 2], torch.ones(3), some(4), None):
        with pytest.raises(TypeError, match="prefetched takes a set"):
            prefetched(data)


# what pays ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Set the seconds of each way; every way runs all the same."""

    def of(ways=("plain", "last", "bits", "both"), **seconds):
        order = [seconds.get(name, 1.0) for name in ways]
        calls = []

        def clocked(function):
            function()
            calls.append(1)
            return order[(len(calls) - 1) % len(ways)]

        monkeypatch.setattr(speed, "_clocked", clocked)
        return calls

    return of


def is_last(model):
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels) and bool(
        kernels
    )


def halves(step):
    with step.amp:
        return F.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("seconds", "bits", "last", "says"),
    [
        (dict(), False, False, "as it is"),
        (dict(bits=0.5), True, False, "bfloat16"),
        (dict(last=0.6, both=0.7), False, True, "channels last"),
        (dict(bits=0.5, both=0.4), True, True, "bfloat16, channels last"),
        (dict(last=0.96), False, False, "as it is"),
        (dict(plain=3.0, bits=4.0, last=2.0, both=2.5), False, True, "channels last"),
    ],
)
def test_fast_picks_what_is_measured_to_pay_and_says_so(seconds, bits, last, says, clock, capsys):
    clock(**seconds)
    step, batch = step_of(), some(8)
    assert fast(step, *batch) is step
    said = capsys.readouterr().out
    first, last_way, wide, both = (
        seconds.get("plain", 1.0) / seconds.get(way, 1.0)
        for way in ("plain", "last", "bits", "both")
    )
    assert said.splitlines()[0] == (
        f"{says}: forward and backward, times as fast: as it is {first:.2f}, channels last "
        f"{last_way:.2f}, bfloat16 {wide:.2f}, bfloat16, channels last {both:.2f}"
    )
    assert halves(step) is bits and is_last(step.model) is last
    assert "fused optimizer" in said and step.optimizer.param_groups[0]["fused"]
    losses(step, batch, 2)


@pytest.mark.parametrize(("gain", "pays"), [(1.0, False), (4.0, True)])
def test_fast_without_a_batch_goes_by_the_matrix_product(gain, pays, monkeypatch, capsys):
    monkeypatch.setattr(speed, "_gain", lambda device=None: gain)
    step = fast(step_of())
    assert halves(step) is pays and is_last(step.model) is pays
    assert f"{gain:.1f} times as fast" in capsys.readouterr().out
    flat = fast(step_of(nn.Sequential(nn.Flatten(), nn.Linear(192, 5))))
    assert halves(flat) is pays


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("training", [False, True])
def test_fast_moves_nothing(optimizer, training, clock):
    clock(both=0.1)
    batch = some(8)
    step = step_of(objective=Weighted(), optimizer=optimizer)
    step.modules.train(training)
    before = state_of(step)
    parameters = list(step.modules.parameters())
    fast(step, *batch)
    assert state_of(step)[:5] == before[:5]
    assert all(a is b for a, b in zip(step.modules.parameters(), parameters, strict=True))
    assert step.optimizer.param_groups[0]["lr"] == RATE


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("made", [lambda s: s, fused], ids=["plain", "fused"])
def test_fast_refuses_a_used_step_and_changes_nothing(optimizer, measured, made, clock, capsys):
    clock(both=0.1)
    batch = some(8)
    step = made(step_of(convnet().eval(), optimizer))
    losses(step, batch, 3)
    before, amp = state_of(step), step.amp
    with pytest.raises(ValueError, match="has made updates"):
        fast(step, *batch if measured else ())
    assert state_of(step) == before and step.amp is amp and not is_last(step.model)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("way", [{}, dict(both=0.1)], ids=["as it is", "all"])
def test_fast_on_a_used_step_whose_optimizer_has_no_memory(way, clock):
    """Nothing can be lost there."""
    clock(**way)
    batch = some(8)
    step = step_of(convnet().eval(), "plain sgd")
    losses(step, batch, 3)
    before = state_of(step)
    try:
        fast(step, *batch)
    except ValueError as error:
        assert "has made updates" in str(error)
    assert state_of(step)[:5] == before[:5]


def test_fast_takes_a_new_optimizer_that_fills_its_memory_when_it_is_built(clock):
    clock()
    model = convnet()
    step = Step(model, cross_entropy(), torch.optim.Adagrad(model.parameters(), RATE))
    assert fast(step, *some(8)) is step
    losses(step, some(8), 2)


def test_fast_refuses_other_bits_and_changes_nothing():
    step, batch = step_of(), some(8)
    before = state_of(step)
    for bits in (8, 64, "16", None):
        with pytest.raises(ValueError, match="bits is"):
            fast(step, *batch, bits=bits)
    assert state_of(step) == before


@pytest.mark.parametrize("last", [0.5, 2.0])
def test_fast_in_32_bits_has_two_orders(last, clock, capsys):
    calls = clock(("plain", "last"), last=last)
    step = fast(step_of(), *some(8), bits=32)
    assert len(calls) == 4 and not halves(step) and is_last(step.model) is (last < 1)
    said = capsys.readouterr().out
    assert "bfloat16" not in said and f"as it is 1.00, channels last {1 / last:.2f}" in said


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_fast_in_32_bits_without_a_batch_keeps_float32(gain, monkeypatch):
    monkeypatch.setattr(speed, "_gain", lambda device=None: gain)
    assert not halves(fast(step_of(), bits=32))


@pytest.mark.parametrize("bits", [0.5, 2.0])
def test_fast_keeps_the_order_of_a_model_that_is_channels_last(bits, clock, capsys):
    calls = clock(("plain", "bits"), bits=bits)
    step = step_of()
    channels_last(step.model)
    fast(step, *some(8))
    assert len(calls) == 4 and is_last(step.model) and halves(step) is (bits < 1)
    assert "channels last" not in capsys.readouterr().out


def test_fast_leaves_gradients_that_are_there(clock):
    clock()
    step, batch = step_of(), some(8)
    step.objective(step.model, *batch)[0].backward()
    before = [p.grad.clone() for p in step.model.parameters()]
    fast(step, *batch)
    after = [p.grad for p in step.model.parameters()]
    assert all(g is not None for g in after) and equal(after, before)


def test_fast_a_second_time_chooses_anew(clock):
    clock(both=0.1)
    step, batch = step_of(), some(8)
    fast(step, *batch)
    assert halves(step) and is_last(step.model)
    clock(("plain", "bits"))
    fast(step, *batch)
    assert not halves(step) and is_last(step.model)  # the order is now the user's
    losses(step, batch, 2)


@pytest.mark.parametrize("way", [dict(bits=0.1), dict(last=0.1), dict(both=0.1)])
def test_fast_learns_as_the_plain_step(way, clock):
    clock(**way)
    batch = some(8)
    plain, other = step_of(convnet().eval()), fast(step_of(convnet().eval()), *batch)
    tolerance = 1e-4 if "last" in way else 0.05
    assert close(losses(other, batch), losses(plain, batch), tolerance)


def test_fast_for_a_head_has_two_ways(clock, capsys):
    calls = clock(("plain", "bits"), bits=0.5)
    step = step_of(nn.Linear(16, 5))
    fast(step, torch.randn(64, 16), torch.randint(0, 5, (64,)))
    assert len(calls) == 4 and halves(step)
    assert "channels last" not in capsys.readouterr().out


@pytest.mark.parametrize(("examples", "measured"), [(20, 20), (32, 32), (40, 32)])
def test_fast_measures_on_32_examples_at_most_in_the_mode_of_training(examples, measured):
    seen = []
    model = convnet().eval()
    model.register_forward_pre_hook(lambda m, inputs: seen.append((len(inputs[0]), m.training)))
    fast(step_of(model), *some(examples))
    turns, rest = divmod(len(seen), 4)  # four ways
    assert rest == 0 and 2 <= turns <= 7
    assert set(seen) == {(measured, True)}


@pytest.mark.parametrize(
    ("each", "turns"), [(0.001, 7), (0.04, 7), (0.07, 4), (0.1, 3), (0.13, 2), (1.0, 2), (60.0, 2)]
)
def test_fast_takes_turns_for_a_second_or_seven_times_and_twice_at_least(each, turns, clock):
    calls = clock(plain=each, last=each, bits=each, both=each)
    fast(step_of(), *some(8))
    assert len(calls) == 4 * turns


@pytest.mark.parametrize("hit", range(4))
def test_fast_is_not_misled_by_what_hits_one_way_for_some_turns(hit, monkeypatch):
    """The best of a way's turns counts, whichever way the disturbed turns were of."""
    calls, true = [], (0.02, 0.016, 0.012, 0.01)

    def disturbed(function):
        function()
        turn, way = divmod(len(calls), 4)
        calls.append(way)
        return true[way] * (5 if way == hit and turn < 6 else 1)

    monkeypatch.setattr(speed, "_clocked", disturbed)
    step = fast(step_of(), *some(8))
    assert halves(step) and is_last(step.model)


def test_fast_with_frozen_parts_bytes_and_a_schedule(clock):
    clock(both=0.1)
    torch.manual_seed(0)
    model = glyphnet(5, None, widths=(4, 8, 8))
    freeze(model.layer1)
    step = step_of(model)
    x = torch.randint(0, 17, (24, 1, 8, 8), dtype=torch.uint8)
    data = Columns(x, torch.arange(24) % 5, batch_size=8, shuffle=True)
    before = fingerprint(model.layer1)
    step = fast(step, *next(data.batches()))
    history = fit(step, data, data, epochs=2, schedule=one_cycle(), report=False)
    assert fingerprint(model.layer1) == before
    assert all(map(math.isfinite, history.losses))


def test_fast_of_slices_still_takes_slices(clock):
    clock(both=0.1)
    model, sizes = convnet(), []
    freeze(model[0]), freeze(model[1])
    step = fast(accumulate(step_of(model), 4), *some(8))
    assert isinstance(step, accumulate)
    model.register_forward_pre_hook(lambda m, inputs: sizes.append(len(inputs[0])))
    step(*some(8))
    assert sizes == [2, 2, 2, 2]


def test_fast_with_one_example_says_what_is_wrong_or_measures():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, 5))
    step = step_of(model)
    before = state_of(step)[:5]
    batch = some(1)
    torch.set_rng_state(torch.tensor(before[4], dtype=torch.uint8))
    try:
        fast(step, *batch)
    except ValueError as error:
        assert "\n" not in str(error)
    assert state_of(step)[:5] == before
    assert isinstance(step.amp, (contextlib.nullcontext, torch.autocast))


def test_what_fails_while_measuring_leaves_the_step_as_it_was():
    step, batch = step_of(), some(8)
    mine = step.amp = contextlib.nullcontext()
    order = [p.stride() for p in step.model.parameters()]
    before, calls = state_of(step), []

    def broken(model, x, y):
        calls.append(1)
        if len(calls) == 4:
            raise KeyError("mine")
        return cross_entropy()(model, x, y)

    step.objective = broken
    with pytest.raises(KeyError):
        fast(step, *batch)
    assert state_of(step) == before and step.amp is mine
    assert [p.stride() for p in step.model.parameters()] == order


def test_fast_goes_on_from_a_checkpoint(clock, tmp_path):
    """The steps of a resumed run: build, make fast, load, train."""
    clock(both=0.1)
    data, path, found = a_set(20), tmp_path / "c.safetensors", []
    whole = fast(step_of(), *some(8))
    torch.manual_seed(11)
    for tick in train(whole, data, 2, cosine()):
        found.append(tick.loss)
        if tick.i == 3:
            save_checkpoint(path, whole, 4)
    again = fast(step_of(), *some(8))
    rest = [t.loss for t in train(again, data, 2, cosine(), load_checkpoint(path, again))]
    assert torch.equal(torch.stack(rest), torch.stack(found[4:]))


# the figure ---------------------------------------------------------------------------------


def test_the_roofline_draws_roofs_and_points_where_they_are():
    rates, bandwidth = {"float32": 2e11, "bfloat16": 8e11}, 1e10
    points = {"small": (speed.Cost(10**9, 10**9), 0.5), "large": (speed.Cost(10**10, 10**8), 0.1)}
    figure = roofline(rates, bandwidth, points)
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert list(lines) == ["limit in float32", "limit in bfloat16", "small", "large"]
    for name, rate in rates.items():
        x, y = lines[f"limit in {name}"].T
        assert np.allclose(y, np.minimum(rate, x * bandwidth) / 1e9)
        assert y.max() == rate / 1e9
    assert np.allclose(lines["small"], [[1.0, 2.0]]) and np.allclose(lines["large"], [[100, 100]])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == list(lines)
    assert overlapping_labels(figure) == []


def test_every_roof_is_drawn_and_reaches_every_point():
    rates = {f"kind {i}": 10.0**i for i in range(8, 13)}
    figure = roofline(rates, 1e9, {"far": (speed.Cost(10**9, 10**4), 1.0)})
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert len(lines) == 6
    assert lines["limit in kind 8"][:, 0].max() >= lines["far"][0, 0]


def test_a_roofline_without_points_is_a_roof():
    assert len(roofline({"float32": 1e11}, 1e10, {}).axes[0].lines) == 1

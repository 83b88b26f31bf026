"""The core against plain loops: exactness, counts, and what must be left as it was found."""

import copy
import functools
import inspect
import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlearn.data import Columns
from ftlearn.features import cache
from ftlearn.freezing import fingerprint, freeze, unfreeze
from ftlearn.losses import binary_cross_entropy, cross_entropy, mse
from ftlearn.models import split
from ftlearn.pretrain import one_cycle
from ftlearn.training import (
    History,
    Step,
    accumulate,
    accuracy,
    evaluate,
    fit,
    predict,
    set_rates,
    train,
    train_mode,
)


def sgd(module, lr=1e-2):
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr, momentum=0.9)


def adamw(module, lr=1e-3):
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr)


def same(a, b):
    """Whether two modules hold the same bits."""
    return fingerprint(a) == fingerprint(b)


def linear_set(examples=64, batch_size=16, **settings):
    torch.manual_seed(0)
    x, y = torch.randn(examples, 8), torch.randint(0, 3, (examples,))
    return Columns(x, y, batch_size=batch_size, **settings)


def test_fit_equals_the_plain_loop_bit_for_bit(model, images):
    twin = copy.deepcopy(model)
    data = Columns(*images, batch_size=8, shuffle=True, seed=3)
    torch.manual_seed(5)
    history = fit(Step(model, cross_entropy(), sgd(model)), data, epochs=2)

    torch.manual_seed(5)
    optimizer, losses = sgd(twin), []
    for epoch in range(2):
        twin.train()
        for x, y in data.batches(epoch):
            loss = F.cross_entropy(twin(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert history.losses == losses
    assert same(model, twin)
    assert not model.training


def test_two_runs_are_the_same_run(model, images):
    twin = copy.deepcopy(model)
    for m in (model, twin):
        torch.manual_seed(0)
        fit(Step(m, cross_entropy(), adamw(m)), Columns(*images, batch_size=8, shuffle=True))
    assert same(model, twin)


def test_frozen_is_constant_even_after_train_is_called(model, images):
    body, _ = split(model, "head")
    freeze(body)
    before = fingerprint(body)
    model.train()
    step = Step(model, cross_entropy(), adamw(model))
    for tick in train(step, Columns(*images, batch_size=8), epochs=2):
        if tick.last:
            model.train()  # a user's habit: the next epoch puts it right
    assert fingerprint(body) == before


def test_optimizer_is_compared_by_identity_not_by_value():
    model = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"'1\.weight' is trainable but not in the optimizer"):
        Step(
            model,
            cross_entropy(),
            torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], 0.1),
        )


def test_every_trainable_parameter_needs_a_gradient_before_anything_moves():
    model = nn.Sequential(nn.Linear(8, 3))
    model.unused = nn.Linear(3, 3)
    model.forward = lambda x: model[0](x)
    before = fingerprint(model)
    with pytest.raises(ValueError, match="'unused.weight' is trainable but took no part"):
        fit(Step(model, cross_entropy(), sgd(model)), linear_set())
    assert fingerprint(model) == before


def test_unfrozen_parts_really_train(model, images):
    body, head = split(model, "head")
    freeze(body)
    fit(Step(model, cross_entropy(), sgd(model)), Columns(*images, batch_size=8))
    unfreeze(body)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fit(Step(model, cross_entropy(), sgd(model)), Columns(*images, batch_size=8))
    still = [n for n, p in model.named_parameters() if torch.equal(before[n], p)]
    assert not still


def test_cached_prefix_trains_to_the_same_bits(model, images):
    body, head = split(model, "head")
    freeze(body)
    twin = copy.deepcopy(head)
    data = Columns(*images, batch_size=8, shuffle=True)
    live = fit(Step(model, cross_entropy(), sgd(model)), data, epochs=5)
    cached = fit(Step(twin, cross_entropy(), sgd(twin)), cache(body, data), epochs=5)
    assert live.losses == cached.losses
    assert same(head, twin)


def test_cached_prefix_with_an_uneven_last_batch_is_close(model, images):
    body, head = split(model, "head")
    freeze(body)
    twin = copy.deepcopy(head)
    data = Columns(*images, batch_size=9, shuffle=True)
    features = cache(body, data).columns[0]
    with torch.no_grad():
        one_by_one = torch.cat([body(x[None]) for x in images[0]])
    assert (features - one_by_one).abs().max() <= 1e-5 * one_by_one.abs().max()
    live = fit(Step(model, cross_entropy(), sgd(model)), data, epochs=5)
    cached = fit(Step(twin, cross_entropy(), sgd(twin)), cache(body, data), epochs=5)
    assert len(live.losses) == 20
    assert max(abs(a - b) for a, b in zip(live.losses, cached.losses)) <= 1e-4


@pytest.mark.parametrize("slices", [2, 3, 5])
def test_accumulated_slices_equal_the_whole_batch(device, slices):
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(device).double()
    parts = copy.deepcopy(whole)
    data = linear_set(40, 16).to(device)  # the last batch holds 8
    data = data.like(data.columns[0].double(), data.columns[1])
    a = Step(whole, lambda m, x, y: (F.cross_entropy(z := m(x), y), z), sgd(whole))
    b = Step(parts, lambda m, x, y: (F.cross_entropy(z := m(x), y), z), sgd(parts))
    first = fit(a, data, epochs=3).losses
    second = fit(accumulate(b, slices), data, epochs=3).losses
    assert first == pytest.approx(second, abs=1e-6)
    for p, q in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_accumulation_under_class_weights_uses_their_sum():
    torch.manual_seed(0)
    weights = torch.tensor([1.0, 5.0, 0.5])
    whole = nn.Linear(8, 3)
    parts = copy.deepcopy(whole)
    data = linear_set(48, 16)
    fit(Step(whole, cross_entropy(weight=weights), sgd(whole)), data)
    step = Step(parts, cross_entropy(weight=weights), sgd(parts))
    fit(accumulate(step, 3, weight=lambda y: weights[y].sum()), data)
    torch.testing.assert_close(whole.weight, parts.weight, rtol=0, atol=1e-6)


def test_accumulation_gives_all_predictions_in_order():
    model, data = nn.Linear(8, 3), linear_set(16, 16)
    (batch,) = data.batches()
    expected = model(batch[0]).detach()
    _, pred = accumulate(Step(model, cross_entropy(), sgd(model)), 3)(*batch)
    torch.testing.assert_close(pred, expected, rtol=0, atol=1e-6)


def test_accumulation_is_refused_where_the_batch_is_normalised():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="'1' normalises over the batch"):
        accumulate(Step(model, cross_entropy(), sgd(model)), 2)
    freeze(model[1])
    accumulate(Step(model, cross_entropy(), sgd(model)), 2)


def test_at_most_three_frames_between_fit_and_backward(monkeypatch):
    depths, backward = [], torch.Tensor.backward

    def spy(tensor, *args, **kwargs):
        names = [frame.function for frame in inspect.stack()[1:]]
        depths.append(names.index("test_at_most_three_frames_between_fit_and_backward"))
        return backward(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    model = nn.Linear(8, 3)
    fit(Step(model, cross_entropy(), sgd(model)), linear_set())
    assert depths == [3, 3, 3, 3]  # fit, the generator, the step


def python_calls(run):
    """Python functions entered while `run()` runs."""
    count = 0

    def profile(frame, event, _):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("schedule", [None, lambda progress: 1 - progress])
def test_at_most_twenty_python_calls_beyond_a_plain_loop(schedule):
    model = nn.Linear(8, 3)
    few, many = linear_set(10 * 16), linear_set(110 * 16)

    def ours(data):
        fit(Step(model, cross_entropy(), sgd(model)), data, schedule=schedule)

    def plain(data):
        optimizer = sgd(model)
        for i in range(0, len(data), 16):
            x, y = data.columns[0][i : i + 16], data.columns[1][i : i + 16]
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    def per_update(loop):
        loop(few)  # warm
        return (python_calls(lambda: loop(many)) - python_calls(lambda: loop(few))) / 100

    extra = per_update(ours) - per_update(plain)
    assert extra <= 20, extra


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_nothing_in_a_step_reads_the_device():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3))
    model.cuda()
    data = linear_set(160, 16, shuffle=True).to("cuda")
    step = Step(model, cross_entropy(weight=[1, 2, 3]), adamw(model))
    updates = train(step, data, epochs=2, schedule=lambda p: 1 - p)
    next(updates)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(updates)) == 19
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_nothing_in_a_step_reads_a_value_on_the_cpu_either(monkeypatch):
    model, data = nn.Linear(8, 3), linear_set()
    updates = train(Step(model, cross_entropy(), sgd(model)), data)
    next(updates)

    def refuse(*_):
        raise AssertionError("a step read a value")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    assert len(list(updates)) == 3


def test_loss_and_prediction_carry_no_graph():
    model = nn.Linear(8, 3)
    for tick in train(Step(model, cross_entropy(), sgd(model)), linear_set()):
        assert tick.loss.grad_fn is None and tick.pred.grad_fn is None


def test_memory_is_flat_over_a_thousand_updates():
    import gc

    model = nn.Linear(8, 3)
    updates = train(Step(model, cross_entropy(), adamw(model)), linear_set(16, 16), epochs=1100)

    def tensors():
        gc.collect()
        return sum(1 for o in gc.get_objects() if issubclass(type(o), torch.Tensor))

    for tick in updates:
        if tick.i == 50:
            early = tensors()
        if tick.i == 1050:
            assert tensors() <= early
    assert tick.i == 1099


def test_ticks_count_updates_epochs_and_last_batches():
    model = nn.Linear(8, 3)
    ticks = list(train(Step(model, cross_entropy(), sgd(model)), linear_set(40, 16), epochs=2))
    assert [t.i for t in ticks] == list(range(6))
    assert [t.epoch for t in ticks] == [0, 0, 0, 1, 1, 1]
    assert [t.last for t in ticks] == [False, False, True] * 2
    assert [len(t.batch[0]) for t in ticks] == [16, 16, 8] * 2


def test_next_runs_one_update_and_break_stops():
    model, data = nn.Linear(8, 3), linear_set()
    step = Step(model, cross_entropy(), sgd(model))
    before = fingerprint(model)
    updates = train(step, data)
    assert fingerprint(model) == before
    next(updates)
    after = fingerprint(model)
    assert after != before
    for tick in updates:
        if tick.i == 1:
            break
    assert tick.i == 1


def test_a_schedule_scales_each_group_and_gives_the_rates_back():
    model = nn.Linear(8, 3)
    groups = [
        {"params": [model.weight], "lr": 0.5},
        {"params": [model.bias], "lr": 0.1, "schedule": lambda p: 2.0},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.8)
    step = Step(model, cross_entropy(), optimizer)
    seen, before = [], set(optimizer.param_groups[0])
    for _ in train(step, linear_set(), schedule=lambda p: {"lr": 1 - p, "momentum": 1 - p / 2}):
        seen.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
    factors = torch.tensor([(1 - p, 1 - p / 2) for p in (0, 0.25, 0.5, 0.75)])
    torch.testing.assert_close(
        torch.tensor([s[0] for s in seen]), factors * torch.tensor([0.5, 0.8])
    )
    assert [s[1] for s in seen] == [(0.2, 0.8)] * 4
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.1]
    assert optimizer.param_groups[0]["momentum"] == 0.8
    assert set(optimizer.param_groups[0]) == before


def test_a_schedule_moves_adams_first_beta_and_fills_a_tensor_rate_in_place():
    p = nn.Parameter(torch.zeros(3))
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW([p], lr=rate, betas=(0.9, 0.99), capturable=False)
    set_rates(optimizer, lambda progress: {"lr": progress, "momentum": progress}, 0.5)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.25
    assert optimizer.param_groups[0]["betas"] == (0.45, 0.99)
    set_rates(optimizer, lambda progress: progress, 0.25)
    assert rate.item() == 0.125 and optimizer.param_groups[0]["betas"] == (0.9, 0.99)


def test_no_schedule_touches_nothing():
    model = nn.Linear(8, 3)
    optimizer = sgd(model, lr=0.3)
    for _ in train(Step(model, cross_entropy(), optimizer), linear_set()):
        assert optimizer.param_groups[0]["lr"] == 0.3
        optimizer.param_groups[0]["momentum"] = 0.5
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_rates_come_back_after_a_break_and_after_an_error():
    model = nn.Linear(8, 3)
    optimizer = sgd(model, lr=0.3)
    step = Step(model, cross_entropy(), optimizer)
    for tick in train(step, linear_set(), schedule=lambda p: 0.1):
        if tick.i == 1:
            break
    assert optimizer.param_groups[0]["lr"] == 0.3
    with pytest.raises(ValueError):
        fit(step, linear_set().like(torch.zeros(4, 8), torch.full((4,), 9)), schedule=lambda p: 0.1)
    assert optimizer.param_groups[0]["lr"] == 0.3


def test_the_epoch_loss_is_a_mean_over_examples():
    model = nn.Linear(1, 1, bias=False)
    x = torch.ones(33, 1)
    y = torch.ones(33, 1)
    y[32] = 3.0
    nn.init.zeros_(model.weight)
    step = Step(model, mse(), torch.optim.SGD(model.parameters(), 0.0))
    history = fit(step, Columns(x, y, batch_size=32))
    assert history.losses == [1.0, 9.0]
    assert history["loss"] == [pytest.approx((32 * 1 + 9) / 33)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_named_and_the_weights_come_back(bad):
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    data = linear_set(64, 16)
    step = Step(model, cross_entropy(), adamw(model))
    fit(step, data, epochs=1)
    good = fingerprint(model)
    data.columns[0][40, 3] = bad  # third batch
    with pytest.raises(FloatingPointError, match="update 2 of epoch 0.*column 0 of its batch"):
        fit(step, data, epochs=3)
    with pytest.raises(FloatingPointError, match="update 2 of epoch 1"):
        fit(step, data, epochs=3, start=5)
    assert fingerprint(model) == good
    assert not step.optimizer.state


def test_weights_broken_by_the_last_update_of_an_epoch_are_not_kept():
    model = nn.Linear(8, 3)
    good = fingerprint(model)

    def break_weights():
        with torch.no_grad():
            model.weight[0, 0] = float("nan")

    step = Step(model, cross_entropy(), sgd(model), after=[break_weights])
    with pytest.raises(FloatingPointError, match="weights were no longer finite at update 0"):
        fit(step, linear_set(16, 16), epochs=2)
    assert fingerprint(model) == good


def test_evaluate_leaves_everything_as_it_was_found(model, images):
    body, _ = split(model, "head")
    freeze(body)
    train_mode(model)
    optimizer = adamw(model)
    data = Columns(*images, batch_size=7, shuffle=True)
    before = fingerprint(model), [m.training for m in model.modules()], torch.get_rng_state()
    columns = [c.clone() for c in data.columns]
    score = evaluate(model, data)
    assert fingerprint(model) == before[0]
    assert [m.training for m in model.modules()] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(torch.equal(a, b) for a, b in zip(columns, data.columns))
    assert data.shuffle and not optimizer.state
    model.eval()
    with torch.no_grad():
        expected = (model(images[0]).argmax(1) == images[1]).double().mean().item()
    assert score == pytest.approx(expected)


def test_training_with_and_without_evaluation_is_the_same_run(model, images):
    twin = copy.deepcopy(model)
    data = Columns(*images, batch_size=8, shuffle=True)
    for m, valid in ((model, None), (twin, data)):
        torch.manual_seed(0)
        fit(Step(m, cross_entropy(), adamw(m)), data, valid, epochs=2)
    assert same(model, twin)


def test_modes_come_back_when_evaluation_fails():
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout())
    model.train()
    with pytest.raises(ValueError, match="one number per example"):
        evaluate(model, linear_set(), metric=lambda pred, x, y: pred.mean())
    assert model.training and model[1].training


def test_evaluate_takes_a_torchmetrics_object_and_another_forward():
    torchmetrics = pytest.importorskip("torchmetrics")
    model, data = nn.Linear(8, 3), linear_set(50, 16)
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=3, average="micro")
    assert evaluate(model, data, metric) == pytest.approx(evaluate(model, data))
    assert evaluate(model, data, predict=lambda x: -model(x)) < 1
    macro = torchmetrics.F1Score(task="multiclass", num_classes=3, average="macro")
    expected = macro(predict(model, data), data.columns[1]).item()
    assert evaluate(model, data, macro) == pytest.approx(expected)


def test_predict_keeps_the_stored_order():
    model, data = nn.Linear(8, 3), linear_set(50, 16, shuffle=True)
    with torch.no_grad():
        expected = model(data.columns[0])
    torch.testing.assert_close(predict(model, data), expected)


def test_an_objective_may_have_parameters():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, model, x, y):
            z = model(x) * self.log_scale.exp()
            return F.cross_entropy(z, y), z

    model, objective = nn.Linear(8, 3), Scaled()
    with pytest.raises(ValueError, match="'log_scale' is trainable but not in the optimizer"):
        Step(model, objective, sgd(model))
    both = nn.ModuleList([model, objective])
    fit(Step(model, objective, sgd(both)), linear_set(), epochs=3)
    assert objective.log_scale.item() != 0


def test_after_hooks_run_once_per_update_without_arguments():
    calls = []
    model = nn.Linear(8, 3)
    step = Step(model, cross_entropy(), sgd(model), after=[lambda: calls.append(1)])
    fit(step, linear_set(), epochs=2)
    assert len(calls) == 8


def test_one_forward_and_one_backward_per_update():
    counts = {"forward": 0, "backward": 0}
    model = nn.Linear(8, 3)
    model.register_forward_hook(lambda *_: counts.update(forward=counts["forward"] + 1))
    model.weight.register_hook(lambda _: counts.update(backward=counts["backward"] + 1))
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3)
    assert counts == {"forward": 12, "backward": 12}


def test_the_loss_is_float32_under_autocast(device):
    from ftlearn.training import bf16

    model = nn.Linear(8, 3).to(device)
    step = Step(model, cross_entropy(), sgd(model), amp=bf16(device))
    loss, pred = step(*next(linear_set().to(device).batches()))
    assert loss.dtype == torch.float32 and pred.dtype == torch.bfloat16
    model2 = nn.Linear(8, 3).to(device)
    targets = torch.rand(64, 3, device=device).round()
    for objective in (mse(), binary_cross_entropy()):
        step = Step(model2, objective, sgd(model2), amp=bf16(device))
        loss, _ = step(linear_set().columns[0].to(device), targets)
        assert loss.dtype == torch.float32


def test_history_reads_as_a_table():
    history = History()
    history.add(0, [2.0, 1.0], [3, 1], 0.5, 1.25)
    history.add(1, [0.5], [1], None, 2.0)
    assert history["loss"] == [1.75, 0.5] and history.losses == [2.0, 1.0, 0.5]
    lines = repr(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "score", "seconds"]
    assert lines[1].split() == ["0", "1.7500", "0.500", "1.2"]
    assert lines[2].split() == ["1", "0.5000", "-", "2.0"]


def test_long_runs_report_and_short_ones_are_silent(capsys, monkeypatch):
    import ftlearn.explore as explore

    model = nn.Linear(8, 3)
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3)
    assert capsys.readouterr().out == ""
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(explore.time, "perf_counter", lambda: next(clock))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 3 and printed.count("\n") == 3 and "\r" not in printed
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3, report=False)
    assert capsys.readouterr().out == ""


def test_a_line_that_is_written_over_is_closed_however_the_run_ends(capsys, monkeypatch):
    import ftlearn.explore as explore

    clock, model = iter(range(0, 1000, 6)), nn.Linear(8, 3)
    monkeypatch.setattr(explore.time, "perf_counter", lambda: next(clock))
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # a notebook: lines are written over
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3)
    printed = capsys.readouterr().out
    assert printed.startswith("\repoch") and printed.count("\r") == 3
    assert printed.endswith("\n") and printed.count("\n") == 1

    calls = iter(range(100))

    def breaks_in_the_third_epoch(model, *batch):
        loss, z = cross_entropy()(model, *batch)
        return loss * (math.nan if next(calls) >= 8 else 1.0), z

    with pytest.raises(FloatingPointError):
        fit(Step(model, breaks_in_the_third_epoch, sgd(model)), linear_set(), epochs=4)
    printed = capsys.readouterr().out
    assert printed.count("\r") == 2 and printed.count("\n") == 1 and printed.endswith("\n")
    fit(Step(model, cross_entropy(), sgd(model)), linear_set(), epochs=3, report=False)
    assert capsys.readouterr().out == ""


def test_accuracy_counts_dense_labels_per_example_and_refuses_soft_ones():
    z = torch.zeros(2, 3, 2, 2)
    z[:, 1] = 1
    y = torch.tensor([[[1, 1], [0, 1]], [[0, 0], [0, 0]]])
    assert accuracy(z, None, y).tolist() == [0.75, 0.0]
    with pytest.raises(ValueError, match="probabilities"):
        accuracy(torch.zeros(2, 3), None, torch.full((2, 3), 1 / 3))
    for labels in (y[:, 0], y[..., None], y[:1]):
        with pytest.raises(ValueError, match="The labels have shape"):
            accuracy(z, None, labels)


def test_labels_that_are_partly_unknown_are_scored_and_others_refused():
    model, data = nn.Linear(8, 3), linear_set()
    x, y = data.columns
    right = (predict(model, data).argmax(1) == y).double()
    some = torch.arange(64) % 2 == 0
    for unknown in (-100, -1):
        score = evaluate(model, Columns(x, torch.where(some, unknown, y)))
        assert score == right[~some].sum() / 64
    plain = lambda pred, x, y: (pred.argmax(1) == y).float()  # noqa: E731
    for labels in (y + 1, y * 0 - 1):
        with pytest.raises(ValueError, match=r"labels in 0\.\.2"):
            evaluate(model, Columns(x, labels))
        assert evaluate(model, Columns(x, labels), plain) >= 0  # only accuracy knows classes
    assert evaluate(model, Columns(x, y.int())) == evaluate(model, Columns(x, y))


def test_objectives_and_schedules_of_every_make_are_taken():
    class Called:
        def __call__(self, model, x, y):
            return cross_entropy()(model, x, y)

    class Learned(nn.Module):
        def forward(self, model, x, y):
            return cross_entropy()(model, x, y)

    plain = lambda model, *batch: cross_entropy()(model, *batch)  # noqa: E731
    extra = functools.partial(lambda word, model, x, y: plain(model, x, y), "word")
    losses = []
    for objective in (cross_entropy(), Called(), Learned(), plain, extra, lambda *all: plain(*all)):
        torch.manual_seed(0)
        model = nn.Linear(8, 3)
        step = Step(model, objective, sgd(model))
        losses.append(fit(step, linear_set(), schedule=functools.partial(max, 0.5)).losses)
    assert losses == losses[:1] * 6
    fit(step, linear_set(), schedule=math.cos)
    fit(step, linear_set(), schedule=functools.partial(one_cycle, warmup=0.5))


def test_a_wrong_validation_set_or_a_run_that_is_done_costs_no_update():
    model = nn.Linear(8, 3)
    before, step = fingerprint(model), Step(model, cross_entropy(), sgd(model))
    with pytest.raises(TypeError, match="valid is a tuple"):
        fit(step, linear_set(), linear_set().columns)
    with pytest.raises(ValueError, match="All 8 updates of this run are done"):
        fit(step, linear_set(), epochs=2, start=8)
    assert list(train(step, linear_set(), epochs=2, start=8)) == []  # a phase that is complete
    assert fingerprint(model) == before


def test_starting_later_continues_the_same_run():
    data = linear_set(40, 16, shuffle=True)
    straight = nn.Linear(8, 3)
    broken = copy.deepcopy(straight)
    fit(Step(straight, cross_entropy(), sgd(straight)), data, epochs=3, schedule=lambda p: 1 - p)
    step = Step(broken, cross_entropy(), sgd(broken))
    for tick in train(step, data, epochs=3, schedule=lambda p: 1 - p):
        if tick.i == 3:
            break
    fit(step, data, epochs=3, schedule=lambda p: 1 - p, start=4)
    assert same(straight, broken)


def test_progress_is_a_fraction_of_the_whole_run():
    seen = []
    model = nn.Linear(8, 3)
    step = Step(model, cross_entropy(), sgd(model))
    fit(step, linear_set(), epochs=2, schedule=lambda p: seen.append(p) or 1.0)
    assert seen == [i / 8 for i in range(8)]
    assert not math.isclose(seen[-1], 1.0)

"""Distillation: every loss against its formula and against torchdistill; the teacher is constant."""

import copy
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from torch import nn
from torch.nn import functional as F

from ftlearn.augment import Augmented, augment, mixup, views
from ftlearn.checkpoint import load_checkpoint, save_checkpoint
from ftlearn.data import Columns, HeldOut, generator
from ftlearn.distill import (
    Committee,
    attention_transfer,
    binary_distillation,
    correlation_distillation,
    decoupled_distillation,
    hints,
    knowledge_distillation,
    logit_matching,
    mutual_learning,
    relational_distillation,
    taught,
)
from ftlearn.features import cache
from ftlearn.freezing import fingerprint, freeze
from ftlearn.losses import cross_entropy
from ftlearn.models import tap
from ftlearn.training import Step, accumulate, bf16, evaluate, fit, predict, train, train_mode
from ftlearn.transforms import Crop, Flip

STORED = json.loads((Path(__file__).parent / "references" / "distill.json").read_text())
N, C = 6, 5


def drawn(seed, *shape, scale=2.0):
    return scale * torch.randn(shape, generator=generator(11, seed), dtype=torch.float64)


def labels():
    return torch.tensor([0, 1, 2, 3, 4, 1])


def value_and_gradient(loss, z):
    """A loss of one tensor, and its gradient."""
    z = z.detach().clone().requires_grad_()
    found = loss(z)
    found.backward()
    return found.detach(), z.grad


def of(objective, t, y=None):
    """An objective on logits as a function of the student's logits."""
    return lambda z: objective(lambda _: z, None, labels() if y is None else y, t)[0]


# ---------------------------------------------------------------- slow transcriptions of the papers


def softmax(row, T):
    top = max(v / T for v in row)
    powers = [torch.exp(v / T - top) for v in row]
    return [p / sum(powers) for p in powers]


def slow_ce(z, y):
    return -sum(torch.log(softmax(row, 1)[i]) for row, i in zip(z, y.tolist(), strict=True)) / len(
        z
    )


def kl(p, q):
    return sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True))


def slow_kd(z, t, y, T=4.0, alpha=0.9):
    soft = sum(kl(softmax(b, T), softmax(a, T)) for a, b in zip(z, t, strict=True)) / len(z)
    return (1 - alpha) * slow_ce(z, y) + alpha * T**2 * soft


def slow_dkd(z, t, y, T=4.0, target=1.0, others=8.0):
    total = 0
    for a, b, i in zip(z, t, y.tolist(), strict=True):
        q, p = softmax(a, T), softmax(b, T)
        binary = [[v[i], 1 - v[i]] for v in (p, q)]
        rest = [[w / (1 - v[i]) for k, w in enumerate(v) if k != i] for v in (p, q)]
        total = total + target * kl(*binary) + others * kl(*rest)
    return slow_ce(z, y) + T**2 * total / len(z)


def pearson(a, b):
    """The correlation of two lists."""
    a, b = [v - sum(a) / len(a) for v in a], [v - sum(b) / len(b) for v in b]
    dot = lambda u, v: sum(x * y for x, y in zip(u, v, strict=True))
    return dot(a, b) / torch.sqrt(dot(a, a) * dot(b, b))


def slow_dist(z, t, y, T=1.0, inter=1.0, intra=1.0):
    q, p = ([softmax(row, T) for row in v] for v in (z, t))
    columns = [list(zip(*v, strict=True)) for v in (q, p)]
    rows = sum(1 - pearson(a, b) for a, b in zip(q, p, strict=True)) / len(z)
    down = sum(1 - pearson(a, b) for a, b in zip(*columns, strict=True)) / z.shape[1]
    return slow_ce(z, y) + T**2 * (inter * rows + intra * down)


def slow_matching(z, t, y, alpha=1.0):
    far = sum((a - b) ** 2 for u, v in zip(z, t, strict=True) for a, b in zip(u, v, strict=True))
    return (1 - alpha) * slow_ce(z, y) + alpha * far / 2 / len(z)


def slow_binary(z, t, y, T=1.0, alpha=0.9):
    total = 0
    for a, b, target in zip(z.flatten(), t.flatten(), y.flatten(), strict=True):
        q, p, hard = (1 / (1 + torch.exp(-v)) for v in (a / T, b / T, a))
        bce = -target * torch.log(hard) - (1 - target) * torch.log(1 - hard)
        total = total + (1 - alpha) * bce + alpha * T**2 * kl([p, 1 - p], [q, 1 - q])
    return total / z.numel()


ON_LOGITS = [
    (knowledge_distillation, slow_kd, {}),
    (knowledge_distillation, slow_kd, dict(temperature=1.0, alpha=1.0)),
    (knowledge_distillation, slow_kd, dict(temperature=20.0, alpha=0.3)),
    (decoupled_distillation, slow_dkd, {}),
    (decoupled_distillation, slow_dkd, dict(temperature=1.0, target=2.0, others=0.5)),
    (decoupled_distillation, slow_dkd, dict(temperature=9.0, target=0.0, others=1.0)),
    (correlation_distillation, slow_dist, {}),
    (correlation_distillation, slow_dist, dict(temperature=4.0, inter=2.0, intra=0.3)),
    (logit_matching, slow_matching, {}),
    (logit_matching, slow_matching, dict(alpha=0.4)),
    (binary_distillation, slow_binary, {}),
    (binary_distillation, slow_binary, dict(temperature=3.0, alpha=0.5)),
]
IDS = [f"{made.__name__}-{i}" for i, (made, _, _) in enumerate(ON_LOGITS)]


def answers(made):
    """Labels, or for binary_distillation targets of every question."""
    return drawn(9, N, C).sigmoid() if made is binary_distillation else labels()


@pytest.mark.parametrize("made, slow, settings", ON_LOGITS, ids=IDS)
def test_value_and_gradient_are_those_of_the_formula(made, slow, settings):
    z, t, y = drawn(1, N, C), drawn(2, N, C), answers(made)
    renamed = {"T" if k == "temperature" else k: v for k, v in settings.items()}
    loss, gradient = value_and_gradient(of(made(**settings), t, y), z)
    right, wanted = value_and_gradient(lambda z: slow(z, t, y, **renamed), z)
    single = made is binary_distillation  # its labels' part is a loss of lesson 03, in float32
    assert torch.allclose(loss, right, rtol=1e-6 if single else 1e-12)
    assert torch.allclose(
        gradient, wanted, rtol=1e-5 if single else 1e-9, atol=1e-8 if single else 1e-12
    )


@pytest.mark.parametrize("made, slow, settings", ON_LOGITS, ids=IDS)
def test_half_precision_columns_and_autocast_are_computed_in_float32(made, slow, settings, device):
    z, t, y = drawn(1, N, C).half().to(device), drawn(2, N, C).half().to(device), answers(made)
    y = y.to(device)
    objective, floats = made(**settings), (z.float(), t.float())
    wanted = objective(lambda _: floats[0], None, y, floats[1])[0]
    with bf16(device.type):
        loss, pred = objective(lambda _: z, None, y, t)
    assert loss.dtype == torch.float32 and torch.equal(loss, wanted)
    assert pred is z  # what the model said is handed on as it is
    with bf16(device.type):
        loss, _ = objective(lambda _: z.bfloat16(), None, y, t)
    assert loss.dtype == torch.float32 and torch.allclose(loss, wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("made, slow, settings", ON_LOGITS, ids=IDS)
@pytest.mark.parametrize("half", [False, True])
def test_gaps_of_300_stay_finite_on_both_sides(made, slow, settings, half, device):
    flat, wide = torch.zeros(3, C), torch.zeros(3, C)
    wide[0, 0], wide[1, 1], wide[2, 2] = 300, -300, 150
    y = torch.rand(3, C) if made is binary_distillation else torch.tensor([1, 1, 0])
    for z, t in ((flat, wide), (wide, flat), (wide, -wide), (wide, wide)):
        z, t, target = (v.to(device) for v in (z.clone(), t.half() if half else t, y))
        z.requires_grad_()
        loss = of(made(**settings), t, target)(z)
        loss.backward()
        assert loss.isfinite() and z.grad.isfinite().all()


def test_a_gap_of_300_has_the_right_value():
    wide = torch.tensor([[300.0, 0.0, -20.0]])
    one = knowledge_distillation(1, 1)
    assert of(one, wide, labels())(torch.zeros(1, 3)) == pytest.approx(math.log(3), rel=1e-6)
    sure = of(one, torch.zeros(1, 3), labels())(wide)
    assert sure == pytest.approx(-math.log(3) + 300 - 280 / 3, rel=1e-6)


# ---------------------------------------------------------------- torchdistill

GIVEN = {
    name: torch.tensor(values, dtype=torch.float64) for name, values in STORED["inputs"].items()
}
GIVEN["y"] = GIVEN["y"].long()


def nothing(model, x, y, *_):
    """An objective that asks for nothing: features are all that is left."""
    z = model(x)
    return 0.0 * z.sum(), z


class Saying(nn.Module):
    """A student whose module `body` gives its input."""

    def __init__(self):
        super().__init__()
        self.body = nn.Identity()

    def forward(self, x):
        return self.body(x).flatten(1)


def on_features(objective, g):
    return lambda h: objective(Saying(), h, torch.zeros(len(h)), g)[0]


def peers():
    t, y = GIVEN["t"], GIVEN["y"]
    logits = {
        "KD": knowledge_distillation(4.0, 0.9),
        "KD, T = 1, no labels": knowledge_distillation(1.0, 1.0),
        "DIST": correlation_distillation(),
        "DIST, T = 4": correlation_distillation(4.0, inter=2.0, intra=0.5),
    }
    features = {
        "attention": attention_transfer(nothing, "body", strength=2.0),
        "relations": relational_distillation(nothing, "body"),
        "distances": relational_distillation(nothing, "body", distance=1.0, angle=0.0),
        "angles": relational_distillation(nothing, "body", distance=0.0, angle=1.0),
    }
    found = {name: ("z", of(objective, t, y)) for name, objective in logits.items()}
    for name, objective in features.items():
        kind = "grid" if name == "attention" else "vector"
        found[name] = kind, on_features(objective, GIVEN[f"teacher's {kind}"])
    return found


PEERS = peers()


@pytest.mark.parametrize("name", STORED["torchdistill"])
def test_value_and_gradient_are_those_of_torchdistill(name):
    given, loss = PEERS[name]
    stored = STORED["torchdistill"][name]
    found, gradient = value_and_gradient(loss, GIVEN[given])
    wanted = stored["loss"], torch.tensor(stored["gradient"], dtype=torch.float64)
    if name.startswith("DIST"):  # it has no cross-entropy there
        hard, its = value_and_gradient(lambda z: F.cross_entropy(z, GIVEN["y"]), GIVEN["z"])
        wanted = wanted[0] + hard, wanted[1] + its
    assert found == pytest.approx(float(wanted[0]), rel=1e-7)
    assert torch.allclose(gradient, wanted[1], rtol=1e-5, atol=1e-9)


# ---------------------------------------------------------------- limits


def centred(v):
    return v - v.mean(1, keepdim=True)


def test_a_high_temperature_is_logit_regression():
    z, t = centred(drawn(1, N, C)), centred(drawn(2, N, C))
    cold, pull = value_and_gradient(of(logit_matching(), t), z)
    errors = []
    for T in (10.0, 100.0, 1000.0):
        hot, gradient = value_and_gradient(of(knowledge_distillation(T, 1.0), t), z)
        errors.append(abs(hot * C / cold - 1).item())
        away = (gradient * C - pull).abs().max() / pull.abs().max()
        assert away < 10 / T
    assert errors[2] < 1e-2 and errors[0] > 5 * errors[1] > 25 * errors[2]


def test_the_gradient_keeps_its_scale_over_temperatures():
    z, t = drawn(1, N, C, scale=0.5), drawn(2, N, C, scale=0.5)
    norms = [
        value_and_gradient(of(knowledge_distillation(T, 1.0), t), z)[1].norm()
        for T in (2.0, 4.0, 8.0, 16.0, 32.0)
    ]
    assert max(norms) < 1.3 * min(norms)


@pytest.mark.parametrize("made, slow, settings", ON_LOGITS, ids=IDS)
def test_the_teachers_term_pulls_and_stops_pulling_where_both_agree(made, slow, settings):
    """What is left where both agree is the labels' part alone."""
    t, y = drawn(2, N, C), answers(made)
    objective = made(**settings)
    _, agreed = value_and_gradient(of(objective, t, y), t)
    share = 1 - settings.get(
        "alpha", {knowledge_distillation: 0.9, binary_distillation: 0.9}.get(made, 1.0)
    )
    share = 1.0 if made in (decoupled_distillation, correlation_distillation) else share
    hard = F.binary_cross_entropy_with_logits if y.is_floating_point() else F.cross_entropy
    _, wanted = value_and_gradient(lambda z: share * hard(z, y), t)
    assert torch.allclose(agreed, wanted, atol=1e-9)
    z = drawn(1, N, C)
    _, pulled = value_and_gradient(of(objective, t, y), z)
    _, other = value_and_gradient(of(objective, 0.5 * t, y), z)
    assert (pulled - other).norm() > 1e-3  # it listens to the teacher


def test_alpha_0_and_1_are_the_pure_terms():
    z, t, y = drawn(1, N, C), drawn(2, N, C), labels()
    nobody = torch.full((N,), 99)  # no such class
    for made in (knowledge_distillation, lambda T, alpha: logit_matching(alpha)):
        assert torch.equal(of(made(4.0, 0.0), t)(z), of(made(1.0, 0.0), drawn(3, N, C))(z))
        assert torch.allclose(of(made(4.0, 0.0), t)(z), F.cross_entropy(z, y))
        of(made(4.0, 1.0), t, nobody)(z)  # labels are not read
        with pytest.raises(ValueError, match="run from 99 to 99"):
            of(made(4.0, 0.9), t, nobody)(z)


def test_dkd_is_kd_taken_apart():
    z, t, y = drawn(1, N, C), drawn(2, N, C), labels()
    T, hard = 3.0, F.cross_entropy(z, y)
    first = of(decoupled_distillation(T, 1.0, 0.0), t)(z) - hard
    rows = [of(decoupled_distillation(T, 0.0, 1.0), t[i : i + 1], y[i : i + 1]) for i in range(N)]
    second = [
        row(z[i : i + 1]) - F.cross_entropy(z[i : i + 1], y[i : i + 1])
        for i, row in enumerate(rows)
    ]
    doubt = 1 - (t / T).softmax(1).gather(1, y[:, None])[:, 0]
    whole = of(knowledge_distillation(T, 1.0), t)(z)
    assert torch.allclose(first + (doubt * torch.stack(second)).mean(), whole)


def test_soft_pseudo_labels_and_label_smoothing_are_teachers():
    z, t = drawn(1, N, C), drawn(2, N, C)
    _, soft = value_and_gradient(lambda z: cross_entropy()(lambda _: z, None, t.softmax(1))[0], z)
    _, same = value_and_gradient(of(knowledge_distillation(1.0, 1.0), t), z)
    assert torch.allclose(soft, same, atol=1e-6)
    smooth = cross_entropy(label_smoothing=0.2)
    _, smoothed = value_and_gradient(lambda z: smooth(lambda _: z, None, labels())[0], z)
    _, ignorant = value_and_gradient(of(knowledge_distillation(1.0, 0.2), torch.zeros(N, C)), z)
    assert torch.allclose(smoothed, ignorant, atol=1e-6)


def test_no_gradient_goes_to_the_teacher():
    for made, _, settings in ON_LOGITS:
        z, t = drawn(1, N, C).requires_grad_(), drawn(2, N, C).requires_grad_()
        of(made(**settings), t, answers(made))(z).backward()
        assert t.grad is None and z.grad.abs().max() > 0
    h, g = drawn(1, 4, 3, 2, 2).requires_grad_(), drawn(2, 4, 3, 2, 2).requires_grad_()
    for made in (attention_transfer, relational_distillation):
        on_features(made(nothing, "body"), g)(h).backward()
    assert g.grad is None


def test_rows_without_a_label_hear_the_teacher_alone():
    z, t, y = drawn(1, N, C), drawn(2, N, C), labels()
    some = y.clone()
    some[2:] = -1
    soft = of(knowledge_distillation(4.0, 1.0), t)(z)
    found = of(knowledge_distillation(4.0, 0.5), t, some)(z)
    hard = F.cross_entropy(z[:2], y[:2], reduction="sum") / N
    assert torch.allclose(found, 0.5 * soft + 0.5 * hard)
    none = torch.full_like(y, -1)
    assert torch.equal(of(knowledge_distillation(4.0, 0.5), t, none)(z), 0.5 * soft)
    guessed = of(decoupled_distillation(), t, t.argmax(1))(z) - F.cross_entropy(z, t.argmax(1))
    assert torch.allclose(of(decoupled_distillation(), t, none)(z), guessed)


def zero_head(T=1.0, classes=10, rows=50, far=0.0):
    """DIST's gradient of a student that says (nearly) the same of everything."""
    z = far * drawn(1, rows, classes).float()
    t = 2 * drawn(2, rows, classes).float()
    y = torch.arange(rows) % classes
    objective = correlation_distillation(T)
    return value_and_gradient(lambda z: objective(lambda _: z, None, y, t)[0], z)[1]


@pytest.mark.parametrize("T", [1.0, 4.0])
@pytest.mark.parametrize("far", [0.0, 1e-7, 1e-4])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_dist_starts_from_a_head_of_zeros(T, far, classes):
    gradient = zero_head(T, classes, far=far)
    assert gradient.isfinite().all() and 0 < gradient.norm() < 100 * T


def test_dist_teaches_a_student_with_a_head_of_zeros():
    x, y = torch.randn(60, 8, generator=generator(4)), torch.arange(60) % 3
    x[range(60), y] += 4
    t = torch.zeros(60, 3)
    t[range(60), y] = 5 + torch.rand(60, generator=generator(5))
    student = nn.Linear(8, 3)
    nn.init.zeros_(student.weight), nn.init.zeros_(student.bias)
    data = Columns(x, torch.full_like(y, -1), t, batch_size=20, shuffle=True)
    step = Step(student, correlation_distillation(), torch.optim.SGD(student.parameters(), 0.05))
    fit(step, data, epochs=20, report=False)
    assert evaluate(student, Columns(x, y)) > 0.9 and student.weight.abs().max() < 20


def test_yes_or_no_labels_are_shares():
    z, t = drawn(1, 2, 3), drawn(2, 2, 3)
    for bad in (-1.0, 2.0, math.nan):
        y = torch.tensor([[1, 0, bad], [0, 1, 0.5]], dtype=torch.float64)
        with pytest.raises(ValueError, match="run from 0 to 1"):
            of(binary_distillation(), t, y)(z)
        assert of(binary_distillation(1, 1), t, y)(z).isfinite()  # not read
    assert of(binary_distillation(), t, y.nan_to_num(0))(z).isfinite()


def test_soft_labels_are_labels():
    z, t, y = drawn(1, N, C), drawn(2, N, C), drawn(3, N, C).softmax(1)
    found = of(knowledge_distillation(2.0, 0.5), t, y)(z)
    soft = of(knowledge_distillation(2.0, 1.0), t)(z)
    assert torch.allclose(found, 0.5 * soft + 0.5 * F.cross_entropy(z, y), rtol=1e-6)


def test_two_classes_and_a_batch_of_one():
    for made in (knowledge_distillation, decoupled_distillation, correlation_distillation):
        z, t, y = drawn(1, 1, 2).requires_grad_(), drawn(2, 1, 2), torch.tensor([1])
        of(made(), t, y)(z).backward()
        assert z.grad.isfinite().all()


def test_slices_of_a_batch_add_up_to_the_batch():
    """The mean is over all rows, so labels count the same in every slice."""
    x, y, t = drawn(1, 12, 4).float(), torch.arange(12) % 3, drawn(2, 12, 3).float()
    y[3:9] = -1
    models = [nn.Linear(4, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    steps = [
        Step(m, knowledge_distillation(), torch.optim.SGD(m.parameters(), 0.1)) for m in models
    ]
    whole, _ = steps[0](x, y, t)
    sliced, _ = accumulate(steps[1], 4)(x, y, t)
    assert torch.allclose(whole, sliced)
    assert torch.allclose(models[0].weight, models[1].weight, atol=1e-7)


# ---------------------------------------------------------------- features


def slow_rkd(u, v, angle):
    """Park et al., pair by pair and triple by triple."""

    def huber(a, b):
        d = (a - b).abs()
        return torch.where(d < 1, d**2 / 2, d - 0.5)

    def relations(w):
        far = [[(a - b).norm() for b in w] for a in w]
        mean = sum(sum(row) for row in far) / (len(w) * (len(w) - 1))
        if not angle:
            return [d / mean for row in far for d in row]
        unit = [[(a - b) / (a - b).norm() if (a != b).any() else 0 * a for a in w] for b in w]
        return [(a * b).sum() for row in unit for a in row for b in row]

    pairs = list(zip(relations(u), relations(v), strict=True))
    return sum(huber(a, b) for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("angle", [False, True])
def test_relations_are_those_of_the_formula(angle):
    u, v = drawn(1, 4, 3), drawn(2, 4, 6)
    ours = relational_distillation(nothing, "body", distance=1.0 - angle, angle=float(angle))
    # the diagonal has no direction to differentiate, so the slow one is asked for its value
    assert torch.allclose(on_features(ours, v)(u), slow_rkd(u, v, angle), rtol=1e-9)
    _, gradient = value_and_gradient(on_features(ours, v), u)
    numeric = torch.zeros_like(u)
    for i in range(u.numel()):
        step = torch.zeros(u.numel(), dtype=u.dtype)
        step[i] = 1e-6
        up, down = (slow_rkd(u + s * step.view_as(u), v, angle) for s in (1, -1))
        numeric.view(-1)[i] = (up - down) / 2e-6
    assert torch.allclose(gradient, numeric, rtol=1e-5, atol=1e-8)


def test_relations_of_equal_features_have_finite_gradients():
    """Dead features are equal features: no direction, no gradient, no NaN."""
    u, v = torch.zeros(5, 3), drawn(2, 5, 6).float()
    u[0] = 1.0
    loss, gradient = value_and_gradient(on_features(relational_distillation(nothing, "body"), v), u)
    assert loss.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 1e4
    same = on_features(relational_distillation(nothing, "body"), torch.zeros(5, 3))
    assert all(t.isfinite().all() for t in value_and_gradient(same, torch.zeros(5, 3)))


def test_attention_is_that_of_the_formula():
    h, g = drawn(1, 3, 2, 2, 3), drawn(2, 3, 4, 2, 3)

    def slow(h):
        total = 0
        for a, b in zip(h, g, strict=True):
            maps = [
                [sum(c[i][j] ** 2 for c in v) for i in range(2) for j in range(3)] for v in (a, b)
            ]
            lengths = [torch.sqrt(sum(v**2 for v in m)) for m in maps]
            total = total + sum(
                (p / lengths[0] - q / lengths[1]) ** 2 for p, q in zip(*maps, strict=True)
            )
        return 7.0 / 2 * total / (3 * 6)

    ours = value_and_gradient(on_features(attention_transfer(nothing, "body", 7.0), g), h)
    for found, wanted in zip(ours, value_and_gradient(slow, h), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    dead = on_features(attention_transfer(nothing, "body"), g.float())
    assert all(t.isfinite().all() for t in value_and_gradient(dead, torch.zeros(3, 2, 2, 3)))


SHAPES = {
    "grid": (4, 3, 6, 6),
    "small grid": (4, 3, 2, 3),
    "tokens": (4, 9, 3),
    "class token and tokens": (4, 10, 3),
    "vector": (4, 3),
}


@pytest.mark.parametrize("theirs", SHAPES)
@pytest.mark.parametrize("ours", SHAPES)
def test_features_of_every_two_shapes_can_be_compared(ours, theirs):
    h, g = drawn(1, *SHAPES[ours]).float(), drawn(2, *SHAPES[theirs]).float()
    data = Columns(h, torch.zeros(4), g, batch_size=4)
    torch.manual_seed(0)
    for objective in (
        hints(nothing, Saying(), "body", data),
        relational_distillation(nothing, "body"),
    ):
        loss, gradient = value_and_gradient(on_features(objective, g), h)
        assert loss > 0 and gradient.isfinite().all() and gradient.abs().max() > 0
    attention = on_features(attention_transfer(nothing, "body"), g)
    if "vector" in (ours, theirs):
        with pytest.raises(ValueError, match="a single place"):
            attention(h)
    else:
        assert attention(h) > 0


def test_tokens_are_the_grid_they_were_cut_from_and_the_class_token_is_left_out():
    grid, h = drawn(1, 4, 3, 3, 3), drawn(2, 4, 5, 3, 3)
    tokens = grid.flatten(2).transpose(1, 2)
    loss = lambda g: on_features(attention_transfer(nothing, "body"), g)(h)
    assert torch.equal(loss(tokens), loss(grid))
    assert torch.equal(loss(torch.cat([drawn(3, 4, 1, 3), tokens], 1)), loss(grid))


def test_hints_are_the_mean_square_behind_a_projector():
    h, g = drawn(1, 5, 3, 4, 4), drawn(2, 5, 7, 2, 2)
    data = Columns(h, torch.zeros(5), g)
    objective = hints(nothing, Saying(), "body", data, strength=3.0).double()
    (r,) = objective.projectors
    assert (r.weight.shape, r.kernel_size) == ((7, 3, 1, 1), (1, 1))
    pooled = h.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    projected = torch.einsum("oc,ncij->noij", r.weight[:, :, 0, 0], pooled) + r.bias[:, None, None]
    assert torch.allclose(on_features(objective, g)(h), 3 * (projected - g).square().mean())


def features_of(name, at, n=8):
    """A set with the logits and one feature of a teacher of a family."""
    torch.manual_seed(5)
    x = torch.randn(n, 3, 32, 32, generator=generator(3))
    data = Columns(x, torch.arange(n) % 10, batch_size=4)
    return taught(freeze(tap(FAMILIES[name](), [at])), data)


AT = {"resnet": "layer3", "vgg": "features", "vit": "encoder"}


@pytest.mark.parametrize("teacher", FAMILIES)
@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("made", [hints, attention_transfer, relational_distillation])
def test_every_family_teaches_every_family(made, student, teacher):
    data, student_at = features_of(teacher, AT[teacher]), AT[student]
    torch.manual_seed(0)
    learner = FAMILIES[student]()
    inner = knowledge_distillation()
    extra = (learner, student_at, data) if made is hints else (student_at,)
    objective = made(inner, *extra)
    params = [*learner.parameters(), *objective.parameters()]
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    step = Step(learner, objective, torch.optim.SGD(params, 1e-3))
    history = fit(step, data, epochs=1, report=False)
    assert all(map(math.isfinite, history.losses))
    assert all(not torch.equal(p, before[name]) for name, p in objective.named_parameters())
    assert bool(before) == (made is hints)


def test_feature_objectives_nest_in_one_forward():
    torch.manual_seed(0)
    teacher = freeze(tap(FAMILIES["resnet"](), ["layer2", "layer3"]))
    x = torch.randn(8, 3, 32, 32)
    data = taught(teacher, Columns(x, torch.arange(8), batch_size=8))
    student, calls = FAMILIES["resnet"](), []
    student.conv1.register_forward_hook(lambda *_: calls.append(1))
    inner = attention_transfer(knowledge_distillation(), "layer2")
    both = relational_distillation(inner, "layer3")
    batch = next(data.batches())
    student.eval()
    loss, z = both(student, *batch)
    assert len(calls) == 1 and torch.equal(z, student(x))
    parts = [
        inner(student, *batch[:-1])[0],
        relational_distillation(nothing, "layer3")(student, *batch[:2], batch[-1])[0],
    ]
    assert torch.allclose(loss, sum(parts))
    several = attention_transfer(nothing, ["layer2", "layer3"])(student, *batch[:2], *batch[-2:])[0]
    each = [
        attention_transfer(nothing, n)(student, *batch[:2], g)[0]
        for n, g in zip(("layer2", "layer3"), batch[-2:], strict=True)
    ]
    assert torch.allclose(several, sum(each))


def test_a_projector_is_trained_saved_and_copied(tmp_path):
    def made():
        data = features_of("resnet", "layer3")
        torch.manual_seed(1)
        student = FAMILIES["resnet"]()
        objective = hints(knowledge_distillation(), student, "layer2", data)
        params = [*student.parameters(), *objective.parameters()]
        return Step(student, objective, torch.optim.AdamW(params, 1e-3)), data

    straight, data = made()
    fit(straight, data, epochs=2, report=False)
    half, data = made()
    for tick in train(half, data, epochs=2):
        if tick.i == 1:
            break
    save_checkpoint(tmp_path / "half.safetensors", half, 2)
    resumed, data = made()
    start = load_checkpoint(tmp_path / "half.safetensors", resumed)
    fit(resumed, data, epochs=2, start=start, report=False)
    assert fingerprint(resumed.modules) == fingerprint(straight.modules)
    twin = copy.deepcopy(straight.objective)
    assert twin.projectors[0].weight is not straight.objective.projectors[0].weight
    with torch.no_grad():
        twin.projectors[0].weight.zero_()
    assert twin.term is straight.objective.term and straight.objective.projectors[0].weight.any()
    with pytest.raises(ValueError, match="trainable but not in the optimizer"):
        Step(straight.model, straight.objective, torch.optim.SGD(straight.model.parameters(), 0.1))


# ---------------------------------------------------------------- several models


def pair():
    torch.manual_seed(2)
    return [nn.Linear(4, C).double() for _ in range(2)]


def test_a_committee_answers_with_the_log_of_the_mean_probability():
    models, x = [*pair(), *pair()], drawn(5, 7, 4)
    with torch.no_grad():
        p = torch.stack([m(x).softmax(1) for m in models])
        for weights, share in (
            (None, torch.full((4,), 0.25)),
            ((1, 2, 3, 4), torch.arange(1, 5) / 10),
        ):
            z = Committee(*models, weights=weights)(x)
            assert torch.allclose(z.exp().double(), (share[:, None, None] * p).sum(0), atol=1e-6)
        entropy = -(p * p.log()).sum(2)
        share = (1 / entropy) / (1 / entropy).sum(0)
        z = Committee(*models, weights="confidence")(x)
        assert torch.allclose(z.exp().double(), (share[..., None] * p).sum(0), atol=1e-5)
        sure = [torch.tensor([[900.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
        z = Committee(*models[:2], weights="confidence").vote(sure)
        assert z.isfinite().all() and z.softmax(1)[0, 0] > 0.999


def test_a_class_that_a_member_rules_out_is_no_end_of_the_committee():
    jury = Committee(*pair(), weights="confidence")
    sure = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    z = jury.vote([sure, torch.zeros(1, 3)])
    p, weights = torch.tensor([[0.5, 0.0, 0.5], [1 / 3] * 3]), torch.tensor([2.0, 3.0]).log()
    share = (1 / weights) / (1 / weights).sum()
    assert torch.allclose(z.exp(), share @ p, atol=1e-6)
    z[0, 0].backward()
    assert sure.grad.isfinite().all()


def test_a_committee_is_a_teacher_in_every_mode():
    torch.manual_seed(0)
    teachers = [nn.Sequential(nn.Flatten(), nn.Linear(27, 4)) for _ in range(2)]
    x = torch.randn(10, 3, 3, 3, generator=generator(1))
    data, jury = Columns(x, torch.arange(10) % 4, batch_size=5), freeze(Committee(*teachers))
    assert torch.equal(taught(jury, data).columns[2], predict(jury, data))
    x, _, t = next(taught(jury, augment(data, Flip())).batches())
    assert torch.equal(jury(x), t)


def test_mutual_learning_is_the_formula_and_each_is_a_constant_to_the_other():
    models, x, y = pair(), drawn(5, N, 4), labels()
    model = Committee(*models)
    loss, z = mutual_learning(2.0, 0.5)(model, x, y)
    assert torch.allclose(z, model(x))
    loss.backward()
    for own, other in (models, models[::-1]):
        fixed, weight = other(x).detach(), own.weight.detach().clone().requires_grad_()
        mine = x @ weight.T + own.bias.detach()
        wanted = slow_ce(mine, y) + 0.5 * slow_kd(mine, fixed, y, 2.0, 1.0)
        wanted.backward()
        assert torch.allclose(own.weight.grad, weight.grad)
    both = sum(
        slow_ce(a(x), y) + 0.5 * slow_kd(a(x), b(x), y, 2.0, 1.0) for a, b in (models, models[::-1])
    )
    assert torch.allclose(loss, both)


def test_three_learn_from_the_mean_of_the_other_two():
    models, x, y = [*pair(), nn.Linear(4, C).double()], drawn(5, N, 4), labels()
    z = [m(x) for m in models]
    wanted = sum(slow_ce(v, y) for v in z)
    for k in range(3):
        wanted = wanted + sum(slow_kd(z[k], z[j], y, 1.0, 1.0) for j in range(3) if j != k) / 2
    assert torch.allclose(mutual_learning()(Committee(*models), x, y)[0], wanted)


def test_a_pair_is_trained_by_step_and_scored():
    x, y = torch.randn(40, 4, generator=generator(4)), torch.arange(40) % 3
    x[range(40), y] += 3
    model = Committee(nn.Linear(4, 3), nn.Linear(4, 3))
    data = Columns(x, y, batch_size=10, shuffle=True)
    step = Step(model, mutual_learning(), torch.optim.AdamW(model.parameters(), 0.1))
    history = fit(step, data, data, epochs=10, report=False)
    assert history["score"][-1] > 0.85 and evaluate(model.models[0], data) > 0.8


# ---------------------------------------------------------------- the teacher


def teacher_of(images_shape=(3, 8, 8), classes=4, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(images_shape[0], 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, classes),
    )
    model(torch.randn(16, *images_shape))  # statistics of its own
    return model


def images_of(n=20, device="cpu", **settings):
    x = torch.randint(0, 256, (n, 3, 8, 8), generator=generator(7)).float() / 64
    return Columns(x.to(device), (torch.arange(n) % 4).to(device), **{"batch_size": 5, **settings})


MODES = {
    "cached": lambda data: data,
    "views": lambda data: views(data, 2, Crop(1)),
    "live": lambda data: augment(data, Crop(1)),
    "mixed": lambda data: mixup(data, 4),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_teacher_stands_still_whatever_train_does(mode, device):
    teacher = freeze(teacher_of().to(device))
    before, made = fingerprint(teacher), MODES[mode](images_of(device=device, shuffle=True))
    teacher.train()  # somebody calls it
    data = taught(teacher, made)
    student = teacher_of(seed=1).to(device)
    both = nn.ModuleDict({"student": student, "teacher": teacher})
    step = Step(student, knowledge_distillation(), torch.optim.SGD(student.parameters(), 0.1))
    for tick in train(step, data, epochs=2):
        both.train()
        assert len(tick.batch) == 3 and not tick.batch[2].requires_grad
        quiet = copy.deepcopy(teacher).eval()
        assert torch.allclose(tick.batch[2], quiet(tick.batch[0]), atol=1e-6)
        train_mode(both)
        assert not any(m.training for m in teacher.modules())
    assert fingerprint(teacher) == before
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_the_teachers_random_numbers_are_nobodys_business():
    teacher, data = freeze(teacher_of()), images_of()
    state = torch.get_rng_state()
    list(taught(teacher, augment(data, Flip())).batches())
    taught(teacher, data)
    assert torch.equal(state, torch.get_rng_state())


def counted(module, calls, name):
    module.register_forward_hook(lambda *_: calls.append(name))
    return module


def test_an_update_is_one_student_forward_one_backward_and_no_teacher():
    calls = []
    teacher = counted(freeze(teacher_of()), calls, "teacher")
    student = counted(teacher_of(seed=1), calls, "student")
    data = taught(teacher, images_of())
    assert calls == ["teacher"] * 4
    calls.clear()
    student[-1].weight.register_hook(lambda *_: calls.append("backward"))
    step = Step(student, knowledge_distillation(), torch.optim.SGD(student.parameters(), 0.1))
    for _ in train(step, data, epochs=2):
        assert calls == ["student", "backward"]
        calls.clear()


def test_a_live_teacher_is_asked_once_a_batch_and_not_differentiated():
    calls = []
    teacher = counted(freeze(teacher_of()), calls, "teacher")
    student = counted(teacher_of(seed=1), calls, "student")
    data = taught(teacher, augment(images_of(), Crop(1)))
    calls.clear()
    step = Step(student, knowledge_distillation(), torch.optim.SGD(student.parameters(), 0.1))
    for _ in train(step, data):
        assert calls == ["teacher", "student"]
        calls.clear()


def test_no_more_frames_between_fit_and_backward(monkeypatch):
    depths, backward = [], torch.Tensor.backward

    def spy(tensor, *args, **kwargs):
        names = [frame.function for frame in inspect.stack()[1:]]
        depths.append(names.index("test_no_more_frames_between_fit_and_backward"))
        return backward(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    student = teacher_of(seed=1)
    step = Step(student, knowledge_distillation(), torch.optim.SGD(student.parameters(), 0.1))
    fit(step, taught(freeze(teacher_of()), images_of()), report=False)
    assert depths == [3, 3, 3, 3]


NAMES = "soft targets,logits,decoupled,correlated,hints,attention,relations".split(",")


def every_objective(student, data):
    """An objective of each kind, for batches of logits and one feature."""
    inner = knowledge_distillation()
    return {
        "soft targets": inner,
        "logits": logit_matching(0.5),
        "decoupled": decoupled_distillation(),
        "correlated": correlation_distillation(),
        "hints": hints(inner, student, "0", data),
        "attention": attention_transfer(inner, "0"),
        "relations": relational_distillation(inner, "0"),
    }


def started(name, mode, device="cpu"):
    """Updates of a run that has begun."""
    data = images_of(40, device, shuffle=True)
    data = data if mode == "cached" else augment(data, lambda x, random: x)
    data = taught(freeze(tap(teacher_of().to(device), ["0"])), data)
    student = teacher_of(seed=1).to(device)
    objective = every_objective(student, data)[name]
    learned = [objective] if isinstance(objective, nn.Module) else []
    params = [p for m in (student, *learned) for p in m.parameters()]
    updates = train(Step(student, objective, torch.optim.SGD(params, 0.01)), data)
    next(updates)
    return updates


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("mode", ["cached", "live"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_step_reads_the_device(name, mode):
    updates = started(name, mode, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(updates)) == 7
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["cached", "live"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_step_reads_a_value_on_the_cpu_either(name, mode, monkeypatch):
    updates = started(name, mode)

    def refuse(*_):
        raise AssertionError("a step read a value")

    for read in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, read, refuse)
    count = sum(1 for _ in updates)
    monkeypatch.undo()
    assert count == 7


def test_a_column_is_a_live_teacher_to_the_bit():
    """A change that changes nothing makes the set a moving one, and the teacher is asked live."""
    torch.manual_seed(0)
    teacher, x = freeze(FAMILIES["resnet"]()), torch.randn(32, 3, 32, 32)
    data = Columns(x, torch.arange(32) % 10, batch_size=8, shuffle=True)
    live = taught(teacher, augment(data, lambda x, random: x))
    assert isinstance(live, Augmented)
    found = []
    for lessons in (live, taught(teacher, data)):
        torch.manual_seed(1)
        student = FAMILIES["vgg"]()  # dropout draws the same numbers beside a live teacher
        step = Step(student, knowledge_distillation(), torch.optim.SGD(student.parameters(), 0.1))
        losses = fit(step, lessons, epochs=2, report=False).losses
        found.append((losses, fingerprint(student)))
    assert found[0] == found[1]


def test_views_carry_their_own_answers_and_live_follows_the_epoch():
    teacher, data = freeze(teacher_of()), images_of()
    stored = taught(teacher, views(data, 3, Crop(2)))
    live = taught(teacher, augment(data, Crop(2)))
    for epoch in range(3):  # version j is what epoch j of the unshuffled set has
        rows = torch.cat([batch[2] for batch in live.batches(epoch)])
        assert torch.allclose(rows, stored.columns[2][20 * epoch : 20 * epoch + 20], atol=1e-6)
    first, second = (next(live.batches(epoch))[2] for epoch in (0, 1))
    assert not torch.equal(first, second)
    again = list(live.batches(1, start=2))
    assert all(map(torch.equal, again[0], list(live.batches(1))[2]))


def test_a_taught_set_is_a_set(device):
    teacher = freeze(teacher_of().to(device))
    for made in (images_of(device=device), augment(images_of(device=device), Crop(1))):
        data = taught(teacher, made)
        some = data.take(torch.tensor([3, 1, 4], device=device)).like(batch_size=3, shuffle=True)
        x, y, t = next(some.batches())
        assert len(some) == 3 and torch.allclose(t, teacher(x), atol=1e-6)
        assert evaluate(teacher, data) == evaluate(teacher, images_of(device=device))
        with pytest.raises(ValueError, match="Column 2 was computed"):
            augment(some, Crop(1))
        with pytest.raises(ValueError, match=r"Column 2 was computed|3 columns"):
            mixup(data, 4)


def test_features_follow_the_logits_and_amp_is_obeyed():
    teacher = freeze(tap(teacher_of(), ["0", "5"]))
    for made in (images_of(), augment(images_of(), Crop(1))):
        x, y, t, first, second = next(taught(teacher, made).batches())
        assert (t.shape, first.shape, second.shape) == ((5, 4), (5, 6, 6, 6), (5, 6))
        low = next(taught(teacher, made, amp=bf16("cpu")).batches())[2]
        assert torch.equal(low, low.bfloat16().to(low.dtype))  # kept in half, widened in batches
        assert not torch.equal(t, t.bfloat16().float())


@pytest.mark.parametrize("mode", MODES)
def test_a_second_teacher_would_not_be_heard_and_is_refused(mode):
    data = taught(freeze(teacher_of()), MODES[mode](images_of()))
    other = freeze(teacher_of(seed=1))
    for some in (data, data.take(slice(0, 10)), data.like(shuffle=True)):
        with pytest.raises(ValueError, match="a teacher's answers already"):
            taught(other, some)


def test_columns_that_are_no_answers_do_not_keep_a_teacher_away():
    teacher, data = freeze(teacher_of()), images_of()
    pair = data.columns
    assert len(taught(teacher, taught(teacher, data).like(*pair)).columns) == 3  # taken off again
    assert len(taught(teacher, data.like(*pair, torch.arange(20))).columns) == 4
    body, head = freeze(teacher[:-1]), freeze(teacher[-1])
    kept = taught(head, cache(body, data))  # features in the place of images (lesson 06)
    assert torch.allclose(kept.columns[2], taught(teacher, data).columns[2], atol=1e-6)


def test_hints_need_features_behind_the_logits():
    teacher, student = freeze(teacher_of()), teacher_of(seed=1)
    for made in (images_of(), augment(images_of(), Crop(1))):
        plain, one = taught(teacher, made), taught(freeze(tap(teacher, ["0"])), made)
        with pytest.raises(ValueError, match=r"hold 0 columns of features.* 1 modules"):
            hints(cross_entropy(), student, "0", plain)
        with pytest.raises(ValueError, match=r"hold 1 columns of features.* 2 modules"):
            hints(cross_entropy(), student, ["5", "0"], one)
        hints(knowledge_distillation(), student, "0", one)


def test_swins_features_are_read_behind_its_permute():
    """The docstring of `hints` names that module."""
    from torchvision.models.swin_transformer import SwinTransformer

    assert "channels last" in hints.__doc__ and "`permute`" in hints.__doc__
    swin = SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=4).eval()
    _, found = tap(swin, ["norm", "permute"])(torch.randn(2, 3, 32, 32))
    assert found["norm"].shape == (2, 4, 4, 24) and found["permute"].shape == (2, 24, 4, 4)


def test_a_sigmoid_is_no_end_of_a_teacher_of_yes_or_no_questions():
    x, y = images_of().columns
    questions = Columns(x, torch.rand(20, 4).round(), batch_size=5)
    for made in (questions, augment(questions, Crop(1))):
        with pytest.raises(ValueError, match="from 0 to 1 only, as a sigmoid"):
            taught(freeze(nn.Sequential(teacher_of(), nn.Sigmoid())), made)
        assert taught(freeze(teacher_of()), made)
    # numbers from 0 to 1 may be logits where one class is asked for
    assert taught(freeze(nn.Sequential(teacher_of(), nn.Sigmoid())), Columns(x, y))


# ---------------------------------------------------------------- kept in a file


def test_answers_are_kept_for_one_teacher_and_one_set_of_images(tmp_path):
    calls, path = [], tmp_path / "answers.safetensors"
    teacher, data = counted(freeze(teacher_of()), calls, 1), images_of()
    first = taught(teacher, data, path)
    assert len(calls) == 4
    again = taught(teacher, data.like(batch_size=10, shuffle=True), path)
    assert len(calls) == 5  # one batch, to see that it is the same teacher
    assert torch.equal(again.columns[2], first.columns[2]) and again.derived == first.derived
    assert again.shuffle and again.batch_size == 10
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["teacher"] == fingerprint(teacher) and len(card["images"]) == 64
    kept = path.read_bytes()
    relabelled = data.like(data.columns[0], torch.zeros(20, dtype=torch.int64))
    assert torch.equal(taught(teacher, relabelled, path).columns[2], first.columns[2])
    for other, images, what in (
        (freeze(teacher_of(seed=1)), data, "its teacher differs: give"),
        (teacher, data.take(slice(0, 15)), "its images differ"),
        (teacher, data.take(torch.arange(19, -1, -1)), "its images differ"),
        (freeze(teacher_of(seed=1)), views(data, 2, Crop(1)), "its teacher and images differ: "),
    ):
        with pytest.raises(ValueError, match=what):
            taught(other, images, path)
    assert path.read_bytes() == kept


def test_the_same_weights_in_another_model_are_another_teacher(tmp_path):
    path, data = tmp_path / "answers.safetensors", images_of()
    model = teacher_of()
    taught(freeze(model), data, path)
    model[2] = freeze(nn.Tanh())  # a fingerprint knows nothing of code
    with pytest.raises(ValueError, match="the same weights in another model"):
        taught(model, data, path)
    taps = [freeze(tap(model, [name])) for name in ("1", "2")]
    taught(taps[0], data, tmp_path / "deep.safetensors")
    again = taught(taps[0], data, tmp_path / "deep.safetensors")
    assert torch.equal(again.columns[3], cache(taps[0], data, append=True).columns[3])
    with pytest.raises(ValueError, match="the same weights in another model"):
        taught(taps[1], data, tmp_path / "deep.safetensors")


def test_a_damaged_file_is_refused_and_a_failed_run_leaves_none(tmp_path):
    path, data, teacher = tmp_path / "answers.safetensors", images_of(), freeze(teacher_of())
    with pytest.raises(ValueError, match="probabilities"):
        taught(freeze(nn.Sequential(teacher_of(), nn.Softmax(1))), data, path)
    assert not list(tmp_path.iterdir())
    taught(teacher, data, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="truncated"):
        taught(teacher, data, path)


def test_nothing_is_read_of_a_held_out_set():
    test = HeldOut(*images_of().columns, quiet=True)
    with pytest.raises(ValueError, match="held-out"):
        taught(freeze(teacher_of()), test)
    assert test.reads == 0


class Loud(nn.Module):
    """A teacher whose logits are too large for half precision."""

    def forward(self, x):
        return 1e6 * (1 + x.flatten(1)[:, :4]).half()


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_looked_at_in_every_mode(mode):
    data = MODES[mode](images_of())
    for teacher, words in (
        (Loud(), "not finite, in torch.float16"),
        (nn.Sequential(teacher_of(), nn.Softmax(1)), "with probabilities"),
        (teacher_of(classes=2), "2 classes, but there are 4" if mode != "mixed" else None),
        (nn.Identity(), "has to give logits"),
    ):
        if words:
            with pytest.raises(ValueError, match=words):
                taught(freeze(teacher), data)
    assert taught(freeze(Committee(teacher_of())), data)  # log-probabilities are logits


class Named:
    """What a fine-tuned model looks like from here."""

    def __init__(self, model, classes):
        self.model, self.classes = model, classes


def test_classes_are_compared_by_name_where_there_are_names():
    teacher, data = freeze(teacher_of()), images_of()
    names = ["ant", "bee", "cat", "dog"]
    same = taught(Named(teacher, names), data, classes=names)
    assert torch.equal(same.columns[2], taught(teacher, data).columns[2])
    taught(Named(teacher, names), data)  # no names for the student: nothing to compare
    for ours, said in (
        (["ant", "cat", "bee", "dog"], "Class 1 is 'bee' for the teacher"),
        (names[:3], "Class 3 is 'dog' for the teacher .* and 'no class' for the student"),
        ([*names, "eel"], "'no class' for the teacher"),
    ):
        with pytest.raises(ValueError, match=said):
            taught(Named(teacher, names), data, classes=ours)
    with pytest.raises(ValueError, match="answers with 4 classes, but there are 5"):
        taught(teacher, data, classes=[*names, "eel"])
    beyond = data.like(data.columns[0], torch.full((20,), 5))
    for ours in (names, None):
        with pytest.raises(ValueError, match="answers with 4 classes, but there are 6"):
            taught(teacher, beyond, classes=ours)
    with pytest.raises(ValueError, match=r"freeze\(teacher.model\)"):
        taught(Named(teacher_of(), names), data)


def test_views_of_a_live_teachers_answers_cannot_be_augmented_afterwards():
    live = taught(freeze(teacher_of()), augment(images_of(), Crop(1)))
    stored = views(live, 2)
    assert type(stored) is Columns and list(stored.derived) == [2]
    with pytest.raises(ValueError, match="Column 2 was computed from the images"):
        augment(stored, Crop(1))

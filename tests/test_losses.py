"""Objectives against torch's own losses, their gradients, and the sentence of every refusal."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ftlearn.losses import binary_cross_entropy, cross_entropy, mse

SAME = nn.Identity()


def logits(n=12, classes=5, *space):
    draw = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(n, classes, *space, generator=draw)
    return z, torch.randint(0, classes, (n, *space), generator=draw)


def loss_of(objective, z, y, *more):
    return objective(SAME, z, y, *more)[0]


WEIGHTS = [None, [1, 2, 0.5, 4, 0]]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("space", [(), (4,), (3, 2)])
@pytest.mark.parametrize("kind", ["index", "byte", "soft"])
def test_cross_entropy_is_torchs(weight, smoothing, space, kind, device):
    z, y = (t.to(device) for t in logits(12, 5, *space))
    if kind == "soft":
        y = logits(12, 5, *space)[0].flip(0).softmax(1).to(device)
    tensor = None if weight is None else torch.tensor(weight, device=device).float()
    right = F.cross_entropy(z, y, tensor, label_smoothing=smoothing)
    y = y.byte() if kind == "byte" else y
    assert torch.equal(loss_of(cross_entropy(smoothing, weight), z, y), right)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_cross_entropy_by_hand(weight):
    z, y = logits()
    w = torch.ones(5) if weight is None else torch.tensor(weight)
    each = -(z.double().log_softmax(1)[range(12), y])
    right = (w[y] * each).sum() / w[y].sum()
    assert loss_of(cross_entropy(weight=weight), z, y).item() == pytest.approx(
        right.item(), rel=1e-6
    )


def test_the_gradient_is_softmax_minus_target():
    z, y = logits()
    z.requires_grad_()
    for target in (y, z.detach().flip(0).softmax(1)):
        (slope,) = torch.autograd.grad(loss_of(cross_entropy(), z, target), z)
        hot = target if target.is_floating_point() else F.one_hot(target, 5)
        assert torch.allclose(slope, (z.softmax(1) - hot) / 12, atol=1e-7)


def test_start_and_extremes():
    assert loss_of(cross_entropy(), torch.zeros(3, 7), torch.arange(3)).item() == pytest.approx(
        math.log(7)
    )
    for gap, right in ((300.0, 300.0), (-300.0, 0.0), (3e4, 3e4)):
        z = torch.tensor([[0.0, gap]], requires_grad=True)
        loss = loss_of(cross_entropy(), z, torch.tensor([0]))
        assert loss.item() == right
        assert torch.autograd.grad(loss, z)[0].isfinite().all()


OBJECTIVES = {
    "cross_entropy": (cross_entropy, lambda z: z.argmax(1)),
    "soft": (cross_entropy, lambda z: z.softmax(1)),
    "mse": (mse, lambda z: z + 1),
    "binary": (binary_cross_entropy, lambda z: z.sigmoid()),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_loss_is_in_float32(name, dtype):
    make, target = OBJECTIVES[name]
    z = logits()[0].to(dtype)
    y = target(z.float())
    loss, out = make()(SAME, z, y)
    assert loss.dtype == torch.float32 and loss.shape == () and out is z
    assert torch.allclose(loss, loss_of(make(), z.float(), y))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_under_autocast(name, device):
    make, target = OBJECTIVES[name]
    torch.manual_seed(0)
    model = nn.Linear(8, 5).to(device)
    x = torch.randn(12, 8, device=device)
    y = target(model(x)).detach()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss, out = make()(model, x, y)
    assert loss.dtype == torch.float32 and out.dtype == torch.bfloat16
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_targets():
    z = logits()[0]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        p = z.flip(0).softmax(1).to(dtype)
        assert torch.equal(loss_of(cross_entropy(), z, p), F.cross_entropy(z, p.float()))


def test_further_columns_are_ignored():
    z, y = logits()
    for make, target in OBJECTIVES.values():
        assert torch.equal(loss_of(make(), z, target(z), y, None), loss_of(make(), z, target(z)))


def test_mse_and_binary_are_torchs(device):
    z = logits()[0].to(device)
    y = logits()[1].float().to(device)
    assert torch.equal(loss_of(mse(), z[:, 0], y), F.mse_loss(z[:, 0], y))
    truth = (z.flip(0) > 0).float()
    right = F.binary_cross_entropy_with_logits(z, truth)
    assert torch.equal(loss_of(binary_cross_entropy(), z, truth), right)
    assert torch.equal(loss_of(binary_cross_entropy(), z, truth.long()), right)
    assert torch.equal(loss_of(binary_cross_entropy(), z, truth.bool()), right)


def test_weights_are_not_the_callers():
    weight = torch.tensor([1.0, 2, 3, 4, 5])
    objective, (z, y) = cross_entropy(weight=weight), logits()
    first = loss_of(objective, z, y)
    assert torch.equal(first, loss_of(objective, z, y))
    weight[:] = 1
    assert torch.equal(first, loss_of(objective, z, y))


Z, Y = logits()
REFUSALS = [
    (ValueError, "label_smoothing is 1:", lambda: cross_entropy(1)),
    (ValueError, "label_smoothing is -0.1", lambda: cross_entropy(-0.1)),
    (ValueError, "label_smoothing is nan", lambda: cross_entropy(float("nan"))),
    (ValueError, "weight must be one number per class", lambda: cross_entropy(weight=[1, -1])),
    (ValueError, "weight must be one number per class", lambda: cross_entropy(weight=[[1.0]])),
    (
        ValueError,
        "weight must be one number per class",
        lambda: cross_entropy(weight=[1, math.nan]),
    ),
    (
        ValueError,
        "weight must be one number per class",
        lambda: cross_entropy(weight=[1, math.inf]),
    ),
    (
        ValueError,
        "labels run from 0 to 5, but the model has 5",
        lambda: loss_of(cross_entropy(), Z, Y + (Y == 4)),
    ),
    (
        ValueError,
        "labels run from -100 to",
        lambda: loss_of(cross_entropy(), Z, Y - 100 * (Y == 0)),
    ),
    (ValueError, "labels are torch.int32:", lambda: loss_of(cross_entropy(), Z, Y.int())),
    (ValueError, "labels are torch.bool:", lambda: loss_of(cross_entropy(), Z, Y > 2)),
    (
        ValueError,
        "labels are torch.float32 of shape",
        lambda: loss_of(cross_entropy(), Z, Y.float()),
    ),
    (ValueError, r"labels have shape \(12, 1\)", lambda: loss_of(cross_entropy(), Z, Y[:, None])),
    (
        ValueError,
        r"returned shape \(12, 5\) for 11 labels",
        lambda: loss_of(cross_entropy(), Z, Y[:11]),
    ),
    (ValueError, r"returned shape \(12,\)", lambda: loss_of(cross_entropy(), Z[:, 0], Y)),
    (ValueError, r"returned shape \(12,\)", lambda: loss_of(cross_entropy(), Z[:, 0], Y.float())),
    (
        ValueError,
        "cross-entropy over one class is always 0",
        lambda: loss_of(cross_entropy(), Z[:, :1], 0 * Y),
    ),
    (ValueError, "2 class weights for 5", lambda: loss_of(cross_entropy(weight=[1, 2]), Z, Y)),
    (TypeError, "returned a tuple", lambda: cross_entropy()(lambda x: (x, x), Z, Y)),
    (TypeError, "returned a NoneType", lambda: mse()(lambda x: None, Z, Y)),
    (
        ValueError,
        r"returned shape \(12, 1\) and the targets have \(12,\)",
        lambda: loss_of(mse(), Z[:, :1], Y),
    ),
    (
        ValueError,
        r"returned shape \(12, 5\) and the targets have \(12,\)",
        lambda: loss_of(binary_cross_entropy(), Z, Y),
    ),
]


@pytest.mark.parametrize("kind, words, use", REFUSALS)
def test_refusals(kind, words, use):
    with pytest.raises(kind, match=words) as error:
        use()
    assert str(error.value).endswith(".") and "\n" not in str(error.value)

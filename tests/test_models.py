"""Cutting, tapping and converting models: all of torchvision's classifiers, and odd ones."""

import copy
import re
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models as zoo

from ftlearn.freezing import freeze
from ftlearn.models import (
    Normalize,
    View,
    adapt_input,
    glyphnet,
    named,
    replace_head,
    split,
    stages,
    tap,
)
from ftlearn.training import train_mode
from ftlearn.weights import save_weights

BUILDERS = zoo.list_models(module=zoo)
HEADS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Weightless(TorchFunctionMode):
    """Parameters on the meta device: a builder costs neither memory nor initialisation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def weightless(name, **options):
    with Weightless():
        return zoo.get_model(name, weights=None, **HEADS.get(name, {}), **options)


def cheap(name, **options):
    """The builder's model with He-sized weights from one short random row: 0.1 s for a VGG."""
    model, row = weightless(name, **options), torch.rand(4099)
    for module in model.modules():
        for key, p in module._parameters.items():
            if p is not None and p.is_meta:
                values = row.repeat(-(-p.numel() // len(row)))[: p.numel()].view(p.shape)
                if p.ndim > 1:
                    values = (2 * values - 1) * (6 / p[0].numel()) ** 0.5
                setattr(module, key, nn.Parameter(values.clone()))
    return model


def identities(module):
    return {id(t) for t in [*module.parameters(), *module.buffers()]}


def seeded(call, x):
    torch.manual_seed(1)
    return call(x)


def assert_cut(model, x, *places):
    """head(body(x)) is model(x) to the bit, in evaluation and, with equal RNG, in training."""
    cuts = [split(model, at) for at in places]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for mode in (False, True):
        model.train(mode)
        with torch.no_grad():
            whole = seeded(model, x)
            assert whole.isfinite().all() and whole.std() > 0
            for (body, head), at in zip(cuts, places):
                body.train(mode), head.train(mode)
                for name, buffer in model.named_buffers():
                    buffer.copy_(before[name])
                assert torch.equal(seeded(lambda x: head(body(x)), x), whole), (at, mode)  # noqa: B023
    return cuts[0]


# ---- all of torchvision ----


def test_torchvision_has_the_builders_we_count():
    assert len(BUILDERS) >= 80


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_can_be_staged_cut_and_given_a_head(name):
    model = weightless(name)
    names = [n for n, _ in stages(model)]
    assert len(names) >= 3 and len(set(names)) == len(names) and names[-1] == "head"
    for at in names:
        body, head = split(model, at)
        mine, yours, all_ = identities(body), identities(head), identities(model)
        assert not mine & yours and mine | yours == all_, at
        state = body.state_dict().keys() | head.state_dict().keys()
        assert state == model.state_dict().keys(), at
    old, kept = head, {n: t for n, t in model.state_dict(keep_vars=True).items()}
    replace_head(model, 7)
    new = model.state_dict(keep_vars=True)
    changed = {n for n in new if new[n] is not kept[n]}
    assert changed == set(old.state_dict()) and list(new) == list(kept)
    assert all(len(new[n]) == 7 for n in changed)


SMALLEST = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32,
    "efficientnet_v2_s": 32, "googlenet": 32, "inception_v3": 75, "maxvit_t": 224,
    "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_x_400mf": 32,
    "regnet_y_400mf": 32, "resnet18": 32, "resnext50_32x4d": 32, "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32, "swin_t": 32, "swin_v2_t": 32, "vgg11_bn": 32, "vit_b_32": 64,
    "wide_resnet50_2": 32,
}  # fmt: skip


def test_every_family_has_a_member_that_is_run():
    def family(name):
        return re.match(r"[a-z]+(_v\d|_[xy])?", name)[0].rstrip("_").replace("wide", "wide_resnet")

    assert {family(n) for n in BUILDERS} == {family(n) for n in SMALLEST}


@pytest.mark.parametrize("name", SMALLEST)
def test_every_family_is_cut_exactly_in_both_modes(name, device):
    options = {"image_size": 64} if name.startswith("vit") else {}
    model = cheap(name, num_classes=5, **options).to(device)
    size = SMALLEST[name]
    x = torch.rand(1 if size > 200 else 2, 3, size, size, device=device)
    names = [n for n, _ in stages(model)]
    assert_cut(model, x, names[len(names) // 2], "head")


@pytest.mark.parametrize(
    "name, at",
    [
        ("resnet18", "layer3.1"),
        ("resnet18", "layer3.1.conv1"),
        ("mobilenet_v2", "features.5"),
        ("efficientnet_b0", "features.3.1"),
        ("swin_t", "features.3.1"),
    ],
)
def test_a_dotted_name_can_be_cut(name, at):
    assert_cut(cheap(name), torch.rand(2, 3, 64, 64), at)


@pytest.mark.parametrize("at", ["conv_proj", "encoder.layers.encoder_layer_1", "encoder.ln"])
def test_a_transformer_with_dropout_and_a_class_token_is_cut(at):
    model = zoo.VisionTransformer(32, 16, 2, 2, 16, 32, dropout=0.1, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero
    assert_cut(model, torch.rand(2, 3, 32, 32), at)


def test_auxiliary_heads_are_removed():
    model = weightless("googlenet")
    split(model, "head")
    assert model.aux1 is None and model.aux2 is None and not model.aux_logits
    model = replace_head(weightless("inception_v3"), 4)
    assert model.AuxLogits is None and not model.aux_logits


# ---- models of users ----


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)


class OwnParameters(Base):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.3))
        self.shift = nn.Parameter(torch.ones(6))
        self.register_buffer("centre", torch.full((6,), 0.5))

    def forward(self, x):
        h = self.one((x - self.centre) * self.shift).relu()
        return self.fc(self.two(h)) * self.log_scale.exp()


class FunctionalDropout(Base):
    def forward(self, x):
        h = nn.functional.dropout(self.one(x), 0.5, self.training)
        return self.fc(nn.functional.dropout(self.two(h), 0.5, self.training))


class NoiseInTraining(Base):
    def __init__(self):
        super().__init__()
        self.noise = nn.Dropout(0.9)

    def forward(self, x, mask=None):
        h = self.two(self.one(x))
        return self.fc(self.noise(h) if self.training else h)


class Twice(Base):
    def forward(self, x):
        return self.fc(self.two(self.two(self.one(x)).relu()).relu())


class ReadsShape(Base):
    def forward(self, x):
        h = self.one(x)
        n = h.shape[0]
        return self.fc(self.two(h).view(n, -1))


class Constant(Base):
    def forward(self, x):
        return self.fc(self.two(self.one(x) * torch.arange(8.0)))


class BranchInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Branching(Base):
    def __init__(self):
        super().__init__()
        self.two = BranchInside()

    def forward(self, x):
        return self.fc(self.two(self.one(x)))


class Registered(Base):
    def __init__(self):
        nn.Module.__init__(self)
        self.fc, self.two, self.one = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(6, 8)

    def forward(self, x):
        return self.fc(self.two(self.one(x)).relu())


class Listed(Base):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        x = self.two(self.one(x))
        for block in self.blocks:
            x = x + block(x)
        return self.fc(x)


CUTS = [
    (OwnParameters, "one two fc head"),
    (FunctionalDropout, "one two fc head"),
    (NoiseInTraining, "one two fc head"),
    (Twice, "one two fc head"),
    (ReadsShape, "one fc head"),
    (Constant, "one two head"),
    (Branching, "one two head"),
    (Registered, "one two head"),
    (Listed, "two blocks blocks.0 blocks.2 head"),
]


@pytest.mark.parametrize("kind, names", CUTS)
def test_a_users_module_is_cut(kind, names):
    for at in names.split():
        model = kind()
        body, head = assert_cut(model, torch.rand(4, 6), at)
        assert identities(body) | identities(head) >= identities(model)


def test_a_module_used_on_both_sides_belongs_to_both():
    model = Twice()
    body, head = split(model, "fc")
    assert body.two is model.two and not hasattr(head, "two")


def test_a_parameter_that_forward_uses_gets_its_gradient_through_the_view():
    model, x = OwnParameters(), torch.rand(4, 6)
    for _ in range(2):  # a second backward would fail on a value baked into the trace
        model.zero_grad()
        body, head = split(model, "two")
        head(body(x)).sum().backward()
        seen = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        model(x).sum().backward()
        assert all(torch.equal(a, p.grad) for a, p in zip(seen, model.parameters()))


@pytest.mark.parametrize("at", ["0", "2", "3.1", "head"])
def test_a_plain_sequential_is_cut(at):
    inner = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), inner)
    assert_cut(model, torch.rand(4, 6), at)
    assert stages(model)[-1][1] is inner[1]


def test_glyphnet_is_cut_everywhere():
    model, x = glyphnet(), torch.randint(17, (4, 1, 8, 8), dtype=torch.uint8)
    for at, _ in stages(model):
        assert_cut(model, x, at)


# ---- names ----


def behind(model):
    return nn.Sequential(OrderedDict(normalize=Normalize([0.5] * 3, [0.2] * 3), net=model))


@pytest.mark.parametrize(
    "at, full",
    [
        ("layer4", "net.layer4"),
        ("layer4.1", "net.layer4.1"),
        ("net.layer4", "net.layer4"),
        ("layer4.0.downsample", "net.layer4.0.downsample"),
        ("net", "net"),
        ("fc", "net.fc"),
        ("head", "net.fc"),
    ],
)
def test_the_end_of_a_name_is_enough_where_no_other_module_has_it(at, full):
    model = behind(weightless("resnet18"))
    assert named(model, at) == full
    if at != "layer4.0.downsample" and at != "net":
        ours, theirs = split(model, at), split(model, full if at != "head" else "head")
        for one, two in zip(ours, theirs):
            assert list(one.state_dict()) == list(two.state_dict())


def test_a_complete_name_comes_before_an_ending():
    model = weightless("resnet18")
    assert named(model, "conv1") == "conv1" and named(model, "layer1.0.conv1") == "layer1.0.conv1"


def test_the_end_of_a_name_is_whole_words():
    for at in ("ayer4", "et.layer4", "4.", ".layer4"):
        with pytest.raises(ValueError, match=f"Sequential has no module '{at}': choose"):
            named(behind(weightless("resnet18")), at)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "swin_t", "mnasnet0_5"])
def test_a_stage_keeps_its_name_behind_a_wrapper_or_is_refused_with_the_full_one(name):
    model = weightless(name)
    whole = behind(model)
    everything = [n for n, _ in whole.named_modules()]
    for at, _ in stages(model)[:-1]:
        if sum(n.endswith(f".{at}") for n in everything) == 1:
            assert named(whole, at) == f"net.{at}"
        else:
            with pytest.raises(ValueError, match=f"modules that end in '{at}': .*'net.{at}'"):
                named(whole, at)
    assert named(whole, "head") == f"net.{named(model, 'head')}"


def test_a_short_name_is_cut_and_tapped_like_the_full_one():
    model = behind(cheap("resnet18", num_classes=5)).eval()
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    body, head = split(model, "layer3")
    with torch.no_grad():
        whole, h = model(x), body(x)
        assert torch.equal(head(h), whole)
        logits, seen = tap(model, ["layer2", "net.layer2", "head"])(x)
    assert list(seen) == ["layer2", "net.layer2", "head"] and torch.equal(logits, whole)
    assert torch.equal(seen["layer2"], h) and torch.equal(seen["net.layer2"], h)
    assert torch.equal(seen["head"], whole)


# ---- views ----


def test_views_share_modules_and_follow_their_own_training_flag():
    model = zoo.resnet18()
    body, head = split(model.eval(), "layer3")
    assert not body.training and body.layer2 is model.layer2 and head.layer3 is model.layer3
    assert {m for m in body.modules() if m is not body} <= set(model.modules())
    body.train()
    assert model.layer1[0].bn1.training and not model.layer3[0].bn1.training


@pytest.mark.parametrize("at", ["1", "2", "2.1", "3"])
def test_stored_features_are_not_overwritten_by_a_layer_that_works_in_place(at):
    inner = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Dropout(inplace=True))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), inner, nn.Linear(144, 3))
    body, head = assert_cut(model, torch.rand(2, 3, 8, 8), at)
    with torch.no_grad():
        h = body(torch.randn(2, 3, 8, 8))
        stored = h.clone()
        head(h)
    assert torch.equal(h, stored)


def test_a_functional_layer_that_works_in_place_does_not_overwrite_features_either():
    class Functional(Base):
        def forward(self, x):
            h = self.one(x)
            h = self.two(nn.functional.relu(h, inplace=True)).relu_()
            return self.fc(h)

    model, x = Functional(), torch.rand(4, 6)
    assert_cut(model, x, "two", "fc")

    class Late(Base):
        def __init__(self):
            super().__init__()
            self.flat = nn.Flatten()

        def forward(self, x):
            return self.fc(self.two(self.flat(self.one(x)).relu_()))

    body, head = split(Late(), "flat")
    with torch.no_grad():
        h = body(x)
        stored = h.clone()
        head(h)
    assert torch.equal(h, stored) and stored.min() < 0


def test_a_view_can_be_cut_again():
    model, x = zoo.resnet18().eval(), torch.rand(2, 3, 32, 32)
    _, rest = split(model, "layer2")
    middle, head = split(rest, "layer4.1")
    body, _ = split(model, "layer2")
    assert torch.equal(head(middle(body(x))), model(x))
    assert [n for n, _ in stages(rest)] == ["layer2", "layer3", "layer4", "head"]
    assert head.fc is model.fc


def test_a_copied_view_is_independent():
    model, x = glyphnet(), torch.zeros(2, 1, 8, 8)
    body, head = split(model.eval(), "head")
    twin = copy.deepcopy(head)
    with torch.no_grad():
        model.head[2].weight.zero_(), model.head[2].bias.zero_()
    assert head(body(x)).abs().max() == 0 < twin(body(x)).abs().max()


def test_a_view_moves_and_changes_type_with_its_own_buffers():
    model = OwnParameters()
    body, _ = split(model, "two")
    body.double()
    assert body(torch.rand(2, 6, dtype=torch.float64)).dtype == torch.float64
    assert "centre" in body.state_dict()


def test_constants_made_in_forward_are_not_saved_and_not_left_on_the_model():
    model = Constant()
    before = set(vars(model))
    body, head = split(model, "two")
    stages(model), replace_head(model, 4)
    assert sorted(body.state_dict()) == ["one.bias", "one.weight"]
    assert set(vars(model)) == before


def test_asking_leaves_modes_randomness_and_hooks_as_they_were():
    model = glyphnet()
    model.layer1.eval()
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    stages(model), split(model, "layer2.conv1"), replace_head(model, 4), adapt_input(model, 2)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    tap(model, ["layer1"])(torch.zeros(2, 2, 8, 8))
    assert not model.layer1._forward_hooks


def test_a_frozen_body_stands_still_while_the_model_trains():
    model, x = glyphnet(), torch.randint(17, (8, 1, 8, 8))
    body, head = split(model, "layer3")
    freeze(body)
    before = {n: t.clone() for n, t in body.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    train_mode(model)
    for _ in range(3):
        nn.functional.cross_entropy(model(x), torch.arange(8)).backward()
        optimizer.step()
    assert all(torch.equal(t, before[n]) for n, t in body.state_dict().items())
    assert all(p.grad is not None for p in head.parameters())


def test_gradients_through_the_views_are_those_of_the_model(device):
    model = glyphnet().to(device).train()
    x = torch.randint(17, (8, 1, 8, 8), device=device)
    body, head = split(model, "layer2")
    head(body(x)).square().sum().backward()
    seen = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(seen, model.parameters()))


# ---- taps ----


def test_a_tap_returns_what_modules_said_and_lets_gradients_through():
    model, x = cheap("vgg11", num_classes=3).eval(), torch.rand(2, 3, 32, 32)
    z, features = tap(model, ["features.0", "head"])(x)
    assert torch.equal(z, model(x)) and torch.equal(features["head"], z)
    assert torch.equal(features["features.0"], model.features[0](x))  # the ReLU works in place
    (gradient,) = torch.autograd.grad(z[:, 0].sum(), features["features.0"])
    assert gradient.abs().max() > 0


def test_a_tap_removes_its_hooks_after_an_error():
    model = glyphnet()
    with pytest.raises(ValueError):
        tap(model, ["layer1"])(torch.zeros(2, 3, 8, 8))
    assert not model.layer1._forward_hooks


# ---- heads ----


def test_a_new_head_is_zero_except_behind_a_relu():
    assert replace_head(zoo.resnet18(), 4).fc.weight.abs().max() == 0
    head = replace_head(zoo.squeezenet1_1(), 4).classifier[1]
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.1) and head.bias.abs().max() == 0


def test_a_head_keeps_type_device_and_bias():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 9, bias=False)).double().eval()
    head = replace_head(model, 2)[1]
    assert head.bias is None and head.weight.dtype == torch.float64 and not head.training
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, device="meta"))
    assert replace_head(model, 3)[1].weight.is_meta


def test_a_new_head_learns_after_a_frozen_one():
    model = freeze(glyphnet())
    head = replace_head(model, 5).head[2]
    assert head.weight.requires_grad and not getattr(head, "frozen", False)


def test_the_head_of_a_model_that_cannot_be_followed_is_the_last_registered():
    class Wild(Base):
        def forward(self, x):
            return self.fc(self.two(self.one(x)) if x.sum() > 0 else self.one(x))

    model = replace_head(Wild(), 5)
    assert model.fc.out_features == 5


# ---- inputs ----


@pytest.mark.parametrize("old", [1, 2, 3, 4])
@pytest.mark.parametrize("new", [1, 2, 3, 5, 8])
def test_repeated_grey_gives_the_same_logits(old, new):
    net = nn.Sequential(nn.Conv2d(old, 6, 3, 2, 1), nn.Flatten(), nn.Linear(6 * 16, 3)).double()
    grey = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    expected = net(grey.expand(-1, old, -1, -1))
    bias, head = net[0].bias, net[2].weight
    assert adapt_input(net, new) is net and net[0].in_channels == new
    torch.testing.assert_close(net(grey.expand(-1, new, -1, -1)), expected)
    assert torch.equal(net[0].bias, bias) and net[2].weight is head


@pytest.mark.parametrize("name", ["densenet121", "vit_b_32", "swin_t", "squeezenet1_1"])
def test_grey_photographs_go_through_any_family(name):
    options = {"image_size": 64} if name.startswith("vit") else {}
    model = cheap(name, num_classes=5, **options).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = model(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(adapt_input(model, 1)(grey), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("new", [1, 3, 4, 5, 7])
def test_statistics_of_three_channels_are_adapted_exactly(new):
    model = nn.Sequential(
        Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(),
        nn.Linear(4 * 64, 3),
    ).double()  # fmt: skip
    grey = torch.randint(256, (3, 1, 8, 8))
    expected = model(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(adapt_input(model, new)(grey.expand(-1, new, -1, -1)), expected)


def test_equal_statistics_are_folded():
    model = nn.Sequential(Normalize([0.5] * 4, [0.2] * 4), nn.Conv2d(4, 4, 3), nn.Flatten(),
                          nn.Linear(4 * 36, 3)).double()  # fmt: skip
    grey = torch.randint(256, (3, 1, 8, 8))
    expected = model(grey.expand(-1, 4, -1, -1))
    adapted = adapt_input(model, 2)
    assert adapted[0].mean.shape[1] == 2 and adapted[1].in_channels == 2
    torch.testing.assert_close(adapted(grey.expand(-1, 2, -1, -1)), expected)


def test_a_frozen_convolution_stays_frozen_when_it_is_adapted():
    model = freeze(glyphnet())
    first = adapt_input(model, 3).stem[0]
    assert first.frozen and not first.weight.requires_grad and not first.training


# ---- Normalize, glyphnet ----


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64])
def test_normalize_takes_any_type(dtype):
    x = torch.randint(17, (2, 1, 8, 8)).to(dtype)
    out = Normalize(0.3, 0.4, 16)(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, (x.float() / 16 - 0.3) / 0.4)


def test_normalize_follows_the_type_of_its_model():
    assert Normalize(0.3, 0.4).half()(torch.zeros(1, 1, 2, 2)).dtype == torch.float16


def test_preprocessing_travels_with_the_weights():
    here, there = Normalize(0.3, 0.4, 16), Normalize(0.5, 0.5)
    there.load_state_dict(here.state_dict())
    x = torch.randint(17, (2, 1, 4, 4))
    assert torch.equal(here(x), there(x))


def test_glyphnet_has_the_promised_size():
    assert sum(p.numel() for p in glyphnet(362).parameters()) == 1_316_906
    assert glyphnet(widths=(4, 8, 8))(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_glyphnet_reads_a_file_and_gives_a_new_head_for_other_classes(tmp_path):
    file, net = tmp_path / "own.safetensors", glyphnet(20)
    save_weights(file, net.state_dict(), {}, half=True)
    same, other = glyphnet(20, weights=file), glyphnet(10, weights=str(file))
    for name, t in net.state_dict().items():
        if t.is_floating_point():
            assert torch.equal(same.state_dict()[name], t.half().float()), name
    assert torch.equal(other.stem[0].weight, same.stem[0].weight)
    assert other.head[2].weight.shape == (10, 256) and other.head[2].weight.abs().max() == 0
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="was changed"):
        glyphnet(20, weights=file)


def test_the_bundled_weights_load_with_any_head():
    letters, ten = glyphnet(weights="letters", classes=10), torch.zeros(2, 1, 8, 8)
    assert letters.eval()(ten).abs().max() == 0
    assert split(letters, "head")[0](ten).std() > 0


def test_a_file_of_another_width_is_refused_by_name(tmp_path):
    file = tmp_path / "narrow.safetensors"
    save_weights(file, glyphnet(10, widths=(4, 8, 8)).state_dict(), {})
    with pytest.raises(ValueError, match=r"stem.0.weight.*\(4, 1, 3, 3\)"):
        glyphnet(weights=file)


# ---- errors ----


def rows():
    three = nn.Sequential(Normalize([0.1, 0.2, 0.3], [1.0] * 3), nn.Conv2d(3, 2, 3), nn.Flatten(),
                          nn.Linear(2, 2))  # fmt: skip
    resnet = weightless("resnet18")
    inception = weightless("inception_v3")
    inception.transform_input = True
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = torch.zeros(2, 1, 8, 8)

    class Wild(Base):
        def forward(self, x):
            return self.fc(self.one(x)) if x.sum() > 0 else x

    return [
        (lambda: split(resnet, "layer5"), "has no module 'layer5': choose .*'layer[1-4]'"),
        (lambda: split(resnet, "layer3.1.conv2"), "2 tensors are alive: choose .*'layer3.1.conv1'"),
        (lambda: split(resnet, "layer2.0.downsample"), "cannot cut before 'layer2.0.downsample'"),
        (lambda: split(Twice(), 3), "at=3: give the name of a module, such as 'head'"),
        (lambda: split(resnet, ""), "at='': give the name"),
        (lambda: split(Constant(), "on"), "has no module 'on': choose .*'one'"),
        (lambda: split(Listed(), "blocks.3"), "has no module 'blocks.3': choose .*'blocks.2'"),
        (lambda: split(Wild(), "fc"), "Wild cannot be followed .*into a submodule"),
        (lambda: split(bare, "head"), "no linear head.*'1', a BatchNorm2d"),
        (lambda: stages(bare), "no linear head"),
        (lambda: tap(resnet, ["layer9"]), "no module 'layer9': choose .*'layer"),
        (lambda: named(resnet, "layer"), "no module 'layer': choose .*'layer"),
        (lambda: split(resnet, "bn2"), "8 modules that end in 'bn2': choose .*'layer1.0.bn2'"),
        (lambda: tap(resnet, "conv2"), "8 modules that end in 'conv2': choose .*'layer1.0.conv2'"),
        (lambda: replace_head(resnet, 0), r"head 'fc' \(1000, 512\) is 0: give a whole number"),
        (lambda: replace_head(resnet, 2.5), "is 2.5: give a whole number"),
        (lambda: replace_head(bare, 3), "Append an nn.Linear"),
        (lambda: replace_head(nn.Linear(3, 2), 3), "put it into an nn.Sequential"),
        (lambda: stages(nn.Linear(3, 2)), "itself a single layer"),
        (lambda: adapt_input(resnet, 0), "channels is 0: give a whole number"),
        (lambda: adapt_input(Twice(), 1), "first layer is a convolution.*Linear"),
        (lambda: adapt_input(three, 2), "3 channels .* cannot become 2 bands exactly"),
        (lambda: adapt_input(inception, 1), "transform_input = False"),
        (lambda: glyphnet(True), "classes is True: give a whole number"),
        (lambda: glyphnet(weights="digits"), "No weights 'digits' are bundled"),
        (lambda: glyphnet()(images[0]), r"height, width\), but got shape \(1, 8, 8\)"),
        (lambda: three(torch.zeros(2, 4, 8, 8)), r"\(n, 3, height, width\)"),
        (lambda: Normalize([0.1, 0.2], 1.0), "one mean and one std per channel"),
        (lambda: Normalize(0.1, 1.0, scale=0), "scale above 0"),
        (lambda: Normalize(0.1, -1.0), "stds and scale above 0"),
    ]  # fmt: skip


@pytest.mark.parametrize("i", range(30))
def test_bad_input_gets_one_clear_sentence(i):
    table = rows()
    assert len(table) == 30
    call, message = table[i]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_view_is_a_module_with_the_names_of_the_model():
    body, head = split(glyphnet(), "layer1")
    assert isinstance(body, View) and list(body.state_dict())[:2] == [
        "normalize.mean",
        "normalize.std",
    ]
    assert all(n.startswith(("layer", "head.2")) for n in head.state_dict())


class Diary(nn.Module):
    """Writes on itself in every forward, as user models do."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(4))
        self.calls, self.last = 0, "nothing"

    def forward(self, x):
        self.calls += 1
        h = self.inner(x)
        self.last = self.fresh = self.inner.said = h
        self.seen = self.seen + 1
        return self.head(h)


@pytest.mark.parametrize("look", [stages, lambda m: split(m, "head"), lambda m: split(m, "inner")])
def test_looking_at_a_model_writes_nothing_on_it(look):
    model = Diary()
    seen = model.seen
    look(model)
    assert (model.calls, model.last) == (0, "nothing") and model.seen is seen
    assert not hasattr(model, "fresh") and not hasattr(model.inner, "said")
    assert model(torch.zeros(1, 4)).shape == (1, 2) and model.calls == 1

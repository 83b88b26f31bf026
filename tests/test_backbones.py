"""Pretrained networks: torchvision's own path is the oracle, the server is on this machine."""

import copy
import json
import subprocess
import sys
from collections import OrderedDict
from dataclasses import asdict

import numpy as np
import pytest
import torch
from loopback import shelf
from PIL import Image
from safetensors.torch import save_file
from test_models import Weightless
from torch import nn
from torchvision import models as zoo

from ftlearn import backbones
from ftlearn.backbones import backbone, backbone_names
from ftlearn.models import Normalize, glyphnet, named, replace_head, split, stages
from ftlearn.photos import Preprocess
from ftlearn.weights import WeightsError, bundled, file_sha256, load_weights, save_weights

NAMES = zoo.list_models(module=zoo)
ODD = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


def photo(wide, high, seed=0):
    """A picture with large and small shapes."""
    noise = np.random.default_rng(seed).integers(0, 256, (high // 8, wide // 8, 3), np.uint8)
    big = Image.fromarray(noise).resize((wide, high), Image.Resampling.BICUBIC)
    return Image.blend(big, Image.fromarray(np.asarray(big)[::-1].copy()), 0.3)


def flat(state, seed=0):
    """A state whose floats are single numbers, spread: a file of kilobytes for any network."""
    numbers = torch.rand(len(state), generator=torch.Generator().manual_seed(seed)) / 100
    same = OrderedDict(
        (name, value if value.ndim < 1 else numbers[i].to(value.dtype).expand(value.shape))
        for i, (name, value) in enumerate(state.items())
    )
    same._metadata = state._metadata
    return same


def random_net(name, **options):
    with Weightless():
        return zoo.get_model(name, **ODD.get(name, {}), **options)


def published(name, folder, stem=None, seed=0, **save):
    """What torchvision would publish for a model: its file, named by its hash, and the state."""
    state = flat(random_net(name).state_dict(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new", **save)
    digest = file_sha256(folder / "new")[:8]
    return (folder / "new").rename(folder / f"{stem or name}-{digest}.pth"), state


def same_tensors(net, state):
    ours = net.state_dict()
    aux = ("aux1.", "aux2.", "AuxLogits.")
    wanted = {name: value for name, value in state.items() if not name.startswith(aux)}
    return ours.keys() == wanted.keys() and all(torch.equal(ours[n], v) for n, v in wanted.items())


def spread(model, x):
    """Statistics and a head for random weights, so that the logits are of a natural size."""
    nn.init.normal_(model.get_submodule(named(model, "head")).weight, std=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    model.eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch's, and no way out."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture
def address(monkeypatch):
    """Say where the published weights are: only the address is replaced."""

    def put(url):
        entry = type("Entry", (), {"url": url})
        real = backbones._address(entry)
        monkeypatch.setattr(backbones, "_address", lambda _: real)

    return put


# the path of a photo


@pytest.mark.parametrize(
    "name, weights",
    [
        ("resnet18", "IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V2"),
        ("vgg11_bn", "IMAGENET1K_V1"),
        ("vit_b_32", "IMAGENET1K_V1"),
        ("convnext_tiny", "IMAGENET1K_V1"),
        ("efficientnet_b0", "IMAGENET1K_V1"),
        ("efficientnet_b1", "IMAGENET1K_V2"),
        ("mobilenet_v3_small", "IMAGENET1K_V1"),
        ("swin_t", "IMAGENET1K_V1"),
        ("googlenet", "IMAGENET1K_V1"),
        ("inception_v3", "IMAGENET1K_V1"),
    ],
)
def test_a_photo_gets_the_answer_of_torchvisions_own_path(name, weights):
    torch.manual_seed(0)
    model, preprocess = backbone(name, weights, load=False)
    images = [photo(640, 424), photo(331, 500)]
    spread(model, torch.stack([preprocess(image) for image in images]))
    entry = zoo.get_model_weights(name)[weights]
    theirs = model.net
    if name in ODD:
        with torch.device("meta"):
            theirs = zoo.get_model(name, **ODD[name], aux_logits=False, transform_input=True)
        theirs.load_state_dict(model.net.state_dict(), assign=True)
    with torch.inference_mode():
        for image in images:
            x = preprocess(image)
            ours, expected = model(x[None]), theirs.eval()(entry.transforms()(image)[None])
            assert x.dtype == torch.uint8 and expected.std() > 0.01
            bound = 1e-4 if name in ODD else 1e-5  # theirs rounds the image once more
            assert (ours - expected).abs().max() <= bound * max(1, expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_comes_with_its_preprocessing_and_takes_a_head(name):
    with Weightless():
        model, preprocess = backbone(name, None)
    catalogue = zoo.get_model_weights(name)
    entry = getattr(catalogue, "IMAGENET1K_V1", catalogue.DEFAULT)
    preset = entry.transforms()
    assert [preprocess.resize] == preset.resize_size and [preprocess.crop] == preset.crop_size
    assert preprocess.interpolation == preset.interpolation.value and preprocess.channels == 3
    assert list(dict(model.named_children())) == ["normalize", "net"] and not model.training
    assert not getattr(model.net, "transform_input", False)
    assert not any(part in dict(model.net.named_children()) for part in ("aux1", "AuxLogits"))
    if name not in ODD:
        assert torch.allclose(model.normalize.mean.flatten(), torch.tensor(preset.mean))
        assert torch.allclose(model.normalize.std.flatten(), torch.tensor(preset.std))
    head = named(model, "head")
    assert replace_head(model, 7).get_submodule(head).weight.shape[0] == 7
    assert stages(model)[-1][0] == "head" and head.startswith("net.")


@pytest.mark.parametrize("name", NAMES)
def test_every_published_address_has_its_hash_and_the_rule_finds_one(name):
    catalogue = zoo.get_model_weights(name)
    for entry in catalogue:
        url, digest = backbones._address(entry)
        assert url == entry.url and len(digest) >= 8 and f"-{digest}." in url
    usual = backbones._entry(name, "IMAGENET1K_V1")
    assert usual is backbones._entry(name, None)
    assert usual.name == "IMAGENET1K_V1" or not hasattr(catalogue, "IMAGENET1K_V1")
    assert backbones._entry(name, "DEFAULT") is catalogue.DEFAULT
    for entry in catalogue:
        if entry.meta["categories"]:
            given = [backbones._entry(name, w) for w in (entry, entry.name, str(entry))]
            assert given == [entry] * 3


def test_only_two_have_no_original_weights():
    others = [n for n in NAMES if not hasattr(zoo.get_model_weights(n), "IMAGENET1K_V1")]
    assert others == ["regnet_y_128gf", "vit_h_14"]
    with pytest.raises(WeightsError, match="vgg16 has no weights 'IMAGENET1K_FEATURES'"):
        backbone("vgg16", "IMAGENET1K_FEATURES")  # they have no classifier


def test_a_transformer_has_the_image_size_of_its_weights():
    with Weightless():
        model, preprocess = backbone("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", load=False)
    assert preprocess == Preprocess(384, 384, "bicubic") and model.net.image_size == 384
    assert model.net.encoder.pos_embedding.shape == (1, 577, 768)


# weights


@pytest.mark.parametrize("old_format", [False, True])
def test_resnet18_from_the_cache_without_a_request(hub, address, old_format):
    path, state = published("resnet18", hub, _use_new_zipfile_serialization=not old_format)
    address(f"http://127.0.0.1:9/{path.name}")  # nobody listens there
    seed = torch.get_rng_state()
    model, preprocess = backbone("ResNet18")
    assert torch.equal(seed, torch.get_rng_state())
    assert same_tensors(model.net, state) and preprocess == Preprocess(256, 224)
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    replace_head(model, 3)
    body, head = split(model, "layer4")
    x = preprocess(photo(300, 260))[None]
    with torch.inference_mode():
        assert torch.equal(head(body(x)), model(x)) and model(x).shape == (1, 3)


def test_vgg16_all_the_way(hub, address, tmp_path):
    """The true network; its file is small, because each tensor in it is one number, spread."""
    path, state = published("vgg16", tmp_path / "shop")
    with shelf() as server:
        server.files[path.name] = path.read_bytes()
        address(server.url(path.name))
        model, preprocess = backbone("vgg16")
    assert same_tensors(model.net, state)
    model, preprocess = backbone("vgg16")  # the server is gone
    assert sum(p.numel() for p in model.parameters()) == 138_357_544
    assert same_tensors(model.net, state)
    replace_head(model, 2)
    assert named(model, "head") == "net.classifier.6" and named(model, "features") == "net.features"
    with torch.inference_mode():
        z = model(preprocess(photo(320, 240))[None])
    assert z.tolist() == [[0.0, 0.0]]


def test_resnet18_from_a_server_and_then_from_the_cache(hub, address, tmp_path, capsys):
    path, state = published("resnet18", tmp_path / "shop")
    with shelf() as server:
        server.files[path.name] = path.read_bytes()
        server.cuts = [5_000]
        address(server.url(path.name))
        for _ in range(2):
            model, _ = backbone("resnet18", "IMAGENET1K_V1")
            assert same_tensors(model.net, state)
        assert len(server.asked) == 2 and sum(server.sent) == path.stat().st_size
    assert [p.name for p in hub.iterdir()] == [path.name]
    assert path.name in capsys.readouterr().out


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_of_a_published_file_are_left_out(name, hub, address):
    path, state = published(name, hub)
    assert any(key.startswith(("aux1.", "AuxLogits.")) for key in state)
    address(f"http://127.0.0.1:9/{path.name}")
    model, preprocess = backbone(name)
    assert same_tensors(model.net, state) and preprocess == Preprocess(
        *((256, 224) if name == "googlenet" else (342, 299))
    )
    model.train()
    assert isinstance(model(torch.zeros(2, 3, 96, 96)), torch.Tensor)


def older(name, state):
    """The names that the published files of these models have."""
    import re

    if name == "densenet121":
        pattern = r"(denselayer\d+\.(?:norm|conv))(\d)\."
        return {re.sub(pattern, r"\1.\2.", k): v for k, v in state.items()}
    if name == "vit_b_32":
        new = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
        return {re.sub(r"\.mlp\.[03]\.", lambda m: new[m[0]], k): v for k, v in state.items()}
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", ["densenet121", "vit_b_32", "resnet18"])
def test_names_of_earlier_versions_are_understood(name, tmp_path):
    state = flat(random_net(name).state_dict())
    old = older(name, state)
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    assert same_tensors(backbone(name, tmp_path / "old.pth")[0].net, state)


@pytest.mark.parametrize("form", ["pth", "safetensors", "safetensors with a card"])
def test_a_model_that_asks_for_its_version_is_loaded(form, tmp_path):
    state = flat(random_net("mnasnet0_5").state_dict())
    plain = {k: v.contiguous() for k, v in state.items()}
    path = tmp_path / f"net.{form.split()[0]}"
    if form == "pth":
        torch.save(state, path)
    elif "card" in form:
        save_weights(path, plain, {})
    else:
        save_file(plain, path)
    assert same_tensors(backbone("mnasnet0_5", path)[0].net, state)


WRAPPED = {
    "plain": lambda s: s,
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled and parallel": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "checkpoint": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}},
    "reference script": lambda s: {"model": s, "epoch": 3},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_training_scripts_save_is_unwrapped(kind, tmp_path):
    state = flat(random_net("squeezenet1_1").state_dict())
    torch.save(WRAPPED[kind](state), tmp_path / "net.pth")
    net = backbone("squeezenet1_1", str(tmp_path / "net.pth"))[0].net
    assert all(p.dtype == torch.float32 for p in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.allclose(value, state[name], atol=1e-5 if kind == "half" else 0, rtol=0)


def test_a_whole_model_of_ours_comes_back_with_its_normalisation(tmp_path):
    model, _ = backbone("squeezenet1_1", None)
    model.normalize.mean.fill_(0.25)
    save_weights(tmp_path / "net.safetensors", model.state_dict(), {"recipe": "none"})
    again, _ = backbone("squeezenet1_1", tmp_path / "net.safetensors")
    assert again.normalize.mean.unique().item() == 0.25
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_structure_needs_no_file(hub, monkeypatch):
    monkeypatch.setattr(backbones, "download", None)
    for options in ({"weights": None}, {"load": False}, {"weights": "gone.pth", "load": False}):
        model, preprocess = backbone("squeezenet1_1", **options)
        assert preprocess == Preprocess(256, 224) and model.net.features[0].weight.std() > 0
    assert not hub.exists()


def test_preprocessing_can_be_stored_as_json():
    _, preprocess = backbone("letters", None)
    assert Preprocess(**json.loads(json.dumps(asdict(preprocess)))) == preprocess


# the bundled network

LETTERS = len(load_weights(bundled("letters"))[0]["head.2.weight"])


def test_letters_sees_grey_bytes_in_rgb_as_it_saw_grey():
    model, preprocess = backbone("letters")
    grey = torch.randint(17, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    rgb = (grey * (255 / 16)).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        before, after = glyphnet(LETTERS, "letters").eval()(grey), model(rgb)
    assert before.std() > 0.1
    assert (before - after).abs().max() < 1e-4 * before.abs().max() and not model.training
    assert preprocess == Preprocess(24, 24) and model.normalize.scale.item() == 255
    with torch.inference_mode():
        assert model(preprocess(photo(64, 80))[None]).shape == (1, LETTERS)


def test_letters_without_weights_has_the_same_structure():
    with_weights, without = backbone("letters")[0], backbone("letters", None)[0]
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (with_weights, without)]
    assert shapes[0] == shapes[1] and isinstance(without.normalize, Normalize)
    assert not torch.equal(with_weights.layer1.conv1.weight, without.layer1.conv1.weight)
    for name, value in without.normalize.state_dict().items():  # the file is in half precision
        assert torch.allclose(with_weights.normalize.state_dict()[name], value, rtol=1e-3)
    assert replace_head(copy.deepcopy(without), 2)(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


# refusals


def checkpoint(folder, thing, name="net.pth"):
    torch.save(thing, folder / name)
    return folder / name


def text(folder, content, name="net.pth"):
    (folder / name).write_bytes(content)
    return folder / name


def wider():
    return flat(random_net("resnet18", num_classes=10).state_dict())


def cut_short(folder):
    path = checkpoint(folder, wider())
    return text(folder, path.read_bytes()[:9000])


REFUSED = [
    ("resnet19", None, "no backbone 'resnet19': the nearest names are resnet18"),
    ("vgg-16", None, "no backbone 'vgg-16': the nearest names are vgg16"),
    ("fasterrcnn_resnet50_fpn", None, "There is no backbone"),
    (None, None, "no backbone None"),
    ("", None, "no backbone ''"),
    ("resnet18", lambda d: "IMAGENET1K_V2", "choose from IMAGENET1K_V1, DEFAULT"),
    ("resnet18", lambda d: "imagenet", "resnet18 has no weights 'imagenet'"),
    ("resnet18", lambda d: True, "resnet18 has no weights True"),
    ("resnet18", lambda d: zoo.ResNet50_Weights.DEFAULT, "has no weights ResNet50_Weights"),
    ("letters", lambda d: "cats", "letters has no weights 'cats'"),
    ("letters", lambda d: d / "a.pth", "letters has no weights"),
    ("resnet18", lambda d: d / "gone.pth", "There are no weights at .*gone.pth"),
    ("resnet18", lambda d: str(d / "gone.safetensors"), "There are no weights at .*gone.safe"),
    ("resnet18", lambda d: d, "is a folder: give"),
    ("resnet18", lambda d: checkpoint(d, wider()), r"'fc.weight' as \(10, 512\), .* \(1000, 512\)"),
    ("resnet18", lambda d: checkpoint(d, nn.Linear(2, 2)), "holds a torch.nn.modules.linear.Lin"),
    ("resnet18", lambda d: checkpoint(d, [1, 2]), "no dictionary of tensors by name"),
    ("resnet18", lambda d: checkpoint(d, {}), "no dictionary of tensors by name"),
    ("resnet18", lambda d: checkpoint(d, {"epoch": 3}), "no dictionary of tensors by name"),
    ("resnet18", lambda d: checkpoint(d, {"a": torch.ones(2)}), "has no 'conv1.weight'"),
    ("resnet18", cut_short, "is damaged or no file of torch.save"),
    ("resnet18", lambda d: text(d, b""), "is damaged or no file of torch.save"),
    ("resnet18", lambda d: text(d, b"<!doctype html>"), "is damaged or no file of torch.save"),
    ("resnet18", lambda d: text(d, b"hello", "a.safetensors"), "is no safetensors file"),
]


@pytest.mark.parametrize("name, weights, words", REFUSED)
def test_a_refusal_is_one_sentence(name, weights, words, tmp_path):
    weights = weights(tmp_path) if weights else None
    with pytest.raises((WeightsError, OSError), match=words) as caught:
        backbone(name, weights)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400


def test_a_pickle_never_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "it ran"), "w"))

    for content in (Trap(), {"state_dict": Trap()}):
        with pytest.raises(WeightsError, match="could run code"):
            backbone("resnet18", checkpoint(tmp_path, content))
    assert not (tmp_path / "it ran").exists()


def test_offline_says_what_works(hub, address):
    address("http://127.0.0.1:9/resnet18-00000000.pth")
    with pytest.raises(WeightsError, match="no connection.*backbone='letters', which ships"):
        backbone("resnet18")


def test_names_are_found_whatever_their_case():
    assert backbone_names() == ["letters", *NAMES] and len(NAMES) >= 80
    assert backbones._known("ViT_B_16") == "vit_b_16"


def test_importing_it_draws_on_nothing():
    line = "import ftlearn.backbones, sys; print({'torchvision', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""A run that was stopped and resumed is the run that was not stopped, bit for bit."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file, save_file
from torch import nn

from ftlearn.checkpoint import load_checkpoint, save_checkpoint
from ftlearn.data import Columns
from ftlearn.freezing import fingerprint, freeze, unfreeze
from ftlearn.losses import cross_entropy
from ftlearn.models import split
from ftlearn.training import Step, fit, train

RESUME = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from test_checkpoint import build, dataset, decay
from ftlearn.checkpoint import load_checkpoint
from ftlearn.freezing import fingerprint
from ftlearn.training import fit

step = build(sys.argv[1])
done = load_checkpoint(sys.argv[3], step)
fit(step, dataset(), epochs=3, schedule=decay, start=done)
print(done, fingerprint(step.modules))
"""


class Average:
    """A hook with a state: a running mean of one weight, as weight averaging keeps it."""

    def __init__(self, weight):
        self.weight, self.mean = weight, weight.detach().clone()

    def __call__(self):
        self.mean.lerp_(self.weight.detach(), 0.1)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean.copy_(state["mean"])


class Projected(nn.Module):
    """An objective with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, model, x, y):
        z = model(x) * self.scale
        return nn.functional.cross_entropy(z, y), z


def decay(progress):
    return {"lr": 1 - progress, "momentum": 1 - 0.1 * progress}


def dataset():
    random = torch.Generator().manual_seed(7)  # the global state belongs to the run
    x, y = torch.randn(40, 3, 32, 32, generator=random), torch.arange(40) % 10
    return Columns(x, y, batch_size=16, shuffle=True)


def build(family, part="all"):
    """A step whose run is exercised by dropout, statistics, momentum, a hook and a schedule."""
    torch.manual_seed(0)
    model, objective = FAMILIES[family](), Projected()
    if part == "head":
        freeze(split(model, "head")[0])
    both = nn.ModuleList([model, objective])
    groups = [{"params": [p], "lr": 1e-3} for p in both.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(groups, amsgrad=True)
    weight = next(p for p in model.parameters() if p.requires_grad)
    return Step(model, objective, optimizer, after=[Average(weight)])


def stop_at(step, path, update):
    for tick in train(step, dataset(), epochs=3, schedule=decay):
        if tick.i + 1 == update:
            save_checkpoint(path, step, tick.i + 1)
            break


@pytest.mark.parametrize("update", [4, 6], ids=["mid-epoch", "end of an epoch"])
@pytest.mark.parametrize("family", ["resnet", "vgg", "vit"])
def test_resumed_equals_straight(family, update, tmp_path):
    straight = build(family)
    fit(straight, dataset(), epochs=3, schedule=decay)
    stop_at(build(family), tmp_path / "run.safetensors", update)
    torch.manual_seed(123)
    resumed = build(family)
    assert load_checkpoint(tmp_path / "run.safetensors", resumed) == update
    fit(resumed, dataset(), epochs=3, schedule=decay, start=update)
    assert fingerprint(resumed.modules) == fingerprint(straight.modules)
    assert torch.equal(resumed.after[0].mean, straight.after[0].mean)
    rates = [[g["lr"] for g in s.optimizer.param_groups] for s in (straight, resumed)]
    assert rates[0] == rates[1] == [1e-3] * len(rates[0])


def test_resumed_in_a_new_process(tmp_path):
    straight = build("vgg")
    fit(straight, dataset(), epochs=3, schedule=decay)
    stop_at(build("vgg"), tmp_path / "run.safetensors", 5)
    out = subprocess.run(
        [sys.executable, "-c", RESUME, "vgg", str(Path(__file__).parent), str(tmp_path / "run.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.split() == ["5", fingerprint(straight.modules)]


def test_resumed_across_an_unfreeze(tmp_path):
    def second_phase(step):
        unfreeze(step.model)
        both = step.modules
        optimizer = torch.optim.SGD(both.parameters(), 1e-3, momentum=0.9)
        return Step(step.model, step.objective, optimizer)

    straight = build("resnet", "head")
    fit(straight, dataset(), epochs=1)
    straight = second_phase(straight)
    fit(straight, dataset(), epochs=2)

    step = build("resnet", "head")
    fit(step, dataset(), epochs=1)
    step = second_phase(step)
    for tick in train(step, dataset(), epochs=2):
        if tick.i == 1:
            save_checkpoint(tmp_path / "two.safetensors", step, 2)
            break
    resumed = second_phase(build("resnet", "head"))
    fit(resumed, dataset(), epochs=2, start=load_checkpoint(tmp_path / "two.safetensors", resumed))
    assert fingerprint(resumed.modules) == fingerprint(straight.modules)


def test_a_phase_is_not_loaded_into_another(tmp_path):
    save_checkpoint(tmp_path / "all.safetensors", build("vgg"), 0)
    with pytest.raises(
        ValueError, match="was saved while parameter '.*' was trainable, but it is frozen"
    ):
        load_checkpoint(tmp_path / "all.safetensors", build("vgg", "head"))


def test_a_schedule_in_a_group_survives(tmp_path):
    def own():
        model = nn.Linear(4, 2)
        groups = [{"params": list(model.parameters()), "lr": 0.1, "schedule": lambda p: 0.5}]
        return Step(model, cross_entropy(), torch.optim.SGD(groups))

    save_checkpoint(tmp_path / "a.safetensors", own(), 0)
    step = own()
    load_checkpoint(tmp_path / "a.safetensors", step)
    assert step.optimizer.param_groups[0]["schedule"](0.3) == 0.5


def test_saving_changes_nothing(tmp_path):
    step = build("vgg")
    fit(step, dataset(), epochs=1)
    before = fingerprint(step.modules), copy.deepcopy(step.optimizer.state_dict())
    random = torch.get_rng_state()
    save_checkpoint(tmp_path / "a.safetensors", step, 3)
    assert fingerprint(step.modules) == before[0]
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(step.optimizer.state_dict(), before[1], rtol=0, atol=0)


def test_the_file_holds_tensors_and_json_only(tmp_path):
    path = tmp_path / "a.safetensors"
    step = build("vgg")
    fit(step, dataset(), epochs=1)
    save_checkpoint(path, step, 3)
    tensors = load_file(path)
    assert all(isinstance(t, torch.Tensor) for t in tensors.values())
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["ftlearn checkpoint"])
    assert len(header) == 8 + size + sum(t.nbytes for t in tensors.values())  # and nothing else


def test_a_failed_load_changes_nothing(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", build("vgg"), 3)
    step = build("resnet")
    before, random = fingerprint(step.modules), torch.get_rng_state()
    with pytest.raises(ValueError, match="features.0.weight|conv1.weight"):
        load_checkpoint(tmp_path / "a.safetensors", step)
    assert fingerprint(step.modules) == before and torch.equal(torch.get_rng_state(), random)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    import ftlearn.checkpoint as checkpoint

    path = tmp_path / "a.safetensors"
    save_checkpoint(path, build("vgg"), 3)
    before = path.read_bytes()

    def crash(tensors, beside, metadata):
        Path(beside).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", crash)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, build("vgg"), 4)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_plain_weights_are_not_taken_for_a_checkpoint(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="is no checkpoint"):
        load_checkpoint(tmp_path / "w.safetensors", build("vgg"))


def small(optimizer=torch.optim.AdamW):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    step = Step(model, cross_entropy(), optimizer(model.parameters(), lr=0.1))
    step(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    return step


def test_every_single_bit_counts(tmp_path):
    path, step = tmp_path / "a.safetensors", small()
    save_checkpoint(path, step, 3)
    data, before = path.read_bytes(), fingerprint(step.modules)
    for i in range(0, len(data), 3):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with pytest.raises(ValueError, match="a.safetensors") as caught:
            load_checkpoint(path, step)
        assert str(caught.value).endswith(".")
    assert fingerprint(step.modules) == before
    path.write_bytes(data)
    assert load_checkpoint(path, step) == 3


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_another_optimizer_is_refused_before_anything_changes(kind, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", small(), 3)
    step = small(kind)
    step.model[0].weight.data.fill_(1)
    before, state = fingerprint(step.modules), copy.deepcopy(step.optimizer.state_dict())
    with pytest.raises(ValueError, match=f"optimizer AdamW, this step has {kind.__name__}"):
        load_checkpoint(tmp_path / "a.safetensors", step)
    assert fingerprint(step.modules) == before
    torch.testing.assert_close(step.optimizer.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("done", [-1, "3", 2.0, None, True])
def test_only_a_number_of_updates_is_saved(done, tmp_path):
    with pytest.raises(ValueError, match="give the number of updates done"):
        save_checkpoint(tmp_path / "a.safetensors", small(), done)
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_every_kind_come_back(tmp_path):
    class Odd:
        def __init__(self):
            self.kept = {
                "half": torch.randn(3, 2).bfloat16().T, "none": torch.zeros(0, 3), "one": torch.tensor(2),
                "yes": torch.tensor([True, False]), "numbers": [1.5, (2, None), float("inf"), "ä"],
            }  # fmt: skip

        def __call__(self):
            pass

        def state_dict(self):
            return self.kept

        def load_state_dict(self, state):
            self.loaded = state

    step = small()
    step.after = (odd := Odd(),)
    save_checkpoint(tmp_path / "a.safetensors", step, 1)
    load_checkpoint(tmp_path / "a.safetensors", step)
    assert odd.loaded.keys() == odd.kept.keys() and odd.loaded["numbers"] == odd.kept["numbers"]
    assert all(torch.equal(odd.loaded[k], odd.kept[k]) for k in ("half", "none", "one", "yes"))

"""Nothing wasted: what `fit` does beyond a plain loop, counted operation by operation."""

import gc
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftlearn.data import Columns
from ftlearn.losses import cross_entropy
from ftlearn.training import Step, fit

READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "item", "unique_dim", "_unique2"}
ASKS = {"tolist", "item", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy"}
BEYOND = Counter(detach=2, copy_=1, select=1)  # of loss and prediction; the loss to its place


class Operations(TorchDispatchMode):
    """Records every operation, and the bytes of every storage that was not there before."""

    def __init__(self):
        super().__init__()
        self.names, self.fresh, self.marks = [], [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__.startswith("_record_function"):
            return result  # torch's profiler: no operation
        old = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
        new = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors(result)}
        self.names.append(function.overloadpacket.__name__)
        self.fresh.append(sum(s.nbytes() for at, s in new.items() if at not in old))
        return result

    def updates(self):
        """For every update but the last: its operations in order, and the new bytes."""
        for a, b in zip(self.marks, self.marks[1:]):
            yield self.names[a:b], sum(self.fresh[a:b])


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Marked(Columns):
    """A set that notes in a record where each batch is handed out."""

    record = None

    def batches(self, epoch=0, start=0):
        for batch in super().batches(epoch, start):
            if self.record:
                self.record.marks.append(len(self.record.names))
            yield batch


def small(device, examples=90, **settings):
    """A small network with dropout and batch normalisation, its optimizer, and a set."""
    torch.manual_seed(0)
    layers = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4)
    model = nn.Sequential(*layers).to(device)
    x, y = torch.randn(examples, 12, device=device), torch.arange(examples, device=device) % 4
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)
    return model, optimizer, Marked(x, y, batch_size=10, shuffle=True, **settings)


def plain(model, optimizer, data, epochs=1):
    """The oracle: nothing but the update."""
    for epoch in range(epochs):
        model.train()
        for x, y in data.batches(epoch):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def by_fit(model, optimizer, data, epochs=1):
    fit(Step(model, cross_entropy(), optimizer), data, epochs=epochs)


def recorded(loop, device, epochs=1):
    """The operations of a loop; one epoch goes before, so that the optimizer has its state."""
    model, optimizer, data = small(device)
    loop(model, optimizer, data)
    with Operations() as record:
        data.record = record
        loop(model, optimizer, data, epochs)
    return record


def left_over(names, expected):
    """What remains of `names` without `expected`, which must occur in it, in this order."""
    rest, names = [], iter(names)
    for wanted in expected:
        for name in names:
            if name == wanted:
                break
            rest.append(name)
        else:
            raise AssertionError(f"{wanted} is missing")
    return rest + list(names)


def test_an_update_of_fit_is_that_of_a_plain_loop_and_a_loss_that_is_kept(device):
    ours = list(recorded(by_fit, device).updates())
    theirs = list(recorded(plain, device).updates())
    assert len(ours) == len(theirs) == 8
    for (names, _), (expected, _) in zip(ours, theirs):
        assert Counter(copy_=1) <= Counter(left_over(names, expected)) <= BEYOND


def test_an_update_allocates_what_a_plain_one_does(device):
    ours, theirs = [recorded(loop, device).updates() for loop in (by_fit, plain)]
    assert [fresh for _, fresh in ours] == [fresh for _, fresh in theirs]


def test_the_record_sees_waste(device):
    """The oracle of the two tests above: a copy of the batch is found."""

    def wasteful(model, optimizer, data, epochs=1):
        step = Step(model, cross_entropy(), optimizer)
        step.objective = lambda model, x, y: cross_entropy()(model, x.clone(), y)
        fit(step, data, epochs=epochs)

    names, fresh = next(recorded(wasteful, device).updates())
    expected, plain_fresh = next(recorded(plain, device).updates())
    assert left_over(names, expected).count("clone") == 1
    assert fresh == plain_fresh + 10 * 12 * 4


def test_no_update_reads_the_device(device):
    for names, _ in recorded(by_fit, device, epochs=2).updates():
        if "clone" not in names and "_foreach_norm" not in names:  # that is the epoch's end
            assert not READS & set(names)


class Asked(TorchFunctionMode):
    """Counts what asks a tensor for its numbers."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names += {function.__name__} & ASKS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_epoch_is_read_once(device, epochs):
    model, optimizer, data = small(device)
    step = Step(model, cross_entropy(), optimizer)
    with Asked() as asked:
        fit(step, data, epochs=epochs)
    assert asked.names == ["tolist"] * epochs


class Alive:
    """An after-hook that counts the tensors alive at chosen updates."""

    def __init__(self, *at):
        self.at, self.updates, self.counts = at, 0, []

    def __call__(self):
        self.updates += 1
        if self.updates in self.at:
            kinds = map(type, gc.get_objects())
            self.counts.append(sum(issubclass(kind, torch.Tensor) for kind in kinds))


@pytest.mark.parametrize("examples, epochs", [(10_000, 1), (100, 100)])
def test_memory_is_flat(device, examples, epochs):
    """As many tensors are alive after 1,000 updates as after 100, within an epoch and across."""
    model, optimizer, data = small(device, examples)
    alive = Alive(99, 999)
    fit(Step(model, cross_entropy(), optimizer, after=[alive]), data, epochs=epochs)
    assert alive.updates == 1000 and alive.counts[0] == alive.counts[1]


def test_the_names_of_the_lessons_bring_no_other_library():
    """Beyond Python and torch, importing them loads ftlearn and safetensors, and no device."""
    code = """
import sys, torch
before = set(sys.modules)
from ftlearn import Columns, Phase, Recipe, Step, accumulate, audit, backbone, cache, cross_entropy
from ftlearn import digits, evaluate, finetune, fit, follow, freeze, glyphnet, image_folder, mixup
from ftlearn import knowledge_distillation, linear_probe, one_cycle, param_groups, split, taught
assert not torch.cuda.is_initialized()
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*(new - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if not name.startswith("__editable__")}
    assert loaded <= {"ftlearn", "safetensors", "torch", "numpy"}

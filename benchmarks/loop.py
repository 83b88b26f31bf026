"""What a loop costs: each library's, around a step of about 100 microseconds.

    python benchmarks/loop.py [rounds] [updates]

The step is a linear head on 512 cached features, 32 at a time, with SGD: what head-only training
on a cache is. Every library has a process of its own, in which it takes turns with the bare loop,
written twice: with `x[rows]`, as everyone writes it, and with the faster `x.index_select(0, rows)`.
The libraries get ready batches, drawn as ftlearn draws them, and are timed from the first draw to
the last, so that what they do before and after an epoch is not counted; logging, checkpoints and
progress bars are off. `train` and `fit` are timed from call to return. Goes into loop.json.
"""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from distillation import installed, ratio
from torch import nn
from torch.nn import functional as F

from ftlearn.data import Columns, order
from ftlearn.labels import environment
from ftlearn.losses import cross_entropy
from ftlearn.training import Step, fit, train

FEATURES, CLASSES, BATCH, EPOCH = 512, 10, 32, 100  # EPOCH in updates
PEERS = dict(
    fastai="fastai", lightning="lightning", trainer="transformers", accelerate="accelerate"
)


def head():
    """A linear head and its optimizer, always from the same weights."""
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, CLASSES)
    return model, torch.optim.SGD(model.parameters(), 0.1)


def features(epoch=EPOCH):
    """Cached features and labels: `epoch` updates to the epoch."""
    torch.manual_seed(1)
    x, y = torch.randn(BATCH * EPOCH, FEATURES), torch.randint(CLASSES, (BATCH * EPOCH,))
    return Columns(x, y, batch_size=BATCH, shuffle=True).take(slice(BATCH * epoch))


def plain(data, updates):
    """The bare loop."""
    model, optimizer = head()
    xs, ys = data.columns
    for epoch in range(updates // data.steps):
        for rows in order(len(data), 0, epoch).split(BATCH):
            x, y = xs[rows], ys[rows]
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def plain_select(data, updates):
    """The bare loop, with the faster way to draw a batch."""
    model, optimizer = head()
    xs, ys = data.columns
    for epoch in range(updates // data.steps):
        for rows in order(len(data), 0, epoch).split(BATCH):
            x, y = xs.index_select(0, rows), ys.index_select(0, rows)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def train_arm(data, updates):
    """ftlearn's iterator."""
    model, optimizer = head()
    for _ in train(Step(model, cross_entropy(), optimizer), data, updates // data.steps):
        pass


def fit_arm(data, updates):
    """ftlearn's `fit`: every loss kept, weights guarded at every epoch."""
    model, optimizer = head()
    fit(Step(model, cross_entropy(), optimizer), data, epochs=updates // data.steps)


class Stream:
    """Ready batches in one epoch; `seconds` for all updates, from the first and the last draw."""

    def __init__(self, data, updates, named=False):
        self.data, self.updates, self.named = data, updates, named

    def __len__(self):
        return self.updates

    def __iter__(self):
        began = time.perf_counter()
        for epoch in range(self.updates // self.data.steps):
            for x, y in self.data.batches(epoch):
                passed = time.perf_counter() - began  # holds all updates but one
                self.seconds = passed * self.updates / (self.updates - 1)
                yield dict(x=x, labels=y) if self.named else (x, y)


def accelerate_arm(data, updates):
    """The loop of Accelerate's quick tour."""
    from accelerate import Accelerator

    accelerator, stream = Accelerator(cpu=True), Stream(data, updates)
    model, optimizer = accelerator.prepare(*head())
    for x, y in stream:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
    return stream.seconds


def fastai_arm(data, updates):
    """fastai's Learner, with torch's optimizer."""
    from functools import partial

    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    stream = Stream(data, updates)
    optimizer = partial(OptimWrapper, opt=torch.optim.SGD)
    loaders = DataLoaders(stream, [], device="cpu")
    learn = Learner(loaders, head()[0], F.cross_entropy, opt_func=optimizer, lr=0.1)
    with learn.no_logging():
        learn.fit(1)
    return stream.seconds


def lightning_arm(data, updates):
    """Lightning's Trainer."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.optimizer = head()

        def training_step(self, batch, _):
            x, y = batch
            return F.cross_entropy(self.model(x), y)

        def configure_optimizers(self):
            return self.optimizer

    stream = Stream(data, updates)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, **dict.fromkeys(off, False))
    trainer.fit(Module(), stream)
    return stream.seconds


def trainer_arm(data, updates):
    """Transformers' Trainer; its clipping and its schedule are off, for it to do the same job."""
    from transformers import Trainer, TrainingArguments

    class Classifier(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x, labels):
            z = self.model(x)
            return dict(loss=F.cross_entropy(z, labels), logits=z)

    class WithStream(Trainer):
        def get_train_dataloader(self):
            return stream

    model, optimizer = head()
    stream = Stream(data, updates, named=True)
    off = dict(report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True)
    same = dict(max_grad_norm=0.0, lr_scheduler_type="constant", per_device_train_batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(folder, max_steps=updates, use_cpu=True, **off, **same)
        set_up = dict(train_dataset=data.columns[0], optimizers=(optimizer, None))
        WithStream(Classifier(model), settings, **set_up).train()
    return stream.seconds


ARMS = dict(
    train=(train_arm, EPOCH),
    fit=(fit_arm, EPOCH),
    fit_short_epochs=(fit_arm, 20),
    accelerate=(accelerate_arm, EPOCH),
    fastai=(fastai_arm, EPOCH),
    lightning=(lightning_arm, EPOCH),
    trainer=(trainer_arm, EPOCH),
)


def seconds(arm, data, updates):
    """What one turn takes: as the arm says, or from call to return."""
    began = time.perf_counter()
    inside = arm(data, updates)
    return inside or time.perf_counter() - began


def measure(name, rounds, updates):
    """One arm in turn with both bare loops, in this process; a warming round is left out."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    arm, epoch = ARMS[name]
    loops = dict(plain=plain, plain_select=plain_select, arm=arm)
    sets = dict.fromkeys(loops, features()) | dict(arm=features(epoch))
    times = {key: [] for key in loops}
    for turn in range(rounds + 1):
        for key in sorted(loops, key=lambda k: (list(loops).index(k) + turn) % len(loops)):
            taken = seconds(loops[key], sets[key], updates)
            if turn:
                times[key].append(taken)
    micro = {key: round(1e6 * statistics.median(t) / updates, 1) for key, t in times.items()}
    over = {f"over_{key}": ratio(times["arm"], times[key]) for key in ("plain", "plain_select")}
    return dict(microseconds=micro, **over)


def alone(name, rounds, updates):
    """Measure an arm in a process of its own."""
    command = [sys.executable, __file__, "--arm", name, str(rounds), str(updates)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The arm {name!r} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(rounds=15, updates=2000, path=None):
    """Measure every arm whose library is here, and write."""
    torch.set_num_threads(1)
    versions = {name: installed(package) for name, package in PEERS.items()}
    arms = {}
    for name in ARMS:
        if versions.get(name, "ftlearn"):
            arms[name] = alone(name, rounds, updates)
            print(name, json.dumps(arms[name]), flush=True)
    results = dict(
        script="python benchmarks/loop.py",
        environment=environment(),
        versions=versions,
        step=f"linear head {FEATURES} to {CLASSES}, batches of {BATCH}, SGD, float32",
        n=rounds,
        updates=updates,
        updates_per_epoch={name: ARMS[name][1] for name in arms if name not in PEERS},
        arms=arms,
    )
    path = Path(path or Path(__file__).with_suffix(".json"))
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return results


if __name__ == "__main__":
    if sys.argv[1:2] == ["--arm"]:
        print(json.dumps(measure(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main(*map(int, sys.argv[1:]))

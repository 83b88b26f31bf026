"""Full fine-tuning on a GPU: images per second of every library, in turns, in one run.

    python benchmarks/gpu.py [--minutes 9] [--models resnet50 vit_b_16] [--batches 64 128 256]
    python benchmarks/gpu.py --toy [--file PATH]        # on a CPU, tiny; its numbers say nothing

Goes into gpu.json; a run that was cut short goes on where it was, and without a GPU the file says
"not measured". A torchvision ResNet50 and ViT-B/16 with random weights train on 2,048 random
pictures of 224 px, AdamW, batches of one shape. All arms get the same bytes, resident on the GPU,
and the same model, which normalises them: what differs is the loop and the library's settings.

    plain               the loop of PyTorch's tutorials, bfloat16 autocast, no loss read
    lightning, fastai   as they come: float32
    plain, best         and the other two: bfloat16 (precision="bf16-mixed", to_channelslast),
                        channels last, fused AdamW, cuDNN's trials, compiled
    ftlearn             Step and fit with bf16()
    ftlearn, fast       fit with what `fast` picks

Seconds run from one draw of a batch to another, with the GPU waited for at both, so that neither
what a library does around an epoch nor compiling is counted; preparing is reported apart. Not
compared: accuracy, several GPUs, decoding of photos. Loaders, jobs that train a part, silence of
the loop, and the replay of a CUDA graph against its kernels have parts of their own.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import itertools
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from distillation import ratio
from torch import nn
from torch.nn import functional as F

from ftlearn.data import Columns, order
from ftlearn.features import cache
from ftlearn.freezing import freeze, unfreeze
from ftlearn.labels import environment
from ftlearn.losses import cross_entropy
from ftlearn.models import Normalize, split
from ftlearn.speed import cost, fast, fused, graphed, matrix_rate, prefetched
from ftlearn.training import Step, bf16, fit

FILE = Path(__file__).with_suffix(".json")
MODELS = "resnet50", "vit_b_16"
NEEDS = "needs a GPU"
BEST = "plain, best", "lightning, best", "fastai, best"
DEFAULTS = "plain", "lightning", "fastai"
FREE = {"processor", "driver"}  # a run may go on where these differ; the file says so
LEARNING = {  # what learns, by stage; split cuts before the first
    "resnet50": {"head": ["net.fc"], "last": ["net.layer4", "net.fc"]},
    "vit_b_16": {
        "head": ["net.heads"],
        "last": ["net.encoder.layers.encoder_layer_{last}", "net.encoder.ln", "net.heads"],
    },
}


class Size(NamedTuple):
    """How much is done."""

    toy: bool
    device: str
    side: int
    pictures: int
    classes: int
    batches: tuple
    turns: int
    updates: int  # of a turn, timed
    lead: int  # before those
    epochs: int  # of the jobs that train a part
    workers: int


def size(toy=False, batches=(64, 128, 256)):
    """The real size, or the toy."""
    if toy:
        return Size(True, "cpu", 32, 32, 10, (8,), 2, 2, 1, 2, 0)
    return Size(False, "cuda", 224, 2048, 1000, tuple(batches), 7, 20, 3, 5, 8)


# The job


def network(name, how):
    """A torchvision network with random weights."""
    from torchvision import models

    if not how.toy:
        return getattr(models, name)()
    if name == "resnet50":
        return models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], how.classes)
    shape = dict(image_size=how.side, patch_size=8, num_layers=2, num_heads=2)
    return models.VisionTransformer(**shape, hidden_dim=32, mlp_dim=64, num_classes=how.classes)


def model_of(name, how):
    """The network behind its normalisation, from the same weights for every arm, on its device."""
    torch.manual_seed(0)
    normalize = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return nn.Sequential(OrderedDict(normalize=normalize, net=network(name, how))).to(how.device)


def pictures(how, device=None):
    """Random pictures in bytes, and labels."""
    draw = torch.Generator().manual_seed(0)
    shape = how.pictures, 3, how.side, how.side
    x = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    y = torch.randint(how.classes, (how.pictures,), generator=draw)
    return x.to(device or how.device), y.to(device or how.device)


def adamw(model, **settings):
    """The optimizer of all arms."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, **settings)


def compiler(how):
    """Options of torch.compile; the toy traces, but does not call a C++ compiler."""
    return dict(backend="eager") if how.toy else {}


def best_layout(model, how):
    """What every documentation advises: channels last, and compiled, in place."""
    model.to(memory_format=torch.channels_last)
    model.compile(**compiler(how))
    return model


# The clock


def now():
    """Seconds, when the GPU has done all it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Turn(Columns):
    """Shuffled batches of one shape; `at` maps the number of a draw to what is called there."""

    def __init__(self, columns, batch, draws, at, source=None):
        super().__init__(*columns, batch_size=batch)
        self.draws, self.at, self.source = draws, at, source or self.resident

    @property
    def steps(self):
        """Batches that are drawn."""
        return self.draws

    def resident(self):
        """Whole batches for ever, from where the columns are."""
        size = self.batch_size
        rows = order(len(self))[: len(self) // size * size].to(self.device)
        for part in itertools.cycle(rows.split(size)):
            yield tuple(c[part] for c in self.columns)

    def batches(self, epoch=0, start=0):
        """Draw."""
        for i, batch in enumerate(itertools.islice(self.source(), self.draws)):
            if i in self.at:
                self.at[i]()
            yield batch


class Loader:
    """A turn, as libraries expect a loader: its length is the number of batches."""

    def __init__(self, turn):
        self.turn = turn

    def __len__(self):
        return self.turn.steps

    def __iter__(self):
        return self.turn.batches()


def clocked(columns, batch, first, last, source=None):
    """A turn of one batch more than `last`, and the times at the draws `first` and `last`."""
    times = []
    note = lambda: times.append(now())
    return Turn(columns, batch, last + 1, {first: note, last: note}, source), times


def timed(run, columns, batch, how, source=None):
    """Seconds of the updates of one turn."""
    turn, times = clocked(columns, batch, how.lead, how.lead + how.updates, source)
    run(turn)
    return times[1] - times[0]


# The arms: each takes a model and gives what runs a turn


def half(how):
    """PyTorch's recipe for mixed precision in bfloat16."""
    return torch.autocast(how.device, torch.bfloat16)


def loop(model, optimizer, how):
    """The loop of the tutorials; it reads no loss."""

    def run(turn):
        model.train()
        for x, y in turn.batches():
            optimizer.zero_grad()
            with half(how):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    return run


def tuned(arm):
    """Let cuDNN try its kernels, as every tuning guide says; only while the arm runs."""

    def built(model, how):
        run = arm(model, how)

        def under(turn):
            before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
            try:
                run(turn)
            finally:
                torch.backends.cudnn.benchmark = before

        return under

    return built


def plain(model, how):
    """As in the tutorials."""
    return loop(model, adamw(model), how)


@tuned
def plain_best(model, how):
    """With all that torch's tuning guide advises."""
    return loop(best_layout(model, how), adamw(model, fused=True), how)


def lightning(model, how, precision="32-true", **settings):
    """Lightning's Trainer, as it comes; logs, checkpoints and progress are off."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.optimizer = model, adamw(model, **settings)

        def training_step(self, batch, _):
            x, y = batch
            return F.cross_entropy(self.model(x), y)

        def configure_optimizers(self):
            return self.optimizer

    module = Module()
    names = "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"
    where = dict(accelerator="gpu" if how.device == "cuda" else "cpu", devices=1)

    def run(turn):
        off = dict.fromkeys(names, False)
        trainer = lightning.Trainer(max_epochs=1, precision=precision, **where, **off)
        trainer.fit(module, Loader(turn))

    return run


@tuned
def lightning_best(model, how):
    """In its documented bfloat16, compiled."""
    return lightning(best_layout(model, how), how, "bf16-mixed", fused=True)


def fastai(model, how, tune=lambda learn: None, **settings):
    """fastai's Learner around torch's AdamW."""
    from functools import partial

    from fastai.callback import progress  # noqa: F401, adds no_bar
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    optimizer = partial(OptimWrapper, opt=partial(torch.optim.AdamW, **settings))
    loaders = lambda turn: DataLoaders(Loader(turn), [], device=torch.device(how.device))
    learn = Learner(loaders(None), model, F.cross_entropy, opt_func=optimizer, lr=1e-4)
    tune(learn)

    def run(turn):
        learn.dls = loaders(turn)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)

    return run


@tuned
def fastai_best(model, how):
    """Its callbacks for channels last and bfloat16 (for CUDA only), compiled."""
    from fastai.callback import channelslast  # noqa: F401, adds the method

    amp = dict(amp_mode="bf16") if how.device == "cuda" else dict(use_amp=False)
    tune = lambda learn: learn.to_channelslast(**amp)
    return fastai(best_layout(model, how), how, tune, fused=True)


def ftlearn(model, how):
    """Step and fit."""
    step = Step(model, cross_entropy(), adamw(model), bf16(how.device))
    return lambda turn: fit(step, turn, report=False)


def ftlearn_fast(model, how):
    """What `fast` picks; it needs a batch, which the first turn gives."""
    step = Step(model, cross_entropy(), adamw(model))

    def run(turn):
        nonlocal step
        if not hasattr(run, "picked"):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                step = fast(step, *next(turn.resident()))
            run.picked = said.getvalue().splitlines()
        fit(step, turn, report=False)

    return run


ARMS = {
    "plain": plain,
    "plain, best": plain_best,
    "lightning": lightning,
    "lightning, best": lightning_best,
    "fastai": fastai,
    "fastai, best": fastai_best,
    "ftlearn": ftlearn,
    "ftlearn, fast": ftlearn_fast,
}


# Rows: what a part of the file holds of an arm


def missing(arm):
    """Why an arm cannot run here, or None."""
    package = arm.split(",")[0]
    found = package in ("plain", "ftlearn") or importlib.util.find_spec(package)
    return None if found else f"{package} is not installed"


def done(row, how):
    """Whether there is nothing left to do for a row."""
    full = len(row.get("seconds", ())) >= how.turns
    return full or "absent" in row or row.get("failed", "").startswith("out of memory")


@contextlib.contextmanager
def recorded(row):
    """What goes wrong is written into the row, and does not end the run."""
    row.pop("failed", None)
    try:
        yield
    except torch.OutOfMemoryError as error:
        row["failed"] = f"out of memory: {str(error).splitlines()[0]}"
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {error}"[:600]
    if "failed" in row:
        print(row["failed"], file=sys.stderr)


def emptied():
    """Free what nobody holds; bytes that are still allocated and reserved."""
    gc.collect()
    if not torch.cuda.is_available():
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def peak(before):
    """The most bytes since `emptied`, without what others held."""
    if before is None:
        return NEEDS
    found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return dict(allocated=found[0] - before[0], reserved=found[1] - before[1])


def prepared(build, row, columns, batch):
    """Build an arm and let it make its first updates: what that takes, and what runs a turn."""
    before, began = emptied(), now()
    run = build()
    turn, times = clocked(columns, batch, 0, 1)
    run(turn)
    row.setdefault("first_update_seconds", []).append(times[1] - began)
    row["peak_bytes"] = peak(before)
    if hasattr(run, "picked"):
        row["picked"] = run.picked
    return run


def ready(builds, rows, columns, batch, how):
    """Those that have something left to do, built: {name: what runs a turn}."""
    runs = {}
    for name, build in builds.items():
        row = rows.setdefault(name, {})
        if not done(row, how):
            with recorded(row):
                runs[name] = prepared(build, row, columns, batch)
                print(f"{name}: ready after {row['first_update_seconds'][-1]:.1f} s", flush=True)
    return runs


def in_turns(runs, rows, measure, how, keep):
    """Turns until every row is full; the order rotates; each turn is kept at once."""
    for turn in range(how.turns):
        names = [name for name in runs if len(rows[name].get("seconds", ())) <= turn]
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            with recorded(rows[name]):
                rows[name].setdefault("seconds", []).append(measure(runs[name]))
            if "failed" in rows[name]:
                del runs[name]
            keep()


# The parts of the file


def part(results, *names):
    """A dict in the results, made if it is not there."""
    for name in names:
        results = results.setdefault(name, {})
    return results


def speeds(results, name, batch, how, keep):
    """All arms on one model and one size of batch."""
    rows = part(results, "models", name, "batches", str(batch))
    if rows and all(done(rows.get(arm, {}), how) for arm in ARMS):
        return
    torch.compiler.reset()
    columns = pictures(how)
    rows.update({arm: dict(absent=why) for arm in ARMS if (why := missing(arm))})
    builds = {arm: lambda f=f: f(model_of(name, how), how) for arm, f in ARMS.items()}
    runs = ready(builds, rows, columns, batch, how)
    keep()
    in_turns(runs, rows, lambda run: timed(run, columns, batch, how), how, keep)


def floats(how, batch):
    """The usual path: normalised floats on the CPU, worker processes, pinned memory; for ever."""
    x, y = pictures(how, "cpu")
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 1, 3, 1, 1)
    ready = torch.utils.data.TensorDataset((x / 255 - mean) / std, y)
    settings = dict(num_workers=how.workers, persistent_workers=how.workers > 0, drop_last=True)
    pinned = how.device == "cuda"
    loader = torch.utils.data.DataLoader(ready, batch, True, pin_memory=pinned, **settings)

    def source():
        while True:
            for columns in loader:
                yield tuple(c.to(how.device, non_blocking=True) for c in columns)

    return source


def sent(how, batch):
    """Bytes on the CPU, sent one batch ahead; for ever."""
    data = Columns(*pictures(how, "cpu"), batch_size=batch, shuffle=True)
    data = prefetched(data.take(slice(len(data) // batch * batch)), how.device)
    return lambda: itertools.chain.from_iterable(data.batches(epoch) for epoch in itertools.count())


def loaders(results, name, how, keep):
    """One loop, the plain one in its best setting, fed in three ways."""
    rows, batch = part(results, "loaders", name), how.batches[len(how.batches) // 2]
    ways = {"bytes on the GPU": lambda: None, "bytes sent": lambda: sent(how, batch)}
    ways["floats from a loader"] = lambda: floats(how, batch)
    if all(done(rows.get(way, {}), how) for way in ways):
        return
    torch.compiler.reset()
    columns, sources = pictures(how), {}

    def build(way):
        model = model_of(name, how)
        run = plain_best(model.net if way == "floats from a loader" else model, how)
        sources[run] = ways[way]()
        return lambda turn: run(Turn(columns, batch, turn.draws, turn.at, sources[run]))

    part(results, "settings")["loaders_batch"] = batch
    builds = {way: lambda way=way: build(way) for way in ways}
    runs = ready(builds, rows, columns, batch, how)
    in_turns(runs, rows, lambda run: timed(run, columns, batch, how), how, keep)


def learning(name, stage, model):
    """The names of the modules that learn in a stage."""
    layers = len(model.net.encoder.layers) if hasattr(model.net, "encoder") else 0
    return [module.format(last=layers - 1) for module in LEARNING[name][stage]]


def whole(name, stage, columns, batch, how):
    """The usual job: what is frozen runs again at every update. Returns seconds."""
    model, began = model_of(name, how), now()
    names = tuple(learning(name, stage, model))
    for key, p in model.named_parameters():
        p.requires_grad_(key.startswith(names))
    run = loop(model, adamw(model), how)
    for _ in range(how.epochs):
        run(Columns(*columns, batch_size=batch, shuffle=True))
    return now() - began


def kept(name, stage, columns, batch, how):
    """The same with ftlearn: what is frozen runs once. Returns seconds."""
    model, began = model_of(name, how), now()
    body, rest = split(model, "head" if stage == "head" else learning(name, stage, model)[0])
    freeze(body), unfreeze(rest)
    data, amp = Columns(*columns, batch_size=batch, shuffle=True), bf16(how.device)
    data = cache(body, data, amp=amp, report=False)
    fit(fused(Step(rest, cross_entropy(), adamw(rest), amp)), data, epochs=how.epochs, report=False)
    return now() - began


def stages(results, name, stage, how, keep):
    """Seconds of jobs that train a part, the usual way and with cached features, in turns."""
    rows, batch = part(results, "stages", name, stage), how.batches[len(how.batches) // 2]
    ways = {"plain": whole, "ftlearn": kept}
    part(results, "settings")["stages_batch"] = batch
    columns = pictures(how)
    for way, job in ways.items():
        row = rows.setdefault(way, {})
        if not done(row, how):
            with recorded(row):
                row["first_seconds"] = job(name, stage, columns, batch, how)
    runs = {way: job for way, job in ways.items() if not done(rows[way], how)}
    in_turns(runs, rows, lambda job: job(name, stage, columns, batch, how), how, keep)


def silent(step, columns, batch, record):
    """Whether 20 updates of fit's loop, from the third on, wait for nothing: True, or what waits.

    Before the first one the schedule reads the rates that the optimizer was given.
    """
    watch = lambda mode: lambda: torch.cuda.set_sync_debug_mode(mode)
    turn = Turn(columns, batch, 24, {2: watch("error"), 22: watch("default")})
    try:
        step = graphed(step, *next(turn.resident())) if record else step
        fit(step, turn, schedule=lambda progress: 1 - progress, report=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:600]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def silence(results, name, how, keep):
    """The step never waits, plain and recorded, under a schedule."""
    rows = part(results, "silence", name)
    if how.device != "cuda":
        rows.update(dict.fromkeys(("plain", "recorded"), NEEDS))
        return keep()
    batch, columns = how.batches[0], pictures(how)
    for kind in ("plain", "recorded"):
        if rows.get(kind) is not True:
            model = model_of(name, how)
            step = Step(model, cross_entropy(), adamw(model, fused=True), bf16())
            rows[kind] = silent(step, columns, batch, kind == "recorded")
    keep()


def kernels(replay, times=5):
    """Seconds of the kernels of one replay, their times added up."""
    from torch.profiler import DeviceType, ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(times):
            replay()
        now()
    on_device = [e for e in seen.events() if e.device_type == DeviceType.CUDA]
    spent = [e.time_range.elapsed_us() for e in on_device if not e.is_user_annotation]
    return sum(spent) / 1e6 / times


def replays(replay, times=50):
    """Seconds of one replay, of `times` in a row."""
    began = now()
    for _ in range(times):
        replay()
    return (now() - began) / times


def replay(results, name, how, keep):
    """A CUDA graph's replay against the sum of its kernels, batch by batch."""
    for batch in how.batches:
        row = part(results, "replay", name, str(batch))
        if how.device != "cuda":
            row["needs"] = NEEDS
        elif "ratio" not in row:
            with recorded(row):
                row.update(replayed(model_of(name, how), [c[:batch] for c in pictures(how)], how))
        keep()


def replayed(model, example, how):
    """A row: seconds of replays, and of the kernels in one."""
    torch.compiler.reset()
    kernels(lambda: None)  # the profiler's own start comes before the recording
    step = fast(Step(model, cross_entropy(), adamw(model)), *example)
    spent, seconds = kernels(step.replay), [replays(step.replay) for _ in range(how.turns)]
    return dict(kernel_seconds=spent, seconds=seconds, ratio=statistics.median(seconds) / spent)


def ceiling(results, how):
    """The measured rate of matrix products in bfloat16, and the operations of an image."""
    rates = part(results, "ceiling").setdefault("operations_per_second", [])
    while len(rates) < how.turns:
        rates.append(matrix_rate(torch.bfloat16, how.device, 256 if how.toy else None))
    for name in results["settings"]["models"]:
        row = part(results, "models", name)
        if "operations_per_image" not in row:
            model, columns = model_of(name, how), [c[:2] for c in pictures(how)]
            row["operations_per_image"] = cost(both_ways, model, *columns, how).operations // 2


def both_ways(model, x, y, how):
    """Forward and backward."""
    with half(how):
        loss = F.cross_entropy(model(x), y)
    loss.backward()


# What the rows say


def spread(values):
    """Median, quartiles and number."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return dict(median=middle, quartiles=[low, high], n=len(values))


def measured(row):
    """Whether a row has numbers to speak of."""
    return len(row.get("seconds", ())) > 1 and "failed" not in row


def summarise(results, how):
    """Images per second and shares of the ceiling, from the raw seconds."""
    rate = statistics.median(results["ceiling"]["operations_per_second"])
    for model in results["models"].values():
        for batch, rows in model.get("batches", {}).items():
            for row in filter(measured, rows.values()):
                images = [int(batch) * how.updates / s for s in row["seconds"]]
                row["images_per_second"] = spread(images)
                share = row["images_per_second"]["median"] * model["operations_per_image"] / rate
                row["share_of_ceiling"] = share
    for rows in results.get("loaders", {}).values():
        for row in filter(measured, rows.values()):
            images = results["settings"]["loaders_batch"] * how.updates
            row["images_per_second"] = spread([images / s for s in row["seconds"]])


def times_as_fast(rows, peer, ours="ftlearn, fast"):
    """How many times as fast as a peer: median and quartiles within turns, or None."""
    if not all(measured(rows.get(arm, {})) for arm in (peer, ours)):
        return None
    return ratio(rows[peer]["seconds"], rows[ours]["seconds"])


def target(what, wanted, found, at_most=False):
    """A target, and whether it was reached."""
    if found is None:
        return dict(what=what, wanted=wanted, found="not measured", reached="not measured")
    middle = found["median"] if isinstance(found, dict) else found
    if isinstance(middle, str):
        return dict(what=what, wanted=wanted, found=middle, reached="not measured")
    reached = middle <= wanted if at_most else middle >= wanted
    return dict(what=what, wanted=wanted, found=found, reached=reached)


def speed_targets(name, batch, rows):
    """Against the fastest compiled peer, and against each peer's default."""
    found = {peer: times_as_fast(rows, peer) for peer in (*BEST, *DEFAULTS)}
    best = [found[peer] for peer in BEST if found[peer]]
    least = min(best, key=lambda r: r["median"], default=None)
    where = f"{name}, batches of {batch}, times as fast as"
    yield target(f"{where} the fastest compiled peer", 0.98, least)
    for peer in DEFAULTS:
        yield target(f"{where} {peer} as it comes", 1.5, found[peer])


def targets(results):
    """All targets, computed from the rows."""
    found = []
    for name, model in results["models"].items():
        for batch, rows in model.get("batches", {}).items():
            found += speed_targets(name, batch, rows)
    for name, batches in results.get("replay", {}).items():
        for batch, row in batches.items():
            what = f"{name}, batches of {batch}, replay over its kernels"
            found.append(target(what, 1.05, row.get("ratio"), at_most=True))
    for name, rows in results.get("silence", {}).items():
        for kind, answer in rows.items():
            reached = "not measured" if answer == NEEDS else answer is True
            what = f"{name}, {kind} step, updates wait for nothing"
            found.append(dict(what=what, wanted=True, found=answer, reached=reached))
    return found


def ratios(results):
    """Of the jobs that train a part: how many times as fast as the usual way."""
    return {
        f"{name}, {stage}": times_as_fast(rows, "plain", "ftlearn")
        for name, stages in results.get("stages", {}).items()
        for stage, rows in stages.items()
    }


# The file


def installed(package):
    """The package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine():
    """Hardware and versions."""
    peers = {name: installed(name) for name in ("lightning", "fastai", "triton")}
    if not torch.cuda.is_available():
        return environment() | peers
    gpu = torch.cuda.get_device_properties(0)
    found = dict(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(), driver=driver())
    return environment() | peers | found | dict(memory=gpu.total_memory)


def driver():
    """The version of the GPU's driver, as its own tool says it."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return said.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def begun(path, how, models):
    """The results so far, or new ones; results of other hardware or settings are not mixed in."""
    settings = how._asdict() | dict(batches=list(how.batches))
    results = dict(script="python benchmarks/gpu.py", measured=True, toy=how.toy, n=how.turns)
    results |= dict(environment=machine(), settings=settings | dict(models=list(models)))
    old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if old.get("measured") is not True:
        return results
    here, there = results["environment"], old["environment"]
    other = [key for key in here if key not in FREE and here[key] != there.get(key)]
    known = old["settings"]
    if other := other + [key for key in settings if settings[key] != known.get(key, settings[key])]:
        raise SystemExit(f"{path} was made with another {', '.join(other)}: give another --file.")
    known["models"] += [name for name in models if name not in known["models"]]
    if here not in [there, *old.get("continued_on", [])]:
        old.setdefault("continued_on", []).append(here)
    return old


def write(path, results):
    """The whole file, or the old one."""
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    beside.replace(path)


def parts(results, models, how, keep):
    """What is to be done, one after the other, as functions."""
    for name in models:
        for batch in how.batches:
            yield lambda name=name, batch=batch: speeds(results, name, batch, how, keep)
        yield lambda name=name: silence(results, name, how, keep)
        yield lambda name=name: replay(results, name, how, keep)
        yield lambda name=name: loaders(results, name, how, keep)
        for stage in ("head", "last"):
            yield lambda name=name, stage=stage: stages(results, name, stage, how, keep)


class Enough(BaseException):
    """The minutes are over."""


def measure(path, models, how, minutes=None):
    """Measure what the file does not have yet, for some minutes, and write."""
    results, began = begun(path, how, models), time.perf_counter()

    def keep():
        write(path, results)
        if minutes and time.perf_counter() - began > 60 * minutes:
            raise Enough

    ceiling(results, how)
    try:
        for do in parts(results, models, how, keep):
            if minutes and time.perf_counter() - began > 30 * minutes:
                raise Enough  # preparing a part takes minutes
            do()
        results["complete"] = True
    except Enough:
        print("The minutes are over: call again, it goes on from here.")
    summarise(results, how)
    results |= dict(stages_times_as_fast=ratios(results), targets=targets(results))
    write(path, results)
    return results


def not_measured(path):
    """Say that there are no numbers, unless there are some from another machine."""
    old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    print(f"There is no GPU here, so nothing was measured; {path.name} says so.")
    if old.get("measured") is True:
        print("It holds results of another machine, which stay.")
        return old
    why = "no GPU was available when this file was written"
    new = dict(measured="not measured", why=why, script="python benchmarks/gpu.py")
    write(path, new)
    return new


def command(arguments=None):
    """What is asked for."""
    minutes = "begin no part after half of these, no turn after all"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toy", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--file", type=Path, help="where the results go")
    parser.add_argument("--minutes", type=float, help=minutes)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, or say that nothing can be measured."""
    asked = command(arguments)
    toys = Path(tempfile.gettempdir()) / "gpu-toy.json"
    path = asked.file or (toys if asked.toy else FILE)
    if not asked.toy and not torch.cuda.is_available():
        return not_measured(path)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return measure(path, asked.models, size(asked.toy, asked.batches), asked.minutes)


if __name__ == "__main__":
    main()

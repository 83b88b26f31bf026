"""How the cost grows with the data, and how long it takes to a fixed accuracy.

    python benchmarks/growth.py

Both use the embedded fine-tune: glyphnet, pretrained on letters, learns 8 x 8 digits. Growth: 900
digits, and 10 and 100 times as many (copies with a little noise), the head only and the whole
network, by the loop of PyTorch's tutorial, fastai, Lightning and ftlearn. Accuracy: 20 labels per
class, until 97 % of the 300 validation digits are right, looked at every 5 updates off the clock;
rates were chosen on two other draws of labels. What the letters cost, 3,500 updates, stands
beside it. Each run has a process of its own. Stopped anywhere, it goes on from growth.json.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch
from arms import LIBRARIES, peak
from torch import nn
from torch.nn import functional as F

BATCH, RATES, TARGET = 50, {"head": 1e-2, "full": 5e-4}, 0.97
SIZES = (1, 10, 100)  # times the data
ARMS = ("plain", "fastai", "lightning", "ftlearn")
LIMITS = {"probe": 1, "cached head": 200, "full": 200, "plain loop": 200, "from scratch": 200}


def copies(times):
    """The pool `times` over: the first as it is, the others with noise of at most one level."""
    from ftlearn.glyphs import digits

    pool, valid, _ = digits(batch_size=BATCH)
    (x, y), random = pool.columns, torch.Generator().manual_seed(0)
    many = x.repeat(times, 1, 1, 1)
    for copy in many.split(len(x))[1:]:
        noise = torch.randint(-1, 2, x.shape, generator=random, dtype=torch.int16)
        copy.copy_((x + noise).clamp(0, 16))
    return pool.like(many, y.repeat(times), shuffle=True), valid


def network(stage, weights="letters"):
    """glyphnet and its parameters that learn; the head is new and zero."""
    from ftlearn.models import glyphnet

    model = glyphnet(10, weights)
    if stage == "head":
        model.requires_grad_(False)[-1].requires_grad_(True)
    return model, [p for p in model.parameters() if p.requires_grad]


def loader(data):
    """The usual loader over the same tensors."""
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(*data.columns), BATCH, shuffle=True)


def plain(data, stage, epochs):
    """The loop of PyTorch's tutorial."""
    model, learned = network(stage)
    optimizer, total = torch.optim.AdamW(learned, RATES[stage]), 0.0
    for _ in range(epochs):
        model.train()
        for x, y in loader(data):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
    return model


def fastai(data, stage, epochs):
    """fastai's Learner."""
    from fastai.vision import all as fastai

    model, _ = network(stage)
    loaders = fastai.DataLoaders(loader(data), [], device="cpu")
    optimizer = fastai.partial(fastai.OptimWrapper, opt=torch.optim.AdamW)
    learn = fastai.Learner(loaders, model, nn.CrossEntropyLoss(), optimizer, lr=RATES[stage])
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, wd=0.01)
    return model


def lightning(data, stage, epochs):
    """Lightning's Trainer."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.learned = network(stage)

        def training_step(self, batch, _):
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.learned, RATES[stage])

    module = Module()
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=epochs, **dict.fromkeys(off, False))
    trainer.fit(module, loader(data))
    return module.model


def ftlearn(data, stage, epochs):
    """ftlearn: the head on cached features, the whole network as it is."""
    from ftlearn.features import cache
    from ftlearn.freezing import freeze
    from ftlearn.losses import cross_entropy
    from ftlearn.models import split
    from ftlearn.training import Step, fit

    model, learned = network("full")
    part = model
    if stage == "head":
        body, part = split(model, at="head")
        data, learned = cache(freeze(body), data), part.parameters()
    fit(Step(part, cross_entropy(), torch.optim.AdamW(learned, RATES[stage])), data, epochs=epochs)
    return model


def grow(arm, stage, times, epochs):
    """One run: seconds and memory, from data and imported library to the trained model."""
    from ftlearn.training import evaluate

    data, valid = copies(times)
    for name in LIBRARIES[arm]:
        import_module(name)
    before, began = peak(), time.perf_counter()
    model = globals()[arm](data, stage, epochs)
    seconds = time.perf_counter() - began
    before_after = [m.stem[1].running_mean for m in (network(stage)[0], model)]
    return dict(
        seconds=round(seconds, 3),
        images_per_second=round(epochs * len(data) / seconds),
        peak_rise_mb=round(peak() - before, 1),
        accuracy=round(evaluate(model, valid), 4),
        bn="constant" if torch.equal(*before_after) else "live",
    )


def probe(few, limit):
    """Logistic regression on the cached features of four depths."""
    from ftlearn.features import cache, linear_probe
    from ftlearn.freezing import freeze
    from ftlearn.labels import described, pretrained

    body = freeze(described(pretrained("letters")))
    model = nn.Sequential(body, linear_probe(cache(body, few)))
    yield model


def steps(few, limit, part, learned, lr, whole=None):
    """Updates of `part` by ftlearn; what is to be scored after every fifth."""
    from ftlearn.losses import cross_entropy
    from ftlearn.training import Step, train, train_mode

    step = Step(part, cross_entropy(), torch.optim.AdamW(learned, lr))
    for tick in train(step, few, epochs=-(-limit // few.steps)):
        if tick.i % 5 == 4:
            yield whole or part
            train_mode(step.modules)


def cached_head(few, limit):
    """glyphnet's own head on cached features."""
    from ftlearn.features import cache
    from ftlearn.freezing import freeze
    from ftlearn.models import split

    model, _ = network("full")
    body, head = split(model, at="head")
    yield from steps(cache(freeze(body), few), limit, head, head.parameters(), 1e-2, model)


def full(few, limit):
    """The probe, then the whole network, batch normalisation frozen."""
    from ftlearn.freezing import freeze, unfreeze

    for model in probe(few, limit):
        unfreeze(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            freeze(module)
    yield model
    yield from steps(few, limit, model, [p for p in model.parameters() if p.requires_grad], 3e-4)


def plain_loop(few, limit, weights="letters", lr=2e-3):
    """Every weight from the first update on, by a plain loop."""
    model, learned = network("full", weights)
    optimizer, done = torch.optim.AdamW(learned, lr), 0
    xs, ys = few.columns
    while done < limit:
        for rows in torch.randperm(len(few)).split(BATCH):
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(xs[rows]), ys[rows]).backward()
            optimizer.step()
            done += 1
            if done % 5 == 0:
                yield model


def from_scratch(few, limit):
    """The same loop from random weights."""
    yield from plain_loop(few, limit, None, 3e-3)


def reach(arm, draw, limit, target=TARGET, labels=20):
    """Seconds of training until the validation digits are read well enough, or None."""
    from ftlearn.glyphs import digits
    from ftlearn.labels import draw as drawn
    from ftlearn.training import evaluate

    pool, valid, _ = digits(batch_size=BATCH)
    few = pool.take(drawn(pool.columns[1], labels, draw)).like(shuffle=True, seed=draw)
    torch.manual_seed(draw)
    run, seconds, best, looks = globals()[arm.replace(" ", "_")](few, limit), 0.0, 0.0, 0
    while best < target:
        began = time.perf_counter()
        model = next(run, None)
        seconds += time.perf_counter() - began
        if model is None:
            break
        best, looks = max(best, evaluate(model, valid)), looks + 1
    return dict(reached=best >= target, seconds=round(seconds, 3), looks=looks, best=round(best, 4))


def warm():
    """What an arm would otherwise import or set up on the clock."""
    import sklearn.linear_model  # noqa: F401

    from ftlearn.glyphs import digits

    pool = digits(batch_size=BATCH)[0].take(slice(100))
    for arm in ("probe", "cached_head", "full", "plain_loop"):
        next(globals()[arm](pool, 5))


def bill(updates, some=(2, 12, 52)):
    """Seconds of the whole pretraining, from the difference between two short ones."""
    from ftlearn.pretrain import pretrain

    times = []
    with tempfile.TemporaryDirectory() as folder:
        for n in some:  # the first draws the letters
            began = time.perf_counter()
            pretrain(updates=n, path=Path(folder) / "letters.safetensors")
            times.append(time.perf_counter() - began)
    seconds = (times[2] - times[1]) / (some[2] - some[1]) * updates
    return dict(seconds=round(seconds, 1), from_updates=some[2] - some[1])


def measure(part, **job):
    """One job."""
    if part == "accuracy":
        warm()
    return dict(growth=grow, accuracy=reach, pretraining=bill)[part](**job)


def epochs(stage, times):
    """Two; one where that takes long enough and each costs the same."""
    return 1 if stage == "full" and times == 100 else 2


def plan(sizes=SIZES, arms=ARMS, limits=LIMITS, draws=5, updates=3500):
    """All jobs: arms next to each other, so that what else the machine does hits them alike."""
    growth = [
        dict(part="growth", arm=arm, stage=stage, times=times, epochs=epochs(stage, times))
        for times in sizes
        for stage in RATES
        for arm in arms
    ]
    accuracy = [
        dict(part="accuracy", arm=arm, draw=draw, limit=limit)
        for draw in range(draws)
        for arm, limit in limits.items()
    ]
    return growth + accuracy + [dict(part="pretraining", updates=updates)]


def alone(job):
    """A job in a process of its own; what it measured, or that its library is not here."""
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "No module named" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"{job} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(rows):
    """Median seconds to the target where it was reached, and how often it was."""
    found = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        times = [row["seconds"] for row in mine if row["reached"]]
        median = round(statistics.median(times), 3) if times else None
        best = round(statistics.mean(row["best"] for row in mine), 4)
        found[arm] = dict(seconds=median, reached=len(times), n=len(mine), best=best)
    return found


def main(jobs=None, path=None):
    """Do what is not done yet, and write after every job."""
    from ftlearn.experiment import read_results, todo, write_results
    from ftlearn.labels import environment

    path = Path(path or Path(__file__).with_suffix(".json"))
    rows, jobs = read_results(path).get("rows", []), jobs or plan()
    for job in todo(jobs, rows):
        if answer := alone(job):
            rows.append(job | answer)
        print(json.dumps(job | (answer or dict(left_out=True))), flush=True)
        results = dict(
            script="python benchmarks/growth.py",
            environment=environment(),
            n=len({row["draw"] for row in rows if row["part"] == "accuracy"}),
            target=TARGET,
            to_target=summary([row for row in rows if row["part"] == "accuracy"]),
            rows=rows,
        )
        write_results(path, results)
    return read_results(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
    else:
        main()

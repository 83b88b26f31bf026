"""One run of one library on one job, in a process of its own.

    python benchmarks/arms.py ARM STAGE EPOCHS PRECISION [--seed N] [--toy]

prints one line of JSON. ARM is a name from ARMS, STAGE is head, last or full, PRECISION is fp32 or
bf16, and for ftlearn and by_hand also default: what `fast` picks here, and bf16. Each arm is written as its library's
own documentation does it. Where something is not its default, that favours the library: batches
are made in the same process, progress bars, loggers and checkpoints are off, and so are the
Trainer's gradient clipping and Lightning's sanity check.

Seconds run from bytes and a torch model in memory to the last score. Imports are counted apart,
on top of torch.
"""

import argparse
import importlib
import json
import resource
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import torch
from jobs import BATCH, DECAY, MEAN, STD, job, last_stage, normalised
from torch import nn
from torch.nn import functional as F

LIBRARIES = {  # what is imported, and timed, before the job starts
    "bare": (),
    "plain": ("torchvision",),
    "by_hand": ("torchvision",),
    "fastai": ("fastai.vision.all",),
    "lightning": ("lightning",),
    "trainer": ("transformers.trainer",),
    "keras": ("keras",),
    "ftlearn": ("torchvision", "ftlearn.features", "ftlearn.rates", "ftlearn.speed"),
}


def half(wanted):
    """PyTorch's recipe for mixed precision in bfloat16, or nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted)


def freeze_before(model, stage):
    """The usual way to freeze: no gradients. Returns the parameters that learn."""
    learning = last_stage(model, stage)
    for name, part in model.named_children():
        part.requires_grad_(name in learning)
    return [p for p in model.parameters() if p.requires_grad]


def sets(job):
    """Training and validation set as normalised floats."""
    from torch.utils.data import TensorDataset

    return [TensorDataset(normalised(x), y) for x, y in (job.train, job.valid)]


def loaders(job):
    """Their loaders; without worker processes, which cost more than they save on such a set."""
    from torch.utils.data import DataLoader

    train, valid = sets(job)
    return DataLoader(train, BATCH, shuffle=True), DataLoader(valid, BATCH)


def bare(job, precision):
    """The limit: every picture goes through the model once, in the format that ftlearn uses."""
    model = job.model.eval().to(memory_format=torch.channels_last)
    with torch.no_grad(), half(precision == "bf16"):
        for pictures, _ in (job.train, job.valid):
            for x in pictures.split(BATCH):
                model(normalised(x))
    return None, 0


def plain(job, precision):
    """The loop of PyTorch's tutorial on transfer learning, its mixed precision if asked."""
    model = job.model
    train, valid = loaders(job)
    optimizer = torch.optim.AdamW(freeze_before(model, job.stage), job.rate, weight_decay=DECAY)
    updates = 0
    for _ in range(job.epochs):
        for learning, loader in ((True, train), (False, valid)):
            model.train(learning)
            loss_sum, correct = 0.0, 0
            for x, y in loader:
                optimizer.zero_grad()
                with torch.set_grad_enabled(learning):
                    with half(precision == "bf16"):
                        z = model(x)
                        loss = F.cross_entropy(z, y)
                    if learning:
                        loss.backward()
                        optimizer.step()
                        updates += 1
                loss_sum += loss.item() * len(x)
                correct += torch.sum(z.argmax(1) == y)
    return float(correct) / len(valid.dataset), updates


def by_hand(job, precision):
    """What ftlearn does, written out in torch: features once, one kernel, channels last, bf16."""
    parts = list(job.model.to(memory_format=torch.channels_last).named_children())
    parts.insert(-1, ("flatten", nn.Flatten()))
    at = [name for name, _ in parts].index(last_stage(job.model, job.stage)[0])
    body, rest = [nn.Sequential(OrderedDict(some)) for some in (parts[:at], parts[at:])]
    body.eval().requires_grad_(False)
    wanted, updates = half(precision != "fp32"), 0
    with torch.no_grad(), wanted:
        sets = [[body(normalised(b)) for b in x.split(BATCH)] for x, _ in (job.train, job.valid)]
        x, unseen = [torch.cat(features) for features in sets]
    y, truth = job.train[1], job.valid[1]
    optimizer = torch.optim.AdamW(rest.parameters(), job.rate, weight_decay=DECAY, fused=True)
    for _ in range(job.epochs):
        rest.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            with wanted:
                loss = F.cross_entropy(rest(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
        rest.eval()
        with torch.no_grad(), wanted:
            z = torch.cat([rest(b) for b in unseen.split(BATCH)])
    return float((z.argmax(1) == truth).float().mean()), updates


def fastai(job, precision):
    """A Learner with two parameter groups, frozen up to the last; BatchNorm learns, its default."""
    from fastai.vision import all as fastai

    class BFloat16(fastai.Callback):  # what its MixedPrecision does, which is for CUDA only
        order = 10

        def before_batch(self):
            self.context = half(True)
            self.context.__enter__()

        def after_loss(self):
            self.context.__exit__(None, None, None)

    def groups(model):
        learning = last_stage(model, job.stage)
        parts = dict(model.named_children())
        before = nn.ModuleList([part for name, part in parts.items() if name not in learning])
        after = nn.ModuleList([parts[name] for name in learning])
        return [fastai.params(part) for part in (before, after) if len(part)]

    dls = fastai.DataLoaders.from_dsets(*sets(job), bs=BATCH, num_workers=0, drop_last=False)
    learn = fastai.Learner(
        dls,
        job.model,
        loss_func=fastai.CrossEntropyLossFlat(),
        opt_func=fastai.partial(fastai.OptimWrapper, opt=torch.optim.AdamW),
        splitter=groups,
        metrics=fastai.accuracy,
        cbs=[BFloat16()] if precision == "bf16" else None,
    )
    if job.stage != "full":
        learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit(job.epochs, job.rate, wd=DECAY)
    return float(learn.recorder.values[-1][-1]), learn.train_iter


def lightning(job, precision):
    """A LightningModule; the frozen part in evaluation mode and without gradients, as documented."""
    import lightning

    learning = last_stage(job.model, job.stage)
    parts = OrderedDict(job.model.named_children())
    before = OrderedDict((name, p) for name, p in parts.items() if name not in learning)
    after = OrderedDict((name, parts[name]) for name in learning if name != "fc")

    class Transfer(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.extractor = nn.Sequential(before).requires_grad_(False).eval()
            self.rest = nn.Sequential(*after.values(), nn.Flatten(), parts["fc"])

        def forward(self, x):
            with torch.no_grad():
                h = self.extractor(x)
            return self.rest(h)

        def training_step(self, batch):
            x, y = batch
            return F.cross_entropy(self(x), y)

        def validation_step(self, batch):
            x, y = batch
            self.log("accuracy", (self(x).argmax(1) == y).float().mean())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.rest.parameters(), job.rate, weight_decay=DECAY)

    trainer = lightning.Trainer(
        max_epochs=job.epochs,
        accelerator="cpu",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Transfer(), *loaders(job))
    return trainer.callback_metrics["accuracy"].item(), trainer.global_step


def trainer(job, precision):
    """Transformers' Trainer around a module that returns its loss."""
    from transformers import Trainer, TrainingArguments

    class Classifier(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x, labels=None):
            z = self.model(x)
            return {"loss": F.cross_entropy(z, labels), "logits": z}

    def score(found):
        return {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()}

    freeze_before(job.model, job.stage)
    train, valid = [[{"x": x, "labels": y} for x, y in part] for part in sets(job)]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=job.epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            learning_rate=job.rate,
            weight_decay=DECAY,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=precision == "bf16",
            label_names=["labels"],
        )
        fitted = Trainer(
            model=Classifier(job.model),
            args=settings,
            train_dataset=train,
            eval_dataset=valid,
            compute_metrics=score,
        )
        fitted.train()
    scores = [row["eval_accuracy"] for row in fitted.state.log_history if "eval_accuracy" in row]
    return float(scores[-1]), fitted.state.global_step


def keras(job, precision):
    """Keras 3 on torch: the network in a TorchModuleWrapper, compile and fit."""
    import keras

    class BFloat16(nn.Module):  # its own mixed_bfloat16 casts the inputs of keras layers only
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            with half(True):
                return self.model(x)

    freeze_before(job.model, job.stage)
    network = BFloat16(job.model) if precision == "bf16" else job.model
    (x, y), (unseen, truth) = [part.tensors for part in sets(job)]
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.TorchModuleWrapper(network)])
    model.compile(
        keras.optimizers.AdamW(job.rate, weight_decay=DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(x, y, BATCH, job.epochs, verbose=0, validation_data=(unseen, truth))
    return history.history["val_accuracy"][-1], int(model.optimizer.iterations)


def ftlearn(job, precision):
    """What does not learn is run over the pictures once; the rest trains on what it said."""
    from ftlearn.data import Columns
    from ftlearn.features import cache
    from ftlearn.freezing import freeze, unfreeze
    from ftlearn.losses import cross_entropy
    from ftlearn.models import Normalize, split
    from ftlearn.speed import channels_last, fast, mixed_precision
    from ftlearn.training import Step, bf16, fit

    parts = OrderedDict(normalize=Normalize([MEAN] * 3, [STD] * 3), net=job.model)
    model = unfreeze(nn.Sequential(parts))
    amp = {"fp32": lambda: None, "bf16": bf16, "default": mixed_precision}[precision]()
    data = Columns(*job.train, batch_size=BATCH, shuffle=True, seed=torch.initial_seed())
    valid = data.like(*job.valid)
    if job.stage != "full":
        body, model = split(model, {"head": "head", "last": "net.layer4"}[job.stage])
        freeze(channels_last(body))
        data, valid = [cache(body, part, amp=amp) for part in (data, valid)]
    optimizer = torch.optim.AdamW(model.parameters(), job.rate, weight_decay=DECAY)
    step = Step(model, cross_entropy(), optimizer)
    step = fast(step, *next(data.batches()), bits=32 if precision == "fp32" else 16)
    history = fit(step, data, valid, job.epochs, report=False)
    return history["score"][-1], len(history.losses)


ARMS = {
    arm.__name__: arm for arm in (bare, plain, by_hand, fastai, lightning, trainer, keras, ftlearn)
}


def peak():
    """The most memory that this process has held, in MB; Linux says it without the parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(arm, stage, epochs, precision, seed=0, toy=False):
    """Do one run and measure it; images are counted as they enter the first convolution."""
    began = time.perf_counter()
    for name in LIBRARIES[arm]:
        importlib.import_module(name)
    imported = time.perf_counter() - began
    torch.manual_seed(seed)
    work, images = job(stage, epochs, toy), []
    work.model.conv1.register_forward_pre_hook(lambda m, x: images.append(len(x[0])))
    norm, memory = work.model.layer1[0].bn1, peak()
    before, began = norm.running_mean.clone(), time.perf_counter()
    accuracy, updates = ARMS[arm](work, precision)
    seconds = time.perf_counter() - began
    return dict(
        seconds=round(seconds, 3),
        import_seconds=round(imported, 3),
        accuracy=accuracy and round(accuracy, 5),
        bn="constant" if torch.equal(before, norm.running_mean) else "live",
        peak_mb=round(peak()),
        rise_mb=round(peak() - memory),
        updates=int(updates),
        forward_images=sum(images),
        threads=torch.get_num_threads(),
    )


def main():
    """One run from the command line."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("arm", choices=ARMS)
    asked.add_argument("stage")
    asked.add_argument("epochs", type=int)
    asked.add_argument("precision", choices=["default", "fp32", "bf16"])
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--toy", action="store_true")
    print(json.dumps(run(**vars(asked.parse_args()))))


if __name__ == "__main__":
    main()

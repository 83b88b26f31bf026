"""What an import costs: fresh processes in turn.

    python benchmarks/imports.py [rounds]

Each process imports torch and torchvision, and then one library the way its documentation does;
ftlearn's names are those of its lessons, so that its modules are really loaded. The clock starts
before torch and stops after the library. Compiled bytecode is kept, as an installer leaves it.
Python's garbage collector goes over all of torch's objects now and then, and whose import it
falls into is chance, so the ratios stand there with its time and without. Goes into imports.json.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BASE = "import torch, torchvision"
NAMES = (
    "Columns HeldOut Phase Recipe Step accumulate adapt_input audit backbone cache cross_entropy "
    "digits evaluate finetune fit freeze glyphnet image_folder knowledge_distillation "
    "linear_probe load_checkpoint mixup one_cycle param_groups predict replace_head save_weights "
    "split tap taught train unfreeze"
).split()
LIBRARIES = dict(
    ftlearn=f"from ftlearn import {', '.join(NAMES)}",
    fastai="from fastai.vision.all import *",
    lightning="import lightning",
    trainer="from transformers import Trainer, TrainingArguments",
    keras="import keras",
)
CLOCK = """
import gc, time
collecting = 0.0
def watch(phase, _):
    global collecting
    collecting += time.perf_counter() * (1 if phase == "stop" else -1)
gc.callbacks.append(watch)
began = time.perf_counter()
{}
print(time.perf_counter() - began, collecting)
"""


def seconds(statements):
    """Of the statements in a fresh interpreter, and of Python's garbage collector among them."""
    command = [sys.executable, "-W", "ignore", "-c", CLOCK.format(statements)]
    place = os.environ | dict(KERAS_BACKEND="torch", PYTHONDONTWRITEBYTECODE="")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=place)
    return [float(word) for word in done.stdout.split()[-2:]]


def found(names=LIBRARIES):
    """The statements of every library that is installed here; the first import warms the disk."""
    statements = dict(torch=BASE)
    for name in names:
        try:
            seconds(f"{BASE}\n{LIBRARIES[name]}")
            statements[name] = f"{BASE}\n{LIBRARIES[name]}"
        except subprocess.CalledProcessError:
            print(f"{name} is not here", flush=True)
    return statements


def measure(statements, rounds):
    """Seconds of every library, `rounds` times in turn, in rotated order."""
    times = {name: [] for name in statements}
    for turn in range(rounds):
        for i in range(len(statements)):
            name = list(statements)[(i + turn) % len(statements)]
            times[name].append(seconds(statements[name]))
    return times


def main(rounds=15, names=LIBRARIES, path=None):
    """Measure and write."""
    from distillation import ratio

    from ftlearn.labels import environment

    times = measure(found(names), rounds)
    whole = {name: [total for total, _ in pairs] for name, pairs in times.items()}
    rest = {name: [total - gc for total, gc in pairs] for name, pairs in times.items()}
    results = dict(
        script="python benchmarks/imports.py",
        environment=environment(),
        n=rounds,
        seconds={name: round(statistics.median(t), 3) for name, t in whole.items()},
        over_torch={name: ratio(t, whole["torch"]) for name, t in whole.items()},
        over_torch_without_collector={name: ratio(t, rest["torch"]) for name, t in rest.items()},
    )
    path = Path(path or Path(__file__).with_suffix(".json"))
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(json.dumps(results, indent=1))
    return results


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""The same job in every library, side by side: one process per run, in turns.

    python benchmarks/peers.py [--repeats N] [--minutes 45] [--stages head last full]
                               [--epochs 5 20] [--precisions default fp32 bf16] [--toy]

A repeat runs every job once in every arm, in an order that turns from repeat to repeat, so that
what else the machine does hits all of them alike. Rows go into peers.json, each as soon as it is
measured; stopped anywhere, the same command goes on. The peers' documented default is fp32 on a
CPU, so that one row of theirs serves both tables; ftlearn has a third, with what `fast` picks.
It wants a quiet machine, and the environment that `make bench` builds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs import RATES, WEIGHTS, pretrain

HERE = Path(__file__).parent
PEERS = ("plain", "fastai", "lightning", "trainer", "keras")
REPEATS = {5: 5, 20: 2}  # by epochs
LIBRARIES = ("ftlearn", "fastai", "lightning", "transformers", "accelerate", "keras")
KEYS = ("repeat", "stage", "epochs", "precision", "arm")


def plan(stages, epochs, precisions, repeats=None):
    """All runs in their order: repeats, then jobs, then arms, which take turns in going first."""
    jobs = [(e, stage) for e in epochs for stage in stages]
    counts = {e: repeats or REPEATS.get(e, 2) for e in epochs}
    runs = []
    for repeat in range(max(counts.values())):
        for number, (e, stage) in enumerate(jobs):
            if repeat < counts[e]:
                arms = turned(contestants(stage, precisions), 3 * (repeat + number))
                runs += [dict(zip(KEYS, (repeat, stage, e, *arm))) for arm in arms]
    return runs


def contestants(stage, precisions):
    """Pairs of precision and arm; the bare forward pass is the limit of head-only training."""
    arms = {p: [*PEERS, "ftlearn"] + ["bare"] * (stage == "head") for p in ("fp32", "bf16")}
    arms["default"] = ["ftlearn", "by_hand"]
    return [(p, arm) for p in precisions for arm in arms[p]]


def turned(items, by):
    """The same order, begun elsewhere."""
    by %= len(items)
    return items[by:] + items[:by]


def installed(name):
    """The version of a library, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def here():
    """Versions, hardware and threads: what rows must share to be compared."""
    from ftlearn.labels import environment

    return environment() | {name: installed(name) for name in LIBRARIES}


def limits():
    """What this machine can do at best, measured now."""
    import torch

    from ftlearn.speed import copy_rate, matrix_rate

    rates = {n: matrix_rate(t) for n, t in dict(fp32=torch.float32, bf16=torch.bfloat16).items()}
    rates = {f"matrix_{name}_gflops": round(rate / 1e9, 1) for name, rate in rates.items()}
    return rates | {"copy_gbytes": round(copy_rate() / 1e9, 2)}


def opened(path, toy=False):
    """The results so far; rows from elsewhere are refused.

    Raises
    ------
    ValueError
        If the file's rows were measured with other versions or on other hardware.
    """
    from ftlearn.experiment import read_results

    results, now = read_results(path), here()
    if not results:
        command = "python benchmarks/peers.py" + " --toy" * toy
        return dict(script=command, environment=now, limits={} if toy else limits(), rows=[])
    old = results["environment"]
    if differs := [name for name in now if old.get(name) != now[name]]:
        name = differs[0]
        raise ValueError(
            f"The rows in {Path(path).name} were measured with {name} {old.get(name)}, but here it "
            f"is {now[name]}: move the file away, or give another one with --out."
        )
    return results | {"rows": [row for row in results["rows"] if "error" not in row]}


def measure(run, toy=False):
    """One run in a fresh process: what arms.py prints, or the last line of its error."""
    names = [run["arm"], run["stage"], run["epochs"], run["precision"], "--seed", run["repeat"]]
    command = [sys.executable, HERE / "arms.py", *map(str, names)] + ["--toy"] * toy
    quiet = dict(KERAS_BACKEND="torch", HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore")
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    took = dict(process_seconds=round(time.perf_counter() - began, 3))
    if done.returncode:
        return took | dict(error=(done.stderr.strip().splitlines() or ["no message"])[-1][:300])
    return json.loads(done.stdout.strip().splitlines()[-1]) | took


def expected(run, rows):
    """Seconds that a run will take, as those like it have; None before there are any."""
    for names in (KEYS[1:], ("stage", "epochs"), ("stage",), ()):
        like = [r["process_seconds"] for r in rows if all(r[n] == run[n] for n in names)]
        if like:
            return statistics.mean(like)


def go(path, runs, minutes, toy=False, ask=measure, say=print):
    """Do what is left of the plan, row by row, until it is done or the time is up."""
    from ftlearn.experiment import todo, write_results

    results, began = opened(path, toy), time.perf_counter()
    rows = results["rows"]
    left = todo(runs, rows)
    for number, run in enumerate(left, 1):
        spent = time.perf_counter() - began
        if spent + (expected(run, rows) or 0) > 60 * minutes:
            say(
                f"{minutes} minutes are up: {len(left) - number + 1} runs left, go on the same way."
            )
            break
        rows.append(run | ask(run, toy))
        write_results(path, results)
        rest = sum(expected(later, rows) for later in left[number:])
        say(f"{number} of {len(left)}: {line(rows[-1])}, {rest / 60:.0f} min left", flush=True)
    return results


def line(row):
    """A row as text."""
    what = f"{row['arm']} {row['stage']} {row['epochs']} {row['precision']}"
    if "error" in row:
        return f"{what} failed ({row['error']})"
    score = "" if row["accuracy"] is None else f", accuracy {row['accuracy']:.3f}"
    return f"{what} {row['seconds']:.1f} s{score}"


def main():
    """Measure what is asked for and still missing."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--repeats", type=int, help="5 for 5 epochs and 2 for 20, if not given")
    asked.add_argument("--minutes", type=float, default=45)
    asked.add_argument("--stages", nargs="+", default=[*RATES], choices=RATES)
    asked.add_argument("--epochs", nargs="+", type=int, default=[*REPEATS])
    names = ["default", "fp32", "bf16"]
    asked.add_argument("--precisions", nargs="+", default=names, choices=names)
    asked.add_argument("--toy", action="store_true", help="a tiny job, to see that all of it runs")
    asked.add_argument("--out", type=Path)
    asked = asked.parse_args()
    if not asked.toy and not WEIGHTS.is_file():
        pretrain()
    runs = plan(asked.stages, asked.epochs, asked.precisions, asked.repeats)
    out = asked.out or HERE / ("toy.json" if asked.toy else "peers.json")
    go(out, runs, asked.minutes, asked.toy)


if __name__ == "__main__":
    main()

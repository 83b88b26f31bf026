"""Reference values for tests/test_schedules.py: what Transformers and fastai make of 60 updates.

    pip install transformers fastai
    python tests/references/schedules.py

The tests read the JSON file beside this script and need neither library. Each entry holds the
factor on a rate of 1 (fastai's one cycle also the momentum itself) that the library uses at update
0, 1, ... 59. The calls are kept as text beside the values.
"""

import json
import math
import platform
from pathlib import Path

import fastai
import torch
import transformers
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from transformers import optimization

UPDATES = 60
TRANSFORMERS = {
    "constant": "get_constant_schedule_with_warmup(o, 6)",
    "linear": "get_linear_schedule_with_warmup(o, 6, 60)",
    "cosine": "get_cosine_schedule_with_warmup(o, 6, 60)",
    "cosine without warmup": "get_cosine_schedule_with_warmup(o, 0, 60)",
    "cosine restarts": "get_cosine_with_hard_restarts_schedule_with_warmup(o, 6, 60, num_cycles=3)",
    "cosine above 0": "get_cosine_with_min_lr_schedule_with_warmup(o, 6, 60, min_lr_rate=0.1)",
    "polynomial": "get_polynomial_decay_schedule_with_warmup(o, 6, 60, lr_end=0.05, power=2.0)",
    "inverse square root": "get_inverse_sqrt_schedule(o, 6)",
    "inverse square root, slow": "get_inverse_sqrt_schedule(o, 6, timescale=24)",
    "wsd": "get_wsd_schedule(o, 6, 18, 60)",
    "wsd, linear": "get_wsd_schedule(o, 6, 18, 60, decay_type='linear')",
    "wsd, root": "get_wsd_schedule(o, 6, 18, 60, warmup_type='1-sqrt', decay_type='1-sqrt')",
    "wsd above 0": "get_wsd_schedule(o, 6, 18, 60, warmup_type='cosine', min_lr_ratio=0.2)",
}
FASTAI = {
    "SchedLin": "SchedLin(0.2, 1.0)",
    "SchedCos": "SchedCos(1.0, 0.1)",
    "SchedExp": "SchedExp(1.0, 0.01)",
    "SchedPoly": "SchedPoly(1.0, 0.1, 3)",
    "combine_scheds": "combine_scheds([0.25, 0.5, 0.25], [SchedLin(0.1, 1.0), SchedCos(1.0, 0.5), SchedExp(0.5, 0.01)])",
}


def by_transformers(call):
    """The rate of a dummy optimizer at every update."""
    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = eval(f"optimization.{call}", {"optimization": optimization, "o": o})
    used = []
    for _ in range(UPDATES):
        used.append(o.param_groups[0]["lr"])
        o.step()
        scheduler.step()
    return used


def by_fastai(call):
    """fastai calls its functions with i / updates, `Learner.pct_train`, before every batch."""
    schedule = eval(call, globals())
    return [float(schedule(i / UPDATES)) for i in range(UPDATES)]


def one_cycle():
    """What a Learner's optimizer used in `fit_one_cycle(5, 1.0)` with 12 batches per epoch."""
    x, y = torch.zeros(24, 1), torch.zeros(24, 1)
    loaders = DataLoaders(*[DataLoader(list(zip(x, y)), bs=2) for _ in range(2)])
    learner = Learner(loaders, torch.nn.Linear(1, 1), loss_func=torch.nn.MSELoss())
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(5, 1.0)
    hps = learner.recorder.hps
    return {name: [float(v) for v in values] for name, values in hps.items()}


def rounded(values):
    assert len(values) == UPDATES and all(math.isfinite(v) for v in values)
    return [float(f"{v:.15g}") for v in values]


if __name__ == "__main__":
    cycle = one_cycle()
    result = {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "fastai": fastai.__version__,
        },
        "updates": UPDATES,
        "transformers": {
            name: {"call": call, "factors": rounded(by_transformers(call))}
            for name, call in TRANSFORMERS.items()
        },
        "fastai": {
            name: {"call": call, "factors": rounded(by_fastai(call))}
            for name, call in FASTAI.items()
        },
    }
    result["fastai"]["fit_one_cycle"] = {
        "call": "Learner.fit_one_cycle(5, 1.0), 12 batches per epoch",
        "factors": rounded(cycle["lr"]),
        "momentum": rounded(cycle["mom"]),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, result["versions"])

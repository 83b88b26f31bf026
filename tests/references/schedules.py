"""Reference values for tests/test_schedules.py: what Transformers and fastai make of 60 updates.

    pip install transformers fastai
    python tests/references/schedules.py

The tests read the JSON file beside this script and need neither library. Each entry holds the
factor on a rate of 1 (fastai's one cycle also the momentum itself) that the library uses at update
0, 1, ... 59; the plateau's entry also the scores that it listened to. The calls are kept as text
beside the values.
"""

import json
import math
import platform
from pathlib import Path

import fastai
import torch
import transformers
from fastai.callback import schedule
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
    "cosine, one and a half waves": "get_cosine_schedule_with_warmup(o, 6, 60, num_cycles=1.5)",
    "cosine restarts": "get_cosine_with_hard_restarts_schedule_with_warmup(o, 6, 60, num_cycles=3)",
    "cosine above 0": "get_cosine_with_min_lr_schedule_with_warmup(o, 6, 60, min_lr_rate=0.1)",
    "cosine above 0, both ends used": "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 6, 60, min_lr_rate=0.1)",
    "cosine above 0, own warm-up": "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, 6, 60, min_lr_rate=0.1, warmup_lr_rate=0.4)",
    "polynomial": "get_polynomial_decay_schedule_with_warmup(o, 6, 60, lr_end=0.05, power=2.0)",
    "inverse square root": "get_inverse_sqrt_schedule(o, 6)",
    "inverse square root, slow": "get_inverse_sqrt_schedule(o, 6, timescale=24)",
    "wsd": "get_wsd_schedule(o, 6, 18, 60)",
    "wsd, linear": "get_wsd_schedule(o, 6, 18, 60, decay_type='linear')",
    "wsd, root": "get_wsd_schedule(o, 6, 18, 60, warmup_type='1-sqrt', decay_type='1-sqrt')",
    "wsd above 0": "get_wsd_schedule(o, 6, 18, 60, warmup_type='cosine', min_lr_ratio=0.2)",
}
PLATEAU = "get_reduce_on_plateau_schedule(o, factor=0.5, patience=2, threshold=0.01, cooldown=1)"
SCORES = [round(1 / (1 + i) + 0.3 + 0.05 * math.cos(i), 6) for i in range(UPDATES)]
FASTAI = {
    "SchedNo": "SchedNo(0.7, 0.1)",
    "SchedLin": "SchedLin(0.2, 1.0)",
    "SchedCos": "SchedCos(1.0, 0.1)",
    "SchedExp": "SchedExp(1.0, 0.01)",
    "SchedPoly": "SchedPoly(1.0, 0.1, 3)",
    "combine_scheds": "combine_scheds([0.25, 0.5, 0.25], [SchedLin(0.1, 1.0), SchedCos(1.0, 0.5), SchedExp(0.5, 0.01)])",
}


def by_transformers(call, scores=None):
    """The rate of a dummy optimizer at every update."""
    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = eval(f"optimization.{call}", {"optimization": optimization, "o": o})
    used = []
    for i in range(UPDATES):
        used.append(o.param_groups[0]["lr"])
        o.step()
        scheduler.step(*[scores[i]] if scores else [])
    return used


def by_fastai(call):
    """fastai calls its functions with i / updates, `Learner.pct_train`, before every batch."""
    shape = eval(call, vars(schedule))
    return [float(shape(i / UPDATES)) for i in range(UPDATES)]


LEARNER = {  # the call, and the batches per epoch
    "fit_one_cycle": ("fit_one_cycle(5, 1.0)", 12),
    "fit_flat_cos": ("fit_flat_cos(5, 1.0)", 12),
    "fit_sgdr": ("fit_sgdr(4, 1, 1.0, cycle_mult=2)", 4),  # 1 + 2 + 4 + 8 epochs
}


def by_learner(call, batches):
    """What the optimizer of a Learner used, update by update."""
    x, y = torch.zeros(24, 1), torch.zeros(24, 1)
    loaders = DataLoaders(*[DataLoader(list(zip(x, y)), bs=24 // batches) for _ in range(2)])
    learner = Learner(loaders, torch.nn.Linear(1, 1), loss_func=torch.nn.MSELoss())
    with learner.no_bar(), learner.no_logging():
        eval(f"learner.{call}", {"learner": learner})
    names = {"lr": "factors", "mom": "momentum"}
    used = {names[k]: rounded(map(float, values)) for k, values in learner.recorder.hps.items()}
    return {"call": f"Learner.{call}, {batches} batches per epoch"} | used


def rounded(values):
    values = list(values)
    assert len(values) == UPDATES and all(math.isfinite(v) for v in values)
    return [float(f"{v:.15g}") for v in values]


if __name__ == "__main__":
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
    result["fastai"] |= {name: by_learner(*how) for name, how in LEARNER.items()}
    result["plateau"] = {
        "call": PLATEAU,
        "scores": SCORES,
        "factors": rounded(by_transformers(PLATEAU, SCORES)),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path, result["versions"])

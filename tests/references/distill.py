"""Reference values for tests/test_distill.py: losses and gradients of torchdistill.

    pip install torchdistill
    python tests/references/distill.py

The tests read the JSON file beside this script and need no torchdistill. Each entry holds the
call, the loss and its gradient with respect to the student's output, in double precision, for the
inputs that are stored with it.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch

LOGITS = ("'head', 'output', 'head', 'output'", "z", "t")
METHODS = {
    "KD": ("KDLoss({logits}, temperature=4.0, alpha=0.1)", *LOGITS[1:]),
    "KD, T = 1, no labels": ("KDLoss({logits}, temperature=1.0, beta=1.0)", *LOGITS[1:]),
    "DIST": ("DISTLoss({logits}, beta=1.0, gamma=1.0, tau=1.0)", *LOGITS[1:]),
    "DIST, T = 4": ("DISTLoss({logits}, beta=2.0, gamma=0.5, tau=4.0)", *LOGITS[1:]),
    "attention": ("ATLoss({pairs}, mode='code')", "grid", "teacher's grid"),
    "relations": ("RKDLoss('head', 'head', 25.0, 50.0, 'mean')", "vector", "teacher's vector"),
    "distances": ("RKDLoss('head', 'head', 1.0, 0.0, 'mean')", "vector", "teacher's vector"),
    "angles": ("RKDLoss('head', 'head', 0.0, 1.0, 'mean')", "vector", "teacher's vector"),
}
PAIRS = "{'a': {'student': S, 'teacher': S}}".replace("S", "{'io': 'output', 'path': 'head'}")


def inputs():
    """Student's and teacher's logits, features of different widths, and labels."""
    random = torch.Generator().manual_seed(11)
    shapes = {"z": (6, 5), "t": (6, 5), "grid": (6, 3, 4, 4), "teacher's grid": (6, 7, 4, 4)}
    shapes |= {"vector": (6, 4), "teacher's vector": (6, 9)}
    drawn = {
        name: 2 * torch.randn(shape, generator=random, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return drawn | {"y": torch.randint(0, 5, (6,), generator=random)}


def measured(call, student, teacher, y):
    """What a loss of torchdistill says, and its gradient."""
    student = student.clone().requires_grad_()
    said = [{"head": {"output": v}} for v in (student, teacher)]
    loss = eval(f"mid_level.{call}")(*said, targets=y)
    loss.backward()
    return loss.item(), student.grad


def rounded(values):
    assert torch.as_tensor(values).isfinite().all()
    return json.loads(json.dumps(torch.as_tensor(values).tolist()), parse_float=shortened)


def shortened(text):
    return float(f"{float(text):.15g}")


if __name__ == "__main__":
    given, found = inputs(), {}
    for name, (call, student, teacher) in METHODS.items():
        call = call.replace("{logits}", LOGITS[0]).replace("{pairs}", PAIRS)
        loss, gradient = measured(call, given[student], given[teacher], given["y"])
        found[name] = {"call": call, "loss": rounded(loss), "gradient": rounded(gradient)}
    names = "torch", "torchdistill"
    versions = {"python": platform.python_version()} | {n: version(n).split("+")[0] for n in names}
    result = {"versions": versions, "inputs": {k: rounded(v) for k, v in given.items()}} | {
        "torchdistill": found
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result) + "\n")
    print(path.name, versions)

"""Bad input to what makes a step faster: (cause, exception, words of its sentence, what the user did)."""

import torch
from rows_core import SET, step
from torch import nn

from ftlearn.losses import cross_entropy
from ftlearn.speed import fused, gradient_checkpointing, graphed, prefetched, side_by_side
from ftlearn.training import Step


def other(kind, **settings):
    """A step with another optimizer."""
    model = nn.Linear(8, 3)
    return Step(model, cross_entropy(), kind(model.parameters(), 1e-2, **settings))


def used():
    """A step that has made an update."""
    model = nn.Linear(8, 3)
    once = Step(model, cross_entropy(), torch.optim.AdamW(model.parameters()))
    once(torch.ones(4, 8), torch.zeros(4, dtype=torch.int64))
    return once


ROWS = [
    ("nothing to time", ValueError, "There are 0 functions and 11 rounds: give at least one function", lambda d: side_by_side({})),
    ("timing in one round", ValueError, "There are 1 functions and 1 rounds.*two rounds", lambda d: side_by_side({"a": list}, rounds=1)),
    ("an optimizer without a fused kernel", ValueError, "torch has no fused RMSprop.*: use SGD", lambda d: fused(other(torch.optim.RMSprop))),
    ("a fused kernel after the first update", ValueError, r"This AdamW has already made updates: call fused\(step\) before", lambda d: fused(used())),
    ("a CUDA graph on a CPU", ValueError, "A CUDA graph needs a GPU: give a batch on it", lambda d: graphed(step(), *next(SET.batches()))),
    ("recomputing an unknown stage", ValueError, "The model has no module 'layer9': choose", lambda d: gradient_checkpointing(nn.Sequential(nn.Linear(8, 3)), ["layer9"])),
    ("a list of batches, prefetched", TypeError, r"prefetched takes a set, not a list: wrap it, Columns\(x, y\)", lambda d: prefetched([SET])),
]  # fmt: skip

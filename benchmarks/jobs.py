"""The job that every arm of the benchmark does.

    python benchmarks/jobs.py        # pretrain the ResNet18 on letters, if that is not done yet

A torchvision ResNet18 that was pretrained on letters learns scikit-learn's 1,797 handwritten
digits as RGB pictures of 64 x 64: the first 1,200 to train on, the last 597 to score after every
epoch. Batches of 64, AdamW at a constant rate, no augmentation. Nothing but torch is imported
before a function needs it, so that each arm's process holds its own library only.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parent / ".weights" / "resnet18-letters.safetensors"
RATES = {"head": 3e-3, "last": 3e-4, "full": 3e-4}  # the stages and their learning rates
BATCH, DECAY = 64, 0.01
MEAN, STD = 0.3, 0.38  # of the pixels, after division by 255


class Job(NamedTuple):
    """What an arm is given: a torch model and uint8 pictures in memory, and the settings."""

    model: nn.Module
    train: tuple
    valid: tuple
    stage: str
    epochs: int

    @property
    def rate(self):
        """The learning rate of this stage, the same for all arms."""
        return RATES[self.stage]


def enlarged(x, side=64):
    """Grey 8 x 8 pictures valued 0 to 16 as RGB pictures in bytes, by bilinear interpolation."""
    x = F.interpolate(x.float() * (255 / 16), (side, side), mode="bilinear", align_corners=False)
    return x.round().to(torch.uint8).repeat(1, 3, 1, 1)


def normalised(x):
    """Bytes to floats around zero, as the weights expect them."""
    return (x.float() / 255 - MEAN) / STD


def pictures(side=64):
    """All digits in stored order, neighbours by one writer: uint8 pictures and int64 labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images)[:, None]
    return enlarged(x, side), torch.from_numpy(found.target).long()


def pretrained(path=WEIGHTS):
    """The ResNet18 from its file, with a head of ten classes that is zero."""
    from safetensors.torch import load_file
    from torchvision.models import resnet18

    model = resnet18(num_classes=10)
    model.load_state_dict(load_file(path))
    return model


def untrained(seed=0):
    """The same network with random weights and a zero head, for tests at toy size."""
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    model = resnet18(num_classes=10)
    for values in model.fc.parameters():
        nn.init.zeros_(values)
    return model


def job(stage, epochs, toy=False):
    """The job of a stage; at toy size 130 and 64 pictures of 32 x 32, and random weights."""
    x, y = pictures(32 if toy else 64)
    train, valid = (slice(130), slice(130, 194)) if toy else (slice(1200), slice(1200, None))
    model = untrained() if toy else pretrained()
    return Job(model, (x[train], y[train]), (x[valid], y[valid]), stage, epochs)


def last_stage(model, stage):
    """Names of the children that learn, in the order of forward."""
    names = [name for name, _ in model.named_children()]
    return names[names.index({"head": "fc", "last": "layer4", "full": "conv1"}[stage]) :]


def pretrain(path=WEIGHTS, updates=600, seed=0, side=64):
    """Train the ResNet18 on letters made like the digits, and write it with a zero head.

    One cycle of AdamW, label smoothing, mixed precision: some minutes on two cores.
    """
    from torchvision.models import resnet18

    from ftlearn.losses import cross_entropy
    from ftlearn.models import replace_head
    from ftlearn.pretrain import Stream, letters, one_cycle, progress
    from ftlearn.training import Step, bf16, train
    from ftlearn.weights import save_weights

    torch.manual_seed(seed)
    data, loss = Stream(*letters(), updates, batch_size=BATCH, seed=seed), cross_entropy(0.1)
    model = resnet18(num_classes=int(data.labels.max()) + 1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05, fused=True)
    step = Step(model, lambda m, x, y: loss(m, normalised(enlarged(x, side)), y), optimizer, bf16())
    correct = []
    for tick in progress(train(step, data, schedule=one_cycle), updates, "pretraining on letters"):
        correct.append((tick.pred.argmax(1) == tick.batch[1]).float().mean())
    score = round(float(torch.stack(correct[-20:]).mean()), 4)
    card = dict(updates=updates, seed=seed, torch=torch.__version__, letters_accuracy=score)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_weights(path, replace_head(model, 10).state_dict(), card)


if __name__ == "__main__":
    print(f"{WEIGHTS} is there." if WEIGHTS.is_file() else pretrain())

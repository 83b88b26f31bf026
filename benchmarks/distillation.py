"""What a teacher costs: epochs of one student, side by side in one run.

    python benchmarks/distillation.py [repeats]

Three loops over the same 900 digits, each with its own copy of the same student: plain
cross-entropy; distillation from a cached column of the teacher's logits; and the loop of the
usual tutorials, which asks the teacher again at every update. Where torchdistill is installed,
its loop is a fourth, with its own loader and with ready batches, after its sample for image
classification, with its logger left out; its version here has no cache for a teacher's answers.
They take turns, so that what else the machine does hits all of them alike. Ratios of neighbouring
epochs go into distillation.json.
"""

import copy
import json
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import RandomSampler, TensorDataset

from ftlearn.distill import knowledge_distillation, taught
from ftlearn.freezing import freeze
from ftlearn.glyphs import digits
from ftlearn.labels import environment
from ftlearn.losses import cross_entropy
from ftlearn.models import glyphnet
from ftlearn.training import Step, train


def stepper(student, objective):
    """A step with an optimizer of its own."""
    student = copy.deepcopy(student)
    return Step(student, objective, torch.optim.AdamW(student.parameters(), 1e-3, fused=True))


def tutorial_epoch(student, teacher, optimizer, data, epoch, T=4.0, alpha=0.9):
    """The usual loop: the teacher answers every batch anew."""
    student.train()
    for x, y in data.batches(epoch):
        with torch.no_grad():
            t = teacher(x)
        z = student(x)
        soft = F.kl_div(
            F.log_softmax(z / T, 1), F.log_softmax(t / T, 1), log_target=True, reduction="batchmean"
        )
        loss = (1 - alpha) * F.cross_entropy(z, y) + alpha * T**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def torchdistill_box(student, teacher, data):
    """torchdistill's box around a copy of the student, its loss weighted as the others; or None."""
    try:
        from torchdistill.common.constant import def_logger
        from torchdistill.core.distillation import DistillationBox
    except ImportError:
        return None
    def_logger.setLevel("WARNING")
    io = {f"{who}_module_{what}": value for who in ("student", "teacher") for what, value in OUTPUT}
    loss = dict(key="KDLoss", kwargs=dict(io, temperature=4.0, alpha=0.1))
    terms = dict(sub_terms=dict(kd=dict(criterion=loss, weight=1.0)))
    sampler = dict(class_or_func=RandomSampler)
    loader = dict(dataset_id="train", sampler=sampler, kwargs=dict(batch_size=data.batch_size))
    forward = dict(forward_proc="forward_batch_only")
    config = dict(
        num_epochs=1,
        train_data_loader=loader,
        teacher=dict(forward, requires_grad=False),
        student=forward,
        criterion=dict(key="WeightedSumLoss", kwargs=terms),
        optimizer=dict(key="AdamW", kwargs=dict(lr=1e-3, fused=True)),
    )
    sets = dict(train=TensorDataset(*data.columns))
    pair = copy.deepcopy(teacher), copy.deepcopy(student)
    return DistillationBox(*pair, sets, config, torch.device("cpu"), None, False, 1)


OUTPUT = (("path", "."), ("io", "output"))


def torchdistill_epoch(box, batches, epoch):
    """An epoch, as its sample has it; `batches` gives (images, labels, a dictionary)."""
    box.pre_epoch_process(epoch=epoch)
    for x, y, more in batches:
        box.pre_forward_process()
        loss = box.forward_process(x, y, more)
        box.post_forward_process(loss=loss)
    box.post_epoch_process()


def torchdistill_loops(student, teacher, data):
    """Its loop with its own loader, and with ready batches; nothing if it is not installed."""
    boxes = [torchdistill_box(student, teacher, data) for _ in range(2)]
    if boxes[0] is None:
        return {}
    ready = lambda e: ((x, y, {}) for x, y in data.batches(e))
    return {
        "torchdistill": lambda e: torchdistill_epoch(boxes[0], boxes[0].train_data_loader, e),
        "torchdistill, ready batches": lambda e: torchdistill_epoch(boxes[1], ready(e), e),
    }


def measure(repeats):
    """Seconds of one epoch of each loop, `repeats` times in turn."""
    torch.manual_seed(0)
    pool = digits(batch_size=50)[0].like(shuffle=True)
    teacher, student = freeze(glyphnet(10, "letters")).eval(), glyphnet(10, widths=(16, 32, 64))
    began = time.perf_counter()
    cached = taught(teacher, pool)
    asking = time.perf_counter() - began
    plain, kd = stepper(student, cross_entropy()), stepper(student, knowledge_distillation())
    other = copy.deepcopy(student)
    optimizer = torch.optim.AdamW(other.parameters(), 1e-3, fused=True)
    loops = {
        "plain": lambda e: [None for _ in train(plain, pool, e + 1, start=e * pool.steps)],
        "cached": lambda e: [None for _ in train(kd, cached, e + 1, start=e * pool.steps)],
        "asked anew": lambda e: tutorial_epoch(other, teacher, optimizer, pool, e),
    } | torchdistill_loops(student, teacher, pool)
    times = {name: [] for name in loops}
    for epoch in range(repeats + 2):
        for name, loop in loops.items():
            began = time.perf_counter()
            loop(epoch)
            if epoch >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - began)
    return asking, times


def ratio(ones, others):
    """Median of the ratios of neighbours, and their quartiles."""
    ratios = [a / b for a, b in zip(ones, others)]
    quarter, _, last = statistics.quantiles(ratios, n=4)
    return dict(
        median=round(statistics.median(ratios), 3), quartiles=[round(quarter, 3), round(last, 3)]
    )


def installed(package):
    """A package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(repeats=60, path=None):
    """Measure and write."""
    torch.set_num_threads(1)
    asking, times = measure(repeats)
    results = dict(
        script="python benchmarks/distillation.py",
        environment=environment(),
        n=repeats,
        updates_per_epoch=18,
        epoch_ms={name: round(1e3 * statistics.median(t), 2) for name, t in times.items()},
        teacher_once_ms=round(1e3 * asking, 2),
        cached_over_plain=ratio(times["cached"], times["plain"]),
        asked_anew_over_cached=ratio(times["asked anew"], times["cached"]),
        torchdistill=installed("torchdistill"),
        over_cached={k: ratio(t, times["cached"]) for k, t in times.items() if "torchdistill" in k},
    )
    path = Path(path or Path(__file__).with_suffix(".json"))
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(json.dumps(results, indent=1))
    return results


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

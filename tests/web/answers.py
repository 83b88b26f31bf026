"""For each lesson one exercise: what a reader may try first, and an answer that is right."""

import inspect
import math

import torch

BEFORE = "import math\n\nimport torch\n\nfrom ftlearn import check\n\n\n"


def code(checker, answer):
    """A cell that hands the answer, a value or a function of this file, to the checker."""
    if not callable(answer):
        return f"{BEFORE}check.{checker}({answer!r});"
    return f"{BEFORE}{inspect.getsource(answer)}\n\ncheck.{checker}({answer.__name__});"


def global_order(examples, size, seed, epoch, start):
    return torch.randperm(examples)[start * size :]


def own_order(examples, size, seed, epoch, start):
    draw = torch.Generator().manual_seed(1000 * seed + epoch)
    return torch.randperm(examples, generator=draw)[start * size :]


def mean_over_classes(z, p):
    return -(p * z.log_softmax(1)).mean()


def soft(z, p):
    return -(p * z.log_softmax(1)).sum(1).mean()


def new_names(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p = p - lr * p.grad


def in_place(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p -= lr * p.grad
                p.grad = None


def one_eval(body):
    return body.requires_grad_(False).eval()


def hold(body):
    body.requires_grad_(False).eval()
    body.train = lambda mode=True: body
    return body


def without_rise(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def rise_and_fall(progress):
    if progress < 0.2:
        return progress / 0.2
    return (1 + math.cos(math.pi * (progress - 0.2) / 0.8)) / 2


def without_patience(scores, patience):
    best = max(range(len(scores)), key=scores.__getitem__)
    return best, len(scores) - 1


def kept(scores, patience):
    best = stale = 0
    for epoch, score in enumerate(scores[1:], 1):
        stale = 0 if score > scores[best] else stale + 1
        best = epoch if score >= scores[best] else best
        if stale == patience:
            break
    return best, epoch


def by_logits(z, n):
    best, second = z.topk(2, 1).values.T
    return (best - second).argsort()[:n]


def by_margin(z, n):
    best, second = z.softmax(1).topk(2, 1).values.T
    return (best - second).argsort()[:n]


def unchanged(alpha, temperature):
    return alpha


def translate(alpha, temperature):
    quiet = alpha / temperature**2
    return quiet / (quiet + 1 - alpha)


ANSWERS = {  # lesson: checker, wrong, right
    "index": ("exindex_1", 5, 10),
    "00_data": ("ex00_3", global_order, own_order),
    "01_glyphs": ("ex01_2", "OlЗб", "ƨƽꜫꜭƻ"),
    "02_models": ("ex02_1", {"layer2", "head"}, {"layer2", "layer2.conv1", "head"}),
    "03_losses": ("ex03_2", mean_over_classes, soft),
    "04_training": ("ex04_1", new_names, in_place),
    "05_freezing": ("ex05_1", one_eval, hold),
    "06_features": ("ex06_4", {"b", "c"}, {"b", "d"}),
    "07_rates": ("ex07_3", 0.1, 0.008),
    "08_schedules": ("ex08_1", without_rise, rise_and_fall),
    "09_recipes": ("ex09_2", without_patience, kept),
    "10_augment": ("ex10_3", by_logits, by_margin),
    "11_distill": ("ex11_2", unchanged, translate),
    "19_speed": ("ex19_2", {5, 11}, {7, 13, 14}),
}

"""Exercises of lesson 11: the checkers take right answers and refuse plausible wrong ones."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ftlearn import check


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex11_{number}")() is False
    assert getattr(check, f"ex11_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 11.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex11_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 11.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert says in said, said
    return verdict


def kd(z, t, temperature):
    log_q = (z.float() / temperature).log_softmax(1)
    log_p = (t.float() / temperature).log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def by_torch(z, t, temperature):
    q, p = ((v.double() / temperature).log_softmax(-1) for v in (z, t.detach()))
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


@pytest.mark.parametrize("answer", [kd, by_torch])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


def tutorial(z, t, T):
    p = (t / T).softmax(1)
    return T**2 * (p * (p.log() - (z / T).log_softmax(1))).sum(1).mean()


def half(z, t, T):
    q, p = ((v.to(t.dtype) / T).log_softmax(1) for v in (z, t))
    return T**2 * (p.exp() * (p - q)).sum(1).mean()


def logs_of_probabilities(z, t, T):
    q, p = ((v.float() / T).softmax(1) for v in (z, t))
    return T**2 * (p * (p.clamp(min=1e-30).log() - q.clamp(min=1e-30).log())).sum(1).mean()


def downhill(z, t, T):
    "The right value; the gradient of a sum of logits."
    return kd(z.detach(), t, T) - (z.sum() - z.sum().detach())


def pulls_without_the_square(z, t, T):
    weak = kd(z, t, T) / T**2
    return kd(z, t, T).detach() + weak - weak.detach()


def elsewhere(z, t, T):
    other = torch.zeros((), requires_grad=True)
    return kd(z.detach(), t, T) + other


def spoils(z, t, T):
    loss = kd(z, t, T)
    t -= t.mean()
    return loss


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (tutorial, "not finite where the teacher is sure"),
        (logs_of_probabilities, "wrong where the student is sure"),
        (lambda z, t, T: kd(z, t, T) / T**2, "without T²"),
        (lambda z, t, T: kd(z, t, T) / T, "T once"),
        (lambda z, t, T: kd(z, t, T) / z.shape[1], "over the classes"),
        (lambda z, t, T: kd(z, t, T) * len(z), "a sum over the rows"),
        (lambda z, t, T: kd(t, z, T), "swapped"),
        (lambda z, t, T: kd(z.softmax(1), t.softmax(1), T), "at T = 4"),
        (
            lambda z, t, T: -(T**2) * ((t / T).softmax(1) * (z / T).log_softmax(1)).sum(1).mean(),
            "entropy",
        ),
        (lambda z, t, T: kd(z.detach(), t, T), "no gradient"),
        (lambda z, t, T: kd(z, t, T) * torch.ones(len(z)), "6 numbers"),
        (lambda z, t, T: kd(z, t, 4.0), "at T = 1"),
        (downhill, "its gradient is not"),
        (pulls_without_the_square, "its gradient is not"),
        (elsewhere, "no gradient"),
        (spoils, "changed the teacher's logits"),
        (lambda z, t: kd(z, t, 4.0), "raised TypeError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


def test_ex_2_right(capsys):
    assert judge(2, lambda a, T: a / (a + (1 - a) * T**2), capsys)
    quiet = lambda a, T: a / T**2
    assert judge(2, lambda a, T: quiet(a, T) / (quiet(a, T) + 1 - a), capsys)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda a, T: a / T**2, "sum to one"),
        (lambda a, T: a * T**2 / (a * T**2 + 1 - a), "turns the other way"),
        (lambda a, T: a, "forgotten here as well"),
        (lambda a, T: a / (a + (1 - a) * T), "not T"),
        (lambda a, T: 0.36, "for alpha 0.5 at T = 2"),
        (lambda a, T: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_ex_2_is_about_gradients():
    """Both losses pull in one direction, with the alpha that the checker wants."""
    z, t = (torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    pulls = []
    for alpha, factor in ((0.9, 1.0), (0.9 / (0.9 + 0.1 * 16), 16.0)):
        leaf = z.clone().requires_grad_()
        soft = kd(leaf, t, 4.0) / 16 * factor
        ((1 - alpha) * F.cross_entropy(leaf, torch.arange(4) % 3) + alpha * soft).backward()
        pulls.append(leaf.grad.flatten())
    assert F.cosine_similarity(*pulls, dim=0) > 1 - 1e-6


def detector(loss):
    flat, peaked = torch.zeros(1, 5, requires_grad=True), torch.tensor([[2000.0, 0, 0, 0, 0]])
    if not loss(flat, peaked).requires_grad:
        return True
    return bool(loss(flat, peaked) > loss(peaked, flat))


def not_sure_enough(loss):
    """The same with a gap that T = 16 makes small."""
    flat, peaked = torch.zeros(1, 5, requires_grad=True), torch.tensor([[20.0, 0, 0, 0, 0]])
    if not loss(flat, peaked).requires_grad:
        return True
    return bool(loss(flat, peaked) > loss(peaked, flat))


def by_gradient(loss):
    """A right loss pulls an undecided student hard towards a certain class."""
    z, t = torch.zeros(1, 5, requires_grad=True), torch.tensor([[5000.0, 0, 0, 0, 0]])
    value = loss(z, t)
    if not value.requires_grad:
        return True
    found = [loss(a, b).item() for a, b in ((z, t), (z, 2 * t))]
    return found[1] > 1.5 * found[0]


@pytest.mark.parametrize("answer", [detector, by_gradient])
def test_ex_3_right(answer, capsys):
    assert judge(3, answer, capsys)


def only_gradients(loss):
    z = torch.zeros(1, 5, requires_grad=True)
    return not loss(z, torch.ones(1, 5)).requires_grad


def only_values(loss):
    flat, peaked = torch.zeros(1, 5), torch.tensor([[2000.0, 0, 0, 0, 0]])
    return bool(loss(flat, peaked) > loss(peaked, flat))


def published(loss):
    """The solution that the lesson prints."""
    text = (Path(__file__).parent.parent / "nbs" / "11_distill.ipynb").read_text()
    cells = ["".join(c["source"]) for c in json.loads(text)["cells"]]
    (code,) = re.findall(r"```python\n(def swapped.*?)```", "\n".join(cells), re.DOTALL)
    names = {"torch": torch}
    exec(code, names)
    return names["swapped"](loss)


@pytest.mark.parametrize("T", [1, 4, 8, 16, 20, 100])
def test_the_published_solution_of_ex_3_holds_at_every_temperature(T, capsys):
    assert judge(3, published, capsys)
    assert not published(lambda z, t: kd(z, t, T)) and published(lambda z, t: kd(t, z, T))


def absolute(loss):
    return bool(loss(torch.zeros(1, 5), torch.tensor([[20.0, 0, 0, 0, 0]])) > 2) or only_gradients(
        loss
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda loss: False, "False of KL(student || teacher)"),
        (lambda loss: True, "True of KL(teacher || student)"),
        (only_gradients, "False of KL(student || teacher)"),
        (only_values, "False of a KL whose gradient goes to the teacher"),
        (absolute, "True of the right KL at T = 4"),
        (not_sure_enough, "True of the right KL at T = 16"),
        (lambda loss: not detector(loss), "True of KL(teacher || student)"),
        (lambda loss: loss(torch.zeros(1, 5)), "raised TypeError"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)


def answer_4(pick="chosen", report="scored", leader=1):
    """The two numbers, with every choice that can be made wrongly."""
    rows = check.temperatures()
    score = {(r["temperature"], r["rate"]): r[report] for r in rows}
    best = {
        T: max((r for r in rows if r["temperature"] == T), key=lambda r: r[pick])["rate"]
        for T in (1, 4, 16)
    }
    shared = score[1, best[leader]] - score[16, best[leader]]
    return shared, score[1, best[1]] - score[16, best[16]]


def test_ex_4_right(capsys):
    shared, own = answer_4()
    assert shared > 0.3 and abs(own) < 0.05  # it was the rate
    assert judge(4, (shared, own), capsys) and judge(4, torch.tensor([shared, own]), capsys)


def test_ex_4_wrong(capsys):
    shared, own = answer_4()
    wrong = {
        (own, shared): "in the other order",
        (-shared, own): "the sign",
        (100 * shared, 100 * own): "points",
        (shared, shared): "takes its own best rate",
        answer_4(leader=16): "best for temperature 16",
        answer_4(report="chosen"): "pick each rate",
        (0.0, 0.0): "pick each rate",
        (shared,): "1 numbers",
        "temperature": "raised",
    }
    for answer, says in wrong.items():
        assert not judge(4, answer, capsys, says)


def test_the_best_rate_is_never_at_the_edge():
    rows = check.temperatures()
    assert len(rows) == 33
    for T in (1, 4, 16):
        chosen = [r["chosen"] for r in rows if r["temperature"] == T]
        assert 0 < chosen.index(max(chosen)) < len(chosen) - 1 and chosen.count(max(chosen)) == 1

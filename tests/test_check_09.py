"""Exercises of lesson 09: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch

from ftlearn import check
from ftlearn.recipes import Phase, Recipe


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex09_{number}")() is False
    assert getattr(check, f"ex09_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 9.{number}: not tried yet\n"


def judge(number, answer, capsys):
    verdict = getattr(check, f"ex09_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 9.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    return verdict


PROBE = Phase("head", epochs=3, lr=1e-2)
BIASES = Phase("all", updates=50, only="bias", schedule="constant")
LATE = Phase("layer3", epochs=2, layer_decay=0.5, patience=1)


@pytest.mark.parametrize(
    "answer",
    [Recipe([PROBE, BIASES, LATE]), [PROBE, BIASES, LATE], Recipe([PROBE, BIASES, LATE]).to_json()],
)
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


@pytest.mark.parametrize(
    "answer",
    [
        [PROBE, BIASES],
        [BIASES, PROBE, LATE],
        [PROBE, Phase("all", epochs=50, only="bias", schedule="constant"), LATE],
        [PROBE, Phase("all", updates=50, only="bias"), LATE],
        [PROBE, BIASES, Phase("layer3", epochs=2, patience=1)],
        '[{"train": "head", "epoch": 3}]',
        "head, then biases",
    ],
)
def test_ex_1_wrong(answer, capsys):
    assert not judge(1, answer, capsys)


def kept(scores, patience):
    best = stale = 0
    for epoch, score in enumerate(scores[1:], 1):
        stale = 0 if score > scores[best] else stale + 1
        best = epoch if score >= scores[best] else best
        if stale == patience:
            return best, epoch
    return best, len(scores) - 1


def test_ex_2_right(capsys):
    assert judge(2, kept, capsys)


def last_weights(scores, patience):
    return kept(scores, patience)[1], kept(scores, patience)[1]


def first_of_equals(scores, patience):
    best, trained = kept(scores, patience)
    return scores.index(scores[best]), trained


def equal_is_progress(scores, patience):
    best = stale = 0
    for epoch, score in enumerate(scores[1:], 1):
        stale = 0 if score >= scores[best] else stale + 1
        best = epoch if score >= scores[best] else best
        if stale == patience:
            return best, epoch
    return best, len(scores) - 1


def without_the_start(scores, patience):
    best, trained = kept(scores[1:], patience)
    return best + 1, trained + 1


def never_stops(scores, patience):
    return max(range(len(scores)), key=lambda i: (scores[i], i)), len(scores) - 1


@pytest.mark.parametrize(
    "answer", [last_weights, first_of_equals, equal_is_progress, without_the_start, never_stops]
)
def test_ex_2_wrong(answer, capsys):
    assert not judge(2, answer, capsys)


def second(model, old, lr):
    new = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr)
    for p in model.parameters():
        if p in old.state:
            new.state[p] = old.state[p]
    return new


def test_ex_3_right(capsys):
    assert judge(3, second, capsys)


def same_one(model, old, lr):
    old.add_param_group({"params": list(model[0].parameters()), "lr": lr})
    return old


def forgets(model, old, lr):
    return torch.optim.AdamW(model.parameters(), lr)


def by_value(model, old, lr):
    new = torch.optim.AdamW(model.parameters(), lr)
    for p in model.parameters():
        for q in old.state:
            if p.shape == q.shape and torch.equal(p, q):
                new.state[p] = old.state[q]
    return new


def head_alone(model, old, lr):
    new = torch.optim.AdamW(model[1].parameters(), lr)
    new.state.update(old.state)
    return new


def old_rate(model, old, lr):
    new = second(model, old, lr)
    for group in new.param_groups:
        group["lr"] = old.param_groups[0]["lr"]
    return new


@pytest.mark.parametrize("answer", [same_one, forgets, by_value, head_alone, old_rate])
def test_ex_3_wrong(answer, capsys):
    assert not judge(3, answer, capsys)

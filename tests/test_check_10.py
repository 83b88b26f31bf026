"""Exercises of lesson 10: the checkers take right answers and refuse plausible wrong ones."""

import pytest
import torch

from ftlearn import check
from ftlearn.augment import margin, out_of_fold
from ftlearn.features import linear_probe
from ftlearn.training import predict


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_unsolved_exercise_says_so(number, capsys):
    assert getattr(check, f"ex10_{number}")() is False
    assert getattr(check, f"ex10_{number}")(None) is False
    assert capsys.readouterr().out == 2 * f"ex 10.{number}: not tried yet\n"


def judge(number, answer, capsys, says=""):
    verdict = getattr(check, f"ex10_{number}")(answer)
    said = capsys.readouterr().out
    assert said.startswith(f"ex 10.{number}: ") and said.count("\n") == 1
    assert ("correct ✓" in said) is verdict
    assert says in said
    return verdict


def copies(data):
    return data.columns[0].unique(dim=0, return_inverse=True)[1]


def grouped(data, fit):
    return out_of_fold(data, fit, groups=copies(data))


def by_hand(data, fit):
    group, z = copies(data), None
    for fold in range(6):
        mine = group % 6 == fold
        new = predict(fit(data.take(~mine)), data.take(mine))
        z = new.new_zeros(len(data), new.shape[1]) if z is None else z
        z[mine] = new
    return z


def averaged(data, fit):
    return sum(out_of_fold(data, fit, seed=s, groups=copies(data)) for s in range(3)) / 3


def test_the_set_of_ex_1_holds_what_it_says():
    data = check.noisy()
    group = copies(data)
    assert len(data) == 360 and group.bincount().tolist().count(2) == 60
    labels = [set(data.columns[1][group == g].tolist()) for g in range(300)]
    assert all(len(some) == 1 for some in labels)  # a copy has its row's label


@pytest.mark.parametrize("answer", [grouped, by_hand, averaged])
def test_ex_1_right(answer, capsys):
    assert judge(1, answer, capsys)


def in_sample(data, fit):
    return predict(fit(data), data)


def held_back(data, fit):
    return predict(linear_probe(data, 1.0), data)  # precise, but it has seen every label


def one_row_seen(data, fit):
    z = grouped(data, fit)
    z[7] = predict(fit(data), data.take([7]))[0]
    return z


def half_in_sample(data, fit):
    return (in_sample(data, fit) + grouped(data, fit)) / 2


def in_order_of_folds(data, fit):
    group = copies(data)
    return torch.cat(
        [predict(fit(data.take(group % 5 != f)), data.take(group % 5 == f)) for f in range(5)]
    )


def some_rows(data, fit):
    return grouped(data, fit)[:300]


def probabilities(data, fit):
    return grouped(data, fit).softmax(1)


def ranking(data, fit):
    return grouped(data, fit).argmax(1)


def spoils(data, fit):
    z = grouped(data, fit)
    data.columns[1][:] = 0
    return z


def from_few(data, fit):
    group, z = copies(data), torch.zeros(360, 10)
    y = data.columns[1]
    few = torch.cat([(y == c).nonzero()[:4, 0] for c in range(10)])
    for fold in range(2):  # each row from twenty others at most
        mine = group % 2 == fold
        some = few[~mine[few]]
        z[mine] = predict(fit(data.take(some)), data.take(mine))
    return z


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (in_sample, "row 0 was judged by a model that has learned from its label"),
        (held_back, "fit(some)"),
        (out_of_fold, "has learned from its copy, row"),
        (lambda data, fit: out_of_fold(data, fit, folds=20), "its copy"),
        (one_row_seen, "row 7 was judged"),
        (half_in_sample, "has learned from its label"),
        (in_order_of_folds, "in the order of the set"),
        (some_rows, "(360, 10), not torch.Size([300, 10])"),
        (probabilities, "the logits"),
        (ranking, "(360, 10)"),
        (spoils, "changed the set"),
        (lambda data, fit: None, "not NoneType"),
        (lambda data: data, "raised TypeError"),
        (torch.zeros(360, 10), "raised TypeError"),
    ],
)
def test_ex_1_wrong(answer, says, capsys):
    assert not judge(1, answer, capsys, says)


def test_ex_1_wants_models_that_know_the_digits(capsys):
    assert not judge(1, from_few, capsys)


REJECTED = {
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by up to 180 degrees",
    "shifted by up to six pixels",
}


def test_ex_2_right(capsys):
    assert judge(2, REJECTED, capsys) and judge(2, sorted(REJECTED), capsys)
    assert set(check.offers()) > REJECTED


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"mirrored left to right", "mirrored top to bottom"}, "2 more must go"),
        (REJECTED - {"mirrored left to right"}, "no 2 any more"),
        (REJECTED - {"mirrored top to bottom"}, "is a 5"),
        (REJECTED - {"shifted by up to six pixels"}, "left its frame"),
        (REJECTED | {"a little noise"}, "may be used"),
        (REJECTED | {"turned by up to 10 degrees"}, "may be used"),
        ("mirrored left to right", "3 more must go"),
        (set(), "4 more must go"),
        ({"flip"}, "is no name"),
        (7, "raised TypeError"),
    ],
)
def test_ex_2_wrong(answer, says, capsys):
    assert not judge(2, answer, capsys, says)


def test_the_hints_of_ex_2_are_so():
    """A reader that was not trained with them: what becomes what."""
    from torch import nn

    from ftlearn.features import cache
    from ftlearn.freezing import freeze
    from ftlearn.glyphs import digits
    from ftlearn.models import glyphnet, split

    pool, valid, _ = digits(batch_size=300)
    body = freeze(split(glyphnet(10, "letters"), "head")[0])
    reader = nn.Sequential(body, linear_probe(cache(body, pool)))
    x, y = valid.columns
    read = lambda new: predict(reader, valid.like(new, y)).argmax(1)
    assert (read(x.flip(2))[y == 2] == 5).float().mean() > 0.8
    assert (read(x.flip(2))[y == 6] == 9).float().mean() < 0.3
    assert (read(x.rot90(2, (2, 3)))[y == 6] == 9).float().mean() > 0.8


def test_ex_3_right(capsys):
    assert judge(3, lambda z, n: margin(z).argsort()[:n], capsys)
    assert judge(3, lambda z, n: margin(z).topk(n, largest=False).indices.tolist(), capsys)


def entropy(z, n):
    p = z.softmax(1)
    return (p * p.log()).sum(1).argsort()[:n]


def spoils_logits(z, n):
    rows = margin(z).argsort()[:n]
    z -= z.max()
    return rows


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda z, n: margin(z).argsort(descending=True)[:n], "the surest rows"),
        (lambda z, n: z.softmax(1).amax(1).argsort()[:n], "the second best counts"),
        (
            lambda z, n: z.topk(2, 1).values.diff(dim=1)[:, 0].argsort(descending=True)[:n],
            "softmax",
        ),
        (entropy, "the entropy"),
        (lambda z, n: torch.arange(n), "not the rows"),
        (lambda z, n: margin(z).argsort(), "20 different row numbers"),
        (lambda z, n: margin(z).argsort()[:20], "7 different row numbers"),
        (lambda z, n: margin(z.view(200, 6)).argsort()[:n], "raised RuntimeError"),
        (lambda z, n: margin(z)[:n], "row numbers, not torch.float32"),
        (lambda z, n: margin(z).argsort()[:n] + 0.5, "row numbers, not torch.float32"),
        (lambda z, n: margin(z) < 0.1, "row numbers, not torch.bool"),
        (spoils_logits, "changed the logits"),
        (lambda z: z, "raised TypeError"),
    ],
)
def test_ex_3_wrong(answer, says, capsys):
    assert not judge(3, answer, capsys, says)

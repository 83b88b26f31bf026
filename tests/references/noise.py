"""Reference values for tests/test_augment.py: what cleanlab says of 900 labels, 90 of them wrong.

    pip install cleanlab
    python tests/references/noise.py

Run it where ftlearn is installed too. cleanlab is under the AGPL, so it is no dependency: the tests
read the JSON file beside this script. That holds the problem and the answers.

The problem: the digits of the pool under their labels, of which 90 were made wrong (`planted` are
their rows), and what a probe trained without a digit says of it, in ten-thousandths. Every row is
rounded to a sum of exactly 10,000, so that no step of a comparison has to normalise anything.

The answers: rows in the order of three label quality scores, the worst first, of equal scores the
smaller row first; and the rows that `find_label_issues` calls wrong, by its default and by a
second rule. The calls are kept as text beside the values.

`draws` has what became of 20 such problems, this one first ("even": every other digit is as likely
to be the wrong label), and of 20 where the errors have a system ("pairs": 30 ones are called seven,
30 threes eight, 30 fours nine). How many planted errors are among the first 90 of every order; and
for both rules how many rows they named, how many of these were planted, and how many planted ones
are among as many rows that come first by self-confidence.
"""

import json
import platform
from pathlib import Path

import cleanlab
import numpy as np
import sklearn
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from ftlearn.augment import out_of_fold
from ftlearn.data import generator
from ftlearn.features import cache
from ftlearn.freezing import freeze
from ftlearn.glyphs import digits
from ftlearn.models import glyphnet, split

SCORES = {  # how many rows of the order are kept
    "self_confidence": 900,
    "normalized_margin": 150,
    "confidence_weighted_entropy": 150,
}
DRAWS = 20
FILTERS = ("prune_by_noise_rate", "low_self_confidence")


def even(y, random):
    """A tenth of the rows, and another label for each."""
    rows = torch.randperm(len(y), generator=random)[: round(0.1 * len(y))]
    return rows, (y[rows] + torch.randint(1, 10, (len(rows),), generator=random)) % 10


def pairs(y, random):
    """30 rows of each of three classes, and the label that takes their place."""
    shuffled, rows, wrong = torch.randperm(len(y), generator=random), [], []
    for was, becomes in ((1, 7), (3, 8), (4, 9)):
        rows += shuffled[y[shuffled] == was][:30].tolist()
        wrong += [becomes] * 30
    return torch.tensor(rows), torch.tensor(wrong)


def ten_thousandths(p):
    """Whole numbers that sum to 10,000 in every row: what is left over goes to the largest rest."""
    whole = np.floor(10_000 * p).astype(int)
    order = np.argsort(whole - 10_000 * p, axis=1, kind="stable")
    for row, ranked in zip(whole, order, strict=True):
        row[ranked[: 10_000 - row.sum()]] += 1
    return whole


def problem(data, kind=even, seed=0):
    """Labels, the rows of the wrong ones, and ten-thousandths out of fold."""
    labels = data.columns[1].clone()
    rows, wrong = kind(labels, generator(seed, 10))
    labels[rows] = wrong
    z = out_of_fold(data.like(data.columns[0], labels), seed=seed)
    whole = ten_thousandths(z.double().softmax(1).numpy())
    return labels.numpy(), rows.sort().values.tolist(), whole


def orders(labels, p):
    """All rows by every score, the worst first."""
    scores = {name: get_label_quality_scores(labels, p, method=name) for name in SCORES}
    return {name: np.argsort(found, kind="stable").tolist() for name, found in scores.items()}


def issues(labels, p):
    """The rows that every rule calls wrong."""
    masks = {name: find_label_issues(labels, p, filter_by=name, n_jobs=1) for name in FILTERS}
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def hits(labels, rows, whole):
    """The numbers of one draw."""
    ranked, found = orders(labels, whole / 10_000), issues(labels, whole / 10_000)
    count = lambda some: len(set(some) & set(rows))
    first = {name: count(order[:90]) for name, order in ranked.items()}
    trust = ranked["self_confidence"]
    named = {name: [len(r), count(r), count(trust[: len(r)])] for name, r in found.items()}
    return first | named


def draws(data, kind):
    """The numbers of `DRAWS` problems, a list for every name."""
    found = [hits(*problem(data, kind, seed)) for seed in range(DRAWS)]
    return {name: [draw[name] for draw in found] for name in found[0]}


if __name__ == "__main__":
    pool = digits()[0]
    features = cache(freeze(split(glyphnet(10, "letters"), "head")[0]), pool)
    labels, rows, whole = problem(features)
    p = whole / 10_000
    result = {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "scikit-learn": sklearn.__version__,
            "cleanlab": cleanlab.__version__,
        },
        "labels": "".join(map(str, labels)),
        "planted": rows,
        "orders": {
            name: {
                "call": f"get_label_quality_scores(labels, p, method={name!r})",
                "rows": order[: SCORES[name]],
            }
            for name, order in orders(labels, p).items()
        },
        "issues": {
            name: {"call": f"find_label_issues(labels, p, filter_by={name!r})", "rows": found}
            for name, found in issues(labels, p).items()
        },
        "draws": {kind.__name__: draws(features, kind) for kind in (even, pairs)},
        "ten-thousandths": whole.tolist(),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    print(path, path.stat().st_size, "bytes", result["versions"])

"""Draw docs/seconds.png from peers.json: every library on the same three jobs.

    python benchmarks/chart.py [file]

A mark is a run of five epochs. Both precisions, so that what the precision gives and what the
library gives stand side by side, and one forward pass, the least that a job can take.
"""

import sys

import report

from ftlearn.explore import COLOURS, panels

FIGURE = report.HERE.parent / "docs" / "seconds.png"
ARMS = ("ftlearn", *report.PEERS)
JOBS = {"head": "head only", "last": "last stage", "full": "whole network"}
MARKS = {"bf16": ("white", "bfloat16"), "fp32": (None, "float32")}
ALT = (  # the picture in words, wherever it is shown
    "Seconds for five epochs of a ResNet18, by library, a mark a run. Head only: ftlearn takes "
    "little more than one forward pass, the others five to ten times one of the same precision. "
    "Last stage: ftlearn is ahead. Whole network: at equal precision all but Keras in bfloat16 "
    "take about the same."
)
FAINT = {"color": "#555555", "fontsize": 9, "va": "center"}


def runs(rows, arm, stage):
    """{precision: the seconds of each run of five epochs}."""
    return {p: rows.values(arm, p, (stage, 5), "seconds") for p in MARKS}


def draw(rows):
    """The figure: a panel a job, a line a library, a mark a run."""
    figure, axes = panels(1, len(JOBS), size=(8.4, 2.7), sharey=True)
    for axis, (stage, title) in zip(axes.flat, JOBS.items(), strict=True):
        for y, arm in enumerate(ARMS):
            colour = COLOURS[1] if arm == "ftlearn" else COLOURS[0]
            for precision, seconds in runs(rows, arm, stage).items():
                face = MARKS[precision][0] or colour
                axis.scatter(seconds, [y] * len(seconds), s=34, facecolor=face, edgecolor=colour)
        axis.set(title=title, xlabel="seconds", xlim=(0, 28), ylim=(len(ARMS) - 0.4, -0.6))
        axis.grid(axis="y", visible=False)
    first, bare = axes.flat[0], runs(rows, "bare", "head")["bf16"]
    first.set_yticks(range(len(ARMS)), [report.NAMES[arm] for arm in ARMS])
    first.axvline(min(bare), color="#777777", linewidth=1, linestyle=":")
    first.text(min(bare) + 0.6, 2.5, "one pass, bfloat16", **FAINT)
    for y, (face, name) in enumerate(MARKS.values()):
        first.scatter([17], [4.2 + 0.8 * y], s=34, facecolor=face or "#555555", edgecolor="#555555")
        first.text(18.2, 4.2 + 0.8 * y, name, **FAINT)
    return figure


def main(path=FIGURE):
    """Write the picture."""
    draw(report.Rows(report.read(report.HERE, "peers")["rows"])).savefig(path, dpi=200)


if __name__ == "__main__":
    main(*sys.argv[1:])

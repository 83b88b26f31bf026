"""The page of results says what the results files hold, and its picture what the benchmark does."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
BUDGETS = (1, 5, 20, 100)
sys.path.insert(0, str(ROOT / "benchmarks"))


def lines(head, section):
    """Cells of the table whose head begins like this, in a section, without the head."""
    table = (
        PAGE.split(f"\n## {section}")[1].split(f"\n| {head}")[1].split("\n\n")[0].splitlines()[2:]
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def written(interval):
    """A mean and half its interval as the page writes them, with a digit that is not 0."""
    mean, half = interval[:2]
    half = f"{half:.{3 if half >= 0.0005 else 4}f}" if half else "0"
    return f"{mean:.3f} ±{half}".replace("0.", ".")


def test_what_is_forgotten_is_what_was_measured():
    from ftlearn import methods
    from ftlearn.experiment import interval

    rows = methods.stored()["rows"]
    for name, line in zip(
        methods.METHODS, lines("labels", "What does fine-tuning forget"), strict=True
    ):
        cells = [interval(methods.column(rows, name, k)) for k in methods.BUDGETS]
        cells.append(interval(methods.column(rows, name, 5, "letters")))
        assert line == [name, *map(written, cells)]
    best = [methods.difference(rows, m, "layer decay", k) for m in methods.METHODS for k in BUDGETS]
    assert all(mean <= half for mean, half in best), "no method beats layer decay"


def test_what_is_said_of_a_tenth_of_the_rate_is_what_was_measured():
    from ftlearn import methods

    stored, slow = methods.stored(), methods.SLOW["full, slow"][1][0]
    assert round(stored["chosen"]["full"][0] / slow) == 10
    kept = methods.column(stored["rows"], "full, slow", 5, "letters").mean().item()
    assert f"keeps {kept:.3f} of the letters".replace("0.", ".") in PAGE
    behind = lambda other, k: methods.difference(stored["rows"], "full, slow", other, k)
    assert all(mean < -half for mean, half in [behind("layer decay", k) for k in BUDGETS])
    means = [behind("full", k)[0] for k in (20, 100)]
    assert [round(100 * mean) for mean in means] == [-1, -1]


def test_a_recipe_makes_the_updates_that_the_page_says():
    from ftlearn import methods
    from ftlearn.labels import pretrained
    from ftlearn.recipes import timeline

    model, made = pretrained("letters"), {}
    for name, setting in methods.stored()["chosen"].items():
        recipe = methods.METHODS[name][0](*setting)
        for labels in BUDGETS:
            steps = max(1, 10 * labels // methods.BATCH)
            made[name, labels] = timeline(model, recipe, steps)[2][-1]
    longer = {key: updates for key, updates in made.items() if updates != methods.UPDATES}
    assert methods.UPDATES == 120 and "Five recipes, 120 updates each" in PAGE
    assert longer == {("gradual", 100): 200}
    assert "*Gradual* made 200 updates at 100 labels per class" in PAGE


def test_what_pretraining_is_worth_is_what_was_measured():
    from ftlearn.labels import ARMS, stored, summary

    cells = summary(stored()["rows"])
    for arm, line in zip(ARMS, lines("labels", "How many labels"), strict=True):
        assert line == [arm, *(written(cells[arm, labels]) for labels in (1, 5, 10, 20))]
    draws = dict.fromkeys(ARMS, 10) | {"fine-tuned": 20, "SVM on pixels": 100}
    draws |= {"probe": 100, "probe + unlabelled pool": 100}
    assert {(arm, n) for (arm, _), (*_, n) in cells.items()} == set(draws.items())
    assert "\n100 draws for the probes and the SVM, 20 for *fine-tuned*, 10 for the rest." in PAGE
    random, tuned = [[cells[arm, k][0] for k in (5, 10, 20)] for arm in list(ARMS)[2:4]]
    assert all(abs(a - b) < 0.01 for a, b in zip(random, tuned, strict=True)), "within a point"


def test_the_advice_is_what_was_measured():
    from ftlearn import remedies, shapes, students

    said = lambda pair: "{:+.1f} ± {:.1f}".format(*pair)
    gains = remedies.gains
    rows, results, taught = shapes.stored(), remedies.stored(), students.stored()

    def cosine(task, updates, what="accuracy"):
        lines = [(task, arm, "AdamW", updates) for arm in ("cosine", "constant")]
        return said(shapes.ahead(rows, *lines, what=what))

    def pupil(arm, where="pool", **settings):
        line, alone = students.line, students.line("20 k", "alone", "labelled")
        return said(students.ahead(taught, line("20 k", arm, where, **settings), alone))

    few, many = [gains(results, "noise", noise=0.1, labels=n) for n in (50, 900)]
    by_start = {
        arm: [said(gains(results, topic, start=s)[arm]) for s in ("scratch", "letters")]
        for topic, arm in (("augmentation", "shift"), ("regularisation", "dropout"))
    }
    expected = {
        "choose": [cosine("few", 60), cosine("scratch", 180)],
        "decay": [cosine("noisy", 360, "fit")[1:], cosine("noisy", 360)],
        "augment": by_start["shift"],
        "regularise": by_start["dropout"],
        "clean": [said(f[arm]) for f in (few, many) for arm in ("correct suspects", "hold back")],
        "distil": [
            pupil("KD", "labelled", **students.SOFT),
            pupil("KD", **students.SOFT),
            pupil("pseudo-labels"),
        ],
    }
    table = dict(re.findall(r"^\| (\w+) [^|]* \| ([^|]+) \|$", PAGE, re.M))
    for word, numbers in expected.items():
        assert re.findall(r"[+-]?\d+\.\d ± \d+\.\d", table[word]) == numbers, word

    def tuning(arm, peak):
        peaks, means, _ = shapes.summit(rows, "noisy", arm, "AdamW", 360)
        return 100 * means[peaks.index(peak)]

    more = [tuning("cosine", peak) - tuning("constant", peak) for peak in (0.003, 0.01, 0.03)]
    assert f"0.003 to 0.03, it reads {min(more):.1f} to {max(more):.1f} more" in table["decay"]


def test_the_seconds_and_the_accuracies_are_those_of_the_benchmark():
    from ftlearn.experiment import stored

    rows = [row for row in stored("speed")["rows"] if row["epochs"] == 5]
    found = {(row["view"], row["arm"], row["stage"]): row for row in rows}
    table = lines("seconds", "What does it cost")
    assert len(table) == 8
    other = {
        "ftlearn, bfloat16": ("as each comes", "ftlearn"),
        "ftlearn, float32": ("all in fp32", "ftlearn"),
        "one bare forward pass": ("as each comes", "bare forward pass"),
    }
    for arm, *cells in table:
        key = other.get(arm, ("as each comes", arm))
        of = [found.get((*key, stage)) for stage in ("head", "last", "full")]
        assert cells == [f"{row['seconds']:.1f}" if row else "" for row in of], arm
    own, low, high = [], [], []
    for stage in ("head", "last", "full"):
        scores = {arm: found["as each comes", arm, stage]["accuracy"] for arm, *_ in table[2:-1]}
        assert len(scores) == 5
        own.append(found["as each comes", "ftlearn", stage]["accuracy"])
        low.append(min(scores.values()))
        high.append(max(scores.values()))
    assert all(mine < least for mine, least in zip(own, low, strict=True)), "lowest no more"
    said = " ".join(PAGE.split("lowest in all three jobs:")[1].split("All spreads")[0].split())
    own, low, high = [[f"{x:.3f}"[1:] for x in scores] for scores in (own, low, high)]
    spans = [f"{a} to {b}" for a, b in zip(low, high, strict=True)]
    first, second, third = spans
    assert said == (
        f"{own[0]}, {own[1]} and {own[2]}, the others from {first}, {second} and {third}."
    )


def test_the_picture_has_every_run_and_its_text_says_what_is_seen():
    import chart
    import report

    from ftlearn.explore import overlapping_labels

    rows = report.Rows(report.read(report.HERE, "peers")["rows"])
    figure = chart.draw(rows)
    assert overlapping_labels(figure) == []
    for axis, stage in zip(figure.axes, chart.JOBS, strict=True):
        marks = [x for dots in axis.collections for x, y in dots.get_offsets() if y == int(y)]
        runs = [chart.runs(rows, arm, stage) for arm in chart.ARMS]
        wanted = [second for arm in runs for p in chart.MARKS for second in arm[p]]
        assert [round(x, 3) for x in marks][: len(wanted)] == wanted
        low, high = axis.get_xlim()
        assert low < min(marks) and max(marks) < high, "a mark beyond the edge"
    bare = chart.runs(rows, "bare", "head")
    (own, *others), (mine, *theirs) = [
        [chart.runs(rows, arm, stage) for arm in chart.ARMS] for stage in ("head", "last")
    ]
    for precision in chart.MARKS:
        assert max(own[precision]) < 1.3 * min(bare[precision])
        for o in others:
            ratios = [second / min(bare[precision]) for second in o[precision]]
            assert 5 <= min(ratios) and max(ratios) < 11, "five to ten times one forward pass"
        assert all(min(o[precision]) > 1.5 * max(mine[precision]) for o in theirs)
        whole = {arm: chart.runs(rows, arm, "full")[precision] for arm in chart.ARMS}
        keras = whole.pop("keras") if precision == "bf16" else []
        alike = [second for seconds in whole.values() for second in seconds]
        assert max(alike) < 1.25 * min(alike)
        assert all(second > max(alike) for second in keras)


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md", "docs/benchmarks.md"])
def test_the_words_of_the_picture_are_the_same_everywhere(page):
    import chart

    said = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r'!\[([^]]+)\]\(seconds\.png|seconds\.png"[^>]* alt="([^"]+)"', said)
    assert [a or b for a, b in shown] == [chart.ALT]

"""The README's code runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run_and_do_what_the_page_says(capsys):
    first = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    lines = first.strip().splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
    names = {}
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names) > 0.9
    assert "read 1 time)" in capsys.readouterr().out


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)", README))
def test_links_lead_to_files(target):
    assert (ROOT / target).is_file()


def test_the_lines_on_photos_run(tmp_path, monkeypatch, capsys):
    """With the backbone that needs no network."""
    from functools import partial

    import ftlearn
    from ftlearn import finetuned
    from ftlearn.photos import sample_photos

    monkeypatch.chdir(tmp_path)
    sample_photos("photos", per_class=12)
    monkeypatch.setattr(
        ftlearn, "finetune", partial(finetuned.finetune, backbone="letters"), raising=False
    )
    lines = re.findall(r"```python\n(.*?)```", README, re.S)[1].strip().splitlines()
    names = {}
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names).name in ("china", "flower")
    assert "read 1 time)" in capsys.readouterr().out


def test_the_numbers_of_the_methods_are_those_of_the_results_file():
    from ftlearn import methods

    rows = methods.stored()["rows"]
    row = r"^\| ([^|]+?) \| (\.\d{3}) \| (\.\d{3}) \| (\.\d{3}) \| (\.\d{3}) \| (\.\d{3}) \|$"
    table = re.findall(row, README, re.M)
    assert [name for name, *_ in table] == list(methods.METHODS)
    for name, *values in table:
        means = [methods.column(rows, name, k).mean() for k in methods.BUDGETS]
        means.append(methods.column(rows, name, 5, "letters").mean())
        assert [f"{mean:.3f}"[1:] for mean in means] == values, name


def test_the_numbers_are_those_of_the_results_file():
    from ftlearn.labels import ARMS, stored, summary

    cells = summary(stored()["rows"])
    row = r"^\| ([^|]+?) \| (\.\d{3}) \| (\.\d{3}) \| (\.\d{3}) \| (\.\d{3}) \|$"
    table = re.findall(row, README, re.M)
    assert [arm for arm, *_ in table] == list(ARMS)
    for arm, *values in table:
        for labels, value in zip((1, 5, 10, 20), values):
            assert f"{cells[arm, labels][0]:.3f}"[1:] == value, (arm, labels)


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
    table = dict(re.findall(r"^\| (\w+) [^|]* \| ([^|]+) \|$", README, re.M))
    for word, numbers in expected.items():
        assert re.findall(r"[+-]?\d+\.\d ± \d+\.\d", table[word]) == numbers, word

    def tuning(arm, peak):
        peaks, means, _ = shapes.summit(rows, "noisy", arm, "AdamW", 360)
        return 100 * means[peaks.index(peak)]

    more = [tuning("cosine", peak) - tuning("constant", peak) for peak in (0.003, 0.01, 0.03)]
    assert f"0.003 to 0.03, it reads {min(more):.1f} to {max(more):.1f} more" in table["decay"]


def test_the_cost_of_a_teacher_is_what_was_measured():
    import json

    stored = json.loads((ROOT / "benchmarks" / "distillation.json").read_text("utf-8"))
    assert f"takes {stored['cached_over_plain']['median']} of one without" in README


def test_the_seconds_are_those_of_the_benchmark():
    from ftlearn.experiment import stored

    rows = [r for r in stored("speed")["rows"] if r["view"] == "as each comes" and r["epochs"] == 5]
    seconds = {(r["arm"], r["stage"]): f"{r['seconds']:.1f}" for r in rows}
    table = README.split("| seconds for 5 epochs |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 7
    for line in table:
        arm, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        arm = "bare forward pass" if arm == "one bare forward pass" else arm
        wanted = [seconds.get((arm, stage), "") for stage in ("head", "last", "full")]
        assert cells == wanted, arm


def test_the_cost_of_the_loop_is_what_was_measured():
    import json

    arms = json.loads((ROOT / "benchmarks" / "loop.json").read_text())["arms"]
    said = re.search(
        r"`fit` takes (\S+) of a plain loop, Accelerate (\S+),\s+Lightning (\S+), the Trainer (\S+), fastai ([\d.]+)",
        README,
    )
    names = "fit", "accelerate", "lightning", "trainer", "fastai"
    ratios = [arms[name]["over_plain"]["median"] for name in names]
    assert list(said.groups()) == [f"{ratios[0]:.2f}", *[f"{ratio:.1f}" for ratio in ratios[1:]]]

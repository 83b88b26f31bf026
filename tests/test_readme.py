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


def test_the_site_shows_the_same_ten_lines():
    first = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    assert first in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


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


def test_the_cost_of_a_teacher_is_what_was_measured():
    import json

    stored = json.loads((ROOT / "benchmarks" / "distillation.json").read_text("utf-8"))
    assert f"takes {stored['cached_over_plain']['median']} of one without" in README


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

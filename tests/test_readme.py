"""The README's code runs as printed, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", README, re.S)
LINKS = sorted(set(re.findall(r'(?:\]\(|(?:src|href)=")(?!http)([^")]+)', README)))


def test_the_ten_lines_run_and_do_what_the_page_says(capsys):
    lines = CODE[0].strip().splitlines()
    assert len([line for line in lines if line.strip()]) <= 10
    names = {}
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names) > 0.9
    assert "read 1 time)" in capsys.readouterr().out


def test_the_site_shows_the_same_ten_lines():
    assert CODE[0] in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", LINKS)
def test_links_lead_to_files_and_headings(target):
    path, _, anchor = target.partition("#")
    page = ROOT / (path or "README.md")
    assert page.is_file()
    if anchor:
        headings = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
        assert anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]


def test_every_lesson_is_in_the_table():
    notebooks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("nbs/*.ipynb")}
    assert set(re.findall(r"(?m)^\| \[[^]]+\]\(([^)]+)\) \|", README)) == notebooks
    assert len(notebooks) == 14 and "fourteen notebooks" in README


def test_the_lines_on_photos_run(tmp_path, monkeypatch, capsys):
    """With the backbone that needs no network."""
    from functools import partial

    import ftlearn
    from ftlearn import finetuned
    from ftlearn.photos import sample_photos

    monkeypatch.chdir(tmp_path)
    sample_photos("photos", per_class=12)
    monkeypatch.setattr(ftlearn, "finetune", partial(finetuned.finetune, backbone="letters"))
    lines, names = CODE[1].strip().splitlines(), {}
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names).name in ("china", "flower")
    assert "read 1 time)" in capsys.readouterr().out


def test_the_loop_runs_and_stops_early():
    import torch

    import ftlearn

    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    names = {name: getattr(ftlearn, name) for name in ftlearn.__all__}
    names["data"] = names["valid"] = ftlearn.Columns(x, (x[:, 0] > 0).long())
    names["model"] = torch.nn.Linear(8, 2)
    names["optimizer"] = torch.optim.AdamW(names["model"].parameters(), 0.1)
    exec(CODE[2], names)
    assert names["tick"].last and names["tick"].epoch < 4
    assert len(CODE) == 3, "a block that no test runs"


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
    gathers = arms["fit"]["over_plain_select"]["median"]
    assert f"a loop that gathers its rows as fast as ftlearn does, {gathers:.2f}" in README

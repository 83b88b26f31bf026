"""Every lesson in a real JupyterLab: run, moved, answered, interrupted, saved."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import browser
import pytest
from answers import ANSWERS, code

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
pytest.importorskip("jupyterlab", reason="no JupyterLab: pip install jupyterlab")

import lab as driver

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted([*ROOT.glob("nbs/[0-9][0-9]_*.ipynb"), ROOT / "nbs/index.ipynb"])
LIMIT = 240  # seconds for one lesson
FOLDER = "a reader's folder, of any näme"


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """One server and one browser for all tests of a worker."""
    browser.find() or pytest.skip(browser.MISSING)
    home, root = (tmp_path_factory.mktemp(name) for name in ("home", "root"))
    with driver.laboratory(home, root) as running:
        yield running


@pytest.fixture
def folder(lab, request):
    """A fresh folder below the server's root."""
    path = lab.root / re.sub(r"\W+", "-", request.node.name) / FOLDER
    path.mkdir(parents=True)
    return path


@pytest.fixture
def notebook(lab, folder):
    """A new notebook with one empty cell."""
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    cell = dict(cell_type="code", id="first", metadata={}, source="", outputs=[])
    cells = [cell | {"execution_count": None}]
    whole = dict(nbformat=4, nbformat_minor=5, metadata={"kernelspec": kernel}, cells=cells)
    path = folder / "new.ipynb"
    path.write_text(json.dumps(whole))
    with lab.opened(path) as opened:
        yield opened


def read(path):
    """A notebook as plain values."""
    return json.loads(path.read_text(encoding="utf-8"))


def check_run(cells, sources):
    """Every cell has run in order, none has failed, and all that it shows can be seen."""
    for i, (cell, source) in enumerate(zip(cells, sources, strict=True)):
        what = f"code cell {i + 1}, {source[:80]!r}"
        assert not cell["red"], f"{what}: {cell['red'][-1000:]}"
        assert cell["prompt"] == f"[{i + 1}]:", f"{what} has the prompt {cell['prompt']}"
        assert not cell["wide"], f"{what}: its picture is wider than the page"


def check_widget(cell):
    """A move by keyboard and one by mouse each change the figure, its text and the value."""
    handle, button = cell.locator(".noUi-handle").first, cell.locator("button.jupyter-button")
    driver.check_change(cell, "by keyboard", partial(driver.by_keyboard, handle))
    driver.check_change(cell, "by mouse", partial(driver.by_mouse, handle))
    if button.count():
        driver.check_change(cell, "by its button", button.click, ["src"])


def check_exercise(notebook, checker, *answers):
    """A wrong answer gets a hint, a right one gets praise, in one line, and nothing is raised."""
    for answer, praise in zip(answers, (0, 1), strict=True):
        cell = notebook.run(code(checker, answer))
        said = cell["text"].strip()
        what = f"{checker}({answer}) said {said!r}"
        assert re.match(r"ex [\w.]+: ", said) and "\n" not in said and not cell["red"], what
        assert said.count("correct ✓") == praise, what
        assert "not tried" not in said and "your answer raised" not in said, what


def load_execute():
    """The project's nbs/_execute.py."""
    spec = importlib.util.spec_from_file_location("_execute", ROOT / "nbs/_execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cleaned(notebook, folder):
    """A saved notebook after the project's cleaning, which needs a project."""
    import nbformat

    (folder / "nbs").mkdir(parents=True)
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    path, notebook = folder / "nbs" / "saved.ipynb", nbformat.from_dict(notebook)
    load_execute().keep_html(notebook)
    nbformat.write(notebook, path)
    clean = [Path(sys.executable).with_name("nbdev_clean"), "--fname", path]
    subprocess.run(clean, cwd=folder, check=True)
    return read(path)


def check_same(saved, stored):
    """The two notebooks differ in outputs only."""
    for cell in saved["cells"] + stored["cells"]:
        cell.pop("outputs", None)
    for ours, theirs in zip(saved["cells"], stored["cells"], strict=True):
        assert ours == theirs, f"cell {theirs['id']} was saved as {ours}"
    assert saved == stored


def kinds(cell):
    """What kinds of outputs a cell has: errors, and sliders that work without a kernel."""
    for output in cell.get("outputs", []):
        page = "".join(output.get("data", {}).get("text/html", ""))
        yield "slider" if 'type="range"' in page else output["output_type"]


def test_every_lesson_has_an_exercise_to_try():
    assert {path.stem for path in LESSONS} == set(ANSWERS), "see answers.py"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson(path, lab, folder, tmp_path):
    copy = Path(shutil.copy(path, folder))
    stored, exercise = read(copy), ANSWERS[path.stem]
    sources = ["".join(c["source"]) for c in stored["cells"] if c["cell_type"] == "code"]
    with lab.opened(copy) as notebook:
        notebook.run_all(LIMIT)
        check_run(notebook.cells(), sources)
        widgets = notebook.widgets()
        for cell in widgets:
            check_widget(cell)
        notebook.picture(f"{path.stem}-widget")
        check_exercise(notebook, *exercise)
        saved = notebook.save()
    found = [kind for cell in saved["cells"] for kind in kinds(cell)]
    assert "error" not in found
    assert len(widgets) == found.count("slider") > 0, "a slider is not live, or there is none"
    known = {cell["id"] for cell in stored["cells"]}
    ours = [cell for cell in saved["cells"] if cell["id"] in known]
    assert len(saved["cells"]) - len(ours) == 2  # the answers
    check_same(cleaned(saved | {"cells": ours}, tmp_path), stored)


def test_a_stored_figure_moves_before_any_cell_has_run_where_the_lesson_is_trusted(lab, folder):
    copy = Path(shutil.copy(ROOT / "nbs/index.ipynb", folder))
    lab.trust(copy)
    with lab.opened(copy) as notebook:
        handle = notebook.page.locator(".jp-OutputArea-output input[type=range]").first
        figure = handle.locator("xpath=ancestor::figure")
        seen = lambda: (figure.locator("img").get_attribute("src"), handle.input_value())
        place, at_first = handle.bounding_box(), seen()
        handle.click(position={"x": place["width"] - 8, "y": place["height"] / 2})
        at_last = seen()
        notebook.page.keyboard.press("ArrowLeft")  # not JupyterLab's "go to the heading"
        at_last_but_one = seen()
    assert len({at_first, at_last, at_last_but_one}) == 3, (at_first[1], at_last[1])
    assert int(at_last[1]) == int(at_last_but_one[1]) + 1


LONG = """import time

import torch

from ftlearn.data import Columns
from ftlearn.losses import cross_entropy
from ftlearn.training import Step, evaluate, fit

draw = torch.Generator().manual_seed(0)
x = torch.randn(400, 8, generator=draw)
data = Columns(x, (x[:, 0] > 0).long(), batch_size=40)
model = torch.nn.Linear(8, 2)
pause = lambda: time.sleep(0.05)  # half a second for each epoch, on any machine
step = Step(model, cross_entropy(), torch.optim.AdamW(model.parameters(), 1e-2), after=[pause])
history = fit(step, data, data, epochs={epochs})
print("done")"""

USABLE = """step.after = []
assert all(p.isfinite().all() for p in model.parameters())
before = evaluate(model, data)
fit(step, data, epochs=20)
0 <= before <= 1, evaluate(model, data) > 0.9"""

PROGRESS = """import time

from ftlearn.explore import progress

for _ in progress(range(40), 40, "things", seconds=0.2):
    time.sleep(0.1)
print("done")"""


def test_interrupted_cell_leaves_everything_usable(notebook):
    notebook.start(LONG.format(epochs=10_000))
    notebook.page.get_by_text("epoch, loss, score").wait_for(timeout=60_000)
    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.settle(30, first=1)
    assert "KeyboardInterrupt" in notebook.cells()[1]["red"]
    cell = notebook.run(USABLE)
    assert cell["text"].strip() == "(True, True)", cell


@pytest.mark.parametrize("source", [LONG.format(epochs=20), PROGRESS], ids=["fit", "progress"])
def test_long_cell_shows_one_line(source, notebook):
    notebook.page.evaluate(driver.WATCH)
    notebook.run(source)
    seen = [text.strip() for text in notebook.page.evaluate("window.seen") if text.strip()]
    assert len(seen) > 3, f"hardly anything was shown: {seen}"
    flood = [text for text in seen[:-1] if "\n" in text]
    assert not flood, f"more than one line: {flood[-1]!r}"
    assert seen[-1].endswith("\ndone"), f"what follows the line is mixed with it: {seen[-1]!r}"

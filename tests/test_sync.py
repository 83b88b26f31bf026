"""ftlearn/ is what nbs/ exports, notebooks are clean and in order; the tree is only read."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {"__pycache__", ".ipynb_checkpoints"}
BY_HAND = {"__init__.py", "__main__.py"}
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not SKIPPED & set(p.parts))


def code(path):
    """Sources of the code cells of one notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def module(path):
    """Name of the module that a notebook exports, or None."""
    found = re.search(r"^#\|\s*default_exp\s+(\w+)", "\n".join(code(path)), re.M)
    return found and found[1]


MODULES = {module(path): path for path in NOTEBOOKS if module(path)}


def imported(name):
    """Our own modules that the exported module `name` imports, also inside functions."""
    tree = ast.parse((ROOT / "ftlearn" / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("ftlearn")
        ):
            tail = (node.module or "").removeprefix("ftlearn").lstrip(".")
            found |= {tail.split(".")[0]} if tail else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ftlearn.")}
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A copy of the project, exported from its notebooks alone and cleaned."""
    copy = tmp_path_factory.mktemp("sync") / "ftlearn"
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(*SKIPPED))
    (copy / "ftlearn").mkdir()
    for name in ("settings.ini", "pyproject.toml", *(f"ftlearn/{n}" for n in BY_HAND)):
        shutil.copy(ROOT / name, copy / name)
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([Path(sys.executable).with_name(command)], cwd=copy, check=True)
    return copy


def test_modules_are_what_the_notebooks_export(exported):
    here, there = ({p.name for p in (d / "ftlearn").glob("*.py")} for d in (ROOT, exported))
    assert here == there
    for name in sorted(here):
        ours, theirs = ((d / "ftlearn" / name).read_text("utf-8") for d in (ROOT, exported))
        assert ours == theirs, f"ftlearn/{name} is not what nbs/ exports: run `make export`"


def test_notebooks_are_clean(exported):
    for path in NOTEBOOKS:
        cleaned = exported / path.relative_to(ROOT)
        assert path.read_bytes() == cleaned.read_bytes(), f"{path.name}: run `make export`"


def test_configuration_is_not_rewritten(exported):
    for name in ("pyproject.toml", "settings.ini"):
        assert (ROOT / name).read_bytes() == (exported / name).read_bytes()


def test_every_module_has_one_notebook_of_its_name():
    assert len(MODULES) == len([p for p in NOTEBOOKS if module(p)])
    for name, path in MODULES.items():
        assert re.sub(r"^\d\d_", "", path.stem) == name


def number(name):
    """The lesson's number, or None for a tool."""
    found = re.match(r"(\d\d)_", MODULES[name].stem)
    return found and int(found[1])


def test_lessons_import_only_from_smaller_numbers():
    for name in MODULES:
        if number(name) is None:
            continue
        for other in imported(name):
            assert other in MODULES, f"{name} imports {other}, which no notebook exports"
            if number(other) is not None:
                assert number(other) < number(name), f"{name} imports the later {other}"


def test_imports_have_no_circle():
    """Tools too: peel off the modules whose imports are all peeled off already."""
    waiting = {name: imported(name) & set(MODULES) for name in MODULES}
    while ready := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting, f"these import each other in a circle: {waiting}"


def test_lessons_reach_no_later_lesson_through_a_tool():
    """A lesson that uses a tool uses what the tool imports."""
    for name in MODULES:
        seen, todo = set(), [name]
        while todo:
            new = (imported(todo.pop()) & set(MODULES)) - seen
            seen |= new
            todo += new
        later = [o for o in seen if number(name) is not None and (number(o) or -1) >= number(name)]
        assert not later, f"{name} reaches {later}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_are_small_and_need_no_kernel(path):
    assert path.stat().st_size < 1_000_000
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})

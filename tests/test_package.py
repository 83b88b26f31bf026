"""The package as a whole: what importing costs, what is public, what must not be in the tree."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ftlearn

ROOT = Path(__file__).resolve().parents[1]
EXPORTED = sorted(p.stem for p in (ROOT / "ftlearn").glob("*.py") if not p.stem.startswith("_"))
DRAWING = ("matplotlib", "sklearn", "ipywidgets", "pandas", "scipy")


def loaded_after(statement):
    """Top-level modules that a fresh interpreter has loaded after one statement."""
    show = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", f"{statement}\n{show}"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing():
    assert not loaded_after("import ftlearn") & {"torch", "torchvision", "numpy", *DRAWING}


def test_importing_everything_touches_no_device_and_draws_on_nothing():
    every = "import torch, " + ", ".join(f"ftlearn.{name}" for name in EXPORTED)
    loaded = loaded_after(f"{every}\nassert not torch.cuda.is_initialized()")
    assert not loaded & {"matplotlib", "sklearn", "ipywidgets", "nbdev", "fastcore", "IPython"}


@pytest.mark.parametrize("module", EXPORTED)
def test_modules_import_no_development_tool(module):
    tree = ast.parse((ROOT / "ftlearn" / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {n.split(".")[0] for n in names} & {"nbdev", "fastcore", "execnb", "pickle"}


@pytest.mark.parametrize("name", ftlearn.__all__)
def test_public_names_exist_and_say_what_they_are(name):
    thing = getattr(ftlearn, name)
    assert getattr(import_module(f"ftlearn.{ftlearn._WHERE[name]}"), name) is thing
    assert len(inspect.getdoc(thing) or "") > 15, f"{name} has no docstring"


def test_a_public_name_is_never_a_module():
    """Importing the submodule would replace the name on the package."""
    assert not set(ftlearn._WHERE) & set(ftlearn._MODULES)


def test_every_notebook_module_is_reachable():
    assert set(EXPORTED) == ftlearn._MODULES
    assert set(ftlearn.__all__) | set(EXPORTED) <= set(dir(ftlearn))
    assert ftlearn.losses is import_module("ftlearn.losses")


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'learner'"):
        ftlearn.learner  # noqa: B018


@pytest.mark.parametrize("module", EXPORTED)
def test_everything_exported_is_documented(module):
    found = import_module(f"ftlearn.{module}")
    for name in found.__all__:
        thing = getattr(found, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), f"{module}.{name} has no docstring"


def tracked():
    """Text files that belong to the project."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [p for p in paths if p.is_file() and p.suffix not in {".safetensors", ".png"}]


def test_no_machine_is_named_in_the_tree():
    """No absolute path of somebody's machine, and no index to install from."""
    machine = re.compile(r"(?<![\w.:/])/(?:work|root|tmp|home|opt|Users)/\w|index-url|find-links")
    found = {
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in tracked()
        if path != Path(__file__)
        for hit in machine.finditer(path.read_text(encoding="utf-8"))
    }
    assert not found

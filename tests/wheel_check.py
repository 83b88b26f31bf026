"""Build the wheel, install it into a fresh environment without nbdev, import it and predict.

usage: python tests/wheel_check.py [--download]

The fresh environment gets the wheel, and of the libraries exactly those that the wheel's own
metadata asks for, directly or through others. They are linked from the running environment, which
takes seconds and no network; with --download they come from the package index, as for a user.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE")

JUPYTER = ("ipykernel", "nbclient")  # what a lesson needs beside the wheel, to be run

PREDICT = """
import importlib.util, pathlib, sys, torch, ftlearn
assert pathlib.Path(ftlearn.__file__).is_relative_to(sys.prefix), ftlearn.__file__
for name in ("nbdev", "fastcore", "execnb", "pytest"):
    assert importlib.util.find_spec(name) is None, name
data = ftlearn.digits()
model = ftlearn.glyphnet(classes=10, weights="letters")
logits = ftlearn.predict(model, data.valid.in_order())
assert logits.shape == (len(data.valid), 10) and torch.isfinite(logits).all()
print(f"ftlearn {ftlearn.__version__}: {len(logits)} predictions without nbdev")
folder = ftlearn.lessons("course")
found = sorted(p.name for p in folder.glob("*.ipynb"))
assert "index.ipynb" in found and "05_freezing.ipynb" in found, found
assert (folder / "tools" / "explore.ipynb").is_file()
import nbformat
from nbclient import NotebookClient
lesson = nbformat.read(folder / "00_data.ipynb", as_version=4)
NotebookClient(lesson, timeout=300, kernel_name="python3").execute()
print("a lesson runs where there is Jupyter and the wheel, nothing else")
"""


def run(*command, **options):
    """Run a command; what it prints is shown only when it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build(folder):
    """Build the wheel from a copy, so that a stale build/ cannot leak into it."""
    copy = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("ftlearn", "nbs"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    options = ("--wheel", "--no-isolation", "--outdir", folder)
    run(sys.executable, "-m", "build", *options, copy)
    return next(folder.glob("*.whl"))


def required(name, extras=("",), seen=None):
    """Installed distributions that `name` needs, itself included, as its metadata says."""
    seen = {} if seen is None else seen
    key = re.sub(r"[-_.]+", "-", name).lower()
    if (key, *extras) in seen:
        return seen
    seen[key, *extras] = found = distribution(name)
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
            required(need.name, ("", *sorted(need.extras)), seen)
    return seen


def link(needed, site):
    """Link the files of distributions into another site-packages, folder by folder."""
    for found in needed:
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            target = site / top
            if not target.exists() and not top.endswith((".pth", ".egg-link")):
                target.symlink_to(Path(found.locate_file(top)).resolve())


def check(download=False):
    """Return what the fresh environment printed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, fresh = build(folder), folder / "fresh"
        run(sys.executable, "-m", "venv", "--without-pip", fresh)
        python = fresh / "bin" / "python"
        quiet = ("--disable-pip-version-check", "-q")
        pip = (sys.executable, "-m", "pip", "--python", python)
        alone = () if download else ("--no-deps", "--no-index")
        run(*pip, "install", *quiet, *alone, wheel)
        if not download:
            site = next(fresh.glob("lib/python*/site-packages"))
            wanted = run(python, "-c", "from importlib.metadata import requires as r\n"
                         "print(*r('ftlearn'), sep='\\n')").splitlines()  # fmt: skip
            for need in map(Requirement, wanted):
                if need.marker is None or need.marker.evaluate({"extra": ""}):
                    link(required(need.name, ("", *sorted(need.extras))).values(), site)
            for name in JUPYTER:
                link(required(name).values(), site)
        else:
            run(*pip, "install", *quiet, *JUPYTER)
        run(*pip, "check")
        return run(python, "-W", "error", "-c", PREDICT, cwd=folder)


if __name__ == "__main__":
    print(check(download="--download" in sys.argv[1:]), end="")

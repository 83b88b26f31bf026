"""Run notebooks in place and store what a reader without a kernel can use.

usage: python nbs/_execute.py NOTEBOOK...

A notebook whose cell fails is not written.
Live widgets die with their kernel, so of an output that has both forms the HTML one is kept.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def keep_html(notebook):
    """Drop the live form of every widget; refuse one that has no other."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None) and "text/html" not in data:
                raise ValueError(f"a widget without an HTML form: {cell.source[:60]!r}")


def execute(path):
    """Run one notebook with the kernel of this interpreter and write it back."""
    started = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    quiet = ["--Application.log_level=40"]
    options = {"timeout": 300, "kernel_name": "python3", "extra_arguments": quiet}
    options["coalesce_streams"] = True  # a line that is rewritten is one output
    NotebookClient(notebook, resources=folder, **options).execute()
    keep_html(notebook)
    nbformat.write(notebook, path)
    print(f"{path}: {time.perf_counter() - started:.1f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name))

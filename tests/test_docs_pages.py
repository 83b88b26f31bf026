"""Pages of the site: their code runs or at least imports what exists; what they ask for is made."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs" / "_ext"))

import results  # noqa: E402


def blocks(name):
    """The code of a page, block by block."""
    said = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"(?sm)^```python\n(.*?)^```", said)


def test_what_the_code_imports_exists():
    found = [
        (node.module, one.name)
        for path in ROOT.glob("docs/*.md")
        for code in blocks(path)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ftlearn")
        for one in node.names
    ]
    assert len(found) > 15
    assert not [pair for pair in found if not hasattr(import_module(pair[0]), pair[1])]


def test_the_lines_on_photos_are_those_of_the_readme():
    """Beside the comments; test_readme.py runs them."""
    site, readme = [
        ast.unparse(ast.parse(b)) for b in (blocks("docs/use.md")[0], blocks("README.md")[1])
    ]
    assert site == readme


def test_the_own_loop_runs(tmp_path, monkeypatch):
    from ftlearn.photos import sample_photos

    monkeypatch.chdir(tmp_path)
    sample_photos("photos", per_class=12)
    code = ast.parse(blocks("docs/use.md")[1])
    last = ast.Expression(code.body.pop().value)
    names = {}
    exec(compile(code, "use.md", "exec"), names)
    assert eval(compile(last, "use.md", "eval"), names) > 0.5
    assert len(blocks("docs/use.md")) == 2, "a block that no test runs"


def test_what_the_pages_ask_for_is_what_is_made():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("docs/*.md")}
    asked = {place for said in pages.values() for place in results.PLACE.findall(said)}
    assert {place for place in asked if not place.startswith("peers:")} == set(results.MADE)
    assert set(results.WHOLE) <= set(pages)


def test_a_place_that_nothing_is_made_for_is_an_error():
    with pytest.raises(KeyError, match="course:lessns"):
        results.fill(None, "learn", ["<!-- course:lessns -->"])

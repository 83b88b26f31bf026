"""How to cite: the versions agree, the papers of the docstrings are listed; the glossary links."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ftlearn

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs" / "_ext"))

import papers  # noqa: E402

CITE = (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
PAPERS = [" ".join(entry.split()) for entry in re.split(r"(?m)^- (?=\*\*)", CITE)[1:]]


def test_the_version_is_that_of_the_package():
    card = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {ftlearn.__version__}\n" in card and "license: Apache-2.0" in card
    assert f"version = {{{ftlearn.__version__}}}" in CITE
    assert "doi" not in card.lower()


def test_papers_are_in_the_order_of_their_years_and_name_what_they_are_behind():
    years = [int(paper[2:6]) for paper in PAPERS]
    assert len(PAPERS) > 50 and years == sorted(years)
    for paper in PAPERS:
        assert "{py:obj}`~ftlearn." in paper or "by hand in [lesson" in paper, paper


def docstrings(node, name):
    """(name, docstring on one line) of a module, a class or a function, and of all within."""
    yield name, " ".join((ast.get_docstring(node) or "").split())
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.ClassDef):
            yield from docstrings(one, f"{name}.{one.name}")


def citations():
    """(name, surname, year) of every paper that a docstring of the package names."""
    for path in sorted((ROOT / "ftlearn").glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for name, said in docstrings(module, f"ftlearn.{path.stem}"):
            yield from ((name, *pair) for pair in papers.CITED.findall(said))


def test_every_citation_of_the_docstrings_leads_to_one_entry():
    found = {(name, *pair): papers.place(*pair, name) for name, *pair in citations()}
    assert len(found) > 30
    assert not [cited for cited, place in found.items() if place is None], "none, or several"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("distill.mutual_learning", "mutual"),
        ("augment.mixup", "mixup"),
        ("augment.mixup.f", "mixup"),
    ],
)
def test_of_two_papers_of_one_name_and_year_the_one_that_names_the_function(name, title):
    place = papers.place("Zhang", "2018", f"ftlearn.{name}")
    assert title in papers.entries()[int(place.removeprefix("paper-"))][1]
    assert papers.place("Zhang", "2018", "ftlearn.losses.cross_entropy") is None
    assert papers.place("Hint", "2015", f"ftlearn.{name}") is None  # not a part of Hinton


def test_a_citation_leads_to_its_entry_also_over_two_lines():
    lines = ["The loss of Hinton, Vinyals", "and Dean, 2015, and of Nobody et al., 2015."]
    papers.cited(None, "function", "ftlearn.distill.kd", None, None, lines)
    place = papers.place("Hinton", "2015", "ftlearn.distill.kd")
    entry = int(place.removeprefix("paper-"))
    assert "Distilling the knowledge" in papers.entries()[entry][1]
    linked = (
        f"The loss of :ref:`Hinton, Vinyals and Dean, 2015 <{place}>`, and of Nobody et al., 2015."
    )
    assert lines == [linked]


def test_every_name_and_lesson_exists():
    for module, name in re.findall(r"\{py:obj\}`~(ftlearn\.\w+)\.(\w+)`", CITE):
        assert hasattr(import_module(module), name), name
    links = re.findall(r"\]\(lessons/([^)]+)\)", CITE + GLOSSARY)
    assert links and all((ROOT / "nbs" / link).is_file() for link in links)


def test_the_glossary_has_a_lesson_for_every_term():
    body = GLOSSARY.split(":sorted:\n\n")[1].split("\n```")[0]
    entries = [re.match(r"(\S.*)\n((?:  .*\n?)+)", entry) for entry in body.split("\n\n")]
    assert len(entries) > 45 and all(entries)
    terms = [entry[1] for entry in entries]
    assert len(set(terms)) == len(terms) and {"x", "h", "z", "t", "y"} <= set(terms)
    assert all("](lessons/" in entry[2] for entry in entries)
    assert {t for t in re.findall(r"\{term\}`([^`]+)`", GLOSSARY)} <= set(terms)

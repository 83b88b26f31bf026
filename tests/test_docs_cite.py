"""How to cite: the versions agree, the papers of the docstrings are listed; the glossary links."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

import ftlearn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

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


def docstrings():
    """All of the package, each on one line."""
    for path in sorted((ROOT / "ftlearn").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                yield " ".join((ast.get_docstring(node) or "").split())


def test_the_papers_of_the_docstrings_are_listed():
    cited = {pair for said in docstrings() for pair in papers.CITED.findall(said)}
    assert len(cited) > 30
    for surname, year in cited:
        assert papers.place(surname, year), f"cite.md has no {surname}, {year}"


def test_a_citation_leads_to_its_entry_also_over_two_lines():
    lines = ["The loss of Hinton, Vinyals", "and Dean, 2015, and of Nobody et al., 2015."]
    papers.cited(None, "function", "ftlearn.distill.kd", None, None, lines)
    place = papers.place("Hinton", "2015")
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

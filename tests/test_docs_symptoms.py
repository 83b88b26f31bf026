"""The page of symptoms: its tests and lessons exist, and no known fault is left out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "symptoms.md").read_text(encoding="utf-8")
FAULTS = 58  # of other libraries' users, as they were collected
ENTRIES = re.split(r"(?m)^\(symptom-", PAGE)[1:]


def defined_in(name):
    """The names of the tests in a file, read without running it."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists():
    named = set(re.findall(r"`(tests/test_\w+\.py)::(\w+)`", PAGE))
    assert len(named) > 80
    for name in {file for file, _ in named}:
        wanted = {test for file, test in named if file == name}
        assert wanted <= defined_in(name), f"{name} has no {sorted(wanted - defined_in(name))}"
    spelt = re.findall(r"tests/\S+", PAGE)
    assert len(spelt) == len(re.findall(r"`tests/test_\w+\.py::\w+`", PAGE))


def test_every_linked_lesson_exists():
    links = re.findall(r"\]\((lessons/[^)]+)\)", PAGE)
    assert len(links) > 60
    for link in links:
        assert (ROOT / "nbs" / link.removeprefix("lessons/")).is_file(), link


def test_every_fault_has_an_entry():
    found = {int(number) for number in re.findall(r"<!-- pitfall (\d+) -->", PAGE)}
    assert found == set(range(1, FAULTS + 1))
    assert all("<!-- pitfall" in entry for entry in ENTRIES)


def test_every_entry_is_reached_from_the_top():
    anchors = re.findall(r"(?m)^\((symptom-[\w-]+)\)=$", PAGE)
    assert len(anchors) == len(set(anchors)) == len(ENTRIES)
    top, rest = PAGE.split("\n## ", 1)
    assert sorted(re.findall(r"\(#(symptom-[\w-]+)\)", top)) == sorted(anchors)
    assert set(re.findall(r"\(#(symptom-[\w-]+)\)", rest)) <= set(anchors)


def test_an_entry_names_a_test_or_says_that_nothing_is_done():
    for entry in ENTRIES:
        said = " ".join(entry.lower().split())
        assert "`tests/" in entry or "*not covered yet*" in said, entry[:60]
        assert "eported in*" in entry or "seen in*" in entry, entry[:60]


@pytest.mark.parametrize("code", re.findall(r"(?s)```python\n(.*?)```", PAGE))
def test_the_lines_of_code_are_python(code):
    ast.parse(code)


def test_the_questions_of_the_doctor_are_its_own():
    table = PAGE.split("| you see |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`(?=[, |])", table)) - {"detach"}
    asked = re.findall(
        r'"(\w+)": _\w+|_asked\(case, "(\w+)"', (ROOT / "ftlearn/doctor.py").read_text()
    )
    assert named and named <= {a or b for a, b in asked}

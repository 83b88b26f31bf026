"""The page of symptoms: its tests and lessons exist, and no known fault is left out."""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ftlearn.models import replace_head

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs" / "_ext"))
PAGE = (ROOT / "docs" / "symptoms.md").read_text(encoding="utf-8")
FAULTS = 58  # of other libraries' users, as they were collected
COMMON = {"memory", "overfit", "stuck"}  # what everybody meets; not of the collection
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
    others = {entry.split(")=")[0] for entry in ENTRIES if "<!-- pitfall" not in entry}
    assert others == COMMON
    assert all("<!-- beyond the collection -->" in e for e in ENTRIES if "<!-- pitfall" not in e)


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
    named = set(re.findall(r"`(\w+)`(?=[, |])", table))
    asked = re.findall(
        r'"(\w+)": _\w+|_asked\(case, "(\w+)"', (ROOT / "ftlearn/doctor.py").read_text()
    )
    plain = {"runs", "loss"}  # what they find is an error that says itself what is wrong
    assert named | plain == {a or b for a, b in asked}


def test_every_thread_can_be_looked_up():
    import results

    entries = "\n".join(re.findall(r"(?s):::\{div\} evidence\n(.*?)\n:::", PAGE))
    named = {thread[1] for thread in results.THREAD.finditer(entries)}
    assert named == set(results.OWNERS), named ^ set(results.OWNERS)
    assert len(re.findall(r"#\d", entries)) == len(results.THREAD.findall(entries)), "half a name"
    linked = results.linked(entries)
    assert len(re.findall(r"\]\(https://github.com/[\w.-]+/[\w.-]+/issues/\d+\)", linked)) > 190


def test_measured_numbers_are_those_of_the_page_of_findings():
    measured = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    entry = next(e for e in ENTRIES if e.startswith("overfit"))
    numbers = re.findall(r"[+-]\d\.\d ± \d\.\d|(?<!\d)\.\d{3}", entry)
    assert len(numbers) == 11
    assert not [number for number in numbers if number not in measured]


@pytest.mark.parametrize(
    ("searched", "entry"),
    [("batchnorm", "frozen-moves"), ("batch norm", "frozen-moves"), ("loss is nan", "nan")],
)
def test_what_is_searched_for_is_in_the_entry(searched, entry):
    said = next(e for e in ENTRIES if e.startswith(entry + ")")).lower()
    assert re.search(rf"\b{searched}\b", said)


def test_a_relu_behind_a_zero_head_passes_no_gradient():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 9))
    model = nn.Sequential(replace_head(body, 4), nn.ReLU())
    nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 4).backward()
    assert not any(p.grad.any() for p in model.parameters())

"""The comparison with other systems: complete, and every letter of ours has its function and test."""

import re
from importlib import import_module, util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = util.spec_from_file_location("docs_peers", ROOT / "docs" / "_ext" / "peers.py")
peers = util.module_from_spec(SPEC)
SPEC.loader.exec_module(peers)
ROWS = peers.rows()
PAGE = peers.page()


def row(feature):
    return next(r for r in ROWS if r["feature"] == feature)


def found(name):
    """What `ftlearn.a.b` is."""
    thing, words = import_module("ftlearn"), name.split(".")[1:]
    for word in words:
        thing = getattr(thing, word)
    return thing


def test_every_row_has_every_system():
    assert len(ROWS) == 69 and len({r["feature"] for r in ROWS}) == 69
    head = (ROOT / "docs" / "peers.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head.split(",") == ["feature", "ftlearn", "where", *peers.SYSTEMS]
    for r in ROWS:
        assert None not in r and all(r[system] for system in ("ftlearn", *peers.SYSTEMS)), r
        assert len(list(peers.verdicts(r))) >= 1  # every cell can be read


@pytest.mark.parametrize("r", ROWS, ids=lambda r: r["feature"])
def test_what_we_have_has_a_name_and_a_test(r):
    ours = {letter for _, letter, _ in peers.verdicts(r)}
    assert ours <= set("ypn"), "of our own package we know"
    if ours == {"n"}:
        assert not r["where"]
        return
    files = re.findall(r"tests/\w+\.py", r["where"])
    names = re.findall(r"ftlearn(?:\.\w+)*", r["where"])
    assert files and names
    assert all((ROOT / file).is_file() for file in files), files
    assert all(found(name) is not None for name in names), names
    shown = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    first = re.findall(r"ftlearn(?:\.\w+)*", r["where"].split(": ")[0])
    assert all(name.split(".")[-1] in shown for name in first), "its tests do not mention it"


def test_what_we_have_in_part_says_which_part():
    for r in ROWS:
        if "p" in {letter for _, letter, _ in peers.verdicts(r)}:
            assert "; " in r["where"], r["feature"]


def names(part):
    return {name for name, _, _ in part}


def test_the_lists_follow_from_the_rows():
    """Counted here by another way, on the raw cells of features that are one."""
    for r in ROWS:
        cells = [r[system].split(" ")[0] for system in peers.SYSTEMS]
        if any(len(cell) > 1 for cell in [r["ftlearn"], *cells]):
            continue
        theirs, ours, feature = "y" in cells, r["ftlearn"], r["feature"]
        assert (feature in names(peers.missing())) == (ours == "n" and theirs)
        assert (feature in names(peers.partly())) == (ours == "p" and theirs)
        assert (feature in names(peers.alone())) == (ours == "y" and not theirs)
        assert (feature in names(peers.nobody())) == (ours != "y" and not theirs)


def test_a_feature_of_several_parts_is_told_part_by_part():
    assert {"CRD", "FSDP", "DDP", "QAT"} <= names(peers.missing())
    assert "AMP" in names(peers.partly()) and "bf16" not in names(peers.partly())
    said = {name: peers_by for name, _, peers_by in peers.verdicts(row("AT · RKD · CRD · DIST"))}
    assert said["RKD"]["y"] == ["torchdistill", "AutoGluon"] and said["CRD"]["y"] == [
        "torchdistill"
    ]
    assert len(list(peers.verdicts(row("Freeze by name/module")))) == 1


def test_a_cell_that_is_no_answer_is_refused():
    for cell in ("yes", "y/y/y", ""):
        with pytest.raises(ValueError, match="is not one of y, p, n"):
            peers.parts(["MixUp", "CutMix"], cell)


def test_the_page_has_everything():
    assert "<!-- peers" not in PAGE
    for r in ROWS:
        assert f"| {r['feature']} | **{r['ftlearn']}** |" in PAGE
    for mark, words in peers.SYSTEMS.values():
        assert f"**{mark}** {words}" in PAGE
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(peers.SYSTEMS) + 3}
    assert len(peers.groups()) == len(peers.TOPICS) and 5 <= len(peers.TOPICS) <= 8
    for name in [*names(peers.missing()), *names(peers.alone())]:
        assert re.search(rf"(?im)^- \*\*{re.escape(name)}\*\*: ", PAGE)


def test_names_link_to_where_they_are_defined():
    assert peers.home("ftlearn.follow") == "ftlearn.runs.follow"
    assert peers.home("ftlearn.labels.interval") == "ftlearn.labels.interval"
    targets = re.findall(r"\{py:obj\}`[^<`]*<([\w.]+)>`", PAGE)
    assert len(targets) > 60
    for target in set(targets):
        module, name = re.match(r"(ftlearn\.\w+)\.(\w+)", target).groups()
        assert getattr(import_module(module), name).__module__ == module

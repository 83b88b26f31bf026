"""lesson_files: copies that are the reader's own; the links and cells that every lesson begins with."""

import json
import re
import shutil
from configparser import ConfigParser
from pathlib import Path

import pytest

import ftlearn
from ftlearn import lesson_files

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
INSTALL = (
    "#| hide\nimport importlib.util\n\n"
    'if importlib.util.find_spec("ftlearn") is None:  # on Colab, say\n    %pip install -q ftlearn'
)


def test_all_notebooks_are_copied_as_they_are(tmp_path, capsys):
    folder = ftlearn.lessons(tmp_path / "a" / "course")
    shipped = {p.relative_to(ROOT / "nbs") for p in [*NOTEBOOKS, *ROOT.glob("nbs/tools/*.ipynb")]}
    assert {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} == shipped
    assert all((folder / p).read_bytes() == (ROOT / "nbs" / p).read_bytes() for p in shipped)
    assert f"{len(shipped)} notebooks copied. Begin with index.ipynb." in capsys.readouterr().out


def test_nothing_is_ever_overwritten(tmp_path, capsys):
    ftlearn.lessons(tmp_path)
    mine = tmp_path / "05_freezing.ipynb"
    mine.write_text("mine")
    (tmp_path / "index.ipynb").unlink()
    capsys.readouterr()
    ftlearn.lessons(tmp_path)
    assert mine.read_text() == "mine" and (tmp_path / "index.ipynb").is_file()
    assert ": 1 notebook copied; " in capsys.readouterr().out


def test_a_copy_that_was_cut_off_is_made_again(tmp_path, monkeypatch):
    """What an interruption leaves has another name, so the next call does not take it for a copy."""
    write = Path.write_bytes

    def full(path, data):
        write(path, data[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        ftlearn.lessons(tmp_path)
    assert not list(tmp_path.glob("*.ipynb"))
    monkeypatch.setattr(Path, "write_bytes", write)
    ftlearn.lessons(tmp_path)
    assert len(list(tmp_path.glob("*.ipynb"))) == len(NOTEBOOKS) and not list(
        tmp_path.rglob("*.part")
    )


def test_a_file_is_no_folder_and_an_installation_without_lessons_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: name a folder for the lessons."):
        ftlearn.lessons(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="file is a file: name a folder for the lessons."):
        ftlearn.lessons(tmp_path / "file" / "in" / "it")
    shutil.copytree(ROOT / "ftlearn", tmp_path / "ftlearn", ignore=shutil.ignore_patterns("__*"))
    monkeypatch.setattr(ftlearn, "__file__", str(tmp_path / "ftlearn" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="install ftlearn again"):
        lesson_files.lessons(tmp_path / "course")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_lesson_opens_in_colab_and_installs_what_is_missing(path):
    """The link is the one that settings.ini implies, so that a move of the repository is seen."""
    settings = ConfigParser()
    settings.read(ROOT / "settings.ini")
    where = settings["DEFAULT"]["git_url"].removeprefix("https://github.com/")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    link = f"https://colab.research.google.com/github/{where}/blob/main/nbs/{path.name}"
    assert re.findall(r"\[Open in Colab\]\((.*?)\)", sources[0]) == [link]
    first = next(s for s, cell in zip(sources, cells) if cell["cell_type"] == "code")
    assert first == INSTALL


def test_the_install_cell_is_inert_where_ftlearn_is_present():
    """It ends after the look-up: pip would need a kernel's magic, and there is none here."""
    done = {}
    exec(INSTALL.replace("%pip install -q ftlearn", "raise SystemExit"), done)
    with pytest.raises(SystemExit):
        exec(
            INSTALL.replace("%pip install -q ftlearn", "raise SystemExit").replace(
                '"ftlearn"', '"no_such"'
            ),
            {},
        )

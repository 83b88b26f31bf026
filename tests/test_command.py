"""The command line: help, exit codes, the demo's honest labels."""

import subprocess
import sys
from importlib import import_module

import pytest

from ftlearn import labels
from ftlearn.command import main


def test_help_names_every_command():
    out = subprocess.run(
        [sys.executable, "-m", "ftlearn", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("demo", "pretrain", "evidence"):
        assert name in out


def test_no_command_is_an_error_with_the_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2 and "usage: ftlearn" in capsys.readouterr().err


def test_a_wrong_input_is_one_sentence_and_code_2(capsys, tmp_path):
    out = str(tmp_path / "w.safetensors")
    assert main(["pretrain", "--source", "cats", "--updates", "1", "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ftlearn: ") and "cats" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_stopping_is_code_130(capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(labels, "evidence", stop)
    assert main(["evidence"]) == 130
    assert "what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["shapes", "methods", "remedies", "students"])
def test_an_experiment_is_run_by_name_into_its_file(name, monkeypatch):
    asked = []
    monkeypatch.setattr(import_module(f"ftlearn.{name}"), "evidence", asked.append)
    assert main(["evidence", name]) == 0 and main(["evidence", name, "--out", "x"]) == 0
    assert asked == [f"{name}.json", "x"]


def test_the_lessons_are_copied_and_the_next_step_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["lessons"]) == 0 and main(["lessons", "course"]) == 0
    assert (tmp_path / "ftlearn-lessons/index.ipynb").is_file()
    assert (tmp_path / "course/tools/explore.ipynb").is_file()
    assert "Next: jupyter lab course" in capsys.readouterr().out


def test_the_demo_says_what_is_measured_and_what_is_stored(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "DEMO", (("probe", (1, 5), 2), ("from scratch", (5,), 0)))
    path = tmp_path / "figure.png"
    assert main(["demo", "--figure", str(path)]) == 0
    out = capsys.readouterr().out
    assert path.read_bytes().startswith(b"\x89PNG") and str(path) in out
    assert out.count("(2*)") == 2 and "stored results of `make evidence`" in out
    assert "make lab" in out

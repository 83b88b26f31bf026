"""The command line: help, exit codes, the demo's honest labels."""

import argparse
import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch

import ftlearn
from ftlearn import Phase, Recipe, command, labels
from ftlearn import finetuned as finetuning
from ftlearn.command import main, parser
from ftlearn.photos import sample_photos
from ftlearn.pretrain import SOURCES, fractals

TERMINAL = [sys.executable, "-m", "ftlearn"]
(COMMANDS,) = (
    action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
)


def refused(arguments, capsys):
    """The sentence in which a command ends."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("ftlearn: ") and said.endswith(".\n") and said.count("\n") == 1
    return said


def test_help_names_every_command():
    done = subprocess.run([*TERMINAL, "--help"], capture_output=True, text=True, check=True)
    assert len(COMMANDS) == 6
    for name in COMMANDS:
        assert f"\n    {name} " in done.stdout


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"ftlearn {ftlearn.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_says_what_it_takes(name):
    """`--batch N`, not `--batch BATCH`, and a number is a number also without the option."""
    for action in COMMANDS[name]._actions:
        if action.option_strings and action.nargs is None:
            assert action.metavar in ("FILE", "FOLDER", "N", "NAME"), action.option_strings
            assert (action.metavar == "N") == isinstance(action.default, int)


@pytest.mark.parametrize(
    "words, named",
    [
        ("finetune x --seed foo", "--seed: 'foo' is no whole number of at least 0."),
        ("finetune x --seed -1", "--seed: '-1' is no whole number of at least 0."),
        ("finetune x --batch 0", "--batch: '0' is no whole number of at least 1."),
        ("finetune x --batch -3", "--batch: '-3' is no whole number of at least 1."),
        ("pretrain --updates 0", "--updates: '0' is no whole number of at least 1."),
        ("pretrain --seed 1.5", "--seed: '1.5' is no whole number of at least 0."),
    ],
)
def test_a_number_that_is_none_is_refused_by_name(words, named, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and named in capsys.readouterr().err


def test_nobody_who_reads_on_is_no_error(tmp_path):
    """As `... | head -1` may leave it: the reader is gone when the command prints."""
    words = [*TERMINAL, "lessons", str(tmp_path / "course")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        said, code = running.stderr.read(), running.wait()
    assert said == b"" and code == 141


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


def stop(*_, **__):
    raise KeyboardInterrupt


def test_stopping_is_code_130_and_what_is_left_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(labels, "evidence", stop)
    assert main(["evidence"]) == 130
    assert "stopped; the same command goes on from what is in" in capsys.readouterr().err
    monkeypatch.setattr(import_module("ftlearn.pretrain"), "pretrain", stop)
    assert main(["pretrain"]) == 130
    assert capsys.readouterr().err == "\nftlearn: stopped; nothing was written.\n"


# ---------------------------------------------------------------- pretraining


def test_pretraining_overwrites_only_when_told(tmp_path, monkeypatch, capsys):
    source = fractals(classes=5, variants=2, points=200)
    monkeypatch.setitem(SOURCES, "fractals", lambda: source)
    file = tmp_path / "w.safetensors"
    words = ["pretrain", "--source", "fractals", "--updates", "1", "--out", str(file)]
    assert main([*words, "--seed", "1"]) == 0
    first = file.read_bytes()
    assert json.loads(file.with_suffix(".json").read_text())["seed"] == 1
    monkeypatch.setitem(SOURCES, "fractals", stop)  # refused before there is any work
    assert f"{file} is there already" in refused(words, capsys)
    file.unlink()
    assert "w.json is there already" in refused(words, capsys)
    monkeypatch.setitem(SOURCES, "fractals", lambda: source)
    assert main([*words, "--overwrite"]) == 0
    assert file.read_bytes() != first


# ---------------------------------------------------------------- fine-tuning


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return sample_photos(tmp_path_factory.mktemp("command") / "photos", per_class=12)


@pytest.fixture
def words(photos, tmp_path, monkeypatch):
    """A command that takes a second, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.json").write_text(Recipe([Phase("head", epochs=2)]).to_json())
    return ["finetune", str(photos), "--backbone", "letters", "--recipe", "short.json"]


def test_a_seed_and_no_weights_can_be_given(words, monkeypatch):
    given, ready = [], finetuning.finetune

    def look(*arguments, **settings):
        given.append((settings["seed"], settings["weights"]))
        return ready(*arguments, **settings)

    monkeypatch.setattr(finetuning, "finetune", look)
    assert main([*words, "--seed", "5", "--weights", "none", "--out", "a.safetensors"]) == 0
    assert main([*words, "--seed", "0", "--weights", "None", "--out", "b.safetensors"]) == 0
    assert given == [(5, None), (0, None)]


@pytest.mark.parametrize("taken", ["m.safetensors", "m.json", "./m.safetensors"])
def test_a_checkpoint_is_not_the_model(taken, words, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(finetuning, "finetune", stop)  # refused before there is any work
    words = [*words, "--out", str(tmp_path / "m.safetensors"), "--checkpoint"]
    assert "give the checkpoint another name" in refused([*words, taken], capsys)
    assert "There is no folder nodir: make it" in refused([*words, "nodir/run"], capsys)


def test_a_device_that_is_not_there_is_one_sentence(words, capsys):
    assert "gpu" in refused([*words, "--device", "gpu"], capsys)
    if not torch.cuda.is_available():
        assert "cuda" in refused([*words, "--device", "cuda"], capsys)


def test_a_bug_is_not_taken_for_a_wrong_input(words, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(finetuning, "finetune", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(words)


def test_what_ctrl_c_leaves_is_said(words, monkeypatch, tmp_path, capsys):
    """In the second epoch; with a checkpoint the same command goes on, without one it does not."""
    from ftlearn import runs

    add, calls = runs.History.add, []

    def stop_later(history, *row):
        add(history, *row)
        calls.append(row)
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs.History, "add", stop_later)
        assert main([*words, "--out", "my plain.safetensors"]) == 130
        said = capsys.readouterr().out
        assert "another run begins anew" in said
        assert "Next: python -m ftlearn predict 'my plain.safetensors' IMAGE" in said
        assert main([*words, "--out", "m.safetensors", "--checkpoint", "run"]) == 130
        said = capsys.readouterr().out
        assert "Stopped: the same command with --overwrite goes on from run." in said
    again = [*words, "--out", "m.safetensors", "--checkpoint", "run", "--overwrite"]
    assert main(again) == 0 and len(calls) == 4
    assert len(ftlearn.FineTuned.load("m.safetensors").history) == 2


# ---------------------------------------------------------------- evidence, lessons, demo


@pytest.mark.parametrize("name", ["shapes", "methods", "remedies", "students"])
def test_an_experiment_is_run_by_name_into_its_file(name, monkeypatch):
    asked = []
    monkeypatch.setattr(import_module(f"ftlearn.{name}"), "evidence", asked.append)
    assert main(["evidence", name]) == 0 and main(["evidence", name, "--out", "x"]) == 0
    assert asked == [f"{name}.json", "x"]


def test_the_lessons_are_copied_and_the_next_step_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "find_spec", lambda name: name)  # as if JupyterLab were here
    assert main(["lessons"]) == 0 and main(["lessons", "course"]) == 0
    assert (tmp_path / "ftlearn-lessons/index.ipynb").is_file()
    assert (tmp_path / "course/tools/explore.ipynb").is_file()
    assert "Next: jupyter lab course" in capsys.readouterr().out
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["lessons", "my course"]) == 0
    said = capsys.readouterr().out
    assert "Next: pip install jupyterlab, then jupyter lab 'my course'" in said
    assert "jupyter trust 'my course'/*.ipynb 'my course'/tools/*.ipynb" in said


def test_lessons_cannot_lie_in_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "file is a file: name" in refused(["lessons", str(tmp_path / "file/x/y")], capsys)


@pytest.mark.parametrize("path", ["nodir/x.png", "x", "x.cat", "here.png"])
@pytest.mark.parametrize("words", ["demo", "evidence"])
def test_a_figure_that_cannot_be_saved_is_refused_first(words, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.png").mkdir()
    for work in ("measure", "evidence"):
        monkeypatch.setattr(labels, work, stop)
    assert f"a figure as {path}: give" in refused([words, "--figure", path], capsys)


@pytest.mark.parametrize("option", ["--figure", "--scratch"])
def test_options_of_one_experiment_are_refused_for_the_others(option, monkeypatch, capsys):
    monkeypatch.setattr(import_module("ftlearn.shapes"), "evidence", stop)
    assert "belong to labels: leave them away" in refused(
        ["evidence", "shapes", option, "x"], capsys
    )


def test_the_demo_says_what_is_measured_and_what_is_stored(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(labels, "DEMO", (("probe", (1, 5), 2), ("from scratch", (5,), 0)))
    path = tmp_path / "figure.png"
    assert main(["demo", "--figure", str(path)]) == 0
    out = capsys.readouterr().out
    assert path.read_bytes().startswith(b"\x89PNG") and str(path) in out
    assert out.count("(2*)") == 2 and "stored results of `make evidence`" in out
    assert "Next: python -m ftlearn lessons" in out

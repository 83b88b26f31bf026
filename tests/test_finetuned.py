"""From a folder to a saved, reloaded, predicting model; and what a result can do."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ftlearn import Columns, FineTuned, HeldOut, Phase, Recipe, finetune, glyphnet, image_folder
from ftlearn.backbones import backbone
from ftlearn.command import main
from ftlearn.explore import overlapping_labels
from ftlearn.photos import open_image, sample_photos

SHORT = Recipe([Phase("head", updates=20, lr=1e-2), Phase("layer3", updates=5)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return sample_photos(tmp_path_factory.mktemp("photos") / "photos", per_class=24)


@pytest.fixture(scope="module")
def result(photos):
    return finetune(photos, "letters", SHORT, report=False)


@pytest.fixture(scope="module")
def files(photos):
    return sorted(photos.glob("*/*.jpg"))[::12]


def test_a_folder_becomes_a_model(result):
    assert result.classes == ["china", "flower"] and not result.interrupted
    assert {row["phase"] for row in result.history} == {1, 2}
    assert isinstance(result.photos.test, HeldOut) and result.photos.test.reads == 0
    assert result.score() > 0.7 and result.photos.test.reads == 1
    assert repr(result) == "FineTuned(letters, 2 classes: china, flower)"


def test_the_test_part_is_not_read_while_training(photos):
    sets = image_folder(photos, backbone("letters", None)[1], report=False)
    finetune(sets, "letters", SHORT, report=False)
    assert sets.test.reads == 0


def test_a_set_that_is_streamed_gives_the_same_model(photos, result):
    preprocess = backbone("letters", None)[1]
    streamed = image_folder(photos, preprocess, memory=0, report=False)
    other = finetune(streamed, "letters", SHORT, report=False)
    ours, theirs = result.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_images_of_every_kind_get_the_same_answer(result, files):
    path = files[0]
    picture = open_image(path)
    array = np.asarray(picture)
    answers = [
        result.predict(path),
        result.predict(str(path)),
        result.predict(picture),
        result.predict(array),
        result.predict([path])[0],
        result.predict(array[None])[0],
        result.predict(np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])),
        result.predict(result.preprocess(picture)),
        result.predict(result.preprocess(picture)[None])[0],
    ]
    assert all(answer == answers[0] for answer in answers)
    name, probability, every = answers[0]
    assert name in result.classes and list(every) == result.classes
    assert sum(every.values()) == pytest.approx(1, abs=1e-6) and every[name] == probability


def test_grey_and_alone_or_in_a_crowd(result, files):
    grey = Image.open(files[0]).convert("L")
    assert (
        result.predict(grey)
        == result.predict(np.asarray(grey))
        == result.predict(grey.convert("RGB"))
    )
    many = result.predict(files * 40)
    assert len(many) == 40 * len(files)
    one = result.predict(files[0])
    assert many[0].name == one.name and many[0].probability == pytest.approx(
        one.probability, abs=1e-5
    )


def test_predicting_leaves_the_model_as_it_is(result, files):
    result.model.train()
    state = torch.get_rng_state()
    result.predict(files)
    assert result.model.training and torch.equal(state, torch.get_rng_state())
    result.model.eval()


def test_saved_and_loaded_in_a_new_process_the_same_bits(result, files, tmp_path):
    path = tmp_path / "photos.safetensors"
    card = result.save(path)
    assert {p.name for p in tmp_path.iterdir()} == {"photos.safetensors", "photos.json"}
    assert {
        "architecture",
        "classes",
        "preprocess",
        "recipe",
        "history",
        "versions",
        "sha256",
    } <= set(card)
    assert card == json.loads((tmp_path / "photos.json").read_text("utf-8"))
    code = (
        "import json, sys, torch; from ftlearn import FineTuned;"
        f"r = FineTuned.load({str(path)!r}); print(json.dumps([p._asdict() for p in r.predict(sys.argv[1:])]))"
    )
    command = [sys.executable, "-c", code, *map(str, files)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [p._asdict() for p in result.predict(files)]
    again = FineTuned.load(path)
    assert (
        again.recipe == result.recipe and again.history == result.history and again.photos is None
    )


def test_a_file_that_was_changed_is_refused(result, tmp_path):
    path = tmp_path / "photos.safetensors"
    result.save(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="SHA-256"):
        FineTuned.load(path)


def test_saving_twice_needs_a_word(result, tmp_path):
    path = tmp_path / "photos.safetensors"
    result.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        result.save(path)
    result.save(path, overwrite=True)
    assert path.read_bytes() == before


def test_a_model_of_your_own_on_columns(tmp_path):
    torch.manual_seed(0)
    data = Columns(torch.randint(0, 17, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 4)
    names = ["a", "b", "c", "d"]
    result = finetune(data, glyphnet(10), SHORT, classes=names, report=False)
    assert result.predict(data.columns[0][0]).name in names
    assert len(result.predict(data.columns[0])) == 40
    result.save(tmp_path / "own.safetensors")
    model = glyphnet(4)
    again = FineTuned.load(tmp_path / "own.safetensors", model=model)
    assert again.predict(data.columns[0][:3]) == result.predict(data.columns[0][:3])


def test_a_head_that_fits_is_kept_and_another_is_replaced():
    data = Columns(torch.randint(0, 17, (8, 1, 8, 8)), torch.arange(8) % 2)
    probe = [Phase("head", lr=1e-9)]
    fits = glyphnet(2)
    nn.init.ones_(fits.head[-1].weight)
    assert finetune(data, fits, probe, report=False).model.head[-1].weight.mean() > 0.99
    assert finetune(data, glyphnet(3), probe, report=False).model.head[-1].out_features == 2


def test_the_confusion_table_counts_and_the_worst_come_first(result):
    data = result.photos.train
    swapped = data.like(
        data.columns[0], 1 - data.columns[1]
    )  # every answer that was right is wrong
    found = result.mistakes(swapped, count=4)
    p = torch.tensor([list(a.probabilities.values()) for a in result.predict(data.columns[0])])
    read, y = p.argmax(1), swapped.columns[1]
    for i, row in enumerate(found.table.rows):
        assert row == [
            result.classes[i],
            *[str(int(((y == i) & (read == j)).sum())) for j in (0, 1)],
        ]
    titles = [axes.get_title("center") for axes in found.figure.axes if axes.images]
    sure = sorted((p[i, read[i]].item() for i in (read != y).nonzero().flatten()), reverse=True)
    assert [title.split()[-1] for title in titles] == [f"{value:.2f}" for value in sure[:4]]
    assert overlapping_labels(found.figure) == []


def test_without_a_mistake_there_is_no_figure(result, capsys):
    data = result.photos.train
    right = data.take(torch.tensor([i for i, p in enumerate(result.predict(data.columns[0]))
                                    if p.name == result.classes[data.columns[1][i]]]))  # fmt: skip
    found = result.mistakes(right)
    assert found.figure is None and "columns: what was read" in repr(found)


def test_stopped_by_ctrl_c_there_is_a_result(photos, monkeypatch):
    from ftlearn import cross_entropy

    calls = []

    def objective(model, *batch):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return cross_entropy()(model, *batch)

    result = finetune(photos, "letters", SHORT, objective=objective, report=False)
    assert result.interrupted and result.history
    best = max(row["score"] for row in result.history)
    assert result.score(result.photos.valid) >= best


def test_an_empty_recipe_is_not_the_default():
    data = Columns(torch.randint(0, 17, (8, 1, 8, 8)), torch.arange(8) % 2)
    with pytest.raises(ValueError, match="A recipe needs a phase"):
        finetune(data, glyphnet(2), recipe=[], report=False)


# ---------------------------------------------------------------- the command line


def test_finetune_and_predict_from_a_terminal(photos, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "short.json"
    recipe.write_text(SHORT.to_json())
    arguments = ["finetune", str(photos), "--backbone", "letters", "--recipe", str(recipe)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "1. Train the head" in said and "read 1 time)" in said and "photos.safetensors" in said
    assert main(["predict", "photos.safetensors", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in files]
    assert all(line.split("\t")[1] in ("china", "flower") for line in lines)
    assert main(["predict", "photos.safetensors", "--json", str(files[0])]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert set(row) == {"path", "name", "probability", "probabilities"}
    assert main(arguments) == 2, "the file is there already"
    assert "is there already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_an_image_that_cannot_be_read_is_code_1_and_the_others_are_done(
    result, files, tmp_path, capsys
):
    result.save(tmp_path / "m.safetensors")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:400])
    assert main(["predict", str(tmp_path / "m.safetensors"), str(broken), str(files[0])]) == 1
    out = capsys.readouterr()
    assert out.out.startswith(str(files[0])) and out.out.count("\n") == 1
    assert out.err.startswith("ftlearn: ") and "broken.jpg" in out.err


@pytest.mark.parametrize("command", ["finetune", "predict"])
def test_help_reads_well(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "Exit codes:" in said and max(map(len, said.splitlines())) <= 100
    assert "None" not in said


# ---------------------------------------------------------------- ImageNet models, the whole way


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Put random weights into a cache of torch's, under the name of the published file."""
    from torchvision.models import get_model

    from ftlearn import backbones
    from ftlearn.weights import file_sha256

    def put(name, stand_in):
        folder = tmp_path / "home" / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        with torch.device("meta" if stand_in else "cpu"):
            state = get_model(name).state_dict()
        if stand_in:  # a number per tensor, spread: a file of kilobytes for 138 million weights
            state = {
                n: torch.full((1,), 0.01 * (i % 3)).expand(t.shape)
                for i, (n, t) in enumerate(state.items())
            }
        torch.save(state, folder / "new")
        file = (folder / "new").rename(folder / f"{name}-{file_sha256(folder / 'new')[:8]}.pth")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        url = f"http://127.0.0.1:9/{file.name}"  # nobody listens there
        address = backbones._address(type("Entry", (), {"url": url}))
        monkeypatch.setattr(backbones, "_address", lambda _: address)

    return put


@pytest.mark.parametrize("name, stand_in", [("resnet18", False), ("vgg16", True)])
def test_imagenet_models_go_the_whole_way(name, stand_in, cached, tmp_path):
    """From a cached file over LP-FT on a folder to a saved model that answers in a new process."""
    cached(name, stand_in)
    folder = sample_photos(tmp_path / "photos", per_class=6)
    lp_ft = [Phase("head", updates=4, lr=1e-2), Phase("all", updates=1, lr=1e-4)]
    result = finetune(folder, name, lp_ft, batch_size=4, report=False)
    assert result.preprocess.crop == 224 and result.model(
        result.photos.train.columns[0][:1]
    ).shape == (1, 2)
    files = sorted(folder.glob("*/*.jpg"))[::6]
    path = tmp_path / "model.safetensors"
    result.save(path)
    code = (
        "import sys; from ftlearn import FineTuned;"
        f"print([tuple(p.probabilities.values()) for p in FineTuned.load({str(path)!r}).predict(sys.argv[1:])])"
    )
    command = [sys.executable, "-c", code, *map(str, files)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert eval(said) == [tuple(p.probabilities.values()) for p in result.predict(files)]

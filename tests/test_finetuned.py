"""From a folder to a saved, reloaded, predicting model; and what a result can do."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ftlearn import (
    Columns,
    FineTuned,
    HeldOut,
    Phase,
    Recipe,
    cross_entropy,
    finetune,
    follow,
    freeze,
    glyphnet,
    image_folder,
    predict,
)
from ftlearn.augment import augment
from ftlearn.backbones import backbone
from ftlearn.command import main
from ftlearn.distill import Committee, knowledge_distillation, taught
from ftlearn.explore import overlapping_labels
from ftlearn.freezing import fingerprint
from ftlearn.models import adapt_input
from ftlearn.photos import open_image, sample_photos
from ftlearn.transforms import Flip

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


# ---------------------------------------------------------------- a teacher


def narrow():
    """A student of its own for photos of 24x24."""
    torch.manual_seed(1)
    model = adapt_input(glyphnet(2, widths=(8, 16, 32)), 3)
    model.normalize.scale.fill_(255.0)
    return model


def digits_like(n=24, classes=4, **settings):
    torch.manual_seed(2)
    images = torch.randint(0, 17, (n, 1, 8, 8), dtype=torch.uint8)
    return Columns(images, torch.arange(n) % classes, batch_size=8, **settings)


def small(classes=4, seed=0):
    torch.manual_seed(seed)
    return glyphnet(classes, widths=(4, 8, 8))


def everything(model):
    """All that a teacher must keep: bits, modes, marks, and who learns."""
    modes = [(part.training, getattr(part, "frozen", None)) for part in model.modules()]
    return (
        fingerprint(model),
        modes,
        [(p.requires_grad, p.grad is None) for p in model.parameters()],
    )


def same(ours, theirs):
    ours, theirs = (r.model.state_dict() for r in (ours, theirs))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def shown(model):
    """How many images the model is shown from now on, a number per batch."""
    sizes = []
    model.register_forward_hook(lambda module, x, z: sizes.append(len(x[0])))
    return sizes


TWO = [Phase("head", epochs=3, lr=1e-2), Phase("all", epochs=2, statistics="live")]


def test_a_student_is_saved_loaded_and_asked_as_any_other(result, files, tmp_path):
    before, sizes = everything(result.model), shown(result.model)
    student = finetune(result.photos, narrow(), TWO, teacher=result, report=False)
    assert everything(result.model) == before
    assert sum(sizes) == len(result.photos.train), "asked once about every image, in both phases"
    assert student.classes == result.classes and student.preprocess == result.preprocess
    assert {row["phase"] for row in student.history} == {1, 2}
    assert student.teacher == {**result.architecture, "fingerprint": before[0]}
    assert len(student.photos.train.columns) == 2, "the photos stay plain"
    card = student.save(tmp_path / "student.safetensors")
    assert card["teacher"] == student.teacher
    again = FineTuned.load(tmp_path / "student.safetensors", model=narrow())
    assert again.predict(files) == student.predict(files) and again.teacher == student.teacher
    assert isinstance(again.predict(files[0]).name, str)


def test_a_card_without_a_teacher_is_read_as_before(result, tmp_path):
    result.save(tmp_path / "m.safetensors")
    card = json.loads((tmp_path / "m.json").read_text("utf-8"))
    assert card.pop("teacher") is None
    (tmp_path / "m.json").write_text(json.dumps(card), "utf-8")
    assert FineTuned.load(tmp_path / "m.safetensors").teacher is None


def test_a_backbone_by_name_is_taught_and_the_images_may_be_streamed(photos, result):
    sizes = shown(result.model)
    inside = finetune(result.photos, "letters", SHORT, teacher=result, report=False)
    sets = image_folder(photos, result.preprocess, memory=0, report=False)
    streamed = finetune(sets, "letters", SHORT, teacher=result, report=False)
    assert same(inside, streamed) and sum(sizes) == 2 * len(sets.train)
    assert not same(inside, result), "labels alone lead elsewhere"
    assert inside.architecture == result.architecture and inside.score(result.photos.valid) > 0.6


@pytest.mark.parametrize("memory", [4e9, 0], ids=["cached prefix", "nothing cached"])
def test_it_is_follow_on_a_taught_set_with_soft_targets(memory, device):
    data, teacher = digits_like(), freeze(small(seed=5))
    valid = digits_like(8)
    student = finetune(data, small(), TWO, valid, device=device, teacher=teacher, report=False)
    model = small().to(device)
    with_answers = taught(teacher.to(device), data.to(device))
    history = follow(
        model, TWO, with_answers, valid.to(device), knowledge_distillation(), memory=memory,
        report=False,
    )  # fmt: skip
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), student.model.state_dict().values())
    )
    assert [row["loss"] for row in history.rows] == [row["loss"] for row in student.history]


def test_the_teacher_is_heard_only_by_an_objective_that_listens():
    data, teacher = digits_like(), freeze(small(seed=5))
    plain = finetune(data, small(), TWO, report=False)
    deaf = finetune(data, small(), TWO, objective=cross_entropy(), teacher=teacher, report=False)
    heard = finetune(data, small(), TWO, teacher=teacher, report=False)
    other = finetune(data, small(), TWO, teacher=freeze(small(seed=6)), report=False)
    assert same(plain, deaf) and plain.teacher is None
    assert not same(plain, heard) and not same(heard, other)
    assert heard.history[0]["loss"] != other.history[0]["loss"]
    assert heard.teacher == {
        "class": type(teacher).__qualname__, "fingerprint": fingerprint(teacher)
    }  # fmt: skip


def test_gradients_go_to_the_student_alone():
    data, teacher, seen = digits_like(), freeze(small(seed=5)), []

    def objective(model, x, y, t):
        seen.append(t.requires_grad)
        assert torch.equal(t.argmax(1), predict(teacher, Columns(x)).argmax(1))
        return knowledge_distillation()(model, x, y, t)

    before = everything(teacher)
    whole = [Phase("all", statistics="live")]
    student = finetune(data, small(), whole, objective=objective, teacher=teacher, report=False)
    assert seen and not any(seen) and everything(teacher) == before
    fresh = dict(small().named_parameters())
    assert not any(torch.equal(p, fresh[n]) for n, p in student.model.named_parameters())


def test_images_that_change_are_shown_to_the_teacher_as_the_student_gets_them():
    data, teacher, pairs = augment(digits_like(), Flip()), freeze(small(seed=5)), []

    def objective(model, x, y, t):
        pairs.append((x, t))
        return knowledge_distillation()(model, x, y, t)

    before, sizes = everything(teacher), shown(teacher)
    finetune(data, small(), TWO, objective=objective, teacher=teacher, report=False)
    assert sum(sizes) == 5 * len(data) + data.batch_size, "every epoch, and a look before"
    assert everything(teacher) == before
    assert all(torch.equal(predict(teacher, Columns(x, batch_size=8)), t) for x, t in pairs)
    assert not torch.equal(pairs[0][0].double().mean(0), pairs[3][0].double().mean(0))


def test_images_without_a_label_hear_the_teacher():
    data, teacher = (
        digits_like(),
        finetune(digits_like(), small(), TWO, classes=list("abcd"), report=False),
    )
    few = data.like(data.columns[0], data.columns[1].where(torch.arange(24) < 4, -1))
    none = data.like(data.columns[0], torch.full((24,), -1))
    soft = knowledge_distillation(alpha=1.0)
    runs = [
        finetune(d, small(), TWO, objective=soft, teacher=teacher, report=False)
        for d in (data, few, none)
    ]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert all(run.classes == list("abcd") for run in runs), "the names are the teacher's"
    usual = [finetune(d, small(), TWO, teacher=teacher, report=False) for d in (data, few)]
    assert not same(*usual)


@pytest.mark.parametrize("live", [False, True], ids=["once", "live"])
@pytest.mark.parametrize("at", [5, 11])  # in the first phase, in the second
def test_resumed_with_a_teacher_it_ends_in_the_same_bits(live, at, tmp_path):
    teacher, valid, calls = freeze(small(seed=5)), digits_like(8), []
    data = augment(digits_like(), Flip()) if live else digits_like()

    def failing(model, *batch):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("power cut")
        return knowledge_distillation()(model, *batch)

    settings = dict(valid=valid, teacher=teacher, report=False)
    straight = finetune(data, small(), TWO, **settings)
    with pytest.raises(RuntimeError, match="power cut"):
        finetune(data, small(), TWO, objective=failing, checkpoint=tmp_path / "run", **settings)
    resumed = finetune(data, small(seed=9), TWO, checkpoint=tmp_path / "run", **settings)
    assert same(straight, resumed)
    for row in straight.history + resumed.history:
        del row["seconds"]
    assert straight.history == resumed.history


def test_a_teacher_that_is_refused_leaves_the_model_as_it_was():
    model, teacher = small(7), finetune(digits_like(), small(), TWO, report=False)
    before, sizes = fingerprint(model), shown(teacher.model)
    with pytest.raises(ValueError, match="Class 0 is '0' for the teacher"):
        finetune(digits_like(), model, TWO, classes=list("abcd"), teacher=teacher, report=False)
    assert fingerprint(model) == before and sizes == []
    assert all(p.requires_grad for p in model.parameters())


def test_only_a_constant_that_gives_logits_can_teach():
    loose = nn.Sequential(small(seed=5), nn.Softmax(1))
    for words in (r"not frozen.*freeze\(teacher\)", "answers with probabilities"):
        with pytest.raises(ValueError, match=words):
            finetune(digits_like(), small(), TWO, teacher=loose, report=False)
        freeze(loose)


def test_several_teachers_are_one(capsys):
    pair = freeze(Committee(small(seed=5), small(seed=6)))
    student = finetune(digits_like(), small(), TWO, teacher=pair)
    assert student.teacher == {"class": "Committee", "fingerprint": fingerprint(pair)}
    assert "The teacher is asked once about 24 images." in capsys.readouterr().out


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


def test_a_student_learns_from_a_saved_model_at_a_terminal(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(Recipe([Phase("head", updates=2)]).to_json())
    arguments = ["finetune", str(photos), "--backbone", "letters", "--recipe", str(recipe)]
    assert main([*arguments, "--out", "teacher.safetensors"]) == 0
    taught = [*arguments, "--out", "student.safetensors", "--teacher"]
    assert main([*taught, "teacher.safetensors"]) == 0
    cards = [FineTuned.load(f"{name}.safetensors").teacher for name in ("teacher", "student")]
    assert cards[0] is None and cards[1]
    capsys.readouterr()
    assert main([*taught, "nobody.safetensors", "--overwrite"]) == 2
    assert "nobody.safetensors" in capsys.readouterr().err


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


# ---------------------------------------------------------------- a run that goes on


def tree(folder, names, per_class=20):
    """A folder of small photos, each of another colour, with these classes."""
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            noise = np.random.default_rng([c, i]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:03}.png")
    return folder


HEAD = [Phase("head", updates=2)]


def first_to_last(folder):
    (folder / "china" / "000.png").rename(folder / "china" / "zzz.png")


@pytest.mark.parametrize(
    "change, words",
    [
        (first_to_last, "set of images"),
        (lambda folder: (folder / "china").rename(folder / "zebra"), "list of classes"),
        (lambda folder: (folder / "china").rename(folder / "chinese"), "list of classes"),
    ],
    ids=["a photo renamed", "a class that comes last now", "a class renamed in its place"],
)
@pytest.mark.parametrize("memory", [4e9, 0], ids=["in memory", "streamed"])
def test_a_run_does_not_go_on_with_another_folder(change, words, memory, tmp_path):
    folder = tree(tmp_path / "photos", ["china", "flower"])
    size = backbone("letters", None)[1]

    def run():
        sets = image_folder(folder, size, memory=memory, report=False)
        finetune(sets, "letters", HEAD, checkpoint=tmp_path / "run", report=False)

    run()
    run()  # nothing has changed: it goes on
    before = (tmp_path / "run").read_bytes()
    change(folder)
    with pytest.raises(ValueError, match=f"a run with another {words}"):
        run()
    assert (tmp_path / "run").read_bytes() == before


def test_a_run_goes_on_from_a_folder_that_was_moved(tmp_path):
    folder = tree(tmp_path / "photos", ["china", "flower"], 6)
    finetune(folder, "letters", HEAD, checkpoint=tmp_path / "run", report=False)
    moved = folder.rename(tmp_path / "elsewhere")
    finetune(moved, "letters", HEAD, checkpoint=tmp_path / "run", report=False)


@pytest.mark.parametrize(
    "words, change",
    [
        ("objective", dict(objective=cross_entropy(label_smoothing=0.2))),
        ("objective", dict(objective=cross_entropy(weight=[1, 1, 1, 2.0]))),
        ("objective", dict(objective=knowledge_distillation())),
        ("list of classes", dict(classes=list("dcba"))),
        ("set of images", dict(data=digits_like().like(16 - digits_like().columns[0], digits_like().columns[1]))),
        ("set for validation", dict(valid=digits_like(8).like(16 - digits_like(8).columns[0], digits_like(8).columns[1]))),
        ("set for validation", dict(valid=digits_like(8).like(digits_like(8).columns[0], 3 - digits_like(8).columns[1]))),
    ],
)  # fmt: skip
def test_a_run_does_not_go_on_as_another_one(words, change, tmp_path):
    settings = dict(
        data=digits_like(), valid=digits_like(8), classes=list("abcd"), recipe=HEAD,
        checkpoint=tmp_path / "run", report=False,
    )  # fmt: skip
    finetune(backbone=small(), **settings)
    finetune(backbone=small(), **settings, objective=cross_entropy())
    with pytest.raises(ValueError, match=f"run belongs to a run with another {words}: repeat"):
        finetune(backbone=small(), **settings | change)


def test_it_says_where_it_goes_on(tmp_path, capsys):
    def failing(model, *batch):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return cross_entropy()(model, *batch)

    calls, recipe = [], [Phase("head", epochs=3)]
    settings = dict(recipe=recipe, checkpoint=tmp_path / "run")
    finetune(digits_like(), small(), objective=failing, **settings)
    assert "Goes on" not in capsys.readouterr().out
    finetune(digits_like(), small(), **settings)
    said = capsys.readouterr().out
    assert said.count("Goes on from the checkpoint, after update 3 of 9 of this phase.") == 1
    finetune(digits_like(), small(), **settings, report=False)
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- what a card promises


def test_the_card_names_the_weights_that_were_taken():
    from ftlearn.finetuned import _architecture

    names = {
        ("letters", "IMAGENET1K_V1"): "letters",
        ("letters", "DEFAULT"): "letters",
        ("letters", None): None,
        ("resnet18", "IMAGENET1K_V1"): "IMAGENET1K_V1",
        ("resnet50", "DEFAULT"): "IMAGENET1K_V2",
        ("vit_h_14", "IMAGENET1K_V1"): "IMAGENET1K_SWAG_E2E_V1",
        ("resnet18", "mine.pth"): None,
    }
    assert {key: _architecture(*key)["weights"] for key in names} == names


def test_letters_are_saved_as_letters(result, tmp_path):
    card = result.save(tmp_path / "m.safetensors")
    assert card["architecture"] == {"backbone": "letters", "weights": "letters"}


@pytest.mark.parametrize(
    "name, change",
    [
        ("classes", lambda value: value[::-1]),
        ("preprocess", lambda value: value | {"resize": 32}),
        ("architecture", lambda value: value | {"weights": None}),
        ("card_sha256", lambda value: None),
    ],
)
def test_a_card_that_was_changed_is_refused(name, change, result, files, tmp_path, capsys):
    result.save(tmp_path / "m.safetensors")
    card = json.loads((tmp_path / "m.json").read_text("utf-8"))
    (tmp_path / "m.json").write_text(json.dumps(card | {name: change(card[name])}), "utf-8")
    with pytest.raises(ValueError, match="m.json were changed after saving: get both files again"):
        FineTuned.load(tmp_path / "m.safetensors")
    assert main(["predict", str(tmp_path / "m.safetensors"), str(files[0])]) == 2
    assert "were changed" in capsys.readouterr().err


# ---------------------------------------------------------------- the folder first


def test_the_folder_is_looked_at_before_weights_are_fetched(tmp_path, monkeypatch, capsys):
    from ftlearn import backbones

    calls = []

    def no_connection(*address):
        calls.append(address)
        raise ValueError("There is no connection.")

    monkeypatch.setattr(backbones, "download", no_connection)
    with pytest.raises(ValueError, match="no connection"):
        finetune(tree(tmp_path / "photos", ["a", "b"], 4))
    assert "8 images" in capsys.readouterr().out and len(calls) == 1
    with pytest.raises(ValueError, match="too few for 3 parts"):
        finetune(tree(tmp_path / "few", ["a", "b"], 1), report=False)
    with pytest.raises(ValueError, match="stage9"):
        finetune(tmp_path / "photos", recipe=[Phase("stage9")], report=False)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["letters", "squeezenet1_1"])
def test_looking_first_uses_up_no_random_number(name):
    from ftlearn.finetuned import _model

    state = torch.get_rng_state()
    model, preprocess = _model(name, "IMAGENET1K_V1", load=False)
    assert torch.equal(state, torch.get_rng_state())
    assert preprocess == backbone(name, None)[1]


# ---------------------------------------------------------------- refused in one sentence


X, Y = digits_like().columns
BYTES = torch.zeros(3, 24, 24, dtype=torch.uint8)


def run(data=None, **settings):
    return finetune(
        digits_like() if data is None else data, small(), HEAD, report=False, **settings
    )


REFUSED = [
    ("a batch of nothing", ValueError, "batch_size is 0", lambda r: run(batch_size=0)),
    ("a negative batch", ValueError, "batch_size is -3", lambda r: run(batch_size=-3)),
    ("a seed in quotes", ValueError, "seed is '5': give a whole number", lambda r: run(seed="5")),
    ("a negative seed", ValueError, "seed is -1: give a whole number", lambda r: run(seed=-1)),
    ("a device that is none", ValueError, "There is no device 'gpu' here", lambda r: run(device="gpu")),
    ("a device that is not here", ValueError, "There is no device 'cuda:99' here", lambda r: run(device="cuda:99")),
    ("a device before the folder", ValueError, "There is no device 'gpu' here", lambda r: finetune(".", "letters", device="gpu")),
    ("one name for all", ValueError, "The classes are .*another one for each label", lambda r: run(classes=["a"] * 10)),
    ("names in one string", ValueError, "The classes are 'abcd'", lambda r: run(classes="abcd")),
    ("numbers as names", ValueError, "The classes are .*0, 1, 2, 3", lambda r: run(classes=[0, 1, 2, 3])),
    ("a number of classes", ValueError, "The classes are '4'", lambda r: run(classes=4)),
    ("a class for validation only", ValueError, "validation set's highest label is 4, but there are 4 class", lambda r: run(valid=Columns(X, Y + 1))),
    ("images alone", TypeError, r"training set is without labels: give Columns\(images, labels\)", lambda r: run(Columns(X))),
    ("a pair of tensors", TypeError, "training set is a tuple", lambda r: run((X, Y))),
    ("nothing to train on", TypeError, "training set is a NoneType", lambda r: finetune(None, small())),
    ("a pair to validate on", TypeError, "validation set is a tuple", lambda r: run(valid=(X, Y))),
    ("predicting nothing", TypeError, "An image is a NoneType", lambda r: r.predict(None)),
    ("channels first as an array", ValueError, r"array of uint8 \(3, 30, 30\)", lambda r: r.predict(np.zeros((3, 30, 30), np.uint8))),
    ("a batch of greys", ValueError, r"array of uint8 \(5, 30, 30\)", lambda r: r.predict(np.zeros((5, 30, 30), np.uint8))),
    ("floats from 0 to 1", ValueError, r"torch.float32 of shape \(3, 24, 24\), but this model eats torch.uint8 of shape \(3, 24, 24\)", lambda r: r.predict(BYTES / 255)),
    ("floats from 0 to 255", ValueError, "A tensor is torch.float32", lambda r: r.predict([BYTES.float()])),
    ("a tensor of another size", ValueError, r"of shape \(3, 100, 100\)", lambda r: r.predict(BYTES.new_zeros(3, 100, 100))),
    ("a batch of another size", ValueError, r"of shape \(2, 3, 100, 100\)", lambda r: r.predict(BYTES.new_zeros(2, 3, 100, 100))),
    ("tensors of two sizes", ValueError, r"of shape \(3, 9, 9\)", lambda r: r.predict([BYTES, BYTES.new_zeros(3, 9, 9)])),
    ("an empty batch", ValueError, "There are no images to predict", lambda r: r.predict(BYTES.new_zeros(0, 3, 24, 24))),
    ("mistakes at labels beyond", ValueError, "The set's highest label is 7, but there are 2", lambda r: r.mistakes(Columns(BYTES[None], torch.tensor([7])))),
    ("mistakes at negative labels", ValueError, "the lowest is -1", lambda r: r.mistakes(Columns(BYTES[None], torch.tensor([-1])))),
    ("mistakes at one-hot labels", ValueError, r"The set's labels are torch.int64 \(1, 2\)", lambda r: r.mistakes(Columns(BYTES[None], torch.tensor([[1, 0]])))),
    ("mistakes in a pair", TypeError, "The set is a tuple", lambda r: r.mistakes((BYTES[None], torch.tensor([0])))),
    ("a score at labels beyond", ValueError, "The set's highest label is 7", lambda r: r.score(Columns(BYTES[None], torch.tensor([7])))),
    ("a score at one-hot labels", ValueError, r"The set's labels are torch.float32 \(1, 2\)", lambda r: r.score(Columns(BYTES[None], torch.eye(2)[:1]))),
    ("a score of nothing", TypeError, "The set is a list", lambda r: r.score([])),
    ("saving into a folder", ValueError, r"'\.' should end in .safetensors", lambda r: r.save(".")),
]  # fmt: skip


@pytest.mark.parametrize("cause, kind, words, act", REFUSED, ids=[row[0] for row in REFUSED])
def test_it_is_refused_in_one_sentence(cause, kind, words, act, result):
    reads = result.photos.test.reads
    with pytest.raises(kind, match=words) as caught:
        act(result)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
    assert result.photos.test.reads == reads

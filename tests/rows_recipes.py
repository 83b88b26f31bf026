"""Bad recipes, rates and results: (cause, exception, words of its sentence, what the user did)."""

from dataclasses import replace

import numpy as np
import torch
from rows_core import SET, X, Y, net, step

from ftlearn import (
    FineTuned,
    Phase,
    Preprocess,
    Recipe,
    finetune,
    follow,
    freeze,
    glyphnet,
    image_folder,
    lr_find,
    param_groups,
    save_checkpoint,
    save_weights,
)
from ftlearn.photos import sample_photos
from ftlearn.recipes import check_recipe
from ftlearn.schedules import cosine


def tuned():
    """A model of somebody's own, on columns."""
    return finetune(SET, net(), [Phase("head")], report=False)


def photo_model():
    result = tuned()
    result.preprocess = Preprocess(8, 8)
    return result


def taught_by(teacher, data=SET, model=None, **settings):
    """A student of somebody's own."""
    return finetune(
        data, model or net(), [Phase("head")], teacher=teacher, report=False, **settings
    )


def sharing():
    teacher = tuned()
    return taught_by(teacher, model=teacher.model)


def prepared_otherwise(folder):
    sets = image_folder(sample_photos(folder / "p", 4), Preprocess(24, 24), report=False)
    teacher = replace(tuned(), preprocess=Preprocess(32, 32), classes=sets.classes)
    return finetune(sets, "letters", [Phase("head")], teacher=teacher, report=False)


def another_teacher(folder):
    for teacher in (freeze(net()), freeze(net())):
        taught_by(teacher, checkpoint=folder / "run")


def taken(folder):
    path = folder / "net.safetensors"
    path.write_bytes(b"precious")
    return path


ROWS = [
    # recipes
    ("a recipe of nothing", ValueError, "A recipe needs a phase", lambda d: Recipe([])),
    ("a recipe with a word in it", TypeError, "Part 1 of the recipe is a str", lambda d: Recipe(["head"])),
    ("zero epochs", ValueError, "cannot have epochs=0", lambda d: Phase("head", epochs=0)),
    ("a rate that is no number", ValueError, "cannot have lr=nan", lambda d: Phase("head", lr=float("nan"))),
    ("a negative rate", ValueError, "cannot have lr=-1", lambda d: Phase("head", lr=-1)),
    ("layers that get faster", ValueError, "cannot have layer_decay=2", lambda d: Phase(layer_decay=2)),
    ("an unknown schedule", ValueError, "'cosinus'.*'one_cycle'", lambda d: Phase(schedule="cosinus")),
    ("a shape where its name belongs", ValueError, r"schedule=cosine\(\): choose from 'one_cycle'.*'warmup_stable_decay'", lambda d: Phase(schedule=cosine())),
    ("patience of nothing", ValueError, "cannot have patience=0", lambda d: Phase(patience=0)),
    ("the rest of a head", ValueError, "train the head and only='bias'", lambda d: Phase("head", only="bias")),
    ("a phase at a stage that is not there", ValueError, "stage9", lambda d: check_recipe(glyphnet(), [Phase("head"), Phase("stage9")])),
    ("a phase that trains nothing", ValueError, "nothing to train with only='norm'", lambda d: check_recipe(net(), [Phase(only="norm")])),
    ("a subset with live statistics", ValueError, "train only='norm' with live batch statistics", lambda d: Phase(only="norm", statistics="live")),
    ("patience without a validation set", ValueError, "A phase has patience, but there is no validation", lambda d: follow(net(), [Phase(patience=1)], SET)),
    ("a recipe that is no JSON", ValueError, "The recipe is no JSON", lambda d: Recipe.from_json("head")),
    ("a recipe that is no list", ValueError, "is no list of phases", lambda d: Recipe.from_json('{"train": "head"}')),
    ("a phase with a misspelt word", ValueError, "has 'epoch': a phase has", lambda d: Recipe.from_json('[{"epoch": 3}]')),
    ("the checkpoint of another recipe", ValueError, "with another recipe", lambda d: (follow(net(), [Phase()], SET, checkpoint=d / "run", report=False), follow(net(), [Phase(epochs=2)], SET, checkpoint=d / "run"))),
    ("a checkpoint of no recipe", ValueError, "but of no recipe", lambda d: (save_checkpoint(d / "run", step(), 1), follow(net(), [Phase()], SET, checkpoint=d / "run"))),
    # rates
    ("groups of nothing", ValueError, "rainable", lambda d: param_groups(freeze(net()), 0.1)),
    ("groups without a rate", ValueError, "lr is 0", lambda d: param_groups(net(), 0)),
    ("a rate in words", TypeError, "lr is '1e-3': give a number", lambda d: param_groups(net(), "1e-3")),
    ("a range in words", TypeError, "lowest is '1e-5': give a number", lambda d: lr_find(step(), SET, lowest="1e-5")),
    ("rates in the wrong order", ValueError, "lowest", lambda d: lr_find(step(), SET, lowest=1, highest=0.1)),
    # the whole way
    ("a folder that is not there", FileNotFoundError, "There is no folder .*photos: give", lambda d: finetune(d / "photos")),
    ("labels that are no classes", ValueError, r"labels are torch.float32 \(8,\)", lambda d: finetune(SET.like(X, Y.float()), net(), report=False)),
    ("fewer names than classes", ValueError, "label is 2, but there are 2 class names", lambda d: finetune(SET, net(), classes=["a", "b"])),
    ("a label that valid alone has", ValueError, "label is 7, but there are 3 class names", lambda d: finetune(SET, net(), valid=SET.like(X, Y + 5), classes=["a", "b", "c"])),
    ("names for a folder that has names", ValueError, "brings its own validation set", lambda d: finetune(sample_photos(d / "p", 4), "letters", classes=["a", "b"], report=False)),
    # teachers
    ("the path of a teacher", TypeError, "The teacher is a str: give a module, or a FineTuned", lambda d: taught_by("teacher.safetensors")),
    ("a teacher with its classes in another order", ValueError, "Class 0 is '0' for the teacher .* '2' for the", lambda d: taught_by(tuned(), classes=["2", "1", "0"])),
    ("a teacher with fewer classes", ValueError, "Class 3 is 'no class' for the teacher .* '3' for the", lambda d: taught_by(tuned(), classes=list("0123"))),
    ("a teacher that is the student", ValueError, "shares weights .*copy.deepcopy", lambda d: sharing()),
    ("a teacher of photos prepared otherwise", ValueError, r"resize=32.*resize=24.*freeze\(teacher.model\)", prepared_otherwise),
    ("a teacher that cannot read the images", ValueError, r"cannot read the student's images, torch.float32 of shape \(4,\)", lambda d: taught_by(freeze(torch.nn.Linear(5, 3)))),
    ("a teacher's answers in the fourth column", ValueError, "3 columns, so the teacher's logits are not the third", lambda d: taught_by(tuned(), SET.like(X, Y, X))),
    ("images without a label and without a teacher", ValueError, "training set.* the lowest is -1.*training with a teacher", lambda d: finetune(SET.like(X, Y - 1), net(), report=False)),
    ("a validation set without labels", ValueError, "The validation set's .* the lowest is -1", lambda d: taught_by(tuned(), valid=SET.like(X, Y - 1))),
    ("no label and no names", ValueError, "No image has a label: name the classes", lambda d: taught_by(freeze(net()), SET.like(X, torch.full_like(Y, -1)))),
    ("the checkpoint of another teacher", ValueError, "with another teacher", another_teacher),
    # files
    ("saving under a name that is taken", FileExistsError, "is there already", lambda d: tuned().save(taken(d))),
    ("saving where no folder is", FileNotFoundError, "There is no folder", lambda d: tuned().save(d / "none" / "net.safetensors")),
    ("saving as a pickle", ValueError, "should end in .safetensors", lambda d: tuned().save(d / "net.pt")),
    ("loading mere weights as a model", ValueError, "no fine-tuned model", lambda d: (save_weights(d / "w.safetensors", net().state_dict(), {}), FineTuned.load(d / "w.safetensors"))),
    ("loading somebody's own model", ValueError, "a Sequential of somebody's own", lambda d: (tuned().save(d / "m.safetensors"), FineTuned.load(d / "m.safetensors"))),
    ("no images to predict", ValueError, "There are no images to predict", lambda d: tuned().predict([])),
    ("a photo for a model of columns", TypeError, "trained on columns", lambda d: tuned().predict("photo.jpg")),
    ("an array of floats as a photo", ValueError, r"array of float64 \(4, 4\)", lambda d: photo_model().predict(np.zeros((4, 4)))),
    ("a number as a photo", TypeError, "An image is a int", lambda d: photo_model().predict([7])),
    ("a score without a test set", ValueError, "There is no test set here", lambda d: tuned().score()),
]  # fmt: skip

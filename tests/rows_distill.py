"""Bad teachers, students and settings: (cause, exception, words of its sentence, what the user did)."""

import torch
from torch import nn

from ftlearn import Columns, HeldOut, freeze
from ftlearn.augment import augment
from ftlearn.distill import (
    Committee,
    attention_transfer,
    binary_distillation,
    correlation_distillation,
    decoupled_distillation,
    hints,
    knowledge_distillation,
    logit_matching,
    mutual_learning,
    relational_distillation,
    taught,
)
from ftlearn.transforms import Flip

PICTURES = Columns(
    torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
TEACHER, LOGITS, LABELS = freeze(LINEAR), torch.zeros(8, 3), torch.arange(8) % 3
FREE = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
MOVING = augment(PICTURES, Flip())


class Loud(nn.Module):
    """A teacher whose logits are too large for half precision."""

    def forward(self, x):
        return 1e6 * (1 + x.flatten(1)[:, :3]).half()


class Named:
    """A fine-tuned model, as far as a student sees it."""

    model, classes = TEACHER, ["ant", "bee", "cat"]


def said(objective, *batch):
    """What an objective makes of a batch of a student that answers with LOGITS."""
    return objective(lambda x: LOGITS, None, *batch)


def on_grid(objective, g):
    """What a feature objective makes of the student's images and the features `g`."""
    return objective(nn.Sequential(nn.Identity(), *FREE), *PICTURES.columns, LOGITS, g)


def written(folder, teacher=TEACHER, data=PICTURES):
    """The path of a teacher's answers."""
    taught(teacher, data, folder / "answers.safetensors")
    return folder / "answers.safetensors"


KD = knowledge_distillation()
ROWS = [
    # settings
    ("a temperature of zero", ValueError, "temperature is 0: give a finite number above 0", lambda d: knowledge_distillation(0)),
    ("a negative temperature", ValueError, "temperature is -4", lambda d: correlation_distillation(-4)),
    ("an infinite temperature", ValueError, "temperature is inf", lambda d: decoupled_distillation(float("inf"))),
    ("a temperature that is a word", ValueError, "temperature is 'hot'", lambda d: binary_distillation("hot")),
    ("an alpha above one", ValueError, "alpha is 1.5: give the teacher's share", lambda d: knowledge_distillation(4, 1.5)),
    ("a negative alpha", ValueError, "alpha is -0.1", lambda d: logit_matching(-0.1)),
    ("a negative weight of DKD", ValueError, "others is -8", lambda d: decoupled_distillation(others=-8)),
    ("a weight that is not a number", ValueError, "strength is nan", lambda d: attention_transfer(KD, "1", float("nan"))),
    ("a negative weight of distances", ValueError, "distance is -1", lambda d: relational_distillation(KD, "1", distance=-1)),
    # teachers
    ("a list as a teacher", TypeError, "The teacher is a list", lambda d: taught([TEACHER], PICTURES)),
    ("a teacher that learns", ValueError, r"not frozen.*freeze\(teacher\)", lambda d: taught(FREE, PICTURES)),
    ("a teacher that ends in a softmax", ValueError, "with probabilities", lambda d: taught(freeze(nn.Sequential(LINEAR, nn.Softmax(1))), PICTURES)),
    ("a teacher that overflows in half precision", ValueError, "row 0 is not finite, in torch.float16", lambda d: taught(freeze(Loud()), PICTURES)),
    ("a teacher without logits", ValueError, "it has to give logits", lambda d: taught(freeze(nn.Sequential(nn.Identity())), PICTURES)),
    ("a teacher that does not know the labels", ValueError, "2 classes, but there are 3", lambda d: taught(freeze(nn.Sequential(nn.Flatten(), nn.Linear(48, 2))), PICTURES)),
    ("a teacher with other classes", ValueError, "Class 2 is 'cat' for the teacher .* 'no class'", lambda d: taught(Named, PICTURES, classes=["ant", "bee"])),
    ("a teacher with another order of classes", ValueError, "Class 0 is 'ant' for the teacher .* 'bee' for the", lambda d: taught(Named, PICTURES, classes=["bee", "ant", "cat"])),
    ("a label beyond the names of the classes", ValueError, "3 classes, but there are 6", lambda d: taught(TEACHER, Columns(PICTURES.columns[0], torch.full((8,), 5)), classes=list("abc"))),
    ("a teacher of yes or no that ends in a sigmoid", ValueError, "from 0 to 1 only", lambda d: taught(freeze(nn.Sequential(LINEAR, nn.Sigmoid())), Columns(PICTURES.columns[0], torch.ones(8, 3)))),
    ("more names than the teacher has logits", ValueError, "3 classes, but there are 4", lambda d: taught(TEACHER, PICTURES, classes=list("abcd"))),
    # sets and files
    ("teaching on a test set", ValueError, "teach a student on the training set", lambda d: taught(TEACHER, HeldOut(*PICTURES.columns))),
    ("a second teacher", ValueError, r"already.*taught\(freeze\(Committee\(a, b\)\), data\)", lambda d: taught(TEACHER, taught(TEACHER, PICTURES))),
    ("teaching images without a column of labels", ValueError, "-1 for every image", lambda d: taught(TEACHER, Columns(PICTURES.columns[0]))),
    ("keeping the answers to moving images", ValueError, "cannot keep answers", lambda d: taught(TEACHER, MOVING, d / "a.safetensors")),
    ("keeping answers in a file of another kind", ValueError, "ends in .safetensors", lambda d: taught(TEACHER, PICTURES, d / "a.pt")),
    ("the answers of another teacher", ValueError, "its teacher differs: give", lambda d: taught(freeze(nn.Sequential(nn.Flatten(), nn.Linear(48, 3))), PICTURES, written(d))),
    ("the answers about other images", ValueError, "its images differ", lambda d: taught(TEACHER, PICTURES.take(slice(4)), written(d))),
    # batches
    ("batches without a teacher", ValueError, "hold no teacher's logits", lambda d: said(KD, LABELS)),
    ("a teacher's column of other classes", ValueError, r"shape \(8, 3\) and the teacher's column has \(8, 7\)", lambda d: said(KD, LABELS, torch.zeros(8, 7))),
    ("a label above the student's classes", ValueError, "run from 0 to 6", lambda d: said(KD, torch.arange(8) % 7, LOGITS)),
    ("-1 for a question without an answer", ValueError, "run from 0 to 1, and these from -1 to 1", lambda d: said(binary_distillation(), torch.tensor([1.0, 0, -1]).expand(8, 3), LOGITS)),
    ("soft labels for DKD", ValueError, "DKD needs one class number", lambda d: said(decoupled_distillation(), LOGITS.softmax(1), LOGITS)),
    # features
    ("hints of an unknown layer", ValueError, "no module 'layer9'", lambda d: hints(KD, FREE, "layer9", PICTURES)),
    ("hints of a teacher without features", ValueError, "hold 0 columns of features", lambda d: hints(KD, FREE, "0", taught(TEACHER, PICTURES))),
    ("labels where features are needed", ValueError, r"Features of shape \(8,\)", lambda d: on_grid(attention_transfer(KD, "0"), LABELS)),
    ("tokens that are no square", ValueError, r"\(8, 7, 3\) are no vectors", lambda d: on_grid(relational_distillation(KD, "0"), torch.zeros(8, 7, 3))),
    ("attention to a single place", ValueError, "a single place", lambda d: on_grid(attention_transfer(KD, "0"), torch.zeros(8, 5))),
    # several models
    ("a committee of nobody", ValueError, "0 models", lambda d: Committee()),
    ("a weight too few", ValueError, r"\[1\] for 2 models", lambda d: Committee(LINEAR, LINEAR, weights=[1])),
    ("a weight of zero", ValueError, r"\[0, 1\] for 2 models", lambda d: Committee(LINEAR, LINEAR, weights=[0, 1])),
    ("a word that is no weight", ValueError, "'accuracy' for 2 models", lambda d: Committee(LINEAR, LINEAR, weights="accuracy")),
    ("a committee that disagrees about classes", ValueError, r"shapes \(8, 3\), \(8, 48\)", lambda d: Committee(LINEAR, nn.Flatten())(PICTURES.columns[0])),
    ("mutual learning alone", TypeError, "needs several models", lambda d: mutual_learning()(LINEAR, *PICTURES.columns)),
]  # fmt: skip

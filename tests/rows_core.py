"""Bad input to the core: (cause, exception, words of its sentence, what the user did)."""

import math

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ftlearn import (
    Columns,
    Step,
    accumulate,
    accuracy,
    adapt_input,
    binary_cross_entropy,
    cache,
    cross_entropy,
    evaluate,
    fit,
    freeze,
    glyphnet,
    knn,
    linear_probe,
    load_checkpoint,
    mse,
    replace_head,
    save_checkpoint,
    split,
    tap,
    train,
)
from ftlearn.features import nearest_class_mean, pseudo_labels
from ftlearn.labels import draw
from ftlearn.schedules import cosine
from ftlearn.training import predict
from ftlearn.weights import load_into, load_weights, save_weights

X, Y = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
SET = Columns(X, Y, batch_size=4)


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def norm_net():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr)


def step(model=None, objective=None):
    model = model or net()
    return Step(model, objective or cross_entropy(), sgd(model))


def run(y, x=X, objective=None, model=None):
    return fit(step(model, objective), Columns(x, y, batch_size=4))


def half_frozen(optimizer_first):
    model = net()
    optimizer = sgd(model) if optimizer_first else sgd(model[2])
    if optimizer_first:
        freeze(model[0])
    Step(model, cross_entropy(), optimizer)


def other_model():
    model = net()
    Step(model, cross_entropy(), sgd(net()))


def idle_layer():
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "idle": nn.Linear(4, 3)})
    model.forward = lambda x: model["used"](x)
    fit(step(model), SET)


def broken_images(value):
    x = X.clone()
    x[5, 0] = value
    fit(step(), Columns(x, Y, batch_size=4))


def another_run(folder, build):
    """Save a run of `net`, then load it into the step that `build` makes."""
    save_checkpoint(folder / "run.safetensors", step(), 1)
    load_checkpoint(folder / "run.safetensors", build())


def in_two_groups():
    model = net()
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]
    return Step(model, cross_entropy(), torch.optim.SGD(groups, 0.1))


def frozen_start():
    model = net()
    freeze(model[0])
    return Step(model, cross_entropy(), sgd(model[2]))


def hooked():
    model = net()
    return Step(model, cross_entropy(), sgd(model), after=[lambda: None])


def changed(folder, edit):
    """Save weights, change the file's bytes, load them."""
    path = folder / "net.safetensors"
    save_weights(path, net().state_dict(), {"name": "net"})
    path.write_bytes(edit(path.read_bytes()))
    load_weights(path)


def one_bit(folder):
    """Save a run, change the last bit of the file, load it."""
    path = folder / "run.safetensors"
    save_checkpoint(path, step(), 1)
    path.write_bytes(flip(path.read_bytes()))
    load_checkpoint(path, step())


def adamw():
    model = net()
    return Step(model, cross_entropy(), torch.optim.AdamW(model.parameters()))


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def wider(folder):
    path = folder / "net.safetensors"
    save_weights(path, net().state_dict(), {"name": "net"})
    state, _ = load_weights(path)
    load_into(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), state)


ROWS = [
    # data
    ("no columns", ValueError, "There are no examples", lambda d: Columns()),
    ("an empty column", ValueError, "There are no examples", lambda d: Columns(X[:0])),
    ("columns of two lengths", ValueError, r"Column 1 has shape \(7,\)", lambda d: Columns(X, Y[:7])),
    ("a batch of nothing", ValueError, "batch_size is 0", lambda d: Columns(X, batch_size=0)),
    ("half a batch", ValueError, "batch_size is 2.5", lambda d: Columns(X, batch_size=2.5)),
    ("an unknown setting", TypeError, "no setting 'shufle'", lambda d: SET.like(shufle=True)),
    # objectives
    ("smoothing of 1", ValueError, "label_smoothing is 1", lambda d: cross_entropy(1)),
    ("a negative class weight", ValueError, "none of them negative", lambda d: cross_entropy(weight=[1, -1, 1])),
    ("a label too high", ValueError, "run from 0 to 3, but the model has 3", lambda d: run(Y + (Y == 2))),
    ("a negative label", ValueError, "run from -1 to 1", lambda d: run(Y - 1)),
    ("labels of another type", ValueError, "labels are torch.int32", lambda d: run(Y.int())),
    ("float labels", ValueError, "labels are torch.float32 of shape", lambda d: run(Y.float())),
    ("labels with a column too many", ValueError, r"labels have shape \(4, 1\)", lambda d: run(Y[:, None])),
    ("class weights for other classes", ValueError, "2 class weights for 3", lambda d: run(Y, objective=cross_entropy(weight=[1, 2]))),
    ("logits without classes", ValueError, r"returned shape \(12,\)", lambda d: run(Y, model=nn.Sequential(net(), nn.Flatten(0)))),
    ("a model that returns a tuple", TypeError, "returned a tuple", lambda d: run(Y, model=type("Two", (nn.Linear,), {"forward": lambda s, x: (nn.Linear.forward(s, x),) * 2})(4, 3))),
    ("shapes that would broadcast", ValueError, r"returned shape \(4, 3\) and the targets have \(4,\)", lambda d: run(Y, objective=mse())),
    ("yes-or-no targets of another shape", ValueError, r"targets have \(4, 2\)", lambda d: run(torch.zeros(8, 2), objective=binary_cross_entropy())),
    # training
    ("nothing to train", ValueError, "Nothing is trainable", lambda d: Step(freeze(m := net()), cross_entropy(), sgd(m))),
    ("a trainable layer outside the optimizer", ValueError, "'0.weight' is trainable but not in", lambda d: half_frozen(False)),
    ("a frozen layer in the optimizer", ValueError, "'0.weight' is frozen but in", lambda d: half_frozen(True)),
    ("a loss of torch's as objective", TypeError, r"'CrossEntropyLoss\(\)', not called as", lambda d: step(objective=nn.CrossEntropyLoss())),
    ("the class of a loss", TypeError, "'CrossEntropyLoss', not called", lambda d: step(objective=nn.CrossEntropyLoss)),
    ("a function of torch's as objective", TypeError, "'mse_loss', not called", lambda d: step(objective=F.mse_loss)),
    ("an objective without its parentheses", TypeError, "'cross_entropy', not called", lambda d: step(objective=cross_entropy)),
    ("the name of an objective", TypeError, "'mse', not called", lambda d: step(objective="mse")),
    ("the class of an optimizer", TypeError, "torch.optim.sgd.SGD.*not one that was built", lambda d: Step(net(), cross_entropy(), torch.optim.SGD)),
    ("the name of an optimizer", TypeError, "optimizer is 'sgd', not one", lambda d: Step(net(), cross_entropy(), "sgd")),
    ("an optimizer of another model", ValueError, "4 parameters that are not in this model", lambda d: other_model()),
    ("a layer that takes no part", ValueError, "'idle.weight' is trainable but took no part", lambda d: idle_layer()),
    ("a bare tensor as data", TypeError, "data is a Tensor", lambda d: fit(step(), X)),
    ("a tuple to validate on", TypeError, "valid is a tuple", lambda d: fit(step(), SET, (X, Y))),
    ("a tuple to score", TypeError, "data is a tuple", lambda d: evaluate(net(), (X, Y))),
    ("an array to predict", TypeError, "data is a ndarray", lambda d: predict(net(), X.numpy())),
    ("a number as schedule", TypeError, "schedule is '0.1', not a function", lambda d: fit(step(), SET, schedule=0.1)),
    ("the name of a schedule", TypeError, "schedule is 'linear', not", lambda d: train(step(), SET, schedule="linear")),
    ("a scheduler of torch's", TypeError, "StepLR object", lambda d: fit(s := step(), SET, schedule=torch.optim.lr_scheduler.StepLR(s.optimizer, 3))),
    ("a schedule without its parentheses", TypeError, "schedule is 'cosine', not", lambda d: fit(step(), SET, schedule=cosine)),
    ("a run that is done", ValueError, "All 4 updates of this run are done", lambda d: fit(step(), SET, epochs=2, start=4)),
    ("no epochs", ValueError, "epochs is 0", lambda d: fit(step(), SET, epochs=0)),
    ("a start past the end", ValueError, "start is 9, but 2 epochs of 2 updates end at 4", lambda d: train(step(), SET, epochs=2, start=9)),
    ("a batch of one under batch normalisation", ValueError, "'1' cannot normalise over a batch of one", lambda d: fit(step(norm_net()), Columns(X[:5], Y[:5], batch_size=4))),
    ("slices under batch normalisation", ValueError, "'1' normalises over the batch", lambda d: accumulate(step(norm_net()), 2)),
    ("no slices", ValueError, "slices is 0", lambda d: accumulate(step(), 0)),
    ("NaN in the images", FloatingPointError, "nan at update 1 of epoch 0.*column 0 of its batch holds NaN", lambda d: broken_images(float("nan"))),
    ("a rate that explodes", FloatingPointError, "batch is clean, so lower the learning rate", lambda d: fit(Step(m := net(), cross_entropy(), sgd(m, 1e38)), SET, epochs=3)),
    ("a schedule that falls below 0", ValueError, "'lr' is -0.5 at progress 0.5", lambda d: fit(step(), SET, schedule=lambda p: 1 - 3 * p)),
    ("a schedule that goes to infinity", ValueError, "'lr' is inf at progress 0.5", lambda d: fit(step(), SET, schedule=lambda p: math.inf if p else 1)),
    ("a schedule that returns nothing", ValueError, "'lr' is a NoneType at progress 0", lambda d: fit(step(), SET, schedule=lambda p: None)),
    ("momentum where there is none", ValueError, "factor for 'momentum', which this optimizer", lambda d: fit(Step(m := net(), cross_entropy(), torch.optim.Adagrad(m.parameters())), SET, schedule=lambda p: {"momentum": 1})),
    ("accuracy on soft labels", ValueError, "labels are probabilities", lambda d: evaluate(net(), Columns(X, torch.full((8, 3), 1 / 3)), accuracy)),
    ("accuracy on labels with a column too many", ValueError, r"labels have shape \(8, 1\), the predictions \(8, 3\)", lambda d: evaluate(net(), Columns(X, Y[:, None]))),
    ("accuracy of one number per example", ValueError, r"the predictions \(8,\)", lambda d: evaluate(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), Columns(X, Y))),
    ("accuracy on labels beyond the outputs", ValueError, "run from 0 to 3, but the model has 3 outputs: accuracy", lambda d: evaluate(net(), Columns(X, Y + (Y == 2)))),
    ("accuracy where no label is known", ValueError, "run from -100 to -100", lambda d: fit(step(), SET, Columns(X, Y * 0 - 100))),
    ("a metric that averages", ValueError, r"returned shape \(\) for 8", lambda d: evaluate(net(), Columns(X, Y), lambda p, x, y: p.mean())),
    # features
    ("an unfrozen module in the cache", ValueError, "cache needs a frozen module", lambda d: cache(net(), SET)),
    ("a column that is not there", ValueError, "no column 2", lambda d: cache(freeze(net()), SET, column=2)),
    ("a probe for a class without examples", ValueError, "Class 1 has no example", lambda d: linear_probe(Columns(X, Y * 2))),
    ("a probe on unknown labels", ValueError, "the least -1: a head is fitted by class numbers", lambda d: linear_probe(Columns(X, Y - 1))),
    ("neighbours of unknown labels", ValueError, "the least -2: a head is", lambda d: knn(Columns(X, Y - 2))),
    ("means of float labels", ValueError, "are torch.float32 of shape", lambda d: nearest_class_mean(Columns(X, Y.float()))),
    ("a probe on labels with a column too many", ValueError, r"shape \(8, 1\), the least", lambda d: linear_probe(Columns(X, Y[:, None]))),
    ("a probe without labels", ValueError, "The set has one column", lambda d: linear_probe(Columns(X))),
    ("a probe on images", ValueError, r"uint8 of shape \(8, 1, 2, 2\), no features: cache", lambda d: linear_probe(Columns(X.view(8, 1, 2, 2).byte(), Y))),
    ("guesses from images", ValueError, r"uint8 of shape \(7, 1, 2, 2\), no features", lambda d: pseudo_labels(Columns(X.view(8, 1, 2, 2).byte(), Y), torch.arange(7))),
    ("more neighbours than examples", ValueError, "k is 9, but there are 8", lambda d: knn(SET, k=9)),
    # models
    ("an unknown stage", ValueError, "'layer9'.*layer3", lambda d: split(glyphnet(), "layer9")),
    ("a cut inside a residual block", ValueError, "cannot cut|[Cc]annot", lambda d: split(glyphnet(), "layer2.conv2")),
    ("a head of no classes", ValueError, "number of classes for the head .* is 0", lambda d: replace_head(glyphnet(), 0)),
    ("a model without a linear head", ValueError, "has no linear head", lambda d: replace_head(nn.Sequential(nn.Conv2d(1, 2, 3)), 3)),
    ("no channels", ValueError, "channels is 0", lambda d: adapt_input(glyphnet(), 0)),
    ("an image without a batch", ValueError, r"got shape \(8, 8\)", lambda d: glyphnet()(torch.zeros(8, 8))),
    ("an unknown layer to tap", ValueError, "layer7", lambda d: tap(glyphnet(), ["layer7"])),
    ("weights that are not bundled", ValueError, "'cats'", lambda d: glyphnet(weights="cats")),
    # files
    ("no checkpoint", FileNotFoundError, "There is no checkpoint", lambda d: load_checkpoint(d / "none", step())),
    ("a checkpoint that is no such file", ValueError, "damaged or not a safetensors file", lambda d: ((d / "x").write_text("hello"), load_checkpoint(d / "x", step()))),
    ("weights instead of a checkpoint", ValueError, "is no checkpoint", lambda d: (save_file({"a": X}, d / "x"), load_checkpoint(d / "x", step()))),
    ("a checkpoint of another model", ValueError, r"'0.weight'.*\(5, 4\).*\(6, 4\)|'0.weight'.*\(6, 4\).*\(5, 4\)", lambda d: another_run(d, lambda: step(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))))),
    ("a checkpoint of another phase", ValueError, "was trainable, but it is frozen now", lambda d: another_run(d, frozen_start)),
    ("a checkpoint of another optimizer", ValueError, r"groups of \[4\] parameters", lambda d: another_run(d, in_two_groups)),
    ("a checkpoint of another kind of optimizer", ValueError, "with the optimizer SGD, this step has AdamW", lambda d: another_run(d, adamw)),
    ("a bit that changed in a checkpoint", ValueError, "its SHA-256 is another", one_bit),
    ("a checkpoint of less than no updates", ValueError, "done is -3: give", lambda d: save_checkpoint(d / "x", step(), -3)),
    ("a checkpoint of a text of updates", ValueError, "done is '3': give", lambda d: save_checkpoint(d / "x", step(), "3")),
    ("a checkpoint of other hooks", ValueError, "with 0 after-hooks, this step has 1", lambda d: another_run(d, hooked)),
    ("no weights", FileNotFoundError, "none.safetensors", lambda d: load_weights(d / "none.safetensors")),
    ("a weights file cut short", ValueError, "net.safetensors", lambda d: changed(d, lambda b: b[:-40])),
    ("a changed byte", ValueError, "SHA-256", lambda d: changed(d, flip)),
    ("weights of another width", ValueError, r"'0.weight'.*\(5, 4\).*\(6, 4\)", wider),
    # the experiment
    ("a draw of more than there is", ValueError, "only 2 examples", lambda d: draw(Y, 3, 0)),
]  # fmt: skip

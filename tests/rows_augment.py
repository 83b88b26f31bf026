"""Bad augmentation, mixing and cleaning: (cause, exception, words of its sentence, what the user did)."""

import torch
from rows_core import SET, X
from torch import nn

from ftlearn import Columns, HeldOut, cache, freeze, mse
from ftlearn.augment import (
    augment,
    cutmix,
    l2_sp,
    margin,
    mixup,
    out_of_fold,
    oversample,
    soft_targets,
    suspects,
    twins,
    views,
)
from ftlearn.features import linear_probe
from ftlearn.transforms import Affine, Blur, Colour, Crop, Each, Elastic, Erase, Flip, Noise

PICTURES = Columns(torch.zeros(8, 3, 6, 5, dtype=torch.uint8), torch.arange(8) % 3)
FLAT = freeze(nn.Flatten())
HALF = torch.full((8, 3), 0.5)
FLOATS = Columns(torch.linspace(-2, 2, 90).view(1, 3, 6, 5).repeat(8, 1, 1, 1), torch.arange(8) % 3)
LONELY = Columns(X, torch.tensor([0, 0, 0, 1, 1, 1, 1, 2]))

ROWS = [
    # sets
    ("augmenting nothing", ValueError, "augment needs a transform", lambda d: augment(PICTURES)),
    ("a word as a transform", TypeError, "'flip' is no transform", lambda d: augment(PICTURES, "flip")),
    ("augmenting a list", TypeError, "data is a list", lambda d: augment([1, 2], Flip())),
    ("augmenting what are no images", ValueError, "only images", lambda d: augment(SET, Flip())),
    ("augmenting a test set", ValueError, "A held-out set is there to measure", lambda d: augment(HeldOut(*PICTURES.columns), Flip())),
    ("augmenting features", ValueError, "Column 0 was computed", lambda d: augment(cache(FLAT, PICTURES), Flip())),
    ("augmenting under a teacher's logits", ValueError, "Column 2 was computed", lambda d: augment(cache(FLAT, PICTURES, append=True), Flip())),
    ("caching an augmented set", ValueError, r"cache\(body, views\(data, k\)\)", lambda d: cache(FLAT, augment(PICTURES, Flip()))),
    ("a negative seed of augmentation", ValueError, "seed is -1", lambda d: augment(PICTURES, Flip(), seed=-1)),
    ("a transform that changes the type", ValueError, "has to keep both", lambda d: augment(PICTURES, lambda x, random: x.float())),
    ("a transform of one image", TypeError, r"write Each\(...\) around it", lambda d: augment(PICTURES, nn.Identity())),
    ("a class as a transform", TypeError, r"Flip is a class: write Flip\(\)", lambda d: augment(PICTURES, Flip)),
    ("a list of transforms", TypeError, "The transforms are in a list", lambda d: augment(PICTURES, [Flip(), Crop(1)])),
    ("a seed for what has one", ValueError, "the set is augmented already", lambda d: views(augment(PICTURES, Flip()), 2, seed=1)),
    ("a probe on an augmented set", ValueError, "change from epoch to epoch", lambda d: linear_probe(augment(PICTURES, Flip()))),
    ("half a view", ValueError, "k is 0.5", lambda d: views(PICTURES, 0.5, Flip())),
    # mixing
    ("soft targets that do not sum to one", ValueError, "row 0 .* sum to 1.500", lambda d: mixup(Columns(PICTURES.columns[0], HALF), 3)),
    ("labels where soft targets are needed", ValueError, "soft targets are a probability", lambda d: soft_targets(torch.ones(8), 3)),
    ("a label above the classes", ValueError, "from 0 to 1", lambda d: mixup(PICTURES, 2)),
    ("mixing with an alpha of zero", ValueError, "alpha is 0", lambda d: cutmix(PICTURES, 3, alpha=0)),
    ("mixing three columns", ValueError, "The set has 3 columns", lambda d: mixup(Columns(*PICTURES.columns, HALF), 3)),
    ("half a class", ValueError, "classes is 2.5", lambda d: mixup(PICTURES, 2.5)),
    ("other classes than those mixed before", ValueError, "a mixup of 3 classes", lambda d: cutmix(mixup(PICTURES, 3), 4)),
    ("mixing batches of one", ValueError, "larger batch_size", lambda d: mixup(PICTURES.like(batch_size=1), 3)),
    # transforms
    ("noise on normalised images", ValueError, "but these go from -2 to 2", lambda d: augment(FLOATS.like(batch_size=8), Noise())),
    ("a grey value that bytes cannot hold", ValueError, "fill=300: the images are uint8", lambda d: augment(PICTURES, Crop(1, fill=300))),
    ("three grey values", ValueError, r"fill=\[0, 0, 0\]: give a grey value", lambda d: Crop(1, fill=[0, 0, 0])),
    ("whole batches one by one", ValueError, "leave Each away", lambda d: Each(Flip())),
    ("a transform of one image that cuts it", ValueError, "keeps the shape", lambda d: augment(PICTURES, Each(lambda image: image[:, 1:]))),
    ("a crop larger than the image", ValueError, "Crop cannot have pad=5: images of 6x5", lambda d: augment(PICTURES, Crop(5))),
    ("an unknown fill", ValueError, "fill='mirror': give a grey value", lambda d: Crop(1, fill="mirror")),
    ("a fill that cannot be erased with", ValueError, "Erase cannot have fill='edge'", lambda d: Erase(fill="edge")),
    ("a negative turn", ValueError, "Affine cannot have turn=-5", lambda d: Affine(-5)),
    ("a negative bend", ValueError, "Elastic cannot have bend=-1", lambda d: Elastic(-1)),
    ("a negative blur", ValueError, "Blur cannot have sigma=-1", lambda d: Blur(-1)),
    ("a negative noise", ValueError, "Noise cannot have strength=-1", lambda d: Noise(-1)),
    ("a contrast that is no number", ValueError, "Colour cannot have contrast=nan", lambda d: Colour(contrast=float("nan"))),
    ("a share above one", ValueError, "Flip cannot have share=2", lambda d: Flip(2)),
    # model and labels
    ("a pull that pushes", ValueError, "strength is -1", lambda d: l2_sp(mse(), nn.Linear(2, 2), -1)),
    ("balancing soft targets", ValueError, "class numbers only", lambda d: oversample(Columns(X, torch.ones(8, 3)))),
    ("a pull of nothing", TypeError, "model is a function", lambda d: l2_sp(nn.Linear(2, 2), mse(), 0.1)),
    ("a pull of a new module that is not there", ValueError, "no module 'hed'", lambda d: l2_sp(mse(), nn.Sequential(nn.Linear(2, 2)), 0.1, new="hed")),
    ("balancing a test set", ValueError, "A held-out set is there to measure", lambda d: oversample(HeldOut(X, torch.zeros(8).long()))),
    ("a class of one example", ValueError, "Class 2 has 1 row in one fold", lambda d: suspects(LONELY)),
    ("judging by soft targets", ValueError, "class numbers only", lambda d: suspects(Columns(X, HALF))),
    ("groups of some rows", ValueError, "give 8 whole numbers", lambda d: out_of_fold(SET, groups=[1, 2])),
    ("the margin of probabilities of one class", ValueError, "2 or more", lambda d: margin(torch.zeros(4, 1))),
    ("twins of another size", ValueError, "bring both to one size", lambda d: twins(PICTURES, Columns(torch.zeros(2, 3, 6, 6)))),
    ("twins of features", ValueError, "only images", lambda d: twins(SET, SET)),
    ("twins far apart", ValueError, "shift is 3: give a whole number of pixels from 0 to 2", lambda d: twins(PICTURES, PICTURES, shift=3)),
    ("a single fold", ValueError, "folds is 1", lambda d: out_of_fold(SET, folds=1)),
]  # fmt: skip

"""Bad augmentation, mixing and cleaning: (cause, exception, words of its sentence, what the user did)."""

import torch
from rows_core import SET, X
from torch import nn

from ftlearn import Columns, HeldOut, cache, freeze, mse
from ftlearn.augment import (
    augment,
    cutmix,
    l2_sp,
    mixup,
    out_of_fold,
    oversample,
    soft_targets,
    views,
)
from ftlearn.transforms import Affine, Blur, Colour, Crop, Elastic, Erase, Flip, Noise

PICTURES = Columns(torch.zeros(8, 3, 6, 5, dtype=torch.uint8), torch.arange(8) % 3)
FLAT = freeze(nn.Flatten())
HALF = torch.full((8, 3), 0.5)

ROWS = [
    # sets
    ("augmenting nothing", ValueError, "augment needs a transform", lambda d: augment(PICTURES)),
    ("a word as a transform", TypeError, "'flip' is no transform", lambda d: augment(PICTURES, "flip")),
    ("augmenting a list", TypeError, "data is a list", lambda d: augment([1, 2], Flip())),
    ("augmenting what are no images", ValueError, "only images", lambda d: augment(SET, Flip())),
    ("augmenting a test set", ValueError, "A held-out set is there to measure", lambda d: augment(HeldOut(*PICTURES.columns), Flip())),
    ("augmenting features", ValueError, "Column 0 was computed", lambda d: augment(cache(FLAT, PICTURES), Flip())),
    ("augmenting under a teacher's logits", ValueError, "Column 2 was computed", lambda d: augment(cache(FLAT, PICTURES, append=True), Flip())),
    ("caching an augmented set", ValueError, r"cache views\(data, k\)", lambda d: cache(FLAT, augment(PICTURES, Flip()))),
    ("a negative seed of augmentation", ValueError, "seed is -1", lambda d: augment(PICTURES, Flip(), seed=-1)),
    ("a transform that changes the type", ValueError, "has to keep both", lambda d: augment(PICTURES, lambda x, random: x.float())),
    ("half a view", ValueError, "k is 0.5", lambda d: views(PICTURES, 0.5, Flip())),
    # mixing
    ("soft targets that do not sum to one", ValueError, "row 0 .* sum to 1.500", lambda d: mixup(Columns(PICTURES.columns[0], HALF), 3)),
    ("labels where soft targets are needed", ValueError, "soft targets are a probability", lambda d: soft_targets(torch.ones(8), 3)),
    ("a label above the classes", ValueError, "from 0 to 1", lambda d: mixup(PICTURES, 2)),
    ("mixing with an alpha of zero", ValueError, "alpha is 0", lambda d: cutmix(PICTURES, 3, alpha=0)),
    ("mixing three columns", ValueError, "The set has 3 columns", lambda d: mixup(Columns(*PICTURES.columns, HALF), 3)),
    # transforms
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
    ("a single fold", ValueError, "folds is 1", lambda d: out_of_fold(SET, folds=1)),
]  # fmt: skip

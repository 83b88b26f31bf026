"""Pages made of what the project stores: benchmarks, changes, peers, and the tests as proofs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEST = re.compile(r"`tests/(test_\w+)\.py::(test_\w+)`")
THREAD = re.compile(r"(?<![\w/`-])([A-Za-z][\w.-]*)#(\d+)")
OWNERS = {  # where the threads are that symptoms are reported in; others stay plain text
    "accelerate": "huggingface/accelerate",
    "autogluon": "autogluon/autogluon",
    "d2l": "d2l-ai/d2l-en",
    "fastai": "fastai/fastai",
    "fastbook": "fastai/fastbook",
    "finetuning-scheduler": "speediedan/finetuning-scheduler",
    "keras": "keras-team/keras",
    "keras-io": "keras-team/keras-io",
    "lightly": "lightly-ai/lightly",
    "lightning": "Lightning-AI/pytorch-lightning",
    "mmpretrain": "open-mmlab/mmpretrain",
    "nbdev": "AnswerDotAI/nbdev",
    "onnxruntime": "microsoft/onnxruntime",
    "peft": "huggingface/peft",
    "pytorch": "pytorch/pytorch",
    "timm": "huggingface/pytorch-image-models",
    "transformers": "huggingface/transformers",
    "tutorials": "pytorch/tutorials",
    "ultralytics": "ultralytics/ultralytics",
    "vision": "pytorch/vision",
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


def fill(app, docname, source):
    """Put the results where a page asks for them: `<!-- results:benchmarks -->` and so on."""
    if docname == "peers":
        import peers

        source[0] = peers.page()
    if docname == "findings":
        source[0] = on_site(source[0])
    if docname == "symptoms":
        source[0] = linked(source[0])
    for make in (benchmarks, changes, contributing, tests):
        mark = f"<!-- results:{make.__name__} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, make())


def setup(app):
    """Fill pages when they are read."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The reference: one page a module, written from its docstrings, each name linked to its lesson."""

import ast
import inspect
import re
import shutil
from functools import cache
from importlib import import_module
from pathlib import Path

from course import by_module, label, lessons

import ftlearn

LESSON = re.compile(r"\b([Ll]esson) (\d\d)\b")
CHECKER = re.compile(r"ex\w+_\d")  # one for each exercise: they are on the module's page
FOLDER = Path(__file__).resolve().parents[1] / "reference"
GROUPS = {
    "Data and models": "data glyphs models losses training",
    "Fine-tuning": "freezing features rates schedules recipes augment transforms distill",
    "From a folder of photos to a model": "finetuned photos survey folder backbones weights",
    "Speed, files and long runs": "speed store checkpoint runs",
    "Show, check, diagnose": "explore check doctor lesson_files",
    "Experiments": "experiment labels shapes methods remedies students pretrain command",
}


def names_of(module):
    """(name, value) of what a module builds itself, what `from ftlearn import` knows first.

    What a module only hands on is documented where it is built.
    """
    found = import_module(f"ftlearn.{module}")
    pairs = [(name, getattr(found, name)) for name in found.__all__]
    home = found.__name__
    own = [(name, thing) for name, thing in pairs if made_in(thing) in (None, home)]
    last = lambda pair: (pair[0] not in public(module), not described(pair[1]))
    return sorted(own, key=last)


def described(thing):
    """Whether a value has a docstring of its own: functions and classes do, constants do not."""
    return inspect.isroutine(thing) or inspect.isclass(thing)


@cache
def comments(module):
    """What the source says of its constants: the comment behind or above each."""
    path = Path(ftlearn.__file__).parent / f"{module}.py"
    lines = path.read_text(encoding="utf-8").splitlines()
    said = {}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.Assign):
            behind = re.search(r"  # (?!type:|noqa|fmt)(.+)$", lines[node.end_lineno - 1])
            above = re.match(r"# (?!%%|\|)(.+)$", lines[node.lineno - 2])
            text = (behind or above or ["", ""])[1]
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            said |= dict.fromkeys(names, text)
    return said


def constant(module, name, thing):
    """A constant in a line: what its comment says, and its value if that is short."""
    value = re.sub(r"\s+", " ", repr(thing)).replace("`", "'")
    value = f"``{value}``" if len(value) < 70 and " at 0x" not in value else ""
    text = comments(module).get(name, "")
    text = f"{text[:1].upper()}{text[1:]}".rstrip(".")
    return " ".join(filter(None, [text and f"{text}.", value])) or f"A {type(thing).__name__}."


def made_in(thing):
    """Module that defines a function or a class; of an instance, the one that is asked about."""
    return thing.__module__ if hasattr(thing, "__qualname__") else None


def public(module):
    """Names of a module that `from ftlearn import ...` knows."""
    return ftlearn._PUBLIC.get(module, "").split()


def summary(module, name, thing):
    """The first line of a docstring, or what is said of a constant."""
    if described(thing):
        return (inspect.getdoc(thing) or "").partition("\n")[0]
    return constant(module, name, thing)


def directive(module, name, thing):
    """How autodoc is told to show a name."""
    kind = "class" if inspect.isclass(thing) else "function" if inspect.isroutine(thing) else "data"
    fields = ", ".join(getattr(thing, "_fields", ())) or "__none__"  # a tuple's: in its docstring
    members = f"   :members:\n   :exclude-members: {fields}\n"
    option = {"class": members, "data": "   :no-value:\n"}.get(kind, "")
    return f"```{{eval-rst}}\n.. auto{kind}:: ftlearn.{module}.{name}\n{option}```\n"


def source(page):
    """The link to the notebook that exports a module, from a page in reference/."""
    kind = f"lesson {page.number}" if page.number else "the tool"
    return f"[{kind}, {page.title}](../lessons/{page.name}.ipynb): *{page.question}*"


def module_page(module, page):
    """One module: its lesson, a table of its names, then each in full."""
    names = names_of(module)
    lines = [f"# ftlearn.{module}", "", f"Built in {source(page)}", ""]
    if public(module):
        lines += [f"`from ftlearn import {', '.join(public(module))}`", ""]
    lines += ["| name | what it is |", "| --- | --- |"]
    for name, thing in names:
        said = summary(module, name, thing).replace("|", "\\|")
        lines.append(f"| {{py:obj}}`~ftlearn.{module}.{name}` | {said} |")
    lines += ["", *(directive(module, name, thing) for name, thing in names)]
    return "\n".join(lines) + "\n"


def entry(module, page):
    """A module in the list: its question, what is imported from the top, and what from itself."""
    links = {True: [], False: []}
    for name, _ in names_of(module):
        if not CHECKER.fullmatch(name):
            links[name in public(module)].append(link(module, name))
    first, rest = (" · ".join(links[top]) for top in (True, False))
    head = f"[ftlearn.{module}]({module}.md): *{page.question}*"
    lines = [f"{head}\\\n{first}" if first else head, ""]
    if rest:
        also = " also" * bool(first)
        lines += [f":::{{div}} rest\nin the module{also}: {rest}\n:::", ""]
    return lines


def index(pages):
    """The list of modules, grouped as a reader looks for them."""
    lines = [
        "# Look up",
        "",
        "Every public name, with the lesson that builds it. Those in the first",
    ]
    lines += ["line of a module are imported from `ftlearn`, all others from the module.", ""]
    for group, modules in GROUPS.items():
        lines += [f"## {group}", ""]
        for module in modules.split():
            lines += entry(module, pages[module])
    lines += ["```{toctree}", ":hidden:", "", "../glossary", "```", ""]
    for group, modules in GROUPS.items():
        lines += ["```{toctree}", ":hidden:", f":caption: {group}", "", *modules.split(), "```", ""]
    return "\n".join(lines)


def link(module, name):
    """A name as a link to its entry."""
    return f"{{py:obj}}`~ftlearn.{module}.{name}`"


def prepare(app, config):
    """Write the pages anew; every module must be in a group."""
    pages = by_module()
    listed = {m for modules in GROUPS.values() for m in modules.split()}
    if listed != set(pages):
        raise ValueError(f"reference.GROUPS and nbs/ differ in {sorted(listed ^ set(pages))}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "index.md").write_text(index(pages), encoding="utf-8")
    for module, page in pages.items():
        (FOLDER / f"{module}.md").write_text(module_page(module, page), encoding="utf-8")


def built(app, what, name, thing, options, lines):
    """Link the lessons that an entry names, and end it with the cell that builds it."""
    _, module, *rest = name.split(".")
    if what == "data":
        lines[:] = [constant(module, rest[0], thing), ""]
    lines[:] = [LESSON.sub(lesson_link, line) for line in lines]
    if len(rest) != 1 or what == "module":
        return
    page = by_module()[module]
    kind = f"lesson {page.number}" if page.number else f"the tool {page.title}"
    lines += ["", f"*Built in* :ref:`{kind} <{label(module, rest[0])}>`.", ""]


def lesson_link(found):
    """`lesson 05` as a link to it, where it exists."""
    page = next((page for page in lessons() if page.number == found[2]), None)
    return f":doc:`{found[0]} </lessons/{page.name}>`" if page else found[0]


def readable(app, what, name, thing, options, signature, result):
    """Signatures without what only Python's memory knows."""
    return (re.sub("<factory>", "...", signature), result) if signature else None


def setup(app):
    """Run after the lessons are in place."""
    app.connect("config-inited", prepare)
    app.connect("autodoc-process-docstring", built, priority=900)
    app.connect("autodoc-process-signature", readable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

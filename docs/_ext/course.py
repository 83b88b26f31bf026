"""Lessons become pages: nbs/ is copied, made readable for the site, and listed as a course.

What a notebook says to nbdev and nbval (`#| export`, `# NBVAL_IGNORE_OUTPUT`) is obeyed and taken
out; a stored picture becomes a file with its text; an exported cell links to its reference.
"""

import ast
import base64
import io
import json
import re
import shutil
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import import_module
from pathlib import Path

import ftlearn

DOCS = Path(__file__).resolve().parents[1]
NOTEBOOKS = DOCS.parent / "nbs"
FIGURES = DOCS / "_static" / "figures"
ORIGINALS = DOCS / "_static" / "notebooks"
DIRECTIVE = re.compile(r"^#[ ]*\|[ ]*([\w-]+)[ ]*:?[ ]*(.*)\n?", re.M)
NBVAL = re.compile(r"^#\s*NBVAL_\w+\n?", re.M)
# What is left alone: fenced code, headings, links, tables of contents, raw HTML, formulas.
PROTECTED = re.compile(
    r"(```.*?```|^#+ .*?$|\[[^\]]*\]\([^)]*\)|<[^>]+>|\$\$.*?\$\$|\$[^$\n]+\$)", re.S | re.M
)
COLAB = re.compile(r"\[Open in Colab\]\((\S+)\)")
WORDS_A_MINUTE, LINES_A_MINUTE = 180, 25


@dataclass(frozen=True)
class Page:
    """One notebook: where it is, what it asks, and the module that it exports."""

    path: Path

    @property
    def name(self):
        """Its place in nbs/ without the ending: ``05_freezing`` or ``tools/store``."""
        return self.path.relative_to(NOTEBOOKS).with_suffix("").as_posix()

    @property
    def up(self):
        """The way from its page to the top of the site."""
        return "../" * (self.name.count("/") + 1)

    @property
    def up_to_nbs(self):
        """The way from the notebook to the lessons, as its own links go."""
        return "../" * self.name.count("/")

    @property
    def cells(self):
        """The stored cells."""
        return _cells(self.path)

    @property
    def title(self):
        """The first heading."""
        return text(self.cells[0]).splitlines()[0].removeprefix("# ")

    @property
    def question(self):
        """The line under the title."""
        line = next(line for line in text(self.cells[0]).splitlines()[1:] if line.strip())
        return line.strip("*> ")

    @property
    def number(self):
        """``05`` of lesson 05; empty for a tool and for the first page."""
        found = re.match(r"\d\d", self.name)
        return found[0] if found else ""

    @property
    def module(self):
        """Name of the module that it exports, or None."""
        code = "\n".join(text(cell) for cell in self.cells if cell["cell_type"] == "code")
        found = re.search(r"^#\|\s*default_exp\s+(\w+)", code, re.M)
        return found and found[1]

    @property
    def minutes(self):
        """Minutes to read it, prose and code, rounded to five."""
        words = sum(len(text(c).split()) for c in self.cells if c["cell_type"] == "markdown")
        lines = sum(text(c).count("\n") + 1 for c in self.cells if c["cell_type"] == "code")
        return max(5, 5 * round((words / WORDS_A_MINUTE + lines / LINES_A_MINUTE) / 5))


@cache
def _cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text(cell):
    """The source of a cell as one string."""
    return "".join(cell["source"])


def lessons():
    """The course in order: index first, then by number."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"), key=lambda p: (p.stem != "index", p.stem))
    return [Page(path) for path in paths]


def tools():
    """The plumbing that the lessons use."""
    return [Page(path) for path in sorted((NOTEBOOKS / "tools").glob("*.ipynb"))]


def by_module():
    """Page of each module."""
    return {page.module: page for page in [*lessons(), *tools()] if page.module}


def exported(source, module):
    """Public names that an exported cell defines, in their order."""
    public = import_module(f"ftlearn.{module}").__all__
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = [n for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            found += [target.id for target in targets]
    return [name for name in dict.fromkeys(found) if name in public]


def label(module, name):
    """The anchor of the cell that builds a name; anchors know no capitals."""
    kind = "class-" if name[0].isupper() else ""
    return f"built-{module}-{kind}{name.lower()}".replace("_", "-")


def _markdown(page, name, source):
    return {
        "cell_type": "markdown",
        "id": f"{page.path.stem}-{name}",
        "metadata": {},
        "source": source,
    }


def _caption(page, names, number):
    """The anchors of an exported cell, and links to the reference of what it builds."""
    anchors = "".join(f"({label(page.module, name)})=\n" for name in names)
    links = ", ".join(f"{{py:obj}}`~ftlearn.{page.module}.{name}`" for name in names)
    body = f"{anchors}\n:::{{div}} exported\nIn the package: {links}\n:::"
    return _markdown(page, f"exported-{number}", body)


@cache
def _by_number():
    return {page.number: page for page in lessons() if page.number}


def linked(page, source, seen):
    """Prose whose lessons, and whose first mention of a public name, lead somewhere."""

    def lesson(found):
        target = _by_number().get(found[2])
        own = target is None or target.number == page.number
        return found[0] if own else f"[{found[0]}]({page.up_to_nbs}{target.path.name})"

    def name(found):
        word = found[1]
        if word in seen or word not in ftlearn._WHERE or ftlearn._WHERE[word] == page.module:
            return found[0]
        seen.add(word)
        return f"{{py:obj}}`{word} <ftlearn.{ftlearn._WHERE[word]}.{word}>`"

    parts = PROTECTED.split(source)
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"\b([Ll]esson) (\d\d)\b", lesson, parts[k])
        parts[k] = re.sub(r"(?<![`{}\w])`(\w+)`(?!`)", name, parts[k])
    return "".join(parts)


def _first(page, source):
    """The title's cell: question as a lead, minutes, and where else the notebook opens."""
    title, _, rest = source.partition("\n")
    rest = rest.lstrip("\n")
    lead, _, rest = rest.partition("\n\n")
    lead = lead.strip("*> ") if lead.lstrip().startswith(("*", ">")) else ""
    rest = rest if lead else source.partition("\n")[2]
    colab = COLAB.search(rest)
    links = [f'<span class="minutes">about {page.minutes} minutes</span>']
    notebook = f"{page.up}_static/notebooks/{page.path.name}"
    links.append(f'<a href="{notebook}" download>Download the notebook</a>')
    if colab:
        rest = rest.replace(colab[0], "")
        links.append(f'<a href="{colab[1]}">Open in Colab</a>')
    title = f"# {page.number} {page.title}".replace("#  ", "# ")
    head = f"{title}\n\n" + (f":::{{div}} question\n{lead}\n:::\n\n" if lead else "")
    return f'{head}<p class="opens">{" · ".join(links)}</p>\n\n{rest.strip()}'


def _picture(page, number, data, metadata):
    """A stored PNG as a file of its own with its text, in the place of the output."""
    name = f"{page.name.replace('/', '-')}-{number}.png"
    (FIGURES / name).write_bytes(base64.b64decode("".join(data["image/png"])))
    said = metadata.get("image/png", {})
    alt, width = escape(said["alt"]), said["width"]
    image = f'<img src="{page.up}_static/figures/{name}" alt="{alt}" width="{width}">'
    return {"text/html": f'<div class="figure" id="figure-{number}">{image}</div>'}


def _last_words(printed):
    """What a terminal would show of a line that was rewritten."""
    return re.sub(r"[^\n]*\r(?!\n)", "", printed)


def _joined(outputs):
    """Neighbouring pieces of what a cell printed as one; an untried exercise says nothing."""
    found = []
    for output in outputs:
        if output["output_type"] != "stream":
            found.append(output)
        elif found and found[-1].get("name") == output["name"]:
            found[-1]["text"] += "".join(output["text"])
        else:
            found.append(output | {"text": "".join(output["text"])})
    for output in found:
        if "text" in output:
            output["text"] = re.sub(
                r"^ex \S+ not tried yet\n?", "", _last_words(output["text"]), flags=re.M
            )
    return [output for output in found if output.get("text", True)]


def _outputs(page, cell, pictures):
    """The stored outputs, pictures as files."""
    cell["outputs"] = _joined(cell.get("outputs", []))
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            output["data"] = _picture(page, len(pictures) + 1, data, output["metadata"])
            output["metadata"] = {}
            pictures.append(output)
        elif "text/html" in data and "<table" in (html := "".join(data["text/html"])):
            data["text/html"] = f'<div class="wide" tabindex="0">{html}</div>'
    return cell


def readable(page):
    """The cells of a notebook as the site shows them."""
    pictures, built, named = [], set(), set()
    for number, cell in enumerate(json.loads(page.path.read_text(encoding="utf-8"))["cells"]):
        source = text(cell)
        if cell["cell_type"] == "markdown":
            source = linked(page, source, named)
            yield cell | {"source": _first(page, source) if number == 0 else source}
            continue
        said = dict(DIRECTIVE.findall(source))
        code = NBVAL.sub("", DIRECTIVE.sub("", source)).strip("\n")
        if {"hide", "default_exp"} & set(said) or not code:
            continue
        public = exported(code, page.module) if "export" in said else []
        names = [name for name in public if name not in built]
        if names:
            built.update(names)
            yield _caption(page, names, number)
        title = folded(code, "export" in said and not public, "code-fold" in said)
        shown = {"tags": ["hide-input"], "mystnb": {"code_prompt_show": title}} if title else {}
        yield _outputs(page, cell, pictures) | {"source": code, "metadata": shown}


def folded(code, private, asked):
    """The title of a cell that the site folds: imports, drawing, what is not for readers."""
    nodes = ast.parse(code).body
    lines = code.count("\n") + 1
    brought = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    if lines > 4 and sum(n.end_lineno - n.lineno + 1 for n in brought) > 0.6 * lines:
        return "Show the imports"
    if private and lines > 8:
        return "Show the plumbing"
    drawn = "panels(" in code and lines > 10 and not private
    return "Show the drawing" if asked or (drawn and "def _" not in code) else None


def write(page):
    """Write the page's notebook, its figures and a copy to download."""
    notebook = json.loads(page.path.read_text(encoding="utf-8"))
    notebook["cells"] = list(readable(page))
    target = DOCS / "lessons" / f"{page.name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")
    shutil.copy(page.path, ORIGINALS / page.path.name)


def thumbnail(path, width=320):
    """A small copy of a figure for the gallery."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    image.thumbnail((width * 2, width * 2))
    small = io.BytesIO()
    image.quantize(64).save(small, "png", optimize=True)
    path.with_name(f"small-{path.name}").write_bytes(small.getvalue())


def cards(pages):
    """Links with the question of each page as its subtitle."""
    rows = ['<ol class="course">']
    for page in pages:
        number = f'<span class="number">{page.number}</span>' if page.number else ""
        title = escape(page.title)
        question = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(page.question))
        minutes = f'<span class="minutes">{page.minutes} min</span>'
        rows.append(
            f'<li><a href="lessons/{page.name}.html">{number}<span>{title}</span>'
            f"<strong>{question}</strong>{minutes}</a></li>"
        )
    return "\n".join([*rows, "</ol>"])


def figures(page):
    """(number, alternative text) of the pictures of a page."""
    found = [
        o for c in page.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    return [(k, o["metadata"]["image/png"]["alt"]) for k, o in enumerate(found, 1)]


def gallery():
    """Every figure of the course, small, as a link to where it is drawn."""
    shown = ['<div class="gallery">']
    for page in lessons():
        for number, alt in figures(page):
            name = f"{page.name}-{number}.png"
            thumbnail(FIGURES / name)
            seen = re.split(r"\. |; ", alt.removeprefix("Left: "))[0].rstrip(".")
            said = escape(f"{page.number or page.title}: {seen}")
            shown.append(
                f'<a href="lessons/{page.name}.html#figure-{number}"><img loading="lazy" '
                f'src="_static/figures/small-{name}" alt="{escape(alt)}"><span>{said}</span></a>'
            )
    return "\n".join([*shown, "</div>"])


def first_slider():
    """The explorable of the first page, which stands alone."""
    for cell in lessons()[0].cells:
        for output in cell.get("outputs", []):
            page = "".join(output.get("data", {}).get("text/html", ""))
            if 'type="range"' in page:
                return re.sub(r"\s*\n\s*", " ", page)
    raise ValueError("nbs/index.ipynb has no slider for the first page of the site")


LISTS = {  # what a page asks for with `<!-- course:lessons -->` and so on
    "course:lessons": lambda: cards(lessons()),
    "course:tools": lambda: cards(tools()),
    "course:gallery": gallery,
    "course:slider": first_slider,
    "course:hours": lambda: str(round(sum(page.minutes for page in lessons()) / 60)),
}


def describe(app, name, template, context, doctree):
    """What search engines and previews say of a lesson: its question."""
    page = next((p for p in [*lessons(), *tools()] if f"lessons/{p.name}" == name), None)
    if page:
        said = f'<meta name="description" content="{escape(page.question)}">'
        context["metatags"] = context.get("metatags", "") + said


def prepare(app, config):
    """Write all pages anew."""
    for folder in (DOCS / "lessons", FIGURES, ORIGINALS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for page in [*lessons(), *tools()]:
        write(page)


def setup(app):
    """Run before the first page is read."""
    app.connect("config-inited", prepare)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

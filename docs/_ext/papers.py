"""What a docstring cites leads to its entry in cite.md, which leads back to the functions."""

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "cite.md"
ENTRY = re.compile(r"(?m)^- \*\*(\d{4})\*\* (.*(?:\n  .*)*)")
SURNAME = r"[A-Z][^\W\d_]+"
CITED = re.compile(
    rf"(?:{SURNAME},\s+)*({SURNAME})(?: et\s+al\.,?|\s+and\s+{SURNAME},?|,)\s+\(?((?:19|20)\d\d)\b"
)


@cache
def entries():
    """(year, text) of every entry, in the order of the page."""
    return [(year, " ".join(text.split())) for year, text in ENTRY.findall(PAGE.read_text("utf-8"))]


def place(surname, year, name):
    """The label of the entry that names a function, or else of the only one; otherwise None."""
    author = re.compile(rf"\b{surname}\b")
    found = [i for i, (of, text) in enumerate(entries()) if of == year and author.search(text)]
    owner = ".".join(name.split(".")[:3])  # of a method, its class
    own = [i for i in found if f"`~{owner}`" in entries()[i][1]] or found
    return f"paper-{own[0]}" if len(own) == 1 else None


def labelled(app, docname, source):
    """Give every entry of the page a place to link to."""
    if docname == "cite":
        number = iter(range(len(entries())))
        source[0] = ENTRY.sub(
            lambda e: f"- [**{e[1]}**]{{#paper-{next(number)}}} {e[2]}", source[0]
        )


def cited(app, what, name, thing, options, lines):
    """Link "Hinton et al., 2015" in a docstring, also where it is broken over two lines."""

    def link(found):
        label = place(found[1], found[2], name)
        said = " ".join(found[0].replace("(", "\\(").split())
        return f":ref:`{said} <{label}>`" if label else found[0]

    lines[:] = CITED.sub(link, "\n".join(lines)).split("\n")


def setup(app):
    """Before the lessons are linked, whose links hold the words that are looked for."""
    app.connect("source-read", labelled)
    app.connect("autodoc-process-docstring", cited, priority=850)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Formulas become MathML while the site is built: no script, no font, readable aloud."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(writer, node):
    """A formula within a line."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(writer, node):
    """A formula that stands alone, in a box that scrolls where the page is narrow."""
    formula = convert(node.astext(), display="block")
    writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer under the name that conf.py gives."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

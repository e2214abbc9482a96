"""Formulas as MathML, made when the site is built: every current browser draws it, without a script and without a network."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(translator, node):
    """A formula within a line."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(translator, node):
    """A formula on a line of its own; a narrow window scrolls it."""
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

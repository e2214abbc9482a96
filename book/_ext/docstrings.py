"""Let the docstrings of the library mark code as Markdown does, with single backticks."""

import re

SINGLE = re.compile(r"(?<![`:\\])`([^`\n]+)`(?![`_])")


def double_backticks(app, what, name, obj, options, lines):
    """Rewrite the lines in place, before napoleon takes the sections apart."""
    lines[:] = [SINGLE.sub(r"``\1``", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", double_backticks, priority=400)
    return {"parallel_read_safe": True}

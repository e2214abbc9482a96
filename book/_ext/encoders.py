"""The table of encoder families on a page, made from the library's own table when the site is built.

    ```{encoders-table}
    :columns: attention, positions, padding
    ```

The first column names the family. Without `columns`, all are shown.
"""

from docutils.parsers.rst import directives
from results import drawn
from sphinx.util.docutils import SphinxDirective

from ptv2lib.backbones import encoder_table


def cells(columns: list[str]) -> list[list[str]]:
    """Head and rows of the table."""
    rows = encoder_table()
    shown = ["encoder", *(columns or [name for name in rows[0] if name != "encoder"])]
    return [[name.replace("_", " ") for name in shown], *([row[name] for name in shown] for row in rows)]


class EncodersTable(SphinxDirective):
    """What works with which encoder family."""

    option_spec = {"columns": directives.unchanged_required}

    def run(self):
        asked = [name.strip() for name in self.options.get("columns", "").split(",") if name.strip()]
        unknown = set(asked) - set(encoder_table()[0])
        if unknown:
            raise self.error(f"encoders-table has no column {sorted(unknown)[0]!r}.")
        return [drawn(cells(asked), "encoders")]


def setup(app):
    app.add_directive("encoders-table", EncodersTable)
    return {"parallel_read_safe": True}

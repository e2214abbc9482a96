"""Tables of what the library has, made from its own tables when the site is built.

    ```{library-table} encoders
    :columns: attention, positions, padding
    ```

The first column names the row. Without `columns`, all are shown.
"""

from docutils.parsers.rst import directives
from results import drawn
from sphinx.util.docutils import SphinxDirective

from ptv2lib.backbones import encoder_table
from ptv2lib.tasks.registry import task_table

TABLES = {"encoders": encoder_table, "data-sets": task_table}


def cells(name: str, columns: list[str]) -> list[list[str]]:
    """Head and rows of a table."""
    rows = TABLES[name]()
    first, *others = rows[0]
    shown = [first, *(columns or others)]
    return [[column.replace("_", " ") for column in shown], *([row[column] or "–" for column in shown] for row in rows)]


class LibraryTable(SphinxDirective):
    """What works with which encoder family, or what each data set is."""

    required_arguments = 1
    option_spec = {"columns": directives.unchanged_required}

    def run(self):
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"library-table knows {' and '.join(TABLES)}, not {name!r}.")
        asked = [column.strip() for column in self.options.get("columns", "").split(",") if column.strip()]
        unknown = set(asked) - set(TABLES[name]()[0])
        if unknown:
            raise self.error(f"library-table has no column {sorted(unknown)[0]!r} of {name}.")
        return [drawn(cells(name, asked), name)]


def note_tables(app, config):
    """Read every page anew when one of the tables has changed."""
    config.library_tables = {name: table() for name, table in TABLES.items()}


def setup(app):
    app.add_config_value("library_tables", {}, "env")
    app.connect("config-inited", note_tables)
    app.add_directive("library-table", LibraryTable)
    return {"parallel_read_safe": True}

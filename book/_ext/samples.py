"""Rows of the miniature suite on a page, read from its files when the site is built.

    ```{miniature-samples} conll04
    :split: test
    :rows: 6
    ```

Shows a few rows drawn with a fixed seed, and above them how many rows each split has. Names in tagged sentences stand in
brackets with their type behind: the marks are text, so that nothing hangs on colour.
"""

import random

from docutils import nodes
from docutils.parsers.rst import directives
from results import drawn
from sphinx.util.docutils import SphinxDirective

from ptv2lib.metrics import spans
from ptv2lib.sources import MINIATURE, SPLITS
from ptv2lib.tasks import load_task

SEED = 20211014


def marked(tokens: list[str], tags: list[str]) -> str:
    """The sentence with each entity in brackets, its type behind."""
    words = list(tokens)
    for kind, start, end in spans(tags):
        words[start] = f"[{words[start]}"
        words[end - 1] = f"{words[end - 1]}] ({kind})"
    return " ".join(words)


def cells(family, row: dict) -> list[str]:
    """What the reader sees of one row."""
    if "tags" in row:
        return [marked(row["tokens"], row["tags"])]
    return [*(row[column] for column in family.texts), family.labels[row["label"]]]


def sample(name: str, split: str, number: int) -> tuple[list[str], list[list[str]], dict[str, int]]:
    """Head, rows and the sizes of the splits."""
    task = load_task(name, source="miniature")
    family, rows = task.family, task.rows[split]
    head = [*family.texts, "label"] if family.head == "sequence" else ["sentence, names in brackets"]
    chosen = sorted(random.Random(SEED).sample(range(len(rows)), number))
    return head, [cells(family, rows[i]) for i in chosen], {part: len(task.rows[part]) for part in SPLITS}


class MiniatureSamples(SphinxDirective):
    """A few rows of one data set of the suite."""

    required_arguments = 1
    option_spec = {"split": directives.unchanged_required, "rows": directives.positive_int}

    def run(self):
        name, split = self.arguments[0], self.options.get("split", "test")
        for path in sorted((MINIATURE / name).glob("*.jsonl")):
            self.env.note_dependency(str(path))
        head, rows, sizes = sample(name, split, self.options.get("rows", 6))
        counts = ", ".join(f"{size} rows in {part}" for part, size in sizes.items())
        intro = nodes.paragraph(text=f"{counts}. Some of {split}:")
        return [intro, drawn([head, *rows], "samples")]


def setup(app):
    app.add_directive("miniature-samples", MiniatureSamples)
    return {"parallel_read_safe": True}

"""Rows of the miniature suite on a page, read from its files when the site is built.

    ```{miniature-samples} conll04
    :split: test
    :rows: 6
    ```

Shows a few rows drawn with a fixed seed, and above them how many rows each split has. Spans in tagged sentences stand in
brackets with their type behind: the marks are text, so that nothing hangs on colour.
"""

import random

from docutils import nodes
from docutils.parsers.rst import directives
from results import drawn
from sphinx.util.docutils import SphinxDirective

from ptv2lib.metrics import spans
from ptv2lib.sources import MINIATURE
from ptv2lib.tasks import load_task

SEED = 20211014


def marked(tokens: list[str], tags: list[str]) -> str:
    """The sentence with each entity in brackets, its type behind."""
    words = list(tokens)
    for kind, start, end in spans(tags):
        words[start] = f"[{words[start]}"
        words[end - 1] = f"{words[end - 1]}] ({kind})"
    return " ".join(words)


def bracketed(text: str, *spans: tuple[int, int]) -> str:
    """The text with brackets around spans of characters."""
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


def fields(family, row: dict) -> dict[str, str]:
    """What the reader sees of one row, by column."""
    if "tags" in row:
        return {"sentence, spans in brackets": marked(row["tokens"], row["tags"])}
    if family.head == "span":
        answer = " / ".join(row["answers"]["text"]) or "(none)"
        return {"context": row["context"], "question": row["question"], "answer": answer}
    if "entities" in row:
        return {"passage": row["passage"], "query": row["query"], "answer": " / ".join(row["answers"])}
    if "labels" in row:
        pairs = list(zip(row["answers"], row["labels"], strict=True))
        right, wrong = ("; ".join(text for text, label in pairs if label == wanted) for wanted in (1, 0))
        return {"paragraph": row["paragraph"], "question": row["question"], "right": right, "wrong": wrong}
    label = {"label": family.labels[row["label"]]}
    if family.head == "choice":
        columns = (family.stem, *([family.kind] if family.kind else []), *family.choices)
        return {column: row[column] for column in columns} | label
    if family.name == "wic":
        texts = [bracketed(row[f"sentence{k}"], (row[f"start{k}"], row[f"end{k}"])) for k in "12"]
        return {"sentence 1": texts[0], "sentence 2": texts[1], "same sense": label["label"]}
    if family.name == "wsc":
        found = [(start, end) for _, start, end in family.marked(row, None)]
        return {"text, noun phrase and pronoun in brackets": bracketed(row["text"], *found), "same": label["label"]}
    return {column: row[column] for column in family.texts} | label


def sample(name: str, split: str, number: int) -> tuple[list[str], list[list[str]], dict[str, int]]:
    """Head, rows and the sizes of the splits, as the Hub counts rows."""
    task = load_task(name, source="miniature")
    rows = task.rows[split]
    shown = [fields(task.family, rows[i]) for i in sorted(random.Random(SEED).sample(range(len(rows)), number))]
    sizes = {part: sum(map(task.family.size, found)) for part, found in task.rows.items()}
    return list(shown[0]), [list(row.values()) for row in shown], sizes


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

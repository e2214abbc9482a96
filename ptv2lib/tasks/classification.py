"""Tasks with one label per text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import BadOption, DataError
from ..formats import ending_of, glue_rows, read_text, superglue_rows
from ..memory import without_collector
from ..metrics import accuracy, macro_f1
from ..sources import HubSet, Table, joined, lined
from .common import (
    NO_HUB,
    UNLABELLED,
    Pieces,
    TaskFamily,
    check_columns,
    check_strings,
    check_texts,
    check_unique,
    json_lines,
    most_frequent,
    read_label,
    shares,
    tokenize,
)


@dataclass(frozen=True)
class Classification(TaskFamily):
    """A classification data set.

    Attributes:
        name: the task's name.
        texts: the one or two text columns, in the encoder's order.
        labels: the labels in the Hub's order.
        hub: where the data set lives.
        max_length: default cut, in pieces.
        cut: which text of a pair is cut: `"longest_first"`, `"only_first"`, `"only_second"`.
        macro: whether the unweighted mean of the labels' F1 is reported too (CB).
        columns: where the texts stand in GLUE's TSV: place or header.
        synonyms: other names of text columns, GLUE's against SuperGLUE's for instance.
        templates: words around a row with a gap (`templates.Template`), the default first; for verbalizers.
        soft_template: the same with trainable slots, for P-tuning v1.
        words: the words that stand for each label in the gap.
        grouped: a text column whose rows stay in one split where it recurs. A premise of MNLI stands in three rows, as a rule
            with three labels, a text of WSC in two with both: whoever saw the others in training expects the wrong label.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    hub: HubSet = NO_HUB
    max_length: int = 256
    cut: str = "longest_first"
    macro: bool = False
    columns: Mapping[str, int | str] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    soft_template: str | None = None
    words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    grouped: str | None = None

    head: ClassVar[str] = "sequence"
    metric: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        """As for every family; `grouped` must be a text column."""
        super().__post_init__()
        if self.grouped is not None and self.grouped not in self.texts:
            raise BadOption(f"grouped={self.grouped!r} is none of the text columns {', '.join(self.texts)}.")

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns that a template may show."""
        return self.texts

    @property
    def cut_last(self) -> tuple[str, ...]:
        """Columns that a template cuts last: questions, where passages are long."""
        return {"only_first": self.texts[1:], "only_second": self.texts[:1]}.get(self.cut, ())

    def parse(self, paths: list[Path]) -> Table:
        """GLUE's TSV."""
        if not self.columns or any(ending_of(path) != ".tsv" for path in paths):
            return super().parse(paths)
        tables = [lined(path, glue_rows(path, read_text(path), self.columns)) for path in paths]
        return joined(tables, str(paths[0].parent))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give its rows with integer labels in this task's order; `idx` is kept."""
        table = table.expanded(superglue_rows, "SuperGLUE")
        rows = [{self.synonyms.get(column, column): value for column, value in row.items()} for row in table.rows]
        table = replace(table, rows=rows)
        check_columns(table, self.texts)
        for column in self.texts:
            check_texts(table, column)
        if self.hub.hub_id is not None:  # elsewhere `idx` is a column like any other
            check_unique(table, "idx")
        names = table.names.get("label")
        return [
            self._row(row, number, table.place(number))
            | {
                "label": read_label(row["label"], self.labels, names, table.place(number))
                if "label" in row
                else UNLABELLED
            }
            for number, row in enumerate(rows)
        ]

    def _row(self, row: Mapping, number: int, where: str) -> dict[str, Any]:
        return {column: row[column] for column in self.texts} | {"idx": row.get("idx", number)}

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold labels."""
        return all(row["label"] != UNLABELLED for row in rows)

    def group(self, row: Mapping) -> str | None:
        """Rows with the same text in the column `grouped`, if there is one."""
        return None if self.grouped is None else row[self.grouped]

    def strata(self, row: Mapping) -> int:
        """The label."""
        return row["label"]

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row[column] for column in self.texts)

    def pair(self, row: Mapping, layout: Layout) -> list[str]:
        """The one or two texts of a row as the encoder reads them."""
        return [row[column] for column in self.texts]

    def marked(self, row: Mapping, layout: Layout) -> list[tuple[int, int, int]]:
        """Words the head reads apart: (text 0 or 1, first character, character after the last)."""
        return []

    @without_collector()
    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """Tokenize rows."""
        texts = [self.pair(row, layout) for row in rows]
        second = [pair[1] for pair in texts] if rows and len(texts[0]) == 2 else None
        marking = self.words_read(layout) > 0
        laid = tokenize(tokenizer, [pair[0] for pair in texts], second, layout.max_length, self.cut, offsets=marking)
        found = []
        for row, pieces in zip(rows, laid, strict=True):
            inputs = pieces.arrays()
            if marking:
                inputs["marks"] = _marks(pieces, self.marked(row, layout))
            label = row.get("label", UNLABELLED)
            found.append([Encoded(inputs, None if label == UNLABELLED else label, pieces.cut)])
        return found

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> int:
        """Predicted label index from logits `[labels]`."""
        return int(logits[0].argmax())

    def score(self, predicted: Sequence[int], rows: Sequence[Mapping]) -> dict[str, Any]:
        """Accuracy, and macro-F1 where the set asks for it."""
        self.check_labelled(rows)
        gold = [row["label"] for row in rows]
        extra = {"macro_f1": macro_f1(predicted, gold, range(len(self.labels)))} if self.macro else {}
        return {"accuracy": accuracy(predicted, gold)} | extra

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of always answering with the most frequent label of `train`."""
        label = most_frequent([row["label"] for row in train])
        return self.score([label] * len(rows), rows) | {"answer": self.labels[label]}

    def submission(self, predicted: Sequence[int], rows: Sequence[Mapping]) -> str:
        """GLUE's test file (SST-2, MNLI: `index` and `prediction`, tab-separated) or SuperGLUE's JSON lines.

        SuperGLUE writes truth values in lower case, save for WSC; SST-2 writes numbers, all others words.
        """
        if self.hub.hub_id == "nyu-mll/glue":
            told = [str(label) if self.name == "sst2" else self.labels[label] for label in predicted]
            lines = [f"{row['idx']}\t{label}\n" for row, label in zip(rows, told, strict=True)]
            return "index\tprediction\n" + "".join(lines)
        words = [word.lower() if word in ("False", "True") and self.name != "wsc" else word for word in self.labels]
        return json_lines(
            {"idx": row["idx"], "label": words[label]} for row, label in zip(rows, predicted, strict=True)
        )

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about into a row.

        Raises:
            DataError: if a column is missing or a text is not text.
        """
        table = Table([dict(example)], {}, "The example")
        check_columns(table, self.texts)
        check_strings(example, self.texts, "The example")
        check_texts(table, self.texts[0])
        return self._row(example, 0, "The example")

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """Label and probabilities in the task's own words."""
        chances = shares(logits[0])
        return {
            "label": self.labels[int(chances.argmax())],
            "probabilities": {label: float(chance) for label, chance in zip(self.labels, chances, strict=True)},
        }


@dataclass(frozen=True)
class WordInContext(Classification):
    """WiC: does a word mean the same in two sentences?

    Layouts: `words` reads the two sentences and, apart, the two words; `pair` and `question` are templates 1 and 0 of the
    official P-tuning v2 code ("word: sentence" twice; one text that ends in a question).
    """

    layouts: ClassVar[tuple[str, ...]] = ("words", "pair", "question")

    @property
    def shown(self) -> tuple[str, ...]:
        """The sentences and the word."""
        return ("word", "sentence1", "sentence2")

    def words_read(self, layout: Layout) -> int:
        """Two with the layout `words`."""
        return 2 if layout.name in (None, "words") else 0

    def pair(self, row: Mapping, layout: Layout) -> list[str]:
        """The texts of a row in the layout asked for."""
        first, second, word = row["sentence1"], row["sentence2"], row["word"]
        if layout.name == "pair":
            return [f"{word}: {first}", f"{word}: {second}"]
        if layout.name == "question":
            return [f"{first} {second} Does {word} have the same meaning in both sentences?"]
        return [first, second]

    def marked(self, row: Mapping, layout: Layout) -> list[tuple[int, int, int]]:
        """The word in each sentence."""
        return [(0, row["start1"], row["end1"]), (1, row["start2"], row["end2"])]

    def _row(self, row: Mapping, number: int, where: str) -> dict[str, Any]:
        columns = ("word", "sentence1", "sentence2", "start1", "end1", "start2", "end2")
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f"{where} has no column {missing[0]!r}.")
        check_strings(row, self.shown, where)
        for k in "12":
            start, end, text = row[f"start{k}"], row[f"end{k}"], row[f"sentence{k}"]
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
                raise DataError(
                    f"{where}: columns start{k} and end{k} give {start} to {end}, outside the {len(text)} characters of "
                    f"sentence{k}."
                )
        return {column: row[column] for column in columns} | {"idx": row.get("idx", number)}


@dataclass(frozen=True)
class Coreference(Classification):
    """WSC: does the pronoun (span 2) stand for the noun phrase (span 1)?

    Layouts: `question` and `stars` are templates 0 and 1 of the official P-tuning v2 code ("pronoun: text" paired with the
    noun phrase; the text with stars around the pronoun); `words` reads the text and, apart, the two spans.
    """

    layouts: ClassVar[tuple[str, ...]] = ("question", "stars", "words")

    @property
    def shown(self) -> tuple[str, ...]:
        """The text, the noun phrase and the pronoun."""
        return ("text", "span1_text", "span2_text")

    def words_read(self, layout: Layout) -> int:
        """Two with the layout `words`."""
        return 2 if layout.name == "words" else 0

    def pair(self, row: Mapping, layout: Layout) -> list[str]:
        """The texts of a row in the layout asked for."""
        if layout.name == "stars":
            words = row["text"].split()
            at = row["span2_index"]
            return [" ".join([*words[:at], f"*{words[at]}*", *words[at + 1 :]]), row["span1_text"]]
        if layout.name == "words":
            return [row["text"]]
        return [f"{row['span2_text']}: {row['text']}", row["span1_text"]]

    def marked(self, row: Mapping, layout: Layout) -> list[tuple[int, int, int]]:
        """The noun phrase and the pronoun, found by counting the words of the text."""
        starts, end = [], 0
        for word in row["text"].split():
            start = row["text"].index(word, end)
            end = start + len(word)
            starts.append((start, end))
        found = []
        for k in "12":
            at = row[f"span{k}_index"]
            # Some span texts differ from the text by a period or a capital; their number of words holds.
            last = min(at + len(row[f"span{k}_text"].split()), len(starts)) - 1
            found.append((0, starts[at][0], starts[max(at, last)][1]))
        return found

    def _row(self, row: Mapping, number: int, where: str) -> dict[str, Any]:
        columns = ("text", "span1_index", "span2_index", "span1_text", "span2_text")
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f"{where} has no column {missing[0]!r}.")
        check_strings(row, self.shown, where)
        words = len(row["text"].split())
        for column in ("span1_index", "span2_index"):
            if not isinstance(row[column], int) or not 0 <= row[column] < words:
                raise DataError(f"{where}: column {column!r} is {row[column]!r}, and the text has {words} words.")
        return {column: row[column] for column in columns} | {"idx": row.get("idx", number)}


def _marks(pieces: Pieces, marked: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """For each piece 0, or which marked word it belongs to, from 1."""
    offsets = np.array(pieces.encoding["offset_mapping"][pieces.at])
    sides = np.array([-1 if side is None else side for side in pieces.encoding.sequence_ids(pieces.at)])
    marks = np.zeros(len(offsets), np.int32)
    for number, (side, start, end) in enumerate(marked, 1):
        marks[(sides == side) & (offsets[:, 0] < end) & (offsets[:, 1] > start)] = number
    return marks

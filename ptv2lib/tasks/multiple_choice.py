"""Tasks that choose one of several alternatives: each is scored by itself, the scores of a row are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import DataError
from ..memory import without_collector
from ..metrics import accuracy
from ..sources import HubSet, Table
from .common import (
    NO_HUB,
    UNLABELLED,
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
class MultipleChoice(TaskFamily):
    """A multiple-choice data set.

    Attributes:
        name: the task's name.
        stem: the column that the alternatives go on from.
        choices: the columns of the alternatives.
        kind: a column whose value picks a word to end the stem with; None for none.
        connectives: that word by value (COPA: "because" before a cause, "so" before an effect).
        hub: where the data set lives.
        max_length: default cut, in pieces; the stem is cut, never an alternative.
    """

    name: str
    stem: str
    choices: tuple[str, ...]
    kind: str | None = None
    connectives: Mapping[str, str] = field(default_factory=dict)
    hub: HubSet = NO_HUB
    max_length: int = 256

    head: ClassVar[str] = "choice"
    metric: ClassVar[str] = "accuracy"
    together: ClassVar[bool] = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The alternatives' columns."""
        return self.choices

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give its rows with the right alternative's number as `label`."""
        needed = [self.stem, *self.choices, *([self.kind] if self.kind else [])]
        check_columns(table, needed)
        for column in (self.stem, *self.choices):
            check_texts(table, column)
        if self.hub.hub_id is not None:  # elsewhere `idx` is a column like any other
            check_unique(table, "idx")
        names = table.names.get("label")
        rows = []
        for number, row in enumerate(table.rows):
            where = table.place(number)
            self._check_kind(row, where)
            if isinstance(row.get("label"), list):
                raise DataError(
                    f"{where}: column 'label' names {len(row['label'])} right choices; exactly one is needed."
                )
            label = UNLABELLED if "label" not in row else read_label(row["label"], self.labels, names, where)
            rows.append({column: row[column] for column in needed} | {"label": label, "idx": row.get("idx", number)})
        return rows

    def _check_kind(self, row: Mapping, where: str) -> None:
        if self.kind and (not isinstance(row[self.kind], str) or row[self.kind] not in self.connectives):
            known = ", ".join(self.connectives)
            raise DataError(f"{where}: column {self.kind!r} is {row[self.kind]!r}, not one of {known}.")

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold answers."""
        return all(row["label"] != UNLABELLED for row in rows)

    def strata(self, row: Mapping) -> int:
        """The right alternative's number."""
        return row["label"]

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row[column] for column in (self.stem, *self.choices))

    @without_collector()
    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """One input an alternative: the stem with its connective, and the alternative."""
        first, second = [], []
        for row in rows:
            ending = f" {self.connectives[row[self.kind]]}" if self.kind else ""
            first += [row[self.stem].rstrip(" ") + ending] * len(self.choices)
            second += [row[choice] for choice in self.choices]
        laid = iter(tokenize(tokenizer, first, second, layout.max_length, "only_first"))
        found = []
        for row in rows:
            label = row.get("label", UNLABELLED)
            inputs = []
            for number, pieces in zip(range(len(self.choices)), laid, strict=False):
                right = None if label == UNLABELLED else int(number == label)
                inputs.append(Encoded(pieces.arrays(), right, pieces.cut))
            found.append(inputs)
        return found

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> int:
        """Number of the alternative with the highest score."""
        return int(np.argmax([float(score[0]) for score in logits]))

    def score(self, predicted: Sequence[int], rows: Sequence[Mapping]) -> dict[str, Any]:
        """Accuracy."""
        self.check_labelled(rows)
        return {"accuracy": accuracy(predicted, [row["label"] for row in rows])}

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of always taking the place that is right most often in `train`."""
        label = most_frequent([row["label"] for row in train])
        return self.score([label] * len(rows), rows) | {"answer": self.choices[label]}

    def submission(self, predicted: Sequence[int], rows: Sequence[Mapping]) -> str:
        """SuperGLUE's JSON lines, with the alternative's number."""
        return json_lines({"idx": row["idx"], "label": label} for row, label in zip(rows, predicted, strict=True))

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about into a row.

        Raises:
            DataError: if a column is missing.
        """
        needed = [self.stem, *self.choices, *([self.kind] if self.kind else [])]
        check_columns(Table([dict(example)], {}, "The example"), needed)
        check_strings(example, (self.stem, *self.choices), "The example")
        self._check_kind(example, "The example")
        return {column: example[column] for column in needed}

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The chosen alternative, its text, and the chances of all."""
        chances = shares(np.array([float(score[0]) for score in logits]))
        best = int(chances.argmax())
        return {
            "label": self.choices[best],
            "text": row[self.choices[best]],
            "probabilities": {name: float(chance) for name, chance in zip(self.choices, chances, strict=True)},
        }

"""Tasks with one label a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..metrics import accuracy
from ..sources import HubSet, Table
from .common import UNLABELLED, Encoded, check_columns, check_texts, most_frequent, read_label


@dataclass(frozen=True)
class Classification:
    """A classification data set.

    Attributes:
        name: the task's name.
        texts: the one or two text columns, in the encoder's order.
        labels: the labels in the Hub's order.
        hub: where the data set lives.
        max_length: default cut, in pieces.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    hub: HubSet
    max_length: int = 256

    head: ClassVar[str] = "sequence"
    metric: ClassVar[str] = "accuracy"

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give its rows with integer labels in this task's order.

        Raises:
            DataError: naming the file, the row and what is wrong.
        """
        check_columns(table, [*self.texts, "label"])
        for column in self.texts:
            check_texts(table, column)
        names = table.names.get("label")
        return [
            {column: row[column] for column in self.texts}
            | {"label": read_label(row["label"], self.labels, names, f"{table.where}, row {number}")}
            for number, row in enumerate(table.rows)
        ]

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold labels."""
        return all(row["label"] != UNLABELLED for row in rows)

    def strata(self, row: Mapping) -> int:
        """What a stratified split keeps in proportion."""
        return row["label"]

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row[column] for column in self.texts)

    def encode(self, row: Mapping, tokenizer: Any, max_length: int) -> Encoded:
        """Tokenize one row; of a pair, the longer text is cut first."""
        texts = [row[column] for column in self.texts]
        whole = len(tokenizer(*texts, add_special_tokens=True, verbose=False)["input_ids"])
        inputs = tokenizer(*texts, truncation=True, max_length=max_length)
        return Encoded(dict(inputs), row.get("label"), whole > max_length)

    def decode(self, logits: np.ndarray, encoded: Encoded, row: Mapping) -> int:
        """Predicted label index of one row from logits `[labels]`."""
        return int(logits.argmax())

    def score(self, predicted: Sequence[int], rows: Sequence[Mapping]) -> dict[str, Any]:
        """Accuracy."""
        return {"accuracy": accuracy(predicted, [row["label"] for row in rows])}

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of always answering with the most frequent label of `train`."""
        label = most_frequent([row["label"] for row in train])
        return self.score([label] * len(rows), rows) | {"answer": self.labels[label]}

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about into a row.

        Raises:
            DataError: if a text column is missing or is not text.
        """
        table = Table([dict(example)], {}, "The example")
        check_columns(table, self.texts)
        check_texts(table, self.texts[0])
        return {column: example[column] for column in self.texts}

    def answer(self, logits: np.ndarray, encoded: Encoded, row: Mapping) -> dict[str, Any]:
        """Label and probabilities in the task's own words."""
        shifted = np.exp(logits - logits.max())
        chances = shifted / shifted.sum()
        return {
            "label": self.labels[int(chances.argmax())],
            "probabilities": {label: float(chance) for label, chance in zip(self.labels, chances, strict=True)},
        }

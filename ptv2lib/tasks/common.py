"""What all task families share: reading labels, checking columns, cutting texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError
from ..sources import Table

UNLABELLED = -1


@dataclass
class Encoded:
    """One example as the encoder takes it.

    Attributes:
        inputs: what the tokenizer gives, lists of equal length: `input_ids`, `attention_mask`, `token_type_ids`.
        labels: one label, or one a piece; None for an example without gold answer.
        cut: whether pieces were lost to the maximal length.
        words: for tagging, the index of the word that each piece opens, or None.
    """

    inputs: dict[str, list[int]]
    labels: int | list[int] | None
    cut: bool
    words: list[int | None] = field(default_factory=list)


def check_columns(table: Table, columns: Sequence[str]) -> None:
    """Raise a `DataError` that names what is missing."""
    if not table.rows:
        raise DataError(f"{table.where} has no rows.")
    missing = [column for column in columns if column not in table.rows[0]]
    if missing:
        have = ", ".join(table.rows[0])
        raise DataError(f"{table.where} has no column {missing[0]!r}; it has {have}.")


def check_texts(table: Table, column: str) -> None:
    """Refuse a text column that is not text, or is empty in every row; single empty texts are kept."""
    for number, row in enumerate(table.rows):
        if not isinstance(row.get(column), str):
            raise DataError(
                f"{table.where}, row {number}: column {column!r} must be text, not {row.get(column)!r:.60}."
            )
    if not any(row[column].strip() for row in table.rows):
        raise DataError(f"{table.where}: the text column {column!r} is empty in every row.")


def read_label(value: Any, labels: Sequence[str], names: Sequence[str] | None, where: str) -> int:
    """One label as an index into `labels`; accepts an index, a ClassLabel index of the file, or a string.

    Raises:
        DataError: for anything else, naming the row.
    """
    if isinstance(value, bool) or value is None:
        raise DataError(f"{where}: {value!r} is no label; labels are {', '.join(labels)}.")
    if isinstance(value, int):
        if value == UNLABELLED:
            return UNLABELLED
        if names is not None and 0 <= value < len(names):
            value = names[value]
        elif names is None and 0 <= value < len(labels):
            return value
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    raise DataError(f"{where}: the label {value!r} is not one of {', '.join(labels)}.")


def most_frequent(values: Sequence) -> Any:
    """The most frequent value; the smallest of several."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))

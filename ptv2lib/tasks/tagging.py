"""Tasks with one IOB2 tag a word; words are labelled at their first piece."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import DataError
from ..heads import IGNORED
from ..metrics import span_scores, spans
from ..sources import HubSet, Table
from .common import Encoded, check_columns, read_label


@dataclass(frozen=True)
class Tagging:
    """A tagging data set.

    Attributes:
        name: the task's name.
        types: span types, in the order of the tags.
        column: `"ner_tags"` (one tag a word) or `"entities"` (`start`, `end` exclusive, `type`).
        hub: where the data set lives.
        max_length: default cut, in pieces.
    """

    name: str
    types: tuple[str, ...]
    column: str
    hub: HubSet
    max_length: int = 256

    head: ClassVar[str] = "token"
    metric: ClassVar[str] = "f1"

    @property
    def labels(self) -> tuple[str, ...]:
        """`O`, then `B-` and `I-` of each type."""
        return ("O", *(f"{place}-{kind}" for kind in self.types for place in "BI"))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give rows of `tokens` and `tags`, tags as strings.

        Raises:
            DataError: naming the file, the row and what is wrong.
        """
        check_columns(table, ["tokens", self.column])
        rows = []
        for number, row in enumerate(table.rows):
            where = f"{table.where}, row {number}"
            tokens = row["tokens"]
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise DataError(f"{where}: column 'tokens' must be a list of words.")
            rows.append({"tokens": tokens, "tags": self._tags(row[self.column], tokens, table, where)})
        if not any(token.strip() for row in rows for token in row["tokens"]):
            raise DataError(f"{table.where}: the text column 'tokens' is empty in every row.")
        return rows

    def _tags(self, value: Any, tokens: Sequence[str], table: Table, where: str) -> list[str]:
        if self.column == "entities":
            return self._tags_from_entities(value, tokens, where)
        if not isinstance(value, list) or len(value) != len(tokens):
            count = len(value) if isinstance(value, list) else "no"
            raise DataError(f"{where}: {len(tokens)} tokens, but {count} tags.")
        names = table.names.get(self.column)
        return [self.labels[read_label(tag, self.labels, names, where)] for tag in value]

    def _tags_from_entities(self, entities: Any, tokens: Sequence[str], where: str) -> list[str]:
        if isinstance(entities, dict):  # older versions of datasets turn a list of dicts into a dict of lists
            entities = [dict(zip(entities, values, strict=True)) for values in zip(*entities.values(), strict=True)]
        tags = ["O"] * len(tokens)
        for entity in entities:
            start, end, kind = entity["start"], entity["end"], entity["type"]
            if kind not in self.types:
                raise DataError(f"{where}: the entity type {kind!r} is not one of {', '.join(self.types)}.")
            if not 0 <= start < end <= len(tokens):
                raise DataError(f"{where}: the entity from {start} to {end} lies outside its {len(tokens)} tokens.")
            tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
        return tags

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Tagging sets have gold tags in every split."""
        return True

    def strata(self, row: Mapping) -> int:
        """Nothing is kept in proportion."""
        return 0

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row["tokens"])

    def encode(self, row: Mapping, tokenizer: Any, max_length: int) -> Encoded:
        """Tokenize one row by words; the first piece of a word bears its tag, every other piece -100."""
        whole = tokenizer(row["tokens"], is_split_into_words=True, verbose=False)["input_ids"]
        inputs = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        opened = [
            word if word is not None and (place == 0 or word != before) else None
            for place, (before, word) in enumerate(zip([None, *inputs.word_ids()], inputs.word_ids(), strict=False))
        ]
        tags = row.get("tags")
        labels = tags and [IGNORED if word is None else self.labels.index(tags[word]) for word in opened]
        return Encoded(dict(inputs), labels, len(whole) > max_length, opened)

    def decode(self, logits: np.ndarray, encoded: Encoded, row: Mapping) -> list[str]:
        """Predicted tags of all words of one row from logits `[pieces, labels]`; words that were cut off get `O`."""
        tags = ["O"] * len(row["tokens"])
        for word, best in zip(encoded.words, logits.argmax(-1), strict=False):
            if word is not None:
                tags[word] = self.labels[best]
        return tags

    def score(self, predicted: Sequence[Sequence[str]], rows: Sequence[Mapping]) -> dict[str, Any]:
        """Micro precision, recall and F1 over spans by conlleval's rule, and F1 by type."""
        return span_scores(predicted, [row["tags"] for row in rows])

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of tagging every word `O`."""
        return {"f1": self.score([["O"] * len(row["tokens"]) for row in rows], rows)["f1"], "answer": "O"}

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about, `tokens` or a `text`, into a row.

        Raises:
            DataError: if neither is there.
        """
        if isinstance(example.get("text"), str):
            found = list(re.finditer(r"\w+|[^\w\s]", example["text"]))
            return {"tokens": [match.group() for match in found], "offsets": [match.span() for match in found]}
        if isinstance(example.get("tokens"), list):
            return {"tokens": example["tokens"]}
        raise DataError("An example to be tagged needs 'tokens', a list of words, or 'text'.")

    def answer(self, logits: np.ndarray, encoded: Encoded, row: Mapping) -> dict[str, Any]:
        """Tags, and the spans as words with token offsets (end exclusive); character offsets where a text was given."""
        tags = self.decode(logits, encoded, row)
        entities = []
        for kind, start, end in spans(tags):
            entity = {"text": " ".join(row["tokens"][start:end]), "type": kind, "start": start, "end": end}
            if "offsets" in row:
                entity["characters"] = (row["offsets"][start][0], row["offsets"][end - 1][1])
            entities.append(entity)
        return {"tags": tags, "entities": entities}

"""Tasks with one IOB2 tag a word; words are labelled at their first piece."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..encoding import IGNORED, Encoded, Layout
from ..errors import DataError
from ..formats import raw_files, read_text, tagged_rows
from ..memory import without_collector
from ..metrics import span_scores, spans, strict_span_scores
from ..sources import HubSet, Table, joined, lined
from .common import NO_HUB, UNLABELLED, TaskFamily, check_columns, check_text, check_words, read_label, tokenize


@dataclass(frozen=True)
class Tagging(TaskFamily):
    """A tagging data set.

    Attributes:
        name: the task's name.
        types: span types, in the order of the tags.
        column: `"ner_tags"` (one tag a word) or `"entities"` (`start`, `end` exclusive, `type`).
        hub: where the data set lives.
        max_length: default cut, in pieces.
        order: what bare numbers in `column` stand for; empty for `O`, then `B-` and `I-` of each type.
        tner_order: what they stand for under `tags`, as tner calls its column, where that is not `column`; empty where
            nobody says, and then they are refused there.
    """

    name: str
    types: tuple[str, ...]
    column: str = "ner_tags"
    hub: HubSet = NO_HUB
    max_length: int = 256
    order: tuple[str, ...] = ()
    tner_order: tuple[str, ...] = ()

    head: ClassVar[str] = "token"
    metric: ClassVar[str] = "f1"

    @property
    def labels(self) -> tuple[str, ...]:
        """`O`, then `B-` and `I-` of each type."""
        return ("O", *(f"{place}-{kind}" for kind in self.types for place in "BI"))

    def parse(self, paths: list[Path]) -> Table:
        """Column files as of CoNLL-2003, or CoNLL-2012's `gold_conll`."""
        return joined([lined(file, tagged_rows(file, read_text(file))) for file in raw_files(paths)], str(paths[0]))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give rows of `tokens` and `tags`, tags as IOB2 strings.

        IOB1 (the original form of CoNLL-2003) is told by its tags and turned into IOB2, which is said once. The documents of
        ontonotes/conll2012_ontonotesv5 become one row a sentence.
        """
        if table.rows and "sentences" in table.rows[0] and "tokens" not in table.rows[0]:
            table = table.expanded(_of_document, "the Hub's set, where 'sentences' holds words and named_entities")
        column = self.column
        if table.rows and column not in table.rows[0]:
            known = ("ner_tags", "tags", "named_entities")  # the column files', tner's, and of OntoNotes on the Hub
            column = next((other for other in known if other in table.rows[0]), column)
        check_columns(table, ["tokens", column])
        check_words(table)
        rows = []
        for number, row in enumerate(table.rows):
            where = table.place(number)
            rows.append({"tokens": row["tokens"], "tags": self._tags(row[column], row["tokens"], table, where, column)})
        to_iob2([row["tags"] for row in rows], table)
        return rows

    def _tags(self, value: Any, tokens: Sequence[str], table: Table, where: str, column: str) -> list[str]:
        if column == "entities":
            return self._tags_from_entities(value, tokens, where)
        if not isinstance(value, list) or len(value) != len(tokens):
            count = len(value) if isinstance(value, list) else "no"
            raise DataError(f"{where}: {len(tokens)} tokens, but {count} tags in column {column!r}.")
        names = table.names.get(column) or self._order(column)
        if not names and any(type(tag) is int for tag in value):
            raise DataError(
                f"{where}: column {column!r} has numbers, and nothing says which tags they stand for; give text."
            )
        found = [read_label(tag, self.labels, names, f"{where}, word {k}", column) for k, tag in enumerate(value)]
        if UNLABELLED in found:
            at = f"{where}, word {found.index(UNLABELLED)}"
            raise DataError(f"{at}: column {column!r} is -1, not one of {', '.join(self.labels)}.")
        return [self.labels[label] for label in found]

    def _order(self, column: str) -> tuple[str, ...]:
        """What bare numbers in a column stand for; empty where that is not known."""
        if column == self.column:
            return self.order or self.labels
        return self.tner_order if column == "tags" else ()

    def _tags_from_entities(self, entities: Any, tokens: Sequence[str], where: str) -> list[str]:
        if isinstance(entities, dict):  # older versions of datasets turn a list of dicts into a dict of lists
            try:
                columns = list(zip(*entities.values(), strict=True))
            except (TypeError, ValueError):
                raise DataError(f"{where}: column 'entities' has lists of different length.") from None
            entities = [dict(zip(entities, values, strict=True)) for values in columns]
        tags = ["O"] * len(tokens)
        if not isinstance(entities, list):
            raise DataError(f"{where}: column 'entities' must be a list of start, end and type.")
        for entity in entities:
            known = isinstance(entity, Mapping) and {"start", "end", "type"} <= set(entity)
            if not known or type(entity["start"]) is not int or type(entity["end"]) is not int:
                raise DataError(f"{where}: column 'entities' must hold start, end and type, not {entity!r:.60}.")
            start, end, kind = entity["start"], entity["end"], entity["type"]
            if kind not in self.types:
                raise DataError(f"{where}: the entity type {kind!r} is not one of {', '.join(self.types)}.")
            if not 0 <= start < end <= len(tokens):
                raise DataError(f"{where}: the entity from {start} to {end} lies outside its {len(tokens)} tokens.")
            if any(tag != "O" for tag in tags[start:end]):
                raise DataError(
                    f"{where}: column 'entities' has an entity from {start} to {end} that overlaps another, and a word "
                    "bears one tag."
                )
            tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
        return tags

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row["tokens"])

    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """Tokenize rows by words; the first piece of a word bears its tag, every other piece -100."""
        return encode_words(rows, [row["tokens"] for row in rows], None, tokenizer, layout.max_length, self.labels)

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> list[str]:
        """Predicted tags of all words from logits `[pieces, labels]`; words that were cut off get `O`."""
        return decode_words(logits[0], inputs[0], len(row["tokens"]), self.labels)

    def score(self, predicted: Sequence[Sequence[str]], rows: Sequence[Mapping]) -> dict[str, Any]:
        """Micro precision, recall and F1 over spans by conlleval's rule, and by type; strict IOB2's F1 beside it."""
        gold = [row["tags"] for row in rows]
        scores = span_scores(predicted, gold)
        per_type = scores.pop("per_type")
        return scores | {"strict_f1": strict_span_scores(predicted, gold)["f1"], "per_type": per_type}

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of tagging every word `O`."""
        return {"f1": self.score([["O"] * len(row["tokens"]) for row in rows], rows)["f1"], "answer": "O"}

    def submission(self, predicted: Sequence[Sequence[str]], rows: Sequence[Mapping]) -> str:
        """CoNLL's columns, as conlleval reads them: word, gold tag, predicted tag; an empty line after a sentence.

        White space inside a word, and a word without a sign, are written as `_`, so that every line keeps its columns.
        """
        blocks = [
            "".join(
                f"{one_cell(word)} {gold} {tag}\n"
                for word, gold, tag in zip(row["tokens"], row["tags"], tags, strict=True)
            )
            for row, tags in zip(rows, predicted, strict=True)
        ]
        return "\n".join(blocks) + "\n"

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about, `tokens` or a `text`, into a row.

        Raises:
            DataError: if neither is there.
        """
        return prepare_words(example)

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """Tags, and the spans as words with token offsets (end exclusive); character offsets where a text was given."""
        tags = self.decode(logits, inputs, row)
        return {"tags": tags, "entities": named_spans(spans(tags), row)}


def _of_document(document: Mapping) -> Iterator[dict[str, Any]]:
    """A document's sentences; none of the Bible, whose names nobody marked (see `formats.tagged_rows`)."""
    if not str(document.get("document_id")).startswith("pt/"):
        for sentence in document["sentences"]:
            yield {"tokens": sentence["words"], "named_entities": sentence["named_entities"]}


def one_cell(word: str) -> str:
    """A word as one cell of a column file: `_` for each white space, and for nothing."""
    return re.sub(r"\s", "_", word) or "_"


def to_iob2(sentences: list[list[str]], table: Table) -> None:
    """Turn IOB1 tags into IOB2, in place; IOB2 stays as it is. The table they come from is for messages.

    Raises:
        DataError: for tags that are neither, naming the row and the word.
    """
    loose = strict = None
    for number, tags in enumerate(sentences):
        for place, tag in enumerate(tags):
            before = tags[place - 1] if place else "O"
            goes_on = before != "O" and before[2:] == tag[2:]
            if tag.startswith("I-") and not goes_on:
                loose = loose or (number, place)  # IOB1 opens a span so, IOB2 never
            if tag.startswith("B-") and not goes_on:
                strict = strict or (number, place)  # IOB2 opens a span so, IOB1 never
    if loose is None:
        return
    if strict is not None:
        number, place = loose
        raise DataError(
            f"{table.place(number)}, word {place}: {sentences[number][place]} opens a span, as in IOB1, and elsewhere spans "
            f"open with B-, as in IOB2 ({table.second_place(strict[0], number)}, word {strict[1]})."
        )
    warnings.warn(f"{table.where} is in IOB1; its tags were turned into IOB2.", stacklevel=2)
    for tags in sentences:
        before = "O"
        for place, tag in enumerate(tags):
            if tag.startswith("I-") and (before == "O" or before[2:] != tag[2:]):
                tags[place] = "B" + tag[1:]
            before = tag


@without_collector()
def encode_words(
    rows: Sequence[Mapping],
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]] | None,
    tokenizer: Any,
    max_length: int,
    labels: Sequence[str],
    numbers: Sequence[Sequence[int]] | None = None,
) -> list[list[Encoded]]:
    """Tokenize words; the first piece of each word of the first text bears its tag.

    Args:
        rows: for their `tags`, if they have any.
        first: the words to be tagged.
        second: words that follow after a separator and are not tagged.
        tokenizer: the tokenizer.
        max_length: the cut; the first text is cut.
        labels: the tags.
        numbers: for each word of `first` its number in the row, -1 for a word that was put in; None where they agree.
    """
    index = {label: number for number, label in enumerate(labels)}
    found = []
    laid = tokenize(tokenizer, first, second, max_length, "only_first", words=True)
    for i, (row, pieces) in enumerate(zip(rows, laid, strict=True)):
        words = np.array([-1 if word is None else word for word in pieces.encoding.word_ids(pieces.at)], np.int32)
        if second is not None:
            words[[side != 0 for side in pieces.encoding.sequence_ids(pieces.at)]] = -1
        opened = np.where(np.diff(words, prepend=-1) != 0, words, -1)
        if numbers is not None:
            opened = np.where(opened >= 0, np.array(numbers[i], np.int32)[opened], -1)
        tags = row.get("tags")
        marks, lost = None, 0
        if tags is not None:
            own = np.array([index[tag] for tag in tags], np.int32)
            marks = np.full(len(opened), IGNORED, np.int32)
            marks[opened >= 0] = own[opened[opened >= 0]]
            # A word has no piece if it was cut off, or if the tokenizer makes nothing of it.
            if np.count_nonzero(opened >= 0) < len(tags):
                seen = set(opened.tolist())
                lost = sum(not seen.issuperset(range(start, end)) for _, start, end in spans(tags))
        found.append([Encoded(pieces.arrays(), marks, pieces.cut, lost, opened)])
    return found


def decode_words(logits: np.ndarray, encoded: Encoded, words: int, labels: Sequence[str]) -> list[str]:
    """The tag of every word from the logits of its first piece; `O` for words that were cut off."""
    tags = ["O"] * words
    for word, best in zip(encoded.places, logits.argmax(-1), strict=False):
        if word >= 0:
            tags[word] = labels[best]
    return tags


def prepare_words(example: Mapping) -> dict[str, Any]:
    """`tokens`, or the words of a `text` with their offsets."""
    if isinstance(example.get("text"), str):
        check_text(example["text"], "text", "The example")
        # A mark belongs to the letter before it, and `\w` does not know it.
        marked = "".join("_" if unicodedata.category(sign)[0] == "M" else sign for sign in example["text"])
        offsets = [match.span() for match in re.finditer(r"\w+|[^\w\s]", marked)]
        return {"tokens": [example["text"][a:b] for a, b in offsets], "offsets": offsets, "text": example["text"]}
    tokens = example.get("tokens")
    if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        for place, token in enumerate(tokens):
            check_text(token, "tokens", f"The example, word {place}")
        return {"tokens": tokens}
    raise DataError("An example to be tagged needs 'tokens', a list of words, or 'text'.")


def named_spans(found: Sequence[tuple[str, int, int]], row: Mapping) -> list[dict[str, Any]]:
    """Spans as a person reads them; as text of the original where one was given."""
    named = []
    for kind, start, end in found:
        span = {"text": " ".join(row["tokens"][start:end]), "type": kind, "start": start, "end": end}
        if "offsets" in row:
            first, last = row["offsets"][start][0], row["offsets"][end - 1][1]
            span |= {"text": row["text"][first:last], "characters": (first, last)}
        named.append(span)
    return named

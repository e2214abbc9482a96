"""Semantic role labelling over given predicates: one row a predicate, one IOB2 tag a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import BadOption, DataError
from ..formats import brackets, pasted_roles, read_text, role_rows
from ..metrics import role_arguments, role_scores, span_scores
from ..sources import HubSet, Table
from .common import NO_HUB, TaskFamily, check_columns, check_words
from .tagging import decode_words, encode_words, named_spans, prepare_words, to_iob2

MARKER = "*"  # stands before and after the predicate; a piece of its own in every tokenizer tried


@dataclass(frozen=True)
class SemanticRoles(TaskFamily):
    """A data set of predicates with their arguments.

    Layouts: `segments` gives the predicate's pieces the other segment id, so that two equal verbs of a sentence differ;
    `markers` puts a star before and after it; `verb` repeats it behind a separator, as the official P-tuning v2 code does,
    and cannot tell equal verbs apart. The first two are the default, by whether the encoder has segments.

    Attributes:
        name: the task's name.
        roles: roles without `B-` and `I-`; empty to take them from all splits of the data.
        hub: where the data set lives.
        max_length: default cut, in pieces.
    """

    name: str
    roles: tuple[str, ...] = ()
    hub: HubSet = NO_HUB
    max_length: int = 256

    head: ClassVar[str] = "token"
    metric: ClassVar[str] = "f1"
    layouts: ClassVar[tuple[str, ...]] = ("segments", "markers", "verb")

    @property
    def labels(self) -> tuple[str, ...]:
        """`O`, then `B-` and `I-` of each role."""
        return ("O", *(f"{place}-{role}" for role in self.roles for place in "BI"))

    def parse(self, paths: list[Path]) -> list[dict[str, Any]]:
        """The three text forms of `formats.role_rows`; a folder may hold many files, or CoNLL-2005's `words` and `props`."""
        rows: list[dict[str, Any]] = []
        for path in paths:
            words, props = path / "words", path / "props"
            if words.is_dir() and props.is_dir():
                texts, roles = sorted(words.iterdir()), sorted(props.iterdir())
                if len(texts) != len(roles):
                    raise DataError(f"{path} has {len(texts)} files of words and {len(roles)} of props.")
                rows += [row for one, other in zip(texts, roles, strict=True) for row in pasted_roles(one, other)]
                continue
            files = sorted(path.rglob("*gold_conll")) or sorted(path.rglob("*")) if path.is_dir() else [path]
            rows += [row for file in files if file.is_file() for row in role_rows(file, read_text(file))]
        return rows

    def with_labels_of(self, tables: Mapping[str, Table]) -> SemanticRoles:
        """With every role that occurs in any split, unless they are listed."""
        if self.roles:
            return self
        found = {
            tag[2:] for table in tables.values() for row in _predicates(table).rows for tag in row["tags"] if tag != "O"
        }
        return replace(self, roles=tuple(sorted(found)))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give rows of `tokens`, `predicate` (the verb's place) and `tags`."""
        table = _predicates(table)
        check_columns(table, ["tokens", "predicate", "tags"])
        check_words(table)
        known, rows = set(self.labels), []
        for number, row in enumerate(table.rows):
            where = f"{table.where}, row {number}"
            tokens, tags, predicate = row["tokens"], row["tags"], row["predicate"]
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise DataError(f"{where}: column 'tags' must be a list of tags.")
            tags = list(tags)
            if len(tokens) != len(tags):
                raise DataError(f"{where}: {len(tokens)} tokens, but {len(tags)} tags.")
            if not isinstance(predicate, int) or not 0 <= predicate < len(tokens):
                raise DataError(
                    f"{where}: column 'predicate' is {predicate!r}, and the sentence has {len(tokens)} words."
                )
            for place, tag in enumerate(tags):
                if tag not in known:
                    raise DataError(f"{where}, word {place}: the tag {tag!r} is not one of this task's {len(known)}.")
            if tags[predicate] != "B-V":
                raise DataError(
                    f"{where}: the predicate, word {predicate}, has the tag {tags[predicate]!r}, not 'B-V'."
                )
            rows.append({"tokens": tokens, "predicate": predicate, "tags": tags})
        to_iob2([row["tags"] for row in rows], table.where)
        return rows

    def layout_name(self, layout: Layout) -> str:
        """As asked for; else segments where the encoder tells them apart, and markers where it does not."""
        return layout.name or ("segments" if layout.segments else "markers")

    def check_layout(self, layout: Layout) -> None:
        """As for every family; `segments` needs an encoder that tells segments apart."""
        super().check_layout(layout)
        if layout.name == "segments" and not layout.segments:
            raise BadOption("layout='segments' needs an encoder with two kinds of segment ids; use 'markers'.")

    def group(self, row: Mapping) -> tuple[str, ...]:
        """The sentence: its predicates stay together."""
        return tuple(row["tokens"])

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join(row["tokens"])

    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """Tokenize rows by words with the predicate marked."""
        name = self.layout_name(layout)
        first, second, numbers = [row["tokens"] for row in rows], None, None
        if name == "markers":
            first, numbers = [], []
            for row in rows:
                at, count = row["predicate"], len(row["tokens"])
                first.append([*row["tokens"][:at], MARKER, row["tokens"][at], MARKER, *row["tokens"][at + 1 :]])
                numbers.append([*range(at), -1, at, -1, *range(at + 1, count)])
        elif name == "verb":
            second = [[row["tokens"][row["predicate"]]] for row in rows]
        found = encode_words(rows, first, second, tokenizer, layout.max_length, self.labels, numbers)
        if name == "segments":
            for row, (one,) in zip(rows, found, strict=True):
                one.inputs["token_type_ids"] = _segments(one, row["predicate"])
        return found

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> list[str]:
        """Predicted tags of all words; the predicate is given, so its place is `B-V` and no other is."""
        tags = decode_words(logits[0], inputs[0], len(row["tokens"]), self.labels)
        tags = ["O" if tag in ("B-V", "I-V") else tag for tag in tags]
        tags[row["predicate"]] = "B-V"
        return tags

    def score(self, predicted: Sequence[Sequence[str]], rows: Sequence[Mapping]) -> dict[str, Any]:
        """F1 as srl-eval.pl counts it, and under `f1_spans_with_v` as the official P-tuning v2 code does."""
        gold = [row["tags"] for row in rows]
        scores = role_scores(predicted, gold)
        per_role = scores.pop("per_role")
        return scores | {"f1_spans_with_v": span_scores(predicted, gold)["f1"], "per_role": per_role}

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of marking the predicate and nothing else."""
        alone = [["B-V" if place == row["predicate"] else "O" for place in range(len(row["tokens"]))] for row in rows]
        return {"f1": self.score(alone, rows)["f1"], "answer": "the predicate alone"}

    def submission(self, predicted: Sequence[Sequence[str]], rows: Sequence[Mapping]) -> str:
        """CoNLL-2005's props: a column of target verbs (as they stand, not as lemmas), then one column of brackets a target.

        Rows of one sentence must follow one another, as they do in every split.
        """
        sentences: list[list[tuple[Mapping, Sequence[str]]]] = []
        for row, tags in zip(rows, predicted, strict=True):
            last = sentences[-1][-1][0] if sentences else None
            if last is None or last["tokens"] != row["tokens"] or last["predicate"] >= row["predicate"]:
                sentences.append([])
            sentences[-1].append((row, tags))
        blocks = []
        for pairs in sentences:
            tokens, targets = pairs[0][0]["tokens"], {row["predicate"] for row, _ in pairs}
            verbs = [token if place in targets else "-" for place, token in enumerate(tokens)]
            columns = [brackets(tags) for _, tags in pairs]
            blocks.append("".join("\t".join(cells) + "\n" for cells in zip(verbs, *columns, strict=True)))
        return "\n".join(blocks) + "\n"

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """`tokens` or a `text`, and the `predicate`: its place, or the verb itself where it stands once.

        Raises:
            DataError: if something is missing, or the verb stands there twice or never.
        """
        row = prepare_words(example)
        predicate = example.get("predicate")
        if isinstance(predicate, str):
            places = [place for place, token in enumerate(row["tokens"]) if token == predicate]
            if len(places) != 1:
                raise DataError(f"The verb {predicate!r} stands {len(places)} times in the example; give its place.")
            predicate = places[0]
        if not isinstance(predicate, int) or not 0 <= predicate < len(row["tokens"]):
            raise DataError(
                f"An example for roles needs 'predicate', the place of the verb among its {len(row['tokens'])} words, "
                f"not {predicate!r}."
            )
        return row | {"predicate": predicate}

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The predicate and its arguments; pieces of one argument stand together."""
        tags = self.decode(logits, inputs, row)
        roles = []
        for kind, pieces in role_arguments(tags):
            if kind != "V":
                roles.append({"role": kind, "pieces": named_spans([(kind, *piece) for piece in pieces], row)})
        return {"predicate": row["tokens"][row["predicate"]], "tags": tags, "roles": roles}


def _predicates(table: Table) -> Table:
    """One row a predicate, also from the Hub's CoNLL-2012, where a row is a document with its sentences."""
    if not table.rows or "sentences" not in table.rows[0]:
        return table
    rows = []
    for number, document in enumerate(table.rows):
        try:
            for sentence in document["sentences"]:
                for frame in sentence["srl_frames"]:
                    # The verb's place is where B-V stands; one frame of the set has none.
                    if "B-V" in frame["frames"]:
                        tags = frame["frames"]
                        rows.append({"tokens": sentence["words"], "predicate": tags.index("B-V"), "tags": tags})
        except (KeyError, TypeError, AttributeError):
            raise DataError(
                f"{table.where}, row {number}: column 'sentences' must hold words and srl_frames, as the Hub's set does."
            ) from None
    return Table(rows, {}, table.where)


def _listed(value: Any) -> list:
    """The value if it is a list, else nothing."""
    return value if isinstance(value, list) else []


def _segments(one: Encoded, predicate: int) -> np.ndarray:
    """1 on the pieces of the predicate's word, 0 elsewhere."""
    segments = np.zeros(len(one), np.int32)
    opened = np.flatnonzero(one.places == predicate)
    if len(opened):
        later = np.flatnonzero(one.places > predicate)
        end = later[0] if len(later) else len(one) - 1  # the last piece is the separator
        segments[opened[0] : end] = 1
    return segments

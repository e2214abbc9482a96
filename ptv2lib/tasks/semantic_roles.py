"""Semantic role labelling over given predicates: one row a predicate, one IOB2 tag a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import BadOption, DataError
from ..formats import PARTS_OF_A_VERB, brackets, files_in, pasted_roles, raw_files, read_text, role_rows, verbs
from ..metrics import role_arguments, role_scores, span_scores
from ..sources import HubSet, Table, joined, lined
from .common import NO_HUB, TaskFamily, check_columns, check_strings, check_words
from .tagging import decode_words, encode_words, named_spans, one_cell, prepare_words, to_iob2

MARKER = "*"  # stands before and after the predicate; a piece of its own in every tokenizer tried


@dataclass(frozen=True)
class SemanticRoles(TaskFamily):
    """A data set of predicates with their arguments.

    Layouts: `segments` gives the predicate's pieces the other segment id, so that two equal verbs of a sentence differ;
    `markers` puts a star before and after it; `verb` repeats it behind a separator, as the official P-tuning v2 code does,
    and cannot tell equal verbs apart. The first two are the default, by whether the encoder has segments.

    Attributes:
        name: the task's name.
        roles: roles without `B-` and `I-`; empty to take them from all splits of the data. Where they are listed, the data
            may add the `C-` and `R-` forms of any of them.
        hub: where the data set lives.
        max_length: default cut, in pieces.
    """

    name: str
    roles: tuple[str, ...] = ()
    hub: HubSet = NO_HUB
    max_length: int = 256

    head: ClassVar[str] = "token"
    metric: ClassVar[str] = "f1"
    row_names: ClassVar[tuple[str, ...]] = ("sentence", "silent_before", "silent_after")
    layouts: ClassVar[tuple[str, ...]] = ("segments", "markers", "verb")

    @property
    def labels(self) -> tuple[str, ...]:
        """`O`, then `B-` and `I-` of each role."""
        return ("O", *(f"{place}-{role}" for role in self.roles for place in "BI"))

    def parse(self, paths: list[Path]) -> Table:
        """The three text forms of `formats.role_rows`; a folder may hold many files, or CoNLL-2005's `words` and `props`."""
        tables: list[Table] = []
        for path in paths:
            words, props = path / "words", path / "props"
            if words.is_dir() and props.is_dir():
                texts, roles = files_in(words), files_in(props)
                if len(texts) != len(roles):
                    raise DataError(f"{path} has {len(texts)} files of words and {len(roles)} of props.")
                for one, other in zip(texts, roles, strict=True):
                    if _section(one, ".words") != _section(other, ".props"):
                        raise DataError(f"{one} and {other} should be the words and the roles of one section.")
                    tables.append(lined(other, pasted_roles(one, other)))
            else:
                tables += [lined(file, role_rows(file, read_text(file))) for file in raw_files([path])]
        return joined(tables, str(paths[0]))

    def with_labels_of(self, tables: Mapping[str, Table]) -> SemanticRoles:
        """With every role that occurs in any split; of listed ones the `C-` and `R-` forms, which no list has all of."""
        columns = (row.get("tags") for table in tables.values() for row in _predicates(table).rows)
        # What is no tag is left to `read`, which says where it stands.
        tags = (tag for tags in columns if isinstance(tags, list) for tag in tags if isinstance(tag, str))
        found = {tag[2:] for tag in tags if tag.startswith(("B-", "I-")) and tag[2:].strip()}
        if self.roles:
            found = {role for role in found - set(self.roles) if role[:2] in ("C-", "R-") and role[2:] in self.roles}
        return replace(self, roles=(*self.roles, *sorted(found)))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give rows of `tokens`, `predicate` (the verb's place) and `tags`.

        For `submission` a row also keeps what the data tell of these: the verb's `lemma`; the lemma's word as `target`, where
        the verb begins at another; the number of its `sentence`; and as `silent_before` and `silent_after` the lengths of
        sentences without a predicate around it. Sentences are known in the owners' forms, and elsewhere by a column
        `sentence`, or an `id` that rows share.
        """
        table = _predicates(table)
        check_columns(table, ["tokens"])
        check_words(table)
        table, silent = _without_silent(table)
        check_columns(table, ["predicate", "tags"])
        known, rows, sentences = set(self.labels), [], _sentences(table)
        for number, row in enumerate(table.rows):
            where = table.place(number)
            tokens, tags, predicate = row["tokens"], row["tags"], row["predicate"]
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise DataError(f"{where}: column 'tags' must be a list of tags.")
            tags = list(tags)
            if len(tokens) != len(tags):
                raise DataError(f"{where}: {len(tokens)} tokens, but {len(tags)} tags in column 'tags'.")
            if type(predicate) is not int or not 0 <= predicate < len(tokens):
                raise DataError(
                    f"{where}: column 'predicate' is {predicate!r}, and the sentence has {len(tokens)} words."
                )
            for place, tag in enumerate(tags):
                if tag not in known:
                    raise DataError(
                        f"{where}, word {place}: the tag {tag!r} of column 'tags' is neither O nor B- or I- with one "
                        f"of this task's {len(self.roles)} roles."
                    )
            if tags[predicate] != "B-V":
                raise DataError(
                    f"{where}: the predicate, word {predicate}, has the tag {tags[predicate]!r}, not 'B-V'."
                )
            if row.get("lemma") is not None:
                check_strings(row, ["lemma"], where)
            target = row.get("target")
            if target is not None and (type(target) is not int or not 0 <= target < len(tokens)):
                raise DataError(f"{where}: column 'target' is {target!r}, and the sentence has {len(tokens)} words.")
            more = {"lemma": row.get("lemma") or None, "target": target, "silent_before": silent[number] or None}
            if number + 1 == len(table.rows):
                more["silent_after"] = silent[-1] or None
            more["sentence"] = sentences[number] if sentences else None
            more = {part: value for part, value in more.items() if value is not None}
            rows.append({"tokens": tokens, "predicate": predicate, "tags": tags} | more)
        to_iob2([row["tags"] for row in rows], table)
        return rows

    def peculiar(self, rows: Sequence[Mapping]) -> dict[str, int]:
        """As for every family; and rows whose predicate has no argument (`alone`), or a `C-` one (`continued`)."""
        tags = [set(row["tags"]) for row in rows]
        return super().peculiar(rows) | {
            "alone": sum(found <= {"O", "B-V", "I-V"} for found in tags),
            "continued": sum(any(tag.startswith("B-C-") for tag in found) for found in tags),
        }

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
        """Predicted tags of all words. The predicate is given: its place is `B-V`, no other is, and `I-V` only goes on there."""
        raw = decode_words(logits[0], inputs[0], len(row["tokens"]), self.labels)
        tags = ["O" if tag in ("B-V", "I-V") else tag for tag in raw]
        at = row["predicate"]
        tags[at] = "B-V"
        while at + 1 < len(raw) and raw[at + 1] == "I-V":  # a predicate of several words
            at += 1
            tags[at] = "I-V"
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
        """CoNLL-2005's props: a column of target verbs, then one column of brackets a target.

        Verbs are lemmas where the data have them, since srl-eval.pl compares them, and else words as they stand, with
        `_` for white space; sentences without a predicate stand where they stood. Rows of one sentence must follow one
        another, as they do in every split. Where the data do not tell sentences apart (`read`), a row goes on with the sentence
        before it if it has the same words and a later predicate.
        """
        sentences: list[list[tuple[Mapping, Sequence[str]]]] = []
        for row, tags in zip(rows, predicted, strict=True):
            if not sentences or not _goes_on(row, sentences[-1][-1][0]) or len(sentences[-1]) == len(row["tokens"]):
                sentences.append([])
            sentences[-1].append((row, tags))
        blocks = []
        for pairs in sentences:
            first, last = pairs[0][0], pairs[-1][0]
            lines = _target_lines([row for row, _ in pairs])
            named = ["-"] * len(first["tokens"])
            for (row, _), line in zip(pairs, lines, strict=True):
                named[line] = one_cell(row.get("lemma", row["tokens"][row["predicate"]]))
            # The scorer takes the first column for the first verb, and so on.
            ordered = sorted(zip(lines, pairs, strict=True), key=lambda one: one[0])
            columns = [brackets(tags) for _, (_, tags) in ordered]
            blocks += ["-\n" * length for length in first.get("silent_before", ())]
            blocks.append("".join("\t".join(cells) + "\n" for cells in zip(named, *columns, strict=True)))
            blocks += ["-\n" * length for length in last.get("silent_after", ())]
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
        if type(predicate) is not int or not 0 <= predicate < len(row["tokens"]):
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


def _section(path: Path, layer: str) -> str:
    """`train.02` of CoNLL-2005's `train.02.words.gz` or `train.02.props`."""
    return path.name.removesuffix(".gz").removesuffix(layer)


def _sentences(table: Table) -> list[int] | None:
    """The running number of each row's sentence; None where the data do not tell."""
    names = [row.get("sentence") for row in table.rows]
    if None in names:
        names = [row.get("id") for row in table.rows]
        if None in names or len(set(map(str, names))) == len(names):  # an id for each row names no sentence
            return None
    changes = (one != other for one, other in pairwise(names))
    return list(accumulate(changes, initial=0))


def _goes_on(row: Mapping, before: Mapping) -> bool:
    """Whether a row is of the same sentence as the one before it."""
    if row["tokens"] != before["tokens"]:
        return False
    if "sentence" in row and "sentence" in before:
        return row["sentence"] == before["sentence"]
    return row["predicate"] > before["predicate"]


def _target_lines(rows: Sequence[Mapping]) -> list[int]:
    """The word at which each verb of a sentence is named: its target; a later verb at the same word takes a free one.

    That is one of its own words if it has several, else the next one.
    """
    wanted = [row.get("target", row["predicate"]) for row in rows]
    taken, lines = set(wanted), []
    for row, place in zip(rows, wanted, strict=True):
        if place in lines:
            own = [at for at, tag in enumerate(row.get("tags", ())) if tag in PARTS_OF_A_VERB]
            others = (*own, *range(place, len(row["tokens"])), *range(place))
            place = next(at for at in others if at not in taken)
        taken.add(place)
        lines.append(place)
    return lines


def _predicates(table: Table) -> Table:
    """One row a predicate, also from the Hub's CoNLL-2012, where a row is a document with its sentences."""
    if not table.rows or "sentences" not in table.rows[0]:
        return table
    return table.expanded(_said, "the Hub's set, where 'sentences' holds words and srl_frames")


def _said(document: Mapping) -> Iterator[dict[str, Any]]:
    """The rows of a document; a sentence without a predicate is `silent`, as in `formats.role_rows`."""
    for number, sentence in enumerate(document["sentences"]):
        lemmas = sentence.get("predicate_lemmas") or [None] * len(sentence["words"])
        if not isinstance(lemmas, list) or len(lemmas) != len(sentence["words"]):
            raise ValueError(
                f"column 'sentences' has a sentence of {len(sentence['words'])} words with other predicate_lemmas"
            )
        frames = [frame["frames"] for frame in sentence["srl_frames"]]
        if any(len(tags) != len(sentence["words"]) for tags in frames):
            raise ValueError(f"column 'sentences' has a sentence of {len(sentence['words'])} words with other frames")
        targets = [place for place, name in enumerate(sentence.get("predicate_framenet_ids") or ()) if name]
        said = verbs(frames, targets, lemmas, f"The document {document.get('document_id')}, sentence {number}")
        shared = {"tokens": sentence["words"], "sentence": f"{document.get('document_id')} {number}"}
        yield from [shared | verb for verb in said] or [shared | {"silent": True}]


def _without_silent(table: Table) -> tuple[Table, list[tuple[int, ...]]]:
    """The rows with a predicate; and the lengths of the sentences without one, before each row and after the last."""
    said, silent = [], [()]
    for number, row in enumerate(table.rows):
        if row.get("silent") and "predicate" not in row:
            silent[-1] += (len(row["tokens"]),)
        else:
            said.append(number)
            silent.append(())
    return Table([table.rows[n] for n in said], {}, table.where, [table.origin(n) for n in said]), silent


def _segments(one: Encoded, predicate: int) -> np.ndarray:
    """1 on the pieces of the predicate's word, 0 elsewhere."""
    segments = np.zeros(len(one), np.int32)
    opened = np.flatnonzero(one.places == predicate)
    if len(opened):
        later = np.flatnonzero(one.places > predicate)
        end = later[0] if len(later) else len(one) - 1  # the last piece is the separator
        segments[opened[0] : end] = 1
    return segments

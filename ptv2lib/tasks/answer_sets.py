"""Tasks where each question brings its own options, and several may be right: MultiRC and ReCoRD.

A row is a question with all its options, so that no split, limit or score can part them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import DataError
from ..formats import superglue_rows
from ..memory import without_collector
from ..metrics import answer_set_scores, best_f1a_margin, best_match
from ..sources import HubSet, Table
from .common import (
    NO_HUB,
    UNLABELLED,
    TaskFamily,
    check_columns,
    check_strings,
    check_text,
    check_texts,
    check_unique,
    json_lines,
    read_label,
    shares,
    tokenize,
)

PLACEHOLDER = "@placeholder"


@dataclass(frozen=True)
class AnswerSet(TaskFamily):
    """What both share: one input an option, read as true or false; the passage is cut, never question or option."""

    name: str
    hub: HubSet = NO_HUB
    max_length: int = 512

    head: ClassVar[str] = "sequence"
    labels: ClassVar[tuple[str, ...]] = ("False", "True")

    @abstractmethod
    def options(self, row: Mapping) -> list[tuple[str, str, int]]:
        """Of each option: the passage, what is claimed about it, and 0, 1 or -1 for unknown."""

    @without_collector()
    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """One input an option."""
        options = [self.options(row) for row in rows]
        flat = [option for row in options for option in row]
        laid = tokenize(tokenizer, [one[0] for one in flat], [one[1] for one in flat], layout.max_length, "only_first")
        inputs = iter(
            Encoded(pieces.arrays(), None if label == UNLABELLED else label, pieces.cut)
            for pieces, (_, _, label) in zip(laid, flat, strict=True)
        )
        return [[next(inputs) for _ in row] for row in options]


@dataclass(frozen=True)
class MultiRC(AnswerSet):
    """Which answers to a question about a paragraph are right? (Khashabi et al., 2018)."""

    metric: ClassVar[str] = "f1a"
    row_names: ClassVar[tuple[str, ...]] = ("idx", "answer_idx")

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give one row a question: `paragraph`, `question`, `answers`, `labels`, `idx` of all three."""
        table = table.expanded(superglue_rows, "MultiRC")
        check_columns(table, ["paragraph", "question", "answer", "idx"])
        for column in ("paragraph", "question", "answer"):
            check_texts(table, column)
        questions: dict[tuple, dict[str, Any]] = {}
        for number, row in enumerate(table.rows):
            where = table.place(number)
            idx = row["idx"]
            parts = ("paragraph", "question", "answer")
            if not isinstance(idx, dict) or not all(isinstance(idx.get(part), (int, str)) for part in parts):
                raise DataError(f"{where}: column 'idx' must hold paragraph, question and answer, not {idx!r:.60}.")
            key = (idx["paragraph"], idx["question"])
            question = questions.setdefault(
                key,
                {"paragraph": row["paragraph"], "question": row["question"], "answers": [], "labels": [], "idx": key}
                | {"answer_idx": []},
            )
            if (question["paragraph"], question["question"]) != (row["paragraph"], row["question"]):
                raise DataError(f"{where}: paragraph {key[0]}, question {key[1]} stands there with two texts.")
            if idx["answer"] in question["answer_idx"]:
                raise DataError(f"{where}: paragraph {key[0]}, question {key[1]} has answer {idx['answer']} twice.")
            label = read_label(row.get("label", UNLABELLED), self.labels, table.names.get("label"), where)
            if (UNLABELLED in question["labels"]) != (label == UNLABELLED) and question["labels"]:
                raise DataError(
                    f"{where}: column 'label' gives some answers of paragraph {key[0]}, question {key[1]} a label and "
                    "others none."
                )
            question["answers"].append(row["answer"])
            question["labels"].append(label)
            question["answer_idx"].append(idx["answer"])
        return list(questions.values())

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold answers."""
        return all(UNLABELLED not in row["labels"] for row in rows)

    def group(self, row: Mapping) -> Hashable:
        """The paragraph."""
        return row["paragraph"]

    def size(self, row: Mapping) -> int:
        """Its options: the Hub has one row for each."""
        return len(row["answers"])

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return " ".join([row["paragraph"], row["question"], *row["answers"]])

    def options(self, row: Mapping) -> list[tuple[str, str, int]]:
        """Paragraph against question and answer."""
        labels = row.get("labels") or [UNLABELLED] * len(row["answers"])
        return [
            (row["paragraph"], f"{row['question']} {answer}", label)
            for answer, label in zip(row["answers"], labels, strict=True)
        ]

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> list[int]:
        """0 or 1 for each option."""
        return [int(scores.argmax()) for scores in logits]

    def best_threshold(self, logits: Sequence[np.ndarray], rows: Sequence[Mapping]) -> float:
        """By how much *true* must lead to be said, so that these rows have the best F1a.

        An option is worth calling right long before it is likelier right than wrong.

        Args:
            logits: of every option of every row, in order.
            rows: the rows, labelled.
        """
        gold = [label for row in rows for label in row["labels"]]
        return best_f1a_margin([float(scores[1] - scores[0]) for scores in logits], gold)[0]

    def score(self, predicted: Sequence[Sequence[int]], rows: Sequence[Mapping]) -> dict[str, Any]:
        """F1 over all options, and the share of questions with every option right."""
        self.check_labelled(rows)
        return answer_set_scores(predicted, [row["labels"] for row in rows])

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of calling every option right: of the two constant answers the one with an F1a."""
        return self.score([[1] * len(row["labels"]) for row in rows], rows) | {"answer": "True for every option"}

    def submission(self, predicted: Sequence[Sequence[int]], rows: Sequence[Mapping]) -> str:
        """SuperGLUE's JSON lines: one a paragraph, its questions and their options inside."""
        paragraphs: dict[Any, list[dict[str, Any]]] = {}
        for row, labels in zip(rows, predicted, strict=True):
            answers = [{"idx": idx, "label": label} for idx, label in zip(row["answer_idx"], labels, strict=True)]
            paragraphs.setdefault(row["idx"][0], []).append({"idx": row["idx"][1], "answers": answers})
        return json_lines({"idx": idx, "passage": {"questions": asked}} for idx, asked in paragraphs.items())

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """A `paragraph`, a `question` and its `answers`, a list.

        Raises:
            DataError: if one is missing or is not text.
        """
        check_columns(Table([dict(example)], {}, "The example"), ["paragraph", "question", "answers"])
        check_strings(example, ("paragraph", "question"), "The example")
        answers = example["answers"]
        if not isinstance(answers, (list, tuple)) or not answers or not all(isinstance(one, str) for one in answers):
            raise DataError(f"The example: column 'answers' must be a list of texts, not {answers!r:.60}.")
        for text in answers:
            check_text(text, "answers", "The example")
        if len(set(answers)) < len(answers):
            raise DataError("The example: column 'answers' has a text twice; give each answer once.")
        return {column: example[column] for column in ("paragraph", "question", "answers")}

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The answers held to be right, and the chance of each."""
        chances = [float(shares(scores)[1]) for scores in logits]
        return {
            "answers": [text for text, chance in zip(row["answers"], chances, strict=True) if chance > 0.5],
            "probabilities": dict(zip(row["answers"], chances, strict=True)),
        }


@dataclass(frozen=True)
class ReCoRD(AnswerSet):
    """Which entity of the passage fills the gap in the query? (Zhang et al., 2018)."""

    label_column: ClassVar[str] = "answers"
    metric: ClassVar[str] = "f1"

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give its queries: `passage`, `query`, `entities`, `answers` (empty where unknown), `idx`."""
        table = table.expanded(superglue_rows, "ReCoRD")
        check_columns(table, ["passage", "query", "entities"])
        for column in ("passage", "query"):
            check_texts(table, column)
        check_unique(table, "idx")
        found = []
        for number, row in enumerate(table.rows):
            where = table.place(number)
            idx = row.get("idx", {"passage": number, "query": number})
            if not isinstance(idx, dict) or not all(
                isinstance(idx.get(part), (int, str)) for part in ("passage", "query")
            ):
                raise DataError(f"{where}: column 'idx' must hold passage and query, not {idx!r:.60}.")
            if PLACEHOLDER not in row["query"]:
                raise DataError(f"{where}: column 'query' has no {PLACEHOLDER}.")
            for column in ("entities", "answers"):
                texts = row.get(column) or []
                if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                    raise DataError(f"{where}: column {column!r} must be a list of texts, not {texts!r:.60}.")
                for text in texts:
                    check_text(text, column, where)
            if not row["entities"]:
                raise DataError(f"{where}: column 'entities' is empty.")
            found.append(
                {"passage": row["passage"], "query": row["query"], "entities": list(row["entities"])}
                | {
                    "answers": list(row.get("answers") or []),
                    "idx": idx,
                }
            )
        return found

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold answers."""
        return all(row["answers"] for row in rows)

    def group(self, row: Mapping) -> Hashable:
        """The passage."""
        return row["passage"]

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return f"{row['passage']} {row['query']}"

    def options(self, row: Mapping) -> list[tuple[str, str, int]]:
        """Passage against the query with each entity in its gap."""
        gold = row.get("answers")
        return [
            (
                row["passage"].replace("@highlight\n", ""),
                row["query"].replace(PLACEHOLDER, entity),
                int(entity in gold) if gold else UNLABELLED,
            )
            for entity in row["entities"]
        ]

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> str:
        """The entity held true with the widest margin."""
        return row["entities"][int(np.argmax([scores[1] - scores[0] for scores in logits]))]

    def score(self, predicted: Sequence[str], rows: Sequence[Mapping]) -> dict[str, Any]:
        """F1 and exact match of texts, each against the best gold answer."""
        self.check_labelled(rows)
        return best_match(predicted, [row["answers"] for row in rows])

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of the entity that the passage names most often, the first of several."""
        chosen = [max(row["entities"], key=lambda entity, row=row: row["passage"].count(entity)) for row in rows]
        return self.score(chosen, rows) | {"answer": "the entity named most often in the passage"}

    def submission(self, predicted: Sequence[str], rows: Sequence[Mapping]) -> str:
        """SuperGLUE's JSON lines, with the entity's text."""
        return json_lines(
            {"idx": row["idx"]["query"], "label": text} for row, text in zip(rows, predicted, strict=True)
        )

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """A `passage`, a `query` with `@placeholder`, and the `entities` to choose from.

        Raises:
            DataError: if one is missing, or an entity is given twice.
        """
        unasked = {"answers": [], "idx": {"passage": 0, "query": 0}}
        row = self.read(Table([dict(example) | unasked], {}, "The example"))[0]
        if len(set(row["entities"])) < len(row["entities"]):
            raise DataError("The example: column 'entities' has a text twice; give each entity once.")
        return {column: row[column] for column in ("passage", "query", "entities")}

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The entity, and each one's share of the belief."""
        margins = np.array([float(scores[1] - scores[0]) for scores in logits])
        chances = shares(margins)
        return {
            "answer": row["entities"][int(margins.argmax())],
            "probabilities": {name: float(chance) for name, chance in zip(row["entities"], chances, strict=True)},
        }

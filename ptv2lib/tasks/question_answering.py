"""Extractive question answering: the answer is a span of the context, or none."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import DataError
from ..memory import without_collector
from ..metrics import squad_scores, squad_v2_scores
from ..sources import HubSet, Table
from .common import NO_HUB, Pieces, TaskFamily, check_columns, check_text, check_texts, check_unique

N_BEST = 20
LONGEST_ANSWER = 30  # pieces, as in the official code
LEAST_CONTEXT = 16  # pieces that a window shows at least


@dataclass(frozen=True)
class QuestionAnswering(TaskFamily):
    """A data set in SQuAD's columns.

    Attributes:
        name: the task's name.
        unanswerable: whether a question may have no answer (SQuAD 2.0).
        hub: where the data set lives.
        max_length: length of a window, in pieces; neighbouring windows of a context share `Layout.stride`.
        trained_on: another task whose training and validation rows are used, for a set that has a test alone.
    """

    name: str
    unanswerable: bool = False
    hub: HubSet = NO_HUB
    max_length: int = 384
    trained_on: str | None = None

    head: ClassVar[str] = "span"
    label_column: ClassVar[str] = "answers"
    metric: ClassVar[str] = "f1"
    labels: ClassVar[tuple[str, ...]] = ("start", "end")
    row_names: ClassVar[tuple[str, ...]] = ("id", "title")

    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split: every gold answer must stand at its offset in the context.

        A row whose `answers` are missing is unlabelled, and has None there.
        """
        check_columns(table, ["id", "context", "question"])
        for column in ("context", "question"):
            check_texts(table, column)
        check_unique(table, "id")
        rows = []
        for number, row in enumerate(table.rows):
            where = table.place(number)
            check_text(None if row["id"] is None else str(row["id"]), "id", where)
            title = "" if row.get("title") is None else row["title"]
            check_text(title, "title", where)
            answers = None if row.get("answers") is None else self._answers(row["answers"], row["context"], where)
            rows.append(
                {"id": str(row["id"]), "title": title, "context": row["context"]}
                | {"question": row["question"]}
                | {"answers": answers}
            )
        return rows

    def _answers(self, value: Any, context: str, where: str) -> dict[str, list]:
        """Texts and offsets as two lists, also from a list of dicts; each text must stand at its offset."""
        parts = {"text": str, "answer_start": int}
        if isinstance(value, list) and all(isinstance(one, Mapping) and set(parts) <= set(one) for one in value):
            value = {part: [one[part] for one in value] for part in parts}
        found = {part: value.get(part) if isinstance(value, Mapping) else None for part in parts}
        for part, kind in parts.items():
            if not isinstance(found[part], list) or not all(type(one) is kind for one in found[part]):
                raise DataError(
                    f"{where}: column 'answers' must hold lists of text and answer_start, not {value!r:.60}."
                )
        if len(found["text"]) != len(found["answer_start"]):
            raise DataError(
                f"{where}: column 'answers' has {len(found['text'])} texts and {len(found['answer_start'])} offsets."
            )
        for text, start in zip(found["text"], found["answer_start"], strict=True):
            self._check_answer(context, text, start, where)
        if not found["text"] and not self.unanswerable:
            raise DataError(f"{where}: column 'answers' is empty, and every question of {self.name} has an answer.")
        return found

    @staticmethod
    def _check_answer(context: str, text: str, start: int, where: str) -> None:
        if not 0 <= start <= len(context):
            raise DataError(
                f"{where}: column 'answers' has answer_start {start}, outside the context of {len(context)} characters."
            )
        if context[start : start + len(text)] != text:
            raise DataError(
                f"{where}: column 'answers' puts {text[:40]!r} at {start}, where the context says "
                f"{context[start : start + len(text)][:40]!r}."
            )

    def group(self, row: Mapping) -> Hashable:
        """The article, or the context where articles have no titles."""
        return row["title"] or row["context"]

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold answers, or say that they have none."""
        return all(row["answers"] is not None for row in rows)

    def strata(self, row: Mapping) -> bool:
        """Whether the question has an answer."""
        return bool(row["answers"] and row["answers"]["text"])

    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""
        return f"{row['question']} {row['context']}"

    @without_collector()
    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """Windows over the context, each with the whole question before it.

        A window's label is the first gold answer's first and last piece if it lies in the window as a whole, and else the
        window's first piece twice, which stands for no answer. A question that leaves no room for a window is cut.
        """
        questions = [row["question"].strip() for row in rows]
        special = tokenizer.num_special_tokens_to_add(pair=True)
        free = layout.max_length - special
        room = max(1, free - min(LEAST_CONTEXT, free // 2))
        pieces = tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"] if rows else []
        portions: dict[int, list[int]] = {}
        question_cut = [len(ids) > room for ids in pieces]
        for i, ids in enumerate(pieces):
            if question_cut[i]:
                offsets = tokenizer(questions[i], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
                questions[i] = questions[i][: offsets["offset_mapping"][room - 1][1]]
            # A window must reach further than it overlaps, also behind a long question.
            window = layout.max_length - special - min(len(ids), room)
            portions.setdefault(min(layout.stride, window // 2), []).append(i)
        found: list[list[Encoded]] = [[] for _ in rows]
        for stride, numbers in portions.items():
            for start in range(0, len(numbers), 1000):  # in parts, since the tokenizer's own objects are large
                part = numbers[start : start + 1000]
                encoding = tokenizer(
                    [questions[i] for i in part],
                    [rows[i]["context"] for i in part],
                    truncation="only_second",
                    max_length=layout.max_length,
                    stride=stride,
                    return_overflowing_tokens=True,
                    return_offsets_mapping=True,
                    return_attention_mask=False,
                    verbose=False,
                )
                for window, of in enumerate(encoding["overflow_to_sample_mapping"]):
                    i = part[of]
                    places = np.array(encoding["offset_mapping"][window], np.int32)
                    places[[side != 1 for side in encoding.sequence_ids(window)]] = -1
                    answers = rows[i].get("answers")
                    label = None if answers is None else _gold_pieces(places, answers)
                    found[i].append(
                        Encoded(Pieces(encoding, window, False).arrays(), label, question_cut[i], places=places)
                    )
        for i, row in enumerate(rows):
            gold = row.get("answers")
            if gold and gold["text"] and all(one.labels == (0, 0) for one in found[i]):
                found[i][0].lost = 1
        return found

    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The best valid pair over all windows, and the score of having no answer.

        Returns:
            `text`, `score` (start and end logit), `start` and `end` characters of the context, `no_answer`: by how much the
            best window's first piece scores above it (SQuAD 2.0's difference; at 0 both are as good), and `n_best`.
        """
        null = min(float(scores[0, 0] + scores[0, 1]) for scores in logits)
        candidates = []
        for scores, one in zip(logits, inputs, strict=True):
            candidates += _best_pairs(scores, one.places)
        candidates.sort(key=lambda pair: -pair[0])
        n_best, texts = [], set()
        for score, start, end in candidates:
            # Some tokenizers count the blank before a word as part of its piece.
            text = row["context"][start:end]
            start += len(text) - len(text.lstrip())
            text = text.strip()
            end = start + len(text)
            if text not in texts:
                texts.add(text)
                n_best.append({"text": text, "score": score, "start": start, "end": end})
            if len(n_best) == N_BEST:
                break
        best = n_best[0] if n_best else {"text": "", "score": null, "start": 0, "end": 0}
        return best | {"no_answer": null - best["score"], "n_best": n_best}

    def score(self, predicted: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """F1 and exact match by the official scorers; for SQuAD 2.0 also apart by kind and with the best threshold.

        Raises:
            DataError: for rows without answers.
        """
        self.check_labelled(rows)
        gold = [row["answers"]["text"] for row in rows]
        texts = [one["text"] for one in predicted]
        if not self.unanswerable:
            return squad_scores(texts, gold)
        return squad_v2_scores(texts, gold, [one["no_answer"] for one in predicted], 0.0)

    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of never answering: 0 where every question has an answer."""
        nothing = [{"text": "", "no_answer": 0.0} for _ in rows]
        scores = self.score(nothing, rows)
        return {"f1": scores["f1"], "exact_match": scores["exact_match"], "answer": "no answer"}

    def submission(self, predicted: Sequence[Mapping], rows: Sequence[Mapping]) -> str:
        """SQuAD's JSON: question id to answer text, empty where none is more likely (SQuAD 2.0)."""
        told = {
            row["id"]: "" if self.unanswerable and one["no_answer"] > 0 else one["text"]
            for row, one in zip(rows, predicted, strict=True)
        }
        return json.dumps(told, ensure_ascii=False) + "\n"

    def prepare(self, example: Mapping) -> dict[str, Any]:
        """A `question` and its `context`.

        Raises:
            DataError: if one is missing or is not text.
        """
        table = Table([dict(example)], {}, "The example")
        check_columns(table, ["question", "context"])
        for column in ("question", "context"):
            check_texts(table, column)
        return {"question": example["question"], "context": example["context"], "id": str(example.get("id", 0))}

    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The answer as text of the context with its characters and score; empty where none is more likely."""
        best = self.decode(logits, inputs, row)
        if self.unanswerable and best["no_answer"] > 0:
            best |= {"text": "", "start": 0, "end": 0}
        return {"answer": best["text"], "characters": (best["start"], best["end"])} | {
            key: best[key] for key in ("score", "no_answer", "n_best")
        }


def _gold_pieces(places: np.ndarray, answers: Mapping) -> tuple[int, int]:
    """First and last piece of the first gold answer, or (0, 0) where this window does not hold it whole."""
    if not answers["text"]:
        return 0, 0
    text = answers["text"][0]
    start = answers["answer_start"][0] + len(text) - len(text.lstrip())  # no piece holds the blanks at its ends
    end = start + len(text.strip())
    inside = np.flatnonzero((places[:, 1] > start) & (places[:, 0] < end) & (places[:, 1] > places[:, 0]))
    if not len(inside) or places[inside[0], 0] > start or places[inside[-1], 1] < end:
        return 0, 0
    return int(inside[0]), int(inside[-1])


def _best_pairs(scores: np.ndarray, places: np.ndarray) -> list[tuple[float, int, int]]:
    """The best pairs of a window as (score, first character, character after the last).

    Valid are pairs inside the context, in order, and at most `LONGEST_ANSWER` pieces long; all of them are looked at.
    """
    context = np.flatnonzero(places[:, 1] > places[:, 0])
    if not len(context):
        return []
    first, last = context[0], context[-1]
    start, end = scores[first : last + 1, 0], scores[first : last + 1, 1]
    size = len(start)
    apart = np.subtract.outer(np.arange(size), np.arange(size)).T  # end minus start
    valid = (apart >= 0) & (apart < LONGEST_ANSWER)
    pairs = np.where(valid, np.add.outer(start, end), -np.inf)
    count = min(N_BEST, int(valid.sum()))
    flat = np.argpartition(pairs, -count, axis=None)[-count:]
    found = []
    for number in flat:
        one, other = divmod(int(number), size)
        found.append((float(pairs[one, other]), int(places[first + one, 0]), int(places[first + other, 1])))
    return found

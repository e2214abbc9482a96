"""Scores as plain functions on lists.

Spans follow conlleval's rule, which is seqeval's default mode: `I-X` after `O`, after another type or at the start of a
sentence opens a span. The rule is implemented by seqeval; this module counts.
"""

from __future__ import annotations

import math
import re
import statistics
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any


def accuracy(predicted: Sequence, gold: Sequence) -> float:
    """Share of equal pairs, from 0 to 1; 0.0 for empty lists."""
    _same_length(predicted, gold)
    return sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold) if gold else 0.0


def macro_f1(predicted: Sequence, gold: Sequence, labels: Sequence) -> float:
    """Unweighted mean of each label's F1; a label that occurs on neither side counts 0, as in SuperGLUE's CB."""
    _same_length(predicted, gold)
    scores = []
    for label in labels:
        right = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        found, wanted = sum(p == label for p in predicted), sum(g == label for g in gold)
        scores.append(_precision_recall_f1(right, found, wanted)["f1"])
    return _mean(scores)


def answer_set_scores(predicted: Sequence[Sequence[int]], gold: Sequence[Sequence[int]]) -> dict[str, float]:
    """MultiRC (SuperGLUE): `f1a`, F1 of label 1 over all options pooled, and `exact_match`, questions with every option right.

    Args:
        predicted: 0 or 1 for each option of each question.
        gold: likewise.
    """
    _same_length(predicted, gold)
    pairs = []
    for one, other in zip(predicted, gold, strict=True):
        _same_length(one, other)
        pairs += list(zip(one, other, strict=True))
    right = sum(p == g == 1 for p, g in pairs)
    f1a = _precision_recall_f1(right, sum(p == 1 for p, _ in pairs), sum(g == 1 for _, g in pairs))["f1"]
    return {"f1a": f1a, "exact_match": accuracy([list(one) for one in predicted], [list(one) for one in gold])}


def best_f1a_margin(margins: Sequence[float], gold: Sequence[int]) -> tuple[float, float]:
    """The margin above which calling an option right gives the best F1a on these very options, and that F1a.

    Args:
        margins: by how much each option's score for right exceeds that for wrong.
        gold: 1 for a right option, 0 for a wrong one.

    Returns:
        The middle between the two margins it has to part, or 1 below the lowest; of several that score alike, the highest.
    """
    _same_length(margins, gold)
    order = sorted(range(len(margins)), key=lambda i: -margins[i])
    wanted = sum(label == 1 for label in gold)
    best, place, right = 0.0, margins[order[0]] if order else 0.0, 0
    for said, i in enumerate(order, 1):
        right += gold[i] == 1
        below = margins[order[said]] if said < len(order) else margins[i] - 2
        f1 = 2 * right / (said + wanted)
        if below < margins[i] and f1 > best:
            best, place = f1, (margins[i] + below) / 2
    return place, best


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Spans of one sentence as (type, start, end), end exclusive, by conlleval's rule."""
    from seqeval.metrics.sequence_labeling import get_entities

    return [(kind, start, end + 1) for kind, start, end in get_entities(list(tags))]


def span_scores(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Micro precision, recall and F1 over spans, and F1 by type.

    A span is right only if its start, end and type are. Without any span on either side all scores are 0.0.

    Returns:
        `{"f1", "precision", "recall", "per_type": {type: {"f1", "precision", "recall", "gold"}}}`, each from 0 to 1.
    """
    _same_length(predicted, gold)
    right, found, wanted = Counter(), Counter(), Counter()
    for one, other in zip(predicted, gold, strict=True):
        _same_length(one, other)
        guessed, true = set(spans(one)), set(spans(other))
        found.update(kind for kind, _, _ in guessed)
        wanted.update(kind for kind, _, _ in true)
        right.update(kind for kind, _, _ in guessed & true)
    per_type = {
        kind: _precision_recall_f1(right[kind], found[kind], wanted[kind]) | {"gold": wanted[kind]}
        for kind in sorted(found | wanted)
    }
    return _precision_recall_f1(right.total(), found.total(), wanted.total()) | {"per_type": per_type}


def strict_span_scores(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Micro precision, recall and F1 where a span must open with `B-` (seqeval's strict mode with IOB2)."""
    _same_length(predicted, gold)
    right = found = wanted = 0
    for one, other in zip(predicted, gold, strict=True):
        _same_length(one, other)
        guessed, true = _strict_spans(one), _strict_spans(other)
        right, found, wanted = right + len(guessed & true), found + len(guessed), wanted + len(true)
    return _precision_recall_f1(right, found, wanted)


def _strict_spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    return {(kind, start, end) for kind, start, end in spans(tags) if tags[start].startswith("B-")}


def role_arguments(tags: Sequence[str]) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """Arguments of one predicate as srl-eval.pl builds them: (role, pieces), a piece as (start, end), end exclusive.

    A `C-X` piece joins the latest argument of role X; without one it is an ordinary X. `R-X` is a role of its own.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for kind, start, end in spans(tags):
        role = kind.removeprefix("C-")
        earlier = [pieces for other, pieces in found if other == role] if role != kind else []
        if earlier:
            earlier[-1].append((start, end))
        else:
            found.append((role, [(start, end)]))
    return [(role, tuple(pieces)) for role, pieces in found]


def role_scores(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Micro precision, recall and F1 over arguments as the CoNLL-2005 scorer srl-eval.pl counts them.

    `V` does not count. An argument is right only if its role and all its pieces are. `perfect` is the share of predicates
    with every argument right and none too many.

    Args:
        predicted: one tag sequence a predicate.
        gold: likewise.

    Returns:
        `{"f1", "precision", "recall", "perfect", "per_role": {role: {…, "gold"}}}`, each from 0 to 1.
    """
    _same_length(predicted, gold)
    right, found, wanted, perfect = Counter(), Counter(), Counter(), 0
    for one, other in zip(predicted, gold, strict=True):
        _same_length(one, other)
        guessed, true = (
            Counter(argument for argument in role_arguments(tags) if argument[0] != "V") for tags in (one, other)
        )
        for counts, arguments in ((found, guessed), (wanted, true), (right, guessed & true)):
            for (role, _), times in arguments.items():
                counts[role] += times
        perfect += guessed == true
    per_role = {
        role: _precision_recall_f1(right[role], found[role], wanted[role]) | {"gold": wanted[role]}
        for role in sorted(found | wanted)
    }
    total = _precision_recall_f1(right.total(), found.total(), wanted.total())
    return total | {"perfect": perfect / len(gold) if gold else 0.0, "per_role": per_role}


def normalize_answer(text: str) -> str:
    """SQuAD's normalization: lower case, ASCII punctuation and the words a, an, the out, white space collapsed."""
    text = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(predicted: str, gold: str) -> float:
    """1.0 if both are equal after normalization, else 0.0."""
    return float(normalize_answer(predicted) == normalize_answer(gold))


def token_f1(predicted: str, gold: str) -> float:
    """F1 of the bags of words after normalization; 0.0 without a common word (SQuAD 1.1)."""
    one, other = normalize_answer(predicted).split(), normalize_answer(gold).split()
    same = (Counter(one) & Counter(other)).total()
    return 2 * same / (len(one) + len(other)) if same else 0.0


def best_match(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean over questions of the best F1 and the best exact match with any gold answer; no gold answer scores 0."""
    _same_length(predicted, gold)
    scores = {"f1": token_f1, "exact_match": exact_match}
    return {
        name: _mean(
            [max((score(one, text) for text in texts), default=0.0) for one, texts in zip(predicted, gold, strict=True)]
        )
        for name, score in scores.items()
    }


def squad_scores(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> dict[str, float]:
    """`f1` and `exact_match` as the official scorer of SQuAD 1.1 gives them, from 0 to 1."""
    return best_match(predicted, gold)


def squad_v2_scores(
    predicted: Sequence[str], gold: Sequence[Sequence[str]], no_answer: Sequence[float], threshold: float
) -> dict[str, Any]:
    """The official scores of SQuAD 2.0, from 0 to 1.

    Args:
        predicted: the best answer to each question, also where none seems more likely.
        gold: accepted answers; an empty list where there is none.
        no_answer: the higher, the likelier that there is no answer.
        threshold: a question whose `no_answer` lies above it is answered with nothing.

    Returns:
        `f1` and `exact_match` at the threshold; both for answerable (`has_answer`) and unanswerable questions (`no_answer`);
        `best_f1`, `best_exact_match` with the threshold that suits each best, found on these very questions: an upper
        bound, not a result.
    """
    _same_length(predicted, gold)
    _same_length(predicted, no_answer)
    golds = [[text for text in texts if normalize_answer(text)] or [""] for texts in gold]
    has = [bool(texts) for texts in gold]
    result: dict[str, Any] = {}
    parts: dict[str, dict[str, float]] = {"has_answer": {}, "no_answer": {}}
    best: dict[str, float] = {}
    for name, score in (("f1", _f1_or_both_empty), ("exact_match", exact_match)):
        raw = [max(score(one, text) for text in texts) for one, texts in zip(predicted, golds, strict=True)]
        final = [
            float(not answerable) if chance > threshold else value
            for value, answerable, chance in zip(raw, has, no_answer, strict=True)
        ]
        result[name] = _mean(final)
        for part, wanted in (("has_answer", True), ("no_answer", False)):
            parts[part][name] = _mean(
                [value for value, answerable in zip(final, has, strict=True) if answerable is wanted]
            )
        best |= _best_threshold(name, raw, has, predicted, no_answer)
    return result | {"threshold": threshold} | parts | best


def _f1_or_both_empty(predicted: str, gold: str) -> float:
    """SQuAD 2.0's F1: where either side has no words, both must have none."""
    one, other = normalize_answer(predicted), normalize_answer(gold)
    return token_f1(predicted, gold) if one and other else float(one == other)


def _best_threshold(
    name: str, raw: Sequence[float], has: Sequence[bool], predicted: Sequence[str], no_answer: Sequence[float]
) -> dict[str, float]:
    """Go through the questions from the surest answer on, as the official `find_best_thresh` does."""
    score = best = sum(not answerable for answerable in has)
    threshold = 0.0
    for i in sorted(range(len(raw)), key=lambda i: no_answer[i]):
        score += raw[i] if has[i] else -1 if predicted[i] else 0
        if score > best:
            best, threshold = score, no_answer[i]
    return {f"best_{name}": best / len(raw) if len(raw) else 0.0, f"best_{name}_threshold": threshold}


def standard_error(score: float, rows: int) -> float:
    """Standard error of a share measured on `rows` independent rows (binomial)."""
    return math.sqrt(score * (1 - score) / rows) if rows else float("nan")


def jackknife_error(
    score: Callable[[Sequence[int]], float], groups: Sequence[Hashable], parts: int = 20
) -> float | None:
    """Standard error of any score on these rows, by leaving out one part of them at a time (delete-a-group jackknife).

    Rows that share a text are no independent ones, so a group of rows is left out as one. About a sixth of the error is luck
    with twenty parts: its own spread is its size over the square root of twice the parts.

    Args:
        score: the score of the rows with these numbers.
        groups: the group of each row.
        parts: into how many parts the groups are dealt out in turn.

    Returns:
        the standard error; None for fewer than two groups.
    """
    numbers = {group: k for k, group in enumerate(dict.fromkeys(groups))}
    parts = min(parts, len(numbers))
    if parts < 2:
        return None
    part = [numbers[group] % parts for group in groups]
    scores = [score([i for i, own in enumerate(part) if own != left_out]) for left_out in range(parts)]
    return math.sqrt((parts - 1) * statistics.pvariance(scores))


def evaluate_metric(name: str) -> Any:
    """Give one of these scores as an `evaluate.Metric` that keeps everything in memory.

    Args:
        name: `accuracy`, `macro_f1` (labels as found on either side), `span_f1`, `role_f1`, `multirc`, `record`,
            `squad` or `squad_v2` (predictions as `{"text", "no_answer"}`).

    Raises:
        UnknownName: for another name.
    """
    import datasets
    import evaluate

    from .errors import unknown

    number, text = datasets.Value("int64"), datasets.Value("string")
    many_texts, many_numbers = datasets.Sequence(text), datasets.Sequence(number)
    answer = {"text": text, "no_answer": datasets.Value("float64")}
    kinds: dict[str, tuple[Any, Any, Callable[[list, list], dict]]] = {
        "accuracy": (number, number, lambda p, r: {"accuracy": accuracy(p, r)}),
        "macro_f1": (number, number, lambda p, r: {"macro_f1": macro_f1(p, r, sorted({*p, *r}))}),
        "span_f1": (many_texts, many_texts, span_scores),
        "role_f1": (many_texts, many_texts, role_scores),
        "multirc": (many_numbers, many_numbers, answer_set_scores),
        "record": (text, many_texts, best_match),
        "squad": (text, many_texts, squad_scores),
        "squad_v2": (
            answer,
            many_texts,
            lambda p, r: squad_v2_scores([one["text"] for one in p], r, [one["no_answer"] for one in p], 0.0),
        ),
    }
    if name not in kinds:
        raise unknown("metric", name, kinds)
    predictions, references, score = kinds[name]

    class Metric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=score.__doc__ or name,
                citation="",
                features=datasets.Features({"predictions": predictions, "references": references}),
            )

        def _build_data_dir(self) -> str:
            return self._data_dir_root  # evaluate would make a folder there, which nothing is written to

        def _compute(self, predictions: list, references: list) -> dict:
            return score(predictions, references)

    return Metric(keep_in_memory=True)


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0


def _precision_recall_f1(right: int, found: int, wanted: int) -> dict[str, float]:
    precision = right / found if found else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (found + wanted) if found + wanted else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def _same_length(one: Sequence, other: Sequence) -> None:
    if len(one) != len(other):
        raise ValueError(f"Predictions and gold answers differ in number: {len(one)} against {len(other)}.")

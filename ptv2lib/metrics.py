"""Scores as plain functions on lists.

Spans follow conlleval's rule, which is seqeval's default mode: `I-X` after `O`, after another type or at the start of a
sentence opens a span. The rule is implemented by seqeval; this module counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any


def accuracy(predicted: Sequence, gold: Sequence) -> float:
    """Share of equal pairs, from 0 to 1; 0.0 for empty lists."""
    _same_length(predicted, gold)
    return sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold) if gold else 0.0


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


def standard_error(score: float, rows: int) -> float:
    """Standard error of a share measured on `rows` independent rows (binomial)."""
    return math.sqrt(score * (1 - score) / rows) if rows else float("nan")


def evaluate_metric(name: str) -> Any:
    """Give `accuracy` or `span_f1` as an `evaluate.Metric` that keeps everything in memory.

    Raises:
        UnknownName: for another name.
    """
    import datasets
    import evaluate

    from .errors import unknown

    kinds = {
        "accuracy": (datasets.Value("int64"), lambda p, r: {"accuracy": accuracy(p, r)}),
        "span_f1": (datasets.Sequence(datasets.Value("string")), span_scores),
    }
    if name not in kinds:
        raise unknown("metric", name, kinds)
    feature, score = kinds[name]

    class Metric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=score.__doc__ or name,
                citation="",
                features=datasets.Features({"predictions": feature, "references": feature}),
            )

        def _compute(self, predictions: list, references: list) -> dict:
            return score(predictions, references)

    return Metric(keep_in_memory=True)


def _precision_recall_f1(right: int, found: int, wanted: int) -> dict[str, float]:
    precision = right / found if found else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (found + wanted) if found + wanted else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}


def _same_length(one: Sequence, other: Sequence) -> None:
    if len(one) != len(other):
        raise ValueError(f"Predictions and gold answers differ in number: {len(one)} against {len(other)}.")

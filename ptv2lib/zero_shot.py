"""Discrete prompts side by side: how much the words of a template matter, with nothing trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .backbones import Backbone, load_backbone
from .building import CALIBRATED_ON, build_model
from .errors import BadOption
from .tasks import Task


def compare_templates(
    task: Task,
    templates: str | Sequence[str] | None = None,
    verbalizer: Mapping[str, Any] | None = None,
    *,
    backbone: str | os.PathLike | Backbone = "minilm-mlm",
    split: str = "validation",
) -> list[dict[str, Any]]:
    """Score every template on one split, raw and with each way to remove the prior.

    Args:
        task: a loaded task with one label per text.
        templates: the patterns, or a single one; None for the task's own.
        verbalizer: the words of each label; None for the task's own.
        backbone: an encoder with a masked-LM head.
        split: which rows of `task.split()` are scored: `"validation"` or `"test"`.

    Returns:
        For each template, in the order given: `template`, and the accuracies `raw`, `empty` (the empty template's scores are
        subtracted) and `train` (the mean scores over training texts, without their labels, are subtracted).

    Raises:
        BadOption: for a split without rows, and all that `build_model` refuses.
        NoMaskedLM: for an encoder without a masked-LM head.
    """
    templates = [templates] if isinstance(templates, str) else templates
    templates = templates or getattr(task.family, "templates", None)
    if not templates:
        raise BadOption(f"There are no templates to compare: {task.name!r} has none of its own, so give some.")
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, masked_lm=True)
    parts = task.split()
    rows = {"validation": parts.validation, "test": parts.test}.get(split)
    if not rows:
        raise BadOption(f"split={split!r} has no labelled rows; use 'validation' or, where there is one, 'test'.")
    gold = np.array([row["label"] for row in rows])
    found = []
    for template in templates:
        model = build_model(task, backbone=backbone, method="discrete", template=template, verbalizer=verbalizer)
        model.head.prior.zero_()
        raw = _scores(model, rows)
        priors = {
            "raw": 0.0,
            "empty": _scores(model, [dict.fromkeys(model.template.columns, "")]).mean(0),
            "train": _scores(model, parts.train[:CALIBRATED_ON]).mean(0),
        }
        accuracies = {name: float(((raw - prior).argmax(1) == gold).mean()) for name, prior in priors.items()}
        found.append({"template": template} | accuracies)
    return found


def _scores(model: Any, rows: Sequence[Mapping]) -> np.ndarray:
    """Each label's log-probability in the gap of each row, `[rows, labels]`."""
    inputs = [one for row in model.encode(rows) for one in row]
    found = dict(model.logits(inputs))
    return np.array([found[k] for k in range(len(inputs))])

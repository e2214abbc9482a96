"""P-tuning v2: deep prompts for frozen encoders. Heavy imports happen when a name is first used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "PtvError": "errors",
    "attach": "attention",
    "detach": "attention",
    "load_backbone": "backbones",
    "PrefixEncoder": "prefix",
    "SoftPrompt": "prompts",
    "load_task": "tasks",
    "build_model": "building",
    "load_prompt": "loading",
    "TrainingConfig": "training",
    "train": "training",
    "train_multitask": "multitask",
    "compare_templates": "zero_shot",
    "write_predictions": "predictions",
    "Classification": "tasks.classification",
    "MultipleChoice": "tasks.multiple_choice",
    "Tagging": "tasks.tagging",
    "QuestionAnswering": "tasks.question_answering",
    "SemanticRoles": "tasks.semantic_roles",
    "read_records": "records",
    "profile": "profiles",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

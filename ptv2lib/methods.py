"""What each method trains, and settings that train, by method and kind of task.

The numbers are starting points found with the starter encoder; the command line's `--set` overrides each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import unknown


@dataclass(frozen=True)
class Method:
    """A way to adapt an encoder.

    Attributes:
        description: one line for people.
        prompt: None, `"input"` (soft vectors before the text) or `"deep"` (keys and values in every layer).
        tunes_backbone: whether the encoder's own weights move.
        defaults: model options and training settings, for every task.
        for_head: further defaults by the task's head, `"sequence"` or `"token"`.
        for_task: further defaults by the task's name.
    """

    description: str
    prompt: str | None
    tunes_backbone: bool
    defaults: dict[str, Any]
    for_head: dict[str, dict[str, Any]] = field(default_factory=dict)
    for_task: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settings(self, head: str, task: str) -> dict[str, Any]:
        """The defaults for one task, the more particular ones last."""
        return self.defaults | self.for_head.get(head, {}) | self.for_task.get(task, {})


METHODS: dict[str, Method] = {
    "ft": Method(
        "fine-tuning: every weight of the encoder and a linear head",
        prompt=None,
        tunes_backbone=True,
        defaults={"learning_rate": 1e-4, "epochs": 8, "backbone_dropout": 0.1},
        for_head={"token": {"epochs": 15}},
    ),
    "probe": Method(
        "head only: a linear head on the frozen encoder",
        prompt=None,
        tunes_backbone=False,
        defaults={"learning_rate": 1e-2, "epochs": 20, "backbone_dropout": 0.0},
    ),
    "pt": Method(
        "prompt tuning: trainable vectors before the input, and a linear head (Lester et al., 2021)",
        prompt="input",
        tunes_backbone=False,
        defaults={
            "learning_rate": 2e-2,
            "epochs": 20,
            "backbone_dropout": 0.1,
            "prompt_length": 20,
            "position_offset": "shift",
        },
        for_head={"token": {"epochs": 25, "prompt_length": 64}},
    ),
    "pt2": Method(
        "P-tuning v2: trainable keys and values in every layer, and a linear head (Liu et al., 2022)",
        prompt="deep",
        tunes_backbone=False,
        defaults={
            "learning_rate": 1e-2,
            "epochs": 20,
            "backbone_dropout": 0.1,
            "prompt_length": 20,
            "position_offset": "none",
        },
        for_head={"token": {"learning_rate": 5e-2, "epochs": 40, "prompt_length": 128}},
    ),
}
"""Every method, by the name `--method` takes."""


def find_method(name: str) -> Method:
    """Look a method up.

    Raises:
        UnknownName: with the nearest name.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]

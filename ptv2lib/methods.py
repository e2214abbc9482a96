"""What each method trains, and settings that train, by method and kind of task.

The numbers are starting points. Those for narrow encoders were found with the starter encoder; those for wide ones follow the
literature (fine-tuning: Devlin et al., 2019, A.3; deep prompts: the scripts of Liu et al., 2022) and were not measured here.
The command line's `--set` overrides each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import unknown

WIDE = 768  # hidden size from which an encoder counts as wide
ROWS_SEEN = 50_000  # training rows that a run sees in all epochs, about, where the set is large


@dataclass(frozen=True)
class Method:
    """A way to adapt an encoder.

    Attributes:
        description: one line for people.
        prompt: None, `"input"` (soft vectors before the text) or `"deep"` (keys and values in every layer).
        tunes_backbone: whether the encoder's own weights move.
        defaults: model options and training settings, for every task.
        for_head: further defaults by the task's head, `"sequence"`, `"choice"`, `"token"` or `"span"`.
        for_wide: further defaults for encoders with a hidden size of `WIDE` or more.
    """

    description: str
    prompt: str | None
    tunes_backbone: bool
    defaults: dict[str, Any]
    for_head: dict[str, dict[str, Any]] = field(default_factory=dict)
    for_wide: dict[str, Any] = field(default_factory=dict)

    def settings(self, head: str, width: int, rows: int | None = None) -> dict[str, Any]:
        """The defaults for a task's head on an encoder of this hidden size, the more particular ones last.

        Args:
            head: the task's head.
            width: the encoder's hidden size.
            rows: training rows; a large set gets fewer epochs, about `ROWS_SEEN` rows in all and at least three epochs.
        """
        chosen = self.defaults | self.for_head.get(head, {}) | (self.for_wide if width >= WIDE else {})
        if rows is not None:
            chosen["epochs"] = min(chosen["epochs"], max(3, round(ROWS_SEEN / rows)))
        return chosen


METHODS: dict[str, Method] = {
    "ft": Method(
        "fine-tuning: every weight of the encoder and a linear head",
        prompt=None,
        tunes_backbone=True,
        defaults={"learning_rate": 1e-4, "epochs": 8, "backbone_dropout": 0.1},
        for_head={"token": {"epochs": 15}},
        for_wide={"learning_rate": 2e-5},
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
            "learning_rate": 1e-2,
            "epochs": 20,
            "backbone_dropout": 0.1,
            "prompt_length": 20,
            "position_offset": "shift",
        },
        for_head={"token": {"learning_rate": 2e-2, "epochs": 25, "prompt_length": 64}},
        for_wide={"learning_rate": 1e-2},
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
        for_wide={"learning_rate": 7e-3},
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

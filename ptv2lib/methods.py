"""What each method trains, and settings that train, by method and kind of task.

The numbers are starting points. Those for narrow encoders were found with the starter encoder; those for wide ones follow the
literature (fine-tuning: Devlin et al., 2019, A.3; deep prompts: the scripts of Liu et al., 2022) and were not measured here.
The command line's `--set` overrides each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .errors import unknown

WIDE = 768  # hidden size from which an encoder counts as wide
ROWS_SEEN = 50_000  # training rows that a run sees in all epochs, about, where the set is large


@dataclass(frozen=True)
class Method:
    """A way to adapt an encoder.

    Attributes:
        title: its name for people.
        description: what is trained, in one line.
        prompt: None, `"input"` (soft vectors at the input) or `"deep"` (keys and values in every layer).
        trains: what of the encoder itself is trained: `"nothing"`, `"everything"`, `"biases"`, or `"adapters"` (LoRA's
            low-rank matrices beside its weights, which stay).
        defaults: model options and training settings, for every task.
        for_head: further defaults by the task's head, `"sequence"`, `"choice"`, `"token"` or `"span"`.
        for_wide: further defaults for encoders with a hidden size of `WIDE` or more.
        cloze: whether it reads the gap of a template with a masked-LM head, where task and encoder allow it.
    """

    title: str
    description: str
    prompt: str | None
    trains: str
    defaults: dict[str, Any]
    for_head: dict[str, dict[str, Any]] = field(default_factory=dict)
    for_wide: dict[str, Any] = field(default_factory=dict)
    cloze: bool = False

    @property
    def only_words(self) -> bool:
        """Whether it is a template and a verbalizer and nothing else."""
        return self.cloze and self.prompt is None

    def settings(self, head: str, width: int, rows: int | None = None) -> dict[str, Any]:
        """The defaults for a task's head on an encoder of this hidden size, the more particular ones last.

        Args:
            head: the task's head.
            width: the encoder's hidden size.
            rows: training rows; a large set gets fewer epochs, about `ROWS_SEEN` rows in all and at least three epochs.
        """
        chosen = self.defaults | self.for_head.get(head, {}) | (self.for_wide if width >= WIDE else {})
        if rows is not None and "epochs" in chosen:
            chosen["epochs"] = min(chosen["epochs"], max(3, round(ROWS_SEEN / rows)))
        return chosen


PT2 = Method(
    "P-tuning v2",
    "trainable keys and values in every layer, and a linear head (Liu et al., 2022)",
    prompt="deep",
    trains="nothing",
    defaults={
        "learning_rate": 1e-2,
        "epochs": 20,
        "backbone_dropout": 0.1,
        "prompt_length": 20,
        "position_offset": "none",
    },
    for_head={
        "token": {"learning_rate": 5e-2, "epochs": 40, "prompt_length": 128},
        "span": {"learning_rate": 1e-1, "prompt_length": 64},
    },
    for_wide={"learning_rate": 7e-3},
)

METHODS: dict[str, Method] = {
    "discrete": Method(
        "discrete prompts",
        "a template and a verbalizer on a masked language model, no training (Schick and Schütze, 2021)",
        prompt=None,
        trains="nothing",
        defaults={"backbone_dropout": 0.0, "calibration": "empty"},
        cloze=True,
    ),
    "probe": Method(
        "head only",
        "a linear head on the frozen encoder",
        prompt=None,
        trains="nothing",
        defaults={"learning_rate": 1e-2, "epochs": 20, "backbone_dropout": 0.0},
    ),
    "pt": Method(
        "prompt tuning",
        "trainable vectors before the input, and a linear head (Lester et al., 2021)",
        prompt="input",
        trains="nothing",
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
    "ptv1": Method(
        "P-tuning v1",
        "soft slots and words in a template, computed by an LSTM, read by a verbalizer (Liu et al., 2021); where there are no "
        "words, vectors before the input and a linear head",
        prompt="input",
        trains="nothing",
        defaults={
            "learning_rate": 1e-3,
            "epochs": 20,
            "backbone_dropout": 0.1,
            "prompt_length": 20,
            "position_offset": "shift",
            "reparameterization": "lstm",
        },
        for_head={"token": {"epochs": 25, "prompt_length": 64}},
        cloze=True,
    ),
    "pt2": PT2,
    "mpt2": replace(
        PT2,
        title="multi-task P-tuning v2",
        description="deep prompts that several data sets share, a linear head each (Liu et al., 2022)",
    ),
    "lora": Method(
        "LoRA",
        "low-rank matrices beside the attention's weights, and a linear head (Hu et al., 2022); needs peft",
        prompt=None,
        trains="adapters",
        defaults={"learning_rate": 1e-3, "epochs": 8, "backbone_dropout": 0.1},
        for_head={"token": {"epochs": 15}},
        for_wide={"learning_rate": 5e-4},
    ),
    "bitfit": Method(
        "BitFit",
        "the encoder's biases and a linear head (Ben Zaken et al., 2022)",
        prompt=None,
        trains="biases",
        defaults={"learning_rate": 1e-3, "epochs": 8, "backbone_dropout": 0.1},
        for_head={"token": {"epochs": 15}},
    ),
    "ft": Method(
        "fine-tuning",
        "every weight of the encoder and a linear head",
        prompt=None,
        trains="everything",
        defaults={"learning_rate": 1e-4, "epochs": 8, "backbone_dropout": 0.1},
        for_head={"token": {"epochs": 15}},
        for_wide={"learning_rate": 2e-5},
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

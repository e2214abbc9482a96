"""How much a notebook does: seconds in a test, minutes on a laptop, the real thing on a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import unknown


@dataclass(frozen=True)
class Profile:
    """What a notebook passes on to the library.

    Attributes:
        name: `"smoke"`, `"cpu"` or `"gpu"`.
        backbone: name for `load_backbone`.
        source: `"miniature"` or `"hub"`.
        train_limit: training rows; None for all.
        epochs: epochs for every method; None for the method's default.
    """

    name: str
    backbone: str
    source: str
    train_limit: int | None
    epochs: int | None


PROFILES = {
    "smoke": Profile("smoke", "tiny", "miniature", 32, 1),
    "cpu": Profile("cpu", "minilm", "miniature", None, None),
    "gpu": Profile("gpu", "bert-large", "hub", None, None),
}


def profile() -> Profile:
    """The profile that `PTV2_PROFILE` names; without it `gpu` where CUDA is, else `cpu`.

    Raises:
        UnknownName: for another name.
    """
    name = os.environ.get("PTV2_PROFILE")
    if not name:
        import torch

        name = "gpu" if torch.cuda.is_available() else "cpu"
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return PROFILES[name]

"""The random state and the number format of fresh tensors, of which a process has one for all its threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_TURN = threading.RLock()


@contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Draw from torch's, numpy's and Python's random state while no other thread does, and leave it as it was.

    Fresh tensors are float32, whatever `torch.set_default_dtype` says: weights that train need it.

    Args:
        seed: of torch's state; None to go on from where it is.
    """
    with _TURN, torch.random.fork_rng():
        before = random.getstate(), np.random.get_state(), torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float32)
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_default_dtype(before[2])

"""What fits into memory, asked before anything is allocated, and what is given back of it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from .errors import BadOption


def free_ram() -> int:
    """Bytes of this machine's memory that the process may still take, a limit on its address space included."""
    free = psutil.virtual_memory().available
    try:
        import resource
    except ImportError:  # Windows
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, max(0, limit - psutil.Process().memory_info().vms))


def free_memory() -> int:
    """Bytes free on the accelerator, or in this machine's memory."""
    if not torch.cuda.is_available():
        return free_ram()
    # What torch keeps back from earlier runs of this process is free to it, and not to the driver's count.
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause Python's cyclic garbage collector, also as a decorator.

    Tokenizing makes lists by the hundred thousand and no cycles; the collector walks over all of them again and again, and
    doubles the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def check_fits(numbers: int, what: str) -> None:
    """Refuse what cannot be trained in the free memory: weight, gradient and two moments, four bytes each.

    Raises:
        BadOption: naming it, and both sizes.
    """
    need, free = 16 * numbers, free_memory()
    if need > free:
        raise BadOption(f"{what} needs {need / 2**30:.1f} GiB to train, and {free / 2**30:.1f} GiB are free.")


def give_back() -> None:
    """Return freed memory to the system, where its C library is glibc; elsewhere nothing happens.

    Batches of many lengths leave holes of many sizes, which glibc keeps: training on long texts would hold memory that no
    step uses.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)

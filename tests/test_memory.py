"""Memory that was freed goes back to the system, and what does not fit is refused."""

import platform

import psutil
import pytest
import torch

from ptv2lib import memory
from ptv2lib.errors import BadOption


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to give memory back")
def test_freed_memory_goes_back_to_the_system():
    process = psutil.Process()
    before = process.memory_info().rss
    blocks = [torch.ones(16_000) for _ in range(3_000)]  # 64 kB each: glibc keeps what is freed of them
    del blocks[::2]
    full = process.memory_info().rss
    assert full - before > 150 * 2**20
    memory.give_back()
    assert full - process.memory_info().rss > 60 * 2**20
    del blocks


def test_without_glibc_nothing_happens(monkeypatch):
    class Without:
        """A C library that lacks the call, as musl does."""

        def __init__(self, name):
            pass

    monkeypatch.setattr(memory.ctypes, "CDLL", Without)
    memory.give_back()
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # nothing to call: where it is not Linux, nothing is looked up
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory.give_back()


def test_what_does_not_fit_is_named_with_both_sizes(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2**30)
    memory.check_fits(2**26, "A prompt of length 9")
    with pytest.raises(BadOption, match="A prompt of length 9 needs 1.1 GiB to train, and 1.0 GiB are free."):
        memory.check_fits(2**26 + 2**23, "A prompt of length 9")

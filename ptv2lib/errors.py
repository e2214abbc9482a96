"""What the library says when something is wrong: one clear sentence, with the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PtvError(Exception):
    """Base of every error a user can cause; its message is one sentence."""


class UnknownName(PtvError, KeyError):
    """A task, method, backbone or option that does not exist."""

    def __str__(self) -> str:
        # KeyError would print the message with quotes around it.
        return self.args[0]


class BadOption(PtvError, ValueError):
    """An option whose value, or whose combination with others, makes no sense."""


class NoMaskedLM(BadOption):
    """A method or head that fills gaps, on an encoder without a masked-LM head."""


class DataError(PtvError, ValueError):
    """A data set that cannot be read, or whose rows break the task's schema."""


class UnsupportedEncoder(PtvError, TypeError):
    """An encoder into which deep prompts cannot be put, or that ignores them."""


class PromptMismatch(PtvError, ValueError):
    """A saved prompt that is damaged, of a newer format, or made for another backbone."""


class OutputError(PtvError, OSError):
    """An output folder that cannot be written, or that holds something else."""

    def __str__(self) -> str:
        return self.args[0]


class NoNetwork(PtvError, ConnectionError):
    """The Hub was needed, and one short attempt found no way to it."""

    def __str__(self) -> str:
        return self.args[0]


def first_line(error: BaseException) -> str:
    """The first line of another library's message, which may be empty or long."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """Build the error for a name that is not among `known`, naming the nearest ones."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."
    return UnknownName(f"There is no {kind} {name!r}; {hint}")

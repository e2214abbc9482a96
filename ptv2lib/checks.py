"""Checks for the exercises: each prints one sentence and returns whether the answer is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _say(right: bool, yes: str, no: str) -> bool:
    print(yes if right else no)
    return right


def _answer(function: Callable, *arguments: Any) -> Any:
    """What the reader's function gives; an error counts as an answer that is wrong."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def share_of_parameters(function: Callable[[int, int], Any]) -> bool:
    """Chapter 00: percent of the encoder's numbers that training moves."""
    cases = {(1, 4): 25.0, (93_000, 22_713_216): 100 * 93_000 / 22_713_216}
    wrong = [case for case, wanted in cases.items() if not _close(_answer(function, *case), wanted)]
    return _say(
        not wrong,
        "Right: that is the share in percent.",
        f"Not yet: try trained={wrong[0][0]:,} of encoder={wrong[0][1]:,} by hand." if wrong else "",
    )


def prompt_parameters(function: Callable[[int, int, int], Any]) -> bool:
    """Chapter 04: numbers in a deep prompt, from layers, key-value width and length."""
    cases = {(1, 4, 1): 8, (6, 384, 20): 92_160, (24, 1024, 128): 6_291_456}
    wrong = [case for case, wanted in cases.items() if _answer(function, *case) != wanted]
    return _say(
        not wrong,
        "Right: a key and a value for every layer, width and position.",
        f"Not yet: for layers, width, length = {wrong[0]} the number is {cases[wrong[0]]:,}." if wrong else "",
    )


def beats_by_more_than_noise(function: Callable[[float, float, int], Any]) -> bool:
    """Chapter 07: is one accuracy above another by more than two standard errors of the difference?"""
    cases = {(0.60, 0.58, 277): False, (0.70, 0.55, 277): True, (0.91, 0.90, 872): False}
    wrong = [case for case, wanted in cases.items() if _answer(function, *case) is not wanted]
    return _say(
        not wrong,
        "Right: a gap is news only when it is wider than its noise.",
        f"Not yet: for accuracies {wrong[0][0]} and {wrong[0][1]} on {wrong[0][2]} rows the answer is {cases[wrong[0]]}."
        if wrong
        else "",
    )


def spans_of(function: Callable[[list[str]], Any]) -> bool:
    """Chapter 09: the spans of a tagged sentence as (type, start, end), end exclusive."""
    cases = {
        ("O", "O"): [],
        ("B-PER", "I-PER", "O"): [("PER", 0, 2)],
        ("B-LOC", "B-LOC"): [("LOC", 0, 1), ("LOC", 1, 2)],
        ("O", "B-ORG", "I-ORG", "I-ORG"): [("ORG", 1, 4)],
    }
    wrong = [case for case, wanted in cases.items() if _answer(function, list(case)) != wanted]
    return _say(
        not wrong,
        "Right: every span begins at its B- and ends before the next tag that does not go on.",
        f"Not yet: {list(wrong[0])} has the spans {cases[wrong[0]]}." if wrong else "",
    )


def _close(value: Any, wanted: float) -> bool:
    return isinstance(value, (int, float)) and abs(value - wanted) < 1e-6 * max(1.0, abs(wanted))

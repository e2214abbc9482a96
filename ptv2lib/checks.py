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


def arguments_of(function: Callable[[list[str]], Any]) -> bool:
    """Chapter 11: the arguments of a predicate as (role, pieces), a `C-` piece joined to the latest argument of its role."""
    cases = {
        ("O", "B-ARG0", "B-V", "B-ARG1", "I-ARG1"): [("ARG0", [(1, 2)]), ("V", [(2, 3)]), ("ARG1", [(3, 5)])],
        ("B-ARG1", "O", "B-V", "B-C-ARG1", "I-C-ARG1"): [("ARG1", [(0, 1), (3, 5)]), ("V", [(2, 3)])],
        ("B-ARG0", "B-R-ARG0", "B-V"): [("ARG0", [(0, 1)]), ("R-ARG0", [(1, 2)]), ("V", [(2, 3)])],
        ("B-V", "B-C-ARG1", "I-C-ARG1"): [("V", [(0, 1)]), ("ARG1", [(1, 3)])],
        ("B-ARG1", "B-V", "B-ARG1", "O", "B-C-ARG1"): [("ARG1", [(0, 1)]), ("V", [(1, 2)]), ("ARG1", [(2, 3), (4, 5)])],
    }
    wrong = [case for case, wanted in cases.items() if _listed(_answer(function, list(case))) != _listed(wanted)]
    return _say(
        not wrong,
        "Right: C- joins the latest argument of its role, or stands alone; R- is a role of its own.",
        f"Not yet: {list(wrong[0])} has the arguments {cases[wrong[0]]}." if wrong else "",
    )


def f1_of_arguments(function: Callable[[list, list], Any]) -> bool:
    """Chapter 11: F1 over the arguments of one predicate, `V` left out."""
    agent, theme, verb = ("ARG0", ((0, 1),)), ("ARG1", ((2, 3), (5, 6))), ("V", ((1, 2),))
    cases = [
        ([agent, verb, theme], [agent, verb, theme], 1.0),
        ([verb], [agent, verb, theme], 0.0),
        ([agent, verb], [agent, verb, theme], 2 / 3),
        ([agent, verb, ("ARG1", ((2, 3),))], [agent, verb, theme], 0.5),
        ([verb], [verb], 0.0),
    ]
    wrong = [(*pair, wanted) for *pair, wanted in cases if not _close(_answer(function, *pair), wanted)]
    return _say(
        not wrong,
        "Right: role and all pieces must agree, and the verb earns nothing.",
        f"Not yet: predicted {wrong[0][0]} against gold {wrong[0][1]} has F1 {wrong[0][2]:.2f}." if wrong else "",
    )


def _listed(value: Any) -> Any:
    """The same with lists for tuples, so that either may be given."""
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def answer_sets(function: Callable[[list[list[int]], list[list[int]]], Any]) -> bool:
    """Chapter 08: F1a and exact match from the labels of every option of every question."""
    cases = [
        ([[1, 0], [1, 1, 0]], [[1, 0], [1, 0, 1]], (2 / 3, 0.5)),
        ([[1, 1, 1]], [[1, 0, 0]], (0.5, 0.0)),
        ([[0, 0], [0]], [[1, 0], [0]], (0.0, 0.5)),
        ([[0, 0]], [[0, 0]], (0.0, 1.0)),
    ]
    wrong = [case for case in cases if not _close_all(_answer(function, *case[:2]), case[2])]
    return _say(
        not wrong,
        "Right: F1a pools the options, exact match keeps the questions whole.",
        f"Not yet: for predicted={wrong[0][0]} and gold={wrong[0][1]} the answer is "
        f"({wrong[0][2][0]:.3f}, {wrong[0][2][1]:.3f})."
        if wrong
        else "",
    )


def loss_of_choice(function: Callable[[list[list[float]], list[int]], Any]) -> bool:
    """Chapter 08: the mean cross entropy over rows, from the scores of their alternatives."""
    cases = [
        ([[0.0, 0.0]], [0], 0.6931471805599453),
        ([[1.0, -1.0], [0.5, 2.0]], [0, 0], 0.9141706445128626),
        ([[2.0, 0.0, 1.0]], [2], 1.4076059644443804),
        ([[1000.0, 0.0]], [0], 0.0),
    ]
    wrong = [case for case in cases if not _close(_answer(function, *case[:2]), case[2])]
    return _say(
        not wrong,
        "Right: the logarithm of the sum, less the right score, whatever the scale.",
        f"Not yet: for scores={wrong[0][0]} and right={wrong[0][1]} the loss is {wrong[0][2]:.4f}." if wrong else "",
    )


def _close_all(values: Any, wanted: tuple[float, ...]) -> bool:
    return (
        isinstance(values, (tuple, list))
        and len(values) == len(wanted)
        and all(_close(value, number) for value, number in zip(values, wanted, strict=True))
    )


def f1_of_words(function: Callable[[str, str], Any]) -> bool:
    """Chapter 10: F1 of the words of two answers after SQuAD's normalization."""
    cases = {
        ("in the year 1934", "1934"): 0.5,
        ("The red roof!", "red roof"): 1.0,
        ("nine", "seal oil"): 0.0,
        ("a very very old boat", "very old"): 2 / 3,
        ("steam-engine", "the steam engine"): 0.0,
    }
    wrong = [case for case, wanted in cases.items() if not _close(_answer(function, *case), wanted)]
    return _say(
        not wrong,
        "Right: common words count, as often as both have them.",
        f"Not yet: the F1 of {wrong[0][0]!r} and {wrong[0][1]!r} is {cases[wrong[0]]:.3f}." if wrong else "",
    )


def best_valid_pair(function: Callable[[list[float], list[float], int], Any]) -> bool:
    """Chapter 10: the pair of pieces with the largest sum of start and end score, in order and short enough."""
    cases = {
        ((1.0,), (1.0,), 30): (0, 0),
        ((0.0, 5.0, 1.0), (4.0, 0.0, 3.0), 30): (1, 2),
        ((0.0, 0.0, 9.0), (9.0, 0.0, 1.0), 30): (2, 2),
        ((5.0, 0.0, 0.0, 0.0), (0.0, 2.0, 0.0, 6.0), 4): (0, 3),
        ((5.0, 0.0, 0.0, 1.5), (0.0, 3.0, 0.0, 6.0), 2): (0, 1),
    }
    wrong = []
    for (starts, ends, longest), wanted in cases.items():
        found = _answer(function, list(starts), list(ends), longest)
        if not isinstance(found, (tuple, list)) or tuple(found) != wanted:
            wrong.append((list(starts), list(ends), longest, wanted))
    return _say(
        not wrong,
        "Right: all pairs in order and short enough, and the best sum of them.",
        f"Not yet: for starts {wrong[0][0]}, ends {wrong[0][1]}, longest {wrong[0][2]} the pair is {wrong[0][3]}."
        if wrong
        else "",
    )

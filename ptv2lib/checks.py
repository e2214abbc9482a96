"""Checks for the exercises: each prints one sentence and returns whether the answer is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .errors import PtvError
from .randomness import seeded
from .templates import Template, Verbalizer


def _say(right: bool, yes: str, no: str) -> bool:
    print(yes if right else no)
    return right


def _verdict(wrong: Sequence[Any], yes: str, no: Callable[[Any], str]) -> bool:
    """Say `yes` if no case is wrong, else what `no` makes of the first that is."""
    return _say(not wrong, yes, "" if not wrong else f"Not yet: {no(wrong[0])}")


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
    return _verdict(
        wrong,
        "Right: that is the share in percent.",
        lambda first: f"try trained={first[0]:,} of encoder={first[1]:,} by hand.",
    )


def share_of_attention(function: Callable[[Any, Any], Any]) -> bool:
    """Chapter 04: the weight that the prompt's positions get together, from the scores of one piece."""
    import torch

    cases = [([0.0], [0.0]), ([0.0] * 3, [0.0] * 5), ([-1.0, 2.0], [0.5, 0.0, 1.0]), ([1000.0], [1000.0, 999.0])]
    wrong = []
    for prompt, text in cases:
        scores = torch.tensor(prompt), torch.tensor(text)
        wanted = torch.cat(scores).softmax(0)[: len(prompt)].sum()
        answer = _answer(function, *scores)
        if not _same(torch.tensor(answer) if isinstance(answer, float) else answer, wanted):
            wrong.append((prompt, text, wanted.item()))
    return _verdict(
        wrong,
        "Right: what the prompt gets is what the text loses.",
        lambda first: f"for the scores {first[0]} and {first[1]} the share is {first[2]:.3f}.",
    )


def beats_by_more_than_noise(function: Callable[[float, float, int], Any]) -> bool:
    """Chapter 07: is one accuracy above another by more than two standard errors of the difference?"""
    cases = {(0.60, 0.58, 277): False, (0.70, 0.55, 277): True, (0.91, 0.90, 872): False}
    wrong = [case for case, wanted in cases.items() if _answer(function, *case) is not wanted]
    return _verdict(
        wrong,
        "Right: a gap is news only when it is wider than its noise.",
        lambda first: f"for accuracies {first[0]} and {first[1]} on {first[2]} rows the answer is {cases[first]}.",
    )


def spans_of(function: Callable[[list[str]], Any]) -> bool:
    """Chapter 09: the spans of a tagged sentence as (type, start, end), end exclusive."""
    cases = {
        ("O", "O"): [],
        ("B-PER", "I-PER", "O"): [("PER", 0, 2)],
        ("B-LOC", "B-LOC"): [("LOC", 0, 1), ("LOC", 1, 2)],
        ("O", "B-ORG", "I-ORG", "I-ORG"): [("ORG", 1, 4)],
    }
    wrong = [case for case, wanted in cases.items() if not _equal(_answer(function, list(case)), wanted)]
    return _verdict(
        wrong,
        "Right: every span begins at its B- and ends before the next tag that does not go on.",
        lambda first: f"{list(first)} has the spans {cases[first]}.",
    )


def _shown(value: Any) -> str:
    """The beginning of a value, on one line."""
    return " ".join(repr(value).split())[:60]


def _equal(value: Any, wanted: Any) -> bool:
    """Whether both are equal; what cannot be compared, such as an array and a list, is not."""
    try:
        return bool(value == wanted)
    except Exception:
        return False


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
    wrong = [
        case for case, wanted in cases.items() if not _equal(_listed(_answer(function, list(case))), _listed(wanted))
    ]
    return _verdict(
        wrong,
        "Right: C- joins the latest argument of its role, or stands alone; R- is a role of its own.",
        lambda first: f"{list(first)} has the arguments {cases[first]}.",
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
    return _verdict(
        wrong,
        "Right: role and all pieces must agree, and the verb earns nothing.",
        lambda first: f"predicted {first[0]} against gold {first[1]} has F1 {first[2]:.2f}.",
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
    return _verdict(
        wrong,
        "Right: F1a pools the options, exact match keeps the questions whole.",
        lambda first: (
            f"for predicted={first[0]} and gold={first[1]} the answer is ({first[2][0]:.3f}, {first[2][1]:.3f})."
        ),
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
    return _verdict(
        wrong,
        "Right: the logarithm of the sum, less the right score, whatever the scale.",
        lambda first: f"for scores={first[0]} and right={first[1]} the loss is {first[2]:.4f}.",
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
    return _verdict(
        wrong,
        "Right: common words count, as often as both have them.",
        lambda first: f"the F1 of {first[0]!r} and {first[1]!r} is {cases[first]:.3f}.",
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
        if not isinstance(found, (tuple, list)) or not _equal(tuple(found), wanted):
            wrong.append((list(starts), list(ends), longest, wanted))
    return _verdict(
        wrong,
        "Right: all pairs in order and short enough, and the best sum of them.",
        lambda first: f"for starts {first[0]}, ends {first[1]}, longest {first[2]} the pair is {first[3]}.",
    )


def rte_prompt(function: Callable[[], Any], tokenizer: Any) -> bool:
    """Chapter 01: a template and a verbalizer for RTE that the tokenizer can fill; how well they score is left open."""
    yes = "Right: both texts, one gap, and a single piece for every label."
    answer = _answer(function)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not isinstance(answer[0], str):
        return _say(
            False, yes, f"Not yet: give a template as text and a mapping of labels to words, not {_shown(answer)}."
        )
    try:
        template = Template(answer[0])
        template.check(("premise", "hypothesis"), gap=True)
        Verbalizer.of(answer[1], ("entailment", "not_entailment")).pieces(tokenizer)
    except PtvError as error:
        return _say(False, yes, f"Not yet: {error}")
    missing = sorted({"premise", "hypothesis"} - set(template.columns))
    return _say(not missing, yes, f"Not yet: the template leaves out the {missing[0]}." if missing else "")


def calibrated_chances(function: Callable[[list[float], list[float]], Any]) -> bool:
    """Chapter 01: chances divided by those of the empty template, scaled to add up to 1 (Zhao et al., 2021)."""
    cases = [
        ([0.5, 0.5], [0.25, 0.75], (0.75, 0.25)),
        ([0.02, 0.06], [0.01, 0.03], (0.5, 0.5)),
        ([0.2, 0.1, 0.4], [0.1, 0.1, 0.8], (4 / 7, 2 / 7, 1 / 7)),
    ]
    wrong = [case for case in cases if not _close_all(_answer(function, *case[:2]), case[2])]
    return _verdict(
        wrong,
        "Right: what the empty template prefers no longer counts, and the chances add up to 1.",
        lambda first: f"chances {first[0]} over empty {first[1]} give {[round(one, 3) for one in first[2]]}.",
    )


def vectors_behind_first(function: Callable[[Any, Any, Any], Any]) -> bool:
    """Chapter 02: trainable vectors behind the first place of every row, with the mask made longer."""
    import torch

    yes = "Right: the first place stays, the vectors follow, and the mask shows them in every row."
    for length, rows, pieces in ((2, 3, 4), (1, 1, 2), (5, 2, 7)):
        vectors, text = torch.randn(length, 3), torch.randn(rows, pieces, 3)
        mask = torch.ones(rows, pieces, dtype=torch.long)
        mask[-1, -1] = 0
        wanted = (
            torch.cat([text[:, :1], vectors[None].repeat(rows, 1, 1), text[:, 1:]], 1),
            torch.cat([mask[:, :1], torch.ones(rows, length, dtype=torch.long), mask[:, 1:]], 1),
        )
        found = _answer(function, vectors, text, mask)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            return _say(False, yes, f"Not yet: give two tensors, inputs and mask, not {_shown(found)}.")
        for what, one, other in zip(("inputs", "mask"), found, wanted, strict=True):
            if not isinstance(one, torch.Tensor) or one.shape != other.shape:
                return _say(False, yes, f"Not yet: the {what} should have the shape {tuple(other.shape)}.")
            if not torch.equal(one.to(other.dtype), other):
                return _say(False, yes, f"Not yet: the {what} have the right shape and stand in another order.")
    return _say(True, yes, "")


def input_and_deep_numbers(function: Callable[[int, int, int, int], Any]) -> bool:
    """Chapter 02: numbers that prompt tuning and P-tuning v2 train, a linear head with its bias included."""
    cases = {
        (1, 4, 1, 2): (14, 18),
        (6, 384, 20, 2): (8_450, 92_930),
        (24, 1024, 20, 3): (23_555, 986_115),
    }
    wrong = []
    for case, wanted in cases.items():
        found = _answer(function, *case)
        if not isinstance(found, (tuple, list)) or not _equal(tuple(found), wanted):
            wrong.append((case, wanted))
    return _verdict(
        wrong,
        "Right: the layers count for the deep prompt only, and twice, for keys and values.",
        lambda first: f"for layers, width, length, classes = {first[0]} the numbers are {first[1]}.",
    )


def vectors_in_slots(function: Callable[[Any, Any, Any, Any], Any]) -> bool:
    """Chapter 03: the embeddings of a batch, with trained vectors at the slots."""
    import torch

    embeddings, vectors = torch.arange(12.0).view(6, 2), -torch.arange(1.0, 7.0).view(3, 2)
    cases = [
        ([[1, 0, 2]], [[0, 1, 0]]),
        ([[3, 0, 0, 5], [0, 4, 4, 0]], [[0, 2, 3, 0], [1, 0, 0, 3]]),
        ([[2, 1]], [[0, 0]]),
    ]
    wrong = []
    for ids, slots in cases:
        wanted = torch.stack(
            [
                torch.stack([vectors[s - 1] if s else embeddings[i] for i, s in zip(*row, strict=True)])
                for row in zip(ids, slots, strict=True)
            ]
        )
        tensors = torch.tensor(ids), torch.tensor(slots), embeddings.clone(), vectors.clone()
        if not _same(_answer(function, *tensors), wanted):
            wrong.append((ids, slots, wanted))
    return _verdict(
        wrong,
        "Right: vectors at the slots, words everywhere else.",
        lambda first: (
            f"try ids={first[0]} and slots={first[1]} by hand; with embeddings={embeddings.tolist()} and "
            f"vectors={vectors.tolist()} the line is {first[2].tolist()}."
        ),
    )


def folded_vectors(function: Callable[[dict[str, Any]], Any]) -> bool:
    """Chapter 03: what an MLP reparameterization computes, from its weights."""
    from .prompts import SoftPrompt

    wrong = []
    for seed, (width, length) in enumerate([(4, 3), (3, 5)]):
        with seeded(seed):
            prompt = SoftPrompt(width, length, reparameterization="mlp")
        wanted = prompt.folded().detach()
        if not _same(_answer(function, prompt.state_dict()), wanted):
            wrong.append((width, length, wanted[0].tolist()))
    return _verdict(
        wrong,
        "Right: two linear layers with a ReLU between, and the network can go.",
        lambda first: (
            f"with width {first[0]}, length {first[1]} the first vector is {[round(number, 3) for number in first[2]]}."
        ),
    )


def _same(value: Any, wanted: Any) -> bool:
    """Whether a tensor has the wanted shape and, up to rounding, the wanted numbers."""
    import torch

    return isinstance(value, torch.Tensor) and value.shape == wanted.shape and torch.allclose(value, wanted, atol=1e-5)


def last_layers(function: Callable[[int, int], Any]) -> bool:
    """Chapter 13: the last `k` layers of an encoder, in any form that `layers=` reads."""
    from .prefix import choose_layers

    def chosen(count: int, depth: int) -> tuple[int, ...]:
        return choose_layers(function(count, depth), depth)

    cases = {(1, 6): (5,), (2, 6): (4, 5), (8, 24): tuple(range(16, 24)), (3, 3): (0, 1, 2)}
    wrong = [case for case, wanted in cases.items() if not _equal(_answer(chosen, *case), wanted)]
    return _verdict(
        wrong,
        "Right: counted from 1, and the last layer belongs to them.",
        lambda first: (
            f"for k={first[0]} and depth={first[1]}, layers= must choose "
            f"{', '.join(str(number + 1) for number in cases[first])}."
        ),
    )


def length_for_budget(function: Callable[[int, int, int], Any]) -> bool:
    """Chapter 13: the longest prompt that a budget of parameters allows, from budget, layers and key-value width."""
    cases = {(73_728, 6, 384): 16, (73_728, 2, 384): 48, (76_000, 4, 384): 24, (100, 1, 64): 0}
    wrong = [case for case, wanted in cases.items() if not _equal(_answer(function, *case), wanted)]
    return _verdict(
        wrong,
        "Right: a position costs a key and a value in each of the layers, and none is cut in half.",
        lambda first: f"for budget, k, width = {first} the length is {cases[first]}.",
    )


def tempered_shares(function: Callable[[list[int], float], Any]) -> bool:
    """Chapter 12: shares of the steps for data sets of some sizes, at a temperature."""
    cases = {
        ((30, 10), 1.0): (0.75, 0.25),
        ((30, 10), 0.0): (0.5, 0.5),
        ((16, 4, 4), 0.5): (0.5, 0.25, 0.25),
        ((9, 1, 25, 1), 0.5): (0.3, 0.1, 0.5, 0.1),
    }
    wrong = [
        case for case, wanted in cases.items() if not _close_all(_answer(function, list(case[0]), case[1]), wanted)
    ]
    return _verdict(
        wrong,
        "Right: sizes raised to the temperature, divided by their sum.",
        lambda first: (
            f"sizes {list(first[0])} at temperature {first[1]} give {[round(share, 3) for share in cases[first]]}."
        ),
    )


def moved_parameters(function: Callable[[list[str], str], Any]) -> bool:
    """Chapter 12: the names of the parameters that a batch of one data set moves in phase 1."""
    encoder = ["backbone.layer.0.weight", "backbone.layer.0.bias", "backbone.embeddings.weight"]
    prompt = ["prompt.keys_values"]
    heads = {name: [f"heads.{name}.weight", f"heads.{name}.bias"] for name in ("conll03", "conll04", "wikiann")}
    names = [*encoder, *heads["wikiann"], *prompt, *heads["conll03"], *heads["conll04"]]
    wrong = []
    for task, own in heads.items():
        found = _answer(function, list(names), task)
        if not isinstance(found, (set, frozenset, list, tuple)) or _answer(set, found) != {*prompt, *own}:
            wrong.append((task, [*prompt, *own]))
    return _verdict(
        wrong,
        "Right: the prompt and the head of that data set; the other heads and the encoder stay.",
        lambda first: f"a batch of {first[0]} moves {', '.join(first[1])}, and nothing else.",
    )

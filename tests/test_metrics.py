"""Scores equal independent implementations, also where there is nothing to score."""

import math
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score as classification_f1

from ptv2lib import metrics
from ptv2lib.errors import UnknownName
from ptv2lib.metrics import (
    accuracy,
    answer_set_scores,
    best_f1a_margin,
    best_match,
    evaluate_metric,
    exact_match,
    jackknife_error,
    macro_f1,
    normalize_answer,
    role_arguments,
    role_scores,
    span_scores,
    spans,
    squad_scores,
    squad_v2_scores,
    standard_error,
    strict_span_scores,
    token_f1,
)

TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]
SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=9), min_size=1, max_size=6
)


def conlleval_spans(tags):
    """conlleval's rule, written from its description: where a chunk opens and where it closes."""
    found, start = [], None
    for place, tag in enumerate([*tags, "O"]):
        kind = tag[2:]
        if start is not None and (tag[0] in "OB" or kind != tags[start][2:]):
            found.append((tags[start][2:], start, place))
            start = None
        if tag != "O" and start is None:
            start = place
    return found


@settings(deadline=None)
@given(SENTENCES)
@pytest.mark.filterwarnings("ignore")
def test_span_scores_equal_seqeval(pairs):
    predicted = [[p for p, _ in sentence] for sentence in pairs]
    gold = [[g for _, g in sentence] for sentence in pairs]
    ours = span_scores(predicted, gold)
    assert ours["f1"] == pytest.approx(f1_score(gold, predicted, zero_division=0))
    assert ours["precision"] == pytest.approx(precision_score(gold, predicted, zero_division=0))
    assert ours["recall"] == pytest.approx(recall_score(gold, predicted, zero_division=0))


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_spans_follow_conlleval(tags):
    assert spans(tags) == conlleval_spans(tags)


def test_nothing_to_score():
    assert span_scores([["O", "O"]], [["O", "O"]])["f1"] == 0.0
    assert span_scores([], [])["f1"] == 0.0
    assert accuracy([], []) == 0.0


def test_a_span_of_the_wrong_type_or_length_is_wrong():
    gold = [["B-A", "I-A", "O"]]
    assert span_scores([["B-B", "I-B", "O"]], gold)["f1"] == 0.0
    assert span_scores([["B-A", "O", "O"]], gold)["f1"] == 0.0
    scores = span_scores([["I-A", "I-A", "B-B"]], gold)
    assert scores["recall"] == 1.0 and scores["precision"] == 0.5
    assert scores["per_type"]["A"] == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "gold": 1}


@settings(deadline=None, max_examples=60)
@given(SENTENCES)
@pytest.mark.filterwarnings("ignore")
def test_strict_span_scores_equal_seqeval_in_strict_mode(pairs):
    predicted = [[p for p, _ in sentence] for sentence in pairs]
    gold = [[g for _, g in sentence] for sentence in pairs]
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    seqeval = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    wanted = {name: score(gold, predicted, **strict) for name, score in seqeval.items()}
    assert strict_span_scores(predicted, gold) == pytest.approx(wanted)


def test_confused_types_are_found_and_missed_under_their_own_names():
    predicted, gold = [["B-A", "I-A", "O", "B-B"]], [["B-B", "I-B", "O", "B-A"]]
    none = {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert span_scores(predicted, gold) == none | {"per_type": {kind: none | {"gold": 1} for kind in "AB"}}
    assert strict_span_scores(predicted, gold) == none
    assert role_scores(predicted, gold)["per_role"] == {kind: none | {"gold": 1} for kind in "AB"}
    assert macro_f1([0, 1], [1, 0], [0, 1]) == 0.0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
)
def test_macro_f1_equals_scikit_learn(pairs, labels):
    predicted, gold = zip(*pairs, strict=True)
    wanted = classification_f1(gold, predicted, average="macro", labels=labels, zero_division=0)
    assert macro_f1(predicted, gold, labels) == pytest.approx(wanted)


OPTIONS = st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=5), min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(OPTIONS.filter(any))
def test_answer_set_scores_equal_scikit_learn_over_pooled_options(questions):
    predicted, gold = ([[pair[side] for pair in options] for options in questions] for side in (0, 1))
    ours = answer_set_scores(predicted, gold)
    assert ours["f1a"] == pytest.approx(classification_f1(sum(gold, []), sum(predicted, []), zero_division=0))
    whole = 0
    for options in questions:
        for one, other in options:
            if one != other:
                break
        else:
            whole += 1
    assert ours["exact_match"] == whole / len(questions)


@given(st.lists(st.tuples(st.integers(-3, 3).map(float), st.integers(0, 1)), max_size=12))
def test_no_other_margin_gives_a_better_f1a(options):
    margins, gold = [margin for margin, _ in options], [label for _, label in options]

    def f1a(threshold):
        return answer_set_scores([[int(margin > threshold) for margin in margins]], [gold])["f1a"]

    threshold, best = best_f1a_margin(margins, gold)
    assert f1a(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(f1a(place / 2) for place in range(-9, 9)))


ROLES = ["A0", "A1", "C-A0", "C-A1", "R-A0", "C-R-A0", "AM-TMP", "V", "C-V"]
ROLE_TAGS = st.sampled_from(["O", *(f"{place}-{role}" for role in ROLES for place in "BI")])
PROPOSITIONS = st.lists(st.lists(st.tuples(ROLE_TAGS, ROLE_TAGS), max_size=10), min_size=1, max_size=5)


def bracketed(tags):
    """One proposition in start-end notation: `(A0*`, `*`, `*)`."""
    cells = ["*"] * len(tags)
    for kind, start, end in conlleval_spans(tags):
        cells[start] = f"({kind}{cells[start]}"
        cells[end - 1] += ")"
    return cells


def bracket_arguments(cells):
    """srl-eval.pl: a phrase is an argument, and `C-X` joins the latest argument of type X, where there is one."""
    arguments, latest = [], {}
    for place, cell in enumerate(cells):
        if cell[0] == "(":
            role, start = cell[1 : cell.index("*")], place
        if cell[-1] == ")":
            continued, role = role[:2] == "C-", role[2:] if role[:2] == "C-" else role
            if continued and role in latest:
                latest[role]["pieces"].add((start, place))
                latest[role]["hull"] = (latest[role]["hull"][0], place)
            else:
                latest[role] = {"role": role, "hull": (start, place), "pieces": {(start, place)}}
                arguments.append(latest[role])
    return arguments


def srl_eval(predicted, gold):
    """Correct, excess and missed arguments by role, and perfect propositions: matched by hull, then role and pieces."""
    right, excess, missed, perfect = Counter(), Counter(), Counter(), 0
    for one, other in zip(predicted, gold, strict=True):
        true = {argument["hull"]: argument for argument in bracket_arguments(bracketed(other))}
        wrong = Counter()
        for argument in bracket_arguments(bracketed(one)):
            if true.get(argument["hull"]) == argument:
                right[true.pop(argument["hull"])["role"]] += 1
            else:
                wrong[argument["role"]] += 1
        lost = Counter(argument["role"] for argument in true.values())
        excess, missed = excess + wrong, missed + lost
        perfect += not {*wrong, *lost} - {"V"}
    for counts in (right, excess, missed):
        del counts["V"]
    return right, excess, missed, perfect / len(gold)


def percentages(right, excess, missed):
    precision = right / (right + excess) if right + excess else 0.0
    recall = right / (right + missed) if right + missed else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return pytest.approx({"f1": f1, "precision": precision, "recall": recall})


@settings(deadline=None, max_examples=150)
@given(PROPOSITIONS)
def test_role_scores_equal_a_second_srl_eval(pairs):
    predicted, gold = ([[pair[side] for pair in tags] for tags in pairs] for side in (0, 1))
    ours = role_scores(predicted, gold)
    right, excess, missed, perfect = srl_eval(predicted, gold)
    per_role = ours.pop("per_role")
    assert ours.pop("perfect") == perfect
    assert ours == percentages(right.total(), excess.total(), missed.total())
    assert set(per_role) == {*right, *excess, *missed}
    for role, scores in per_role.items():
        assert scores.pop("gold") == right[role] + missed[role]
        assert scores == percentages(right[role], excess[role], missed[role])


@given(st.lists(ROLE_TAGS, max_size=12))
def test_a_proposition_predicted_as_gold_is_perfect(tags):
    found = [role for role, _ in role_arguments(tags) if role != "V"]
    scores = role_scores([tags], [tags])
    assert scores["f1"] == scores["precision"] == scores["recall"] == (1.0 if found else 0.0)
    assert scores["perfect"] == 1.0
    assert Counter(found) == {role: one["gold"] for role, one in scores["per_role"].items()}


@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_a_moved_piece_costs_one_excess_and_one_missed(length, before, after, back):
    piece, rest = ["B-C-A1", *["I-C-A1"] * (length - 1)], ["O"] * before
    opening = ["B-A0", "B-V", "B-A1", "I-A1", "O"]
    gold, moved = opening + rest + piece + ["O"] * after, opening + rest + ["O"] + piece + ["O"] * (after - 1)
    if back:
        gold, moved = moved, gold
    scores = role_scores([moved], [gold])
    assert scores["precision"] == scores["recall"] == scores["f1"] == 1 / 2 and scores["perfect"] == 0.0
    assert scores["per_role"]["A1"] == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "gold": 1}


def test_continuations_join_the_latest_argument_of_their_role():
    tags = ["B-A1", "B-V", "B-C-A1", "B-A1", "O", "B-C-A1", "B-R-A1", "B-C-A0", "I-C-A0", "O", "B-C-V"]
    assert role_arguments(tags) == [
        ("A1", ((0, 1), (2, 3))),
        ("V", ((1, 2), (10, 11))),
        ("A1", ((3, 4), (5, 6))),
        ("R-A1", ((6, 7),)),
        ("A0", ((7, 9),)),
    ]


BITS = [
    "the",
    "The",
    "a",
    "A",
    "an",
    "AN",
    "theory",
    "an-a",
    "d'a",
    "the_a",
    "“the”",
    "a\u0301",
    "café",
    "CAFE\u0301",
    "École",
]
BITS += [
    "straße",
    "STRASSE",
    "İ",
    "ﬁ",
    "東京",
    "Ω",
    "٣",
    "1990s",
    "$5.00",
    "U.S.",
    "—",
    ",",
    "!?",
    "\u00a0",
    "\t",
    "\n",
    "\u3000",
]
ANSWERS = st.lists(st.sampled_from(BITS), max_size=5).flatmap(
    lambda bits: st.sampled_from([" ".join(bits), "".join(bits)])
)
TEXTS = st.one_of(ANSWERS, st.text("aAnthTE \t_-.'é\u0301İß“\u00a0中1", max_size=12))


def normalized(text):
    """SQuAD's normalization letter by letter; a word is a run of letters and digits."""
    kept = [sign for sign in text.lower() if not ("!" <= sign <= "~") or sign.isalnum()]
    made, word = "", ""
    for sign in [*kept, " "]:
        if sign.isalnum():
            word += sign
        else:
            made += (" " if word in ("a", "an", "the") else word) + sign
            word = ""
    return " ".join(made.split())


def overlap_f1(predicted, gold):
    one, rest = normalized(predicted).split(), normalized(gold).split()
    count, same = len(rest), 0
    for word in one:
        if word in rest:
            rest.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(one), same / count
    return 2 * precision * recall / (precision + recall)


@given(TEXTS)
def test_normalization_equals_a_second_writing(text):
    assert normalize_answer(text) == normalized(text)


def test_normalization_by_example():
    assert normalize_answer(" The U.S.A.,\u00a0an  “Idea” of the\tÉCOLE! ") == "usa “idea” of école"
    assert normalize_answer("theatre another a-an ana") == "theatre another aan ana"
    assert normalize_answer("The, a - an.") == ""


@given(TEXTS, TEXTS)
def test_token_f1_equals_a_second_writing(predicted, gold):
    assert token_f1(predicted, gold) == pytest.approx(overlap_f1(predicted, gold))
    assert token_f1(predicted, gold) == pytest.approx(token_f1(gold, predicted))
    assert exact_match(predicted, gold) == (normalized(predicted) == normalized(gold))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_squad_scores_take_the_best_gold_answer_for_each_score(rows):
    f1 = exact = 0
    for predicted, golds in rows:
        f1 += max(overlap_f1(predicted, gold) for gold in golds)
        exact += any(normalized(predicted) == normalized(gold) for gold in golds)
    wanted = pytest.approx({"f1": f1 / len(rows), "exact_match": exact / len(rows)})
    predicted, golds = zip(*rows, strict=True)
    assert squad_scores(predicted, golds) == wanted
    assert best_match(predicted, golds) == wanted


def raw_v2(predicted, golds):
    """SQuAD 2.0's two scores before any threshold, against the best of the golds that have words, or against nothing."""
    golds = [gold for gold in golds if normalized(gold)] or [""]
    exact = max(float(normalized(predicted) == normalized(gold)) for gold in golds)
    if not normalized(predicted) or golds == [""]:
        return {"exact_match": exact, "f1": exact}
    return {"exact_match": exact, "f1": max(overlap_f1(predicted, gold) for gold in golds)}


def mean(values):
    return sum(values) / len(values) if values else 0.0


# With each gold answer one that has words is listed, or none at all.
WORDY = st.lists(TEXTS.filter(normalized), max_size=2).flatmap(
    lambda golds: st.permutations([*golds, "the"]) if golds else st.just([])
)
CHANCES = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 3.0])
QUESTIONS = st.lists(st.tuples(TEXTS, WORDY, CHANCES), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(QUESTIONS, st.sampled_from([-3.0, -0.5, 0.0, 0.1, 3.0]))
def test_squad_v2_scores_equal_a_second_writing(rows, threshold):
    predicted, golds, chances = zip(*rows, strict=True)
    ours = squad_v2_scores(predicted, golds, chances, threshold)
    for name in ("f1", "exact_match"):
        raw = [raw_v2(one, texts)[name] for one, texts in zip(predicted, golds, strict=True)]
        final = [
            value if chance <= threshold else float(not texts)
            for value, texts, chance in zip(raw, golds, chances, strict=True)
        ]
        assert ours[name] == pytest.approx(mean(final))
        answerable = [value for value, texts in zip(final, golds, strict=True) if texts]
        others = [value for value, texts in zip(final, golds, strict=True) if not texts]
        assert ours["has_answer"][name] == pytest.approx(mean(answerable))
        assert ours["no_answer"][name] == pytest.approx(mean(others))
        parts = ours["has_answer"][name] * len(answerable) + ours["no_answer"][name] * len(others)
        assert parts == pytest.approx(ours[name] * len(rows))

        passed = [(len(others), 0.0)]  # the running score and the threshold that belongs to it
        for i in sorted(range(len(rows)), key=lambda i: chances[i]):
            gain = raw[i] if golds[i] else -1 if predicted[i] else 0
            passed.append((passed[-1][0] + gain, chances[i]))
        best, at = max(passed, key=lambda pair: pair[0])
        assert ours[f"best_{name}"] == pytest.approx(best / len(rows))
        chosen = ours[f"best_{name}_threshold"]
        if name == "exact_match":  # whole numbers: the first of equals
            assert chosen == at
        assert any(value == chosen and score == pytest.approx(best) for score, value in passed)


def test_squad_v2_by_example():
    predicted = ["Rhône", "", "a river", "The", ""]
    golds = [["the Rhône", "Rhone"], ["Rhine"], [], [], []]
    scores = squad_v2_scores(predicted, golds, [-1.0, 2.0, 0.0, 1.0, 5.0], threshold=0.0)
    assert scores["f1"] == scores["exact_match"] == 3 / 5
    assert scores["has_answer"] == {"f1": 1 / 2, "exact_match": 1 / 2}
    assert scores["no_answer"] == {"f1": 2 / 3, "exact_match": 2 / 3}
    assert scores["best_f1"] == scores["best_exact_match"] == 4 / 5
    assert scores["best_f1_threshold"] == scores["best_exact_match_threshold"] == -1.0


def test_equal_chances_pass_one_by_one_and_the_first_of_equal_scores_is_kept():
    chances = [1.0, 1.0, 2.0, 2.0]
    scores = squad_v2_scores(["x", "y", "z", "w"], [["x"], [], ["z"], []], chances, threshold=9.0)
    assert scores["best_exact_match"] == 3 / 4 and scores["best_exact_match_threshold"] == 1.0
    scores = squad_v2_scores(["y", "x"], [[], ["x"]], [1.0, 1.0], threshold=9.0)
    assert scores["best_exact_match"] == 1 / 2 and scores["best_exact_match_threshold"] == 0.0


@pytest.mark.parametrize("golds", [["the"], ["", "A."]])
def test_a_question_with_listed_answers_is_answerable_even_if_none_has_words(golds):
    """As in the official script, where the list of answers decides; the answer to give is then an empty one."""
    scores = squad_v2_scores(["x", "", ""], [golds, golds, []], [1.0, -1.0, 1.0], threshold=0.0)
    assert scores["has_answer"] == {"f1": 1 / 2, "exact_match": 1 / 2}
    assert scores["no_answer"] == {"f1": 1.0, "exact_match": 1.0}
    assert scores["exact_match"] == pytest.approx(2 / 3)


NOTHING = {"f1": 0.0, "precision": 0.0, "recall": 0.0}
NO_TEXT = {"f1": 0.0, "exact_match": 0.0}
NO_V2 = NO_TEXT | {"threshold": 0.5, "has_answer": NO_TEXT, "no_answer": NO_TEXT}
NO_V2 |= {f"best_{name}{end}": 0.0 for name in NO_TEXT for end in ("", "_threshold")}
EMPTY = {
    "accuracy": (accuracy, ([], []), 0.0),
    "macro_f1": (macro_f1, ([], [], [0, 1]), 0.0),
    "macro_f1 without labels": (macro_f1, ([], [], []), 0.0),
    "answer_set_scores": (answer_set_scores, ([], []), {"f1a": 0.0, "exact_match": 0.0}),
    "answer_set_scores without options": (answer_set_scores, ([[]], [[]]), {"f1a": 0.0, "exact_match": 1.0}),
    "span_scores": (span_scores, ([], []), NOTHING | {"per_type": {}}),
    "span_scores of empty sentences": (span_scores, ([[]], [[]]), NOTHING | {"per_type": {}}),
    "strict_span_scores": (strict_span_scores, ([], []), NOTHING),
    "strict_span_scores without a span": (strict_span_scores, ([["I-A"]], [["O"]]), NOTHING),
    "role_scores": (role_scores, ([], []), NOTHING | {"perfect": 0.0, "per_role": {}}),
    "role_scores of V alone": (role_scores, ([["B-V"]], [["O"]]), NOTHING | {"perfect": 1.0, "per_role": {}}),
    "squad_scores": (squad_scores, ([], []), NO_TEXT),
    "squad_scores of an empty answer": (squad_scores, ([""], [["x"]]), NO_TEXT),
    "squad_scores without a gold answer": (squad_scores, (["x"], [[]]), NO_TEXT),
    "squad_v2_scores": (squad_v2_scores, ([], [], [], 0.5), NO_V2),
}


@pytest.mark.parametrize("case", EMPTY)
def test_nothing_to_score_is_exact_everywhere(case):
    score, inputs, wanted = EMPTY[case]
    assert score(*inputs) == wanted


def test_one_row():
    assert macro_f1(["x"], ["x"], ["x"]) == 1.0
    assert answer_set_scores([[1]], [[1]]) == {"f1a": 1.0, "exact_match": 1.0}
    assert answer_set_scores([[0]], [[0]]) == {"f1a": 0.0, "exact_match": 1.0}
    assert strict_span_scores([["B-A"]], [["B-A"]])["f1"] == 1.0
    assert squad_scores(["The answer."], [["answer"]]) == {"f1": 1.0, "exact_match": 1.0}
    scores = squad_v2_scores([""], [[]], [0.0], 0.0)
    assert scores["f1"] == scores["best_f1"] == scores["no_answer"]["f1"] == 1.0 and scores["has_answer"]["f1"] == 0.0


REFUSED = {
    "accuracy": ([1], [1, 2]),
    "macro_f1": ([1], [1, 2], [1, 2]),
    "answer_set_scores": ([[1]], [[1], [0]]),
    "answer_set_scores, options": ([[1]], [[1, 0]]),
    "span_scores": ([["O"]], [["O"], ["O"]]),
    "span_scores, words": ([["O"]], [["O", "O"]]),
    "strict_span_scores": ([["O"]], [["O"], ["O"]]),
    "strict_span_scores, words": ([["O"]], [["O", "O"]]),
    "role_scores": ([["O"]], [["O"], ["O"]]),
    "role_scores, words": ([["O"]], [["O", "O"]]),
    "best_match": (["x"], [["x"], ["y"]]),
    "squad_scores": (["x"], [["x"], ["y"]]),
    "squad_v2_scores": (["x"], [["x"], ["y"]], [0.0], 0.0),
    "squad_v2_scores, chances": (["x"], [["x"]], [0.0, 1.0], 0.0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_of_different_length_are_refused(case):
    with pytest.raises(ValueError, match="1 against 2"):
        getattr(metrics, case.split(",")[0])(*REFUSED[case])


ROLE_ROWS = [["B-A0", "B-V", "B-A1", "O", "B-C-A1"], ["B-V", "O", "B-AM-TMP", "I-AM-TMP"]]
ROLE_GUESSES = [["B-A0", "B-V", "B-A1", "B-C-A1", "O"], ["B-V", "O", "B-AM-TMP", "I-AM-TMP"]]
GOLD_TEXTS = [["Rhône", "the Rhône"], ["an oak tree"], ["1990"]]
V2 = [{"text": "oak", "no_answer": 0.5}, {"text": "The Rhône!", "no_answer": -1.25}, {"text": "1990", "no_answer": 0.0}]
PLAIN = {
    "accuracy": ([0, 1, 1], [0, 1, 2], lambda p, r: {"accuracy": accuracy(p, r)}),
    "macro_f1": ([0, 1, 1], [0, 1, 2], lambda p, r: {"macro_f1": macro_f1(p, r, [0, 1, 2])}),
    "span_f1": ([["B-A", "I-B"], ["O"]], [["B-A", "I-A"], ["B-B"]], span_scores),
    "role_f1": (ROLE_GUESSES, ROLE_ROWS, role_scores),
    "multirc": ([[1, 0, 1], [0]], [[1, 1, 1], [0]], answer_set_scores),
    "record": (["the Rhône", "Oak", ""], GOLD_TEXTS, best_match),
    "squad": (["the Rhône", "Oak", ""], GOLD_TEXTS, squad_scores),
    "squad_v2": (
        V2,
        [[], ["Rhône"], ["in 1990"]],
        lambda p, r: squad_v2_scores([one["text"] for one in p], r, [one["no_answer"] for one in p], 0.0),
    ),
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty folder that is working directory, Hugging Face cache and place of temporary files."""
    import datasets
    import evaluate

    for config in (datasets.config, evaluate.config):
        for key, value in list(vars(config).items()):
            if "CACHE" in key and isinstance(value, str | Path):
                monkeypatch.setattr(config, key, type(value)(tmp_path / key))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", PLAIN)
def test_an_evaluate_metric_gives_the_plain_numbers_and_writes_no_file(name, empty):
    predicted, gold, plain = PLAIN[name]
    metric = evaluate_metric(name)
    assert metric.compute(predictions=predicted, references=gold) == plain(predicted, gold)
    metric.add_batch(predictions=predicted[:1], references=gold[:1])
    metric.add_batch(predictions=predicted[1:], references=gold[1:])
    assert metric.compute() == plain(predicted, gold)
    assert not [path for path in empty.rglob("*") if not path.is_dir()]


def test_an_evaluate_metric_leaves_no_folder_either(empty):
    evaluate_metric("accuracy").compute(predictions=[1], references=[1])
    assert not list(empty.iterdir())


def test_the_macro_average_counts_a_label_that_was_only_predicted(empty):
    predicted, gold = [0, 1, 2, 2], [0, 1, 1, 0]
    wanted = classification_f1(gold, predicted, average="macro", zero_division=0)  # as evaluate's super_glue calls it
    found = evaluate_metric("macro_f1").compute(predictions=predicted, references=gold)
    assert found == {"macro_f1": pytest.approx(wanted)} and wanted == pytest.approx(4 / 9)


def test_an_unknown_metric_comes_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'squad_v2'"):
        evaluate_metric("squadv2")


def test_standard_error_of_rte():
    assert standard_error(0.6, 277) == pytest.approx(0.0294, abs=1e-4)


@given(st.lists(st.booleans(), min_size=2, max_size=60), st.integers(1, 4))
def test_the_jackknife_of_a_mean_is_its_formula_however_often_a_row_is_repeated(right, times):
    rows = [one for one in right for _ in range(times)]
    groups = [k for k in range(len(right)) for _ in range(times)]
    found = jackknife_error(lambda kept: sum(rows[i] for i in kept) / len(kept), groups, parts=len(right))
    share = sum(right) / len(right)
    assert found == pytest.approx(math.sqrt(share * (1 - share) / (len(right) - 1)), abs=1e-9)


def test_the_jackknife_of_an_f1_is_near_the_bootstrap():
    draw = np.random.default_rng(0)
    gold = draw.integers(0, 2, size=(300, 4))
    found = np.where(draw.random(gold.shape) < 0.7, gold, 1 - gold)

    def score(kept):
        return answer_set_scores(found[list(kept)].tolist(), gold[list(kept)].tolist())["f1a"]

    again = [score(draw.integers(0, len(gold), len(gold))) for _ in range(400)]
    assert jackknife_error(score, range(len(gold)), parts=100) == pytest.approx(np.std(again), rel=0.3)


def test_rows_of_one_group_have_no_error():
    assert jackknife_error(len, ["a", "a"]) is None and jackknife_error(len, []) is None

"""Scores equal independent implementations, also where there is nothing to score."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score

from ptv2lib.metrics import accuracy, evaluate_metric, span_scores, spans, standard_error

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


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="1 against 2"):
        accuracy([1], [1, 2])
    with pytest.raises(ValueError, match="1 against 2"):
        span_scores([["O"]], [["O", "O"]])


def test_as_evaluate_metrics():
    assert evaluate_metric("accuracy").compute(predictions=[1, 0], references=[1, 1]) == {"accuracy": 0.5}
    assert evaluate_metric("span_f1").compute(predictions=[["B-A"]], references=[["B-A"]])["f1"] == 1.0


def test_standard_error_of_rte():
    assert standard_error(0.6, 277) == pytest.approx(0.0294, abs=1e-4)

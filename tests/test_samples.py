"""Rows of the miniature suite as the book shows them."""

import pytest

from ptv2lib.tasks.registry import TASKS

pytest.importorskip("sphinx", reason="the book's packages are not part of this environment")
samples = pytest.importorskip("samples")


def test_entities_are_marked_in_words():
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]
    assert (
        samples.marked(["Ann", "Lee", "left", "Bonn", "Kiel"], tags) == "[Ann Lee] (PER) left [Bonn] (LOC) [Kiel] (LOC)"
    )


def test_marked_words_stand_in_brackets():
    assert samples.bracketed("The bank lent it.", (4, 8), (14, 16)) == "The [bank] lent [it]."


@pytest.mark.parametrize("name", TASKS)
def test_every_set_can_be_shown(name):
    head, rows, sizes = samples.sample(name, "test" if name != "mnli" else "validation", 5)
    assert len(rows) == 5 and all(len(row) == len(head) and all(row) for row in rows)
    assert all(size > 0 for size in sizes.values())

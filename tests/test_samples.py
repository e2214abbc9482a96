"""Rows of the miniature suite as the book shows them."""

import pytest

pytest.importorskip("sphinx", reason="the book's packages are not part of this environment")
samples = pytest.importorskip("samples")


def test_entities_are_marked_in_words():
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]
    assert (
        samples.marked(["Ann", "Lee", "left", "Bonn", "Kiel"], tags) == "[Ann Lee] (PER) left [Bonn] (LOC) [Kiel] (LOC)"
    )


@pytest.mark.parametrize(("name", "columns"), [("sst2", 2), ("rte", 3), ("wikiann", 1)])
def test_a_sample_has_as_many_cells_as_its_head(name, columns):
    head, rows, sizes = samples.sample(name, "test", 5)
    assert [len(head), *map(len, rows)] == [columns] * 6
    assert sizes["train"] > sizes["test"] > 0

"""The miniature suite keeps its rules: the test split shares no content word and no sentence frame with training."""

import json
import re
from collections import Counter

import pytest

from ptv2lib.sources import MINIATURE
from ptv2lib.tasks import load_task

FUNCTION_WORDS = set((MINIATURE / "function_words.txt").read_text().split())
SETS = ["sst2", "rte", "conll04", "wikiann"]


def rows(name, split):
    return [json.loads(line) for line in (MINIATURE / name / f"{split}.jsonl").read_text().splitlines()]


def texts(row):
    """The row's texts as lists of lower-case words."""
    if "tokens" in row:
        return [[word.lower() for word in row["tokens"]]]
    return [
        re.findall(r"[a-z]+(?:'[a-z]+)?|[^\sa-z]", row[c].lower())
        for c in ("sentence", "premise", "hypothesis")
        if c in row
    ]


def stem(word):
    for ending in ("ing", "est", "ed", "es", "er", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def content(word):
    return bool(re.search("[a-z]", word)) and word.rstrip(".") not in FUNCTION_WORDS


def blank(word):
    """A frame's place for this word: one sort of blank for content words, another for numbers."""
    return "_" if content(word) else "#" if any(map(str.isdigit, word)) else word


@pytest.mark.parametrize("name", SETS)
def test_no_content_word_of_the_test_is_seen_in_training(name):
    train, test = (
        {stem(word) for row in rows(name, split) for text in texts(row) for word in text if content(word)}
        for split in ("train", "test")
    )
    assert not train & test


@pytest.mark.parametrize("name", SETS)
def test_no_sentence_frame_of_the_test_is_seen_in_training(name):
    train, test = (
        {" ".join(map(blank, text)) for row in rows(name, split) for text in texts(row)} for split in ("train", "test")
    )
    assert not train & test


@pytest.mark.parametrize("name", SETS)
def test_no_row_stands_twice(name):
    seen = Counter(json.dumps(texts(row)) for split in ("train", "validation", "test") for row in rows(name, split))
    assert [text for text, times in seen.items() if times > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_the_sets_load_and_have_their_size(name):
    task = load_task(name, source="miniature")
    for split, size in (("train", 600), ("validation", 200), ("test", 200)):
        assert abs(len(task.rows[split]) - size) <= 0.1 * size
    if task.family.head == "sequence":
        for part in task.rows.values():
            assert 0.48 <= sum(row["label"] for row in part) / len(part) <= 0.52
    else:
        train, test = ({tag for row in task.rows[split] for tag in row["tags"]} for split in ("train", "test"))
        assert test <= train and len(train) == len(task.family.labels)


def test_the_list_of_function_words_is_short_and_sorted():
    words = (MINIATURE / "function_words.txt").read_text().split()
    assert words == sorted(set(words)) and len(words) <= 400

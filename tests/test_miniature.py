"""The miniature suite keeps its rules: a test split shares no content word and no sentence frame with training."""

import json
import re
from collections import Counter

import pytest

from ptv2lib.sources import MINIATURE
from ptv2lib.tasks import load_task
from ptv2lib.tasks.registry import TASKS

FUNCTION_WORDS = set((MINIATURE / "function_words.txt").read_text().split())
FORMAT_WORDS = {"highlight", "placeholder"}  # ReCoRD's own marks
SETS = sorted(path.name for path in MINIATURE.iterdir() if path.is_dir())
TEXTS = ("sentence", "premise", "hypothesis", "question", "choice1", "choice2", "sentence1", "sentence2", "text")
TEXTS += ("answer", "query", "title", "word")
PASSAGES = ("passage", "paragraph", "context")
LARGE = ("sst2", "rte", "conll04", "wikiann")  # about 600 rows train and 200 test; the others are smaller


def rows(name, split):
    return [json.loads(line) for line in (MINIATURE / name / f"{split}.jsonl").read_text().splitlines()]


def splits(name):
    return [path.stem for path in sorted((MINIATURE / name).glob("*.jsonl"))]


def train_of(name):
    return rows(TASKS[name].trained_on if getattr(TASKS[name], "trained_on", None) else name, "train")


def scored_of(name):
    """Test splits, and MNLI's two validations, which are scored in place of its unlabelled test."""
    return [split for split in splits(name) if split.startswith(("test", "validation_"))]


def words(text):
    return re.findall(r"[a-z]+(?:'[a-z]+)?|[^\sa-z]", text.lower())


def texts(row):
    """The row's sentences as lists of lower-case words."""
    if "tokens" in row:
        return [[word.lower() for word in row["tokens"]]]
    found = [words(row[column]) for column in TEXTS if column in row and row[column] not in ("cause", "effect")]
    for column in PASSAGES:
        found += [words(part) for part in re.split(r"(?<=[.!?])\s+|\n", row.get(column, "")) if part.strip()]
    return found


def stem(word):
    for ending in ("ing", "est", "ed", "es", "er", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def content(word):
    return bool(re.search("[a-z]", word)) and word.rstrip(".") not in FUNCTION_WORDS | FORMAT_WORDS


def blank(word):
    """A frame's place for this word: one sort of blank for content words, another for numbers."""
    return "_" if content(word) else "#" if any(map(str.isdigit, word)) else word


def frames(found):
    """Sentence frames; one or two words are no pattern."""
    return {" ".join(map(blank, text)) for row in found for text in texts(row) if len(text) > 2}


def test_every_task_has_a_miniature():
    assert set(SETS) == set(TASKS)


@pytest.mark.parametrize("name", SETS)
def test_no_content_word_of_a_test_is_seen_in_training(name):
    seen = {stem(word) for row in train_of(name) for text in texts(row) for word in text if content(word)}
    for split in scored_of(name):
        assert not seen & {stem(w) for row in rows(name, split) for text in texts(row) for w in text if content(w)}


@pytest.mark.parametrize("name", SETS)
def test_no_sentence_frame_of_a_test_is_seen_in_training(name):
    seen = frames(train_of(name))
    for split in scored_of(name):
        assert not seen & frames(rows(name, split))


@pytest.mark.parametrize("name", SETS)
def test_no_row_stands_twice(name):
    unnamed = ("idx", "id", "orig_id")
    seen = Counter(
        json.dumps({key: value for key, value in row.items() if key not in unnamed}, sort_keys=True)
        for split in splits(name)
        for row in rows(name, split)
    )
    assert [text for text, times in seen.items() if times > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_the_sets_load_and_hold_no_more_rows_than_the_real_ones(name):
    task = load_task(name, source="miniature")
    for split, found in task.rows.items():
        assert task.family.labelled(found)
        count, official = sum(map(task.family.size, found)), task.family.hub.rows.get(split)
        assert 50 <= count <= (official or count)
    if name in LARGE:
        for split, size in (("train", 600), ("validation", 200), ("test", 200)):
            assert abs(len(task.rows[split]) - size) <= 0.1 * size


@pytest.mark.parametrize("name", SETS)
def test_labels_are_balanced_and_tags_occur_in_training(name):
    task = load_task(name, source="miniature")
    kinds = len(task.family.labels)
    for split, found in task.rows.items():
        if task.family.head == "token":
            tags = {tag for row in found for tag in row["tags"]}
            assert tags <= {tag for row in task.rows["train"] for tag in row["tags"]} or split == "validation"
        elif "label" in found[0]:
            counts = Counter(row["label"] for row in found)
            assert len(counts) == kinds
            assert all(abs(count / len(found) - 1 / kinds) <= 0.021 for count in counts.values())
        elif "labels" in found[0]:
            labels = [label for row in found for label in row["labels"]]
            assert 0.4 <= sum(labels) / len(labels) <= 0.5
        elif name == "squad_v2":
            assert abs(sum(bool(row["answers"]["text"]) for row in found) / len(found) - 0.5) <= 0.02
        else:
            assert name in ("record", "squad", "squadshifts"), "only these have no labels to balance"


def test_the_list_of_function_words_is_short_and_sorted():
    found = (MINIATURE / "function_words.txt").read_text().split()
    assert found == sorted(set(found)) and len(found) <= 400

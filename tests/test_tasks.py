"""Data sets are read right, or refused with one sentence that says where."""

import dataclasses
import json
import random
import re
import unicodedata
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2lib.__main__ import main
from ptv2lib.backbones import load_backbone
from ptv2lib.building import build_model
from ptv2lib.encoding import IGNORED, Layout
from ptv2lib.errors import BadOption, DataError, NoNetwork, UnknownName
from ptv2lib.sources import commit_of
from ptv2lib.tasks import TASKS, load_task
from ptv2lib.tasks.classification import Classification
from ptv2lib.tasks.common import TaskFamily

SENTENCES = [{"sentence": f"a fine film {i}", "label": i % 2} for i in range(40)]
TAGGED = [{"tokens": ["Ann", "met", "Bob", "Li"], "ner_tags": [1, 0, 1, 2]} for _ in range(4)]


def folder(path, **splits):
    """Write splits as JSON lines."""
    path.mkdir(exist_ok=True)
    for split, rows in splits.items():
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_as_integers_strings_and_class_labels(tmp_path):
    numbers = load_task("sst2", dataset=folder(tmp_path / "a", train=SENTENCES, validation=SENTENCES[:6]))
    words = [row | {"label": ["negative", "positive"][row["label"]]} for row in SENTENCES]
    strings = load_task("sst2", dataset=folder(tmp_path / "b", train=words, validation=words[:6]))
    (tmp_path / "c").mkdir()
    for split, rows in (("train", words), ("validation", words[:6])):  # the file's own order of names is another one
        names = datasets.Features(
            {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])}
        )
        datasets.Dataset.from_list(rows, features=names).to_parquet(tmp_path / "c" / f"{split}.parquet")
    named = load_task("sst2", dataset=tmp_path / "c")
    assert numbers.rows == strings.rows == named.rows


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [(("1", "2", "3", "4", "5"), (1, 2, 5)), (("1", "0"), (0, 1)), (("-1", "0", "1"), (-1, 0, 1))],
)
def test_a_number_means_the_label_of_that_name(labels, numbers, tmp_path):
    rows = [{"text": f"x {k}", "label": number} for k, number in enumerate(numbers)]
    family = Classification("stars", ("text",), labels)
    path = folder(tmp_path, train=rows, validation=rows, test=[{"text": "x"}])
    task = load_task(family, dataset=path)
    assert [int(labels[row["label"]]) for row in task.rows["train"]] == list(numbers)
    assert not family.labelled(task.rows["test"]), "a row without a label stays one"
    folder(path, train=[*rows, {"text": "y", "label": 6}])
    with pytest.raises(DataError, match="column 'label' is '6', not one of"):
        load_task(family, dataset=path)


def test_conll04_entities_become_tags(tmp_path):
    rows = [
        {
            "tokens": ["Ann", "Li", "met", "Oslo"],
            "entities": [{"start": 0, "end": 2, "type": "Peop"}, {"start": 3, "end": 4, "type": "Loc"}],
        }
    ]
    task = load_task("conll04", dataset=folder(tmp_path / "x", train=rows, validation=rows))
    assert task.rows["train"][0]["tags"] == ["B-Peop", "I-Peop", "O", "B-Loc"]


CASES = {
    "no folder": (None, "does not exist"),
    "no validation": ({"train": SENTENCES}, "no validation split"),
    "wrong column": ({"train": [{"text": "x", "label": 0}]}, "no column 'sentence'; it has text, label"),
    "label outside": (
        {"train": [*SENTENCES, {"sentence": "x", "label": 7}]},
        "row 40: column 'label' is 7, not one of negative, positive",
    ),
    "no label": ({"train": [{"sentence": "x", "label": None}]}, "row 0: column 'label' is None, which is no label"),
    "empty texts": ({"train": [{"sentence": " ", "label": 0}] * 3}, "'sentence' is empty in every row"),
    "not text": ({"train": [{"sentence": 3, "label": 0}]}, "row 0: column 'sentence' must be text"),
    "no rows": ({"train": []}, "train.jsonl is empty"),
    "unlabelled training": ({"train": [{"sentence": "x", "label": -1}]}, "without a label"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_classification_data(case, tmp_path):
    splits, words = CASES[case]
    if splits is not None:
        folder(tmp_path / "x", **({"validation": SENTENCES} | splits if case != "no validation" else splits))
    with pytest.raises((DataError, BadOption), match=words) as caught:
        load_task("sst2", dataset=tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", "b"], "ner_tags": [0]}, "row 4: 2 tokens, but 1 tags"),
        ({"tokens": ["a"], "ner_tags": [9]}, "row 4, word 0: column 'ner_tags' is 9"),
        ({"tokens": "a b", "ner_tags": [0, 0]}, "row 4: column 'tokens' must be a list"),
    ],
)
def test_bad_tagging_data(row, words, tmp_path):
    with pytest.raises(DataError, match=words):
        load_task("wikiann", dataset=folder(tmp_path / "x", train=[*TAGGED, row], validation=TAGGED))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    folder(tmp_path / "x", validation=SENTENCES)
    (tmp_path / "x" / "train.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read"):
        load_task("sst2", dataset=tmp_path / "x")


def test_single_empty_texts_are_kept(tmp_path):
    rows = [*SENTENCES, {"sentence": "", "label": 1}]
    assert len(load_task("sst2", dataset=folder(tmp_path / "x", train=rows, validation=rows)).rows["train"]) == 41


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'sst2'"):
        load_task("sst-2")
    with pytest.raises(UnknownName, match="hub, miniature"):
        load_task("sst2", source="xyz")


def test_without_a_network_the_hub_is_one_short_sentence(monkeypatch, tmp_path):
    import time

    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    started = time.monotonic()
    with pytest.raises(NoNetwork, match="did not answer"):
        load_task("rte")
    assert time.monotonic() - started < 10


def test_the_commit_of_an_unpinned_data_set_is_read_off_its_cache_folder():
    commit = "0123456789abcdef" * 2 + "01234567"
    assert commit_of([f"/cache/owner___name/default/0.0.0/{commit}/name-train.arrow"]) == commit
    assert commit_of(["/cache/parquet/default-0123/0.0.0/abc/parquet-train.arrow"]) is None
    assert commit_of([]) is None


def labelled(rows, seed):
    draw = random.Random(seed)
    return [{"sentence": f"s {i}", "label": int(draw.random() < 0.3)} for i in range(rows)]


@given(rows=st.integers(30, 400), seed=st.integers(0, 5))
def test_selection_and_score_share_no_row(rows, seed, tmp_path_factory):
    path = folder(
        tmp_path_factory.mktemp("x"),
        train=labelled(rows, seed),
        validation=[r | {"sentence": f"v {i}"} for i, r in enumerate(labelled(20, 9))],
    )
    task = load_task("sst2", dataset=path)
    split = task.split()
    texts = [{row["sentence"] for row in part} for part in (split.train, split.validation, split.test)]
    assert not texts[0] & texts[1] and not texts[1] & texts[2] and not texts[0] & texts[2]
    assert len(texts[0] | texts[1]) == rows
    share = sum(row["label"] for row in task.rows["train"]) / rows
    assert abs(sum(row["label"] for row in split.validation) - share * len(split.validation)) <= 1
    assert task.split().validation == split.validation


WSC = {"span1_index": 0, "span2_index": 2, "span1_text": "Ann", "span2_text": "she"}


@pytest.mark.parametrize(
    ("name", "column", "row"), [("mnli", "premise", {"hypothesis": "It rained."}), ("wsc", "text", WSC)]
)
def test_a_text_that_recurs_with_other_labels_does_not_part(name, column, row, tmp_path):
    """Else a model that knows a text by heart is wrong about the very rows that select."""
    labels = range(len(TASKS[name].labels))
    rows = [row | {column: f"Ann said she {number} .", "label": label} for number in range(30) for label in labels]
    random.Random(0).shuffle(rows)
    split = load_task(name, dataset=folder(tmp_path, train=rows, validation=rows[:4])).split()
    train, selecting = ({row[column] for row in part} for part in (split.train, split.validation))
    assert not train & selecting and len(split.validation) == len(selecting) * len(labels) == len(rows) // 10
    with pytest.raises(BadOption, match="grouped='genre' is none of the text columns"):
        dataclasses.replace(TASKS[name], grouped="genre")


def test_a_labelled_test_is_scored_and_the_paper_selects_otherwise(tmp_path):
    task = load_task(
        "sst2", dataset=folder(tmp_path / "x", train=SENTENCES, validation=SENTENCES[:8], test=SENTENCES[8:12])
    )
    assert task.split().test == task.rows["test"] and task.split().validation == task.rows["validation"]
    unlabelled = [row | {"label": -1} for row in SENTENCES[:4]]
    task = load_task("sst2", dataset=folder(tmp_path / "y", train=SENTENCES, validation=SENTENCES[:8], test=unlabelled))
    assert task.split().test == task.rows["validation"]
    assert task.split("paper").validation == task.rows["validation"] and task.split("paper").test is None
    assert "paper" in task.split("paper").protocol


def test_the_train_limit_draws_the_same_rows_every_time(tmp_path):
    path = folder(tmp_path / "x", train=SENTENCES, validation=SENTENCES[:8])
    first, second = (load_task("sst2", dataset=path, train_limit=5).split() for _ in range(2))
    assert len(first.train) == 5 and first.train == second.train


def test_words_are_labelled_at_their_first_piece(tiny):
    family, tokenizer = TASKS["wikiann"], tiny().tokenizer
    row = {"tokens": ["Ann", "met", "Bo"], "tags": ["B-PER", "O", "B-LOC"]}
    ((encoded,),) = family.encode([row], tokenizer, Layout(64))
    pieces = tokenizer.convert_ids_to_tokens(encoded.inputs["input_ids"])
    assert pieces == ["[CLS]", "a", "##n", "##n", "m", "##e", "##t", "b", "##o", "[SEP]"]
    x = IGNORED
    assert encoded.labels.tolist() == [x, 1, x, x, 0, x, x, 5, x, x]
    assert not encoded.cut


def test_a_cut_is_counted_and_lost_words_are_no_entities(tiny):
    import numpy as np

    family = TASKS["wikiann"]
    row = {"tokens": ["Ann"] * 10, "tags": ["B-PER"] * 10}
    ((encoded,),) = family.encode([row], tiny().tokenizer, Layout(12))
    assert encoded.cut and len(encoded) == 12 and encoded.lost == 6
    logits = np.zeros((12, 7))
    logits[:, 1] = 1
    assert family.decode([logits], [encoded], row) == ["B-PER"] * 4 + ["O"] * 6


def test_majority_lines(tmp_path):
    task = load_task("sst2", dataset=folder(tmp_path / "x", train=[*SENTENCES, SENTENCES[1]], validation=SENTENCES[:7]))
    assert task.family.majority(task.rows["train"], task.rows["validation"]) == {
        "accuracy": pytest.approx(3 / 7),
        "answer": "positive",
    }


def test_the_only_row_of_a_label_trains(tmp_path):
    family = Classification("mood", ("text",), ("sad", "glad", "odd"))
    rows = [{"text": f"x {i}", "label": i % 2} for i in range(40)] + [{"text": "z", "label": 2}]
    split = load_task(family, dataset=folder(tmp_path / "x", train=rows, validation=rows[:4])).split()
    assert {row["label"] for row in split.train} == {0, 1, 2}
    assert len(split.train) + len(split.validation) == len(rows)


def test_many_rare_labels_leave_most_rows_to_training(tmp_path):
    family = Classification("topics", ("text",), tuple(f"t{k}" for k in range(40)))
    rows = [{"text": f"x {i}", "label": f"t{i % 40}"} for i in range(80)]
    split = load_task(family, dataset=folder(tmp_path / "x", train=rows, validation=rows[:4])).split()
    assert (len(split.train), len(split.validation)) == (72, 8)


def question(number, title):
    answers = {"text": ["cat"], "answer_start": [4]}
    return {"id": f"{title}{number}", "title": title, "context": "the cat sat", "question": "who?", "answers": answers}


def test_one_large_article_trains(tmp_path):
    rows = [question(i, title) for title, count in (("a", 95), ("b", 3), ("c", 2)) for i in range(count)]
    split = load_task("squad", dataset=folder(tmp_path / "x", train=rows, validation=rows[:4])).split()
    assert {row["title"] for row in split.validation} <= {"b", "c"} and split.validation


@pytest.mark.parametrize(
    ("name", "rows"),
    [("sst2", [SENTENCES[0], SENTENCES[1]]), ("sst2", SENTENCES[:1]), ("squad", [question(i, "a") for i in range(9)])],
)
def test_rows_that_cannot_be_divided_say_so(name, rows, tmp_path):
    task = load_task(name, dataset=folder(tmp_path / "x", train=rows, validation=rows[:1]))
    with pytest.raises(DataError, match="cannot be divided"):
        task.split()
    assert len(task.split("paper").train) == len(rows)


def test_an_empty_test_is_none(tmp_path):
    task = load_task("sst2", dataset=folder(tmp_path / "x", train=SENTENCES, validation=SENTENCES[:8]))
    split = dataclasses.replace(task, rows=task.rows | {"test": []}).split()
    assert split.test == task.rows["validation"] and split.protocol.startswith("a tenth")


def test_a_label_named_twice_is_refused():
    with pytest.raises(BadOption, match="names 'sad' twice"):
        Classification("mood", ("text",), ("sad", "sad"))


@pytest.mark.parametrize("name", [None, 3])
def test_a_task_that_is_no_name_is_refused(name):
    with pytest.raises(UnknownName, match="There is no task"):
        load_task(name)


def test_a_family_that_could_not_be_read_as_meant_is_refused():
    with pytest.raises(BadOption, match="one text or two"):
        Classification("mood", ("a", "b", "c"), ("sad", "glad"))
    with pytest.raises(UnknownName, match="did you mean 'only_first'"):
        Classification("mood", ("a", "b"), ("sad", "glad"), cut="onlyfirst")


# Rows without a label


def said_of(name, path):
    """The one sentence with which a folder is refused."""
    with pytest.raises(DataError) as caught:
        load_task(name, dataset=path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_training_row_without_a_label_is_named(tmp_path):
    rows = [{"sentence": f"a fine film {k}", "label": k % 2} for k in range(400)]
    rows[333]["label"] = -1
    said = said_of("sst2", folder(tmp_path / "a", train=rows, validation=SENTENCES))
    assert "The train split of a " in said and "train.jsonl, row 333, column 'label'" in said
    del rows[333]["label"]
    said = said_of("sst2", folder(tmp_path / "b", train=SENTENCES, validation=rows))
    assert "The validation split of b " in said and "validation.jsonl, row 333, column 'label'" in said


def test_a_label_column_that_is_missing_is_said_to_be(tmp_path):
    rows = [{"sentence": row["sentence"], "labels": row["label"]} for row in SENTENCES]
    said = said_of("sst2", folder(tmp_path / "a", train=rows, validation=rows))
    assert "train.jsonl has no column 'label'; it has sentence, labels." in said
    rows = [{"passage": "Ann met Bo.", "query": "@placeholder met Bo", "entities": ["Ann", "Bo"]}] * 2
    said = said_of("record", folder(tmp_path / "b", train=rows, validation=rows))
    assert "train.jsonl has no column 'answers'; it has passage, query, entities." in said


def test_a_test_labelled_in_part_is_refused_and_one_without_labels_kept(tmp_path):
    splits = {"train": SENTENCES, "validation": SENTENCES[:8]}
    said = said_of("sst2", folder(tmp_path / "a", **splits, test=[*SENTENCES[:20], {"sentence": "x", "label": -1}]))
    assert "The test split of a " in said and "test.jsonl, row 20, column 'label'" in said and "wholly" in said
    for name, blind in (("b", {"sentence": "x", "label": -1}), ("c", {"sentence": "x"})):
        task = load_task("sst2", dataset=folder(tmp_path / name, **splits, test=[blind] * 3))
        assert len(task.rows["test"]) == 3 and task.split().test == task.rows["validation"]


def option(paragraph, question, answer, **label):
    """A row of MultiRC as the Hub has it."""
    idx = {"paragraph": paragraph, "question": question, "answer": answer}
    texts = {"paragraph": f"text {paragraph}", "question": f"why {question}?", "answer": f"for {answer}"}
    return texts | {"idx": idx} | label


def test_multirc_names_the_option_without_a_label(tmp_path):
    whole = [option(p, q, a, label=a) for p in range(4) for q in range(2) for a in range(2)]
    bare = [row | {"label": -1} for row in whole]
    said = said_of("multirc", folder(tmp_path / "a", train=[*whole[:6], *bare[6:]], validation=whole))
    assert "train.jsonl, row 6, column 'label'" in said
    said = said_of("multirc", folder(tmp_path / "b", train=[*whole[:7], bare[7]], validation=whole))
    assert "train.jsonl, row 7: column 'label'" in said and "paragraph 1, question 1" in said
    said = said_of("multirc", folder(tmp_path / "c", train=whole, validation=whole, test=[*bare[:4], *whole[4:]]))
    assert "test.jsonl, row 0, column 'label'" in said and "wholly or not at all" in said
    assert len(load_task("multirc", dataset=folder(tmp_path / "d", train=whole, validation=whole, test=bare)).rows) == 3


# Groups, layouts and what is read of them


def test_the_questions_of_a_paragraph_stay_together(tmp_path):
    rows = [option(p, q, a, label=a) for p in range(30) for q in range(3) for a in range(2)]
    split = load_task("multirc", dataset=folder(tmp_path, train=rows, validation=rows[:6])).split()
    train, selection = ({row["paragraph"] for row in part} for part in (split.train, split.validation))
    assert not train & selection and len(train | selection) == 30
    assert len(split.train) == 3 * len(train) and len(split.validation) == 3 * len(selection)


@pytest.mark.parametrize(("question", "word"), [("cause", "because"), ("effect", "so")])
def test_copa_goes_on_from_a_cause_with_because_and_from_an_effect_with_so(question, word, tiny):
    tokenizer = tiny().tokenizer
    row = {"premise": "It rained.", "choice1": "He got wet.", "choice2": "He ate.", "question": question, "label": 1}
    (inputs,) = TASKS["copa"].encode([row], tokenizer, Layout(64))
    assert [one.inputs["input_ids"].tolist() for one in inputs] == [
        tokenizer(f"It rained. {word}", row[choice])["input_ids"] for choice in ("choice1", "choice2")
    ]
    assert [one.labels for one in inputs] == [0, 1]


def test_record_s_passage_is_read_without_its_marks(tiny):
    tokenizer = tiny().tokenizer
    row = {"passage": "Ann met Bo.\n@highlight\nBo won\n@highlight\nAnn lost", "query": "@placeholder won"}
    row |= {"entities": ["Ann", "Bo"], "answers": ["Bo"]}
    (inputs,) = TASKS["record"].encode([row], tokenizer, Layout(128))
    assert [one.inputs["input_ids"].tolist() for one in inputs] == [
        tokenizer("Ann met Bo.\nBo won\nAnn lost", f"{name} won")["input_ids"] for name in ("Ann", "Bo")
    ]
    assert [one.labels for one in inputs] == [0, 1]


def test_wsc_s_stars_stand_around_the_pronoun(tiny):
    tokenizer = tiny().tokenizer
    row = {"text": "Mark said that he slept.", "span1_index": 0, "span2_index": 3, "span1_text": "Mark"}
    row |= {"span2_text": "he", "label": 1}
    ((one,),) = TASKS["wsc"].encode([row], tokenizer, Layout(64, name="stars"))
    assert one.inputs["input_ids"].tolist() == tokenizer("Mark said that *he* slept.", "Mark")["input_ids"]


# Numbers that stand for tags

HUB_CONLL03 = "O B-PER I-PER B-ORG I-ORG B-LOC I-LOC B-MISC I-MISC"
TNER_CONLL03 = "O B-ORG B-MISC B-PER I-PER B-LOC I-ORG I-MISC I-LOC"


@pytest.mark.parametrize(("column", "order"), [("ner_tags", HUB_CONLL03), ("tags", TNER_CONLL03)])
def test_bare_numbers_of_conll03_are_read_in_the_order_of_their_column(column, order, tmp_path):
    order = order.split()
    # Each tag by itself, what goes on behind what it goes on from.
    rows = [["B" + tag[1:], tag] if tag[0] == "I" else [tag] for tag in order]
    numbers = [{"tokens": ["x"] * len(tags), column: [order.index(tag) for tag in tags]} for tags in rows]
    task = load_task("conll03", dataset=folder(tmp_path, train=numbers, validation=numbers))
    assert [row["tags"] for row in task.rows["train"]] == rows


@pytest.mark.parametrize(("name", "column"), [("wikiann", "tags"), ("conll04", "ner_tags"), ("ontonotes5", "ner_tags")])
def test_bare_numbers_of_an_unknown_order_are_refused_and_texts_are_not(name, column, tmp_path):
    numbers = [{"tokens": ["Ann", "ran"], column: [1, 0]}]
    said = said_of(name, folder(tmp_path / "a", train=numbers, validation=numbers))
    assert "row 0: column" in said and f"{column!r} has numbers" in said and "which tags they stand for" in said
    tag = f"B-{TASKS[name].types[0]}"
    texts = [{"tokens": ["Ann", "ran"], column: [tag, "O"]}]
    task = load_task(name, dataset=folder(tmp_path / "b", train=texts, validation=texts))
    assert task.rows["train"][0]["tags"] == [tag, "O"]


# Broken rows


def span(start, end, kind):
    return {"start": start, "end": end, "type": kind}


@pytest.mark.parametrize(
    "entities",
    [
        [span(0, 2, "Peop"), span(1, 3, "Peop")],
        [span(0, 2, "Peop"), span(0, 2, "Org")],
        [span(0, 3, "Peop"), span(1, 2, "Org")],
        [span(1, 2, "Org"), span(0, 3, "Peop")],
    ],
)
def test_entities_that_overlap_are_refused(entities, tmp_path):
    good = {"tokens": ["Ann", "Li", "met", "Bo"], "entities": [span(0, 2, "Peop"), span(2, 3, "Org")]}
    said = said_of("conll04", folder(tmp_path, train=[good, good | {"entities": entities}], validation=[good]))
    assert "train.jsonl, row 1: column 'entities'" in said and "overlaps another" in said


@pytest.mark.parametrize("idx", [5, None, {"passage": 1}, {"passage": 1, "query": None}])
def test_record_wants_both_numbers_of_a_query(idx, tmp_path):
    row = {"passage": "Ann met Bo.", "query": "@placeholder met Bo", "entities": ["Ann", "Bo"], "answers": ["Ann"]}
    said = said_of("record", folder(tmp_path, train=[row, row | {"idx": idx}], validation=[row]))
    assert "train.jsonl, row 1: column 'idx' must hold passage and query" in said
    assert "idx" not in TASKS["record"].prepare(row | {"idx": idx})  # whoever asks need not number


def test_record_takes_each_entity_of_an_example_once_and_data_as_they_are(tmp_path):
    row = {
        "passage": "Ann met Bo.",
        "query": "@placeholder met Bo",
        "entities": ["Ann", "Ann", "Bo"],
        "answers": ["Ann"],
    }
    task = load_task("record", dataset=folder(tmp_path, train=[row], validation=[row]))
    assert task.rows["train"][0]["entities"] == row["entities"]
    with pytest.raises(DataError, match="'entities' has a text twice"):
        task.family.prepare(row)


ROLES = {"tokens": ["Ann", "gave", "it"], "predicate": 1, "tags": ["B-ARG0", "B-V", "B-ARG1"]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ROLES | {"tags": None}, "row 1: column 'tags' must be a list"),
        (ROLES | {"tags": 3}, "row 1: column 'tags' must be a list"),
        (ROLES | {"tags": [0, 1, 2]}, "row 1: column 'tags' must be a list"),
        (ROLES | {"tags": [None]}, "row 1: column 'tags' must be a list"),
        (ROLES | {"tags": [["B-V"]]}, "row 1: column 'tags' must be a list"),
        (ROLES | {"tags": ["B-", "B-V", "O"]}, "row 1, word 0: the tag 'B-' of column 'tags'"),
        (ROLES | {"tags": ["I- ", "B-V", "O"]}, "row 1, word 0: the tag 'I- ' of column 'tags'"),
        (ROLES | {"tags": ["ARG0", "B-V", "O"]}, "row 1, word 0: the tag 'ARG0' of column 'tags'"),
        (ROLES | {"predicate": True}, "row 1: column 'predicate' is True"),
        ({"silent": True}, "row 1, has no column 'tokens'; it has silent"),
        ({"silent": True, "tokens": None}, "row 1: column 'tokens' must be a list of words"),
        ({"tokens": ["a"], "predicate": 0}, "row 1, has no column 'tags'; it has tokens, predicate"),
    ],
)
def test_broken_roles_of_an_unlisted_set_are_named(row, words, tmp_path, capsys):
    path = folder(tmp_path / "x", train=[ROLES, row], validation=[ROLES])
    said = said_of("ewt_srl", path)
    assert words in said and "train.jsonl, row 1" in said
    command = ["run", "--task", "ewt_srl", "--method", "pt2", "--backbone", "tiny", "--dataset", str(path)]
    assert main([*command, "--out", str(tmp_path / "o")]) == 1
    assert capsys.readouterr().err == f"ptv2lib: {said}\n"


HALF = "a \ud83d b"  # JSON can write it down, and no tokenizer reads it


@pytest.mark.parametrize(
    ("name", "example", "column"),
    [
        ("record", {"passage": "a", "query": "@placeholder b", "entities": ["c", HALF]}, "entities"),
        ("multirc", {"paragraph": "a", "question": "b", "answers": ["c", HALF]}, "answers"),
        ("conll03", {"text": HALF}, "text"),
        ("conll03", {"tokens": ["c", HALF]}, "tokens"),
        ("ewt_srl", {"tokens": ["c", HALF], "predicate": 0}, "tokens"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_in_an_example(name, example, column):
    with pytest.raises(DataError, match=f"^The example.*: column '{column}' has half of a surrogate pair"):
        TASKS[name].prepare(example)


@pytest.mark.parametrize("column", ["sentence", "title", "id"])
def test_other_texts_are_other_rows_whatever_their_column_is_called(column, tmp_path):
    family = Classification("mine", (column,), ("no", "yes"))
    rows = [{column: text, "label": 0, "idx": k} for k, text in enumerate(["a", "b", "a"])]
    task = load_task(family, dataset=folder(tmp_path, train=rows, validation=rows))
    assert family.peculiar(task.rows["train"]) == {"repeated": 1, "empty": 0}


def test_words_keep_their_marks():
    text = "José Núñez, हिन्दी!"
    for form in ("NFC", "NFD"):
        given = unicodedata.normalize(form, text)
        row = TASKS["conll03"].prepare({"text": given})
        assert row["tokens"] == [unicodedata.normalize(form, word) for word in ("José", "Núñez", ",", "हिन्दी", "!")]
        assert [given[start:end] for start, end in row["offsets"]] == row["tokens"]


def test_a_word_of_which_nothing_is_left_loses_its_span():
    rows = [{"tokens": ["Ann", "\u200b", "left"], "tags": ["B-PER", "B-ORG", "O"]}]
    ((one,),) = TASKS["conll03"].encode(rows, load_backbone("minilm").tokenizer, Layout(256))
    assert (one.cut, one.lost) == (False, 1)


def test_predictions_say_what_was_cut():
    task = load_task("conll03", source="miniature")
    model = build_model(task, backbone="tiny", prompt_length=2)
    with pytest.warns(UserWarning, match=f"1 of 2 examples are longer than {model.max_length} pieces"):
        model.predict([{"text": "Ann left."}, {"text": "word " * 600}])


def test_the_tasks_of_the_page_on_data_sets_read_the_rows_beside_them(tmp_path, capsys):
    page = Path(__file__).parent.parent.joinpath("book/data_sets.md").read_text()
    blocks = re.findall(r"```(python|json)\n(.*?)```", page, re.DOTALL)
    named: dict = {}
    exec(next(code for kind, code in blocks if kind == "python" and "import ptv2lib" in code), named)
    families = [value for value in named.values() if isinstance(value, TaskFamily)]
    rows = [json.loads(line) for line in next(code for kind, code in blocks if kind == "json").splitlines()]
    assert {type(family).__name__ for family in families} == {
        *("Classification", "MultipleChoice", "Tagging", "QuestionAnswering", "SemanticRoles")
    }
    for family, row in zip(families, rows, strict=True):
        task = load_task(family, dataset=folder(tmp_path / family.name, train=[row], validation=[row], test=[row]))
        task.show(1, backbone="tiny")
        inputs = len(family.choices) if family.head == "choice" else 1
        assert f"row 0: {inputs} input" in capsys.readouterr().out
        assert len(build_model(task, backbone="tiny", prompt_length=2).predict([row])) == 1

"""What the small files of the other tests promise holds on whole real data sets, found through PTV2_DATA.

One folder a set, named as `book/measure.py` names them. Nothing here looks at a score of a trained model.
"""

import os
import warnings
from pathlib import Path

import measure
import pandas
import pytest
from test_alignment import one_hot, perfect

import ptv2lib as pt
from ptv2lib.tasks.question_answering import LONGEST_ANSWER

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("PTV2_DATA" not in os.environ, reason="PTV2_DATA names no folder of data sets"),
]

WHOLE = ("sst2", "rte", "cb", "boolq", "copa", "wsc", "multirc", "conll04", "wikiann")
PARTS = ("squad", "squad_v2")
FEW = 3000  # rows of each split that are encoded


def loaded(name):
    """The task, and what its loading said."""
    place = Path(os.environ["PTV2_DATA"], measure.FOLDERS.get(name, name))
    if not place.is_dir():
        pytest.skip(f"PTV2_DATA has no folder {place.name!r}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = pt.load_task(name, dataset=place)
    return task, [str(one.message) for one in said]


def encoded(task):
    """Rows of every split, each with the inputs that the starter encoder reads."""
    rows = [row for rows in task.rows.values() for row in rows[:FEW]]
    return zip(rows, pt.build_model(task, backbone="minilm", method="probe").encode(rows), strict=True)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_set_has_the_official_number_of_rows(name):
    task, said = loaded(name)
    assert not said and not task.notes


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_set_says_so_once(name):
    task, said = loaded(name)
    assert len(said) == 1 and "official" in said[0] and len(task.notes) == 1


@pytest.mark.parametrize("name", ["sst2", "rte", "wsc"])
def test_repeated_rows_are_counted_and_kept(name):
    task, _ = loaded(name)
    files = pandas.read_parquet(Path(os.environ["PTV2_DATA"], name, "train.parquet"))
    repeated = int(files.drop(columns="idx").duplicated().sum())
    assert task.family.peculiar(task.rows["train"])["repeated"] == repeated > 0
    assert len(task.rows["train"]) == len(files)


@pytest.mark.parametrize("name", ["conll04", "wikiann", "ewt_srl"])
def test_gold_tags_come_back(name):
    task, _ = loaded(name)
    labels = len(task.family.labels)
    for row, (one,) in encoded(task):
        found, kept = task.family.decode([perfect(one, labels)], [one], row), len(set(one.places[one.places >= 0]))
        assert one.cut == (kept < len(row["tags"]))
        assert found == row["tags"][:kept] + ["O"] * (len(row["tags"]) - kept)


@pytest.mark.parametrize("name", PARTS)
def test_gold_answers_come_back_or_are_counted_as_lost(name):
    task, _ = loaded(name)
    for row, windows in encoded(task):
        starts, texts = row["answers"]["answer_start"], row["answers"]["text"]
        holding = [one for one in windows if one.labels != (0, 0)]
        assert windows[0].lost == bool(texts and not holding)
        short = [one for one in holding if one.labels[1] - one.labels[0] < LONGEST_ANSWER]
        if short:
            found = task.family.decode(one_hot(short), short, row)
            # A piece may hold more than the answer: "1980" of "1980s".
            assert found["start"] <= starts[0] and found["end"] >= starts[0] + len(texts[0])
            assert found["text"] == row["context"][found["start"] : found["end"]]


@pytest.mark.parametrize("name", ["copa", "cb", "wsc", "rte", "sst2"])
def test_the_unlabelled_test_can_be_answered_and_never_scored(name, tmp_path):
    task, _ = loaded(name)
    model = pt.build_model(task, backbone="tiny", method="pt2", prompt_length=2)
    written = pt.write_predictions(model, task, tmp_path / "answers")
    lines = written.read_text(encoding="utf-8").splitlines()
    head = name == "sst2"  # GLUE's files have one, SuperGLUE's have none
    assert len(lines) - head == len(task.rows["test"])
    split = task.split()
    assert split.test == task.rows["validation"] and not task.family.labelled(task.rows["test"])


@pytest.mark.parametrize("name", ["boolq", "multirc"])
def test_a_cut_takes_of_the_passage_and_never_of_the_question(name):
    task, _ = loaded(name)
    rows = task.rows["validation"][:300]
    model = pt.build_model(task, backbone="minilm", method="probe")
    cut = {}
    for length in (128, 512):
        model.max_length = length
        inputs = [(row, one) for row, several in zip(rows, model.encode(rows), strict=True) for one in several]
        cut[length] = sum(one.cut for _, one in inputs)
        for row, one in inputs:
            asked = model.tokenizer(row["question"], add_special_tokens=False)["input_ids"]
            ids = one.inputs["input_ids"].tolist()
            assert len(ids) <= length
            assert any(ids[k : k + len(asked)] == asked for k in range(len(ids)))
    assert cut[128] > cut[512]

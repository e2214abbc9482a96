"""The store of tokenized inputs gives back exactly what was made, is never stale, and never in the way."""

import gc
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tasks import SENTENCES, folder

import ptv2lib as pt
from ptv2lib import encoding
from ptv2lib.encoding import Encoded, Layout, stored
from ptv2lib.errors import OutputError
from ptv2lib.tasks import TASKS, load_task
from ptv2lib.tasks.classification import Classification


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    """A store of its own that keeps even a single row."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(encoding, "STORED_FROM", 1)
    return tmp_path / "cache" / "ptv2lib"


def plain(rows):
    """Everything an encoding holds, with the kinds of its numbers."""

    def array(value):
        return value if value is None else (value.dtype.str, value.tolist())

    def label(value):
        return array(value) if isinstance(value, np.ndarray) else (type(value), value)

    return [
        [({k: array(v) for k, v in one.inputs.items()}, label(one.labels), one.cut, one.lost, array(one.places)) for one in row]
        for row in rows
    ]  # fmt: skip


def never():
    raise AssertionError("made again")


PASSAGE = "Ann gave Bo two books in Oslo , and then she left for the old mill by the river ."
WIC = {
    "word": "left",
    "sentence1": "She left.",
    "sentence2": "On the left.",
    "start1": 4,
    "end1": 8,
    "start2": 7,
    "end2": 11,
    "idx": 0,
}
ASKED = {"id": "0", "title": "", "context": PASSAGE, "question": "Where?"}
ROWS = {
    "sst2": [{"sentence": "good", "label": 1}, {"sentence": PASSAGE, "label": 0}],
    "rte": [{"premise": PASSAGE, "hypothesis": "Ann left.", "label": 1}],
    "wic": [WIC | {"label": 1}, WIC | {"label": 0}],
    "copa": [{"premise": PASSAGE, "choice1": "a", "choice2": "b c", "question": "cause", "label": k} for k in (0, 1)],
    "multirc": [{"paragraph": PASSAGE, "question": "Who?", "answers": list("abc"), "labels": [0, 1, 1]}]
    + [{"paragraph": PASSAGE, "question": "What?", "answers": ["x"], "labels": [0]}],
    "record": [{"passage": PASSAGE, "query": "@placeholder left", "entities": ["Ann", "Bo"], "answers": ["Ann"]}],
    "conll03": [{"tokens": PASSAGE.split(), "tags": ["B-PER", "O", "B-PER", *["O"] * 17]}, {"tokens": ["x"], "tags": ["O"]}],
    "conll05": [{"tokens": PASSAGE.split(), "predicate": 1, "tags": ["B-A0", "B-V", "B-A2", "B-A1", "I-A1", *["O"] * 15]}],
    "squad": [ASKED | {"answers": {"text": ["Oslo"], "answer_start": [25]}}],
    "squad_v2": [ASKED | {"answers": {"text": texts, "answer_start": [9][: len(texts)]}} for texts in ([], ["Bo"])],
}  # fmt: skip
HIDDEN = {  # what a row without gold answer has instead
    "sst2": {"label": -1},
    "copa": {"label": -1},
    "multirc": {"labels": [-1]},
    "record": {"answers": []},
    "squad": {"answers": None},
}


def hidden(name):
    """The rows of a task without their gold answers."""
    change = HIDDEN[name]
    if name == "multirc":
        return [row | {"labels": [-1] * len(row["answers"])} for row in ROWS[name]]
    return [row | change for row in ROWS[name]]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("length", [48, 512])
def test_what_was_made_comes_back_exactly(name, length, tiny, store):
    family, tokenizer, layout = TASKS[name], tiny().tokenizer, Layout(length, 8)
    sets = [ROWS[name]] + ([hidden(name)] if name in HIDDEN else [])
    for rows in sets:
        made = family.encode(rows, tokenizer, layout)
        first = stored(lambda made=made: made, rows, family, layout)
        assert plain(first) == plain(made)
        assert plain(stored(never, rows, family, layout)) == plain(made)
    assert len(list(store.iterdir())) == len(sets)


@pytest.mark.parametrize("name", ["sst2", "copa", "multirc", "record"])
def test_rows_with_and_without_gold_may_stand_together(name, tiny):
    family, layout = TASKS[name], Layout(64, 8)
    rows = [*ROWS[name], *hidden(name)]
    made = family.encode(rows, tiny().tokenizer, layout)
    stored(lambda: made, rows, family, layout)
    assert plain(stored(never, rows, family, layout)) == plain(made)


KEYS = itertools.count()


@st.composite
def encodings(draw):
    """Encodings of any shape, all with the same parts."""
    draws = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind, marks, places = (
        draw(st.sampled_from(["none", "one", "pair", "pieces"])),
        draw(st.booleans()),
        draw(st.booleans()),
    )

    def one(length):
        numbers = lambda *shape: draws.integers(-100, 30000, shape, dtype=np.int32)  # noqa: E731
        inputs = {"input_ids": numbers(length)} | ({"marks": numbers(length)} if marks else {})
        labels = {
            "none": None,
            "one": int(draws.integers(5)),
            "pair": (3, length),
            "pieces": numbers(length).astype(np.int64),
        }
        return Encoded(
            inputs,
            labels[kind],
            bool(draws.integers(2)),
            int(draws.integers(3)),
            numbers(length, 2) if places else None,
        )

    shape = draw(st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=5))
    return [[one(length) for length in row] for row in shape]


@settings(deadline=None, max_examples=50)
@given(made=encodings())
def test_any_shape_comes_back(made, tmp_path_factory):
    key = next(KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "any")
        patch.setattr(encoding, "STORED_FROM", 1)
        stored(lambda: made, [{"key": key}])
        assert plain(stored(never, [{"key": key}])) == plain(made)


def test_few_rows_are_not_kept(monkeypatch, store):
    monkeypatch.setattr(encoding, "STORED_FROM", 3)
    assert stored(list, [{}, {}]) == [] and not store.exists()


def simple(value):
    return [[Encoded({"input_ids": np.array([value])}, value, False)]]


def test_whatever_changes_is_made_anew():
    family, layout, rows = TASKS["sst2"], Layout(64), [{"sentence": "a", "label": 0}, {"sentence": "b", "label": 1}]
    kinds = [
        (rows, family, layout, "vocabulary"),
        (rows[::-1], family, layout, "vocabulary"),
        (rows[:1], family, layout, "vocabulary"),
        ([rows[0] | {"sentence": "a "}, rows[1]], family, layout, "vocabulary"),
        ([rows[0] | {"label": 1}, rows[1]], family, layout, "vocabulary"),
        (rows, TASKS["cb"], layout, "vocabulary"),
        (rows, replace(family, cut="only_first"), layout, "vocabulary"),
        (rows, replace(family, labels=("x", "y")), layout, "vocabulary"),
        (rows, family, Layout(65), "vocabulary"),
        (rows, family, Layout(64, 32), "vocabulary"),
        (rows, family, Layout(64, name="words"), "vocabulary"),
        (rows, family, Layout(64, segments=False), "vocabulary"),
        (rows, family, layout, "another vocabulary"),
    ]
    for number, (some, *what) in enumerate(kinds):
        assert stored(lambda number=number: simple(number), some, *what)[0][0].labels == number
    for number, (some, *what) in enumerate(kinds):
        assert stored(never, some, *what)[0][0].labels == number


def test_a_damaged_entry_is_made_again(store):
    made = [[Encoded({"input_ids": np.arange(4, dtype=np.int32)}, (1, 2), True, 1, np.zeros((4, 2), np.int32))]]
    stored(lambda: made, [{}])
    (path,) = store.iterdir()
    whole = path.read_bytes()
    draw, wrong = random.Random(0), []
    damaged = [
        b"",
        b"x" * 99,
        whole[:-1],
        whole + b"x" * 30_000,
        *(whole[: draw.randrange(len(whole))] for _ in range(30)),
    ]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :] for at in range(0, len(whole), 5)
    ]
    for content in damaged:
        path.write_bytes(content)
        try:
            if plain(stored(lambda: made, [{}])) != plain(made):
                wrong.append("other content")
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
    assert not wrong, f"{len(wrong)} of {len(damaged)}: {sorted(set(wrong))[:8]}"


def test_other_files_in_the_place_of_an_entry_are_made_again(store):
    stored(lambda: simple(1), [{}])
    (path,) = store.iterdir()
    for arrays in (
        {"x": np.zeros(3)},
        {"per_row": np.array([3]), "length": np.array([1]), "cut": np.array([0]), "lost": np.array([0])},
    ):
        np.savez(path, **arrays)
        assert stored(lambda: simple(1), [{}])[0][0].labels == 1
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)
    assert stored(lambda: simple(1), [{}])[0][0].labels == 1
    assert stored(never, [{}])[0][0].labels == 1


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(monkeypatch, tmp_path, store):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file")
    assert [stored(lambda: simple(7), [{}])[0][0].labels for _ in range(2)] == [7, 7]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for error in (
        OSError(28, "No space left on device"),
        PermissionError(13, "Permission denied"),
        OutputError("cannot"),
    ):

        def full(*_, error=error):
            raise error

        monkeypatch.setattr(encoding, "write_whole", full)
        assert stored(lambda: simple(8), [{}])[0][0].labels == 8
    assert list(store.iterdir()) == []


def test_a_maker_that_fails_leaves_nothing(store):
    with pytest.raises(AssertionError, match="made again"):
        stored(never, [{}])
    assert not store.exists() or not list(store.iterdir())


# With a model


@pytest.fixture
def calls(monkeypatch):
    """How often rows of texts were tokenized."""
    made, original = [], Classification.encode

    def spy(self, rows, *rest):
        made.append(len(rows))
        return original(self, rows, *rest)

    monkeypatch.setattr(Classification, "encode", spy)
    return made


@pytest.fixture
def task(tmp_path):
    long = [row | {"sentence": row["sentence"] * 9} for row in SENTENCES]
    return load_task("sst2", dataset=folder(tmp_path / "data", train=long, validation=long[:8], test=long[8:12]))


@pytest.mark.filterwarnings("ignore:.*official set")
def test_a_second_run_tokenizes_nothing(task, calls):
    """Also where texts were cut, and the first run's tokenizer was used in between."""
    for run in range(2):
        model = pt.build_model(task, backbone="tiny", prompt_length=2)
        model.max_length = 32
        for part in ("train", "validation", "test"):
            model.encode(task.rows[part], store=True)
        assert calls == [40, 8, 4], f"run {run}"


@pytest.mark.filterwarnings("ignore:.*official set")
def test_a_family_written_elsewhere_is_never_served_from_the_store(task, store, monkeypatch):
    class Own(Classification):
        pass

    own = replace(task, family=Own("own", task.family.texts, task.family.labels))
    model = pt.build_model(own, backbone="tiny", prompt_length=2)
    before = model.encode(task.rows["test"], store=True)
    monkeypatch.setattr(Own, "pair", lambda self, row, layout: ["other words"], raising=False)
    assert plain(model.encode(task.rows["test"], store=True)) != plain(before)
    assert not list(store.glob("*"))


@pytest.mark.filterwarnings("ignore:.*official set")
def test_a_model_s_own_cut_and_tokenizer_are_part_of_the_key(task, calls):
    rows = task.rows["test"]
    first = pt.build_model(task, backbone="tiny", prompt_length=2)
    whole = first.encode(rows, store=True)
    first.max_length = 32
    cut = first.encode(rows, store=True)
    assert [len(one) for (one,) in cut] == [32] * 4 and all(len(one) > 32 for (one,) in whole)
    other = pt.build_model(task, backbone="tiny", prompt_length=2)
    other.tokenizer.add_tokens(["film"])
    assert plain(other.encode(rows, store=True)) != plain(whole)
    assert len(calls) == 3
    assert plain(pt.build_model(task, backbone="tiny", prompt_length=2).encode(rows, store=True)) == plain(whole)
    assert len(calls) == 3


def test_the_collector_rests_while_texts_are_encoded_and_runs_again_after_an_error(monkeypatch):
    family, seen = TASKS["sst2"], []
    monkeypatch.setattr("ptv2lib.tasks.classification.tokenize", lambda *_, **__: seen.append(gc.isenabled()) or 1 / 0)
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            with pytest.raises(ZeroDivisionError):
                family.encode([{"sentence": "x"}], None, Layout(16))
            assert gc.isenabled() == on
        finally:
            gc.enable()
    assert seen == [False, False]

"""Predictions are written in the form that each data set's owner documents, whole or not at all."""

import json
import os
import random

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formats import GAVE, LEFT, SAID, multirc
from test_tasks import SENTENCES, folder

import ptv2lib as pt
from ptv2lib.errors import BadOption, DataError, OutputError, PromptMismatch
from ptv2lib.formats import bracket_tags, role_rows
from ptv2lib.metrics import spans
from ptv2lib.tasks import TASKS, load_task
from ptv2lib.tasks.registry import family_from, family_to

pytestmark = pytest.mark.filterwarnings("ignore:.*official set")


def objects(text):
    """JSON lines, each ended."""
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# Sequences and choices


def test_glue_writes_index_and_prediction():
    rows = [{"idx": 0}, {"idx": 1}, {"idx": 2}]
    assert TASKS["sst2"].submission([1, 0, 1], rows) == "index\tprediction\n0\t1\n1\t0\n2\t1\n"
    assert TASKS["mnli"].submission([0, 1, 2], rows) == (
        "index\tprediction\n0\tentailment\n1\tneutral\n2\tcontradiction\n"
    )


SUPERGLUE = {
    "rte": ["entailment", "not_entailment"],
    "cb": ["entailment", "contradiction", "neutral"],
    "boolq": ["false", "true"],
    "wic": ["false", "true"],
    "wsc": ["False", "True"],
    "copa": [0, 1],
}


@pytest.mark.parametrize("name", SUPERGLUE)
def test_superglue_writes_lines_of_json(name):
    words = SUPERGLUE[name]
    rows = [{"idx": 10 + number} for number in range(len(words))]
    expected = [{"idx": 10 + number, "label": word} for number, word in enumerate(words)]
    assert objects(TASKS[name].submission(list(range(len(words))), rows)) == expected


def test_multirc_writes_paragraphs_of_questions_of_answers(tmp_path):
    second = multirc(False) | {"idx": 3}
    task = load_task("multirc", dataset=folder(tmp_path, test=[multirc(False), second]))
    told = task.family.submission([[1, 0], [0], [0, 1], [1]], task.rows["test"])
    assert objects(told) == [
        {
            "idx": paragraph,
            "passage": {
                "questions": [
                    {"idx": 4, "answers": [{"idx": 8, "label": first}, {"idx": 9, "label": 1 - first}]},
                    {"idx": 5, "answers": [{"idx": 10, "label": 1 - first}]},
                ]
            },
        }
        for paragraph, first in ((2, 1), (3, 0))
    ]


def test_record_writes_the_text_of_the_entity():
    rows = [{"idx": {"passage": 1, "query": 6}}, {"idx": {"passage": 1, "query": 7}}]
    assert objects(TASKS["record"].submission(["Ann", 'Zoë "Z"'], rows)) == [
        {"idx": 6, "label": "Ann"},
        {"idx": 7, "label": 'Zoë "Z"'},
    ]


# Answers


def test_squad_writes_one_object_from_id_to_text():
    rows = [{"id": "56be"}, {"id": "57aa"}, {"id": "58cc"}]
    said = [
        {"text": "Oslo", "no_answer": -2.0},
        {"text": "in Çağ", "no_answer": 0.5},
        {"text": "tie", "no_answer": 0.0},
    ]
    assert json.loads(TASKS["squad"].submission(said, rows)) == {"56be": "Oslo", "57aa": "in Çağ", "58cc": "tie"}
    assert json.loads(TASKS["squad_v2"].submission(said, rows)) == {"56be": "Oslo", "57aa": "", "58cc": "tie"}


# Columns


def test_tagging_writes_what_conlleval_reads():
    rows = [{"tokens": ["Ann", "left"], "tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "tags": ["B-LOC"]}]
    told = TASKS["conll03"].submission([["B-PER", "O"], ["B-ORG"]], rows)
    assert told == "Ann B-PER B-PER\nleft O O\n\nOslo B-LOC B-ORG\n\n"


def test_roles_are_written_as_props():
    told = TASKS["conll05"].submission([GAVE["tags"], LEFT["tags"], SAID["tags"]], [GAVE, LEFT, SAID])
    blocks = [[line.split() for line in block.splitlines()] for block in told.strip("\n").split("\n\n")]
    assert blocks[0] == [
        ["-", "(A0*)", "(A0*)"],
        ["gave", "(V*)", "*"],
        ["-", "(A2*)", "*"],
        ["-", "(A1*)", "*"],
        ["-", "*", "*"],
        ["left", "*", "(V*)"],
    ]
    column = ["(A1*", "*)", "*", "(A0*)", "(V*)", "*", "(C-A1*", "*)"]
    assert blocks[1] == [["said" if cell == "(V*)" else "-", cell] for cell in column]
    assert told.endswith("\n\n")


def test_words_with_white_space_or_without_a_sign_keep_their_line_in_columns():
    row = {"tokens": ["New York", "", "a\nb", "\N{NO-BREAK SPACE}", "x"], "tags": ["B-LOC", "O", "O", "O", "O"]}
    told = TASKS["conll03"].submission([row["tags"]], [row])
    assert told == "New_York B-LOC B-LOC\n_ O O\na_b O O\n_ O O\nx O O\n\n"
    row = {"tokens": ["took off", ""], "predicate": 0, "tags": ["B-V", "O"]}
    assert TASKS["conll05"].submission([row["tags"]], [row]) == "took_off\t(V*)\n-\t*\n\n"
    row = {"tokens": ["a", ""], "predicate": 1, "tags": ["B-A0", "B-V"]}
    assert TASKS["conll05"].submission([row["tags"]], [row]) == "-\t(A0*)\n_\t(V*)\n\n"


def documents(path, sentences):
    """CoNLL-2012 as the Hub's parquet branch has it: a row is a document."""
    text = datasets.Value("string")
    sentence = {
        "part_id": datasets.Value("int32"),
        "words": datasets.List(text),
        "predicate_lemmas": datasets.List(text),
        "predicate_framenet_ids": datasets.List(text),
        "srl_frames": datasets.List({"verb": text, "frames": datasets.List(text)}),
    }
    features = datasets.Features({"document_id": text, "sentences": datasets.List(sentence)})
    made = datasets.Dataset.from_list([{"document_id": "nw/x/00/x_0001", "sentences": sentences}], features=features)
    for split in ("train", "validation"):
        (path / split).mkdir(parents=True)
        made.to_parquet(path / split / "0000.parquet")
    return path


HUB_SENTENCES = [
    {
        "part_id": 0,
        "words": ["They", "were", "running", "and", "fell"],
        "predicate_lemmas": [None, "be", "run", None, None],
        "predicate_framenet_ids": [None, "03", "02", None, None],
        "srl_frames": [
            {"verb": "were", "frames": ["O", "B-V", "O", "O", "O"]},
            {"verb": "running", "frames": ["B-ARG0", "O", "B-V", "O", "O"]},
            {"verb": "fell", "frames": ["B-ARG1", "O", "O", "O", "B-V"]},
        ],
    },
    {
        "part_id": 0,
        "words": ["Nothing"],
        "predicate_lemmas": [None],
        "predicate_framenet_ids": [None],
        "srl_frames": [],
    },
]


def test_the_hub_s_lemmas_are_written_as_verbs(tmp_path):
    task = load_task("conll12", dataset=documents(tmp_path, HUB_SENTENCES))
    rows = task.rows["validation"]
    assert [row.get("lemma") for row in rows] == ["be", "run", None]
    told = task.family.submission([row["tags"] for row in rows], rows)
    blocks = [[line.split() for line in block.splitlines()] for block in told.strip("\n").split("\n\n")]
    assert blocks == [
        [
            ["-", "*", "(ARG0*)", "(ARG1*)"],
            ["be", "(V*)", "*", "*"],
            ["run", "*", "(V*)", "*"],
            ["-", "*", "*", "*"],
            ["fell", "*", "*", "(V*)"],  # without a lemma the word stands for it
        ],
        [["-"]],
    ]


@pytest.mark.parametrize("lemmas", [["be"], "were running", 3])
def test_lemmas_that_do_not_stand_one_a_word_are_refused(lemmas, tmp_path):
    row = {"document_id": "x", "sentences": [HUB_SENTENCES[0] | {"predicate_lemmas": lemmas}]}
    with pytest.raises(DataError, match=r"train\.jsonl,? row 0.*sentences") as caught:
        load_task("conll12", dataset=folder(tmp_path, train=[row], validation=[row]))
    assert "\n" not in str(caught.value)


def test_a_lemma_that_is_no_text_is_refused(tmp_path):
    path = folder(tmp_path, train=[GAVE, GAVE | {"lemma": 3}], validation=[GAVE])
    with pytest.raises(DataError, match=r"train\.jsonl, row 1: column 'lemma' must be text, not 3"):
        load_task("conll05", dataset=path)


def joined(rows, told):
    """Props with the words put before them, as the shared task's files are pasted."""
    blocks = told.strip("\n").split("\n\n")
    words = [rows[0]["tokens"]]
    for before, row in zip(rows, rows[1:], strict=False):
        if row["tokens"] != before["tokens"] or row["predicate"] <= before["predicate"]:
            words.append(row["tokens"])
    assert len(blocks) == len(words)
    pasted = [
        "\n".join(f"{word} {line}" for word, line in zip(tokens, block.splitlines(), strict=True))
        for tokens, block in zip(words, blocks, strict=True)
    ]
    return "\n\n".join(pasted) + "\n"


def random_row(draw, tokens, predicate):
    """A predicate with well-formed tags."""
    roles = [role for role in TASKS["conll05"].roles if role not in ("V", "C-V")]
    tags, at = ["O"] * len(tokens), 0
    while at < len(tokens):
        size = draw.randint(1, 3)
        if predicate not in range(at, at + size) and draw.random() < 0.6:
            role = draw.choice(roles)
            tags[at : at + size] = [f"B-{role}"] + [f"I-{role}"] * (min(size, len(tokens) - at) - 1)
        at += size
    tags[predicate] = "B-V"
    return {"tokens": tokens, "predicate": predicate, "tags": tags}


def random_rows(seed):
    """Sentences with their predicates; some sentences stand there twice in a row, as in every corpus."""
    draw, rows = random.Random(seed), []
    for number in range(draw.randint(1, 4)):
        tokens = [
            draw.choice(["Ann", "gave", "two", ",", "(", "*", "left", ")"]) + str(number)
            for _ in range(draw.randint(1, 7))
        ]
        predicates = sorted(draw.sample(range(len(tokens)), draw.randint(1, min(3, len(tokens)))))
        for _ in range(draw.choice([1, 1, 2])):
            rows += [random_row(draw, tokens, predicate) for predicate in predicates]
    return rows


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_props_are_read_back_as_the_same_tags(seed, tmp_path_factory):
    rows = random_rows(seed)
    told = TASKS["conll05"].submission([row["tags"] for row in rows], rows)
    path = tmp_path_factory.getbasetemp() / "test.txt"
    read = role_rows(path, joined(rows, told))
    assert [{key: row[key] for key in ("tokens", "predicate", "tags")} for row in read] == rows


def test_a_sentence_that_stands_there_twice_stays_two():
    told = TASKS["conll05"].submission([GAVE["tags"], LEFT["tags"]] * 2, [GAVE, LEFT] * 2)
    assert (
        told.strip("\n").split("\n\n")
        == [TASKS["conll05"].submission([GAVE["tags"], LEFT["tags"]], [GAVE, LEFT]).strip("\n")] * 2
    )


@settings(deadline=None, max_examples=50)
@given(
    tags=st.lists(
        st.sampled_from(["O", "B-A0", "I-A0", "B-C-A0", "I-R-A1", "B-AM-TMP", "I-AM-TMP", "I-V"]),
        min_size=1,
        max_size=9,
    )
)
def test_whatever_a_model_says_is_written_as_the_spans_it_is_scored_by(tags):
    said = ["B-V", *tags]
    told = TASKS["conll05"].submission([said], [{"tokens": ["w"] * len(said), "predicate": 0}])
    column = [line.split()[1] for line in told.strip("\n").split("\n")]
    assert spans(bracket_tags(column, "x")) == spans(said)


# Files


OSLO = {"question": "Where ?", "answers": {"text": ["Oslo"], "answer_start": [9]}}
SQUAD = [OSLO | {"id": str(k), "title": f"t {k}", "context": f"Ann left Oslo {k} ."} for k in range(4)]
ROWS = {
    "sst2": SENTENCES[:12],
    "mnli": [{"premise": "a", "hypothesis": "b", "label": k % 3} for k in range(6)],
    "boolq": [{"question": "a", "passage": "b", "label": k % 2} for k in range(4)],
    "copa": [{"premise": "a", "choice1": "b", "choice2": "c", "question": "cause", "label": k % 2} for k in range(4)],
    "multirc": [multirc(True)],
    "record": [{"passage": "Ann met Bo", "query": "@placeholder met Bo", "entities": ["Ann", "Bo"], "answers": ["Ann"]}] * 4,
    "conll03": [{"tokens": ["Ann", "left"], "ner_tags": ["B-PER", "O"]}] * 4,
    "conll05": [GAVE, LEFT, SAID],
    "squad": SQUAD,
    "squad_v2": SQUAD,
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_tiny_model_writes_what_it_decodes(name, tmp_path):
    task = load_task(name, dataset=folder(tmp_path / "data", train=ROWS[name], validation=ROWS[name]))
    model = pt.build_model(task, backbone="tiny", prompt_length=2)
    path = pt.write_predictions(model, task, tmp_path / "new" / "folder" / "said.txt", split="validation", batch_size=3)
    rows = task.rows["validation"]
    assert path.read_text() == task.family.submission(model.decode(model.encode(rows), rows), rows)
    assert [file.name for file in path.parent.iterdir()] == ["said.txt"]


@pytest.fixture
def sentences(tmp_path):
    blind = [row | {"label": -1} for row in SENTENCES[:3]]
    path = folder(tmp_path / "data", train=SENTENCES[:12], validation=SENTENCES[:4], test=blind)
    task = load_task("sst2", dataset=path)
    return task, pt.build_model(task, backbone="tiny", prompt_length=2)


def test_the_test_without_labels_is_written_by_default(sentences, tmp_path):
    task, model = sentences
    told = pt.write_predictions(model, task, tmp_path / "SST-2.tsv").read_text().splitlines()
    assert told[0] == "index\tprediction" and [line.split("\t")[0] for line in told[1:]] == ["0", "1", "2"]
    assert {line.split("\t")[1] for line in told[1:]} <= {"0", "1"}


def test_an_unknown_split_or_another_task_is_refused(sentences, tmp_path):
    task, model = sentences
    with pytest.raises(BadOption, match="sst2 has no split 'dev' here; it has .*validation"):
        pt.write_predictions(model, task, tmp_path / "said.tsv", split="dev")
    other = load_task("conll03", dataset=folder(tmp_path / "other", train=ROWS["conll03"], validation=ROWS["conll03"]))
    with pytest.raises(BadOption, match="takes a loaded task, such as load_task.'sst2'., not 'sst2'"):
        pt.write_predictions(model, "sst2", tmp_path / "said.tsv")
    with pytest.raises(BadOption, match="'sst2' and the data set is 'conll03'"):
        pt.write_predictions(model, other, tmp_path / "said.tsv", split="train")
    assert not (tmp_path / "said.tsv").exists()


def test_a_file_appears_whole_or_not_at_all(sentences, tmp_path, monkeypatch):
    task, model = sentences
    path = tmp_path / "out" / "said.tsv"
    pt.write_predictions(model, task, path)
    before = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        pt.write_predictions(model, task, path, split="train")
    monkeypatch.undo()
    assert path.read_text() == before and [file.name for file in path.parent.iterdir()] == ["said.tsv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        pt.write_predictions(model, task, tmp_path / "file" / "said.tsv")


def test_a_folder_in_the_place_of_the_file_is_one_sentence(sentences, tmp_path):
    task, model = sentences
    (tmp_path / "said.tsv").mkdir()
    with pytest.raises(OutputError) as caught:
        pt.write_predictions(model, task, tmp_path / "said.tsv")
    assert "\n" not in str(caught.value)


# Prompts of tasks of one's own


OWN = {
    "mood": (
        pt.Classification("mood", ("text",), ("sad", "glad", "calm"), max_length=64),
        [{"text": f"day {k}", "label": ("sad", "glad", "calm")[k % 3]} for k in range(12)],
        {"text": "a day"},
    ),
    "pairs": (
        pt.Classification("pairs", ("one", "other"), ("no", "yes"), cut="only_second", macro=True),
        [{"one": f"a {k}", "other": "b", "label": k % 2} for k in range(12)],
        {"one": "a", "other": "b"},
    ),
    "endings": (
        pt.MultipleChoice("endings", "start", ("first", "second", "third")),
        [{"start": f"a {k}", "first": "b", "second": "c", "third": "d", "label": k % 3} for k in range(12)],
        {"start": "a", "first": "b", "second": "c", "third": "d"},
    ),
    "plants": (
        pt.Tagging("plants", ("TREE", "HERB")),
        [{"tokens": ["an", "oak", str(k)], "ner_tags": ["O", "B-TREE", "I-TREE"]} for k in range(12)],
        {"tokens": ["an", "elm"]},
    ),
    "cooking": (
        pt.QuestionAnswering("cooking", True),
        [row | {"id": f"{k}{row['id']}"} for k in range(3) for row in SQUAD],
        {"question": "Where ?", "context": "in Rome"},
    ),
    "frames": (pt.SemanticRoles("frames"), [GAVE, LEFT, SAID] * 4, {"tokens": ["Ann", "ran"], "predicate": 1}),
}


@pytest.mark.parametrize("name", OWN)
def test_a_prompt_of_a_task_of_one_s_own_needs_no_registration(name, tmp_path):
    family, rows, example = OWN[name]
    task = load_task(family, dataset=folder(tmp_path / "data", train=rows, validation=rows[:6], test=rows[:3]))
    model = pt.build_model(task, backbone="tiny", prompt_length=2)
    run = pt.train(model, task, pt.TrainingConfig(epochs=1, batch_size=8), output_dir=tmp_path / "run")
    assert run.metrics["test"][task.family.metric] >= 0 and name not in TASKS
    loaded = pt.load_prompt(tmp_path / "run" / "prompt")
    assert loaded.family == task.family
    assert loaded.predict([example]) == model.predict([example])
    told = [pt.write_predictions(one, task, tmp_path / "said").read_text() for one in (model, loaded)]
    assert told[0] == told[1]
    again = pt.train(loaded, task, pt.TrainingConfig(epochs=1, batch_size=8))
    assert again.trainable_parameters == run.trainable_parameters


@pytest.mark.parametrize("name", TASKS)
def test_every_family_survives_json(name):
    family = TASKS[name]
    assert family_from(json.loads(json.dumps(family_to(family)))) == family


def test_a_task_that_only_shares_a_name_is_written_as_before_after_loading():
    own = pt.Classification("sst2", ("text",), ("bad", "good"))
    assert family_from(json.loads(json.dumps(family_to(own)))) == own
    saved = family_to(TASKS["sst2"])
    del saved["hub_id"]  # as prompts were saved at first
    assert family_from(saved) == TASKS["sst2"]


def test_a_prompt_of_an_unknown_kind_is_refused(tmp_path):
    family, rows, _ = OWN["mood"]
    task = load_task(family, dataset=folder(tmp_path / "data", train=rows, validation=rows))
    pt.build_model(task, backbone="tiny", prompt_length=2).save_prompt(tmp_path / "prompt")
    path = tmp_path / "prompt" / "prompt.json"
    saved = json.loads(path.read_text())
    for broken in ({"family": "Poetry"}, {"labels": None}, {"texts": 3}, {"name": None}):
        path.write_text(json.dumps(saved | {"task": saved["task"] | broken}))
        with pytest.raises(PromptMismatch) as caught:
            pt.load_prompt(tmp_path / "prompt")
        assert "\n" not in str(caught.value)

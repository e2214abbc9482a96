"""Every form in which an owner gives out a data set is read as the rows of the Hub's columns."""

import gzip
import json
import warnings

import datasets
import pytest
from test_tasks import SENTENCES, folder

from ptv2lib import Classification
from ptv2lib.errors import DataError
from ptv2lib.sources import HubSet, read_folder, split_of
from ptv2lib.tasks import TASKS, load_task

TEXT = datasets.Value("string")
NUMBER = datasets.Value("int32")


def files(path, **contents):
    """Write files; a dictionary is a folder, bytes are written as they are, `__` in a name stands for a dot."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        place = path / name.replace("__", ".")
        if isinstance(content, dict):
            files(place, **content)
        elif isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.write_text(content, encoding="utf-8")
    return path


def parquet(path, features=None, **splits):
    """Write splits as the Hub names its files, with the Hub's types."""
    path.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        made = datasets.Dataset.from_list(rows, features=datasets.Features(features) if features else None)
        made.to_parquet(path / f"{split}-00000-of-00001.parquet")
    return path


def read(name, path):
    """The rows of a task, without the note on row counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_task(name, dataset=path).rows


def lines(objects):
    return "".join(json.dumps(one) + "\n" for one in objects)


# GLUE


def test_sst2_quotes_are_text(tmp_path):
    path = files(
        tmp_path,
        train__tsv='sentence\tlabel\nhe said " no\t1\n"so "" dull"\t0\nthe end \t1\n',
        dev__tsv="sentence\tlabel\r\na café\t0\r\n",
        test__tsv="index\tsentence\n0\tno one knows\n1\tgood\n",
        README__md="not a split",
    )
    assert read("sst2", path) == {
        "train": [
            {"sentence": 'he said " no', "idx": 0, "label": 1},
            {"sentence": '"so "" dull"', "idx": 1, "label": 0},
            {"sentence": "the end ", "idx": 2, "label": 1},
        ],
        "validation": [{"sentence": "a café", "idx": 0, "label": 0}],
        "test": [{"sentence": "no one knows", "idx": 0, "label": -1}, {"sentence": "good", "idx": 1, "label": -1}],
    }


def mnli_line(number, premise, hypothesis, *labels):
    return "\t".join(
        [str(number), "31193", "31193n", "fiction", "( a )", "( b )", "(S a)", "(S b)", premise, hypothesis, *labels]
    )


def test_mnli_has_two_validations_and_two_tests(tmp_path):
    head = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    head = "\t".join([*head.split(), "sentence1", "sentence2"])
    train = [f"{head}\tlabel1\tgold_label", mnli_line(0, "It rains.", "It is dry.", "contradiction", "contradiction")]
    voted = "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label"
    dev = [head + voted, mnli_line(0, "It rains.", "It is wet.", *["neutral"] * 5, "entailment")]
    other = [head + voted, mnli_line(0, 'The "old" mill.', "A mill.", *["entailment"] * 5, "neutral")]
    test = [head, mnli_line(0, "No gold.", "None."), mnli_line(1, "Nor here.", "None.")]
    texts = {
        name: "\n".join(part) + "\n"
        for name, part in (("train", train), ("dev", dev), ("other", other), ("test", test))
    }
    path = files(
        tmp_path / "raw",
        train__tsv=texts["train"],
        dev_matched__tsv=texts["dev"],
        dev_mismatched__tsv=texts["other"],
        test_matched__tsv=texts["test"],
        test_mismatched__tsv=texts["test"],
        diagnostic__tsv="not a split of this task",
    )
    rows = read("mnli", path)
    unlabelled = [
        {"premise": "No gold.", "hypothesis": "None.", "idx": 0, "label": -1},
        {"premise": "Nor here.", "hypothesis": "None.", "idx": 1, "label": -1},
    ]
    assert rows == {
        "train": [{"premise": "It rains.", "hypothesis": "It is dry.", "idx": 0, "label": 2}],
        "validation": [{"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0, "label": 0}],
        "validation_mismatched": [{"premise": 'The "old" mill.', "hypothesis": "A mill.", "idx": 0, "label": 1}],
        "test": unlabelled,
        "test_mismatched": unlabelled,
    }
    names = {"train": "train", "validation": "validation_matched", "test": "test_matched"}
    hub = parquet(
        tmp_path / "hub",
        {
            "premise": TEXT,
            "hypothesis": TEXT,
            "label": datasets.ClassLabel(names=list(TASKS["mnli"].labels)),
            "idx": NUMBER,
        },
        **{names.get(split, split): part for split, part in rows.items()},
    )
    assert read("mnli", hub) == rows


def test_rte_of_glue_gives_superglue_s_columns(tmp_path):
    head = "index\tsentence1\tsentence2"
    path = files(
        tmp_path / "raw",
        train__tsv=f"{head}\tlabel\n0\tIt rains.\tIt is wet.\tentailment\n1\tIt rains.\tIt is dry.\tnot_entailment\n",
        dev__tsv=f"{head}\tlabel\n0\tA dog.\tA cat.\tnot_entailment\n",
        test__tsv=f"{head}\n0\tA.\tB.\n",
    )
    rows = read("rte", path)
    assert rows["train"] == [
        {"premise": "It rains.", "hypothesis": "It is wet.", "idx": 0, "label": 0},
        {"premise": "It rains.", "hypothesis": "It is dry.", "idx": 1, "label": 1},
    ]
    assert rows["test"] == [{"premise": "A.", "hypothesis": "B.", "idx": 0, "label": -1}]
    assert read("rte", parquet(tmp_path / "hub", **rows)) == rows


# SuperGLUE: the raw object with its label, without it (test), and the Hub's row


def labelled(raw, hub, raw_label, number):
    """Raw and Hub objects, with a label and without."""
    return [raw | {"label": raw_label}], [raw], [hub | {"label": number}], [hub | {"label": -1}]


PLAIN = {
    "boolq": ({"question": "is it wet", "passage": "Rain -- It is wet.", "idx": 3}, True, 1),
    "cb": ({"premise": "It may rain.", "hypothesis": "It rains.", "idx": 3}, "neutral", 2),
    "copa": (
        {"premise": "It rained.", "choice1": "He got wet.", "choice2": "He ate.", "question": "effect", "idx": 3},
        1,
        1,
    ),
    "rte": ({"premise": "It rains.", "hypothesis": "It is dry.", "idx": 3}, "not_entailment", 1),
    "wic": (
        {
            "word": "bank",
            "sentence1": "The banks burst.",
            "sentence2": "A bank lends.",
            "idx": 3,
            "start1": 4,
            "end1": 9,
            "start2": 2,
            "end2": 6,
        },
        False,
        0,
    ),
}
CLASS_NAMES = {"copa": ["choice1", "choice2"]}


@pytest.mark.parametrize("name", PLAIN)
def test_superglue_lines_with_plain_columns(name, tmp_path):
    hub, raw_label, number = PLAIN[name]
    extra = {"version": 1.1} if name == "wic" else {}
    raw = folder(
        tmp_path / "raw",
        train=[hub | extra | {"label": raw_label}],
        val=[hub | extra | {"label": raw_label}],
        test=[hub | extra],
    )
    rows = read(name, raw)
    assert rows["train"] == rows["validation"] == [hub | {"label": number}]
    assert rows["test"] == [hub | {"label": -1}]
    features = {column: TEXT if isinstance(value, str) else NUMBER for column, value in hub.items()}
    names = CLASS_NAMES.get(name, list(TASKS[name].labels))
    hub_folder = parquet(tmp_path / "hub", features | {"label": datasets.ClassLabel(names=names)}, **rows)
    assert read(name, hub_folder) == rows


def test_wsc_target_is_laid_open(tmp_path):
    target = {"span1_index": 0, "span2_index": 3, "span1_text": "Mark", "span2_text": "he"}
    raw = {"text": "Mark said that he slept.", "target": target, "idx": 5}
    rows = read(
        "wsc", folder(tmp_path / "raw", train=[raw | {"label": True}], val=[raw | {"label": False}], test=[raw])
    )
    flat = {"text": raw["text"], "idx": 5} | target
    assert rows == {"train": [flat | {"label": 1}], "validation": [flat | {"label": 0}], "test": [flat | {"label": -1}]}
    features = {column: TEXT if isinstance(value, str) else NUMBER for column, value in flat.items()}
    features["label"] = datasets.ClassLabel(names=["False", "True"])
    assert read("wsc", parquet(tmp_path / "hub", features, **rows)) == rows


def multirc(label):
    """One paragraph with two questions, the second with an empty answer."""
    mark = (lambda value: {"label": value}) if label else (lambda value: {})
    questions = [
        {
            "question": "Who ran?",
            "idx": 4,
            "answers": [{"text": "Ann", "idx": 8} | mark(1), {"text": "Bo", "idx": 9} | mark(0)],
        },
        {"question": "Where?", "idx": 5, "answers": [{"text": "", "idx": 10} | mark(0)]},
    ]
    return {"idx": 2, "version": 1.1, "passage": {"text": "Ann ran home.", "questions": questions}}


def test_multirc_answers_stand_with_their_question(tmp_path):
    rows = read("multirc", folder(tmp_path / "raw", train=[multirc(True)], val=[multirc(True)], test=[multirc(False)]))
    first = {
        "paragraph": "Ann ran home.",
        "question": "Who ran?",
        "answers": ["Ann", "Bo"],
        "idx": (2, 4),
        "answer_idx": [8, 9],
    }
    second = {"paragraph": "Ann ran home.", "question": "Where?", "answers": [""], "idx": (2, 5), "answer_idx": [10]}
    assert rows["train"] == rows["validation"] == [first | {"labels": [1, 0]}, second | {"labels": [0]}]
    assert rows["test"] == [first | {"labels": [-1, -1]}, second | {"labels": [-1]}]
    features = {
        "paragraph": TEXT,
        "question": TEXT,
        "answer": TEXT,
        "label": datasets.ClassLabel(names=["False", "True"]),
    }
    features["idx"] = {"paragraph": NUMBER, "question": NUMBER, "answer": NUMBER}
    flat = {
        split: [
            {"paragraph": row["paragraph"], "question": row["question"], "answer": answer, "label": label}
            | {"idx": {"paragraph": row["idx"][0], "question": row["idx"][1], "answer": number}}
            for row in part
            for answer, label, number in zip(row["answers"], row["labels"], row["answer_idx"], strict=True)
        ]
        for split, part in rows.items()
    }
    assert read("multirc", parquet(tmp_path / "hub", features, **flat)) == rows


def test_record_ends_are_inclusive_in_the_files(tmp_path):
    text = "Ann met Bo Li.\n@highlight\nBo Li won"
    entities = [{"start": 8, "end": 12}, {"start": 0, "end": 2}, {"start": 26, "end": 30}]
    queries = [
        {"query": "@placeholder lost", "idx": 6, "answers": [{"start": 0, "end": 2, "text": "Ann"}]},
        {"query": "won by @placeholder", "idx": 7, "answers": [{"start": 8, "end": 12, "text": "Bo Li"}] * 2},
    ]
    raw = {"source": "Daily", "passage": {"text": text, "entities": entities}, "qas": queries, "idx": 1}
    hidden = raw | {"qas": [{"query": one["query"], "idx": one["idx"]} for one in queries]}
    rows = read("record", folder(tmp_path / "raw", train=[raw], val=[raw], test=[hidden]))
    shared = {"passage": text, "entities": ["Ann", "Bo Li"]}
    assert rows["train"] == [
        shared | {"query": "@placeholder lost", "answers": ["Ann"], "idx": {"passage": 1, "query": 6}},
        shared | {"query": "won by @placeholder", "answers": ["Bo Li"], "idx": {"passage": 1, "query": 7}},
    ]
    assert [row["answers"] for row in rows["test"]] == [[], []]
    spans = {"text": ["Ann", "Bo Li", "Bo Li"], "start": [0, 8, 26], "end": [3, 13, 31]}
    features = {"passage": TEXT, "query": TEXT, "entities": datasets.List(TEXT), "answers": datasets.List(TEXT)}
    features |= {
        "entity_spans": {"text": datasets.List(TEXT), "start": datasets.List(NUMBER), "end": datasets.List(NUMBER)}
    }
    features |= {"idx": {"passage": NUMBER, "query": NUMBER}}
    hub = {split: [row | {"entity_spans": spans} for row in part] for split, part in rows.items()}
    assert read("record", parquet(tmp_path / "hub", features, **hub)) == rows


# Tagging

IOB2 = "-DOCSTART- -X- -X- O\n\nAnn NNP B-NP B-PER\nLi NNP I-NP I-PER\nmet VBD B-VP O\nBo NNP B-NP B-PER\n\n\nOslo NNP B-NP B-LOC"
CONLL03 = [
    {"tokens": ["Ann", "Li", "met", "Bo"], "tags": ["B-PER", "I-PER", "O", "B-PER"]},
    {"tokens": ["Oslo"], "tags": ["B-LOC"]},
]


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("train.conll", "dev.conll", "test.conll"),
    ],
)
def test_conll03_columns_in_iob2(names, tmp_path):
    path = files(tmp_path / "raw", **dict(zip(names, (IOB2, IOB2 + "\n\n", IOB2.replace("\n", "\r\n")), strict=True)))
    rows = read("conll03", path)
    assert rows == {"train": CONLL03, "validation": CONLL03, "test": CONLL03}
    features = {
        "id": TEXT,
        "tokens": datasets.List(TEXT),
        "ner_tags": datasets.List(datasets.ClassLabel(names=list(TASKS["conll03"].labels))),
    }
    hub = {
        s: [{"id": "0", "tokens": row["tokens"], "ner_tags": row["tags"]} for row in part] for s, part in rows.items()
    }
    assert read("conll03", parquet(tmp_path / "hub", features, **hub)) == rows


def test_iob1_becomes_iob2_and_each_file_is_named_once(tmp_path):
    loose = "-DOCSTART- -X- O O\n\nAnn NNP I-NP I-PER\nLi NNP I-NP I-PER\nBo NNP I-NP B-PER\nOslo NNP I-NP I-LOC\n"
    loose += "and CC O O\n\nUN NNP I-NP I-ORG\n\nFifa NNP I-NP I-ORG\n"
    path = files(tmp_path, eng__train=loose, eng__testa=loose, eng__testb=IOB2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = load_task("conll03", dataset=path)
    assert task.rows["train"] == [
        {"tokens": ["Ann", "Li", "Bo", "Oslo", "and"], "tags": ["B-PER", "I-PER", "B-PER", "B-LOC", "O"]},
        {"tokens": ["UN"], "tags": ["B-ORG"]},
        {"tokens": ["Fifa"], "tags": ["B-ORG"]},
    ]
    assert task.rows["validation"] == task.rows["train"] and task.rows["test"] == CONLL03
    told = [str(one.message) for one in said if "IOB1" in str(one.message)]
    assert len(told) == 2 and "eng.testa is in IOB1" in min(told) and "eng.train is in IOB1" in max(told)


def test_five_columns_put_the_lemma_second(tmp_path):
    german = "Anna Anna NE B-NP B-PER\nging gehen VVFIN B-VP O\n\n1 1 CARD B-NP O\n"
    rows = read("conll03", files(tmp_path, train__txt=german, dev__txt=german))["train"]
    assert rows == [{"tokens": ["Anna", "ging"], "tags": ["B-PER", "O"]}, {"tokens": ["1"], "tags": ["O"]}]


def test_conllx_has_the_word_second_and_the_tag_last(tmp_path):
    def block(*cells):
        return "".join(f"{i}\t{word}\t_\tNN\tNN\t_\t0\troot\t_\t_\t{tag}\n" for i, (word, tag) in enumerate(cells, 1))

    text = (
        block(("Ann", "B-PERSON"), ("paid", "O"), ("2", "B-MONEY"), ("dollars", "I-MONEY"))
        + "\n"
        + block(("1", "O"), ("Oslo", "B-GPE"))
    )
    path = files(tmp_path, train__sd__conllx=text, dev__sd__conllx=text, test__sd__conllx=text + "\n")
    expected = [
        {"tokens": ["Ann", "paid", "2", "dollars"], "tags": ["B-PERSON", "O", "B-MONEY", "I-MONEY"]},
        {"tokens": ["1", "Oslo"], "tags": ["O", "B-GPE"]},
    ]
    assert read("ontonotes5", path) == {"train": expected, "validation": expected, "test": expected}


def test_two_columns_and_words_with_wide_blanks(tmp_path):
    """conlleval and the official code part columns at the plain space alone."""
    text = "10\N{NO-BREAK SPACE}000 B-PER\nmen\N{IDEOGRAPHIC SPACE}x O\n\nAnn B-PER\n"
    rows = read("conll03", files(tmp_path, train__txt=text, dev__txt=text))["train"]
    assert [row["tokens"] for row in rows] == [["10\N{NO-BREAK SPACE}000", "men\N{IDEOGRAPHIC SPACE}x"], ["Ann"]]


def test_a_tab_parts_columns_so_that_a_word_may_hold_a_blank(tmp_path):
    text = "in\tO\nNew York\tB-LOC\n \t\nOslo \tB-LOC\n\nSan Jose\tB-LOC\n"
    rows = read("conll03", files(tmp_path, train__txt=text, dev__txt=text))["train"]
    assert rows == [
        {"tokens": ["in", "New York"], "tags": ["O", "B-LOC"]},
        {"tokens": ["Oslo"], "tags": ["B-LOC"]},
        {"tokens": ["San Jose"], "tags": ["B-LOC"]},
    ]


def test_a_word_that_begins_with_a_sharp_is_a_word(tmp_path):
    """Only gold_conll has lines that begin and end a document."""
    text = "saw O\n#endgame B-MISC\n#begin O\n#end document\tO\n"
    rows = read("conll03", files(tmp_path, train__txt=text, dev__txt=text))["train"]
    assert rows == [{"tokens": ["saw", "#endgame", "#begin", "#end document"], "tags": ["O", "B-MISC", "O", "O"]}]


TNER = (
    "O B-CARDINAL B-DATE I-DATE B-PERSON I-PERSON B-NORP B-GPE I-GPE B-LAW I-LAW B-ORG I-ORG B-PERCENT I-PERCENT B-ORDINAL "
    "B-MONEY I-MONEY B-WORK_OF_ART I-WORK_OF_ART B-FAC B-TIME I-CARDINAL B-LOC B-QUANTITY I-QUANTITY I-NORP I-LOC B-PRODUCT "
    "I-TIME B-EVENT I-EVENT I-FAC B-LANGUAGE I-PRODUCT I-ORDINAL I-LANGUAGE"
)


def test_tner_numbers_are_in_tner_s_order(tmp_path):
    tner = TNER.split()
    every = [{"tokens": [tag[2:] or "x"], "tags": [number]} for number, tag in enumerate(tner) if tag[0] != "I"]
    inside = [
        {"tokens": ["a", "b"], "tags": [tner.index("B" + tag[1:]), number]}
        for number, tag in enumerate(tner)
        if tag[0] == "I"
    ]
    path = files(
        tmp_path / "raw",
        train00__json=lines(every),
        train01__json=lines(inside),
        valid__json=lines(every[:1] + every[3:4]),
        test__json=lines(every[5:6]),
        label__json=json.dumps({tag: number for number, tag in enumerate(tner)}),
    )
    rows = read("ontonotes5", path)
    assert [row["tags"] for row in rows["train"][: len(every)]] == [[tag] for tag in tner if tag[0] != "I"]
    assert [row["tags"] for row in rows["train"][len(every) :]] == [
        ["B" + tag[1:], tag] for tag in tner if tag[0] == "I"
    ]
    assert len(rows["validation"]) == 2 and len(rows["test"]) == 1
    hub = parquet(tmp_path / "hub", train=every + inside, validation=every[:1] + every[3:4], test=every[5:6])
    assert read("ontonotes5", hub) == rows


# Semantic roles

GAVE = {
    "tokens": ["Ann", "gave", "Bo", "books", "and", "left"],
    "predicate": 1,
    "tags": ["B-A0", "B-V", "B-A2", "B-A1", "O", "O"],
}
LEFT = GAVE | {"predicate": 5, "tags": ["B-A0", "O", "O", "O", "O", "B-V"]}
SAID = {
    "tokens": ["Bad", "news", ",", "he", "said", ",", "travels", "fast"],
    "predicate": 4,
    "tags": ["B-A1", "I-A1", "O", "B-A0", "B-V", "O", "B-C-A1", "I-C-A1"],
}
ROLES = [GAVE, LEFT, SAID]
YES = {"silent_before": (1,)}  # the files have a sentence of one word before the last one, without a predicate


def numbered(rows, *sentences):
    """The rows with the numbers of their sentences."""
    return [row | {"sentence": number} for row, number in zip(rows, sentences, strict=True)]


TOLD = numbered([GAVE | {"lemma": "give"}, LEFT | {"lemma": "leave"}, SAID | {"lemma": "say"} | YES], 0, 0, 1)
COMBINED = """\
Ann   NNP (S*  * -  -     (A0*)  (A0*)
gave  VBD  *   * 01 give  (V*)   *
Bo    NNP  *   * -  -     (A2*)  *
books NNS  *   * -  -     (A1*)  *
and   CC   *   * -  -     *      *
left  VBD  *)  * 02 leave *      (V*)

Yes   UH  (S*) * -  -

Bad    JJ  (S* * -  -     (A1*
news   NNS  *  * -  -     *)
,      ,    *  * -  -     *
he     PRP  *  * -  -     (A0*)
said   VBD  *  * 01 say   (V*)
,      ,    *  * -  -     *
travels VBZ *  * -  -     (C-A1*
fast   RB   *) * -  -     *)
"""
WORDS, PROPS = (
    "\n".join(" ".join(cells[at]) if (cells := line.split()) else "" for line in COMBINED.split("\n")) + "\n"
    for at in (slice(0, 1), slice(5, None))
)
PASTED = "\n".join(f"{one} {other}".strip() for one, other in zip(WORDS.split("\n"), PROPS.split("\n"), strict=True))


@pytest.mark.parametrize("text", [COMBINED, PASTED], ids=["six columns before the roles", "words and props pasted"])
def test_conll05_combined_files(text, tmp_path):
    path = files(tmp_path, train__txt=text, devel__txt=text, test__wsj__txt=text, test__brown__txt=text)
    rows = read("conll05", path)
    assert set(rows) == {"train", "validation", "test", "test_wsj", "test_brown"}
    assert all(part == TOLD for part in rows.values())


def test_conll05_verbs_of_several_words_and_brackets_that_close_by_name(tmp_path):
    """As in `(V*`, `*)` and a `C-V` behind it; the target may be any of the verb's words; CoNLL-2004 wrote `*A1)`."""
    text = """\
They - (A0*A0) *
gave - (V*     *
up  give *)    *
the - (A1*     *
day -  *A1)    *
and -  *       *
set set *      (V*)
it  -  *       (A1*)
out -  *       (C-V*)
"""
    rows = read("conll05", files(tmp_path, train__txt=text, devel__txt=text))["train"]
    tokens = [line.split()[0] for line in text.split("\n") if line]
    first = ["B-A0", "B-V", "I-V", "B-A1", "I-A1", "O", "O", "O", "O"]
    give = {"tokens": tokens, "predicate": 1, "tags": first, "lemma": "give", "target": 2}
    set_out = {"tokens": tokens, "predicate": 6, "tags": ["O"] * 6 + ["B-V", "B-A1", "B-C-V"], "lemma": "set"}
    assert rows == numbered([give, set_out], 0, 0)


CROSSLINK = [("They", "(A0*)", "(A0*)"), ("cross", "(V*)", "*"), ("linked", "(C-V*)", "*"), ("left", "*", "(V*)")]
JUMP_START = [("They", "(A0*)", "(A0*)"), ("jump", "(V*)", "(V*"), ("started", "*", "*)"), ("it", "(A1*)", "(A1*)")]
AGAIN = [("I", "(A0*)", "(A0*)"), ("know", "(V*)", "*"), ("he", "(A1*", "*"), ("left", "*)", "(V*)")]


def shared_task_columns(words, targets):
    """A sentence in the columns of CoNLL-2005: of `words` the roles, of `targets` the lemmas by their words."""
    return "".join(f"{word} {targets.get(word, '-')} {' '.join(roles)}\n" for word, *roles in words)


def shared_task_document(words, targets):
    """The same as a gold_conll."""
    rows = (
        f"x 0 {place} {word} X * {targets.get(word, '-')} {'01' if word in targets else '-'} - - * {' '.join(roles)} -\n"
        for place, (word, *roles) in enumerate(words)
    )
    return "".join(rows)


@pytest.mark.parametrize("name", ["conll05", "conll12"])
@pytest.mark.parametrize(
    ("words", "lemmas", "targets"),
    [
        (CROSSLINK, {"linked": "crosslink", "left": "leave"}, [(1, 2), (3, 3)]),
        (JUMP_START, {"jump": "jump", "started": "start"}, [(1, 1), (1, 2)]),
    ],
    ids=["a frame set behind the verb", "two verbs from one word on"],
)
def test_a_verb_is_given_back_at_its_target(name, words, lemmas, targets, tmp_path):
    """srl-eval.pl knows a proposition by the line of its target, and takes the columns in that order."""
    if name == "conll12":
        words = [(word, *(cell.replace("(A", "(ARG") for cell in cells)) for word, *cells in words]
        text = f"#begin document (x); part 000\n{shared_task_document(words, lemmas)}\n#end document\n"
        path = files(tmp_path, train={"x__gold_conll": text}, development={"x__gold_conll": text})
    else:
        text = shared_task_columns(words, lemmas)
        path = files(tmp_path, train__txt=text, devel__txt=text)
    rows = read(name, path)["validation"]
    assert [(row["predicate"], row.get("target", row["predicate"])) for row in rows] == targets
    told = TASKS[name].submission([row["tags"] for row in rows], rows)
    expected = [line.split()[1:] for line in shared_task_columns(words, lemmas).splitlines()]
    assert [line.split() for line in told.splitlines() if line] == expected


def test_a_document_of_the_hub_names_its_targets(tmp_path):
    words = [word for word, *_ in CROSSLINK]
    sentence = {
        "words": words,
        "predicate_lemmas": [None, None, "crosslink", "leave"],
        "predicate_framenet_ids": [None, None, "01", "01"],
        "srl_frames": [
            {"verb": "cross", "frames": ["B-ARG0", "B-V", "B-C-V", "O"]},
            {"verb": "left", "frames": ["B-ARG0", "O", "O", "B-V"]},
        ],
    }
    document = [{"document_id": "x", "sentences": [sentence]}]
    rows = read("conll12", parquet(tmp_path, train=document, validation=document))["train"]
    assert [(row["lemma"], row["predicate"], row.get("target")) for row in rows] == [
        ("crosslink", 1, 2),
        ("leave", 3, None),
    ]


def test_a_sentence_that_follows_its_like_is_told_apart(tmp_path):
    """Rising predicates alone do not tell: here each of two equal sentences has one of the two verbs."""
    one = [(word, know) for word, know, _ in AGAIN]
    other = [(word, left) for word, _, left in AGAIN]
    parts = [shared_task_columns(one, {"know": "know"}), "Hm -\n", shared_task_columns(other, {"left": "leave"})]
    for kept in (parts, parts[::2]):
        text = "\n".join(kept)
        rows = read("conll05", files(tmp_path / str(len(kept)), train__txt=text, devel__txt=text))["train"]
        assert [row["sentence"] for row in rows] == [0, 1]
        told = TASKS["conll05"].submission([row["tags"] for row in rows], rows)
        given = ["\n".join(line.split(" ", 1)[1] for line in part.splitlines()) for part in kept]
        assert told.replace("\t", " ").strip().split("\n\n") == given


@pytest.mark.parametrize("column", ["id", "sentence"])
def test_rows_that_share_an_id_are_one_sentence(column, tmp_path):
    """As in the English Web Treebank, where both halves of "jump - started" are predicates that begin at *jump*."""
    tokens = ["They", "jump", "started", "it"]
    rows = [
        {"tokens": tokens, "predicate": 1, "tags": ["B-A0", "B-V", "O", "B-A1"], column: "a"},
        {"tokens": tokens, "predicate": 1, "tags": ["B-A0", "B-V", "I-V", "B-A1"], column: "a"},
        {"tokens": tokens, "predicate": 1, "tags": ["B-A0", "B-V", "O", "O"], column: "b"},
    ]
    kept = read("conll05", parquet(tmp_path / "shared", train=rows, validation=rows))["train"]
    assert [row["sentence"] for row in kept] == [0, 0, 1]
    told = TASKS["conll05"].submission([row["tags"] for row in kept], kept)
    assert [[line.split() for line in block.splitlines()] for block in told.strip().split("\n\n")] == [
        [["-", "(A0*)", "(A0*)"], ["jump", "(V*)", "(V*"], ["jump", "*", "*)"], ["-", "(A1*)", "(A1*)"]],
        [["-", "(A0*)"], ["jump", "(V*)"], ["-", "*"], ["-", "*"]],
    ]
    if column == "id":  # one for each row names no sentence
        of_rows = [row | {"id": str(number)} for number, row in enumerate(rows)]
        kept = read("conll05", parquet(tmp_path / "own", train=of_rows, validation=of_rows))["train"]
        assert not any("sentence" in row for row in kept)


def test_words_and_props_of_other_sections_are_refused(tmp_path):
    layers = {"words": {"train.02.words": WORDS, "train.03.words": WORDS}}
    layers |= {"props": {"train.02.props": PROPS, "train.04.props": PROPS}}
    with pytest.raises(DataError, match=r"train\.03\.words and .*train\.04\.props should be .* of one section"):
        read("conll05", files(tmp_path, train=layers, devel=layers))


def test_what_a_file_manager_or_an_editor_leaves_behind(tmp_path):
    """Hidden files, packed documents, and empty lines at the end of one of two files."""
    layers = {"words": {"02.words": WORDS + "\n\n", ".DS_Store": b"\xff"}, "props": {"02.props": PROPS}}
    assert read("conll05", files(tmp_path / "a", train=layers, devel=layers))["train"] == TOLD
    packed = gzip.compress(GOLD_CONLL.encode())
    tree = {"x.gold_conll.gz": packed, "._x.gold_conll.gz": b"\xff", ".git": {"y.gold_conll": b"\xff"}, "README": "no"}
    assert len(read("conll12", files(tmp_path / "b", train=tree, development=tree))["train"]) == len(SETS)
    text = "EU I-ORG\t\nleft O \n\nAnn I-PER\n"
    rows = read("conll03", files(tmp_path / "c", train__txt=text, valid__txt=text))["train"]
    assert [row["tokens"] for row in rows] == [["EU", "left"], ["Ann"]]


def test_conll05_release_folders(tmp_path):
    """Sections in order, packed; other annotation layers lie beside words and props."""

    def layers(*sections):
        return {
            "words": {f"{name}.words.gz": gzip.compress(WORDS.encode()) for name in sections},
            "props": {f"{name}.props.gz": gzip.compress(PROPS.encode()) for name in sections},
            "ne": {f"{name}.ne.gz": gzip.compress(b"*\n") for name in sections},
        }

    path = files(
        tmp_path,
        train=layers("train.02", "train.03"),
        devel=layers("devel.24"),
        **{"test.wsj": layers("test.wsj"), "test.brown": layers("test.brown")},
    )
    rows = read("conll05", path)
    assert rows["train"] == numbered(TOLD * 2, 0, 0, 1, 2, 2, 3)
    assert rows["validation"] == rows["test"] == rows["test_wsj"] == rows["test_brown"] == TOLD
    told = TASKS["conll05"].submission([row["tags"] for row in TOLD], TOLD)
    assert [line.split() for line in told.split("\n")] == [line.split() for line in PROPS.split("\n")]


def test_the_official_archive_s_lines(tmp_path):
    text = "".join(f"{row['predicate']} {' '.join(row['tokens'])} ||| {' '.join(row['tags'])}\n" for row in ROLES)
    names = ("conll05.train.txt", "conll05.devel.txt", "conll05.test.wsj.txt", "conll05.test.brown.txt")
    rows = read("conll05", files(tmp_path / "raw", **dict.fromkeys(names, text)))
    assert set(rows) == {"train", "validation", "test", "test_wsj", "test_brown"}
    assert all(part == ROLES for part in rows.values())
    assert read("conll05", parquet(tmp_path / "hub", train=ROLES, validation=ROLES))["train"] == ROLES


GOLD_CONLL = """\
#begin document (nw/x/00/x_0001); part 000
nw/x/00/x_0001 0 0 Ann    NNP (S*  -     -  - -  (PERSON) (ARG0*) (ARG0*) (1)
nw/x/00/x_0001 0 1 did    VBD  *   do    01 1 -  *        (V*)    *       -
nw/x/00/x_0001 0 2 well   RB   *   well  -  - -  *        *       *       -
nw/x/00/x_0001 0 3 and    CC   *   -     -  - -  *        *       *       -
nw/x/00/x_0001 0 4 set    VBD  *   set   03 - -  *        *       (V*     -
nw/x/00/x_0001 0 5 out    RP   *   -     -  - -  *        *       *)      -
nw/x/00/x_0001 0 6 there  RB   *)  -     -  - -  *        *       (ARGM-LOC*) -

nw/x/00/x_0001 0 0 Nothing NN (S*) nothing - - - *        -

#end document
#begin document (nw/x/00/x_0001); part 001
nw/x/00/x_0001 1 0 It     PRP (S*  -     -  - -  *        (ARG1*) (ARG0*) -
nw/x/00/x_0001 1 1 seems  VBZ  *   seem  01 - -  *        *       *       -
nw/x/00/x_0001 1 2 goes   VBZ  *)  go    02 - -  *        *       (V*)    -

#end document
"""
SETS = [
    {
        "tokens": ["Ann", "did", "well", "and", "set", "out", "there"],
        "predicate": 1,
        "tags": ["B-ARG0", "B-V", "O", "O", "O", "O", "O"],
    },
    {
        "tokens": ["Ann", "did", "well", "and", "set", "out", "there"],
        "predicate": 4,
        "tags": ["B-ARG0", "O", "O", "O", "B-V", "I-V", "B-ARGM-LOC"],
    },
    # The column of "seems" has no verb, so it is no row.
    {"tokens": ["It", "seems", "goes"], "predicate": 2, "tags": ["B-ARG0", "O", "B-V"]},
]


def annotations(text):
    found = {"x_0001.gold_conll": text, "x_0001.gold_skel": "skeleton", "x_0001.onf": "not columns at all"}
    return {"data": {"english": {"annotations": {"nw": {"x": {"00": found}}}}}}


def test_conll12_tree_takes_the_standard_test(tmp_path):
    path = files(
        tmp_path,
        **{
            "train": annotations(GOLD_CONLL),
            "development": annotations(GOLD_CONLL),
            "test": annotations(GOLD_CONLL + GOLD_CONLL),
            "conll-2012-test": annotations(GOLD_CONLL),
        },
    )
    lemmas = ({"lemma": "do"}, {"lemma": "set"}, {"lemma": "go"} | YES)
    told = numbered([row | more for row, more in zip(SETS, lemmas, strict=True)], 0, 0, 1)
    assert read("conll12", path) == {"train": told, "validation": told, "test": told}


def test_conll12_of_several_languages_is_read_in_english(tmp_path):
    other = annotations(GOLD_CONLL.replace("Ann ", "Anna"))["data"]["english"]
    folder = {"data": annotations(GOLD_CONLL)["data"] | {"chinese": other}}
    rows = read("conll12", files(tmp_path, train=folder, development=folder))
    assert [row["tokens"][0] for row in rows["train"]] == ["Ann", "Ann", "It"]


def test_conll12_with_a_column_that_has_neither_verb_nor_frame_set(tmp_path):
    text = GOLD_CONLL.replace("seem  01", "seem  - ")
    rows = read("conll12", files(tmp_path, train=annotations(text), development=annotations(text)))
    assert [row["tags"] for row in rows["train"]] == [row["tags"] for row in SETS]


def test_names_of_ontonotes_from_gold_conll(tmp_path):
    tabs = GOLD_CONLL.replace("*   ", "*\t")  # its columns are white space, whichever
    rows = read("ontonotes5", files(tmp_path, train=annotations(GOLD_CONLL), development=annotations(tabs)))
    first, nothing, _ = rows["train"]
    assert rows["validation"] == rows["train"]
    assert first == {"tokens": SETS[0]["tokens"], "tags": ["B-PERSON", *["O"] * 6]}
    assert nothing == {"tokens": ["Nothing"], "tags": ["O"]}


def test_names_are_not_looked_for_in_the_bible(tmp_path):
    """The standard division for names leaves out the documents `pt/…`, where nobody marked any; roles keep them."""
    bible = GOLD_CONLL.replace("nw/x", "pt/nt").replace("(PERSON)", "*       ").replace("Ann ", "Paul")
    texts = {"a__gold_conll": GOLD_CONLL, "b__gold_conll": bible, "c__gold_conll": bible + GOLD_CONLL}
    path = files(tmp_path, train=texts, development=texts)
    assert [row["tokens"][0] for row in read("ontonotes5", path)["train"]] == ["Ann", "Nothing", "It"] * 2
    assert [row["tokens"][0] for row in read("conll12", path)["train"]] == [
        *["Ann", "Ann", "It"],
        *["Paul", "Paul", "It"],
        *["Paul", "Paul", "It"],
        *["Ann", "Ann", "It"],
    ]


def test_a_column_without_a_verb_is_left_out_with_a_warning(tmp_path):
    path = files(tmp_path, train=annotations(GOLD_CONLL), development=annotations(GOLD_CONLL))
    with pytest.warns(UserWarning, match=r"gold_conll, line 14: 1 of 2 columns of roles without a verb left out"):
        load_task("conll12", dataset=path)


def test_listed_roles_take_their_further_forms_from_the_data(tmp_path):
    """No public list has all `C-` and `R-` forms that occur; the roles themselves are known."""
    further = GOLD_CONLL.replace("(ARGM-LOC*)", "(C-ARGM-NEG*)")
    path = files(tmp_path, train=annotations(GOLD_CONLL), development=annotations(further))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = load_task("conll12", dataset=path)
    assert task.family.roles == (*TASKS["conll12"].roles, "C-ARGM-NEG")
    assert task.rows["validation"][1]["tags"][-1] == "B-C-ARGM-NEG"
    unknown = GOLD_CONLL.replace("(ARGM-LOC*)", "(C-ARGM-NOT*)")
    with pytest.raises(DataError, match="the tag 'B-C-ARGM-NOT' of column 'tags' is neither"):
        read("conll12", files(tmp_path, development=annotations(unknown)))


HUB_NAMES = (  # the order of the Hub's documents, which is not tner's
    "PERSON NORP FAC ORG GPE LOC PRODUCT DATE TIME PERCENT MONEY QUANTITY ORDINAL CARDINAL EVENT WORK_OF_ART LAW LANGUAGE"
)
HUB_TAGS = ["O", *(f"{place}-{kind}" for kind in HUB_NAMES.split() for place in "BI")]


def documents_with_names(names):
    """A dataset in the columns of the Hub's documents: one with names, and one of the Bible."""
    numbers = [[HUB_TAGS.index(tag) for tag in tags] for tags in (["B-PERSON", "I-PERSON", "O", "B-GPE"], ["O"])]
    sentences = [
        {"part_id": 0, "words": ["Ann", "Li", "left", "Oslo"], "named_entities": numbers[0]},
        {"part_id": 1, "words": ["Nothing"], "named_entities": numbers[1]},
    ]
    rows = [{"document_id": f"{name}/x_0001", "sentences": sentences} for name in ("nw", "pt/nt")]
    sentence = {"part_id": NUMBER, "words": datasets.List(TEXT), "named_entities": datasets.List(names)}
    features = {"document_id": TEXT, "sentences": datasets.List(sentence)}
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def test_names_of_the_hub_s_documents(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        documents_with_names(datasets.ClassLabel(names=HUB_TAGS)).to_parquet(tmp_path / split / "0000.parquet")
    assert read("ontonotes5", tmp_path)["train"] == [
        {"tokens": ["Ann", "Li", "left", "Oslo"], "tags": ["B-PERSON", "I-PERSON", "O", "B-GPE"]},
        {"tokens": ["Nothing"], "tags": ["O"]},
    ]


def test_numbers_of_the_hub_s_documents_need_their_names(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        documents_with_names(NUMBER).to_parquet(tmp_path / split / "0000.parquet")
    with pytest.raises(DataError, match="row 0: column 'named_entities' has numbers, and nothing says which tags"):
        read("ontonotes5", tmp_path)


def test_conll12_documents_of_the_hub(tmp_path):
    did, out, goes = (row["tags"] for row in SETS)
    frame = {"verb": TEXT, "frames": datasets.List(TEXT)}
    features = {
        "document_id": TEXT,
        "sentences": datasets.List(
            {"part_id": NUMBER, "words": datasets.List(TEXT), "srl_frames": datasets.List(frame)}
        ),
    }
    sentences = [
        {
            "part_id": 0,
            "words": SETS[0]["tokens"],
            "srl_frames": [{"verb": "did", "frames": did}, {"verb": "set", "frames": out}],
        },
        {"part_id": 0, "words": ["Nothing"], "srl_frames": []},
        {
            "part_id": 1,
            "words": SETS[2]["tokens"],
            "srl_frames": [{"verb": "seems", "frames": ["B-ARG1", "O", "O"]}, {"verb": "goes", "frames": goes}],
        },
    ]
    document = [{"document_id": "nw/x/00/x_0001", "sentences": sentences}]
    made = datasets.Dataset.from_list(document, features=datasets.Features(features))
    for split in ("train", "validation", "test"):  # the parquet branch names folders, not files, after splits
        (tmp_path / split).mkdir()
        made.to_parquet(tmp_path / split / "0000.parquet")
    told = numbered([*SETS[:2], SETS[2] | YES], 0, 0, 1)
    assert read("conll12", tmp_path) == {"train": told, "validation": told, "test": told}


def test_roles_of_unlisted_sets_are_those_of_all_splits(tmp_path):
    path = folder(tmp_path, train=[GAVE], dev=[SAID])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_task("ewt_srl", dataset=path).family.roles == ("A0", "A1", "A2", "C-A1", "V")


# Question answering


def squad(prefix, version="1.1"):
    """SQuAD's own nesting: an article, two paragraphs, three questions."""
    where = [{"text": "Oslo", "answer_start": 13}, {"text": "in Oslo", "answer_start": 10}]
    first = [
        {"id": f"{prefix}0", "question": "Where?", "answers": where},
        {"id": f"{prefix}1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]},
    ]
    second = [{"id": f"{prefix}2", "question": "What fell?", "answers": [{"text": "🌧", "answer_start": 4}]}]
    made = [{"context": "Ann lives in Oslo.", "qas": first}, {"context": "Çağ 🌧 fell.", "qas": second}]
    if version == "2.0":
        for paragraph in made:
            for question in paragraph["qas"]:
                question["is_impossible"] = False
        plausible = [{"text": "Ann", "answer_start": 0}]
        none = {
            "id": f"{prefix}3",
            "question": "When?",
            "answers": [],
            "is_impossible": True,
            "plausible_answers": plausible,
        }
        made[0]["qas"].append(none)
    return {"version": f"v{version}", "data": [{"title": "Ann", "paragraphs": made}]}


def squad_rows(prefix, version="1.1"):
    first = {"title": "Ann", "context": "Ann lives in Oslo."}
    rows = [
        first
        | {
            "id": f"{prefix}0",
            "question": "Where?",
            "answers": {"text": ["Oslo", "in Oslo"], "answer_start": [13, 10]},
        },
        first | {"id": f"{prefix}1", "question": "Who?", "answers": {"text": ["Ann"], "answer_start": [0]}},
        {
            "title": "Ann",
            "context": "Çağ 🌧 fell.",
            "id": f"{prefix}2",
            "question": "What fell?",
            "answers": {"text": ["🌧"], "answer_start": [4]},
        },
    ]
    if version == "2.0":
        rows.insert(2, first | {"id": f"{prefix}3", "question": "When?", "answers": {"text": [], "answer_start": []}})
    return rows


@pytest.mark.parametrize(("name", "version"), [("squad", "1.1"), ("squad_v2", "2.0")])
@pytest.mark.parametrize("indent", [None, 1])
def test_squad_json(name, version, indent, tmp_path):
    raw = {f"{split}-v{version}.json": json.dumps(squad(split, version), indent=indent) for split in ("train", "dev")}
    rows = read(name, files(tmp_path / "raw", **raw))
    assert rows == {"train": squad_rows("train", version), "validation": squad_rows("dev", version)}
    answers = {"text": datasets.List(TEXT), "answer_start": datasets.List(NUMBER)}
    features = {"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": answers}
    assert read(name, parquet(tmp_path / "hub", features, **rows)) == rows


def test_names_of_other_sets_do_not_count_before_the_split_s_name(tmp_path):
    path = files(tmp_path, amazon_train__jsonl=lines(SENTENCES), amazon_validation__jsonl=lines(SENTENCES[:6]))
    assert {split: len(rows) for split, rows in read("sst2", path).items()} == {"train": 40, "validation": 6}


def test_json_and_tsv_may_be_packed(tmp_path):
    packed = {f"{split}__jsonl__gz": gzip.compress(lines(SENTENCES).encode()) for split in ("train", "validation")}
    tsv = "sentence\tlabel\n" + "".join(f"{row['sentence']}\t{row['label']}\n" for row in SENTENCES)
    named = {f"{split}__tsv__gz": gzip.compress(tsv.encode()) for split in ("train", "validation")}
    texts = [row["sentence"] for row in SENTENCES]
    for place, contents in (("json", packed), ("tsv", named)):
        rows = read("sst2", files(tmp_path / place, **contents))
        assert [row["sentence"] for row in rows["train"]] == texts, place


def test_a_column_of_one_s_own_may_be_called_target(tmp_path):
    rows = [{"target": "tax", "text": f"Text {number}.", "label": number % 2} for number in range(20)]
    family = Classification("stance", ("target", "text"), ("no", "yes"))
    task = load_task(family, dataset=folder(tmp_path, train=rows, validation=rows[:4]))
    assert task.rows["train"][3]["target"] == "tax"


def test_squadshifts_names(tmp_path):
    names = ("new_wiki_v1.0.json", "nyt_v1.0.json", "reddit_v1.0.json", "amazon_reviews_v1.0.json")
    path = files(tmp_path, **{name: json.dumps(squad(name)) for name in names})
    rows = read("squadshifts", path)
    splits = ("test", "test_nyt", "test_reddit", "test_amazon")
    assert rows == dict(zip(splits, map(squad_rows, names), strict=True))
    files(path, **{f"{split}-v1.1.json": json.dumps(squad(split)) for split in ("train", "dev")})
    with pytest.warns(UserWarning, match="official"):
        split = load_task("squadshifts", dataset=path).split()
    assert split.train == squad_rows("train") and split.test == squad_rows(names[0])
    assert set(split.further) == {"test_nyt", "test_reddit", "test_amazon"}


# Files in general

SPLITS = {
    "train.jsonl": "train",
    "train.parquet": "train",
    "train-v1.1.json": "train",
    "train00.json": "train",
    "train-00000-of-00001.parquet": "train",
    "Train.TSV": "train",
    "eng.train": "train",
    "train.sd.conllx": "train",
    "conll2012.train.txt": "train",
    "training": "train",
    "val.jsonl": "validation",
    "valid.txt": "validation",
    "validation-00000-of-00001.parquet": "validation",
    "dev-v2.0.json": "validation",
    "dev_matched.tsv": "validation",
    "validation_matched-00000-of-00001.parquet": "validation",
    "dev_mismatched.tsv": "validation_mismatched",
    "devel": "validation",
    "development": "validation",
    "eng.testa": "validation",
    "eng.testb": "test",
    "test.txt": "test",
    "conll-2012-test": "test",
    "conll05.test.wsj.txt": "test_wsj",
    "test.brown": "test_brown",
    "test_mismatched.tsv": "test_mismatched",
    "new_wiki_v1.0.json": "test",
    "nyt_v1.0.json": "test_nyt",
    "reddit_v1.0.json": "test_reddit",
    "amazon_reviews_v1.0.json": "test_amazon",
    "label.json": None,
    "README.md": None,
    "diagnostic.tsv": None,
    "original": None,
    "latest.json": None,
    "trainer_state.json": None,
    "contest": None,
}


@pytest.mark.parametrize("name", SPLITS)
def test_names_of_splits(name):
    assert split_of(name) == SPLITS[name]


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\u00a0"])
def test_only_line_ends_part_the_lines_of_json(sign, tmp_path):
    """JSON lets these stand in a string as they are, and `json.dumps(…, ensure_ascii=False)` writes them so."""
    rows = [{"sentence": f"one{sign}two", "label": 0}, {"sentence": "three", "label": 1}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    read_rows = read("sst2", files(tmp_path, train__jsonl=text, dev__jsonl=text))["train"]
    assert [row["sentence"] for row in read_rows] == [f"one{sign}two", "three"]


@pytest.mark.parametrize("sign", ["\u2028", "\x85"])
def test_only_line_ends_part_the_lines_of_columns(sign, tmp_path):
    text = f"Ann B-PER\na{sign}b O\n\nBo B-PER\n"
    rows = read("conll03", files(tmp_path, train__txt=text, dev__txt=text))["train"]
    assert [row["tokens"] for row in rows] == [["Ann", f"a{sign}b"], ["Bo"]]


def test_packed_and_marked_files_are_read(tmp_path):
    text = "sentence\tlabel\ngood\t1\n"
    path = files(tmp_path, train__tsv=b"\xef\xbb\xbf" + text.encode(), dev__tsv=text)
    assert read("sst2", path)["train"] == [{"sentence": "good", "idx": 0, "label": 1}]
    path = files(tmp_path / "gz", **{"eng.train.gz": gzip.compress(IOB2.encode()), "eng.testa": IOB2})
    assert read("conll03", path)["train"] == CONLL03


def test_parquet_is_preferred_and_hidden_files_are_left_out(tmp_path):
    parquet(tmp_path, train=[{"sentence": "from parquet", "label": 1}])
    files(
        tmp_path,
        train__jsonl=lines([{"sentence": "from json", "label": 0}]),
        **{".train.swp": "x", "dev.jsonl": lines([{"sentence": "x", "label": 0}])},
    )
    rows = read("sst2", tmp_path)
    assert [row["sentence"] for row in rows["train"]] == ["from parquet"]


def test_numbered_parts_are_one_split_in_order(tmp_path):
    for number in range(12):
        parts = datasets.Dataset.from_list([{"sentence": f"part {number}", "label": 0}])
        parts.to_parquet(tmp_path / f"train-{number:05}-of-00012.parquet")
    assert [row["sentence"] for row in read_folder(tmp_path)["train"].rows] == [f"part {k}" for k in range(12)]


def test_what_datasets_saves_is_read(tmp_path):
    names = datasets.Features({"sentence": TEXT, "label": datasets.ClassLabel(names=["positive", "negative"])})
    splits = {
        split: datasets.Dataset.from_list([{"sentence": f"{split} {k}", "label": k} for k in range(2)], features=names)
        for split in ("train", "validation")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path)
    rows = read("sst2", tmp_path)
    assert [(row["sentence"], row["label"]) for row in rows["train"]] == [("train 0", 1), ("train 1", 0)]
    for damaged in ("state.json", "dataset_info.json"):
        whole = (tmp_path / "validation" / damaged).read_text()
        for content in ("{", "[]", None):
            if content is None:
                (tmp_path / "validation" / damaged).unlink()
            else:
                (tmp_path / "validation" / damaged).write_text(content)
            with pytest.raises(DataError, match="The saved data set .*validation cannot be read"):
                read("sst2", tmp_path)
        (tmp_path / "validation" / damaged).write_text(whole)


def test_names_of_an_inner_column_do_not_count_for_an_outer_one(tmp_path):
    names = [datasets.ClassLabel(names=["negative", "positive"]), datasets.ClassLabel(names=["positive", "negative"])]
    features = {"sentence": TEXT, "label": names[0], "other": {"label": names[1]}}
    rows = [{"sentence": f"{k}", "label": k, "other": {"label": k}} for k in range(2)]
    parquet(tmp_path, features, train=rows, validation=rows)
    assert [row["label"] for row in read("sst2", tmp_path)["train"]] == [0, 1]


def test_versions_are_not_parts(tmp_path):
    path = files(
        tmp_path, **{f"{name}.json": json.dumps(squad("a")) for name in ("train-v1.1", "train-v2.0", "dev-v1.1")}
    )
    with pytest.raises(
        DataError, match=r"Both .*train-v1\.1\.json and .*train-v2\.0\.json seem to hold the same split"
    ):
        read("squad", path)


def test_rows_may_have_no_number_and_tasks_of_one_s_own_any(tmp_path):
    rows = [{"sentence": "a", "label": 0, "idx": None}, {"sentence": "b", "label": 1, "idx": None}]
    assert len(read("sst2", parquet(tmp_path / "a", train=rows, validation=rows))["train"]) == 2
    own = Classification("mine", ("sentence",), ("no", "yes"))
    numbered = [row | {"idx": 3} for row in rows]
    assert len(read(own, parquet(tmp_path / "b", train=numbered, validation=numbered))["train"]) == 2


def counted(train, validation):
    rows = {"train": 2, "validation": 1}
    family = Classification("mood", ("text",), ("sad", "glad"), HubSet("owner/mood", None, None, "free", rows))
    return family, [{"text": f"t {k}", "label": 0} for k in range(train)], [{"text": "v", "label": 1}] * validation


def test_row_counts_are_noted_once_and_only_if_they_differ(tmp_path):
    family, train, validation = counted(2, 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert load_task(family, dataset=folder(tmp_path / "a", train=train, validation=validation)).notes == ()
    assert not said
    family, train, validation = counted(3, 2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = load_task(family, dataset=folder(tmp_path / "b", train=train, validation=validation))
    (note,) = task.notes
    assert [str(one.message) for one in said] == [note]
    assert (
        note == "mood has other numbers of rows than the official set: train 3 (official 2), validation 2 (official 1)."
    )


def test_multirc_is_counted_as_the_hub_counts(tmp_path):
    path = folder(tmp_path, train=[multirc(True)], val=[multirc(True)])
    with pytest.warns(UserWarning, match=r"train 3 \(official 27,243\)"):
        load_task("multirc", dataset=path)

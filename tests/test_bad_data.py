"""Broken data are refused with one sentence that says where; what owners do give out is kept; predictions are never refused."""

import copy
import gzip
import json
import random
import re
import subprocess
import sys
import warnings

import datasets
import pytest
from test_formats import COMBINED, GAVE, GOLD_CONLL, IOB2, PROPS, SAID, WORDS, files, lines, multirc, squad, squad_rows
from test_tasks import SENTENCES, folder

import ptv2lib as pt
from ptv2lib import build_model, load_task
from ptv2lib.errors import DataError
from ptv2lib.sources import Table
from ptv2lib.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:.*official set")


def refused(name, path, words):
    """The one sentence with which a folder is refused; it must hold `words`, a pattern."""
    with pytest.raises(DataError) as caught:
        load_task(name, dataset=path)
    said = str(caught.value)
    assert re.search(words, said), said
    assert "\n" not in said, said
    return said


TAGS = {"tokens": ["Ann", "Li", "met"], "ner_tags": ["B-PER", "I-PER", "O"]}
COPA = {"premise": "It rained.", "choice1": "He got wet.", "choice2": "He ate.", "question": "effect", "label": 0}
WIC = {"word": "bank", "sentence1": "The banks burst.", "sentence2": "A bank lends.", "label": True}
WIC |= {"start1": 4, "end1": 9, "start2": 2, "end2": 6}
WSC = {"text": "Mark said that he slept.", "label": True}
WSC |= {"span1_index": 0, "span2_index": 3, "span1_text": "Mark", "span2_text": "he"}
CHOICE = {"paragraph": "Ann ran.", "question": "Who?", "answer": "Ann", "label": 1}
CHOICE |= {"idx": {"paragraph": 0, "question": 0, "answer": 0}}
GAP = {"passage": "Ann met Bo.", "query": "@placeholder met Bo", "entities": ["Ann", "Bo"], "answers": ["Ann"]}
QUESTION = squad_rows("q")[0]
GOOD = {
    "sst2": SENTENCES[0],
    "conll03": TAGS,
    "ontonotes5": {"tokens": ["a", "b"], "tags": [0, 0]},
    "conll04": {"tokens": ["Ann", "ran"], "entities": [{"start": 0, "end": 1, "type": "Peop"}]},
    "conll05": GAVE,
    "ewt_srl": GAVE,
    "copa": COPA,
    "wic": WIC,
    "wsc": WSC,
    "multirc": CHOICE,
    "record": GAP,
    "squad": QUESTION,
    "squad_v2": QUESTION,
}


UNASKED = {"id": "unasked", "answers": None}
BLIND = {part: value for part, value in QUESTION.items() if part != "answers"}
UNANSWERED = {"id": "none", "answers": {"text": [], "answer_start": []}}


def answer(text, start):
    return {"id": "other", "answers": {"text": [text], "answer_start": [start]}}


ROWS = {
    "fewer tags than tokens": ("conll03", {"ner_tags": ["O"]}, "row 1: 3 tokens, but 1 tags in column 'ner_tags'"),
    "more tags than tokens": ("conll03", {"ner_tags": ["O"] * 4}, "row 1: 3 tokens, but 4 tags"),
    "no tags": ("conll03", {"ner_tags": None}, "row 1: 3 tokens, but no tags"),
    "a tag of BIOES": ("conll03", {"ner_tags": ["S-PER", "O", "O"]}, "row 1, word 0: column 'ner_tags' is 'S-PER'"),
    "an unknown type": ("conll03", {"ner_tags": ["O", "O", "B-CAR"]}, "row 1, word 2: column 'ner_tags' is 'B-CAR'"),
    "a number outside": ("ontonotes5", {"tags": [0, 37]}, "row 1, word 1: column 'tags' is 37"),
    "a negative number": ("ontonotes5", {"tags": [0, -2]}, "row 1, word 1: column 'tags' is -2"),
    "an unlabelled word": ("ontonotes5", {"tags": [0, -1]}, "row 1, word 1: .*-1"),
    "IOB1 among IOB2": ("conll03", {"ner_tags": ["O", "I-PER", "O"]}, r"row 1, word 1: I-PER .*IOB1.*IOB2 \(row 0, word 0\)"),
    "an entity outside": ("conll04", {"entities": [{"start": 1, "end": 3, "type": "Loc"}]}, "row 1: the entity from 1 to 3"),
    "an entity of no type": ("conll04", {"entities": [{"start": 0, "end": 1, "type": "Per"}]}, "row 1: the entity type 'Per'"),
    "fewer roles than words": ("conll05", {"tags": ["B-V"]}, "row 1: 6 tokens, but 1 tags in column 'tags'"),
    "an unknown role": ("conll05", {"tags": ["B-A9", "B-V", "O", "O", "O", "O"]}, "row 1, word 0: the tag 'B-A9'"),
    "no role notation": ("conll05", {"tags": ["A0", "B-V", "O", "O", "O", "O"]}, "row 1, word 0: the tag 'A0'"),
    "IOB1 roles": ("conll05", {"tags": ["I-A0", "B-V", "O", "O", "O", "O"]}, "row 1, word 0: I-A0 .*IOB1"),
    "a predicate behind the end": ("conll05", {"predicate": 6}, "row 1: column 'predicate' is 6, .* 6 words"),
    "a predicate before the start": ("conll05", {"predicate": -1}, "row 1: column 'predicate' is -1"),
    "no predicate": ("conll05", {"predicate": None}, "row 1: column 'predicate' is None"),
    "a predicate in words": ("ewt_srl", {"predicate": "gave"}, "row 1: column 'predicate' is 'gave'"),
    "a predicate that is no verb": ("conll05", {"predicate": 0}, "row 1: the predicate, word 0, has the tag 'B-A0', not 'B-V'"),
    "several right choices": ("copa", {"label": [0, 1]}, "row 1: column 'label' names 2 right choices"),
    "a third choice": ("copa", {"label": 2}, "row 1: column 'label' is 2"),
    "neither cause nor effect": ("copa", {"question": "reason"}, "row 1: column 'question' is 'reason', not one of cause"),
    "a word behind its sentence": ("wic", {"end1": 17}, "row 1: columns start1 and end1 give 4 to 17, outside the 16 char"),
    "an empty word": ("wic", {"start2": 6}, "row 1: columns start2 and end2 give 6 to 6"),
    "a word without a place": ("wic", {"start1": None}, "row 1: columns start1 and end1 give None to 9"),
    "a noun behind the text": ("wsc", {"span1_index": 5}, "row 1: column 'span1_index' is 5, and the text has 5 words"),
    "a pronoun before the text": ("wsc", {"span2_index": -1}, "row 1: column 'span2_index' is -1"),
    "no idx": ("multirc", {"idx": 7}, "row 1: column 'idx' must hold paragraph, question and answer, not 7"),
    "half an idx": ("multirc", {"idx": {"paragraph": 0, "question": 0}}, "row 1: column 'idx' must hold"),
    "one idx for two questions": ("multirc", {"question": "Where?"}, "row 1: paragraph 0, question 0 stands there"),
    "entities that are one text": ("record", {"entities": "Ann, Bo"}, "row 1: column 'entities'"),
    "answers that are one text": ("record", {"answers": "Ann"}, "row 1: column 'answers'"),
    "an answer of a question twice": ("multirc", {"answer": "Bo"}, "row 1: paragraph 0, question 0 has answer 0 twice"),
    "no placeholder": ("record", {"query": "Who met Bo"}, "row 1: column 'query' has no @placeholder"),
    "no entities": ("record", {"entities": []}, "row 1: column 'entities' is empty"),
    "an answer elsewhere": ("squad", answer("Oslo", 4), "row 1: column 'answers' puts 'Oslo' at 4, where .* says 'live'"),
    "an answer behind the end": ("squad", answer("Oslo", 99), "row 1: column 'answers' has answer_start 99, outside .* 18"),
    "an answer before the start": ("squad", answer("Oslo", -4), "row 1: column 'answers' has answer_start -4, outside"),
    "an answer over the end": ("squad", answer("Oslo. And more", 13), "row 1: column 'answers' puts 'Oslo. And more' at 13"),
    "no answer where all have one": ("squad", UNANSWERED, "row 1: column 'answers' is empty"),
    "a title that is a list": ("squad", {"id": "other", "title": ["a"]}, r"row 1: column 'title' must be text, not \['a'\]"),
    "a title of nothing in a list": ("squad", {"id": "other", "title": []}, r"row 1: column 'title' must be text, not \[\]"),
    "half a character": ("sst2", {"sentence": "cut \ud83d"}, r"row 1: column 'sentence' has half of .*'\\ud83d', as character 4"),
    "half a character in a word": ("conll03", {"tokens": ["Ann", "\ude00", "x"]}, "row 1: column 'tokens' has half of"),
    "half a character in a question": ("squad", {"id": "other", "question": "\ud83d?"}, "row 1: column 'question' has half of"),
    "half a character in a choice": ("copa", {"choice2": "He \ud83d"}, "row 1: column 'choice2' has half of"),
    "half a character in an id": ("squad", {"id": "\ud83d"}, "row 1: column 'id' has half of"),
    "an id twice": ("squad", {}, "row 1: column 'id' repeats 'q0' of row 0"),
    "an id twice in 2.0": ("squad_v2", {}, "row 1: column 'id' repeats 'q0' of row 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_broken_row_is_named(case, tmp_path):
    name, change, words = ROWS[case]
    good = GOOD[name]
    path = folder(tmp_path, train=[good], validation=[good, good | change])
    assert "validation.jsonl" in refused(name, path, words)


PARQUET = {
    "the predicate is missing": ("conll05", [GAVE, GAVE | {"predicate": None}], "row 1: column 'predicate' is None"),
    "the predicate has become a fraction": ("conll05", [GAVE | {"predicate": 1.5}], "row 0: column 'predicate' is 1.5"),
    "an offset past the end": ("squad", [QUESTION | answer("Oslo", 99)], "row 0: column 'answers' has answer_start 99"),
    "a label that is null": (
        "sst2",
        [*SENTENCES, {"sentence": "x", "label": None}],
        "row 40: column 'label' is None, which is no label",
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_a_broken_row_of_a_parquet_file_is_named(case, tmp_path):
    name, rows, words = PARQUET[case]
    folder(tmp_path, train=[GOOD[name]])
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "validation.parquet")
    assert "validation.parquet" in refused(name, tmp_path, words)


def cut(text, share=0.6):
    return text[: int(len(text) * share)]


JSON_LINES = lines(SENTENCES)
BLIND_ROWS = [{part: row[part] for part in row if part != "answers"} for row in squad_rows("b")]
SQUAD = json.dumps(squad("a"))
SQUAD_LINES = json.dumps(squad("a"), indent=1)
DEEP = "[" * 100_000


def squad_with(**parts):
    """SQuAD's JSON of one question, with other parts at the level that has their names; `...` takes a part away."""
    question = {"id": "q", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}
    paragraph = {"context": "Ann", "qas": [question]}
    article = {"title": "t", "paragraphs": [{"context": "", "qas": []}, paragraph]}
    document = {"data": [article]}
    for level in (question, paragraph, article, document):
        for name in level.keys() & parts.keys():
            level[name] = parts[name]
            if parts[name] is ...:
                del level[name]
    return json.dumps(document)


def props(*rows):
    """A good sentence of CoNLL-2005 and one of these rows behind it, from line 5 on."""
    return "Ann - (A0*)\nran run (V*)\noff - *\n\n" + "".join(row + "\n" for row in rows)


IN_QUESTION = "train.json, article 0, paragraph 1, question 0: "
GZ = gzip.compress(IOB2.encode() * 20, mtime=0)
FILES = {
    "half a line of JSON": ("sst2", "train.jsonl", JSON_LINES[:-9], "train.jsonl, line 40, cannot be read"),
    "half of SQuAD": ("squad", "train-v1.1.json", cut(SQUAD), "train-v1.1.json cannot be read"),
    "half of SQuAD, written in lines": ("squad", "train.json", cut(SQUAD_LINES), "train.json cannot be read"),
    "a list of rows": ("sst2", "train.json", json.dumps(SENTENCES), "train.json must hold one JSON object a line"),
    "a line that is no object": ("sst2", "train.jsonl", JSON_LINES + "3\n", "train.jsonl, line 41, must hold one JSON object"),
    "SQuAD without questions": ("squad", "train.json", '{"data": [{"paragraphs": [{"context": "x"}]}]}', "train.json.*'qas'"),
    "SQuAD of texts": ("squad", "train.json", squad_with(data=["x"]), r"train.json: 'data' must be a list of .*, not \['x'\]"),
    "SQuAD without paragraphs": ("squad", "train.json", squad_with(paragraphs=...), "json, article 0: 'paragraphs' is missing"),
    "SQuAD of bare questions": ("squad", "train.json", squad_with(qas=["q"]), r"0, paragraph 1: 'qas' must .*, not \['q'\]"),
    "SQuAD with null questions": ("squad", "train.json", squad_with(qas=None), "0, paragraph 1: 'qas' must be .*, not None"),
    "SQuAD without a context": ("squad", "train.json", squad_with(context=...), "paragraph 1: 'context' is missing"),
    "SQuAD without an id": ("squad", "train.json", squad_with(id=...), f"{IN_QUESTION}'id' is missing"),
    "SQuAD with bare answers": ("squad", "train.json", squad_with(answers="Ann"), f"{IN_QUESTION}'answers' must be a list"),
    "SQuAD without offsets": ("squad", "train.json", squad_with(answers=[{"text": "Ann"}]), f"{IN_QUESTION}'answer_start' is"),
    "SQuAD with a title in a list": ("squad", "train.json", squad_with(title=["a"]), "train.json, row 0: column 'title'"),
    "SQuAD with null answers": ("squad", "train.json", squad_with(answers=None), "a label .*json, row 0, .*'answers'"),
    "SQuAD 2.0 without answers": ("squad_v2", "train.json", squad_with(answers=...), "a label .*json, row 0, .*'answers'"),
    "questions without answers": ("squad", "train.jsonl", lines([QUESTION, QUESTION | UNASKED]), "without a label .*row 1, "),
    "no answers at all": ("squad_v2", "train.jsonl", lines([BLIND]), "train.jsonl has no column 'answers'; it has title"),
    "deep brackets": ("sst2", "train.json", DEEP, "train.json cannot be read: its brackets are nested too deeply"),
    "deep brackets in a line": ("sst2", "train.jsonl", JSON_LINES + DEEP, "train.jsonl, line 41, .* nested too deeply"),
    "half a sentence of columns": ("conll03", "train.txt", IOB2[:-8], "train.txt, line 9, word 0: column 'ner_tags' is 'B-'"),
    "half a line of columns": ("conll03", "train.txt", "Ann NNP B-NP B-PER\nmet VB", "train.txt, line 1: .* 2 to 4 columns"),
    "a word alone": ("conll03", "train.txt", "Ann\nmet\n", "train.txt, line 1: a word and its tag"),
    "columns of another task": ("conll03", "train.txt", IOB2.replace("B-LOC", "B-GPE"), "train.txt, line 9, word 0: .*'B-GPE'"),
    "mixed notations in columns": ("conll03", "train.txt", IOB2.replace("B-LOC", "I-LOC"), "train.txt, line 9, word 0: I-LOC"),
    "half a props sentence": ("conll05", "train.txt", COMBINED[:95], "train.txt, line 1: "),
    "props without their verb": ("conll05", "train.txt", COMBINED.replace("(V*)", "*"), "train.txt, line 1: no column of target"),
    "a verb off its target": ("conll05", "train.txt", props("Li - (V*)", "ran run *"), "line 5: the target is word 1, .*word 0"),
    "verbs in exchange": (
        "conll05",
        "train.txt",
        props("sat sit (A1*) (V*)", "ran run (V*) *"),
        "train.txt, line 5: the target is word 0, but its column has .* at word 1",
    ),
    "two verbs in a column": ("conll05", "train.txt", props("Li - (V*)", "ran run (V*)"), "line 5: .* word 1 has 2 verbs"),
    "an end of nothing": ("conll05", "train.txt", props("Li - *)", "ran run (V*)"), r"line 5, word 0: \*\) is neither a start"),
    "an end of another role": ("conll05", "train.txt", props("Li - (A0*A1)", "ran run (V*)"), r"line 5, word 0: \(A0\*A1\) is"),
    "signs around a star": ("conll05", "train.txt", props("Li - x*y", "ran run (V*)"), r"line 5, word 0: x\*y is neither"),
    "a role in a role": ("conll05", "train.txt", props("Li - (A0(A1*)", "ran run (V*)"), r"line 5, word 0: \(A0\(A1\*\) is"),
    "an open bracket": ("conll05", "train.txt", "Ann - (A0*\nran run (V*)\n", "train.txt, line 1, word 1: .*opens inside A0"),
    "a bracket that stays open": ("conll05", "train.txt", "Ann - *\nran run (V*\n", "train.txt, line 1: the bracket of V"),
    "a lined row without its sign": ("conll05", "train.txt", "1 a ran ||| B-A0 B-V\n1 Ann ran\n", "train.txt, line 2: expected"),
    "a lined row with a raised index": ("conll05", "train.txt", "² Ann ran ||| B-A0 B-V\n", "train.txt, line 1: expected"),
    "a lined row with a long index": ("conll05", "train.txt", "9" * 5000 + " Ann ||| B-V\n", "train.txt, line 1: expected"),
    "a lined row without its index": ("conll05", "train.txt", "Ann ran ||| B-A0 B-V\n", "train.txt, line 1: expected"),
    "a lined row of nothing": ("conll05", "train.txt", "1 a ran ||| B-A0 B-V\n ||| \n", "train.txt, line 2: expected"),
    "a lined row cut short": ("conll05", "train.txt", "1 Ann ran ||| B-A0\n", "train.txt, line 1: 2 tokens, but 1 tags"),
    "a gold_conll cut short": ("conll12", "train.gold_conll", cut(GOLD_CONLL, 0.2), "train.gold_conll, line 2: "),
    "a gold_conll cut at the end of a line": (
        "conll12",
        "train.gold_conll",
        "".join(GOLD_CONLL.splitlines(keepends=True)[:3]),
        "train.gold_conll ends inside the document that begins in line 1",
    ),
    "a gold_conll cut at the end of a sentence": (
        "conll12",
        "train.gold_conll",
        GOLD_CONLL[: GOLD_CONLL.index("#end")],
        "train.gold_conll ends inside the document that begins in line 1",
    ),
    "a document in a document": (
        "conll12",
        "train.gold_conll",
        GOLD_CONLL.replace("#end document\n", "", 1),
        "train.gold_conll, line 12: the document of line 1 has not ended",
    ),
    "an answer to what cannot be answered": (
        "squad_v2",
        "train.json",
        squad_with().replace('"id": "q"', '"id": "q", "is_impossible": true'),
        f"{IN_QUESTION}'is_impossible' is true, and 'answers' has an answer",
    ),
    "a gold_conll of few columns": ("conll12", "train.gold_conll", "#begin document (x)\nx 0 0 A\n", "train.gold_conll, line"),
    "predicates without columns": (
        "conll12",
        "train.gold_conll",
        GOLD_CONLL.replace("set   03", "set   - "),
        "train.gold_conll, line 2: 1 predicates, but 2 columns",
    ),
    "TSV of another task": ("mnli", "train.tsv", "sentence\tlabel\nx\t1\n", "train.tsv has the columns sentence, label"),
    "TSV with a label outside": ("sst2", "train.tsv", "sentence\tlabel\nx\t1\ny\t2\n", "train.tsv, line 3: column 'label' is 2"),
    "TSV with two minus signs": ("sst2", "train.tsv", "sentence\tlabel\nx\t--1\n", "train.tsv, line 2: column 'label' is '--1'"),
    "TSV with a raised label": ("sst2", "train.tsv", "sentence\tlabel\nx\t²\n", "train.tsv, line 2: column 'label' is '²'"),
    "TSV with a long label": ("sst2", "train.tsv", f"sentence\tlabel\nx\t{'9' * 5000}\n", "line 2: column 'label' is '9"),
    "TSV cut short": ("sst2", "train.tsv", "sentence\tlabel\nx\t1\nnice mov\n", "train.tsv, line 3: 1 columns, .* has 2"),
    "TSV with a tab too many": ("sst2", "train.tsv", "sentence\tlabel\nx\ty\t1\n", "train.tsv, line 2: 3 columns, .* has 2"),
    "TSV with a header alone": ("sst2", "train.tsv", "sentence\tlabel\n", "train.tsv has no rows"),
    "an ending that nobody reads": ("sst2", "train.csv", "sentence,label\nx,1\n", "train.csv must be"),
    "an empty file": ("conll03", "train.txt", "", "train.txt is empty"),
    "an empty TSV": ("sst2", "train.tsv", " \n", "train.tsv is empty"),
    "an empty parquet": ("sst2", "train.parquet", b"", "train.parquet cannot be read"),
    "Latin-1": ("conll03", "train.txt", "Ann B-PER\ncafé O\n".encode("latin-1"), "train.txt, line 2, is not UTF-8"),
    "UTF-16": ("sst2", "train.jsonl", JSON_LINES.encode("utf-16"), "train.jsonl, line 1, is not UTF-8"),
    "Latin-1 JSON": ("sst2", "train.jsonl", JSON_LINES.encode() + b'{"sentence": "caf\xe9"}', "train.jsonl, line 41, is not"),
    "gzip in disguise": ("conll03", "train.txt", GZ, r"train.txt is packed with gzip"),
    "gzip in the disguise of JSON": ("sst2", "train.jsonl", GZ, "train.jsonl is packed with gzip"),
    "gzip in the disguise of parquet": ("sst2", "train.parquet", GZ, "train.parquet cannot be read"),
    "gzip by name alone": ("conll03", "train.txt.gz", IOB2, "train.txt.gz cannot be read"),
    "half a gzip": ("conll03", "train.txt.gz", cut(GZ), "train.txt.gz cannot be read"),
    "a gzip with a wrong byte": ("conll03", "train.txt.gz", GZ[:14] + b"\xff" * 4 + GZ[18:], "train.txt.gz cannot be read"),
    "a gzip with a wrong sum": ("conll03", "train.txt.gz", GZ[:-8] + b"\0" * 8, "train.txt.gz cannot be read"),
    "a folder that is empty": ("conll03", "train", {}, "train"),
    "a folder of words alone": ("conll05", "train", {"words": {"a.words": WORDS}}, "a.words, line 1"),
    "words and props of other files": ("conll05", "train", {"words": {"a": WORDS, "b": WORDS}, "props": {"a": PROPS}}, "train"),
    "words and props of other lengths": ("conll05", "train", {"words": {"a": WORDS}, "props": {"a": PROPS[:9]}}, "lines"),
    "the validation twice": ("sst2", "valid.jsonl", JSON_LINES, r"Both .*dev\.jsonl and .*valid\.jsonl"),
    "the validation in two forms": ("conll03", "eng.testa", IOB2, r"Both .*dev\.txt and .*eng\.testa"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file_is_named(case, tmp_path):
    task, name, content, words = FILES[case]
    if name.endswith(("jsonl", "tsv", "json", "parquet", "csv")):
        files(tmp_path, **{"dev.jsonl": lines([GOOD.get(task, {"premise": "a", "hypothesis": "b", "label": 0})])})
        if name == "valid.jsonl":
            files(tmp_path, **{"train.jsonl": JSON_LINES})
    else:
        dev = {"conll03": IOB2, "conll05": COMBINED, "conll12": GOLD_CONLL}[task]
        files(tmp_path, **{"dev.txt": dev} | ({"train.txt": dev} if name == "eng.testa" else {}))
    files(tmp_path, **{name: content})
    refused(task, tmp_path, words)


def test_missing_splits(tmp_path):
    assert "no validation split" in refused("sst2", folder(tmp_path / "a", train=SENTENCES), "^a ")
    assert "no train split" in refused("sst2", folder(tmp_path / "b", validation=SENTENCES), "^b ")
    refused("sst2", folder(tmp_path / "c"), "c holds no split")
    refused("sst2", folder(tmp_path / "d", notes=SENTENCES), "d holds no split")
    refused("sst2", tmp_path / "none", "none does not exist")
    refused("sst2", folder(tmp_path / "f", train=SENTENCES) / "train.jsonl", "train.jsonl does not exist")
    alone = load_task("sst2", dataset=folder(tmp_path / "e", test=SENTENCES))
    with pytest.raises(DataError, match="e has no train split, which training needs; it has test"):
        alone.split()


UNLABELLED = {
    "sst2": {"label": -1},
    "copa": {"label": -1},
    "wic": {"label": -1},
    "multirc": {"label": -1},
    "record": {"answers": []},
    "squad": {"answers": None},
    "squad_v2": {"answers": None},
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_an_unlabelled_test_is_kept_and_never_scored(name, tmp_path):
    good = [GOOD[name] | {"sentence": f"a film {k}"} for k in range(12)] if name == "sst2" else [GOOD[name]] * 12
    if name in ("multirc", "record"):  # every row a passage of its own
        column = "paragraph" if name == "multirc" else "passage"
        parts = ("paragraph", "passage", "question", "query", "answer")
        good = [row | {column: f"{row[column]} {k}", "idx": dict.fromkeys(parts, k)} for k, row in enumerate(good)]
    if name in ("squad", "squad_v2"):
        good = [row | {"id": str(k), "title": f"article {k}"} for k, row in enumerate(good)]
    blind = [row | UNLABELLED[name] for row in good]
    task = load_task(name, dataset=folder(tmp_path / "a", train=good, validation=good, test=blind))
    assert len(task.rows["test"]) == 12
    assert task.split().test == task.rows["validation"] and task.split("paper").test is None
    for split in ("train", "validation"):
        splits = {"train": good, "validation": good} | {split: [*good[1:], blind[0]]}
        refused(name, folder(tmp_path / split, **splits), f"The {split} split of {split} has rows without a label")


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
@pytest.mark.parametrize("form", ["SQuAD's JSON", "JSON lines", "parquet"])
def test_a_test_without_answers_is_answered_and_never_scored(name, form, tmp_path):
    """To leave the answers out is not to say that there are none."""
    good = [QUESTION | {"id": f"t{k}", "title": f"article {k}"} for k in range(12)]
    path = folder(tmp_path, train=good, validation=[QUESTION])
    if form == "SQuAD's JSON":
        blind = squad("b")
        for paragraph in blind["data"][0]["paragraphs"]:
            for question in paragraph["qas"]:
                del question["answers"]
        files(path, **{"test.json": json.dumps(blind)})
    elif form == "JSON lines":
        folder(path, test=[row | {"answers": None} if row["id"] == "b0" else row for row in BLIND_ROWS])
    else:
        datasets.Dataset.from_list([row | {"answers": None} for row in BLIND_ROWS]).to_parquet(path / "test.parquet")
    task = load_task(name, dataset=path)
    assert task.rows["test"] == [row | {"answers": None} for row in BLIND_ROWS]
    split = task.split()
    assert split.test == task.rows["validation"] and task.split("paper").test is None
    assert not task.family.strata(task.rows["test"][0])
    model = pt.build_model(task, backbone="tiny", method="pt2", prompt_length=2)
    told = json.loads(pt.write_predictions(model, task, tmp_path / "out" / "answers.json").read_text(encoding="utf-8"))
    assert list(told) == ["b0", "b1", "b2"]
    assert len(model.predict(task.rows["test"])) == 3
    with pytest.raises(DataError, match=f"^Rows of {name} without 'answers' cannot be scored"):
        task.family.score([{"text": "", "no_answer": 1.0}] * 3, task.rows["test"])


UNLABELLED_ROWS = {
    "sst2": ({"sentence": "x"}, 0),
    "copa": ({part: COPA[part] for part in COPA if part != "label"}, 0),
    "multirc": ({part: CHOICE[part] for part in CHOICE if part != "label"}, [1]),
    "record": (GAP | {"answers": []}, "Ann"),
}


@pytest.mark.parametrize("name", UNLABELLED_ROWS)
def test_rows_without_gold_answers_are_not_scored(name):
    row, predicted = UNLABELLED_ROWS[name]
    rows = TASKS[name].read(Table([row], {}, "x"))
    with pytest.raises(DataError, match=f"^Rows of {name} without '{TASKS[name].label_column}' cannot be scored"):
        TASKS[name].score([predicted], rows)


def test_half_a_character_in_an_example_is_refused():
    for name, example, column in (
        ("sst2", {"sentence": "cut \ud83d"}, "sentence"),
        ("squad", {"question": "Who?", "context": "Ann \ud83d"}, "context"),
        ("multirc", {"paragraph": "Ann \ud83d", "question": "Who?", "answers": ["Ann"]}, "paragraph"),
    ):
        with pytest.raises(
            DataError, match=rf"^The example.*: column '{column}' has half of a surrogate pair, '\\ud83d'"
        ):
            TASKS[name].prepare(example)


def test_a_further_test_without_labels_is_not_scored(tmp_path):
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    train = [row | {"premise": f"a {number}"} for number in range(20)]
    splits = {"train": train, "dev_matched": [row], "dev_mismatched": [row], "test_matched": [row | {"label": -1}]}
    task = load_task("mnli", dataset=folder(tmp_path, **splits, test_mismatched=[row | {"label": -1}]))
    assert set(task.split().further) == {"validation_mismatched"}


def test_a_row_is_named_by_its_own_file_and_line(tmp_path):
    shards = {"train-00000-of-00002": SENTENCES, "train-00001-of-00002": [*SENTENCES[:3], SENTENCES[0] | {"label": 7}]}
    said = refused(
        "sst2", folder(tmp_path / "a", **shards, validation=SENTENCES), "row 3: column 'label' is 7, not one of"
    )
    assert "train-00001-of-00002.jsonl" in said
    texts = {"a__gold_conll": GOLD_CONLL, "b__gold_conll": GOLD_CONLL.replace("PERSON", "HERO")}
    path = files(tmp_path / "b", train=texts, development=texts)
    said = refused("ontonotes5", path, "line 2, word 0: column 'ner_tags' is 'B-HERO'")
    assert "b.gold_conll" in said
    second = multirc(True) | {"idx": 3}
    second["passage"] = second["passage"] | {"questions": [{"question": "Who?", "idx": 0, "answers": [{"text": "Bo"}]}]}
    refused(
        "multirc",
        folder(tmp_path / "c", train=[multirc(True), second], val=[multirc(True)]),
        "train.jsonl, row 1: 'idx'",
    )


@pytest.mark.parametrize("name", ["sst2", "wic", "wsc", "copa"])
def test_a_row_s_number_twice_is_named(name, tmp_path):
    rows = [GOOD[name] | {"idx": number} for number in (4, 7, 4)]
    refused(
        name, folder(tmp_path, train=rows[:2], validation=rows), "validation.*row 2: column 'idx' repeats 4 of row 0"
    )


def test_a_query_twice_and_an_entity_outside_its_passage_are_named(tmp_path):
    rows = [GAP | {"idx": {"passage": 0, "query": 0}}] * 2
    refused("record", folder(tmp_path / "a", train=rows, validation=rows), "row 1: column 'idx' repeats")
    passage = {"text": "Ann met Bo.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 11}]}
    row = {"idx": 0, "passage": passage, "qas": [{"idx": 0, "query": "@placeholder met Bo", "answers": []}]}
    words = "row 0: the entity from 8 to 11 lies outside its passage of 11 characters"
    refused("record", folder(tmp_path / "b", train=[row], validation=[row]), words)


@pytest.mark.parametrize(
    ("start", "end", "found"), [(7, 9, " Bo"), (9, 11, "o."), (-3, -1, ""), (-1, 2, "Ann"), (2, 1, "")]
)
def test_an_answer_of_record_that_is_not_at_its_place_is_named(start, end, found, tmp_path):
    row = RAW["record (raw)"]
    answer = {"start": start, "end": end, "text": "Ann" if end > start else ""}
    bad = row | {"qas": [row["qas"][0] | {"answers": [answer]}]}
    words = f"row 0: 'answers' puts '{answer['text']}' at {start}, where the passage says '{found}'"
    refused("record", folder(tmp_path, train=[row], validation=[bad]), words)


LARGE_CONTEXT = """
import resource, sys
import psutil
import ptv2lib as pt

pt.load_task("squad", source="miniature")  # whatever is imported on the way is there now
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000, resource.RLIM_INFINITY))
try:
    pt.load_task("squad", dataset=sys.argv[1])
except pt.PtvError as error:
    print(error)
"""


def test_a_context_longer_than_memory_is_named_before_it_is_tokenized(tmp_path):
    row = QUESTION | {"context": QUESTION["context"] + " word" * 600_000, "id": "long"}
    path = folder(tmp_path, train=[QUESTION, row], validation=[QUESTION])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LARGE_CONTEXT, path], capture_output=True, text=True)
    words = r"train.jsonl, row 1: column 'context' has 3,000,018 characters; to tokenize them takes about 0.7 GiB, and 0.\d GiB"
    assert re.search(words, done.stdout), done.stdout + done.stderr


# What owners give out and what is kept


COUNTED = {
    "sst2": {"repeated": 1, "empty": 1},
    "conll03": {"repeated": 1, "empty": 1},
    "conll05": {"repeated": 1, "alone": 1, "continued": 1},
    "copa": {"repeated": 1},
    "wic": {"repeated": 1},
    "wsc": {"repeated": 1},
    "record": {"repeated": 1},
    "squad_v2": {"repeated": 1},
}


def test_what_is_odd_but_given_out_is_kept_and_counted(tmp_path):
    alone = GAVE | {"tags": ["O", "B-V", "O", "O", "O", "O"]}
    kept = {
        "sst2": [SENTENCES[0], SENTENCES[0], {"sentence": "", "label": 1}],
        "conll03": [TAGS, TAGS, {"tokens": [], "ner_tags": []}, {"tokens": ["", "x"], "ner_tags": ["O", "O"]}],
        "conll05": [GAVE, GAVE, alone, SAID],
        "copa": [COPA, COPA],
        "wic": [WIC, WIC],
        "wsc": [WSC, WSC, WSC | {"span1_text": "mark."}],
        "record": [GAP, GAP, GAP | {"answers": ["Bo", "Bo"]}],
        "squad_v2": [QUESTION | {"id": str(k)} for k in range(2)] + [QUESTION | UNANSWERED],
    }  # fmt: skip
    for name, rows in kept.items():
        task = load_task(name, dataset=folder(tmp_path / name, train=rows, validation=rows))
        assert len(task.rows["train"]) == len(rows), name
        odd = {count: number for count, number in task.family.peculiar(task.rows["train"]).items() if number}
        assert odd == COUNTED[name], name
    assert load_task("multirc", dataset=folder(tmp_path / "multirc", train=[multirc(True)], val=[multirc(True)])).rows[
        "train"
    ][1]["answers"] == [""]


def test_a_sentence_without_words_is_encoded_and_told_about(tmp_path):
    rows = [TAGS, {"tokens": [], "ner_tags": []}]
    task = load_task("conll03", dataset=folder(tmp_path, train=rows, validation=rows))
    model = build_model(task, backbone="tiny", method="probe")
    encoded = model.encode(task.rows["train"])
    assert (encoded[1][0].labels == -100).all()
    assert model.decode(encoded, task.rows["train"])[1] == []


def test_a_multirc_answer_that_stands_there_twice_is_counted_twice(tmp_path):
    twice = [CHOICE, CHOICE | {"idx": CHOICE["idx"] | {"answer": 1}}]
    (row,) = load_task("multirc", dataset=folder(tmp_path, train=twice, validation=twice)).rows["train"]
    assert row["answers"] == ["Ann", "Ann"] and row["labels"] == [1, 1]


# Mutations: whatever is done to the data, they load or are refused with one sentence


def outcome(load):
    """None, or what went wrong other than a DataError of one sentence."""
    try:
        load()
    except DataError as error:
        return f"more than one line: {error}" if "\n" in str(error) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def paths_in(value, at=()):
    """Every place in nested lists and dicts."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from paths_in(one, (*at, key))


def changed(row, at, value):
    """A copy with another value at one place; `...` takes it away."""
    row = copy.deepcopy(row)
    inside = row
    for key in at[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[at[-1]]
    else:
        inside[at[-1]] = value
    return row


RAW = {name: row for name, row in GOOD.items() if name != "ewt_srl"} | {
    "multirc (raw)": multirc(True),
    "record (raw)": {
        "passage": {"text": "Ann met Bo.", "entities": [{"start": 0, "end": 2}]},
        "qas": [{"query": "@placeholder met Bo", "idx": 0, "answers": [{"start": 0, "end": 2, "text": "Ann"}]}],
        "idx": 0,
    },
    "wsc (raw)": {"text": WSC["text"], "label": True, "target": {k: v for k, v in WSC.items() if "span" in k}},
    "conll12": {
        "document_id": "x",
        "sentences": [{"words": ["Ann", "ran"], "srl_frames": [{"verb": "ran", "frames": ["B-ARG0", "B-V"]}]}],
    },
    "squad_v2 (a list of answers)": QUESTION | {"answers": [{"text": "Oslo", "answer_start": 13}]},
}
VALUES = (None, True, 3, -5, 10**20, 1.5, "x", "", [], ["x"], [None], {}, {"x": 1}, ...)


@pytest.mark.parametrize("name", RAW)
@pytest.mark.filterwarnings("ignore")
def test_no_change_of_one_value_ends_in_a_traceback(name):
    family, row = TASKS[name.split(" (")[0]], RAW[name]
    wrong = []
    for at in paths_in(row):
        for value in VALUES:
            rows = [changed(row, at, value)]
            said = outcome(
                lambda rows=rows: family.with_labels_of({"train": Table(rows, {}, "x")}).read(Table(rows, {}, "x"))
            )
            if said:
                wrong.append(f"{'.'.join(map(str, at))} = {value!r}: {said}")
    assert not wrong, f"{len(wrong)} changes, among them\n" + "\n".join(wrong[:: len(wrong) // 12 + 1])


TEXTS = {
    "train.tsv": ("sst2", "sentence\tlabel\ngood\t1\nbad film\t0\n"),
    "train.jsonl": ("sst2", lines(SENTENCES[:4])),
    "train-v1.1.json": ("squad", SQUAD),
    "train.txt": ("conll03", IOB2),
    "conll05.train.txt": ("conll05", COMBINED),
    "lined.train.txt": ("conll05", "1 Ann ran ||| B-A0 B-V\n0 Go home ||| B-V B-A1\n"),
    "train.gold_conll": ("conll12", GOLD_CONLL),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.filterwarnings("ignore")
def test_no_damage_to_a_file_ends_in_a_traceback(name, tmp_path):
    """Cut anywhere, and with bytes that are lost, doubled or exchanged; packed as well."""
    task, text = TEXTS[name]
    draw, wrong = random.Random(0), []
    whole = text.encode()
    pool = [
        b"",
        b"\n",
        b"\t",
        b" ",
        b"\r",
        b"\0",
        b'"',
        b"*",
        b"(",
        b")",
        b"-",
        b"|||",
        b"{",
        b"[",
        b"\xff",
        b"\xc2\x85",
        b"9" * 30,
    ]
    damaged = [whole[: draw.randrange(1, len(whole))] for _ in range(25)]
    for _ in range(90):
        at, length = draw.randrange(len(whole)), draw.choice([0, 1, 1, 5])
        damaged.append(whole[:at] + draw.choice(pool) + whole[at + length :])
    packed = gzip.compress(whole, mtime=0)
    packed = [
        packed[:at] + bytes([packed[at] ^ 1 << draw.randrange(8)]) + packed[at + 1 :] for at in range(0, len(packed), 5)
    ]
    for ending, contents in (("", damaged), (".gz", packed if name.endswith("txt") else [])):
        path = tmp_path / f"x{ending}"
        path.mkdir()
        for content in contents:
            (path / f"{name}{ending}").write_bytes(content)
            said = outcome(
                lambda path=path: load_task(task, dataset=files(path, **{f"dev{name[name.rindex('.') :]}": text}))
            )
            if said:
                wrong.append(f"{content[-60:]!r}: {said}")
    assert not wrong, f"{len(wrong)} of {len(damaged) + len(packed)}\n" + "\n".join(wrong[:5])


@pytest.mark.filterwarnings("ignore")
def test_half_a_parquet_file_is_refused(tmp_path):
    folder(tmp_path, dev=SENTENCES)
    datasets.Dataset.from_list(SENTENCES).to_parquet(tmp_path / "train.parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        (tmp_path / "train.parquet").write_bytes(whole[:length])
        refused("sst2", tmp_path, "train.parquet cannot be read")


# Predictions


def test_ill_formed_predictions_are_scored():
    """A model may say anything: inside tags that open nothing, no verb or two, answers that are not in the text."""
    tags = [["I-PER", "I-LOC", "O"], ["I-MISC"] * 3, ["B-PER", "I-LOC", "I-PER"]]
    scores = TASKS["conll03"].score(tags, [{"tags": ["B-PER", "I-PER", "O"]}] * 3)
    assert scores["f1"] == 0.0
    assert TASKS["conll03"].score([["I-PER", "I-PER", "O"]], [{"tags": ["B-PER", "I-PER", "O"]}])["f1"] == 1.0
    said = [["I-A0", "I-C-A0", "O", "B-V", "B-V", "I-AM-TMP", "O", "I-C-V"], ["B-C-A2"] * 8, ["O"] * 8]
    assert 0 <= TASKS["conll05"].score(said, [SAID] * 3)["f1"] <= 1
    nothing = {"text": "", "no_answer": 3.0}
    scores = TASKS["squad_v2"].score([nothing, {"text": "nowhere", "no_answer": -1.0}], [QUESTION, QUESTION])
    assert scores["f1"] == 0.0
    assert TASKS["multirc"].score([[0, 0]], [{"labels": [0, 0]}]) == {"f1a": 0.0, "exact_match": 1.0}
    assert TASKS["record"].score([""], [GAP])["f1"] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_random_tags_are_scored_and_written(seed):
    draw = random.Random(seed)
    for name, row in (("conll03", {"tokens": TAGS["tokens"], "tags": TAGS["ner_tags"]}), ("conll05", SAID)):
        family = TASKS[name]
        said = [[draw.choice(family.labels) for _ in row["tokens"]] for _ in range(20)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert 0 <= family.score(said, [row] * 20)["f1"] <= 1
        assert family.submission(said[:1], [row]).count("\n") == len(row["tokens"]) + 1

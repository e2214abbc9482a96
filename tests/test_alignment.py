"""Words, pieces and characters agree for every kind of tokenizer: gold answers laid on pieces and read back are gold."""

import random
import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_tasks import folder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import ptv2lib as pt
from ptv2lib.encoding import IGNORED, Layout
from ptv2lib.tasks import TASKS
from ptv2lib.tasks.question_answering import LEAST_CONTEXT, LONGEST_ANSWER

TEXT = [
    "The ferry left the harbour at dawn, and nobody on the quay waved.",
    "Who gave the baker's daughter 25 letters? Her uncle (a sailor) did; he gave two more.",
    "In 1931 the river rose by three metres: the mill - once Dutch - was lost!",
    "Do the children know that the old lighthouse keeper reads Greek?",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
KINDS = ("wordpiece cased", "wordpiece uncased", "byte-level", "unigram", "plain")


def train(kind):
    """A tokenizer of one kind, trained on a few sentences."""
    options = {"vocab_size": 160, "special_tokens": SPECIAL, "show_progress": False}
    if kind.startswith("wordpiece"):
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.normalizer = normalizers.BertNormalizer(lowercase=kind.endswith("uncased"))
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer, template = trainers.WordPieceTrainer(**options), processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    elif kind == "byte-level":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options | {"vocab_size": 340}
        )
        template = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=True, add_prefix_space=True)
    elif kind == "unigram":
        raw = Tokenizer(models.Unigram())
        raw.normalizer = normalizers.NFKC()
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="[UNK]", **options)
        template = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    else:
        raw = Tokenizer(models.BPE(unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer, template = trainers.BpeTrainer(**options), None
    raw.train_from_iterator(TEXT, trainer)
    if template is not None:
        raw.post_processor = template
    inputs = ["input_ids", "attention_mask"] + ["token_type_ids"] * kind.startswith("wordpiece")
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=inputs, **NAMES)


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return train(request.param)


FAMILIAR = sorted({word for text in TEXT for word in text.split()})
# U+FFFD and the sign of the space are characters that tokenizers themselves take away.
SIGNS = st.characters(categories=("L", "N", "P", "S"), exclude_characters="\ufffd\u2581")
WORDS = st.one_of(
    st.sampled_from(FAMILIAR),
    st.text(string.punctuation, min_size=1, max_size=3),
    st.text(SIGNS, min_size=1, max_size=5),
)
SENTENCE = st.lists(WORDS, min_size=1, max_size=10)
many = settings(deadline=None, max_examples=25)


def seen(tokenizer, words):
    """Whether every word has pieces of its own: none is made of signs that the tokenizer takes away."""
    return set(range(len(words))) <= set(tokenizer(words, is_split_into_words=True).word_ids())


def perfect(encoded, labels):
    """Logits that say the gold label at each scored piece, and nonsense at every other."""
    logits = np.zeros((len(encoded), labels), np.float32)
    for piece, label in enumerate(encoded.labels):
        logits[piece, piece % labels if label == IGNORED else label] = 1
    return logits


# Tags


@many
@given(data=st.data())
def test_tags_come_back(tokenizer, data):
    family = TASKS["conll03"]
    tokens = data.draw(SENTENCE)
    assume(seen(tokenizer, tokens))
    tags = data.draw(st.lists(st.sampled_from(family.labels), min_size=len(tokens), max_size=len(tokens)))
    row = {"tokens": tokens, "tags": tags}
    ((one,),) = family.encode([row], tokenizer, Layout(512))
    assert not one.cut and one.lost == 0
    assert (one.labels != IGNORED).sum() == len(tokens)
    assert family.decode([perfect(one, len(family.labels))], [one], row) == tags


@many
@given(data=st.data())
def test_a_cut_keeps_the_tags_of_the_words_that_are_left(tokenizer, data):
    family = TASKS["conll03"]
    tokens = data.draw(st.lists(WORDS, min_size=4, max_size=10))
    assume(seen(tokenizer, tokens))
    tags = data.draw(st.lists(st.sampled_from(("O", "B-PER", "B-LOC")), min_size=len(tokens), max_size=len(tokens)))
    row = {"tokens": tokens, "tags": tags}
    ((one,),) = family.encode([row], tokenizer, Layout(10))
    left = len({int(word) for word in one.places if word >= 0})
    assert len(one) <= 10
    assert one.cut == (len(tokenizer(tokens, is_split_into_words=True)["input_ids"]) > 10)
    assert one.lost == sum(tag != "O" for tag in tags[left:])
    assert family.decode([perfect(one, len(family.labels))], [one], row) == tags[:left] + ["O"] * (len(tags) - left)


def test_a_word_without_pieces_is_no_entity():
    family, tokenizer = TASKS["conll03"], train("wordpiece cased")
    row = {"tokens": ["Ann", "\u200b", "left"], "tags": ["B-PER", "O", "O"]}
    ((one,),) = family.encode([row], tokenizer, Layout(64))
    assert family.decode([perfect(one, 9)], [one], row) == row["tags"]


# Roles


def layouts(tokenizer):
    """Those an encoder with this tokenizer has: only those with segments have two kinds of them."""
    return ("segments", "markers", "verb") if "token_type_ids" in tokenizer.model_input_names else ("markers", "verb")


@many
@given(data=st.data())
def test_roles_come_back_in_every_layout(tokenizer, data):
    family = TASKS["conll05"]
    tokens = data.draw(SENTENCE)
    assume(seen(tokenizer, tokens))
    others = [label for label in family.labels if label[2:] != "V"]
    tags = data.draw(st.lists(st.sampled_from(others), min_size=len(tokens), max_size=len(tokens)))
    predicate = data.draw(st.integers(0, len(tokens) - 1))
    end = data.draw(st.integers(predicate + 1, len(tokens)))  # a predicate may have several words
    verb = ["B-V", *["I-V"] * (end - predicate - 1)]
    row = {"tokens": tokens, "predicate": predicate, "tags": [*tags[:predicate], *verb, *tags[end:]]}
    for name in layouts(tokenizer):
        ((one,),) = family.encode([row], tokenizer, Layout(512, name=name))
        assert (one.labels != IGNORED).sum() == len(tokens), name
        assert family.decode([perfect(one, len(family.labels))], [one], row) == row["tags"], name
        if name == "segments":
            of = tokenizer(tokens, is_split_into_words=True).word_ids()
            assert one.inputs["token_type_ids"].tolist() == [int(word == predicate) for word in of]


def test_what_a_model_says_of_other_verbs_is_dropped(tokenizer):
    family = TASKS["conll05"]
    row = {"tokens": ["he", "gave", "two", "and", "more"], "predicate": 1}
    said = ["I-V", "O", "O", "B-V", "I-V"]
    ((one,),) = family.encode([row | {"tags": said}], tokenizer, Layout(64))
    assert family.decode([perfect(one, len(family.labels))], [one], row) == ["O", "B-V", "O", "O", "O"]


def test_equal_verbs_differ_but_for_the_layout_verb(tokenizer):
    tokens = ["he", "gave", "two", "and", "nobody", "gave", "more"]
    rows = [{"tokens": tokens, "predicate": place} for place in (1, 5)]
    for name in layouts(tokenizer):
        first, second = (one for (one,) in TASKS["conll05"].encode(rows, tokenizer, Layout(64, name=name)))
        same = all(np.array_equal(first.inputs[key], second.inputs[key]) for key in first.inputs)
        assert same == (name == "verb"), name


def test_without_segments_the_default_is_markers(tokenizer):
    row = {"tokens": ["he", "gave", "two"], "predicate": 1}
    family = TASKS["conll05"]
    by_default = family.encode([row], tokenizer, Layout(64, segments=False))[0][0]
    asked = family.encode([row], tokenizer, Layout(64, name="markers"))[0][0]
    assert np.array_equal(by_default.inputs["input_ids"], asked.inputs["input_ids"])
    with pytest.raises(pt.PtvError, match="markers"):
        family.check_layout(Layout(64, name="segments", segments=False))


# Marked words


@many
@given(data=st.data())
def test_marked_pieces_are_those_of_the_word(tokenizer, data):
    first, second = data.draw(SENTENCE), data.draw(SENTENCE)
    at, other = data.draw(st.integers(0, len(first) - 1)), data.draw(st.integers(0, len(second) - 1))
    assume(seen(tokenizer, first) and seen(tokenizer, second))
    row = {"word": "x", "idx": 0, "label": 1}
    for k, words, place in (("1", first, at), ("2", second, other)):
        start = len(" ".join([*words[:place], ""]))
        row |= {f"sentence{k}": " ".join(words), f"start{k}": start, f"end{k}": start + len(words[place])}
    ((one,),) = TASKS["wic"].encode([row], tokenizer, Layout(512, name="words"))
    laid = tokenizer(row["sentence1"], row["sentence2"], return_offsets_mapping=True)
    for k in (1, 2):
        own = [laid["offset_mapping"][piece] for piece in np.flatnonzero(one.inputs["marks"] == k)]
        text, start, end = row[f"sentence{k}"], row[f"start{k}"], row[f"end{k}"]
        assert {laid.sequence_ids()[piece] for piece in np.flatnonzero(one.inputs["marks"] == k)} == {k - 1}
        assert text[min(a for a, _ in own) : max(b for _, b in own)].strip() == text[start:end]


# Questions and their answers


def question(words, gaps, first, last, asked):
    """A row whose answer are the words from `first` to `last`."""
    context, places = "", []
    for word, gap in zip(words, gaps, strict=True):
        places.append((len(context), len(context) + len(word)))
        context += word + gap
    start, end = places[first][0], places[last][1]
    answers = {"text": [context[start:end]], "answer_start": [start]}
    return {"id": "0", "title": "", "context": context, "question": asked, "answers": answers}


def one_hot(windows):
    """Logits that say each window's own answer; windows without one say nothing."""
    logits = []
    for one in windows:
        scores = np.zeros((len(one), 2), np.float32)
        if one.labels != (0, 0):
            scores[one.labels[0], 0] = scores[one.labels[1], 1] = 9
        logits.append(scores)
    return logits


@st.composite
def questions(draw, most=40):
    words = draw(st.lists(WORDS, min_size=1, max_size=most))
    first = draw(st.integers(0, len(words) - 1))
    last = draw(st.integers(first, min(len(words) - 1, first + 3)))
    gaps = draw(st.lists(st.sampled_from([" ", " ", "  "]), min_size=len(words), max_size=len(words)))
    asked = " ".join(draw(st.lists(WORDS, min_size=1, max_size=6)))
    return question(words, gaps, first, last, asked)


@many
@given(row=questions(), length=st.sampled_from([48, 64, 96, 384]), stride=st.sampled_from([0, 8, 16, 128]))
def test_answers_come_back_over_all_windows(tokenizer, row, length, stride):
    family = TASKS["squad"]
    assume(seen(tokenizer, row["context"].split()))
    (windows,) = family.encode([row], tokenizer, Layout(length, stride))
    holding = [one for one in windows if one.labels != (0, 0)]
    assert windows[0].lost == (not holding)
    short = [one for one in holding if one.labels[1] - one.labels[0] < LONGEST_ANSWER]
    if not short:
        return
    found = family.decode(one_hot(short), short, row)
    start, text = row["answers"]["answer_start"][0], row["answers"]["text"][0]
    assert (found["text"], found["start"], found["end"]) == (text, start, start + len(text))
    assert row["context"][found["start"] : found["end"]] == found["text"]


@pytest.mark.parametrize("stride", [0, 20])
def test_each_window_alone_gives_the_answer_back(tokenizer, stride):
    """Also where the answer is the window's first word, and its first piece may stand for the blank before it."""
    for at in range(len(FAMILIAR)):
        row = question(FAMILIAR, [" "] * len(FAMILIAR), at, at, "Who knew?")
        (windows,) = TASKS["squad"].encode([row], tokenizer, Layout(48, stride))
        start, text = row["answers"]["answer_start"][0], row["answers"]["text"][0]
        for one in windows:
            if one.labels != (0, 0):
                found = TASKS["squad"].decode(one_hot([one]), [one], row)
                assert (found["text"], found["start"], found["end"]) == (text, start, start + len(text))


def covered(row, places):
    """The characters of the context, blanks aside, that pieces stand for."""
    return {k for start, end in places for k in range(max(start, 0), end) if not row["context"][k].isspace()}


def laid_whole(tokenizer, row):
    """Pieces of the question, pieces of the context, and the context's characters, from the pair in one piece."""
    whole = tokenizer(row["question"].strip(), row["context"], return_offsets_mapping=True)
    asked, own = ([k for k, side in enumerate(whole.sequence_ids()) if side == which] for which in (0, 1))
    ids = whole["input_ids"]
    return [ids[k] for k in asked], [ids[k] for k in own], covered(row, [whole["offset_mapping"][k] for k in own])


@many
@given(row=questions(), length=st.sampled_from([48, 64]), stride=st.sampled_from([0, 8, 16, 128]))
def test_windows_cover_the_context_and_repeat_the_question(tokenizer, row, length, stride):
    assume(seen(tokenizer, row["context"].split()))
    (windows,) = TASKS["squad"].encode([row], tokenizer, Layout(length, stride))
    asked, own, characters = laid_whole(tokenizer, row)
    room = length - tokenizer.num_special_tokens_to_add(pair=True) - LEAST_CONTEXT
    assert all(len(one) <= length for one in windows)
    assert all(one.cut == (len(asked) > room) for one in windows)
    if len(asked) > room:
        return
    at = 0
    for one in windows:
        ids, context = one.inputs["input_ids"].tolist(), np.flatnonzero(one.places[:, 0] >= 0)
        first = next(k for k in (0, 1) if ids[k : k + len(asked)] == asked)
        assert context[0] >= first + len(asked)
        # Each window goes on where the one before it stopped, less what they share.
        shown = ids[context[0] : context[-1] + 1]
        at = next(k for k in range(at, -1, -1) if own[k : k + len(shown)] == shown) + len(shown)
    assert at == len(own)
    assert set().union(*(covered(row, one.places) for one in windows)) == characters
    # An answer that fits into some window is in one; else the row is counted as lost.
    start = row["answers"]["answer_start"][0]
    answer = {k for k in range(start, start + len(row["answers"]["text"][0])) if k in characters}
    assert windows[0].lost == (not any(answer <= covered(row, one.places) for one in windows))


def test_a_context_much_longer_than_a_window(tokenizer):
    draw = random.Random(0)
    words = [draw.choice(FAMILIAR) for _ in range(1500)]
    family = TASKS["squad"]
    for first in (0, 700, 1497):
        row = question(words, [" "] * len(words), first, first + 2, "Who gave letters?")
        (windows,) = family.encode([row], tokenizer, Layout(64, 16))
        assert len(windows) > 30 and windows[0].lost == 0
        found = family.decode(one_hot(windows), windows, row)
        start = row["answers"]["answer_start"][0]
        assert (found["text"], found["start"]) == (row["answers"]["text"][0], start)
        assert found["no_answer"] == pytest.approx(-18)


@pytest.mark.parametrize("length", [8, 16, 19, 20, 24, 40, 64])
def test_a_question_longer_than_the_window_is_cut_and_leaves_room(tokenizer, length):
    row = question(FAMILIAR, [" "] * len(FAMILIAR), 20, 20, " ".join(FAMILIAR * 3))
    try:
        (windows,) = TASKS["squad"].encode([row], tokenizer, Layout(length, 16))
    except pt.PtvError as error:  # one sentence will do where there is hardly room for anything
        assert length < 24 and "\n" not in str(error)
        return
    assert len(windows) > 1 and all(len(one) <= length and one.cut for one in windows)
    shown = set().union(*(covered(row, one.places) for one in windows))
    assert shown == laid_whole(tokenizer, row)[2]


def test_the_question_leads_and_only_the_context_answers(tokenizer):
    """However sure a model is of a piece of the question, the answer is one of the context."""
    row = question(["He", "left", "Oslo"], [" "] * 3, 2, 2, "Who left the harbour?")
    (windows,) = TASKS["squad"].encode([row], tokenizer, Layout(64))
    scores = np.where(windows[0].places[:, :1] < 0, 50.0, 0.0) + np.zeros((1, 2))
    scores[windows[0].labels[0], 0] = scores[windows[0].labels[1], 1] = 5.0
    found = TASKS["squad"].decode([scores], windows, row)
    assert found["text"] == "Oslo" and found["no_answer"] == 90.0


def test_no_answer_is_as_likely_as_the_window_that_believes_in_it_least(tokenizer):
    """As in the official code: a window without the answer has every reason to say so, and one with it has none."""
    row = question(FAMILIAR * 3, [" "] * len(FAMILIAR) * 3, 3, 3, "Who?")
    (windows,) = TASKS["squad_v2"].encode([row], tokenizer, Layout(48, 16))
    logits = one_hot(windows)
    nulls = [5.0, *[7.0] * (len(windows) - 2), 4.0]
    for scores, null in zip(logits, nulls, strict=True):
        scores[0] = null / 2
    found = TASKS["squad_v2"].decode(logits, windows, row)
    assert len(windows) > 2 and (found["score"], found["no_answer"]) == (18.0, 4.0 - 18.0)


# Pairs: passages are cut, never questions

QUESTION = "Who gave the baker's daughter letters?"
PASSAGE = " ".join(TEXT)
PAIRS = {
    "boolq": ({"question": QUESTION, "passage": PASSAGE, "label": 1}, QUESTION, 1),
    "cb": ({"premise": PASSAGE, "hypothesis": QUESTION, "label": 1}, QUESTION, 0),
    "copa": ({"premise": PASSAGE, "choice1": QUESTION, "choice2": "He left.", "question": "cause", "label": 1}, QUESTION, 0),
    "multirc": ({"paragraph": PASSAGE, "question": QUESTION, "answers": ["a sailor"], "labels": [1]}, QUESTION + " a sailor", 0),
    "record": (
        {"passage": PASSAGE, "query": "@placeholder gave letters", "entities": ["Her uncle", "Greek"], "answers": ["Her uncle"]},
        "Her uncle gave letters",
        0,
    ),
}  # fmt: skip


def shortened(tokenizer, first, second, length, side):
    """The pair's pieces where one text alone gives way at its end."""
    whole = tokenizer(first, second)
    of = [k for k, where in enumerate(whole.sequence_ids()) if where == side]
    gone = set(of[len(of) - max(0, len(whole["input_ids"]) - length) :])
    return [piece for k, piece in enumerate(whole["input_ids"]) if k not in gone]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("length", [60, 100, 512])
def test_passages_are_cut_and_questions_never(tokenizer, name, length):
    row, asked, side = PAIRS[name]
    stem = PASSAGE + (" because" if name == "copa" else "")
    texts = (asked, stem) if side else (stem, asked)
    one = TASKS[name].encode([row], tokenizer, Layout(length))[0][0]
    assert one.inputs["input_ids"].tolist() == shortened(tokenizer, *texts, length, side)
    assert one.cut == (len(tokenizer(*texts)["input_ids"]) > length)


@pytest.mark.parametrize("name", PAIRS)
def test_a_question_that_leaves_no_room_is_cut_too(tokenizer, name):
    row = PAIRS[name][0]
    long = {key: PASSAGE for key in ("question", "hypothesis", "choice1", "choice2", "query") if key in row}
    if name == "copa":
        del long["question"]
    if name == "record":
        long["query"] += " @placeholder"
    for one in TASKS[name].encode([row | long], tokenizer, Layout(24))[0]:
        assert len(one) == 24 and one.cut


@many
@given(data=st.data())
def test_a_pair_is_cut_where_the_longer_one_is(tokenizer, data):
    """Without a text that must stay, the cut is the tokenizer's own."""
    row = {"premise": " ".join(data.draw(SENTENCE)), "hypothesis": " ".join(data.draw(SENTENCE)), "label": 0}
    ((one,),) = TASKS["rte"].encode([row], tokenizer, Layout(16))
    whole = tokenizer(row["premise"], row["hypothesis"])["input_ids"]
    cut = tokenizer(row["premise"], row["hypothesis"], truncation="longest_first", max_length=16)["input_ids"]
    assert one.inputs["input_ids"].tolist() == cut
    assert one.cut == (len(whole) > 16)


# Choices and sets of answers


@many
@given(data=st.data())
def test_choices_and_answer_sets_come_back(tokenizer, data):
    text = SENTENCE.map(" ".join)
    label = data.draw(st.integers(0, 1))
    row = {
        "premise": data.draw(text),
        "choice1": data.draw(text),
        "choice2": data.draw(text),
        "question": "effect",
        "label": label,
    }
    (inputs,) = TASKS["copa"].encode([row], tokenizer, Layout(64))
    assert [one.labels for one in inputs] == [int(k == label) for k in range(2)]
    assert TASKS["copa"].decode([np.array([float(one.labels)]) for one in inputs], inputs, row) == label

    answers = data.draw(st.lists(text, min_size=1, max_size=4))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(answers), max_size=len(answers)))
    row = {"paragraph": data.draw(text), "question": data.draw(text), "answers": answers, "labels": labels}
    (inputs,) = TASKS["multirc"].encode([row], tokenizer, Layout(64))
    assert TASKS["multirc"].decode([np.eye(2)[one.labels] for one in inputs], inputs, row) == labels

    entities = sorted({*answers, "Oslo"})
    row = {
        "passage": data.draw(text),
        "query": "in @placeholder",
        "entities": entities,
        "answers": [data.draw(st.sampled_from(entities))],
    }
    (inputs,) = TASKS["record"].encode([row], tokenizer, Layout(64))
    assert TASKS["record"].decode([np.eye(2)[one.labels] for one in inputs], inputs, row) == row["answers"][0]


# The record's share


def test_the_recorded_cut_rate_counts_inputs(tmp_path):
    rows = [
        {"paragraph": " ".join(["ab"] * words), "question": "c", "answer": "d", "label": words % 2}
        for words in (1, 2, 20, 30)
    ]
    rows = [row | {"idx": {"paragraph": k, "question": k, "answer": k}} for k, row in enumerate(rows)]
    family = replace(TASKS["multirc"], hub=replace(TASKS["multirc"].hub, rows={}))
    task = pt.load_task(family, dataset=folder(tmp_path, train=rows, validation=rows[1:], test=rows[:3]))
    model = pt.build_model(task, backbone="tiny", prompt_length=2)
    config = pt.TrainingConfig(epochs=1, max_length=24)
    recorded = pt.train(model, task, config, output_dir=tmp_path / "run").record["inputs"]
    assert recorded["max_length"] == 24
    assert recorded["cut"] == {
        "train": 0.5,
        "validation": pytest.approx(2 / 3, abs=1e-3),
        "test": pytest.approx(1 / 3, abs=1e-3),
    }

"""A template puts every piece where it says, for every kind of tokenizer, and a verbalizer knows its words."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_alignment import FAMILIAR, KINDS, SENTENCE, SPECIAL, train
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ptv2lib.backbones import load_backbone
from ptv2lib.errors import BadOption
from ptv2lib.tasks import TASKS, load_task
from ptv2lib.templates import LEAST, Template, Verbalizer
from ptv2lib.zero_shot import compare_templates

MASK = "[MASK]"
FILM = Template("{sentence} It was {mask}.")
many = settings(deadline=None, max_examples=12)


def spaced(kind, lstrip=False, rstrip=False):
    """A tokenizer whose mask piece swallows the spaces round it, as RoBERTa's does on its left."""
    tokenizer = train(kind)
    tokenizer.add_special_tokens({"mask_token": AddedToken(MASK, lstrip=lstrip, rstrip=rstrip, special=True)})
    return tokenizer


TOKENIZERS = {kind: lambda kind=kind: train(kind) for kind in KINDS} | {
    f"{kind} {side}": lambda kind=kind, side=side: spaced(kind, **{side: True})
    for kind in ("byte-level", "unigram", "wordpiece cased")
    for side in ("lstrip", "rstrip")
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module", params=KINDS)
def simple(request):
    """One tokenizer of each kind, where the spaces round the mask do not matter."""
    return train(request.param)


@pytest.fixture(scope="module")
def spelling():
    """Spells words letter by letter: as many pieces as letters, whatever is cut."""
    return load_backbone("tiny").tokenizer


class Patient:
    """A tokenizer that gives up after a number of calls, so that what never ends fails at once."""

    def __init__(self, tokenizer, calls):
        self.tokenizer, self.calls = tokenizer, calls

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *arguments, **options):
        self.calls -= 1
        assert self.calls >= 0, "It cuts and cuts, and nothing is taken away."
        return self.tokenizer(*arguments, **options)


def one_sentence(error):
    return "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


def encode(pattern, tokenizer, length=512, keep=(), **row):
    """One row inside a pattern."""
    (one,) = Template(pattern).encode([row], tokenizer, length, keep)
    return one


def pieces(one, tokenizer):
    return tokenizer.convert_ids_to_tokens(one.inputs["input_ids"].tolist())


# Reading patterns


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("{a}", [("column", "a")]),
        ("{a} is {mask}.", [("column", "a"), ("text", " is "), ("mask", None), ("text", ".")]),
        ("{soft}{a}{soft:12}", [("soft", 1), ("column", "a"), ("soft", 12)]),
        ("{soft:}{a}", [("soft", 1), ("column", "a")]),
        ("{{mask}} {a}", [("text", "{"), ("text", "mask}"), ("text", " "), ("column", "a")]),
        ("{{{a}}}", [("text", "{"), ("column", "a"), ("text", "}")]),
        ("{a}{a}{b_2}", [("column", "a"), ("column", "a"), ("column", "b_2")]),
        ("{a}\n{mask}", [("column", "a"), ("text", "\n"), ("mask", None)]),
    ],
)
def test_patterns_are_read_in_order(pattern, parts):
    def joined(parts):
        """Neighbouring words as one: how many strings they come in does not matter."""
        found = []
        for kind, value in parts:
            if kind == "text" and found and found[-1][0] == "text":
                found[-1] = ("text", found[-1][1] + value)
            else:
                found.append((kind, value))
        return found

    template = Template(pattern)
    assert joined(template.parts) == joined(parts)
    assert template.columns == tuple(value for kind, value in parts if kind == "column")
    assert template.masked == any(kind == "mask" for kind, _ in parts)
    assert template.slots == sum(value for kind, value in parts if kind == "soft")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "holds no column"),
        ("It was {mask}.", "holds no column"),
        ("{soft:3} {mask}", "holds no column"),
        ("{{a}} {mask}", "holds no column"),
        ("{mask} {a} {mask}", "more than one {mask}"),
        ("{a} {soft:0}", "cannot be read"),
        ("{a} {soft:-1}", "cannot be read"),
        ("{a} {soft:x}", "cannot be read"),
        ("{a} {soft:1.5}", "cannot be read"),
        ("{a} {soft:{n}}", "cannot be read"),
        ("{a} {soft!s}", "cannot be read"),
        ("{a} {mask:2}", "cannot be read"),
        ("{a!r} {mask}", "cannot be read"),
        ("{a:>5} {mask}", "cannot be read"),
        ("{} {mask}", "cannot be read"),
        ("{a", "braces do not match"),
        ("a}", "braces do not match"),
        ("{a} {", "braces do not match"),
        (None, "cannot be read"),
        (3, "cannot be read"),
        (("{a}",), "cannot be read"),
    ],
)
def test_patterns_that_cannot_be_read_are_named(pattern, words):
    with pytest.raises(BadOption, match=re.escape(words)) as error:
        Template(pattern)
    assert one_sentence(error) and repr(pattern) in str(error.value)


@pytest.mark.parametrize("name", ["sentance", "a.b", "a[0]", "0", "Sentence", "label"])
def test_a_column_that_the_task_lacks_is_named_with_those_it_has(name):
    template = Template(f"{{{name}}} {{sentence}} {{mask}}")
    with pytest.raises(
        BadOption, match=f"asks for the column {re.escape(repr(name))}; there are sentence, idx"
    ) as error:
        template.check(["sentence", "idx"], gap=True)
    assert one_sentence(error)


def test_a_missing_gap_matters_to_a_verbalizer_alone():
    template = Template("{a} {soft}")
    template.check(["a"], gap=False)
    with pytest.raises(BadOption, match=r"has no \{mask\}, which a verbalizer reads"):
        template.check(["a"], gap=True)
    Template("{a} {mask}").check(["a"], gap=True)


TEMPLATED = {name: family for name, family in TASKS.items() if getattr(family, "templates", ())}


@pytest.mark.parametrize("name", TEMPLATED)
def test_the_templates_of_the_table_can_be_read_by_every_verbalizer(name, spelling):
    family = TEMPLATED[name]
    for pattern in family.templates:
        template = Template(pattern)
        template.check(family.shown, gap=True)
        assert template.slots == 0 and set(family.texts) <= set(template.columns)
    soft = Template(family.soft_template)
    soft.check(family.shown, gap=True)
    assert soft.slots > 0 and set(family.texts) <= set(soft.columns)
    assert len(Verbalizer.of(family.words, family.labels).pieces(spelling)) == len(family.labels)


# Where gap and slots stand

PATTERNS = {
    "{sentence} It was {mask}.": ["gap"],
    "{mask}! {sentence}": ["gap"],
    "{mask}{sentence}": ["gap"],
    "{sentence}{mask}": ["gap"],
    "{soft:2} {sentence} {soft} It was {mask}.": [1, 2, 3, "gap"],
    "{mask} {soft}{soft:2} {sentence}": ["gap", 1, 2, 3],
    "{soft}{mask}{soft:2}{sentence}": [1, "gap", 2, 3],
    "{sentence} {soft:3}": [1, 2, 3],
    "So: {sentence}; {sentence}": [],
}


def line_of(pattern, sentence, mask):
    """The filled line, written with plain replacements; trainable vectors as masks."""
    line = pattern.replace("{mask}", mask)
    for count in (1, 2, 3):
        line = line.replace("{soft}" if count == 1 else f"{{soft:{count}}}", mask * count)
    return line.replace("{sentence}", sentence)


def check_reading(pattern, sentence, tokenizer):
    one = encode(pattern, tokenizer, sentence=sentence, label=1)
    ids, marks = one.inputs["input_ids"], one.inputs["marks"]
    slots = one.inputs.get("slots", np.zeros_like(ids))
    assert ("slots" in one.inputs) == ("soft" in pattern)
    assert len({len(array) for array in one.inputs.values()}) == 1
    assert not one.cut and one.labels == 1
    held = [int(slot) or "gap" for mark, slot in zip(marks, slots, strict=True) if mark or slot]
    assert held == PATTERNS[pattern] and marks.sum() == ("{mask}" in pattern)
    assert (ids[(marks + slots) > 0] == tokenizer.mask_token_id).all()
    own = tokenizer(line_of(pattern, sentence, tokenizer.mask_token))["input_ids"]
    rest = ids[(marks + slots) == 0].tolist()
    assert rest == [piece for piece in own if piece != tokenizer.mask_token_id]


@many
@given(words=SENTENCE)
def test_all_other_pieces_are_the_tokenizers_own_reading(tokenizer, words):
    for pattern in PATTERNS:
        check_reading(pattern, " ".join(words), tokenizer)


@pytest.mark.parametrize("sentence", ["", " ", "\n", "a  b", " padded ", "{mask} {soft:2} {0} }{", "\u200b", "é\u0301"])
def test_odd_texts_are_read_alike(tokenizer, sentence):
    for pattern in PATTERNS:
        check_reading(pattern, sentence, tokenizer)


@many
@given(words=SENTENCE)
def test_wordpiece_reads_the_parts_of_a_line_alone(words):
    """Spaces mean nothing to WordPiece, so each part of the line has the pieces that it has by itself."""
    tokenizer, text = train("wordpiece cased"), " ".join(words)
    alone = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    one = encode("{soft:2} {sentence} It was {mask}.", tokenizer, sentence=text)
    mask = tokenizer.mask_token_id
    wanted = [
        tokenizer.cls_token_id,
        mask,
        mask,
        *alone(text),
        *alone("It was"),
        mask,
        *alone("."),
        tokenizer.sep_token_id,
    ]
    assert one.inputs["input_ids"].tolist() == wanted
    assert one.inputs["marks"].tolist().index(1) == len(wanted) - 3
    assert one.inputs["slots"].tolist() == [0, 1, 2] + [0] * (len(wanted) - 3)


SHAMS = st.lists(st.sampled_from([MASK, "[mask]", "[", "MASK", "]", " ", "mask", "the", "<mask>"]), max_size=8)


@many
@given(shams=SHAMS)
def test_a_mask_in_the_text_is_no_gap(tokenizer, shams):
    pattern = "{soft:2} {sentence} It was {mask}."
    usual = encode(pattern, tokenizer, sentence="the")
    one = encode(pattern, tokenizer, sentence="".join(shams))
    assert one.inputs["marks"].tolist()[::-1].index(1) == usual.inputs["marks"].tolist()[::-1].index(1)
    assert one.inputs["slots"].tolist()[:4] == usual.inputs["slots"].tolist()[:4]
    assert (one.inputs["input_ids"] == tokenizer.mask_token_id).sum() == 3


def test_a_mask_that_the_tokenizer_makes_of_other_signs_is_no_gap(simple):
    """NFKC turns wide signs into narrow ones; a sentence-piece vocabulary that lists its mask then takes them for it."""
    usual = encode(FILM.text, simple, sentence="the")
    one = encode(FILM.text, simple, sentence="the ［ＭＡＳＫ］ the")
    assert one.inputs["marks"].tolist()[::-1].index(1) == usual.inputs["marks"].tolist()[::-1].index(1)


def test_a_mask_written_out_in_the_template_is_refused_or_no_gap(simple):
    try:
        one = encode("[MASK] {sentence} It was {mask}.", simple, sentence="the")
    except BadOption as error:
        assert "{mask}" in str(error) and "\n" not in str(error)
        return
    usual = encode(FILM.text, simple, sentence="the")
    assert one.inputs["marks"].tolist()[::-1].index(1) == usual.inputs["marks"].tolist()[::-1].index(1)


def test_rows_keep_their_order_and_their_labels(tokenizer):
    rows = [{"sentence": "the old mill", "label": 0}, {"sentence": "a", "label": -1}, {"sentence": "Greek letters"}]
    found = FILM.encode(rows, tokenizer, 512)
    assert [one.labels for one in found] == [0, None, None]
    for row, one in zip(rows, found, strict=True):
        (alone,) = FILM.encode([row], tokenizer, 512)
        assert all(np.array_equal(alone.inputs[name], one.inputs[name]) for name in one.inputs)
    assert FILM.encode([], tokenizer, 512) == []
    segments = "token_type_ids" in tokenizer.model_input_names
    assert all(("token_type_ids" in one.inputs) == segments for one in found)


def test_a_tokenizer_without_a_mask_piece_is_refused_where_one_is_needed():
    tokenizer = train("byte-level")
    tokenizer.mask_token = None
    for pattern in (FILM.text, "{soft:3} {sentence}"):
        with pytest.raises(BadOption, match="needs a tokenizer with a mask piece") as error:
            encode(pattern, tokenizer, sentence="the mill")
        assert one_sentence(error)
    assert len(encode("So: {sentence}", tokenizer, sentence="the mill")) > 3


# Cutting


def kept(one, tokenizer, letter):
    """How many pieces of a column written in one letter are left."""
    return sum(piece in (letter, f"##{letter}") for piece in pieces(one, tokenizer))


PAIR = "{first} x {second} y {mask}."


@many
@given(
    first=st.integers(0, 60),
    second=st.integers(0, 60),
    room=st.integers(0, 50),
    keep=st.sampled_from([(), ("first",), ("second",), ("first", "second")]),
)
def test_a_long_row_loses_as_much_as_it_must_and_where_it_should(spelling, first, second, room, keep):
    fixed = len(encode(PAIR, spelling, first="", second=""))
    length = fixed + 2 * LEAST + room
    one = encode(PAIR, spelling, length, keep, first="q" * first, second="z" * second)
    left = kept(one, spelling, "q"), kept(one, spelling, "z")
    fits = first + second <= 2 * LEAST + room
    assert one.cut == (not fits)
    assert len(one) == (fixed + first + second if fits else length)
    assert left[0] + left[1] == len(one) - fixed  # of the template's own words none is lost
    assert one.inputs["marks"].tolist().index(1) == len(one) - 3
    for own, other, have, size in ((*left, first, "first"), (*left[::-1], second, "second")):
        assert own >= min(have, LEAST)
        if keep == (size,) and own < have:
            assert other <= LEAST  # cut last
    if not keep and not fits:
        longer, shorter = (0, 1) if first >= second else (1, 0)
        lost = first - left[0], second - left[1]
        assert lost[longer] >= lost[shorter]


@many
@given(size=st.integers(0, 80), room=st.integers(0, 40))
def test_a_column_shown_twice_is_cut_alike_in_both_places(spelling, size, room):
    pattern = "{a} x {a} y {mask}."
    fixed = len(encode(pattern, spelling, a=""))
    one = encode(pattern, spelling, fixed + 2 * LEAST + room, a="q" * size)
    shown = pieces(one, spelling)
    middle = shown.index("x")
    left = [sum(piece in ("q", "##q") for piece in part) for part in (shown[:middle], shown[middle:])]
    assert left[0] == left[1] == min(size, LEAST + room // 2)
    assert one.cut == (left[0] < size)


@many
@given(words=st.lists(st.sampled_from(FAMILIAR), min_size=10, max_size=25), length=st.integers(24, 60))
def test_a_cut_text_is_a_beginning_of_the_text(tokenizer, words, length):
    text = " ".join(words)
    one = encode(FILM.text, tokenizer, length, sentence=text)
    whole = encode(FILM.text, tokenizer, sentence=text)
    assert len(one) <= length and one.cut == (len(whole) > length)
    beginnings = [text[:end] for end in range(len(text) + 1)]
    lines = [line_of(FILM.text, beginning, tokenizer.mask_token) for beginning in beginnings]
    read = tokenizer(lines)["input_ids"]
    assert one.inputs["input_ids"].tolist() in read
    assert one.inputs["marks"].sum() == 1
    assert (one.inputs["input_ids"][one.inputs["marks"] == 1] == tokenizer.mask_token_id).all()
    if one.cut:  # the last piece may have been a long word, which is spelled once its end is gone
        assert len(one) > length - 12


def test_signs_of_many_pieces_are_cut_in_finite_time(simple):
    """Several pieces may stand for one sign: cutting behind any of them takes nothing away."""
    for sign in ("😀", "ﷺ", "½", "e\u0301\u0301\u0301\u0301\u0301"):
        for length in range(30, 45, 3):
            one = encode("{a} It was {mask}.", Patient(simple, 60), length, a=sign * 60)
            assert len(one) <= length and one.inputs["marks"].sum() == 1


def test_a_row_of_exactly_the_length_is_not_cut(tokenizer):
    text = " ".join(FAMILIAR[:20])
    whole = encode(FILM.text, tokenizer, sentence=text)
    again = encode(FILM.text, tokenizer, len(whole), sentence=text)
    shorter = encode(FILM.text, tokenizer, len(whole) - 1, sentence=text)
    assert not again.cut and np.array_equal(again.inputs["input_ids"], whole.inputs["input_ids"])
    assert shorter.cut and len(shorter) < len(whole)


@pytest.mark.parametrize("sentence", ["", "the", " ".join(FAMILIAR)])
def test_a_template_that_leaves_no_room_is_refused(tokenizer, sentence):
    pattern = "In short and all in all and by and large {sentence} {soft:4} It was {mask}."
    with pytest.raises(BadOption, match="leaves no room for its text in 9 pieces") as error:
        encode(pattern, tokenizer, 9, sentence=sentence)
    assert one_sentence(error)


def test_slots_count_as_pieces_when_a_row_is_cut(spelling):
    one = encode("{soft:7} {a} {soft} {mask}", spelling, 20, a="q" * 50)
    assert len(one) == 20 and kept(one, spelling, "q") == 20 - 2 - 8 - 1
    assert [slot for slot in one.inputs["slots"].tolist() if slot] == list(range(1, 9))


# Verbalizers


def test_a_single_template_is_compared_as_one():
    task = load_task("sst2", source="miniature", train_limit=8)
    (found,) = compare_templates(task, "{sentence} It was {mask}.", backbone="tiny")
    assert found["template"] == "{sentence} It was {mask}."


def test_words_are_taken_in_the_order_of_the_labels():
    words = {"yes": ("good", " great "), "no": "bad"}
    assert Verbalizer.of(words, ("no", "yes")).words == (("bad",), ("good", "great"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"no": "bad", "yes": "good", "perhaps": "maybe"}, "the label 'perhaps'; the task has no, yes"),
        ({"no": "bad"}, "no word for the label 'yes'"),
        ({"no": "bad", "yes": ()}, "no word for the label 'yes'"),
        ({"no": "bad", "yes": ""}, "no word for the label 'yes'"),
        ({"no": "bad", "yes": ("good", " ")}, "no word for the label 'yes'"),
        ({"no": "bad", "yes": ("good", 3)}, "no word for the label 'yes'"),
        ({"no": "bad", "yes": "bad"}, "the word 'bad' twice"),
        ({"no": "bad", "yes": ("good", "good")}, "the word 'good' twice"),
        ({"no": "bad", "yes": ("good", " bad")}, "the word 'bad' twice"),
        (["bad", "good"], "a mapping of labels to words"),
        ("bad", "a mapping of labels to words"),
    ],
)
def test_bad_verbalizers_are_one_sentence(words, says):
    with pytest.raises(BadOption, match=says) as error:
        Verbalizer.of(words, ("no", "yes"))
    assert one_sentence(error)


@pytest.mark.parametrize("word", [3, None, 1.5])
def test_a_word_that_is_no_text_is_one_sentence(word):
    with pytest.raises(BadOption, match="'yes'") as error:
        Verbalizer.of({"no": "bad", "yes": word}, ("no", "yes"))
    assert one_sentence(error)


def single_words(tokenizer):
    """Familiar words that are one piece behind a space."""
    words = sorted({re.sub(r"\W", "", word) for word in FAMILIAR} - {""})
    read = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return {word: ids[0] for word, ids in zip(words, read, strict=True) if len(ids) == 1 and ids[0] != 1}


def test_pieces_are_those_that_fill_the_gap_in_running_text(tokenizer):
    """A word's piece is the one that stands there when the word itself does."""
    words = single_words(tokenizer)
    assert words
    for word in words:
        ((piece,),) = Verbalizer(((word,),)).pieces(tokenizer)
        assert piece in tokenizer(f"the {word} the")["input_ids"]


def test_a_byte_level_word_is_the_piece_behind_a_space():
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["great great films are great", "great\ngreat\ngreat"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, mask_token=MASK, pad_token="[PAD]", unk_token="[UNK]")
    vocabulary = tokenizer.get_vocab()
    assert {"great", "Ġgreat"} <= set(vocabulary)
    assert Verbalizer((("great",),)).pieces(tokenizer) == [[vocabulary["Ġgreat"]]]


@pytest.mark.parametrize(
    ("word", "why", "near"),
    [
        ("greatly", "is 3 pieces", "great"),
        ("terribl", "is 7 pieces", "terrible"),
        ("ünd", "is", ""),
        ("日", "is unknown", ""),
    ],
)
def test_a_word_that_is_no_piece_is_named_with_the_nearest(spelling, word, why, near):
    with pytest.raises(BadOption, match=f"word '{word}' {why}") as error:
        Verbalizer((("bad",), ("good", word))).pieces(spelling)
    assert one_sentence(error)
    if near:
        assert f"the nearest single one is '{near}'." in str(error.value)


def test_the_nearest_word_that_a_message_names_is_one_piece(simple):
    for word in ("harbor", "lette", "childs", "lighthous", "keepers", "marched", "ember", "ondon"):
        try:
            Verbalizer(((word,),)).pieces(simple)
        except BadOption as error:
            named = re.search(r"nearest single one is '(.+)'\.$", str(error))
            if named:
                Verbalizer(((named[1],),)).pieces(simple)  # raises where the advice is wrong


def test_two_labels_never_share_a_piece(spelling):
    """To an uncased tokenizer `Good` and `good` are one piece, and its labels could never differ."""
    with pytest.raises(BadOption, match=r"[Gg]ood"):
        Verbalizer.of({"no": "Good", "yes": "good"}, ("no", "yes")).pieces(spelling)

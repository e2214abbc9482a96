"""`task.show` prints what the encoder sees, held against the tokenizer's own pieces."""

import re

import pytest
from test_tasks import TAGGED, folder

from ptv2lib.errors import BadOption
from ptv2lib.tasks import TASKS, load_task
from ptv2lib.training import TrainingConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*official set")


@pytest.fixture
def tokenizer(tiny):
    return tiny().tokenizer


def shown(task, capsys, **options):
    """What is printed: for each row its heading, and for each input its lines by title as cells, one a piece."""
    capsys.readouterr()
    task.show(backbone="tiny", **options)
    rows = []
    for block in capsys.readouterr().out.split("\n\n"):
        inside, starts = {}, []
        for line in block.splitlines():
            if re.match(r"row \d+: ", line):
                rows.append((line, []))
            elif line.startswith(("  label:", "  answer:", "   (cut)")):
                inside["verdict"] = line.strip()
            else:
                title = line[:10].strip()
                if title == "pieces":  # every other line stands in its columns
                    starts = [10 + match.start() for match in re.finditer(r"\S+", line[10:])]
                ends = [*starts[1:], len(line)]
                inside.setdefault(title, []).extend(
                    line[start:end].strip() for start, end in zip(starts, ends, strict=True)
                )
        if inside:
            rows[-1][1].append(inside)
    return rows


def test_a_pair_is_shown_with_its_segments_and_its_label(tokenizer, tmp_path, capsys):
    rows = [
        {"premise": f"Rain fell on {k} small towns .", "hypothesis": "It was wet .", "label": k % 2} for k in range(4)
    ]
    task = load_task("rte", dataset=folder(tmp_path, test=rows))
    found = shown(task, capsys, count=2)
    assert [head for head, _ in found] == ["row 0: 1 input", "row 1: 1 input"]
    for (_, (one,)), row, label in zip(found, rows, ("entailment", "not_entailment"), strict=False):
        encoding = tokenizer(row["premise"], row["hypothesis"])
        assert one["pieces"] == encoding.tokens()
        assert one["segment"] == ["1" if side else "." for side in encoding["token_type_ids"]]
        assert one["verdict"] == f"label: {label}"


def test_tags_stand_under_the_first_pieces_of_their_words(tokenizer, tmp_path, capsys):
    task = load_task("wikiann", dataset=folder(tmp_path, test=TAGGED))
    ((_, (one,)),) = shown(task, capsys, count=1)
    encoding = tokenizer(TAGGED[0]["tokens"], is_split_into_words=True)
    assert one["pieces"] == encoding.tokens()
    words, tags = encoding.word_ids(), ["B-PER", "O", "B-PER", "I-PER"]
    first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
    assert one["label"] == [tags[word] if opens else "" for word, opens in zip(words, first, strict=True)]
    assert "verdict" not in one
    ((_, (cut,)),) = shown(task, capsys, count=1, max_length=8)
    assert cut["pieces"] == [*encoding.tokens()[:7], "[SEP]"] and cut["verdict"] == "(cut)"


def test_the_words_that_a_head_reads_apart_are_marked(tokenizer, tmp_path, capsys):
    row = {"word": "bank", "sentence1": "The banks burst .", "sentence2": "A bank lends .", "label": True}
    row |= {"start1": 4, "end1": 9, "start2": 2, "end2": 6}
    task = load_task("wic", dataset=folder(tmp_path, test=[row]))
    ((_, (one,)),) = shown(task, capsys)
    encoding = tokenizer(row["sentence1"], row["sentence2"], return_offsets_mapping=True)
    places = zip(encoding.sequence_ids(), encoding["offset_mapping"], strict=True)
    wanted = [
        "1" if side == 0 and 4 <= start < 9 else "2" if side == 1 and 2 <= start < 6 else "."
        for side, (start, _) in places
    ]
    assert one["pieces"] == encoding.tokens() and one["marked"] == wanted and {"1", "2"} < set(wanted)
    ((_, (one,)),) = shown(task, capsys, layout="pair")
    assert (
        one["pieces"] == tokenizer("bank: The banks burst .", "bank: A bank lends .").tokens() and "marked" not in one
    )


def test_windows_are_shown_one_by_one_with_the_answer_s_pieces(tokenizer, tmp_path, capsys):
    context = "the cat sat on a red mat near the door of my old hut"
    start = context.index("red mat")
    row = {"id": "0", "title": "t", "context": context, "question": "on what ?"}
    row |= {"answers": {"text": ["red mat"], "answer_start": [start]}}
    task = load_task("squad", dataset=folder(tmp_path, test=[row]))
    length = 24
    ((head, windows),) = shown(task, capsys, max_length=length)
    room = length - 3 - len(tokenizer(row["question"], add_special_tokens=False)["input_ids"])
    encoding = tokenizer(
        row["question"],
        context,
        truncation="only_second",
        max_length=length,
        stride=room // 2,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    count = len(encoding["input_ids"])
    assert count > 2 and head == f"row 0: {count} inputs" and len(windows) == count
    holding = 0
    for number, one in enumerate(windows):
        assert one["pieces"] == encoding.tokens(number)
        inside = [
            k
            for k, (side, (first, last)) in enumerate(
                zip(encoding.sequence_ids(number), encoding["offset_mapping"][number], strict=True)
            )
            if side == 1 and first >= start and last <= start + len("red mat")
        ]
        text = "".join(one["pieces"][k].removeprefix("##") for k in inside)
        if text == "redmat":
            holding += 1
            assert one["verdict"] == f"answer: pieces {inside[0]} to {inside[-1]}"
        else:
            assert one["verdict"] == "answer: not in this window"
    assert 0 < holding < count


def test_the_rows_that_train_are_shown_and_none_that_selects(tmp_path, capsys):
    rows = [{"sentence": f"film {k}", "label": k % 2} for k in range(40)]
    task = load_task("sst2", dataset=folder(tmp_path, train=rows, validation=rows[:4]))
    found = shown(task, capsys, count=99)
    assert len(found) == len(task.split().train) < 40


@pytest.mark.parametrize("length", [4, 2, 0, -8, True, "long", 9.5])
def test_a_cut_that_leaves_no_room_is_refused_as_in_training(length):
    task = load_task("squad", source="miniature")
    with pytest.raises(BadOption, match=f"max_length={length!r} .*at least 8") as caught:
        task.show(1, backbone="tiny", max_length=length)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadOption):
        TrainingConfig(max_length=length)


@pytest.mark.parametrize("name", TASKS)
def test_the_shortest_cut_is_shown_of_every_task(name, capsys):
    found = shown(load_task(name, source="miniature"), capsys, count=1, max_length=8)
    assert all(len(one["pieces"]) <= 8 for _, inputs in found for one in inputs)

"""Heads read the real pieces and nothing else, and a batch keeps inputs, marks and labels in step."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from ptv2lib.encoding import IGNORED, Encoded, collate
from ptv2lib.errors import UnknownName
from ptv2lib.heads import POOLINGS, ChoiceHead, SequenceHead, SpanHead, TokenHead

WIDTH = 6
SIDES = ["right", "left"]
LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)
HEADS = {
    **{pooling: lambda pooling=pooling: SequenceHead(WIDTH, 3, pooling) for pooling in POOLINGS},
    **{f"choice {pooling}": lambda pooling=pooling: ChoiceHead(WIDTH, 2, pooling) for pooling in POOLINGS},
    "mean and words": lambda: SequenceHead(WIDTH, 3, "mean", words=2),
    "cls and words": lambda: SequenceHead(WIDTH, 3, words=2),
    "span": lambda: SpanHead(WIDTH),
    "token": lambda: TokenHead(WIDTH, 4),
}


class Pooler(nn.Module):
    """As in BERT: a layer on the state at the first place."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden):
        return torch.tanh(self.dense(hidden[:, 0]))


def build(name, seed=0):
    """A head in evaluation mode with weights large enough to matter, and a pooler."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head, pooler = HEADS[name](), Pooler()
        for parameter in head.parameters():
            nn.init.normal_(parameter)
    return head.eval(), pooler


def batch_of(lengths, more, side, seed):
    """Random states and marks, what is real of each row, and noise and 0 at the padding."""
    draw = torch.Generator().manual_seed(seed)
    width = max(lengths) + more
    hidden = 30 * torch.randn(len(lengths), width, WIDTH, generator=draw)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    places = [slice(0, n) if side == "right" else slice(width - n, width) for n in lengths]
    for row, place in enumerate(places):
        hidden[row, place] = torch.randn(lengths[row], WIDTH, generator=draw)
        mask[row, place] = 1
    marks = torch.randint(0, 3, mask.shape, generator=draw) * mask
    return hidden, mask, marks, places


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", HEADS)
@settings(deadline=None, max_examples=25, phases=set(Phase) - {Phase.explain})
@given(lengths=LENGTHS, more=st.integers(0, 5), seed=SEEDS)
@torch.no_grad()
def test_padding_changes_no_logit_of_real_pieces(name, side, lengths, more, seed):
    head, pooler = build(name)
    hidden, mask, marks, places = batch_of(lengths, more, side, seed)
    together = head(hidden, mask, pooler, marks)
    for row, place in enumerate(places):
        alone = head(hidden[row : row + 1, place], mask[row : row + 1, place], pooler, marks[row : row + 1, place])[0]
        seen = together[row] if together.ndim == 2 else together[row, place]
        torch.testing.assert_close(seen, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_float32_also_under_autocast(name):
    head, pooler = build(name)
    hidden, mask, marks, _ = batch_of([3, 5], 0, "right", 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(hidden, mask, pooler, marks).dtype == torch.float32


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_an_encoder_in_half_precision_is_read_in_the_heads_own(name, kind):
    head, pooler = build(name)
    hidden, mask, marks, _ = batch_of([3, 5], 0, "right", 0)
    wanted = head(hidden, mask, pooler, marks)
    logits = head(hidden.to(kind), mask, pooler.to(kind), marks)  # a pooler is a part of the encoder
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, wanted, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", ["cls", "last", "choice cls", "token", "span"])
def test_an_exported_head_takes_batches_of_any_size(name):
    head, _ = build(name)
    sizes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("text", min=2, max=64)}
    exported = torch.export.export(head, batch_of([3, 5], 0, "right", 0)[:2], dynamic_shapes=(sizes, sizes)).module()
    hidden, mask, _, _ = batch_of([4, 7, 2], 0, "right", 1)
    torch.testing.assert_close(exported(hidden, mask), head(hidden, mask))


READ = {"cls": slice(0, 1), "last": slice(-1, None), "mean": slice(None)}  # which of the real states


@pytest.mark.parametrize("pooling", [pooling for pooling in POOLINGS if pooling != "pooler"])
@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, side=st.sampled_from(SIDES), seed=SEEDS, words=st.integers(0, 2))
@torch.no_grad()
def test_a_sequence_head_reads_the_pooled_text_and_the_mean_of_each_word(pooling, lengths, side, seed, words):
    head = SequenceHead(WIDTH, 3, pooling, words=words).eval()
    hidden, mask, marks, places = batch_of(lengths, 2, side, seed)
    logits = head(hidden, mask, None, marks)
    for row, place in enumerate(places):
        texts = [list(hidden[row, place])[READ[pooling]]]
        for number in range(1, words + 1):
            texts.append([hidden[row, i] for i in range(mask.shape[1]) if marks[row, i] == number])
        read = [sum(states) / len(states) if states else torch.zeros(WIDTH) for states in texts]
        wanted = head.linear.weight @ torch.cat(read) + head.linear.bias
        torch.testing.assert_close(logits[row], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_word_that_was_cut_is_read_as_zeros():
    head, _ = build("cls and words")
    hidden, mask, marks, _ = batch_of([4, 4], 0, "right", 0)
    marks[0], marks[1] = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 2, 0])  # the second word of row 0 is lost
    before = head(hidden, mask, None, marks)
    head.linear.weight[:, 2 * WIDTH :] += 1.0
    after = head(hidden, mask, None, marks)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_an_unknown_pooling_comes_with_the_nearest():
    for head in (SequenceHead, ChoiceHead):
        with pytest.raises(UnknownName, match="did you mean 'mean'"):
            head(WIDTH, 2, "means")


def cross_entropy(scores, right):
    """From the definition, on plain numbers."""
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[right]


@settings(deadline=None)
@given(rows=st.integers(1, 5), choices=st.integers(2, 5), seed=SEEDS, scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_choice_loss_is_softmax_cross_entropy_row_by_row(rows, choices, seed, scale):
    draw = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows * choices, 1, generator=draw)
    right = torch.randint(0, choices, (rows,), generator=draw).tolist()
    labels = torch.tensor([int(choice == one) for one in right for choice in range(choices)])
    scores = logits.flatten().tolist()
    parts = [cross_entropy(scores[i * choices : (i + 1) * choices], one) for i, one in enumerate(right)]
    loss = ChoiceHead(WIDTH, choices).loss(logits, labels).item()
    assert loss == pytest.approx(sum(parts) / rows, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("side", SIDES)
@settings(deadline=None)
@given(lengths=LENGTHS, more=st.integers(0, 5), seed=SEEDS)
def test_span_probability_is_on_real_pieces_and_its_loss_is_two_cross_entropies(side, lengths, more, seed):
    head, _ = build("span")
    hidden, mask, _, places = batch_of(lengths, more, side, seed)
    logits = head(hidden, mask)
    chances = logits.softmax(1)
    assert (chances[mask == 0] == 0).all()
    torch.testing.assert_close(chances.sum(1), torch.ones(len(lengths), 2))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(place.start, place.stop, (2,), generator=draw) for place in places])
    parts = [
        cross_entropy(logits[row, place, end].tolist(), int(labels[row, end]) - place.start)
        for row, place in enumerate(places)
        for end in (0, 1)
    ]
    loss = head.loss(logits, labels)
    assert loss.item() == pytest.approx(sum(parts) / len(parts), rel=1e-5, abs=1e-6)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@settings(deadline=None)
@given(lengths=LENGTHS, more=st.integers(0, 5), seed=SEEDS)
def test_token_loss_is_the_mean_over_scored_pieces(lengths, more, seed):
    head, _ = build("token")
    hidden, mask, marks, _ = batch_of(lengths, more, "right", seed)
    labels = torch.where((mask == 1) & (marks > 0), marks, IGNORED)
    labels[0, 0] = 3
    logits = head(hidden, mask)
    scored = (labels != IGNORED).nonzero().tolist()
    parts = [cross_entropy(logits[row, i].tolist(), int(labels[row, i])) for row, i in scored]
    assert head.loss(logits, labels).item() == pytest.approx(sum(parts) / len(parts), rel=1e-5, abs=1e-6)


def inputs_of(lengths, labels):
    """Inputs with a different id at every piece; `labels` makes the labels of an input from its ids."""
    found, first = [], 100
    for length in lengths:
        ids = np.arange(first, first + length, dtype=np.int32)
        inputs = {"input_ids": ids, "token_type_ids": ids % 2, "marks": ids % 3}
        found.append(Encoded(inputs, labels(ids), cut=False))
        first += length
    return found


def tokenizer(side):
    return SimpleNamespace(pad_token_id=7, pad_token_type_id=5, padding_side=side)


@pytest.mark.parametrize("side", SIDES)
@given(lengths=LENGTHS)
def test_collate_pads_where_the_tokenizer_says_and_labels_follow(side, lengths):
    inputs = inputs_of(lengths, lambda ids: ids + 1000)
    batch, labels = collate(inputs, tokenizer(side))
    assert set(batch) == {"input_ids", "token_type_ids", "marks", "attention_mask"}
    pads = {"input_ids": 7, "token_type_ids": 5, "marks": 0}
    width = max(lengths)
    for row, one in enumerate(inputs):
        wanted = {name: (values, pads[name]) for name, values in one.inputs.items()}
        wanted["attention_mask"] = ([1] * len(one), 0)
        wanted["labels"] = (one.labels, IGNORED)
        for name, (values, pad) in wanted.items():
            padding = [pad] * (width - len(one))
            whole = [*values, *padding] if side == "right" else [*padding, *values]
            tensor = labels if name == "labels" else batch[name]
            assert tensor.dtype == torch.int64 and tensor[row].tolist() == whole


@pytest.mark.parametrize("side", SIDES)
@given(lengths=LENGTHS, seed=SEEDS)
def test_an_answer_stays_on_its_pieces_in_a_batch(side, lengths, seed):
    draw = np.random.default_rng(seed)
    inputs = inputs_of(lengths, lambda ids: tuple(sorted(map(int, draw.integers(0, len(ids), 2)))))
    batch, labels = collate(inputs, tokenizer(side))
    assert labels.shape == (len(lengths), 2)
    for row, one in enumerate(inputs):
        assert batch["input_ids"][row, labels[row]].tolist() == one.inputs["input_ids"][list(one.labels)].tolist()


@given(lengths=LENGTHS, side=st.sampled_from(SIDES), seed=SEEDS)
def test_one_label_an_input_stays_in_order_and_one_missing_label_means_none(lengths, side, seed):
    inputs = inputs_of(lengths, lambda ids: int(ids[0]))
    batch, labels = collate(inputs, tokenizer(side))
    assert labels.dtype == torch.int64 and labels.tolist() == [one.labels for one in inputs]
    inputs[seed % len(inputs)].labels = None
    again, labels = collate(inputs, tokenizer(side))
    assert labels is None and all(torch.equal(batch[name], again[name]) for name in batch)


def test_a_tokenizer_without_segments_pads_them_with_zero():
    batch, _ = collate(inputs_of([1, 3], lambda ids: 0), SimpleNamespace(pad_token_id=7, padding_side="right"))
    assert batch["token_type_ids"][0, 1:].tolist() == [0, 0]

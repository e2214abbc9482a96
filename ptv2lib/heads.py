"""Heads on the encoder's last hidden states; a head owns its pooling and its loss.

Each is called with hidden states `[batch, text, width]`, the attention mask `[batch, text]`, the checkpoint's own layer that it
reads through (its pooler or its masked-LM head) or None, and the marks of single pieces `[batch, text]` or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoding import IGNORED
from .errors import unknown
from .prefix import INIT_STD


def _linear(width: int, labels: int) -> nn.Linear:
    layer = nn.Linear(width, labels)
    nn.init.normal_(layer.weight, std=INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


def _read(layer: nn.Module, states: Tensor) -> Tensor:
    """What a layer makes of states, in float32; the encoder they come from may compute in another precision."""
    return layer(states.to(next(layer.parameters()).dtype)).float()


def pool(pooling: str, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None) -> Tensor:
    """One vector a text, `[batch, width]`.

    The state of its first real piece (`"cls"`) or of its last (`"last"`), wherever the padding is; the mean of all real
    pieces (`"mean"`); or what the checkpoint's pooler makes of the first (`"pooler"`).
    """
    if pooling == "mean":
        mask = attention_mask[..., None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    real = attention_mask.long()
    # The count of real pieces is highest at the last of them, and stays so on the padding behind it: argmax takes the first.
    place = (real.cumsum(1) if pooling == "last" else real).argmax(1)
    state = hidden[torch.arange(hidden.shape[0], device=hidden.device), place]
    return pooler(state[:, None]) if pooling == "pooler" else state


POOLINGS = ("cls", "mean", "last", "pooler")


class SequenceHead(nn.Module):
    """One label a text.

    Args:
        width: width of the hidden states.
        labels: number of labels.
        pooling: `"cls"` the first state, as in the paper; `"mean"` over the text; `"last"` the last state, for decoders;
            `"pooler"` the checkpoint's own layer.
        dropout: on the pooled state, in training.
        words: how many marked words are read beside the text, each as the mean of its pieces (word in context).
    """

    def __init__(self, width: int, labels: int, pooling: str = "cls", dropout: float = 0.1, words: int = 0):
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.pooling, self.words = pooling, words
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(width * (1 + words), labels)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, labels]`, in float32."""
        read = [pool(self.pooling, hidden, attention_mask, pooler)]
        for number in range(1, self.words + 1):
            of_word = (marks == number)[..., None].to(hidden.dtype)
            # A word that was cut off is read as zeros.
            read.append((hidden * of_word).sum(1) / of_word.sum(1).clamp(min=1))
        return _read(self.linear, self.dropout(torch.cat(read, -1)))

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(logits, labels)


class ChoiceHead(nn.Module):
    """One score an alternative; the alternatives of a row stand next to each other in the batch.

    Args:
        width: width of the hidden states.
        choices: alternatives a row.
        pooling: as in `SequenceHead`.
        dropout: on the pooled state, in training.
    """

    def __init__(self, width: int, choices: int, pooling: str = "cls", dropout: float = 0.1):
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.pooling, self.choices = pooling, choices
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(width, 1)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, 1]`, in float32; the batch counts alternatives."""
        return _read(self.linear, self.dropout(pool(self.pooling, hidden, attention_mask, pooler)))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over rows; `labels` is 1 at each row's right alternative and 0 elsewhere."""
        return F.cross_entropy(logits.view(-1, self.choices), labels.view(-1, self.choices).argmax(1))


class SpanHead(nn.Module):
    """Two scores a piece: that the answer starts there, and that it ends there.

    Args:
        width: width of the hidden states.
        dropout: on the states, in training.
    """

    def __init__(self, width: int, dropout: float = 0.1):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(width, 2)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, text, 2]`, in float32; minus infinity at padding."""
        logits = _read(self.linear, self.dropout(hidden))
        return logits.masked_fill(attention_mask[..., None] == 0, -torch.inf)

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean of the cross entropies of start and end; `labels` is `[batch, 2]`."""
        return (F.cross_entropy(logits[..., 0], labels[:, 0]) + F.cross_entropy(logits[..., 1], labels[:, 1])) / 2


class VerbalizerHead(nn.Module):
    """One label a text, read off the words that a masked language model puts into the gap of a template.

    It has no weights. A label's score is the log of the mean probability of its words, less the label's prior.

    Args:
        pieces: the vocabulary ids of each label's words.
    """

    def __init__(self, pieces: Sequence[Sequence[int]]):
        super().__init__()
        self.pieces = [list(group) for group in pieces]
        self.register_buffer("prior", torch.zeros(len(pieces)))

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, lm_head: nn.Module | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, labels]`, in float32; `marks` is 1 at the gap."""
        at_gap = hidden[torch.arange(hidden.shape[0], device=hidden.device), (marks == 1).long().argmax(1)]
        scores = _read(lm_head, at_gap[:, None])[:, 0].log_softmax(-1)
        by_label = [scores[:, group].logsumexp(-1) - math.log(len(group)) for group in self.pieces]
        return torch.stack(by_label, -1) - self.prior

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy among the labels."""
        return F.cross_entropy(logits, labels)


class TokenHead(nn.Module):
    """One label a piece; pieces labelled -100 are not scored.

    Args:
        width: width of the hidden states.
        labels: number of labels.
        dropout: on the states, in training.
    """

    def __init__(self, width: int, labels: int, dropout: float = 0.1):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(width, labels)

    def forward(
        self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """Logits `[batch, text, labels]`, in float32."""
        return _read(self.linear, self.dropout(hidden))

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the scored pieces; 0 where a batch has none."""
        if (labels == IGNORED).all():
            return logits.sum() * 0
        return F.cross_entropy(logits.flatten(0, 1), torch.flatten(labels), ignore_index=IGNORED)

"""Linear heads on the encoder's last hidden states; a head owns its pooling and its loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import unknown
from .prefix import INIT_STD

IGNORED = -100  # label of a piece that is not scored


def _linear(width: int, labels: int) -> nn.Linear:
    layer = nn.Linear(width, labels)
    nn.init.normal_(layer.weight, std=INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


class SequenceHead(nn.Module):
    """One label a text.

    Args:
        width: width of the hidden states.
        labels: number of labels.
        pooling: `"cls"` the first state, as in the paper; `"mean"` over the text; `"pooler"` the checkpoint's own layer.
        dropout: on the pooled state, in training.
    """

    POOLINGS = ("cls", "mean", "pooler")

    def __init__(self, width: int, labels: int, pooling: str = "cls", dropout: float = 0.1):
        super().__init__()
        if pooling not in self.POOLINGS:
            raise unknown("pooling", pooling, self.POOLINGS)
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(width, labels)

    def forward(self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None) -> Tensor:
        """Hidden states `[batch, text, width]` to logits `[batch, labels]`, in float32."""
        if self.pooling == "mean":
            mask = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        else:
            pooled = pooler(hidden) if self.pooling == "pooler" else hidden[:, 0]
        return self.linear(self.dropout(pooled)).float()

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
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

    def forward(self, hidden: Tensor, attention_mask: Tensor, pooler: nn.Module | None = None) -> Tensor:
        """Hidden states `[batch, text, width]` to logits `[batch, text, labels]`, in float32."""
        return self.linear(self.dropout(hidden)).float()

    @staticmethod
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy over the scored pieces."""
        return F.cross_entropy(logits.flatten(0, 1), torch.flatten(labels), ignore_index=IGNORED)

"""Prompts at the input: trainable vectors before the word embeddings (prompt tuning, Lester et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import text_positions
from .prefix import INIT_STD


class SoftPrompt(nn.Module):
    """`length` trainable vectors that stand before the whole input, [CLS] included.

    Args:
        width: width of the encoder's word embeddings.
        length: number of vectors.
        position_offset: `"shift"` counts positions through, so the text starts at `length`; `"none"` lets the text keep
            its usual positions and the vectors share the first ones.
    """

    def __init__(self, width: int, length: int, position_offset: str = "shift"):
        super().__init__()
        self.length = length
        self.vectors = nn.Parameter(torch.empty(length, width).normal_(std=INIT_STD))
        self.offset = length if position_offset == "shift" else 0

    def encode(self, encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Run the encoder on vectors and text; hidden states of the text alone, `[batch, text, width]`.

        The vectors' own states are cut off, so that place 0 is [CLS] again and every head reads the right one.
        """
        batch = input_ids.shape[0]
        words = encoder.get_input_embeddings()(input_ids)
        embedded = torch.cat([self.vectors.to(words.dtype).expand(batch, -1, -1), words], 1)
        before = attention_mask.new_ones(batch, self.length)
        text = text_positions(encoder, attention_mask, self.offset)
        if text is not None:  # else the encoder counts distances between places itself
            inputs["position_ids"] = torch.cat([text_positions(encoder, before, 0), text], 1)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] = torch.cat([torch.zeros_like(before), inputs["token_type_ids"]], 1)
        mask = torch.cat([before, attention_mask], 1)
        hidden = encoder(inputs_embeds=embedded, attention_mask=mask, **inputs)[0]
        return hidden[:, self.length :]

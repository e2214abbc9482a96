"""Prompts at the input: trainable vectors among the word embeddings (prompt tuning and P-tuning v1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import text_positions
from .errors import unknown
from .prefix import INIT_STD, POSITION_OFFSETS

REPARAMETERIZATIONS = ("mlp", "lstm")


class Recurrent(nn.Module):
    """P-tuning v1's prompt encoder: a two-layer bidirectional LSTM over the prompt, then a two-layer network.

    Source: Liu et al. (2021), "GPT Understands, Too", section 3.2.
    """

    def __init__(self, width: int):
        super().__init__()
        self.lstm = nn.LSTM(width, -(-width // 2), num_layers=2, bidirectional=True, batch_first=True)
        self.network = _two_layers(2 * -(-width // 2), width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors `[length, width]` that know their neighbours."""
        with torch.autocast(vectors.device.type, enabled=False):  # not every processor has an LSTM in half precision
            return self.network(self.lstm(vectors[None])[0][0])


def _two_layers(read: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(read, width), nn.ReLU(), nn.Linear(width, width))


class SoftPrompt(nn.Module):
    """`length` trainable vectors: before the whole input, [CLS] included, or in the slots of a template.

    Args:
        width: width of the encoder's word embeddings.
        length: number of vectors.
        position_offset: of vectors before the input: `"shift"` counts positions through, so the text starts at `length`;
            `"none"` lets the text keep its usual positions and the vectors share the first ones.
        reparameterization: None, `"mlp"`, or `"lstm"`: what computes the vectors while they are trained (P-tuning v1).
    """

    def __init__(self, width: int, length: int, position_offset: str = "shift", reparameterization: str | None = None):
        super().__init__()
        if reparameterization not in (None, *REPARAMETERIZATIONS):
            raise unknown("reparameterization of prompts at the input", reparameterization, REPARAMETERIZATIONS)
        if position_offset not in POSITION_OFFSETS:
            raise unknown("position_offset", str(position_offset), POSITION_OFFSETS)
        self.length = length
        self.vectors = nn.Parameter(torch.empty(length, width).normal_(std=INIT_STD))
        self.offset = length if position_offset == "shift" else 0
        self.network: nn.Module | None = None
        if reparameterization is not None:
            # What the network reads starts as wide as nn.Embedding starts: at 0.02 the LSTM would see nothing.
            nn.init.normal_(self.vectors)
            self.network = Recurrent(width) if reparameterization == "lstm" else _two_layers(width, width)

    @property
    def is_folded(self) -> bool:
        """Whether the vectors are the prompt itself, with nothing left to compute."""
        return self.network is None

    def folded(self) -> Tensor:
        """The prompt `[length, width]`, reparameterization computed."""
        return self.vectors if self.network is None else self.network(self.vectors)

    @torch.no_grad()
    def folded_state(self) -> dict[str, Tensor]:
        """What `state_dict` would be after `fold`."""
        return {"vectors": self.folded()}

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the reparameterization by what it computes; the outputs stay the same."""
        if self.network is not None:
            self.vectors = nn.Parameter(self.folded().clone())
            self.network = None

    @torch.no_grad()
    def start_from_pieces(self, encoder: nn.Module, pieces: Sequence[int]) -> None:
        """Start from the embeddings of vocabulary pieces, repeated until the prompt is full (Lester et al., 2021, 3.2)."""
        chosen = torch.tensor([pieces[k % len(pieces)] for k in range(self.length)], device=self.vectors.device)
        self.vectors.copy_(encoder.get_input_embeddings()(chosen))

    def encode(
        self,
        encoder: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        slots: Tensor | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Run the encoder on vectors and text; hidden states of the input's pieces, `[batch, text, width]`.

        Args:
            encoder: the encoder.
            input_ids: `[batch, text]`.
            attention_mask: `[batch, text]`.
            slots: which vector stands where, counted from 1, 0 for words, `[batch, text]`; None: all stand before the text.
            **inputs: what else the encoder takes.

        The own states of vectors before the text are cut off, so that place 0 is [CLS] again and every head reads the right
        one.
        """
        words, vectors = encoder.get_input_embeddings()(input_ids), self.folded()
        positions = text_positions(encoder, attention_mask, 0 if slots is not None else self.offset)
        if slots is not None:
            slotted = vectors.to(words.dtype)[(slots - 1).clamp(min=0)]
            embedded = torch.where(slots[..., None] > 0, slotted, words)
            if positions is not None:  # else the encoder counts distances between places itself
                inputs["position_ids"] = positions
            return encoder(inputs_embeds=embedded, attention_mask=attention_mask, **inputs)[0]
        front = attention_mask.new_ones(input_ids.shape[0], self.length)
        order, places = _behind_padding(attention_mask, self.length)

        def joined(first: Tensor, second: Tensor) -> Tensor:
            both = torch.cat([first, second], 1)
            return both if order is None else _taken(both, order)

        if positions is not None:
            inputs["position_ids"] = joined(text_positions(encoder, front, 0), positions)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] = joined(torch.zeros_like(front), inputs["token_type_ids"])
        embedded = joined(vectors.to(words.dtype).expand(input_ids.shape[0], -1, -1), words)
        mask = joined(front, attention_mask)
        hidden = encoder(inputs_embeds=embedded, attention_mask=mask, **inputs)[0]
        return hidden[:, self.length :] if places is None else _taken(hidden, places)


def _behind_padding(attention_mask: Tensor, length: int) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """How `[vectors, padding, text]` becomes `[padding, vectors, text]`, so that no padding parts the vectors from the text.

    Encoders that count distances between places would see it. Returns what stands at each place, `[batch, length + text]`, and
    where the input's pieces then are, `[batch, text]`; None twice where no text is padded on the left.
    """
    padding = attention_mask.long().argmax(1, keepdim=True)
    if not padding.any():
        return None, None
    pieces = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    places = pieces + length * (pieces >= padding)
    vectors = padding + torch.arange(length, device=attention_mask.device)
    return torch.cat([vectors, places], 1).argsort(1), places


def _taken(found: Tensor, places: Tensor) -> Tensor:
    """What stands at these places of each row: `[batch, places]`, or with a width behind."""
    return found.gather(1, places if found.dim() == 2 else places[..., None].expand(-1, -1, found.shape[2]))

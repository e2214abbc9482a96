"""Deep prompts: trainable keys and values for every layer (P-tuning v2, section 3.2 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import (
    DeepPrompt,
    Shape,
    check_gate,
    check_position_offset,
    context_length,
    keys_and_values,
    positions_of,
    text_positions,
)
from .errors import BadOption, unknown

INIT_STD = 0.02  # what the official code's prompts start from, and what the paper's learning rates belong to
REPARAMETERIZATIONS = ("mlp", "residual")
POSITION_OFFSETS = ("none", "shift")
GATES = ("zero", "layer")


def choose_layers(choice: str | Sequence[int], depth: int) -> tuple[int, ...]:
    """Read a layer choice as people write it, counted from 1, and give layer numbers counted from 0.

    Args:
        choice: `"all"`, an interval `"9-12"`, one number, or a list of numbers.
        depth: the encoder's number of layers.

    Raises:
        BadOption: for an empty, repeated or unreadable choice, or a layer the encoder does not have.
    """
    if choice == "all":
        return tuple(range(depth))
    if isinstance(choice, int):
        choice = [choice]
    if isinstance(choice, str):
        interval = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", choice)
        if interval:
            first, last = int(interval[1]), int(interval[2] or interval[1])
            if last > depth:  # said before so long a list is made
                raise BadOption(
                    f"layers={choice!r} asks for layer {max(first, depth + 1)}, and the encoder has layers 1 to {depth}."
                )
            choice = list(range(first, last + 1))
        elif re.fullmatch(r"\s*\[?\s*\d+(\s*,\s*\d+)*\s*\]?\s*", choice):
            choice = [int(number) for number in re.findall(r"\d+", choice)]
        else:
            raise BadOption(f"layers={choice!r} cannot be read; write 'all', an interval such as '9-12', or a list.")
    if not isinstance(choice, (list, tuple, range)) or not all(type(number) is int for number in choice):
        raise BadOption(f"layers={choice!r} cannot be read; write 'all', an interval such as '9-12', or a list.")
    if not choice or len(set(choice)) != len(choice):
        raise BadOption(f"layers={list(choice)} must name at least one layer, and each once.")
    outside = [number for number in choice if not 1 <= number <= depth]
    if outside:
        raise BadOption(f"layers={list(choice)} asks for layer {outside[0]}, and the encoder has layers 1 to {depth}.")
    return tuple(sorted(number - 1 for number in choice))


class PrefixEncoder(nn.Module):
    """Holds a deep prompt and gives the keys and values of one step.

    Without reparameterization the trainable numbers are the keys and values themselves. With `"mlp"` a small network
    computes them from one vector a position, as in prefix-tuning (Li and Liang, 2021). With `"residual"` a network without
    biases adds to them, `kv + W2 tanh(W1 kv)`, after Residual Prompt Tuning (Razdaibiedina et al., 2023, arXiv 2305.03937);
    all layers, keys and values share it, it has no layer norm, and W2 starts at zero: so the start is that without it.

    The `"zero"` gate is LLaMA-Adapter's (Zhang et al., 2023, arXiv 2303.16199): the prompt has a softmax of its own, times the
    tanh of a gate that starts at zero, one a layer and query head. So the prompt changes nothing at first, unless it shifts
    the text. There the prompt's vectors pass through the layer's own projections; here they are keys and values.

    The `"layer"` gate is after APT, adaptive prefix tuning (Zhang et al., ACL 2023, arXiv 2305.15212): one scale a layer, from
    1, multiplies its keys and values. APT also has a gate a position, which reads the previous layer's [CLS] state; it is left
    out here.

    `fold` bakes reparameterization and layer scales in; the gates of `"zero"` stay.

    Args:
        shape: the encoder's attention shape.
        length: prompt positions in each chosen layer.
        layers: chosen layers, from 0.
        reparameterization: None, `"mlp"` or `"residual"`.
        hidden: width of the network's hidden layer.
        dropout: share of the keys' and values' numbers set to zero in training.
        dropout_per_example: draw a mask for each example rather than one a step; costs a copy of the prompt an example.
        position_offset: `"none"` leaves the text at its usual positions, `"shift"` moves it by `length` as the paper's
            code does.
        gate: None, `"zero"` or `"layer"`.

    Attributes:
        gates: `[chosen layers, query heads]`, before their tanh, with the `"zero"` gate; else None.
        scales: `[chosen layers]` with the `"layer"` gate until it is folded; else None.

    Raises:
        UnknownName: for another reparameterization or gate.
    """

    def __init__(
        self,
        shape: Shape,
        length: int,
        layers: tuple[int, ...],
        reparameterization: str | None = None,
        hidden: int = 512,
        dropout: float = 0.0,
        dropout_per_example: bool = False,
        position_offset: str = "none",
        gate: str | None = None,
    ):
        super().__init__()
        if reparameterization not in (None, *REPARAMETERIZATIONS):
            raise unknown("reparameterization", str(reparameterization), REPARAMETERIZATIONS)
        if gate not in (None, *GATES):
            raise unknown("gate", str(gate), GATES)
        if position_offset not in POSITION_OFFSETS:
            raise unknown("position_offset", str(position_offset), POSITION_OFFSETS)
        self.layers, self.length = layers, length
        self.size = (len(layers), 2, shape.key_value_heads, length, shape.head_size)
        self.dropout = nn.Dropout(dropout)
        self.dropout_per_example = dropout_per_example
        self.offset = length if position_offset == "shift" else 0
        self.gates = nn.Parameter(torch.zeros(len(layers), shape.query_heads)) if gate == "zero" else None
        self.scales = nn.Parameter(torch.ones(len(layers))) if gate == "layer" else None
        self.network, self.positions, width = None, None, shape.key_value_width
        if reparameterization != "mlp":
            self.keys_values = nn.Parameter(torch.empty(self.size).normal_(std=INIT_STD))
        if reparameterization == "residual":
            down, up = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
            nn.init.normal_(down.weight, std=INIT_STD)
            nn.init.zeros_(up.weight)
            self.network = nn.Sequential(down, nn.Tanh(), up)
        if reparameterization == "mlp":
            self.positions = nn.Parameter(torch.empty(length, width).normal_(std=INIT_STD))
            self.network = nn.Sequential(
                nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, len(layers) * 2 * width)
            )
            for part in (self.network[0], self.network[2]):
                nn.init.normal_(part.weight, std=INIT_STD)
                nn.init.zeros_(part.bias)

    @property
    def is_folded(self) -> bool:
        """Whether the keys and values are themselves what is trained, with nothing left to fold."""
        return self.network is None and self.scales is None

    def folded(self) -> Tensor:
        """Keys and values as one tensor `[chosen layers, 2, heads, length, head size]`, with all that `fold` bakes in."""
        keys_values = self._reparameterized()
        return keys_values if self.scales is None else keys_values * self.scales[:, None, None, None, None]

    def _reparameterized(self) -> Tensor:
        layers, _, heads, length, size = self.size
        if self.network is None:
            return self.keys_values
        if self.positions is not None:
            flat = self.network(self.positions)  # [length, layers · 2 · heads · head size]
            return flat.view(length, layers, 2, heads, size).permute(1, 2, 3, 0, 4)
        flat = self.keys_values.transpose(2, 3).flatten(3)  # [layers, 2, length, heads · head size]
        return self.keys_values + self.network(flat).unflatten(3, (heads, size)).transpose(2, 3)

    def folded_state(self) -> dict[str, Tensor]:
        """What `state_dict` gives once the prompt is folded, without folding it: `keys_values`, and `gates` if it has some."""
        state = {"keys_values": self.folded().detach()}
        return state if self.gates is None else state | {"gates": self.gates.detach()}

    def fold(self) -> None:
        """Replace reparameterization and layer scales by what they compute; the outputs stay the same."""
        if self.is_folded:
            return
        self.keys_values = nn.Parameter(self.folded().detach().clone(memory_format=torch.contiguous_format))
        self.network = self.positions = self.scales = None

    def layer_importance(self) -> list[float]:
        """The magnitude of each chosen layer's scale, as a share of their sum.

        Raises:
            BadOption: without the `"layer"` gate, or once it is folded.
        """
        if self.scales is None:
            raise BadOption(
                "layer_importance reads the scales of gate='layer', and this prompt has none, or has folded them."
            )
        size = self.scales.detach().abs()
        return (size / size.sum()).tolist()

    def forward(self, batch: int) -> Tensor:
        """Keys and values of one step; expanded by the batch only for dropout per example, in training."""
        prompt = self.folded()
        if self.dropout_per_example and self.training and self.dropout.p > 0:
            prompt = prompt[None].expand(batch, *prompt.shape)
        return self.dropout(prompt)

    def encode(self, encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Run the attached encoder with this prompt; hidden states `[batch, text, width]`.

        Raises:
            BadOption: for `position_offset="shift"` and an encoder whose positions cannot be moved, or the `"zero"` gate and
                one that computes attention in its own forward.
        """
        if self.gates is not None:
            check_gate(encoder, "zero")
        if self.offset:
            check_position_offset(encoder, "shift")
        if self.offset or positions_of(encoder) == "rotary":
            inputs["position_ids"] = text_positions(encoder, attention_mask, self.offset)
        prompt = DeepPrompt(self(input_ids.shape[0]), self.layers, gates=self.gates)
        hidden = encoder(input_ids=input_ids, attention_mask=attention_mask, ptv2=prompt, **inputs)[0]
        if prompt.reached != set(self.layers):
            raise RuntimeError("The encoder did not take the prompt; was its attention changed after attach()?")
        return hidden

    @torch.no_grad()
    def start_from_words(self, encoder: nn.Module, pieces: Sequence[int], cls: int | None, sep: int | None) -> None:
        """Start from the keys and values that real words have inside the frozen encoder (Li and Liang, 2021, 4.3).

        Args:
            encoder: the attached encoder.
            pieces: at least `length` ids of running text, without special pieces.
            cls: the id that opens a text; None where the tokenizer has none.
            sep: the id that closes it, or None.

        Raises:
            BadOption: with `reparameterization="mlp"`, which computes the keys and values from elsewhere, or too little text.
        """
        if self.positions is not None:
            raise BadOption(
                "init='activations' sets keys and values directly and so excludes reparameterization='mlp'."
            )
        if len(pieces) < self.length:
            raise BadOption(
                f"init='activations' needs {self.length} pieces of training text, and there are {len(pieces)}."
            )
        before, after = ([id] if id is not None else [] for id in (cls, sep))
        window = context_length(encoder) - 2
        found = []
        for start in range(0, self.length, window):
            chunk = list(pieces[start : min(start + window, self.length)])
            ids = torch.tensor([[*before, *chunk, *after]], device=self.keys_values.device)
            words = slice(len(before), len(before) + len(chunk))
            found.append(keys_and_values(encoder, input_ids=ids)[:, :, 0, :, words])
        recorded = torch.cat(found, dim=-2)
        self.keys_values.copy_(recorded[list(self.layers)])

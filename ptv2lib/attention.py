"""How a deep prompt enters an encoder: the only module that touches transformers' internals.

transformers lets a model call a *registered* attention function. Two are registered here, `ptv2_sdpa` and `ptv2_eager`,
each with its mask function. They put the prompt's keys and values before the text's and hand over to the function they are
named after. The prompt itself travels as a call argument, `encoder(..., ptv2=prompt)`: nothing global holds it, and two
calls can carry two prompts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import UnsupportedEncoder

LAYER = "ptv2_layer"  # attribute that numbers an encoder's attention modules, from 0


@dataclass(frozen=True)
class Family:
    """What must be known of an architecture to put prompts into it.

    Attributes:
        name: the name as people write it.
        attention: class name of the self-attention modules, one a layer, in order of depth.
        positions: `"absolute"` (0, 1, 2, …) or `"after_padding"` (counted from the padding index, as RoBERTa does).
    """

    name: str
    attention: str
    positions: str = "absolute"


FAMILIES: dict[str, Family] = {
    "bert": Family("BERT", "BertSelfAttention"),
    "roberta": Family("RoBERTa", "RobertaSelfAttention", "after_padding"),
    "xlm-roberta": Family("XLM-R", "XLMRobertaSelfAttention", "after_padding"),
    "electra": Family("ELECTRA", "ElectraSelfAttention"),
    "distilbert": Family("DistilBERT", "DistilBertSelfAttention"),
}
"""The architectures that work, by `config.model_type`."""


@dataclass(frozen=True)
class Shape:
    """The attention shape of an encoder."""

    layers: int
    key_value_heads: int
    head_size: int

    @property
    def key_value_width(self) -> int:
        """Numbers in one key of one layer, all heads together."""
        return self.key_value_heads * self.head_size


@dataclass
class DeepPrompt:
    """Keys and values for some layers of one forward pass.

    Attributes:
        keys_values: `[chosen layers, 2, heads, length, head size]`, or `[batch, chosen layers, 2, …]` where each example
            has its own.
        layers: the numbers of the chosen layers, from 0, in the order of the first axis.
        reached: the layers that took their keys and values, filled in during the pass.
    """

    keys_values: Tensor
    layers: tuple[int, ...]
    reached: set[int] = field(default_factory=set)

    def enter(
        self, layer: int, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put this layer's keys and values before `key` and `value` ([batch, heads, text, head size])."""
        if layer not in self.layers:
            return key, value, mask
        row = self.layers.index(layer)
        per_example = self.keys_values.dim() == 6
        chosen = self.keys_values[:, row].transpose(0, 1) if per_example else self.keys_values[row, :, None]
        chosen = chosen.to(key.dtype).expand(2, key.shape[0], -1, -1, -1)
        self.reached.add(layer)
        if mask is not None:
            visible = True if mask.dtype == torch.bool else 0.0
            mask = F.pad(mask, (chosen.shape[-2], 0), value=visible)
        return torch.cat([chosen[0], key], 2), torch.cat([chosen[1], value], 2), mask


@dataclass
class Recorder:
    """Travels like a `DeepPrompt`, changes nothing, and remembers the keys and values of every layer."""

    keys_values: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def enter(
        self, layer: int, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Remember `key` and `value` of `layer` and give everything back unchanged."""
        self.keys_values[layer] = (key, value)
        return key, value, mask


def _sdpa(module: nn.Module, query, key, value, attention_mask, ptv2=None, **kwargs):
    if ptv2 is not None:
        key, value, attention_mask = ptv2.enter(getattr(module, LAYER), key, value, attention_mask)
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


def _eager(module: nn.Module, query, key, value, attention_mask, ptv2=None, **kwargs):
    if ptv2 is not None:
        key, value, attention_mask = ptv2.enter(getattr(module, LAYER), key, value, attention_mask)
    # Every modeling file has its own eager function; the module's is the one it would have called.
    attend = sys.modules[type(module).__module__].eager_attention_forward
    return attend(module, query, key, value, attention_mask, **kwargs)


# Without a mask function of the same name the padding mask would silently become None.
ALL_ATTENTION_FUNCTIONS.register("ptv2_sdpa", _sdpa)
ALL_ATTENTION_FUNCTIONS.register("ptv2_eager", _eager)
ALL_MASK_ATTENTION_FUNCTIONS.register("ptv2_sdpa", sdpa_mask)
ALL_MASK_ATTENTION_FUNCTIONS.register("ptv2_eager", eager_mask)


def family_of(encoder: nn.Module) -> Family:
    """Look up the encoder's architecture.

    Raises:
        UnsupportedEncoder: naming the architecture and those that work.
    """
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in FAMILIES:
        names = ", ".join(family.name for family in FAMILIES.values())
        raise UnsupportedEncoder(f"Deep prompts cannot be put into {kind!r}; the architectures that work are {names}.")
    return FAMILIES[kind]


def attach(encoder: nn.Module, check: bool = True) -> Shape:
    """Make `encoder` take deep prompts as the call argument `ptv2`; without that argument it computes what it did before.

    Attaching twice does no harm. The encoder's weights are not touched, nor is its code.

    Args:
        encoder: a transformers encoder, with or without a task head around it.
        check: run the self-check (one forward of four tokens without a prompt, one with).

    Raises:
        UnsupportedEncoder: if the architecture is not in `FAMILIES`, uses another attention backend than eager or sdpa,
            or ignores the prompt.
    """
    family = family_of(encoder)
    backend = encoder.config._attn_implementation
    if backend not in ("sdpa", "eager", "ptv2_sdpa", "ptv2_eager"):
        raise UnsupportedEncoder(
            f"Deep prompts need the attention backend 'sdpa' or 'eager', and this encoder uses {backend!r}."
        )
    modules = [module for module in encoder.modules() if type(module).__name__ == family.attention]
    for number, module in enumerate(modules):
        setattr(module, LAYER, number)
    if not backend.startswith("ptv2_"):
        encoder.set_attn_implementation(f"ptv2_{backend}")
    config = encoder.config
    heads = config.num_attention_heads
    shape = Shape(len(modules), heads, config.hidden_size // heads)
    if check:
        try:
            _self_check(encoder, shape)
        except UnsupportedEncoder:
            detach(encoder)
            raise
    return shape


def detach(encoder: nn.Module) -> None:
    """Put the encoder back as it was before `attach`."""
    backend = encoder.config._attn_implementation
    if backend.startswith("ptv2_"):
        encoder.set_attn_implementation(backend.removeprefix("ptv2_"))
    for module in encoder.modules():
        if hasattr(module, LAYER):
            delattr(module, LAYER)


def keys_and_values(encoder: nn.Module, **inputs: Any) -> Tensor:
    """Record what every layer of an attached encoder attends to on `inputs`.

    Returns:
        `[layers, 2, batch, heads, text, head size]`, without gradients.
    """
    recorder = Recorder()
    with torch.no_grad():
        encoder(**inputs, ptv2=recorder)
    return torch.stack([torch.stack(recorder.keys_values[layer]) for layer in sorted(recorder.keys_values)])


def text_positions(encoder: nn.Module, attention_mask: Tensor, offset: int) -> Tensor:
    """Position numbers of a text that starts `offset` places later than usual: `[batch, text]`.

    Padding keeps the position the architecture gives it. Source of the two rules: `BertEmbeddings` and
    `RobertaEmbeddings.create_position_ids_from_input_ids` of transformers.
    """
    if family_of(encoder).positions == "absolute":
        text = torch.arange(attention_mask.shape[1], device=attention_mask.device) + offset
        return text.expand(attention_mask.shape)
    padding = encoder.config.pad_token_id
    return torch.where(attention_mask.bool(), attention_mask.cumsum(1) + padding + offset, padding)


def context_length(encoder: nn.Module) -> int:
    """How many positions the encoder has for prompts and text together."""
    reserved = encoder.config.pad_token_id + 1 if family_of(encoder).positions == "after_padding" else 0
    return encoder.config.max_position_embeddings - reserved


def _self_check(encoder: nn.Module, shape: Shape) -> None:
    """Refuse an encoder that does not hand the prompt to every layer, or whose output does not depend on it."""
    device = next(encoder.parameters()).device
    ids = torch.arange(4, device=device)[None] + encoder.config.vocab_size // 2
    seed = torch.Generator().manual_seed(0)
    size = (shape.layers, 2, shape.key_value_heads, 1, shape.head_size)
    prompt = DeepPrompt(torch.randn(size, generator=seed).to(device), tuple(range(shape.layers)))
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            plain = encoder(input_ids=ids)[0]
            prompted = encoder(input_ids=ids, ptv2=prompt)[0]
    finally:
        encoder.train(training)
    name = type(encoder).__name__
    if shape.layers != encoder.config.num_hidden_layers or prompt.reached != set(prompt.layers):
        raise UnsupportedEncoder(
            f"{name} gave its prompt to {len(prompt.reached)} of {encoder.config.num_hidden_layers} layers; it cannot be used."
        )
    if torch.allclose(plain, prompted, atol=1e-6):
        raise UnsupportedEncoder(f"{name} ignores its prompt: its output is the same with and without one.")

"""How a deep prompt enters an encoder: the only module, with `attention_overrides`, that touches transformers' internals.

transformers lets a model call a *registered* attention function. Two are registered here, `ptv2_sdpa` and `ptv2_eager`,
each with its mask function. They put the prompt's keys and values before the text's and hand over to the function they are
named after. With a gated prompt they hand over the text alone, and add what it draws from the prompt. The prompt itself
travels as a call argument, `encoder(..., ptv2=prompt)`: nothing global holds it, and two calls can carry two prompts. What
differs between encoders stands in one table, `FAMILIES`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from . import attention_overrides
from .attention_overrides import HOOK, LAYER
from .errors import BadOption, UnsupportedEncoder


@dataclass(frozen=True)
class Family:
    """What must be known of an architecture to put prompts into it.

    Attributes:
        name: the name as people write it.
        attention: class name of the self-attention modules, one a layer, in order of depth.
        positions: what a position number is: `"absolute"` (0, 1, 2, …), `"after_padding"` (counted from the padding index,
            as RoBERTa does), `"rotary"` (turns queries and keys), or `"relative"` (there is none, only distances).
        override: the forward of its attention modules, for an encoder outside transformers' attention interface.
        shared: whether layers share modules; each pass through them then has a prompt of its own.
        causal: whether a piece sees only what stands before it, and the prompt.
        checkpoints: whether transformers can recompute its activations in the backward pass.
        pooling: what a head reads unless told otherwise.
        pooler: whether its class takes `add_pooling_layer`.
        whole_pooler: whether that layer is a module that can be called alone, so that `pooling="pooler"` can be offered.
        prefix_space: whether its tokenizer needs `add_prefix_space=True` to read single words as it reads running text.
        model: the class in transformers that loads the encoder alone.
        masked_lm: the modules that, one after the other, make scores for the vocabulary out of a hidden state, by their names
            in the class that `AutoModelForMaskedLM` loads; none where there is no such class.
    """

    name: str
    attention: str
    positions: str = "absolute"
    override: Callable | None = None
    shared: bool = False
    causal: bool = False
    checkpoints: bool = True
    pooling: str = "cls"
    pooler: bool = False
    whole_pooler: bool = True
    prefix_space: bool = False
    model: str = "AutoModel"
    masked_lm: tuple[str, ...] = ()

    @property
    def backends(self) -> tuple[str, ...]:
        """The attention functions of transformers that a prompt can enter."""
        return ("eager",) if self.override else ("eager", "sdpa")

    @property
    def padding(self) -> tuple[str, ...]:
        """The sides on which a batch may be padded without changing what the text's pieces see."""
        # Absolute positions are counted from the edge, padding or not, as they were in pre-training.
        return ("right",) if self.positions == "absolute" else ("right", "left")

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that make sense: under a causal mask a single piece has not seen the text behind it."""
        return ("sequence", "choice") if self.causal else ("sequence", "choice", "token", "span")


def _decoder(name: str, attention: str) -> Family:
    return Family(name, attention, "rotary", causal=True, pooling="last")


FAMILIES: dict[str, Family] = {
    "bert": Family("BERT", "BertSelfAttention", pooler=True, masked_lm=("cls",)),
    "roberta": Family(
        "RoBERTa", "RobertaSelfAttention", "after_padding", pooler=True, prefix_space=True, masked_lm=("lm_head",)
    ),
    "xlm-roberta": Family(
        "XLM-R", "XLMRobertaSelfAttention", "after_padding", pooler=True, prefix_space=True, masked_lm=("lm_head",)
    ),
    "camembert": Family("CamemBERT", "CamembertSelfAttention", "after_padding", pooler=True, masked_lm=("lm_head",)),
    "electra": Family("ELECTRA", "ElectraSelfAttention", masked_lm=("generator_predictions", "generator_lm_head")),
    "ernie": Family("ERNIE", "ErnieSelfAttention", pooler=True, masked_lm=("cls",)),
    "distilbert": Family(
        "DistilBERT",
        "DistilBertSelfAttention",
        masked_lm=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    ),
    "albert": Family(
        "ALBERT",
        "AlbertAttention",
        shared=True,
        checkpoints=False,
        pooler=True,
        whole_pooler=False,
        masked_lm=("predictions",),
    ),
    "mpnet": Family(
        "MPNet",
        "MPNetSelfAttention",
        "after_padding",
        override=attention_overrides.mpnet,
        checkpoints=False,
        pooler=True,
        masked_lm=("lm_head",),
    ),
    "deberta": Family(
        "DeBERTa v1",
        "DisentangledSelfAttention",
        "relative",
        override=attention_overrides.deberta_v1,
        prefix_space=True,
        masked_lm=("cls",),
    ),
    "deberta-v2": Family(
        "DeBERTa v2 and v3",
        "DisentangledSelfAttention",
        "relative",
        override=attention_overrides.deberta_v2,
        masked_lm=("cls",),
    ),
    "modernbert": Family("ModernBERT", "ModernBertAttention", "rotary", masked_lm=("head", "decoder")),
    "eurobert": Family("EuroBERT", "EuroBertAttention", "rotary", masked_lm=("lm_head",)),
    "t5": Family("T5 encoder", "T5Attention", "relative", pooling="mean", model="T5EncoderModel"),
    "glm": _decoder("GLM-4 (glm)", "GlmAttention"),
    "glm4": _decoder("GLM-4 (glm4)", "Glm4Attention"),
    "llama": _decoder("Llama", "LlamaAttention"),
    "qwen3": _decoder("Qwen3", "Qwen3Attention"),
}
"""The architectures that work, by `config.model_type`; nothing else is attached to.

An architecture whose attention goes through transformers' interface could be attached to and tried by the self-check, but four
tokens cannot prove that its positions, its padding and its mask are read rightly, so it is refused until it has a row.
"""


@dataclass(frozen=True)
class Shape:
    """The attention shape of an encoder; `groups` query heads share a key-value head (grouped-query attention)."""

    layers: int
    key_value_heads: int
    head_size: int
    groups: int = 1

    @property
    def key_value_width(self) -> int:
        """Numbers in one key of one layer, all heads together."""
        return self.key_value_heads * self.head_size

    @property
    def query_heads(self) -> int:
        """Query heads of one layer."""
        return self.key_value_heads * self.groups


@dataclass
class DeepPrompt:
    """Keys and values for some layers of one forward pass.

    Attributes:
        keys_values: `[chosen layers, 2, heads, length, head size]`, or `[batch, chosen layers, 2, …]` where each example
            has its own.
        layers: the numbers of the chosen layers, from 0, in the order of the first axis.
        keep: which positions an example has, `[batch, length]`, boolean, where examples have prompts of unequal length;
            None: all.
        gates: `[chosen layers, query heads]`, before their tanh; the prompt then has a softmax of its own (`beside`). None:
            prompt and text share one softmax (`enter`).
        reached: the layers that took their keys and values, filled in during the pass.
    """

    keys_values: Tensor
    layers: tuple[int, ...]
    keep: Tensor | None = None
    gates: Tensor | None = None
    reached: set[int] = field(default_factory=set)

    def _take(self, layer: int) -> Tensor:
        """Keys and values of a chosen layer: `[2, batch or 1, heads, length, head size]`."""
        row = self.layers.index(layer)
        self.reached.add(layer)
        if self.keys_values.dim() == 6:  # each example has its own
            return self.keys_values[:, row].transpose(0, 1)
        return self.keys_values[row, :, None]

    def enter(
        self, layer: int, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put this layer's keys and values before `key` and `value` ([batch, heads, text, head size]).

        The mask, boolean or to be added to the scores, grows with them; with `keep` there must be one.

        Raises:
            BadOption: for a gated prompt, which cannot share the text's softmax.
        """
        if self.gates is not None:  # an encoder with a forward of its own never calls `beside`
            raise _no_gate("this encoder")
        if layer not in self.layers:
            return key, value, mask
        chosen = self._take(layer).to(key.dtype).expand(2, key.shape[0], -1, -1, -1)
        if mask is not None:
            front = mask.new_ones(()).bool() if self.keep is None else self.keep.to(mask.device)[:, None, None].bool()
            if mask.dtype != torch.bool:
                front = _additive(front, mask.dtype)
            batch = key.shape[0] if self.keep is not None else mask.shape[0]
            front = front.expand(batch, *mask.shape[1:3], chosen.shape[-2])
            mask = torch.cat([front, mask.expand(batch, -1, -1, -1)], -1)
        return torch.cat([chosen[0], key], 2), torch.cat([chosen[1], value], 2), mask

    def beside(self, layer: int, output: Tensor, query: Tensor, scaling: float | None) -> Tensor:
        """Add to the text's own attention what the text draws from this layer's prompt, times the tanh of the gates.

        Zero-initialised attention (Zhang et al., 2023, arXiv 2303.16199): the prompt has a softmax of its own, so gates of
        zero leave `output` as it is, bit for bit. Every piece sees the whole prompt, under a causal mask, too; the prompt has
        no position bias, and its attention no dropout.

        Args:
            layer: the layer's number.
            output: what attention over the text alone gave, `[batch, text, heads, head size]`.
            query: `[batch, heads, text, head size]`.
            scaling: of the scores; None for 1 / sqrt(head size).
        """
        if layer not in self.layers:
            return output
        chosen = self._take(layer).to(query.dtype)
        chosen = chosen.repeat_interleave(query.shape[1] // chosen.shape[2], 2)
        key, value = chosen.expand(2, query.shape[0], -1, -1, -1)
        mask = some = None
        if self.keep is not None:
            keep = self.keep.to(query.device).bool()
            some = keep.any(1)
            # Attention over no key at all is undefined: an example without a prompt attends to every key, times zero.
            mask = (keep | ~some[:, None])[:, None, None]
        drawn = F.scaled_dot_product_attention(query, key, value, mask, scale=scaling).transpose(1, 2)
        drawn = drawn if some is None else drawn * some[:, None, None, None]
        gate = self.gates[self.layers.index(layer)].tanh()[:, None]
        return output + (gate * drawn).to(output.dtype)


@dataclass
class Recorder:
    """Travels like a `DeepPrompt`, changes nothing, and remembers the keys and values of every layer."""

    keys_values: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    keep = None
    gates = None

    def enter(
        self, layer: int, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Remember `key` and `value` of `layer` and give everything back unchanged."""
        self.keys_values[layer] = (key, value)
        return key, value, mask


@dataclass
class Passes:
    """Carries a prompt through layers that share modules, and gives it the number of the pass instead of the module's.

    A new one is made for every forward, so a forward that breaks off leaves no count behind.
    """

    prompt: DeepPrompt | Recorder
    seen: int = 0

    @property
    def keep(self) -> Tensor | None:
        """The prompt's."""
        return self.prompt.keep

    @property
    def gates(self) -> Tensor | None:
        """The prompt's."""
        return self.prompt.gates

    def enter(
        self, layer: int, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Let the prompt of this pass in, and count it."""
        self.seen += 1
        return self.prompt.enter(self.seen - 1, key, value, mask)

    def beside(self, layer: int, output: Tensor, query: Tensor, scaling: float | None) -> Tensor:
        """Add what the prompt of this pass gives, and count it."""
        self.seen += 1
        return self.prompt.beside(self.seen - 1, output, query, scaling)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as one to add to the scores: 0 where a key is seen, the lowest number where not."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _let_in(
    backend: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, ptv2, more
):
    """Keys, values, mask and the other arguments with the prompt in front of them."""
    text = key.shape[2]
    if mask is None:
        causal = more.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if causal or ptv2.keep is not None:
            # Without a mask, transformers cuts the keys of a causal layer to the queries' number: the last ones, the
            # text's, would be lost to the prompt. And a prompt of unequal length needs a mask to be cut by.
            mask = torch.ones(query.shape[2], text, dtype=torch.bool, device=query.device)[None, None]
            mask = mask.tril(text - query.shape[2]) if causal else mask
            mask = mask if backend == "sdpa" else _additive(mask, query.dtype)
    key, value, mask = ptv2.enter(getattr(module, LAYER), key, value, mask)
    added = key.shape[2] - text
    if more.get("position_bias") is not None:
        more = more | {"position_bias": F.pad(more["position_bias"], (added, 0))}
    return key, value, mask, more


def _attend(backend: str, attend: Callable, module: nn.Module, query, key, value, mask, ptv2, more):
    """What `attend`, a function of transformers, gives with the prompt: in front of the text, or beside it if gated."""
    gated = ptv2 is not None and ptv2.gates is not None
    if ptv2 is not None and not gated:
        key, value, mask, more = _let_in(backend, module, query, key, value, mask, ptv2, more)
    output, weights = attend(module, query, key, value, mask, **more)
    if gated:
        output = ptv2.beside(getattr(module, LAYER), output, query, more.get("scaling"))
    return output, weights


def _sdpa(module: nn.Module, query, key, value, attention_mask, ptv2=None, **kwargs):
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    return _attend("sdpa", attend, module, query, key, value, attention_mask, ptv2, kwargs)


def _eager(module: nn.Module, query, key, value, attention_mask, ptv2=None, **kwargs):
    # Every modeling file has its own eager function; the module's is the one it would have called.
    attend = sys.modules[type(module).__module__].eager_attention_forward
    return _attend("eager", attend, module, query, key, value, attention_mask, ptv2, kwargs)


# Without a mask function of the same name the padding mask would silently become None. One name serves every kind of mask
# (bidirectional, causal, sliding window): transformers passes the kind to the function.
ALL_ATTENTION_FUNCTIONS.register("ptv2_sdpa", _sdpa)
ALL_ATTENTION_FUNCTIONS.register("ptv2_eager", _eager)
ALL_MASK_ATTENTION_FUNCTIONS.register("ptv2_sdpa", sdpa_mask)
ALL_MASK_ATTENTION_FUNCTIONS.register("ptv2_eager", eager_mask)


def refusal(what: str) -> UnsupportedEncoder:
    """The error for an architecture without a row in `FAMILIES`; `what` names it."""
    names = ", ".join(family.name for family in FAMILIES.values())
    return UnsupportedEncoder(f"Deep prompts cannot be put into {what}; the architectures that work are {names}.")


def family_of(encoder: nn.Module) -> Family:
    """Look up the encoder's architecture.

    Raises:
        UnsupportedEncoder: naming the architecture and those that work.
    """
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    if kind not in FAMILIES:
        raise refusal(repr(kind))
    return FAMILIES[kind]


def attach(encoder: nn.Module, check: bool = True) -> Shape:
    """Make `encoder` take deep prompts as the call argument `ptv2`; without that argument it computes what it did before.

    Attaching twice does no harm. The encoder's weights are not touched, nor is its code.

    Args:
        encoder: a transformers encoder, with or without a task head around it.
        check: run the self-check (one forward and one backward of four tokens).

    Raises:
        UnsupportedEncoder: if the architecture is not in `FAMILIES`, has a decoder beside its encoder, uses another
            attention backend than eager or sdpa, or ignores the prompt in a layer.
    """
    family, config = family_of(encoder), encoder.config
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedEncoder(
            f"{type(encoder).__name__} has a decoder, too; deep prompts enter its encoder alone, {family.model}."
        )
    modules = [module for module in encoder.modules() if type(module).__name__ == family.attention]
    before = is_attached(encoder)
    backend = config._attn_implementation
    if family.override is None:
        if backend.removeprefix("ptv2_") not in family.backends:
            raise UnsupportedEncoder(
                f"Deep prompts need the attention backend 'sdpa' or 'eager', and this encoder uses {backend!r}."
            )
        if not backend.startswith("ptv2_"):
            encoder.set_attn_implementation(f"ptv2_{backend}")
        if family.shared and not hasattr(encoder.base_model, HOOK):
            hook = encoder.base_model.register_forward_pre_hook(_count_passes, with_kwargs=True)
            setattr(encoder.base_model, HOOK, hook)
    else:
        attention_overrides.install(encoder, modules, family.override)
    for number, module in enumerate(modules):
        setattr(module, LAYER, number)
    layers = config.num_hidden_layers * config.inner_group_num if family.shared else len(modules)
    heads = config.num_attention_heads
    sizes = [getattr(config, name, None) for name in ("head_dim", "d_kv", "attention_head_size")]
    size = next((size for size in sizes if size), config.hidden_size // heads)
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    shape = Shape(layers, key_value_heads, size, heads // key_value_heads)
    if check:
        try:
            _self_check(encoder, shape)
        except BaseException:
            if not before:
                detach(encoder)
            raise
    return shape


def is_attached(encoder: nn.Module) -> bool:
    """Whether the encoder takes deep prompts already."""
    return any(hasattr(module, LAYER) for module in encoder.modules())


def _count_passes(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if kwargs.get("ptv2") is not None:
        kwargs["ptv2"] = Passes(kwargs["ptv2"])
    return args, kwargs


def detach(encoder: nn.Module) -> None:
    """Put the encoder back as it was before `attach`."""
    backend = encoder.config._attn_implementation
    if backend.startswith("ptv2_"):
        encoder.set_attn_implementation(backend.removeprefix("ptv2_"))
    attention_overrides.remove(encoder)
    for module in encoder.modules():
        if hasattr(module, LAYER):
            delattr(module, LAYER)


@contextlib.contextmanager
def eager_where_faster(encoders: Iterable[nn.Module], precision: str) -> Iterator[None]:
    """Training in bf16 on a CPU: compute attention in single steps, and go back to sdpa afterwards.

    torch's fused function has a slow backward pass there (`tests/test_speed.py` holds the two against each other). Where it
    is fast, or the encoder knows no sdpa, nothing changes.

    Args:
        encoders: attached, on their device; one that several models share may come several times.
        precision: of the forward pass.
    """
    changed = []
    for encoder in encoders:
        fused = encoder.config._attn_implementation == "ptv2_sdpa"
        if precision == "bf16" and encoder.device.type == "cpu" and fused:
            encoder.set_attn_implementation("ptv2_eager")
            changed.append(encoder)
    try:
        yield
    finally:
        for encoder in changed:
            encoder.set_attn_implementation("ptv2_sdpa")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def keys_and_values(encoder: nn.Module, **inputs: Any) -> Tensor:
    """Record what every layer of an attached encoder attends to on `inputs`.

    Rotary keys are recorded as they are compared, turned to their places, and replay from there.

    Returns:
        `[layers, 2, batch, heads, text, head size]`, without gradients and without dropout.
    """
    recorder = Recorder()
    with evaluating(encoder), torch.no_grad():  # an earlier training may have left dropout on
        encoder(**inputs, ptv2=recorder)
    return torch.stack([torch.stack(recorder.keys_values[layer]) for layer in sorted(recorder.keys_values)])


def positions_of(encoder: nn.Module) -> str:
    """What a position number is to this encoder (see `Family.positions`)."""
    positions = family_of(encoder).positions
    # A DeBERTa can be built with absolute positions beside the relative ones; no known checkpoint is.
    return (
        "absolute" if positions == "relative" and getattr(encoder.config, "position_biased_input", False) else positions
    )


def check_position_offset(encoder: nn.Module, position_offset: str, prompt: str = "deep") -> None:
    """Refuse a `position_offset` that means nothing to this encoder.

    Args:
        encoder: the encoder.
        position_offset: `"none"` or `"shift"`.
        prompt: `"deep"`, or `"input"` for vectors before the text.

    Raises:
        BadOption: for `"shift"` with a deep prompt and rotary or relative positions, and for `"none"` with vectors at the
            input and relative ones.
    """
    family, positions = family_of(encoder), positions_of(encoder)
    if prompt == "deep" and position_offset == "shift" and positions in ("rotary", "relative"):
        raise BadOption(
            f"position_offset='shift' has nothing to move: {family.name} has {positions} positions; use 'none'."
        )
    if prompt == "input" and position_offset == "none" and positions == "relative":
        raise BadOption(
            f"position_offset='none' cannot be had: {family.name} counts distances between places; use 'shift'."
        )


def _no_gate(encoder: str) -> BadOption:
    return BadOption(
        f"gate='zero' cannot be had: {encoder} computes attention in its own forward, which a gate cannot enter; use 'layer'."
    )


def check_gate(encoder: nn.Module, gate: str | None) -> None:
    """Refuse a gate that this encoder cannot have.

    Args:
        encoder: the encoder.
        gate: None, `"zero"` or `"layer"`.

    Raises:
        BadOption: for `"zero"` and an encoder outside transformers' attention interface.
    """
    family = family_of(encoder)
    if gate == "zero" and family.override is not None:
        raise _no_gate(family.name)


def text_positions(encoder: nn.Module, attention_mask: Tensor, offset: int = 0) -> Tensor | None:
    """Position numbers of a text that starts `offset` places later than usual: `[batch, text]`.

    None for an encoder that knows only distances and takes no numbers. Padding keeps the position the architecture gives
    it. Source of the rules: `BertEmbeddings` and `RobertaEmbeddings.create_position_ids_from_input_ids` of transformers;
    rotary positions start at the first real piece, so that the distance to a prompt does not depend on padding.
    """
    positions = positions_of(encoder)
    if positions == "relative":
        return None
    if positions == "rotary":
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0) + offset
    if positions == "absolute":
        text = torch.arange(attention_mask.shape[1], device=attention_mask.device) + offset
        return text.expand(attention_mask.shape)
    padding = encoder.config.pad_token_id
    return torch.where(attention_mask.bool(), attention_mask.cumsum(1) + padding + offset, padding)


def context_length(encoder: nn.Module) -> int:
    """How many positions the encoder has for text, and for prompts that take positions."""
    reserved = encoder.config.pad_token_id + 1 if positions_of(encoder) == "after_padding" else 0
    # T5 has no limit of its own; it was pre-trained on 512.
    return (getattr(encoder.config, "max_position_embeddings", None) or 512) - reserved


def set_attention_dropout(encoder: nn.Module, probability: float) -> None:
    """Set the dropout of attention weights where an encoder keeps it as a number rather than in an `nn.Dropout`."""
    family = family_of(encoder)
    for module in encoder.modules():
        if type(module).__name__ == family.attention:
            for name in ("attention_dropout", "dropout"):
                if isinstance(getattr(module, name, None), (int, float)):
                    setattr(module, name, probability)


def _self_check(encoder: nn.Module, shape: Shape) -> None:
    """Refuse an encoder that does not hand the prompt to every layer, or whose output does not depend on each of them."""
    device = next(encoder.parameters()).device
    seed = torch.Generator().manual_seed(0)
    size = (shape.layers, 2, shape.key_value_heads, 1, shape.head_size)
    with evaluating(encoder), torch.inference_mode(False), torch.enable_grad():
        ids = torch.arange(4, device=device)[None] + encoder.config.vocab_size // 2
        keys_values = torch.randn(size, generator=seed).to(device).requires_grad_()
        prompt = DeepPrompt(keys_values, tuple(range(shape.layers)))
        output = encoder(input_ids=ids, ptv2=prompt)[0]
        felt = torch.zeros(shape.layers, dtype=torch.bool)
        if output.requires_grad:
            # Not the plain sum, which a layer norm at the end makes a constant.
            weights = torch.randn(output.shape, generator=seed).to(output)
            (slope,) = torch.autograd.grad((output * weights).sum(), keys_values, allow_unused=True)
            felt = felt if slope is None else slope.abs().flatten(1).amax(1).cpu() > 0
    name = type(encoder).__name__
    depth = encoder.config.num_hidden_layers
    missing = shape.layers != depth and not family_of(encoder).shared
    if missing or prompt.reached != set(prompt.layers):
        raise UnsupportedEncoder(
            f"{name} gave its prompt to {len(prompt.reached)} of {depth} layers; it cannot be used."
        )
    if not felt.all():
        deaf = "" if not felt.any() else f" in layer {felt.tolist().index(False) + 1}"
        raise UnsupportedEncoder(f"{name} ignores its prompt{deaf}: its output does not depend on it.")

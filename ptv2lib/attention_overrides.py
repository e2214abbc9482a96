"""How a deep prompt enters the encoders outside transformers' attention interface: DeBERTa v1, v2 and v3, and MPNet.

They have no function to replace, so each attention module of an attached encoder gets a `forward` of its own. It computes
the layer's keys and values, lets the prompt in, and then runs the module's own forward on a stand-in: the same module, but
with keys and values that are there already. So the encoders' arithmetic is not written again here.

The prompt is the call argument `ptv2` here, too, but these encoders drop arguments they do not know. The one argument they
do hand down to every attention module, unread, is `output_attentions`; a hook before the encoder lets the prompt travel in
its place. Nothing remembers the prompt after the call, and a layer that is computed again for its gradients sees it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER = "ptv2_layer"  # attribute that numbers an encoder's attention modules, from 0
HOOK = "ptv2_hook"  # attribute that holds an attached encoder's hook


@dataclass(frozen=True)
class Carried:
    """Stands in for `output_attentions` on the way down: as true or false as that was, with a prompt on board."""

    prompt: Any
    wanted: bool

    def __bool__(self) -> bool:
        return self.wanted


class StandIn:
    """A module with some attributes replaced; the module itself stays as it is, and so do its weights."""

    def __init__(self, module: nn.Module, **replaced: Any):
        vars(self).update(replaced, module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["module"], name)


class Apart:
    """Projections that are split into heads already; answers to the calls with which a forward would split them."""

    def __init__(self, *tensors: Tensor):
        self.tensors = tensors

    def view(self, *shape: Any) -> Apart:
        """Stay as they are."""
        return self

    def transpose(self, *axes: int) -> Tensor:
        """Give the only one."""
        return self.tensors[0]

    def chunk(self, *pieces: Any, **options: Any) -> tuple[Tensor, ...]:
        """Give all."""
        return self.tensors


def install(encoder: nn.Module, modules: Iterable[nn.Module], forward: Any) -> None:
    """Give each attention module `forward`, and the encoder the hook that sends a prompt on its way."""
    for module in modules:
        # A partial is copied along with its module by `copy.deepcopy`; a closure would keep pointing at the original.
        module.forward = partial(forward, module)
    # A task head hands `output_attentions` on as well, and the encoder inside it may be called alone.
    for model in {id(model): model for model in (encoder, encoder.base_model)}.values():
        if not hasattr(model, HOOK):
            setattr(model, HOOK, model.register_forward_pre_hook(_send, with_kwargs=True))


def remove(encoder: nn.Module) -> None:
    """Undo `install`."""
    for module in encoder.modules():
        if getattr(vars(module).get("forward"), "func", None) in (deberta_v1, deberta_v2, mpnet):
            del module.forward
        if HOOK in vars(module):  # a wrapper, such as PEFT's, passes the encoder's attributes off as its own
            getattr(module, HOOK).remove()
            delattr(module, HOOK)


def _send(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    prompt = kwargs.pop("ptv2", None)
    if prompt is not None:
        wanted = kwargs.get("output_attentions")
        wanted = model.config.output_attentions if wanted is None else wanted
        kwargs["output_attentions"] = Carried(prompt, bool(wanted))
    return args, kwargs


def _split(projected: Tensor, size: int) -> Tensor:
    """`[batch, text, heads · size]` as `[batch, heads, text, size]`."""
    return projected.unflatten(-1, (-1, size)).transpose(1, 2)


def _relative(compute: Any, added: int, query: Tensor, key: Tensor, *rest: Any) -> Tensor | int:
    """The relative-position terms of the text's own keys, and zero for the `added` ones of the prompt."""
    bias = compute(query, key[..., added:, :], *rest)
    return F.pad(bias, (added, 0)) if torch.is_tensor(bias) else bias  # 0 for an encoder without such terms


def deberta_v2(module: nn.Module, hidden_states: Tensor, attention_mask: Tensor, output_attentions=False, **inputs):
    """Forward of an attention module of DeBERTa v2 or v3 (`DisentangledSelfAttention`)."""
    run = type(module).forward
    if not isinstance(output_attentions, Carried):
        return run(module, hidden_states, attention_mask, output_attentions, **inputs)
    key, value = (
        _split(project(hidden_states), module.attention_head_size) for project in (module.key_proj, module.value_proj)
    )
    key, value, mask = output_attentions.prompt.enter(getattr(module, LAYER), key, value, attention_mask.bool())
    added = key.shape[2] - hidden_states.shape[1]
    ready = StandIn(
        module,
        key_proj=lambda _: key.transpose(1, 2).flatten(2),
        value_proj=lambda _: value.transpose(1, 2).flatten(2),
        # With `share_att_key` these terms project positions, too: with the real module's projections.
        disentangled_attention_bias=partial(_relative, module.disentangled_attention_bias, added),
    )
    return run(ready, hidden_states, mask, output_attentions, **inputs)


def deberta_v1(module: nn.Module, hidden_states: Tensor, attention_mask: Tensor, output_attentions=False, **inputs):
    """Forward of an attention module of DeBERTa v1 (`DisentangledSelfAttention`), as the authors' code has it.

    The prompt joins after the layer's value bias is added, so it has none.
    """
    query, key, value = module.transpose_for_scores(module.in_proj(hidden_states)).chunk(3, dim=-1)
    # In half precision under autocast the float32 biases would make the queries float32 again, and the model then fills
    # half-precision scores with float32's lowest number, which overflows: with a prompt or without.
    query_bias, value_bias = module.q_bias.to(query.dtype), module.v_bias.to(value.dtype)
    value, mask = value + module.transpose_for_scores(value_bias[None, None, :]), attention_mask.bool()
    if isinstance(output_attentions, Carried):
        key, value, mask = output_attentions.prompt.enter(getattr(module, LAYER), key, value, mask)
    three, added = Apart(query, key, value), key.shape[2] - hidden_states.shape[1]
    ready = StandIn(
        module,
        in_proj=lambda _: three,
        transpose_for_scores=lambda x: x if x is three else module.transpose_for_scores(x),
        q_bias=query_bias,
        v_bias=torch.zeros_like(value_bias),  # is in the values already
        disentangled_att_bias=partial(_relative, module.disentangled_att_bias, added),
    )
    return type(module).forward(ready, hidden_states, mask, output_attentions, **inputs)


def mpnet(
    module: nn.Module,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions=False,
    **inputs,
):
    """Forward of an attention module of MPNet (`MPNetSelfAttention`); its relative bias is zero for the prompt."""
    run = type(module).forward
    if not isinstance(output_attentions, Carried):
        return run(module, hidden_states, attention_mask, position_bias, output_attentions, **inputs)
    key, value = (_split(project(hidden_states), module.attention_head_size) for project in (module.k, module.v))
    if attention_mask is None:
        attention_mask = hidden_states.new_zeros(1, 1, 1, hidden_states.shape[1])
    key, value, mask = output_attentions.prompt.enter(getattr(module, LAYER), key, value, attention_mask)
    if position_bias is not None:
        position_bias = F.pad(position_bias, (key.shape[2] - hidden_states.shape[1], 0))
    ready = StandIn(module, k=lambda _: Apart(key), v=lambda _: Apart(value))
    return run(ready, hidden_states, mask, position_bias, output_attentions, **inputs)

"""Every encoder family of the table, each as a tiny random model built from its config: nothing is downloaded."""

import ast
import copy
import functools
import inspect
import json
import time

import pytest
import torch
import transformers as tf

from ptv2lib.attention import (
    FAMILIES,
    DeepPrompt,
    attach,
    check_position_offset,
    context_length,
    detach,
    keys_and_values,
    positions_of,
    text_positions,
)
from ptv2lib.backbones import (
    BACKBONES,
    Backbone,
    checkpoint_activations,
    encoder_table,
    fingerprint,
    load_backbone,
    set_dropout,
)
from ptv2lib.building import build_model
from ptv2lib.errors import BadOption, PromptMismatch, UnsupportedEncoder
from ptv2lib.heads import pool
from ptv2lib.loading import load_prompt
from ptv2lib.prefix import PrefixEncoder
from ptv2lib.prompts import SoftPrompt

DEPTH, WIDTH = 3, 32
SIZE = {
    "vocab_size": 160,
    "max_position_embeddings": 80,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,  # at the usual 0.02 a random encoder hardly looks at its input
    "pad_token_id": 0,
}
PADDED_FROM_ONE = {"pad_token_id": 1}
DISENTANGLED = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"],
    "type_vocab_size": 0,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 16}  # 4 · 16 is not the width
OPTIONS = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", PADDED_FROM_ONE),
    "xlm-roberta": ("XLMRoberta", PADDED_FROM_ONE),
    "camembert": ("Camembert", PADDED_FROM_ONE),
    "electra": ("Electra", {"embedding_size": 16}),
    "ernie": ("Ernie", {}),
    "distilbert": ("DistilBert", {"dim": WIDTH, "n_layers": DEPTH, "n_heads": 4, "hidden_dim": 48}),
    "albert": ("Albert", {"embedding_size": 16}),
    "mpnet": ("MPNet", PADDED_FROM_ONE),
    "deberta": ("Deberta", DISENTANGLED),
    "deberta-v2": (
        "DebertaV2",
        DISENTANGLED | {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "modernbert": ("ModernBert", {"local_attention": 6}),
    "eurobert": ("EuroBert", {"num_key_value_heads": 2}),
    "t5": ("T5", {"d_model": WIDTH, "d_kv": 12, "num_layers": DEPTH, "num_heads": 4, "d_ff": 48}),
    "glm": ("Glm", GROUPED),
    "glm4": ("Glm4", GROUPED),
    "llama": ("Llama", GROUPED),
    "qwen3": ("Qwen3", GROUPED),
}
BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie")


def build(kind, implementation=None, head=None, **more):
    """A random encoder of one family, or one with a task head, in evaluation mode, the same at every call."""
    model = copy.deepcopy(built(kind, head, repr(more)))
    if implementation and not FAMILIES[kind].override:
        model.set_attn_implementation(implementation)
    return model


@functools.cache
def built(kind, head, more):
    prefix, options = OPTIONS[kind]
    family, more = FAMILIES[kind], ast.literal_eval(more)
    sizes = SIZE | options | more
    if kind == "t5":
        del sizes["max_position_embeddings"]  # it has no limit
    config = getattr(tf, f"{prefix}Config")(**sizes)
    config._attn_implementation = family.backends[-1]
    extra = {"add_pooling_layer": False} if family.pooler and not head else {}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        name = f"{prefix}For{head}" if head else f"{prefix}{'Encoder' if kind == 't5' else ''}Model"
        model = getattr(tf, name)(config, **extra).eval()
        for parameter in model.parameters():  # biases that start at zero would hide what happens to them
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn(parameter.shape)
    return model


def batch_of(kind, lengths, width, side="right"):
    """Random ids of the given lengths, padded to `width`."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.full((len(lengths), width), 1 if OPTIONS[kind][1] is PADDED_FROM_ONE else 0)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place] = torch.randint(5, 120, (length,), generator=draw)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def prefix_for(encoder, length=4, layers=(0, 1, 2), **options):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        prefix = PrefixEncoder(attach(encoder, check=False), length, layers, **options)
        if prefix.network is None:
            torch.nn.init.normal_(prefix.keys_values)
    return prefix


def loss_of(hidden):
    return (hidden**2 * torch.arange(hidden.numel()).view(hidden.shape)).sum() / 100


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.fixture(params=FAMILIES)
def kind(request):
    return request.param


@pytest.fixture(
    params=[(kind, backend) for kind, family in FAMILIES.items() for backend in family.backends], ids="-".join
)
def case(request):
    """A family and each of its attention backends."""
    return request.param


def test_every_family_of_the_table_is_tried():
    assert set(OPTIONS) == set(FAMILIES)


# What the prompt does


def test_attaching_proves_the_prompt_in_every_layer(case):
    encoder = build(*case)
    shape = attach(encoder)
    assert shape.layers == DEPTH
    batch = batch_of(case[0], [7, 4], 7)
    plain = encoder(**batch)[0]
    for layer in range(DEPTH):
        prefix = prefix_for(encoder, 2, (layer,))
        assert (prefix.encode(encoder, **batch) - plain).abs().max() > 1e-4


def test_every_chosen_layer_gets_a_gradient_and_no_other(case):
    encoder = build(*case).requires_grad_(False)
    shape = attach(encoder)
    every = torch.randn(DEPTH, 2, shape.key_value_heads, 3, shape.head_size, requires_grad=True)
    prompt = DeepPrompt(every[[0, 2]], (0, 2))
    hidden = encoder(**batch_of(case[0], [7, 4], 7), ptv2=prompt)[0]
    loss_of(hidden).backward()
    felt = every.grad.abs().amax((2, 3, 4)) > 0
    assert felt.tolist() == [[True, True], [False, False], [True, True]]
    assert prompt.reached == {0, 2}
    assert all(weight.grad is None for weight in encoder.parameters())


def test_padding_and_company_change_nothing(case):
    kind, backend = case
    encoder = build(kind, backend)
    prefix = prefix_for(encoder, layers=(0, 2))
    lengths, width = [9, 4, 6], 12
    for side in FAMILIES[kind].padding:
        with torch.no_grad():
            together = prefix.encode(encoder, **batch_of(kind, lengths, width, side))
            ids = batch_of(kind, lengths, width)["input_ids"]
            for row, size in enumerate(lengths):
                one = ids[row : row + 1, :size]
                alone = prefix.encode(encoder, input_ids=one, attention_mask=torch.ones_like(one))[0]
                place = slice(0, size) if side == "right" else slice(width - size, width)
                close(together[row, place], alone)


def test_prompts_of_unequal_length_equal_separate_runs(case):
    kind, backend = case
    encoder = build(kind, backend)
    shape = attach(encoder, check=False)
    prompts = torch.randn(3, 2, 2, shape.key_value_heads, 5, shape.head_size)
    sizes = [5, 2, 0]
    keep = torch.arange(5)[None] < torch.tensor(sizes)[:, None]
    for lengths in ([8, 8, 8], [8, 5, 3]):  # without padding transformers may make no mask
        batch = batch_of(kind, lengths, 8)
        together = encoder(**batch, ptv2=DeepPrompt(prompts, (0, 2), keep))[0]
        for row, (length, size) in enumerate(zip(lengths, sizes, strict=True)):
            one = {name: value[row : row + 1, :length] for name, value in batch.items()}
            more = {"ptv2": DeepPrompt(prompts[row, ..., :size, :], (0, 2))} if size else {}
            close(together[row, :length], encoder(**one, **more)[0][0])


def test_eager_equals_sdpa(kind):
    batch = batch_of(kind, [8, 3], 8)
    seen = []
    for backend in FAMILIES[kind].backends:
        encoder = build(kind, backend)
        hidden = prefix_for(encoder).encode(encoder, **batch)
        seen.append(hidden[batch["attention_mask"].bool()])
    close(seen[0], seen[-1])


def test_checkpointing_gives_the_same_gradients(kind):
    if not FAMILIES[kind].checkpoints:
        with pytest.raises(BadOption, match=f"does not exist for {FAMILIES[kind].name}"):
            checkpoint_activations(build(kind))
        return
    gradients = []
    for checkpointed in (False, True):
        encoder = build(kind).requires_grad_(False)
        prefix = prefix_for(encoder, 3, reparameterization="mlp", hidden=8)
        set_dropout(encoder, 0.0)
        encoder.train()
        if checkpointed:
            checkpoint_activations(encoder)
        loss_of(prefix.encode(encoder, **batch_of(kind, [7, 4], 7))).backward()
        gradients.append(prefix.positions.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_half_precision_under_autocast_comes_close(kind):
    encoder = build(kind)
    prefix = prefix_for(encoder)
    batch = batch_of(kind, [8, 5], 8)
    real = batch["attention_mask"].bool()
    with torch.autocast("cpu", torch.bfloat16):
        half = prefix.encode(encoder, **batch)[real].float()
        loss_of(half).backward()
        encoder(**batch)
    full = prefix.encode(encoder, **batch)[real]
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
    assert prefix.keys_values.grad.isfinite().all()


def test_dropout_is_set_everywhere(kind):
    encoder = build(kind)
    batch = batch_of(kind, [7, 4], 7)
    encoder.train()
    set_dropout(encoder, 0.0)
    assert torch.equal(encoder(**batch)[0], encoder(**batch)[0])
    set_dropout(encoder, 0.5)
    assert not torch.equal(encoder(**batch)[0], encoder(**batch)[0])


# Attaching and detaching


def test_detaching_leaves_nothing_behind(case):
    kind, backend = case
    encoder = build(kind, backend)
    batch = batch_of(kind, [8, 5], 8)
    before = encoder(**batch)[0]
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    own = {name: set(vars(module)) for name, module in encoder.named_modules()}
    places = [parameter.data_ptr() for parameter in encoder.parameters()]
    attach(encoder)
    attach(encoder)
    assert [parameter.data_ptr() for parameter in encoder.parameters()] == places
    assert torch.equal(encoder(**batch)[0], before)
    detach(encoder)
    assert torch.equal(encoder(**batch)[0], before)
    assert encoder.config._attn_implementation == backend
    assert {name: set(vars(module)) for name, module in encoder.named_modules()} == own
    assert not any(module._forward_pre_hooks for module in encoder.modules())
    after = encoder.state_dict()
    assert list(after) == list(weights) and all(torch.equal(after[name], weights[name]) for name in weights)


def test_a_task_head_around_the_encoder_changes_nothing(kind):
    model = build(kind, head="TokenClassification" if kind == "t5" else "SequenceClassification")
    shape = attach(model)
    assert shape.layers == DEPTH
    keys_values = torch.randn(DEPTH, 2, shape.key_value_heads, 3, shape.head_size, requires_grad=True)
    batch = batch_of(kind, [7, 7], 7)
    plain = model(**batch).logits
    logits = model(**batch, ptv2=DeepPrompt(keys_values, (0, 1, 2))).logits
    assert (logits - plain).abs().max() > 1e-4
    loss_of(logits).backward()
    assert (keys_values.grad.abs().amax((1, 2, 3, 4)) > 0).all()
    inside = DeepPrompt(keys_values, (0, 1, 2))
    model.base_model(**batch, ptv2=inside)
    assert inside.reached == {0, 1, 2}
    detach(model)
    assert torch.equal(model(**batch).logits, plain)


def test_a_copy_of_an_attached_encoder_stands_alone(kind):
    encoder = build(kind)
    prefix = prefix_for(encoder)
    other = copy.deepcopy(encoder)
    batch = batch_of(kind, [6], 6)
    before = prefix.encode(encoder, **batch)
    for parameter in encoder.parameters():
        parameter.data.mul_(0.5)
    assert torch.equal(prefix.encode(other, **batch), before)
    detach(encoder)
    assert torch.equal(prefix.encode(other, **batch), before)


@pytest.mark.parametrize("kind", ["albert", "deberta-v2", "mpnet", "llama"])
def test_two_calls_carry_two_prompts(kind):
    encoder = build(kind)
    first, second = prefix_for(encoder, 3, (0,)), prefix_for(encoder, 6, (1, 2))
    batch = batch_of(kind, [8], 8)
    alone = first.encode(encoder, **batch)
    second.encode(encoder, **batch)
    assert torch.equal(first.encode(encoder, **batch), alone)


@pytest.mark.parametrize("kind", ["albert", "deberta-v2", "bert"])
def test_a_forward_that_breaks_off_leaves_no_trace(kind):
    encoder = build(kind)
    prefix = prefix_for(encoder)
    batch = batch_of(kind, [8], 8)
    before = prefix.encode(encoder, **batch)

    class Broken(DeepPrompt):
        def enter(self, layer, *rest):
            if layer == 1:
                raise KeyboardInterrupt
            return super().enter(layer, *rest)

    broken = Broken(prefix.keys_values, (0, 1, 2))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            encoder(**batch, ptv2=broken)
        assert broken.reached == {0}
    assert torch.equal(prefix.encode(encoder, **batch), before)
    prompt = DeepPrompt(prefix.keys_values, (0, 1, 2))  # one prompt may be given twice
    assert torch.equal(encoder(**batch, ptv2=prompt)[0], encoder(**batch, ptv2=prompt)[0])


def test_albert_takes_a_prompt_for_each_pass_through_each_group():
    encoder = build("albert", num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2)
    shape = attach(encoder)
    assert shape.layers == 8
    prompt = DeepPrompt(torch.randn(8, 2, 4, 3, 8, requires_grad=True), tuple(range(8)))
    loss_of(encoder(**batch_of("albert", [6], 6), ptv2=prompt)[0]).backward()
    assert (prompt.keys_values.grad.abs().amax((1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "llama"])
def test_attaching_to_a_large_encoder_is_quick(kind):
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    large |= {"head_dim": 64} if kind == "llama" else {}
    prefix, options = OPTIONS[kind]
    with torch.device("meta"):
        encoder = getattr(tf, f"{prefix}Model")(getattr(tf, f"{prefix}Config")(**(SIZE | options | large)))
    took = []
    for _ in range(5):
        started = time.perf_counter()
        shape = attach(encoder, check=False)
        took.append(time.perf_counter() - started)
        detach(encoder)
    assert shape.layers == 24
    assert min(took) < 0.020


def test_the_self_check_is_one_forward_and_one_backward_of_four_tokens(kind):
    encoder = build(kind)
    seen = []
    encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    with torch.inference_mode():
        attach(encoder)
    assert seen == [(1, 4)]
    assert all(weight.grad is None for weight in encoder.parameters())


# Equality with references on plain tensors


def attend(q, k, v, mask, own, bias=0.0, scale=None):
    """Scores, mask, softmax, sum: `own` prompt keys and values first, without a bias, visible from everywhere."""
    heads, length = q.shape[1], 0 if own is None else own.shape[-2]
    if own is not None:
        k = torch.cat([own[0].expand(len(k), -1, -1, -1), k], 2)
        v = torch.cat([own[1].expand(len(v), -1, -1, -1), v], 2)
    k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    text = scores[..., length:] + bias
    scores = torch.cat([scores[..., :length], text.masked_fill(~mask, -torch.inf)], -1)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def split(x, heads=4):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rotate(x, positions, base):
    """Rotary positions, halves paired, as Llama and ModernBERT have them."""
    half = x.shape[-1] // 2
    angle = positions[:, None].double() * base ** (-torch.arange(half).double() / half)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def reference_bert(encoder, ids, see, prompts):
    hidden = encoder.embeddings(input_ids=ids)
    if hasattr(encoder, "embeddings_project"):
        hidden = encoder.embeddings_project(hidden)
    for own, layer in zip(prompts, encoder.encoder.layer, strict=True):
        at = layer.attention.self
        mixed = attend(split(at.query(hidden)), split(at.key(hidden)), split(at.value(hidden)), see, own)
        hidden = layer.attention.output(mixed, hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def reference_albert(encoder, ids, see, prompts):
    hidden = encoder.encoder.embedding_hidden_mapping_in(encoder.embeddings(ids))
    layer = encoder.encoder.albert_layer_groups[0].albert_layers[0]
    at = layer.attention
    for own in prompts:
        mixed = attend(split(at.query(hidden)), split(at.key(hidden)), split(at.value(hidden)), see, own)
        hidden = at.LayerNorm(hidden + at.dense(mixed))
        hidden = layer.full_layer_layer_norm(layer.ff_chunk(hidden) + hidden)
    return hidden


def reference_distilbert(encoder, ids, see, prompts):
    hidden = encoder.embeddings(ids)
    for own, layer in zip(prompts, encoder.transformer.layer, strict=True):
        at = layer.attention
        mixed = attend(split(at.q_lin(hidden)), split(at.k_lin(hidden)), split(at.v_lin(hidden)), see, own)
        hidden = layer.sa_layer_norm(at.out_lin(mixed) + hidden)
        hidden = layer.output_layer_norm(layer.ffn(hidden) + hidden)
    return hidden


def reference_mpnet(encoder, ids, see, prompts):
    hidden = encoder.embeddings(input_ids=ids)
    bias = encoder.encoder.compute_position_bias(hidden)
    for own, layer in zip(prompts, encoder.encoder.layer, strict=True):
        at = layer.attention.attn
        mixed = attend(split(at.q(hidden)), split(at.k(hidden)), split(at.v(hidden)), see, own, bias)
        hidden = layer.attention.LayerNorm(at.o(mixed) + hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def distances(text):
    return torch.arange(text)[:, None] - torch.arange(text)[None]


def disentangled(q, k, pos_q, pos_k, where, scale):
    """Content to position and position to content, He et al. (2021), section 3.1."""
    rows, columns = torch.arange(len(where))[:, None], torch.arange(len(where))[None]
    to_position = (q @ pos_k.transpose(2, 3))[:, :, rows, where]
    # The position sees the content from the other side: its distance has the other sign.
    from_position = (k @ pos_q.transpose(2, 3))[:, :, columns, where]
    return (to_position + from_position) * scale


def reference_deberta(encoder, ids, see, prompts):
    hidden = encoder.embeddings(input_ids=ids, mask=see[:, 0, -1])
    reach, text = encoder.encoder.max_relative_positions, ids.shape[1]
    table = encoder.encoder.rel_embeddings.weight[None, reach - text : reach + text]
    where = (distances(text) + text).clamp(0, 2 * text - 1)
    for own, layer in zip(prompts, encoder.encoder.layer, strict=True):
        at = layer.attention.self
        q, k, v = split(at.in_proj(hidden)).chunk(3, -1)
        q, v = q + split(at.q_bias[None, None]), v + split(at.v_bias[None, None])
        scale = (3 * q.shape[-1]) ** -0.5
        bias = disentangled(q, k, split(at.pos_q_proj(table)), split(at.pos_proj(table)), where, scale)
        hidden = layer.attention.output(attend(q, k, v, see, own, bias, scale), hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def reference_deberta_v2(encoder, ids, see, prompts):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    hidden = encoder.embeddings(input_ids=ids, mask=see[:, 0, -1])
    table = encoder.encoder.get_rel_embedding()[None]
    buckets = encoder.config.position_buckets
    reach = encoder.encoder.max_relative_positions
    where = make_log_bucket_position(distances(ids.shape[1]), buckets, reach).long()
    where = (where + buckets).clamp(0, 2 * buckets - 1)
    for own, layer in zip(prompts, encoder.encoder.layer, strict=True):
        at = layer.attention.self
        q, k, v = split(at.query_proj(hidden)), split(at.key_proj(hidden)), split(at.value_proj(hidden))
        scale = (3 * q.shape[-1]) ** -0.5
        bias = disentangled(q, k, split(at.query_proj(table)), split(at.key_proj(table)), where, scale)
        hidden = layer.attention.output(attend(q, k, v, see, own, bias, scale), hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def reference_modernbert(encoder, ids, see, prompts):
    hidden = encoder.embeddings(input_ids=ids)
    places = torch.arange(ids.shape[1])
    for number, (own, layer) in enumerate(zip(prompts, encoder.layers, strict=True)):
        local = number > 0  # the first layer of three is global
        near = distances(ids.shape[1]).abs() <= 3 if local else torch.tensor(True)
        q, k, v = layer.attn.Wqkv(layer.attn_norm(hidden)).chunk(3, -1)
        q, k = (rotate(split(x), places, 1e4 if local else 1.6e5) for x in (q, k))
        hidden = hidden + layer.attn.Wo(attend(q, k, split(v), see & near, own))
        hidden = hidden + layer.mlp(layer.mlp_norm(hidden))
    return encoder.final_norm(hidden)


def reference_llama(encoder, ids, see, prompts):
    hidden = encoder.embed_tokens(ids)
    places = torch.arange(ids.shape[1])
    see = see & (distances(ids.shape[1]) >= 0) if encoder.config.model_type != "eurobert" else see
    for own, layer in zip(prompts, encoder.layers, strict=True):
        at, normed = layer.self_attn, layer.input_layernorm(hidden)
        q, k, v = split(at.q_proj(normed)), split(at.k_proj(normed), 2), split(at.v_proj(normed), 2)
        if hasattr(at, "q_norm"):
            q, k = at.q_norm(q), at.k_norm(k)
        base = encoder.config.rope_parameters["rope_theta"]
        q, k = rotate(q, places, base), rotate(k, places, base)
        hidden = hidden + at.o_proj(attend(q, k, v, see, own))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return encoder.norm(hidden)


def reference_t5(encoder, ids, see, prompts):
    stack = encoder.encoder
    hidden = stack.embed_tokens(ids)
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(ids.shape[1], ids.shape[1])
    for own, block in zip(prompts, stack.block, strict=True):
        at, normed = block.layer[0].SelfAttention, block.layer[0].layer_norm(hidden)
        mixed = attend(split(at.q(normed)), split(at.k(normed)), split(at.v(normed)), see, own, bias, 1.0)
        hidden = block.layer[1](hidden + at.o(mixed))
    return stack.final_layer_norm(hidden)


REFERENCES = {kind: reference_bert for kind in BERT_LIKE} | {
    "albert": reference_albert,
    "distilbert": reference_distilbert,
    "mpnet": reference_mpnet,
    "deberta": reference_deberta,
    "deberta-v2": reference_deberta_v2,
    "modernbert": reference_modernbert,
    "eurobert": reference_llama,
    "llama": reference_llama,
    "qwen3": reference_llama,
    "t5": reference_t5,
}


@pytest.mark.parametrize("layers", [(0, 1, 2), (1,)])
@pytest.mark.parametrize("kind", REFERENCES)
def test_equals_the_reference_on_plain_tensors(kind, layers):
    for backend in FAMILIES[kind].backends:
        encoder = build(kind, backend)
        prefix = prefix_for(encoder, layers=layers)
        prompts = [prefix.keys_values[layers.index(n)] if n in layers else None for n in range(DEPTH)]
        for lengths in ([9, 6], [9, 9]):
            batch = batch_of(kind, lengths, 9)
            real = batch["attention_mask"].bool()
            with torch.no_grad():
                ours = prefix.encode(encoder, **batch)[real]
                wanted = REFERENCES[kind](encoder, batch["input_ids"], real[:, None, None], prompts)[real]
            torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=2e-5)


def test_deberta_v2_with_projections_of_its_own_for_positions_equals_the_shared_ones():
    encoder = build("deberta-v2", share_att_key=False)
    for layer in encoder.encoder.layer:
        at = layer.attention.self
        at.pos_key_proj.load_state_dict(at.key_proj.state_dict())
        at.pos_query_proj.load_state_dict(at.query_proj.state_dict())
    shared = build("deberta-v2")
    shared.load_state_dict(encoder.state_dict(), strict=False)
    batch = batch_of("deberta-v2", [8, 5], 8)
    close(prefix_for(encoder).encode(encoder, **batch), prefix_for(shared).encode(shared, **batch))


@pytest.mark.parametrize("more", [{"talking_head": True}, {"relative_attention": False}, {"pos_att_type": ["c2p"]}])
def test_deberta_with_other_options(more):
    encoder = build("deberta", **more)
    attach(encoder)
    prefix = prefix_for(encoder)
    batch = batch_of("deberta", [8, 5], 8)
    alone = prefix.encode(encoder, **{name: value[1:, :5] for name, value in batch.items()})
    close(prefix.encode(encoder, **batch)[1, :5], alone[0])


def test_attention_weights_show_the_prompt(kind):
    encoder = build(kind, "eager")
    prompt = DeepPrompt(prefix_for(encoder, 4).keys_values, (0, 1, 2))
    weights = encoder(**batch_of(kind, [7], 7), ptv2=prompt, output_attentions=True).attentions
    assert [tuple(layer.shape) for layer in weights] == [(1, 4, 7, 11)] * DEPTH
    close(weights[0].sum(-1), torch.ones(1, 4, 7))


def test_recorded_keys_replay_as_a_prompt(kind):
    encoder = build(kind)
    shape = attach(encoder, check=False)
    batch = batch_of(kind, [6], 6)
    recorded = keys_and_values(encoder, input_ids=batch["input_ids"])
    assert recorded.shape == (DEPTH, 2, 1, shape.key_value_heads, 6, shape.head_size)
    PrefixEncoder(shape, 3, (0, 2)).start_from_words(encoder, [7, 8, 9], None, None)
    prompt = DeepPrompt(recorded[:, :, 0], (0, 1, 2))
    encoder(**batch, ptv2=prompt)
    assert prompt.reached == {0, 1, 2}


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.causal])
def test_recorded_keys_and_values_of_a_beginning_stand_in_for_it(kind):
    """In an encoder that reads forwards the rest of a text cannot tell the beginning from its recorded keys and values."""
    encoder = build(kind)
    attach(encoder, check=False)
    ids = batch_of(kind, [7], 7)["input_ids"]
    whole = encoder(input_ids=ids)[0][:, 4:]
    beginning = keys_and_values(encoder, input_ids=ids[:, :4])[:, :, 0]
    rest = {"input_ids": ids[:, 4:], "position_ids": torch.arange(4, 7)[None]}
    close(encoder(**rest, ptv2=DeepPrompt(beginning, (0, 1, 2)))[0], whole)
    assert (encoder(**rest)[0] - whole).abs().max() > 1e-2


# Positions


def test_shifting_positions_is_refused_where_there_are_none(kind):
    encoder = build(kind)
    family = FAMILIES[kind]
    check_position_offset(encoder, "none")
    check_position_offset(encoder, "shift", "input")
    if positions_of(encoder) in ("rotary", "relative"):
        with pytest.raises(BadOption, match=f"nothing to move: .*{family.positions} positions"):
            check_position_offset(encoder, "shift")
        with pytest.raises(BadOption, match="nothing to move"):
            prefix_for(encoder, position_offset="shift").encode(encoder, **batch_of(kind, [5], 5))
    else:
        check_position_offset(encoder, "shift")
        batch = batch_of(kind, [8, 5], 8)
        moved = prefix_for(encoder, position_offset="shift").encode(encoder, **batch)
        assert (moved - prefix_for(encoder).encode(encoder, **batch)).abs().max() > 1e-3
    if family.positions == "relative":
        with pytest.raises(BadOption, match="cannot be had"):
            check_position_offset(encoder, "none", "input")


def test_a_deberta_with_absolute_positions_can_be_shifted():
    encoder = build("deberta-v2", position_biased_input=True)
    check_position_offset(encoder, "shift")
    assert text_positions(encoder, torch.ones(1, 3, dtype=torch.long), 2).tolist() == [[2, 3, 4]]


def test_input_prompts_reach_every_family_and_padding_changes_nothing(kind):
    encoder = build(kind)
    torch.manual_seed(0)
    prompt = SoftPrompt(encoder.get_input_embeddings().embedding_dim, 3)
    torch.nn.init.normal_(prompt.vectors)
    batch = batch_of(kind, [8, 5], 8)
    hidden = prompt.encode(encoder, **batch)
    alone = prompt.encode(encoder, **{name: value[1:, :5] for name, value in batch.items()})
    close(hidden[1, :5], alone[0])
    assert (hidden - encoder(**batch)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if "left" in family.padding])
def test_no_padding_parts_an_input_prompt_from_its_text(kind):
    encoder = build(kind)
    torch.manual_seed(0)
    prompt = SoftPrompt(encoder.get_input_embeddings().embedding_dim, 3)
    torch.nn.init.normal_(prompt.vectors)
    batch = batch_of(kind, [12, 5], 12, "left")
    hidden = prompt.encode(encoder, **batch)
    alone = prompt.encode(encoder, **{name: value[1:, -5:] for name, value in batch.items()})
    close(hidden[1, -5:], alone[0])
    full = prompt.encode(encoder, **{name: value[:1] for name, value in batch.items()})
    close(hidden[0], full[0])


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.causal])
def test_what_a_causal_mask_hides_is_not_read(kind, tokenizer):
    backbone = Backbone(kind, None, build(kind), tokenizer, "of no matter")
    assert backbone.pooling == "last"
    with pytest.raises(BadOption, match="pooling='cls' reads the first piece"):
        build_model("sst2", backbone=backbone, pooling="cls")
    for task in ("conll04", "squad"):
        with pytest.raises(BadOption, match=f"reads from left to right.*'{task}' has one per piece"):
            build_model(task, backbone=backbone)


def test_the_context_is_what_the_config_says(kind):
    wanted = {"after_padding": 78, "relative": 512 if kind == "t5" else 80}
    assert context_length(build(kind)) == wanted.get(FAMILIES[kind].positions, 80)


# Models and backbones

ROWS = [{"sentence": "a fine film"}, {"sentence": "a long one, and dull"}, {"sentence": "no"}]


@pytest.fixture(scope="module")
def tokenizer():
    return load_backbone("tiny").tokenizer


def test_saved_prompts_give_the_same_answers_padded_on_either_side(kind, tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = FAMILIES[kind].padding[-1]
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(OPTIONS[kind][1].get("pad_token_id", 0))

    def backbone():
        encoder = build(kind)
        return Backbone(kind, None, encoder, tokenizer, fingerprint(encoder, tokenizer), FAMILIES[kind].pooling)

    model = build_model("sst2", backbone=backbone(), prompt_length=3)
    torch.nn.init.normal_(model.prompt.keys_values)
    wanted = model.predict(ROWS)
    loaded = load_prompt(model.save_prompt(tmp_path / "prompt"), backbone=backbone())
    assert loaded.predict(ROWS) == wanted
    for row, answer in zip(ROWS, wanted, strict=True):
        alone = loaded.predict([row])[0]["probabilities"]
        assert alone == pytest.approx(answer["probabilities"], abs=1e-5)


def test_padding_on_a_side_that_would_move_the_text_is_refused(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    backbone = Backbone("mine", None, build("bert"), tokenizer, "")
    tokenizer.padding_side = "left"
    with pytest.raises(BadOption, match="'mine' pads on the left; set its padding_side to 'right'"):
        Backbone("mine", None, backbone.encoder, tokenizer, "")
    with pytest.raises(BadOption, match="pads on the left"):
        build_model("sst2", backbone=backbone)


def test_a_prompt_whose_encoder_was_moved_says_so_and_loading_draws_nothing(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = tmp_path / "enc"
    build("bert").save_pretrained(encoder)
    tokenizer.save_pretrained(encoder)
    build_model("sst2", backbone="enc", prompt_length=3).save_prompt("prompt")
    encoder.rename(tmp_path / "moved")
    with pytest.raises(PromptMismatch, match="prompt was trained on the encoder 'enc', .* now with backbone="):
        load_prompt("prompt")
    state = torch.get_rng_state()
    load_prompt("prompt", backbone="moved")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failed_lora_leaves_no_note_of_peft():
    pytest.importorskip("peft")
    backbone = load_backbone("tiny")
    with pytest.raises(BadOption, match="has one layout only"):
        build_model("sst2", backbone=backbone, method="lora", layout="x")
    assert not hasattr(backbone.encoder, "peft_config")


def test_a_wrapper_that_hides_a_layer_from_the_prompt_is_refused_and_put_back():
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(build("albert"), peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(UnsupportedEncoder, match="gave its prompt to 1 of"):
        attach(wrapped)
    assert not any(module._forward_pre_hooks for module in wrapped.modules())


@pytest.mark.parametrize("kind", ["t5", "llama", "albert", "deberta-v2"])
def test_a_folder_is_loaded_as_an_encoder(kind, tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = None
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    if kind == "t5":
        sizes = {name: value for name, value in (SIZE | OPTIONS["t5"][1]).items() if name != "max_position_embeddings"}
        tf.T5Model(tf.T5Config(**sizes)).save_pretrained(tmp_path)
    else:
        build(kind).half().save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert type(backbone.encoder).__name__ == {"t5": "T5EncoderModel"}.get(kind, f"{OPTIONS[kind][0]}Model")
    assert backbone.encoder.dtype == torch.float32
    assert backbone.pooling == FAMILIES[kind].pooling
    assert backbone.tokenizer.pad_token == "[SEP]"
    assert getattr(backbone.encoder, "pooler", None) is None
    assert not (FAMILIES[kind].causal and backbone.encoder.config.use_cache)
    attach(backbone.encoder)
    with pytest.raises(BadOption, match="has none"):
        load_backbone(str(tmp_path), pooler=True)


def test_short_names_name_their_family():
    assert {source.kind for source in BACKBONES.values()} <= set(FAMILIES)
    assert all(source.revision for source in BACKBONES.values())
    assert sum(
        len(row["short names"].split(", ")) for row in encoder_table() if "any" not in row["short names"]
    ) == len(BACKBONES)


@pytest.mark.parametrize(("pooling", "places"), [("last", [3, 2, 3]), ("cls", [0, 0, 1])])
def test_the_first_and_the_last_real_piece_are_read(pooling, places):
    hidden = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]])
    assert torch.equal(pool(pooling, hidden, mask, None), hidden[[0, 1, 2], places])


# Refusals


@pytest.mark.parametrize("more", [{}, {"auto_map": {"AutoConfig": "configuration_new.NewConfig"}}], ids=str)
def test_an_architecture_of_its_own_is_refused_by_name(more, tmp_path):
    """Also one that would run code of its own, and one that transformers does not know."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "brandnewbert"} | more))
    with pytest.raises(UnsupportedEncoder, match="which is a 'brandnewbert'; the architectures that work are BERT,"):
        load_backbone(tmp_path)


def test_an_encoder_with_a_decoder_is_refused():
    model = tf.T5Model(tf.T5Config(**(SIZE | OPTIONS["t5"][1])))
    with pytest.raises(UnsupportedEncoder, match="T5Model has a decoder, too; .* T5EncoderModel"):
        attach(model)


@pytest.mark.parametrize("kind", ["bert", "albert", "deberta", "mpnet"])
def test_one_layer_that_ignores_its_prompt_is_named_and_all_put_back(kind, monkeypatch):
    real = DeepPrompt.enter

    def deaf(self, layer, key, value, mask):
        given = real(self, layer, key, value, mask)
        return (key, value, mask) if layer == 1 else given

    monkeypatch.setattr(DeepPrompt, "enter", deaf)
    encoder = build(kind)
    with pytest.raises(UnsupportedEncoder, match="ignores its prompt in layer 2"):
        attach(encoder)
    assert not encoder.config._attn_implementation.startswith("ptv2_")
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in encoder.modules())


# The table


def measured(kind):
    """The table's row for one family, from what its tiny model does."""
    family, encoder = FAMILIES[kind], build(kind)
    backends = ["eager"] + ["sdpa"] * bool(encoder._supports_sdpa)
    batch = batch_of(kind, [9], 9)
    plain = encoder(**batch)[0]

    def at(places):
        try:
            return encoder(**batch, position_ids=torch.tensor([places]))[0]
        except TypeError:
            return plain

    def same(one, other):
        return torch.allclose(one, other, atol=1e-4)

    order = list(range(9))
    default = next((start for start in (0, 2) if same(at([start + n for n in order]), plain)), None)
    if same(at(order[::-1]), plain):
        positions = "relative, none to shift"
    elif same(at([n + 7 for n in order]), plain):
        positions = "rotary, none to shift"
    else:
        positions = {0: "absolute", 2: "absolute, from the padding index"}[default]

    cut = encoder(**{name: value[:, :5] for name, value in batch.items()})[0]
    causal = same(cut, plain[:, :5])

    sides = []
    for side in ("right", "left"):
        other = build(kind)
        prefix = prefix_for(other, 2)
        place = slice(0, 9) if side == "right" else slice(3, 12)
        longer = prefix.encode(other, **batch_of(kind, [9], 12, side))[:, place]
        if same(longer, prefix.encode(other, **batch)):
            sides.append(side)

    modules = sum(type(module).__name__ == family.attention for module in encoder.modules())
    own_forward = not encoder._can_set_attn_implementation()
    fills = kind in tf.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    heads = ["sequence", "choice"] + ["token", "span"] * (not causal) + ["verbalizer"] * fills
    return {
        "the prompt enters": ("its own forward" if own_forward else "the attention function")
        + (", once for each pass" if modules < DEPTH else ""),
        "attention": ", ".join(backends) + ("; causal" if causal else ""),
        "positions": positions,
        "padding": " or ".join(sides),
        "heads": ", ".join(heads),
        "checkpointing": "yes" if encoder.supports_gradient_checkpointing else "no",
    }


@pytest.mark.parametrize("row", encoder_table(), ids=lambda row: row["model_type"])
def test_the_table_says_what_the_models_do(row):
    found = measured(row["model_type"])
    assert {column: row[column] for column in found} == found
    assert row["encoder"] == FAMILIES[row["model_type"]].name
    assert ("add_pooling_layer" in inspect.signature(type(build(row["model_type"])).__init__).parameters) == FAMILIES[
        row["model_type"]
    ].pooler
    assert row["pooling"] == ("last" if "causal" in found["attention"] else row["pooling"])


def test_the_command_line_and_the_page_show_the_table(capsys):
    from ptv2lib.__main__ import main

    assert main(["backbones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in encoder_table():
        (line,) = [line for line in lines if line.startswith(f"{row['encoder']:18} {row['model_type']}:")]
        assert all(row[column] in line for column in ("attention", "positions", "heads", "checkpointing"))
    pytest.importorskip("sphinx", reason="the book's packages are not part of this environment")
    tables = pytest.importorskip("tables")
    head, *rows = tables.cells("encoders", [])
    assert head[0] == "encoder" and len(rows) == len(FAMILIES)
    assert all(len(row) == len(head) and all(row) for row in rows)

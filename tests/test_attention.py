"""The deep prompt enters every encoder as the reference says it should (invariants 3, 4 and 5)."""

import pytest
import torch
import transformers as tf
from conftest import BERT_LIKE, SIZE, build, padded
from hypothesis import given, settings
from hypothesis import strategies as st

from ptv2lib.attention import DeepPrompt, attach, detach, keys_and_values
from ptv2lib.backbones import checkpoint_activations
from ptv2lib.errors import UnsupportedEncoder
from ptv2lib.prefix import PrefixEncoder, choose_layers


def reference_bert(encoder, ids, mask, keys_values, layers):
    """BERT with deep prompts, written out on plain tensors: scores, mask, softmax, sum."""
    e = encoder.embeddings
    hidden = e(input_ids=ids)
    batch, text, width = hidden.shape
    heads = encoder.config.num_attention_heads
    split = lambda x: x.view(batch, -1, heads, width // heads).transpose(1, 2)  # noqa: E731
    for number, layer in enumerate(encoder.encoder.layer):
        attend = layer.attention.self
        q, k, v = split(attend.query(hidden)), split(attend.key(hidden)), split(attend.value(hidden))
        visible = mask.bool()
        if number in layers:
            own = keys_values[layers.index(number)]
            k = torch.cat([own[0].expand(batch, -1, -1, -1), k], 2)
            v = torch.cat([own[1].expand(batch, -1, -1, -1), v], 2)
            visible = torch.cat([torch.ones(batch, own.shape[-2], dtype=torch.bool), visible], 1)
        scores = q @ k.transpose(2, 3) / (width // heads) ** 0.5
        scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, text, width)
        hidden = layer.attention.output(mixed, hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("choice", ["all", "2", [1, 3]])
def test_equals_the_reference_on_plain_tensors(implementation, choice):
    encoder = build("bert", implementation)
    prefix = PrefixEncoder(attach(encoder), 4, choose_layers(choice, 3))
    torch.nn.init.normal_(prefix.keys_values)
    batch = padded("bert", [9, 5], 9)
    ours = prefix.encode(encoder, **batch)
    wanted = reference_bert(encoder, batch["input_ids"], batch["attention_mask"], prefix.keys_values, prefix.layers)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[real], wanted[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_equals_peft_with_copied_weights(family, implementation):
    from peft import PrefixTuningConfig, get_peft_model

    length, width = 4, 24
    encoder = build(family, implementation)
    other = get_peft_model(
        build(family, implementation),
        PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=length, prefix_projection=False),
    ).eval()
    prefix = PrefixEncoder(attach(encoder), length, (0, 1, 2), position_offset="shift")
    flat = other.prompt_encoder["default"].embedding.weight.detach()  # [length, layers · 2 · width]
    with torch.no_grad():
        prefix.keys_values.copy_(flat.view(length, 3, 2, 4, width // 4).permute(1, 2, 3, 0, 4))
    batch = padded(family, [9, 6], 9)
    with torch.no_grad():
        ours = prefix.encode(encoder, **batch)
        theirs = other(**batch)[0]
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-6, rtol=0)


def test_eager_equals_sdpa(kind):
    outputs = []
    for implementation in ("eager", "sdpa"):
        encoder = build(kind, implementation)
        torch.manual_seed(0)
        prefix = PrefixEncoder(attach(encoder), 5, (0, 1, 2))
        outputs.append(prefix.encode(encoder, **padded(kind, [8, 3], 8)))
    real = padded(kind, [8, 3], 8)["attention_mask"].bool()
    torch.testing.assert_close(outputs[0][real], outputs[1][real], atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["bert", "distilbert", "electra", "roberta", "xlm-roberta"]),
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=4),
    more=st.integers(0, 12),
    length=st.integers(1, 9),
    offset=st.sampled_from(["none", "shift"]),
)
def test_padding_and_company_change_nothing(kind, lengths, more, length, offset):
    encoder = build(kind)
    prefix = PrefixEncoder(attach(encoder, check=False), length, (0, 2), position_offset=offset)
    torch.nn.init.normal_(prefix.keys_values)
    wide = max(lengths) + more
    batch = padded(kind, lengths, wide)
    with torch.no_grad():
        together = prefix.encode(encoder, **batch)
        for row, size in enumerate(lengths):
            alone = prefix.encode(encoder, **{k: v[row : row + 1, :size] for k, v in batch.items()})
            torch.testing.assert_close(together[row, :size], alone[0], atol=1e-5, rtol=1e-5)


def test_every_chosen_layer_gets_a_gradient_and_no_weight_of_the_encoder(kind):
    encoder = build(kind).requires_grad_(False)
    prefix = PrefixEncoder(attach(encoder), 3, (0, 2))
    hidden = prefix.encode(encoder, **padded(kind, [7, 4], 7))
    (hidden**2 * torch.arange(hidden.numel()).view(hidden.shape)).sum().backward()
    assert (prefix.keys_values.grad.abs().amax(dim=(2, 3, 4)) > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def test_checkpointing_gives_the_same_gradients(kind):
    gradients = []
    for checkpointed in (False, True):
        encoder = build(kind).requires_grad_(False)
        torch.manual_seed(0)
        prefix = PrefixEncoder(attach(encoder), 3, (0, 1, 2), "mlp", hidden=8)
        if checkpointed:
            checkpoint_activations(encoder)
            encoder.train()
            for module in encoder.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        hidden = prefix.encode(encoder, **padded(kind, [7, 4], 7))
        (hidden**2 * torch.arange(hidden.numel()).view(hidden.shape)).sum().backward()
        gradients.append(prefix.positions.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_without_a_prompt_an_attached_encoder_computes_what_it_did(kind):
    encoder = build(kind)
    batch = padded(kind, [8, 5], 8)
    before = encoder(**batch)[0]
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    attach(encoder)
    assert torch.equal(encoder(**batch)[0], before)
    detach(encoder)
    assert torch.equal(encoder(**batch)[0], before)
    assert encoder.config._attn_implementation == "sdpa"
    assert not any(hasattr(module, "ptv2_layer") for module in encoder.modules())
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


def test_two_calls_carry_two_prompts(kind):
    encoder = build(kind)
    shape = attach(encoder)
    first, second = PrefixEncoder(shape, 3, (0,)), PrefixEncoder(shape, 6, (1, 2))
    batch = padded(kind, [8], 8)
    alone = first.encode(encoder, **batch)
    second.encode(encoder, **batch)
    assert torch.equal(first.encode(encoder, **batch), alone)


def test_prompts_of_each_example_equal_separate_runs():
    encoder = build("bert")
    shape = attach(encoder)
    own = torch.randn(2, 3, 2, shape.key_value_heads, 4, shape.head_size)
    batch = padded("bert", [8, 5], 8)
    together = encoder(**batch, ptv2=DeepPrompt(own, (0, 1, 2)))[0]
    for row, size in enumerate([8, 5]):
        one = {name: value[row : row + 1, :size] for name, value in batch.items()}
        alone = encoder(**one, ptv2=DeepPrompt(own[row], (0, 1, 2)))[0]
        torch.testing.assert_close(together[row, :size], alone[0], atol=1e-5, rtol=1e-5)


def test_an_unknown_architecture_is_refused_by_name():
    config = tf.SqueezeBertConfig(**(SIZE | BERT_LIKE | {"embedding_size": 24}))
    with pytest.raises(UnsupportedEncoder, match="'squeezebert'.*BERT, RoBERTa"):
        attach(tf.SqueezeBertModel(config))


def test_an_encoder_that_ignores_its_prompt_is_refused(monkeypatch):
    encoder = build("bert")
    monkeypatch.setattr(
        DeepPrompt, "enter", lambda self, layer, key, value, mask: (self.reached.add(layer), key, value, mask)[1:]
    )
    with pytest.raises(UnsupportedEncoder, match="ignores its prompt"):
        attach(encoder)
    assert encoder.config._attn_implementation == "sdpa"


def test_an_encoder_that_skips_layers_is_refused():
    encoder = build("bert")
    del encoder.encoder.layer[2]
    with pytest.raises(UnsupportedEncoder, match="2 of 3 layers"):
        attach(encoder)


def test_changing_the_attention_after_attaching_is_noticed():
    encoder = build("bert")
    prefix = PrefixEncoder(attach(encoder), 3, (0,))
    encoder.set_attn_implementation("sdpa")
    with pytest.raises((RuntimeError, TypeError)):
        prefix.encode(encoder, **padded("bert", [5], 5))


def test_recorded_keys_replay_as_a_prompt():
    encoder = build("bert")
    attach(encoder)
    ids = padded("bert", [6], 6)["input_ids"]
    recorded = keys_and_values(encoder, input_ids=ids)
    assert recorded.shape == (3, 2, 1, 4, 6, 6)
    states = encoder(input_ids=ids, output_hidden_states=True).hidden_states
    for layer, own in enumerate(encoder.encoder.layer):
        for part, projection in enumerate((own.attention.self.key, own.attention.self.value)):
            found = recorded[layer, part, 0].transpose(0, 1).reshape(6, 24)
            torch.testing.assert_close(found, projection(states[layer])[0])

"""Gated, adaptive and residual deep prompts: what they compute, from the first step on."""

import pytest
import test_families
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_families import BERT_LIKE, DEPTH, REFERENCES, batch_of, build, close, loss_of

from ptv2lib.attention import FAMILIES, DeepPrompt, attach, check_gate
from ptv2lib.backbones import checkpoint_activations, set_dropout
from ptv2lib.errors import BadOption
from ptv2lib.prefix import PrefixEncoder

LAYERS = (0, 2)
KINDS = ("bert", "roberta", "albert", "modernbert", "eurobert", "t5", "qwen3")
GATED = [kind for kind, family in FAMILIES.items() if family.override is None]
OWN_FORWARD = [kind for kind, family in FAMILIES.items() if family.override is not None]


@pytest.fixture(params=[(kind, backend) for kind in KINDS for backend in ("eager", "sdpa")], ids="-".join)
def case(request):
    """A family and each of its attention backends."""
    return request.param


def prefix_for(encoder, length=4, layers=LAYERS, *, closed=False, **options):
    """A prompt of wide random numbers; gates and scales wide, too, unless they stay `closed` as at the start."""
    options.setdefault("gate", "zero")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        prefix = PrefixEncoder(attach(encoder, check=False), length, layers, **options)
        for name, parameter in prefix.named_parameters():
            if not (closed and name in ("gates", "scales")):
                torch.nn.init.normal_(parameter)
    return prefix


def real(batch):
    return batch["attention_mask"].bool()


# The zero gate: what it computes


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("kind", GATED)
def test_at_the_start_nothing_changes_to_the_last_bit(kind, training):
    for backend in FAMILIES[kind].backends:
        encoder = build(kind, backend).train(training)
        prefix = prefix_for(encoder, layers=(0, 1, 2), closed=True).train(training)
        assert prefix.keys_values.abs().max() > 1 and not prefix.gates.any()
        for lengths in ([9, 5], [9, 9]):  # without padding transformers may make no mask
            batch = batch_of(kind, lengths, 9)
            # The prompt draws nothing at random: with dropout, too, the same seed gives the same numbers.
            for dropout in (0.0, 0.1):
                set_dropout(encoder, dropout)
                torch.manual_seed(0)
                plain = encoder(**batch)[0][real(batch)]
                torch.manual_seed(0)
                assert torch.equal(prefix.encode(encoder, **batch)[real(batch)], plain)


def test_half_precision_changes_nothing_at_the_start_and_comes_close_later(case):
    kind, backend = case
    encoder = build(kind, backend)
    batch = batch_of(kind, [8, 5], 8)
    with torch.autocast("cpu", torch.bfloat16):
        plain = encoder(**batch)[0]
        assert torch.equal(prefix_for(encoder, closed=True).encode(encoder, **batch)[real(batch)], plain[real(batch)])
        prefix = prefix_for(encoder)
        half = prefix.encode(encoder, **batch)[real(batch)].float()
        loss_of(half).backward()
    full = prefix.encode(encoder, **batch)[real(batch)]
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
    assert prefix.keys_values.grad.isfinite().all() and prefix.gates.grad.isfinite().all()


def attend_apart(q, k, v, mask, own, bias=0.0, scale=None):
    """Attention over the text, and over the prompt apart from it, scaled by the tanh of a gate a head."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    mixed = (q @ k.transpose(2, 3) * scale + bias).masked_fill(~mask, -torch.inf).softmax(-1) @ v
    if own is not None:
        keys, values, gate = own
        keys, values = (x.repeat_interleave(q.shape[1] // x.shape[0], 0) for x in (keys, values))
        mixed = mixed + gate.tanh()[:, None, None] * ((q @ keys.transpose(1, 2) * scale).softmax(-1) @ values)
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", sorted({*REFERENCES} - {*OWN_FORWARD} - {*BERT_LIKE[2:]}))
def test_equals_the_reference_on_plain_tensors(kind, monkeypatch):
    # The references of the families run each layer by hand; all of their attention is this one function.
    monkeypatch.setattr(test_families, "attend", attend_apart)
    for backend in FAMILIES[kind].backends:
        encoder = build(kind, backend)
        prefix = prefix_for(encoder)
        own = dict(zip(LAYERS, zip(*prefix.keys_values.unbind(1), prefix.gates, strict=True), strict=True))
        prompts = [own.get(layer) for layer in range(DEPTH)]
        for lengths in ([9, 6], [9, 9]):
            batch = batch_of(kind, lengths, 9)
            with torch.no_grad():
                ours = prefix.encode(encoder, **batch)
                wanted = REFERENCES[kind](encoder, batch["input_ids"], real(batch)[:, None, None], prompts)
                assert (ours - encoder(**batch)[0])[real(batch)].abs().max() > 1e-3
            torch.testing.assert_close(ours[real(batch)], wanted[real(batch)], atol=2e-5, rtol=2e-5)


def test_equals_pefts_adaption_prompt():
    from peft import AdaptionPromptConfig, get_peft_model

    sizes = {"num_key_value_heads": 2, "head_dim": 8}  # PEFT reads the groups from the widths
    encoder, frozen = build("llama", **sizes), build("llama", **sizes)
    other = get_peft_model(frozen, AdaptionPromptConfig(adapter_len=5, adapter_layers=2)).eval()
    prefix = PrefixEncoder(attach(encoder), 5, (1, 2), gate="zero")
    with torch.no_grad():
        for row, layer in enumerate(prefix.layers):
            theirs = other.base_model.layers[layer].self_attn
            theirs.adaption_gate.fill_(0.4 + 0.2 * row)
            prefix.gates[row] = theirs.adaption_gate.atanh()  # they leave the tanh out, and have one gate a layer
            for place, project in enumerate((theirs.model.k_proj, theirs.model.v_proj)):
                prefix.keys_values[row, place] = project(theirs.adaption_prompt[0]).unflatten(1, (2, 8)).transpose(0, 1)
        batch = batch_of("llama", [9, 6], 9)
        ours, wanted = prefix.encode(encoder, **batch), other(**batch)[0]
        assert (wanted - build("llama", **sizes)(**batch)[0])[real(batch)].abs().max() > 1e-3
    torch.testing.assert_close(ours[real(batch)], wanted[real(batch)], atol=1e-5, rtol=1e-5)


def test_eager_equals_sdpa():
    for kind in GATED:
        batch = batch_of(kind, [8, 3], 8)
        encoders = [build(kind, backend) for backend in ("eager", "sdpa")]
        close(*(prefix_for(encoder).encode(encoder, **batch)[real(batch)] for encoder in encoders))


def test_padding_and_company_change_nothing(case):
    kind, backend = case
    encoder = build(kind, backend)
    prefix = prefix_for(encoder)
    lengths, width = [9, 4, 6], 12
    ids = batch_of(kind, lengths, width)["input_ids"]
    for side in FAMILIES[kind].padding:
        with torch.no_grad():
            together = prefix.encode(encoder, **batch_of(kind, lengths, width, side))
            for row, size in enumerate(lengths):
                one = ids[row : row + 1, :size]
                alone = prefix.encode(encoder, input_ids=one, attention_mask=torch.ones_like(one))[0]
                close(together[row, :size] if side == "right" else together[row, width - size :], alone)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    backend=st.sampled_from(["eager", "sdpa"]),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    more=st.integers(0, 12),
    length=st.integers(1, 9),
    layers=st.sets(st.integers(0, DEPTH - 1), min_size=1).map(sorted).map(tuple),
)
def test_any_lengths_score_as_each_alone(kind, backend, lengths, more, length, layers):
    encoder = build(kind, backend)
    prefix = prefix_for(encoder, length, layers)
    batch = batch_of(kind, lengths, max(lengths) + more)
    with torch.no_grad():
        together = prefix.encode(encoder, **batch)
        for row, size in enumerate(lengths):
            alone = prefix.encode(encoder, **{name: value[row : row + 1, :size] for name, value in batch.items()})
            close(together[row, :size], alone[0])


def test_prompts_of_unequal_length_equal_separate_runs(case):
    kind, backend = case
    encoder = build(kind, backend)
    shape = attach(encoder, check=False)
    torch.manual_seed(0)
    prompts = torch.randn(3, 2, 2, shape.key_value_heads, 5, shape.head_size)
    gates = torch.randn(2, shape.query_heads)
    sizes = [5, 2, 0]
    keep = torch.arange(5)[None] < torch.tensor(sizes)[:, None]
    for lengths in ([8, 8, 8], [8, 5, 3]):
        batch = batch_of(kind, lengths, 8)
        together = encoder(**batch, ptv2=DeepPrompt(prompts, LAYERS, keep, gates))[0]
        # One prompt for all, cut for each, is the same as prompts of their own that happen to be equal.
        shared = encoder(**batch, ptv2=DeepPrompt(prompts[0], LAYERS, keep, gates))[0]
        for row, (length, size) in enumerate(zip(lengths, sizes, strict=True)):
            one = {name: value[row : row + 1, :length] for name, value in batch.items()}
            for source, seen in ((prompts[row], together), (prompts[0], shared)):
                own = DeepPrompt(source[..., :size, :], LAYERS, gates=gates)
                close(seen[row, :length], encoder(**one, **({"ptv2": own} if size else {}))[0][0])


def test_a_prompt_that_an_example_lacks_gets_no_gradient_from_it(case):
    kind, backend = case
    encoder = build(kind, backend)
    shape = attach(encoder, check=False)
    prompts = torch.randn(2, 1, 2, shape.key_value_heads, 3, shape.head_size, requires_grad=True)
    keep = torch.tensor([[True, True, False], [False, False, False]])
    gates = torch.ones(1, shape.query_heads)
    loss_of(encoder(**batch_of(kind, [6, 6], 6), ptv2=DeepPrompt(prompts, (1,), keep, gates))[0]).backward()
    assert ((prompts.grad[:, 0].abs().amax((1, 2, 4)) > 0) == keep).all()


def test_a_causal_mask_does_not_hide_the_prompt_nor_open_the_text():
    encoder = build("qwen3")
    prefix = prefix_for(encoder, layers=(0,))
    batch = batch_of("qwen3", [8], 8)
    first = {name: value[:, :1] for name, value in batch.items()}
    hidden = prefix.encode(encoder, **batch)
    assert (hidden - encoder(**batch)[0])[0, 0].abs().max() > 1e-3  # the first piece sees nothing else but itself
    close(hidden[:, :1], prefix.encode(encoder, **first))


def test_attention_weights_stay_those_of_the_text(case):
    kind, _ = case
    encoder = build(kind, "eager")
    batch = batch_of(kind, [7], 7)
    plain = encoder(**batch, output_attentions=True).attentions
    prefix = prefix_for(encoder, layers=(0,))
    prompt = DeepPrompt(prefix.keys_values, (0,), gates=prefix.gates)
    weights = encoder(**batch, ptv2=prompt, output_attentions=True).attentions
    assert [layer.shape for layer in weights] == [layer.shape for layer in plain]
    assert torch.equal(weights[0], plain[0])  # of the layer with the prompt, and before any other
    assert not torch.equal(weights[1], plain[1])


# The zero gate: what training sees


def test_the_gates_move_first_and_the_prompt_follows(case):
    kind, backend = case
    encoder = build(kind, backend).requires_grad_(False)
    prefix = prefix_for(encoder, closed=True)
    batch = batch_of(kind, [7, 4], 7)
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=0.1, weight_decay=0.0)
    loss_of(prefix.encode(encoder, **batch)[real(batch)]).backward()
    assert (prefix.gates.grad.abs() > 0).all()
    assert not prefix.keys_values.grad.any()
    before = prefix.keys_values.detach().clone()
    optimizer.step()
    optimizer.zero_grad()
    assert torch.equal(prefix.keys_values, before)
    loss_of(prefix.encode(encoder, **batch)[real(batch)]).backward()
    assert (prefix.gates.grad.abs() > 0).all()
    assert (prefix.keys_values.grad.abs().amax((3, 4)) > 0).all()
    optimizer.step()
    assert not torch.equal(prefix.keys_values, before)
    assert all(weight.grad is None for weight in encoder.parameters())


def test_gradients_equal_differences():
    encoder = build("bert").double().requires_grad_(False)
    prefix = prefix_for(encoder, 2).double()
    batch = batch_of("bert", [4, 2, 1], 4)
    keep = torch.tensor([[True, True], [False, True], [False, False]])

    def output(keys_values, gates):
        return encoder(**batch, ptv2=DeepPrompt(keys_values, LAYERS, keep, gates))[0][real(batch)]

    assert torch.autograd.gradcheck(output, (prefix.keys_values, prefix.gates), fast_mode=True)


@pytest.mark.parametrize("gate", ["zero", "layer"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAMILIES[kind].checkpoints])
def test_checkpointing_gives_the_same_gradients(kind, gate):
    gradients = []
    for checkpointed in (False, True):
        encoder = build(kind).requires_grad_(False)
        prefix = prefix_for(encoder, 3, gate=gate, reparameterization="residual", hidden=8)
        set_dropout(encoder, 0.0)
        encoder.train()
        if checkpointed:
            checkpoint_activations(encoder)
        loss_of(prefix.encode(encoder, **batch_of(kind, [7, 4], 7))).backward()
        gradients.append({name: parameter.grad for name, parameter in prefix.named_parameters()})
    assert all(gradient.abs().max() > 0 for gradient in gradients[0].values())
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_dropout_per_example_goes_with_a_gate():
    encoder = build("albert")
    prefix = prefix_for(encoder, dropout=0.5, dropout_per_example=True).train()
    batch = batch_of("albert", [6, 6], 6)
    hidden = prefix.encode(encoder, **batch | {"input_ids": batch["input_ids"][:1].expand(2, -1)})
    assert (hidden[0] - hidden[1]).abs().max() > 1e-3


# Folding


@pytest.mark.parametrize("reparameterization", [None, "residual", "mlp"])
@pytest.mark.parametrize("gate", [None, "layer", "zero"])
@pytest.mark.parametrize("kind", ["bert", "qwen3", "deberta-v2"])
def test_folding_leaves_the_outputs(kind, gate, reparameterization):
    encoder = build(kind)
    if gate == "zero" and kind in OWN_FORWARD:
        gate = None
    prefix = prefix_for(encoder, gate=gate, reparameterization=reparameterization, hidden=8)
    batch = batch_of(kind, [8, 5], 8)
    wanted, state = prefix.encode(encoder, **batch), prefix.folded_state()
    assert prefix.is_folded == (gate != "layer" and reparameterization is None)
    prefix.fold()
    assert prefix.is_folded
    assert torch.equal(prefix.encode(encoder, **batch), wanted)
    assert {name for name, _ in prefix.named_parameters()} == {"keys_values"} | ({"gates"} if gate == "zero" else set())
    after = prefix.state_dict()
    assert after.keys() == state.keys() and all(torch.equal(after[name], state[name]) for name in after)
    loss_of(prefix.encode(encoder, **batch)).backward()
    assert prefix.keys_values.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{"gate": "layer"}, {"gate": None, "reparameterization": "residual"}])
def test_layer_gate_and_residual_start_as_without_them(options):
    encoder = build("bert")
    outputs = []
    for more in ({}, options):
        torch.manual_seed(0)
        prefix = PrefixEncoder(attach(encoder, check=False), 4, LAYERS, **more)
        outputs.append(prefix.encode(encoder, **batch_of("bert", [8, 5], 8)))
    assert torch.equal(*outputs)


def test_the_layer_scale_multiplies_one_layer():
    encoder = build("qwen3")
    prefix = prefix_for(encoder, gate="layer", closed=True)
    batch = batch_of("qwen3", [8, 5], 8)
    with torch.no_grad():
        prefix.scales.copy_(torch.tensor([0.5, -2.0]))
        scaled = prefix.keys_values * torch.tensor([0.5, -2.0])[:, None, None, None, None]
    by_hand = encoder(**batch, ptv2=DeepPrompt(scaled, LAYERS))[0]
    assert torch.equal(prefix.encode(encoder, **batch)[real(batch)], by_hand[real(batch)])
    assert prefix.layer_importance() == pytest.approx([0.2, 0.8])
    loss_of(prefix.encode(encoder, **batch)).backward()
    assert (prefix.scales.grad.abs() > 0).all()


# Refusals


@pytest.mark.parametrize("kind", OWN_FORWARD)
def test_encoders_with_a_forward_of_their_own_refuse_the_zero_gate(kind):
    encoder = build(kind)
    shape = attach(encoder)
    words = f"{FAMILIES[kind].name} computes attention in its own forward"
    with pytest.raises(BadOption, match=words):
        check_gate(encoder, "zero")
    prefix, batch = PrefixEncoder(shape, 3, LAYERS, gate="zero"), batch_of(kind, [5], 5)
    with pytest.raises(BadOption, match=words):
        prefix.encode(encoder, **batch)
    with pytest.raises(BadOption, match="this encoder computes attention in its own forward"):
        encoder(**batch, ptv2=DeepPrompt(prefix.keys_values, LAYERS, gates=prefix.gates))
    for gate in (None, "layer"):
        check_gate(encoder, gate)
        prefix_for(encoder, gate=gate).encode(encoder, **batch)


@pytest.mark.parametrize("kind", GATED)
def test_all_others_take_every_gate(kind):
    encoder = build(kind)
    shape = attach(encoder)
    assert shape.query_heads == 4 and shape.key_value_heads in (2, 4)
    for gate in (None, "zero", "layer"):
        check_gate(encoder, gate)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_changing_the_attention_after_attaching_is_noticed(kind):
    encoder = build(kind)
    prefix = prefix_for(encoder)
    encoder.set_attn_implementation("sdpa")
    with pytest.raises((RuntimeError, TypeError)):
        prefix.encode(encoder, **batch_of(kind, [5], 5))

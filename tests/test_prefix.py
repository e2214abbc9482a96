"""Layer choice, reparameterization, dropout and initialization of deep prompts."""

import pytest
import torch
from conftest import build, padded
from hypothesis import given
from hypothesis import strategies as st

from ptv2lib.attention import Shape, attach, keys_and_values
from ptv2lib.building import build_model
from ptv2lib.errors import BadOption, UnknownName
from ptv2lib.prefix import PrefixEncoder, choose_layers
from ptv2lib.prompts import SoftPrompt

SHAPE = Shape(layers=3, key_value_heads=4, head_size=6)


@given(st.integers(1, 30).flatmap(lambda depth: st.tuples(st.just(depth), st.sets(st.integers(1, depth), min_size=1))))
def test_layer_choices_read_alike(case):
    depth, chosen = case
    wanted = tuple(number - 1 for number in sorted(chosen))
    assert choose_layers(sorted(chosen), depth) == wanted
    assert choose_layers(",".join(map(str, chosen)), depth) == wanted
    low, high = min(chosen), max(chosen)
    assert choose_layers(f"{low}-{high}", depth) == tuple(range(low - 1, high))
    assert choose_layers("all", depth) == tuple(range(depth))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("9-13", "asks for layer 13"),
        ("1-9999999", "^layers='1-9999999' asks for layer 13, and"),  # no list of them is made
        ([0], "asks for layer 0"),
        ([], "at least one"),
        ([2, 2], "each once"),
        ("top", "cannot be read"),
        ("5-3", "at least one"),
    ],
)
def test_bad_layer_choices_are_named(choice, words):
    with pytest.raises(BadOption, match=words):
        choose_layers(choice, 12)


@given(
    length=st.integers(1, 40),
    layers=st.sets(st.integers(0, 2), min_size=1),
    heads=st.integers(1, 5),
    size=st.integers(1, 9),
)
def test_parameters_equal_the_formula(length, layers, heads, size):
    prefix = PrefixEncoder(Shape(3, heads, size), length, tuple(sorted(layers)))
    assert sum(p.numel() for p in prefix.parameters()) == 2 * len(layers) * heads * size * length
    assert prefix(7).shape == (len(layers), 2, heads, length, size)


@given(
    length=st.integers(1, 9),
    layers=st.sets(st.integers(0, 2), min_size=1),
    heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    hidden=st.integers(1, 7),
)
def test_gates_and_the_residual_network_add_what_the_formulas_say(length, layers, heads, groups, hidden):
    shape, chosen = Shape(3, heads, 4, groups), tuple(sorted(layers))
    bare = 2 * len(layers) * shape.key_value_width * length

    def count(**options):
        return sum(p.numel() for p in PrefixEncoder(shape, length, chosen, **options).parameters())

    assert count(gate="zero") == bare + len(layers) * heads * groups
    assert count(gate="layer") == bare + len(layers)
    assert count(reparameterization="residual", hidden=hidden) == bare + 2 * shape.key_value_width * hidden


def test_folding_changes_no_number():
    prefix = PrefixEncoder(SHAPE, 5, (0, 2), "mlp", hidden=8)
    before = prefix.folded().detach().clone()
    prefix.fold()
    assert torch.equal(prefix.folded(), before)
    assert [name for name, _ in prefix.named_parameters()] == ["keys_values"]


def test_the_residual_network_reads_each_position_alone():
    prefix = PrefixEncoder(SHAPE, 5, (0, 2), "residual", hidden=8)
    torch.nn.init.normal_(prefix.network[2].weight)
    down, up = prefix.network[0].weight, prefix.network[2].weight
    for layer, kind, position in [(0, 0, 0), (1, 0, 4), (1, 1, 2)]:
        vector = prefix.keys_values[layer, kind, :, position].flatten()
        wanted = vector + up @ (down @ vector).tanh()
        torch.testing.assert_close(prefix.folded()[layer, kind, :, position].flatten(), wanted)


def test_the_residual_network_learns_from_its_zero_start():
    prefix = PrefixEncoder(SHAPE, 5, (0, 2), "residual", hidden=8)
    assert torch.equal(prefix.folded(), prefix.keys_values)
    prefix.folded().sum().backward()
    assert prefix.network[2].weight.grad.abs().max() > 0
    assert (prefix.keys_values.grad == 1).all()


def test_layer_importance_is_a_share_and_needs_the_layer_gate():
    prefix = PrefixEncoder(SHAPE, 2, (0, 1, 2), gate="layer")
    assert prefix.layer_importance() == pytest.approx([1 / 3] * 3)
    with torch.no_grad():
        prefix.scales.copy_(torch.tensor([-1.0, 3.0, 0.0]))
    assert prefix.layer_importance() == [0.25, 0.75, 0.0]
    prefix.fold()
    for without in (prefix, PrefixEncoder(SHAPE, 2, (0,), gate="zero")):
        with pytest.raises(BadOption, match="gate='layer'"):
            without.layer_importance()


@pytest.mark.parametrize(("options", "near"), [({"gate": "zeros"}, "zero"), ({"reparameterization": "resid"}, "res")])
def test_unknown_parts_are_named(options, near):
    with pytest.raises(UnknownName, match=f"did you mean '{near}"):
        PrefixEncoder(SHAPE, 2, (0,), **options)


def test_no_reparameterization_and_no_calibration_can_be_asked_for():
    model = build_model("sst2", backbone="tiny", method="pt", reparameterization="none", init="vocabulary")
    assert model.options.reparameterization is None and model.prompt.is_folded
    assert build_model("sst2", backbone="tiny", prompt_length=2, calibration="none").options.head == "linear"
    discrete = build_model("sst2", backbone="tiny", method="discrete", calibration="none")
    assert discrete.options.calibration is None and not discrete.head.prior.any()
    with pytest.raises(BadOption, match="'ptv1' plain prompt tuning; use the method 'pt'"):
        build_model("sst2", backbone="tiny", method="ptv1", reparameterization="none")
    with pytest.raises(BadOption, match="does nothing without reparameterization"):
        build_model("sst2", backbone="tiny", reparameterization="none", reparameterization_hidden=8)


def test_a_misspelt_position_offset_is_not_taken_for_none():
    for make in (lambda: PrefixEncoder(SHAPE, 2, (0,), position_offset="shfit"), lambda: SoftPrompt(8, 2, "shfit")):
        with pytest.raises(UnknownName, match="did you mean 'shift'"):
            make()


def test_the_start_is_narrow():
    spread = PrefixEncoder(Shape(12, 12, 64), 50, tuple(range(12))).keys_values.std().item()
    assert abs(spread - 0.02) < 0.0005


def test_dropout_draws_one_mask_a_step_or_one_an_example():
    step = PrefixEncoder(SHAPE, 50, (0, 1), dropout=0.5)
    assert step(4).dim() == 5
    each = PrefixEncoder(SHAPE, 50, (0, 1), dropout=0.5, dropout_per_example=True)
    drawn = each(4)
    assert drawn.shape[0] == 4 and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(each.eval()(4), each.folded())
    encoder = build("bert")
    attach(encoder)
    assert each.train().encode(encoder, **padded("bert", [6, 4], 6)).shape == (2, 6, 24)


def test_starting_from_words_copies_their_keys_and_values():
    encoder = build("bert")
    prefix = PrefixEncoder(attach(encoder), 4, (1, 2))
    words = [10, 11, 12, 13, 14, 15]
    prefix.start_from_words(encoder, words, cls=2, sep=3)
    seen = keys_and_values(encoder, input_ids=torch.tensor([[2, *words[:4], 3]]))
    assert torch.equal(prefix.keys_values, seen[[1, 2], :, 0, :, 1:-1])
    for more in ({"reparameterization": "residual"}, {"gate": "zero"}, {"gate": "layer"}):
        other = PrefixEncoder(attach(encoder), 4, (1, 2), **more)
        other.start_from_words(encoder, words, cls=2, sep=3)
        assert torch.equal(other.folded(), prefix.keys_values)


def test_starting_from_words_says_what_it_lacks():
    encoder = build("bert")
    shape = attach(encoder)
    with pytest.raises(BadOption, match="needs 9 pieces"):
        PrefixEncoder(shape, 9, (0,)).start_from_words(encoder, [5, 6], 2, 3)
    with pytest.raises(BadOption, match="excludes reparameterization"):
        PrefixEncoder(shape, 2, (0,), "mlp").start_from_words(encoder, [5, 6], 2, 3)


def test_a_prompt_longer_than_the_window_is_read_in_parts():
    encoder = build("bert")  # 80 positions
    prefix = PrefixEncoder(attach(encoder), 100, (0,))
    prefix.start_from_words(encoder, [7 + i % 90 for i in range(100)], 2, 3)
    assert prefix.keys_values.std() > 0.1

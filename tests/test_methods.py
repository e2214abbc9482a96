"""The methods at the input and on the encoder: what they compute, train, keep, save, and refuse."""

import copy
import functools
import json
import random
import re
import sys
import tomllib
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_alignment import FAMILIAR, train
from test_families import batch_of, build
from test_tasks import folder
from test_templates import one_sentence, single_words

import ptv2lib as pt
from ptv2lib.adapters import low_rank
from ptv2lib.attention import FAMILIES, attach, is_attached
from ptv2lib.backbones import Backbone, _add_trained, _starter_wheel, fingerprint, load_backbone
from ptv2lib.encoding import collate
from ptv2lib.errors import BadOption, NoMaskedLM, PromptMismatch, PtvError, UnknownName
from ptv2lib.methods import METHODS
from ptv2lib.prompts import SoftPrompt
from ptv2lib.tasks import TASKS
from ptv2lib.tasks.classification import Classification
from ptv2lib.zero_shot import compare_templates

FILLING = [kind for kind, family in FAMILIES.items() if family.masked_lm]
EMBEDDED = WIDTH = 32  # of the tiny encoder
BLOCKS = 2  # its layers
HEAD = 2 * WIDTH + 2  # a linear head on two labels
CLOZE = "{sentence} It was {mask}."
SOFT = "{soft:2} {sentence} {soft:3} It was {mask}."


# Data and encoders


def texts(count, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(FAMILIAR, k=draw.randint(1, 6))) for _ in range(count)]


def sentences(count, seed=0):
    return [{"sentence": text, "label": i % 2} for i, text in enumerate(texts(count, seed))]


def answered(text, number):
    word = text.split()[0]
    answers = {"text": [word], "answer_start": [0]}
    return {"id": str(number), "title": "", "context": text, "question": "who?", "answers": answers}


ROWS = {
    "sst2": sentences(12),
    "wikiann": [
        {"tokens": text.split(), "ner_tags": [i % 7 for i in range(len(text.split()))]} for text in texts(8, 1)
    ],
    "squad": [answered(text, i) for i, text in enumerate(texts(8, 2))],
    "copa": [
        {"premise": a, "choice1": b, "choice2": c, "question": "cause", "label": i % 2, "idx": i}
        for i, (a, b, c) in enumerate(zip(texts(8, 3), texts(8, 4), texts(8, 5), strict=True))
    ],
    "conll04": [{"tokens": text.split(), "entities": [{"start": 0, "end": 1, "type": "Loc"}]} for text in texts(12, 6)],
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """One small task of each kind of head, with a labelled test split."""
    found = {}
    for name, rows in ROWS.items():
        path = folder(tmp_path_factory.mktemp(name), train=rows, validation=rows[:6], test=rows[6:])
        with pytest.warns(UserWarning, match="other numbers of rows"):
            found[name] = pt.load_task(name, dataset=path)
    return found


@pytest.fixture(scope="module")
def sst2(tasks):
    return tasks["sst2"]


BYTES = ("roberta", "camembert", "deberta", "modernbert", "eurobert", "qwen3")
SEGMENTED = ("bert", "electra", "ernie", "albert")


@functools.cache
def trained(kind):
    """Trained once: a trainer does not give its pieces the same numbers every time."""
    return train(kind)


def tokenizer_of(kind):
    tokenizer = copy.deepcopy(trained("byte-level" if kind in BYTES else "wordpiece uncased"))
    names = ["input_ids", "attention_mask"]
    tokenizer.model_input_names = [*names, "token_type_ids"] if kind in SEGMENTED else names
    return tokenizer


def filler(kind, **more):
    """A random masked language model of a family, the same at every call."""
    return build(kind, head="MaskedLM", vocab_size=360, pad_token_id=0, **more)


def backbone_of(kind, masked=True):
    """A random encoder of a family with a tokenizer that fits."""
    tokenizer = tokenizer_of(kind)
    model = filler(kind) if masked else None
    encoder = model.base_model if masked else build(kind, vocab_size=360, pad_token_id=0)
    return Backbone(
        f"own {kind}", None, encoder, tokenizer, fingerprint(encoder, tokenizer), FAMILIES[kind].pooling, model
    )


def verbalizer_of(tokenizer):
    """Two words for one label and one for the other."""
    one, two, three = list(single_words(tokenizer))[:3]
    return {"negative": (one, two), "positive": (three,)}


def make(task, method, backbone="tiny", **options):
    return pt.build_model(task, backbone=backbone, method=method, **options)


def inputs_of(model, rows):
    return [one for row in model.encode(rows) for one in row]


def logits_of(model, rows):
    found = dict(model.logits(inputs_of(model, rows)))
    return [found[k] for k in range(len(found))]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def optimize(model, rows, steps=3):
    """A few plain steps; the gradients of the last one stay."""
    batch, labels = collate(inputs_of(model, rows), model.tokenizer)
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-2)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model.head.loss(model(**batch), labels)
            loss.backward()
            optimizer.step()
    model.eval()
    assert torch.isfinite(loss)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


# The masked-LM head of every family


@pytest.mark.parametrize("kind", FILLING)
def test_the_verbalizer_reads_what_the_whole_model_says_at_the_gap(kind, sst2):
    backbone = backbone_of(kind)
    words = verbalizer_of(backbone.tokenizer)
    model = make(sst2, "discrete", backbone, template=CLOZE, verbalizer=words, calibration="empty")
    model.head.prior.zero_()
    rows = sst2.rows["train"][:4]
    found = logits_of(model, rows)
    ids_of = {label: [single_words(model.tokenizer)[word] for word in group] for label, group in words.items()}
    whole = filler(kind)  # never attached to anything
    for one, scores in zip(inputs_of(model, rows), found, strict=True):
        batch, _ = collate([one], model.tokenizer)
        gap = batch.pop("marks")[0].tolist().index(1)
        assert batch["input_ids"][0, gap] == model.tokenizer.mask_token_id
        with torch.no_grad():
            chances = whole(**batch).logits[0, gap].softmax(-1)
        wanted = [chances[ids_of[label]].mean().log() for label in ("negative", "positive")]
        close(torch.from_numpy(scores), torch.stack(wanted))


def test_a_verbalizers_logits_are_float32_under_autocast(sst2):
    model = make(sst2, "discrete")
    batch, _ = collate(inputs_of(model, sst2.rows["train"][:3]), model.tokenizer)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(**batch)
    assert half.dtype == torch.float32
    close(half, torch.tensor(np.array(logits_of(model, sst2.rows["train"][:3]))), 0.1)


@pytest.mark.parametrize("kind", FILLING)
def test_the_masked_form_has_the_same_encoder_and_stays_tied(kind, tmp_path, sst2):
    whole = filler(kind)
    whole.save_pretrained(tmp_path / "whole")
    whole.base_model.save_pretrained(tmp_path / "encoder")
    for name in ("whole", "encoder"):
        tokenizer_of(kind).save_pretrained(tmp_path / name)
    plain = load_backbone(str(tmp_path / "whole"))
    masked = load_backbone(str(tmp_path / "whole"), masked_lm=True)
    assert plain.masked_lm is None and plain.lm_head is None
    assert plain.fingerprint == masked.fingerprint
    assert masked.masked_lm.base_model is masked.encoder
    states = plain.encoder.state_dict(), masked.encoder.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items() if "pooler" not in name)
    tied = masked.masked_lm.get_output_embeddings().weight is masked.encoder.get_input_embeddings().weight
    assert tied == (whole.get_output_embeddings().weight is whole.get_input_embeddings().weight)
    assert tied == whole.config.tie_word_embeddings
    with pytest.raises(NoMaskedLM, match="needs a masked-LM head, and the checkpoint of") as error:
        load_backbone(str(tmp_path / "encoder"), masked_lm=True)
    assert one_sentence(error)


def test_the_tiny_encoders_masked_form_is_the_same_encoder():
    plain, masked = load_backbone("tiny"), load_backbone("tiny", masked_lm=True)
    assert plain.fingerprint == masked.fingerprint and masked.masked_lm.bert is masked.encoder
    assert masked.masked_lm.get_output_embeddings().weight is masked.encoder.get_input_embeddings().weight
    assert plain.lm_head is None and masked.lm_head is not None


@pytest.mark.parametrize("kind", ["deberta", "deberta-v2"])
def test_debertas_newer_masked_lm_head_is_read_or_refused(kind, sst2):
    """`legacy=False` in the config names and shapes the head otherwise: `lm_predictions`, given the embeddings as well."""
    whole = filler(kind, legacy=False)
    tokenizer = tokenizer_of(kind)
    print_of = fingerprint(whole.base_model, tokenizer)
    words = verbalizer_of(tokenizer)
    try:
        backbone = Backbone("own", None, whole.base_model, tokenizer, print_of, "cls", whole)
        model = make(sst2, "discrete", backbone, template=CLOZE, verbalizer=words)
    except NoMaskedLM:
        return
    model.head.prior.zero_()
    (one,) = inputs_of(model, sst2.rows["train"][:1])
    batch, _ = collate([one], tokenizer)
    gap = batch.pop("marks")[0].tolist().index(1)
    chances = filler(kind, legacy=False)(**batch).logits[0, gap].softmax(-1)
    piece = single_words(tokenizer)[words["positive"][0]]
    close(torch.from_numpy(logits_of(model, sst2.rows["train"][:1])[0])[1], chances[piece].log().detach())


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in FILLING])
def test_families_without_a_masked_lm_head_say_so(kind, tmp_path, sst2):
    build(kind).config.save_pretrained(tmp_path)
    for options in ({"method": "discrete"}, {"method": "pt2", "head": "verbalizer"}):
        with pytest.raises(NoMaskedLM, match=f"needs a masked-LM head, and {re.escape(FAMILIES[kind].name)}") as error:
            pt.build_model(sst2, backbone=str(tmp_path), **options)
        assert one_sentence(error)


def test_the_starter_has_no_masked_lm_head(sst2):
    if _starter_wheel() is None:
        pytest.skip("the starter encoder is not part of this environment")
    with pytest.raises(NoMaskedLM, match="the checkpoint of 'minilm' ships none") as error:
        make(sst2, "discrete", "minilm")
    assert one_sentence(error)


def test_the_starters_masked_lm_form(sst2):
    starter = Path(pt.__file__).parent / "starter" / "minilm_mlm.safetensors"
    if not starter.is_file() or _starter_wheel() is None:
        pytest.skip("the masked-LM form of the starter encoder is not part of this environment")
    masked, plain = load_backbone("minilm-mlm", masked_lm=True), load_backbone("minilm-mlm")
    assert masked.fingerprint == plain.fingerprint
    assert masked.masked_lm.get_output_embeddings().weight is masked.encoder.get_input_embeddings().weight
    rows = [{"sentence": "a gorgeous , witty , seductive movie .", "label": 1}, {"sentence": "a mess .", "label": 0}]
    praise, blame = (scores[1] - scores[0] for scores in logits_of(make(sst2, "discrete", masked), rows))
    assert praise > blame


def test_what_was_trained_here_is_added_to_the_starter(tmp_path):
    draw = torch.Generator().manual_seed(0)
    encoder = build("bert")
    before = weights(encoder)
    down, up = torch.randn(2, 32, generator=draw), torch.randn(32, 2, generator=draw)
    bias, dense = torch.randn(32, generator=draw), torch.randn(32, 32, generator=draw)
    of_words, scale = torch.randn(160, generator=draw), torch.randn(160, 32, generator=draw) / 9
    save_file(
        {
            "bert.encoder.layer.0.attention.self.query.weight.down": down.half(),
            "bert.encoder.layer.0.attention.self.query.weight.up": up.half(),
            "delta.bert.encoder.layer.2.output.dense.bias": bias.half(),
            "delta.bert.embeddings.word_embeddings.weight": scale.half(),
            "cls.predictions.transform.dense.weight": dense.half(),
            "cls.predictions.bias": of_words.half(),
        },
        tmp_path / "trained.safetensors",
    )
    inside, masked = _add_trained(encoder, str(tmp_path / "trained.safetensors"), True)
    alone, none = _add_trained(build("bert"), str(tmp_path / "trained.safetensors"), False)
    assert none is None and masked.bert is inside
    wanted = before | {
        "encoder.layer.0.attention.self.query.weight": before["encoder.layer.0.attention.self.query.weight"]
        + up.half().float() @ down.half().float(),
        "encoder.layer.2.output.dense.bias": before["encoder.layer.2.output.dense.bias"] + bias.half().float(),
        "embeddings.word_embeddings.weight": before["embeddings.word_embeddings.weight"] + scale.half().float(),
    }
    for form in (inside, alone):
        state = form.state_dict()
        assert set(state) == set(wanted)
        for name, value in wanted.items():
            close(state[name], value, 1e-6)
    head = masked.cls.predictions
    assert head.decoder.weight is masked.bert.embeddings.word_embeddings.weight
    assert head.decoder.bias is head.bias
    assert torch.equal(head.bias, of_words.half().float())
    assert torch.equal(head.transform.dense.weight, dense.half().float())


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("probe", "mpt2")])
def test_nothing_of_the_lm_head_trains_but_with_the_encoder(method, sst2):
    for tuned in (False, True):
        if tuned and METHODS[method].prompt is None:
            continue
        model = make(sst2, method, head="verbalizer", tune_backbone=tuned)
        shared = model.backbone.get_input_embeddings().weight
        assert model.loaded.masked_lm.get_output_embeddings().weight is shared
        own = [parameter for parameter in model.lm_head.parameters() if parameter is not shared]
        assert own and all(parameter.requires_grad == (tuned or method == "ft") for parameter in own)
        assert not any(name.startswith("lm_head") for name in model.trainable()) or tuned or method == "ft"


# What each method trains


def mlp(width):
    return 2 * (width * width + width)


def lstm(width):
    """Two layers in two directions, four gates each: weights of the input and of the state, and two biases; then a network."""
    half = -(-width // 2)
    layer = lambda read: 2 * (4 * half * read + 4 * half * half + 2 * 4 * half)  # noqa: E731
    return layer(width) + layer(2 * half) + (2 * half * width + width) + (width * width + width)


PROMPT = {"prompt.vectors"}
LINEAR = {"head.linear.weight", "head.linear.bias"}
NETWORK = {f"prompt.network.{k}.{part}" for k in (0, 2) for part in ("weight", "bias")}
RECURRENT = {f"prompt.network.network.{k}.{part}" for k in (0, 2) for part in ("weight", "bias")} | {
    f"prompt.network.lstm.{part}_l{layer}{way}"
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for layer in (0, 1)
    for way in ("", "_reverse")
}
LORA = {
    f"backbone.encoder.layer.{layer}.attention.self.{part}.lora_{side}.default.weight"
    for layer in range(BLOCKS)
    for part in ("query", "key", "value")
    for side in "AB"
}
BIASES = {"backbone.embeddings.LayerNorm.bias"} | {
    f"backbone.encoder.layer.{layer}.{part}.bias"
    for layer in range(BLOCKS)
    for part in (
        *("attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    )
}
OF_BIASES = WIDTH + BLOCKS * (7 * WIDTH + 64)
OF_LORA = BLOCKS * 3 * 8 * 2 * WIDTH
FIVE = 5 * EMBEDDED

# name: task, method, options, names of what trains, how many numbers (None: everything)
VARIANTS = {
    "pt": ("sst2", "pt", {"prompt_length": 5}, PROMPT | LINEAR, FIVE + HEAD),
    "pt none": ("sst2", "pt", {"prompt_length": 5, "position_offset": "none"}, PROMPT | LINEAR, FIVE + HEAD),
    "pt in slots": ("sst2", "pt", {"template": "{soft:5} {sentence}"}, PROMPT | LINEAR, FIVE + HEAD),
    "pt in a template": ("sst2", "pt", {"template": SOFT, "head": "verbalizer"}, PROMPT, FIVE),
    "pt verbalizer": ("sst2", "pt", {"prompt_length": 5, "head": "verbalizer"}, PROMPT, FIVE),
    "pt vocabulary": ("sst2", "pt", {"prompt_length": 5, "init": "vocabulary"}, PROMPT | LINEAR, FIVE + HEAD),
    "pt labels": ("sst2", "pt", {"prompt_length": 5, "init": "labels", "head": "verbalizer"}, PROMPT, FIVE),
    "pt mlp": (
        *("sst2", "pt", {"prompt_length": 5, "reparameterization": "mlp"}),
        *(PROMPT | NETWORK | LINEAR, FIVE + mlp(EMBEDDED) + HEAD),
    ),
    "ptv1": ("sst2", "ptv1", {}, PROMPT | RECURRENT, 6 * EMBEDDED + lstm(EMBEDDED)),
    "ptv1 mlp": (
        *("sst2", "ptv1", {"template": SOFT, "reparameterization": "mlp"}),
        *(PROMPT | NETWORK, FIVE + mlp(EMBEDDED)),
    ),
    "ptv1 before a template": (
        *("sst2", "ptv1", {"template": CLOZE, "prompt_length": 5}),
        *(PROMPT | RECURRENT, FIVE + lstm(EMBEDDED)),
    ),
    "ptv1 linear": (
        *("sst2", "ptv1", {"head": "linear", "prompt_length": 5}),
        *(PROMPT | RECURRENT | LINEAR, FIVE + lstm(EMBEDDED) + HEAD),
    ),
    "ptv1 tuned": ("sst2", "ptv1", {"tune_backbone": True}, None, None),
    "pt2 verbalizer": (
        *("sst2", "pt2", {"prompt_length": 5, "head": "verbalizer"}),
        *({"prompt.keys_values"}, BLOCKS * 2 * WIDTH * 5),
    ),
    "pt2 in a template": (
        *("sst2", "pt2", {"prompt_length": 5, "template": "So: {sentence}"}),
        *({"prompt.keys_values"} | LINEAR, BLOCKS * 2 * WIDTH * 5 + HEAD),
    ),
    "discrete": ("sst2", "discrete", {}, set(), 0),
    "discrete train": ("sst2", "discrete", {"calibration": "train"}, set(), 0),
    "probe in a template": ("sst2", "probe", {"template": CLOZE}, LINEAR, HEAD),
    "lora": ("sst2", "lora", {}, LORA | LINEAR, OF_LORA + HEAD),
    "lora verbalizer": ("sst2", "lora", {"head": "verbalizer", "lora_rank": 4}, LORA, OF_LORA // 2),
    "bitfit": ("sst2", "bitfit", {}, BIASES | LINEAR, OF_BIASES + HEAD),
    "bitfit verbalizer": ("sst2", "bitfit", {"head": "verbalizer"}, BIASES, OF_BIASES),
    "ft": ("sst2", "ft", {}, None, None),
    "ft verbalizer": ("sst2", "ft", {"head": "verbalizer"}, None, None),
} | {
    f"{method} {name}": (name, method, options, of_method | LINEAR, count + WIDTH * labels + labels)
    for name, labels in (("wikiann", 7), ("squad", 2), ("copa", 1))
    for method, options, of_method, count in (
        ("pt", {"prompt_length": 5}, PROMPT, FIVE),
        ("ptv1", {"prompt_length": 5}, PROMPT | RECURRENT, FIVE + lstm(EMBEDDED)),
        ("lora", {}, LORA, OF_LORA),
        ("bitfit", {}, BIASES, OF_BIASES),
    )
}


@pytest.fixture(params=VARIANTS)
def variant(request, tasks):
    name, method, options, names, numbers = VARIANTS[request.param]
    return tasks[name], method, options, names, numbers


def test_what_trains_stands_in_the_formula(variant):
    task, method, options, names, numbers = variant
    model = make(task, method, **options)
    everything = {name for name, _ in model.named_parameters()}
    assert set(model.trainable()) == (everything if names is None else names)
    assert model.trainable_parameters == (
        sum(parameter.numel() for parameter in model.parameters()) if numbers is None else numbers
    )


def test_training_moves_what_it_may_and_a_saved_model_comes_back(variant, tmp_path):
    """Invariants 1 and 6: the frozen rest stays to the last bit, and a loaded model scores the same and trains on."""
    task, method, options, names, numbers = variant
    rows, some = task.rows["train"][:6], task.rows["train"][:3]
    model = make(task, method, **options)
    before, start = weights(model), logits_of(model, some)
    if numbers != 0:
        optimize(model, rows)
    moves = set(model.trainable())
    # What shifts all scores of a query, or of all alternatives, alike is hidden by the softmax.
    hidden = {name for name in moves if "key.bias" in name or (task.name == "copa" and name == "head.linear.bias")}
    after = model.state_dict()
    storage = {after[name].data_ptr() for name in moves}  # a tied weight goes by two names
    for name, value in before.items():
        free = name in moves or after[name].data_ptr() in storage
        assert free or torch.equal(after[name], value), f"{name} moved"
        assert name not in moves - hidden or not torch.equal(after[name], value), f"{name} did not move"
    (model.save_model if names is None else model.save_prompt)(tmp_path / "saved")
    loaded = pt.load_prompt(tmp_path / "saved")
    scores = logits_of(model, some)
    assert numbers == 0 or not same(scores, start)
    assert same(logits_of(loaded, some), scores)
    assert set(loaded.trainable()) == moves and loaded.trainable_parameters == model.trainable_parameters
    if numbers == 0:
        return
    optimize(loaded, rows, 1)
    for name, parameter in loaded.named_parameters():
        assert (parameter.grad is None) == (name not in moves), name
        assert name not in moves or parameter.grad.isfinite().all()
        assert name not in moves - hidden or parameter.grad.abs().max() > 0, name
    assert not same(logits_of(loaded, some), scores)


REPARAMETERIZED = [name for name in VARIANTS if {"ptv1", "mlp"} & set(name.split()) and "tuned" not in name]


@pytest.mark.parametrize("name", REPARAMETERIZED)
def test_a_folded_prompt_scores_as_it_did(name, tasks, tmp_path):
    of_task, method, options, *_ = VARIANTS[name]
    task = tasks[of_task]
    model = make(task, method, **options)
    optimize(model, task.rows["train"][:6])
    model.save_prompt(tmp_path / "p")
    with_network = pt.load_prompt(tmp_path / "p")
    assert not with_network.prompt.is_folded
    (tmp_path / "p" / "reparameterization.safetensors").unlink()
    folded = pt.load_prompt(tmp_path / "p")
    assert folded.prompt.is_folded and set(folded.prompt.state_dict()) == {"vectors"}
    rows = task.rows["train"][:4]
    assert same(logits_of(folded, rows), logits_of(with_network, rows))
    with_network.prompt.fold()
    assert same(logits_of(with_network, rows), logits_of(model, rows))


def test_a_tuned_encoder_has_no_prompt_to_save(sst2, tmp_path):
    for method, options in (("ptv1", {"tune_backbone": True}), ("pt2", {"tune_backbone": True}), ("ft", {})):
        model = make(sst2, method, **options)
        with pytest.raises(BadOption, match="use save_model") as error:
            model.save_prompt(tmp_path / "p")
        assert one_sentence(error) and not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("method", "words"), [("lora", "belongs to prompts"), ("mpt2", "that the data sets of 'mpt2' share")]
)
def test_an_encoder_is_tuned_beside_a_prompt_of_its_own_alone(method, words, sst2):
    with pytest.raises(BadOption, match=f"tune_backbone=True .*{words}"):
        make(sst2, method, tune_backbone=True)


@pytest.mark.parametrize("method", ["lora", "bitfit", "pt2"])
def test_a_model_whose_encoder_is_not_all_trained_is_saved_as_a_prompt(method, sst2, tmp_path):
    with pytest.raises(BadOption, match="use save_prompt"):
        make(sst2, method).save_model(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("options", [{"method": "ft"}, {"method": "ptv1", "tune_backbone": True}], ids=["ft", "tuned"])
def test_a_tuned_encoder_is_never_swapped_for_another(options, sst2, tmp_path):
    """A head or prompt trained along with an encoder means nothing on the encoder as it was."""
    model = make(sst2, **options)
    optimize(model, sst2.rows["train"])
    model.save_model(tmp_path / "m")
    rows = sst2.rows["train"][:4]
    assert pt.load_prompt(tmp_path / "m").name == "tiny"
    try:
        loaded = pt.load_prompt(tmp_path / "m", backbone="tiny")
    except PromptMismatch as error:
        assert "tiny" in str(error)
        return
    assert same(logits_of(loaded, rows), logits_of(model, rows))


@pytest.mark.parametrize("options", [{"method": "ft"}, {"method": "bitfit"}, {"method": "lora"}], ids=str)
def test_an_encoder_that_was_changed_in_place_does_not_pass_for_the_old_one(options, sst2, tmp_path):
    """One `Backbone` in a loop over methods: what is trained on it next must not be saved as if the encoder were untouched."""
    backbone = load_backbone("tiny", masked_lm=True)
    optimize(make(sst2, backbone=backbone, **options), sst2.rows["train"])
    rows = sst2.rows["train"][:4]
    try:
        model = make(sst2, "pt2", backbone, prompt_length=3)
        model.save_prompt(tmp_path / "p")
        loaded = pt.load_prompt(tmp_path / "p")
    except PtvError:
        return
    assert same(logits_of(loaded, rows), logits_of(model, rows))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"verbalizer": {"negative": "unheardof", "positive": "good"}}),
        ("lora", {"layout": "pair"}),
        ("lora", {"lora_rank": 10**12}),
        ("ft", {"verbalizer": {"negative": "unheardof", "positive": "good"}}),
        ("ft", {"head": "verbalizer", "calibration": "train"}),
    ],
    ids=str,
)
def test_a_build_that_fails_leaves_the_encoder_as_it_was(method, options, sst2, tmp_path):
    backbone = load_backbone("tiny", masked_lm=True)
    before = {name: value.clone() for name, value in backbone.encoder.state_dict().items()}
    # Calibration looks at training texts, which a bare name has none of.
    task = "sst2" if options.get("calibration") else sst2
    with pytest.raises(PtvError) as error:
        make(task, method, backbone, **options)
    assert one_sentence(error)
    after = backbone.encoder.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert not is_attached(backbone.encoder), "nor is it attached"
    model = make(sst2, "pt2", backbone, prompt_length=3)
    closed = set(model.trainable())
    with pytest.raises(PtvError):
        make(task, method, backbone, **options)
    assert set(model.trainable()) == closed, "another model's frozen encoder stays closed"
    assert is_attached(backbone.encoder), "and attached"
    model.save_prompt(tmp_path / "p")
    assert make(sst2, "ft", backbone, head="linear").save_model(tmp_path / "ft")
    rows = sst2.rows["train"][:4]
    assert pt.load_prompt(tmp_path / "ft").predict(rows)


def test_a_damaged_lora_leaves_the_encoder_without_its_matrices(sst2, tmp_path):
    make(sst2, "lora").save_prompt(tmp_path / "p")
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "p" / "prompt.safetensors")
    backbone = load_backbone("tiny")
    with pytest.raises(PromptMismatch):
        pt.load_prompt(tmp_path / "p", backbone=backbone)
    assert not any(".lora_" in name for name in backbone.encoder.state_dict())
    assert make(sst2, "pt2", backbone, prompt_length=3)


def test_a_damaged_bitfit_changes_no_bias_of_a_shared_encoder(sst2, tmp_path):
    model = make(sst2, "bitfit")
    optimize(model, sst2.rows["train"])
    file = model.save_prompt(tmp_path / "p") / "prompt.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"head.linear.weight": torch.zeros(5, 5)}, file)
    backbone = load_backbone("tiny")
    before = {name: value.clone() for name, value in backbone.encoder.state_dict().items()}
    with pytest.raises(PromptMismatch, match="'head.linear.weight' is .5, 5., not") as error:
        pt.load_prompt(tmp_path / "p", backbone=backbone)
    assert one_sentence(error)
    assert all(torch.equal(value, before[name]) for name, value in backbone.encoder.state_dict().items())
    assert all(weight.requires_grad for weight in backbone.encoder.parameters()), "as it was loaded"


def test_a_second_lora_on_one_backbone_is_refused(sst2, tmp_path):
    backbone = load_backbone("tiny")
    model = make(sst2, "lora", backbone)
    optimize(model, sst2.rows["train"])
    model.save_prompt(tmp_path / "p")
    for again in (lambda: pt.load_prompt(tmp_path / "p", backbone=backbone), lambda: make(sst2, "lora", backbone)):
        with pytest.raises(BadOption, match="'lora' trains the encoder") as error:
            again()
        assert one_sentence(error)


@pytest.mark.parametrize("name", ["pt vocabulary", "ptv1", "lora", "bitfit", "discrete train", "pt2 verbalizer"])
def test_the_seed_decides_and_the_random_state_outside_stays(name, sst2):
    _, method, options, *_ = VARIANTS[name]
    state = torch.get_rng_state()
    built = [make(sst2, method, seed=seed, **options) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    one, two, other = (model.state_dict() for model in built)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    fresh = set(built[0].trainable()) - BIASES
    if fresh:
        assert any(not torch.equal(one[key], other[key]) for key in fresh)


# Where prompts start


def test_vectors_start_from_words_of_the_vocabulary_each_once(sst2):
    model = make(sst2, "pt", prompt_length=9, init="vocabulary")
    table = model.backbone.get_input_embeddings().weight
    names = {number: piece for piece, number in model.tokenizer.get_vocab().items()}
    found = []
    for vector in model.prompt.vectors:
        (number,) = (table == vector).all(1).nonzero()[0].tolist()
        found.append(names[number])
    assert len(set(found)) == 9 and all(piece.isalpha() for piece in found)


def test_vectors_start_from_the_labels_words_in_turn(sst2):
    model = make(sst2, "pt", prompt_length=6, init="labels", head="verbalizer")
    table = model.backbone.get_input_embeddings().weight
    numbers = model.tokenizer.convert_tokens_to_ids(["terrible", "bad", "great", "good"])
    assert torch.equal(model.prompt.vectors, table[[*numbers, *numbers[:2]]])


def test_without_a_verbalizer_the_labels_names_start_the_vectors(sst2):
    model = make(sst2, "pt", prompt_length=10, init="labels")
    table = model.backbone.get_input_embeddings().weight
    numbers = model.tokenizer("negative positive", add_special_tokens=False)["input_ids"][:10]
    assert torch.equal(model.prompt.vectors, table[numbers])


def test_normal_vectors_are_narrow_and_those_a_network_reads_are_not(sst2):
    assert 0.015 < make(sst2, "pt", prompt_length=64).prompt.vectors.std() < 0.025
    assert 0.9 < make(sst2, "ptv1", head="linear", prompt_length=64).prompt.vectors.std() < 1.1


def test_vectors_that_the_lstm_computes_depend_on_their_neighbours():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prompts = {kind: SoftPrompt(17, 5, reparameterization=kind) for kind in ("lstm", "mlp")}
    for kind, prompt in prompts.items():
        before = prompt.folded()
        with torch.no_grad():
            prompt.vectors[4] += 1
        moved = (prompt.folded() - before).abs().amax(1) > 1e-6
        assert moved.tolist() == ([True] * 5 if kind == "lstm" else [False] * 4 + [True])


# Where vectors stand


@pytest.mark.parametrize("kind", FAMILIES)
def test_vectors_in_slots_are_word_embeddings_replaced_by_hand(kind):
    encoder, plain = build(kind), build(kind)
    attach(encoder)
    width = encoder.get_input_embeddings().embedding_dim
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prompt = SoftPrompt(width, 3)
    torch.nn.init.normal_(prompt.vectors)
    lengths = [9, 5]
    batch = batch_of(kind, lengths, 9)
    slots = torch.tensor([[0, 2, 0, 0, 1, 0, 0, 0, 3], [0, 1, 2, 3, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        found = prompt.encode(encoder, **batch, slots=slots)
        for row, length in enumerate(lengths):
            ids = batch["input_ids"][row : row + 1, :length]
            words = plain.get_input_embeddings()(ids).clone()
            for place, slot in enumerate(slots[row, :length].tolist()):
                if slot:
                    words[0, place] = prompt.vectors[slot - 1]
            wanted = plain(inputs_embeds=words, attention_mask=torch.ones_like(ids))[0][0]
            close(found[row, :length], wanted)
    prompt.encode(encoder, **batch, slots=slots).square().sum().backward()
    assert (prompt.vectors.grad.abs().amax(1) > 0).all()


def test_a_template_puts_each_vector_in_its_own_slot(sst2):
    """Through the whole path: template, batch, model, against word embeddings replaced by hand."""
    model = make(sst2, "ptv1", template=SOFT, reparameterization="mlp")
    plain = load_backbone("tiny", masked_lm=True).masked_lm
    vectors = model.prompt.folded()
    rows = sst2.rows["train"][:3]
    for row, scores in zip(rows, logits_of(model, rows), strict=True):
        ids = model.tokenizer(f"[MASK][MASK] {row['sentence']} [MASK][MASK][MASK] It was [MASK].")["input_ids"]
        masks = [place for place, piece in enumerate(ids) if piece == model.tokenizer.mask_token_id]
        words = plain.get_input_embeddings()(torch.tensor([ids])).clone()
        words[0, masks[:5]] = vectors
        with torch.no_grad():
            chances = plain(inputs_embeds=words).logits[0, masks[5]].softmax(-1)
        of_label = [
            chances[model.tokenizer.convert_tokens_to_ids(list(group))].mean().log()
            for group in (("terrible", "bad"), ("great", "good"))
        ]
        close(torch.from_numpy(scores), torch.stack(of_label))


# Company and padding

COMPANY = {
    "tiny": ("discrete", "pt verbalizer", "ptv1", "ptv1 linear", "pt2 verbalizer", "lora", "bitfit", "ptv1 squad"),
    "roberta": ("ptv1",),
    "modernbert": ("ptv1", "pt2 verbalizer"),
    "deberta-v2": ("ptv1",),
    "mpnet": ("discrete",),
    "albert": ("lora verbalizer",),
    "qwen3": ("ptv1 linear", "lora"),
}
CASES = [(kind, name, "right") for kind, names in COMPANY.items() for name in names]
CASES += [("modernbert", "ptv1", "left"), ("roberta", "ptv1", "left"), ("qwen3", "ptv1 linear", "left")]


@pytest.fixture(scope="module")
def companies(tasks):
    """Every case's model, with weights that matter."""
    found = {}
    for kind, name, side in CASES:
        of_task, method, options, *_ = VARIANTS[name]
        options = dict(options)
        if kind == "tiny":
            model = make(tasks[of_task], method, **options)
        else:
            backbone = backbone_of(kind, masked=kind in FILLING)
            if "linear" not in name and name != "lora":
                options["verbalizer"] = verbalizer_of(backbone.tokenizer)
            model = make(tasks[of_task], method, backbone, **options)
        model.tokenizer.padding_side = side
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in model.trainable().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        found[kind, name, side] = model.eval()
    return found


@pytest.mark.parametrize("case", CASES, ids="-".join)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), count=st.integers(2, 4))
def test_padding_and_company_change_no_score(companies, case, seed, count):
    model = companies[case]
    if case[1].endswith("squad"):
        rows = [model.family.prepare(answered(text, 0)) for text in texts(count, seed)]
    else:
        rows = sentences(count, seed)
    encoded = inputs_of(model, rows)
    together = dict(model.logits(encoded, batch_size=count))
    for number, one in enumerate(encoded):
        ((_, alone),) = model.logits([one])
        np.testing.assert_allclose(together[number], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["ptv1", "pt verbalizer", "lora", "bitfit"])
def test_checkpointing_gives_the_same_gradients(name, sst2):
    _, method, options, *_ = VARIANTS[name]
    found = []
    for checkpointed in (False, True):
        model = make(
            sst2, method, backbone_dropout=0.0, head_dropout=0.0, gradient_checkpointing=checkpointed, **options
        )
        optimize(model, sst2.rows["train"][:4], 1)
        found.append({name: parameter.grad for name, parameter in model.trainable().items()})
    for name, gradient in found[0].items():
        close(found[1][name], gradient, 1e-6)


# Discrete prompts


def by_hand(model, rows):
    """Scores of the labels without any prior, from the whole masked language model."""
    plain = load_backbone("tiny", masked_lm=True).masked_lm
    found = []
    for row in rows:
        ids = torch.tensor([model.tokenizer(f"{row['sentence']} It was [MASK].")["input_ids"]])
        gap = ids[0].tolist().index(model.tokenizer.mask_token_id)
        with torch.no_grad():
            chances = plain(input_ids=ids).logits[0, gap].softmax(-1)
        groups = (("terrible", "bad"), ("great", "good"))
        pieces = [model.tokenizer.convert_tokens_to_ids(list(group)) for group in groups]
        found.append(torch.stack([chances[group].mean().log() for group in pieces]))
    return torch.stack(found)


def test_the_prior_is_that_of_the_empty_template(sst2):
    model = make(sst2, "discrete", template=CLOZE)
    assert model.options.calibration == "empty"
    prior = by_hand(model, [{"sentence": ""}])[0]
    close(model.head.prior, prior)
    rows = sst2.rows["train"][:5]
    close(torch.tensor(np.array(logits_of(model, rows))), by_hand(model, rows) - prior)


def test_the_prior_is_the_mean_over_training_texts(sst2, monkeypatch):
    model = make(sst2, "discrete", template=CLOZE, calibration="train")
    close(model.head.prior, by_hand(model, sst2.rows["train"]).mean(0))
    monkeypatch.setattr("ptv2lib.building.CALIBRATED_ON", 4)
    model = make(sst2, "discrete", template=CLOZE, calibration="train")
    close(model.head.prior, by_hand(model, sst2.rows["train"][:4]).mean(0))


def test_calibrating_twice_is_calibrating_once(sst2):
    model = make(sst2, "discrete", template=CLOZE, calibration="train")
    prior = model.head.prior.clone()
    model.calibrate(sst2.split().train)
    assert torch.equal(model.head.prior, prior)


def test_calibration_does_not_look_at_labels(sst2):
    turned = [row | {"label": 1 - row["label"]} for row in sst2.rows["train"]]
    missing = [row | {"label": -1} for row in sst2.rows["train"]]
    priors = []
    for rows in (sst2.rows["train"], turned, missing):
        task = replace(sst2, rows=sst2.rows | {"train": rows})
        priors.append(make(task, "discrete", calibration="train").head.prior)
    assert torch.equal(priors[0], priors[1]) and torch.equal(priors[0], priors[2])


def test_calibrating_says_what_it_needs(sst2):
    for model, rows in ((make(sst2, "probe"), sst2.rows["train"]), (make(sst2, "discrete"), [])):
        with pytest.raises(BadOption) as error:
            model.calibrate(rows)
        assert one_sentence(error)


@pytest.mark.parametrize("name", [name for name, family in TASKS.items() if getattr(family, "templates", ())])
def test_every_templated_task_of_the_miniature_suite_can_be_asked(name):
    task = pt.load_task(name, source="miniature")
    rows = task.rows["validation"][:2]
    for method in ("discrete", "ptv1"):
        model = make(task, method)
        predicted = model.decode(model.encode(rows), rows)
        assert all(label in range(len(task.family.labels)) for label in predicted)
        for (one,) in model.encode(rows):
            assert one.inputs["marks"].sum() == 1 and len(one) <= model.max_length


def test_templates_compared_are_templates_scored_singly(sst2):
    templates = ["A {mask} film: {sentence}", CLOZE]
    for split in ("validation", "test"):
        rows = sst2.rows[split]
        gold = [row["label"] for row in rows]
        found = compare_templates(sst2, templates, backbone="tiny", split=split)
        assert [one["template"] for one in found] == templates
        for one in found:
            for calibration in ("raw", "empty", "train"):
                chosen = {} if calibration == "raw" else {"calibration": calibration}
                model = make(sst2, "discrete", template=one["template"], **chosen)
                if calibration == "raw":
                    model.head.prior.zero_()
                predicted = model.decode(model.encode(rows), rows)
                assert one[calibration] == model.family.score(predicted, rows)["accuracy"]
                assert one[calibration] == np.mean([a == b for a, b in zip(predicted, gold, strict=True)])
    default = compare_templates(sst2, backbone="tiny")
    assert [one["template"] for one in default] == list(sst2.family.templates)
    words = {"negative": "great", "positive": "terrible"}
    turned = compare_templates(sst2, [CLOZE], words, backbone="tiny")[0]["raw"]
    straight = compare_templates(
        sst2, [CLOZE], {"negative": "terrible", "positive": "great"}, backbone=load_backbone("tiny", masked_lm=True)
    )[0]["raw"]
    assert turned == pytest.approx(1 - straight)


def test_comparing_on_a_task_that_has_no_templates_is_one_sentence(tasks):
    bare = replace(tasks["sst2"], family=Classification("mood", ("sentence",), ("negative", "positive")))
    for task in (tasks["conll04"], bare):
        with pytest.raises(BadOption) as error:
            compare_templates(task, backbone="tiny")
        assert one_sentence(error)
    with pytest.raises(BadOption, match="no labelled rows") as error:
        compare_templates(tasks["sst2"], [CLOZE], backbone="tiny", split="train")
    assert one_sentence(error)
    with pytest.raises(NoMaskedLM):
        compare_templates(tasks["sst2"], [CLOZE], backbone=load_backbone("tiny"))


# The store of inputs


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A store of its own that keeps even a single row."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("ptv2lib.encoding.STORED_FROM", 1)
    return tmp_path / "cache" / "ptv2lib"


def test_stored_templates_come_back_with_gap_and_slots(sst2, store):
    rows = sst2.rows["train"]
    for number, pattern in enumerate((SOFT, "{soft:5} {sentence} It was {mask}.", "{mask} {sentence} {soft:5}"), 1):
        model = make(sst2, "pt", template=pattern, head="verbalizer")
        made, first, again = model.encode(rows), model.encode(rows, store=True), model.encode(rows, store=True)
        assert len(list(store.iterdir())) == number
        for one, two, three in zip(inputs_of(model, rows), sum(first, []), sum(again, []), strict=True):
            assert set(one.inputs) == {"input_ids", "token_type_ids", "marks", "slots"}
            for name, array in one.inputs.items():
                assert np.array_equal(array, two.inputs[name]) and np.array_equal(array, three.inputs[name])
        assert [len(row) for row in made] == [1] * len(rows)


def test_a_change_in_how_templates_are_read_makes_stored_inputs_stale(sst2, store, monkeypatch):
    """The key holds the source of every module that decides on the pieces, and the versions of what cuts them."""
    own, model = Path.read_bytes, make(sst2, "discrete")

    def entries():
        model.encode(sst2.rows["train"], store=True)
        return len(list(store.iterdir()))

    assert [entries(), entries()] == [1, 1]
    for number, name in enumerate(["encoding.py", "classification.py", "templates.py", "metrics.py", "model.py"], 2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path, name=name: own(path) + b"#" * (path.name == name))
            assert entries() == number
    for library in ("tokenizers", "transformers"):
        with monkeypatch.context() as patch:
            patch.setattr(f"{library}.__version__", "another")
            assert entries() == number + 1
        number += 1
    assert entries() == number  # the first one still serves


def test_a_tokenizer_that_is_set_another_way_makes_stored_inputs_anew(sst2, store):
    rows = [row | {"sentence": "a film that no one would want to see again"} for row in sst2.rows["train"]]

    def ids(side, names, keep):
        model = make(sst2, "pt2", prompt_length=3)
        model.max_length = 12
        model.tokenizer.truncation_side, model.tokenizer.model_input_names = side, names
        return [{name: part.tolist() for name, part in one.inputs.items()} for (one,) in model.encode(rows, store=keep)]

    names = ["input_ids", "token_type_ids", "attention_mask"]
    for side, shown in (("right", names), ("left", names), ("left", names[::2])):
        assert ids(side, shown, True) == ids(side, shown, False) == ids(side, shown, True)
    assert len(list(store.iterdir())) == 3


# LoRA and BitFit

ATTENTION_LINEARS = (
    dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie"), ("query", "key", "value"))
    | dict.fromkeys(("eurobert", "glm", "glm4", "llama", "qwen3"), ("q_proj", "k_proj", "v_proj", "o_proj"))
    | {
        "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin"),
        "albert": ("attention.query", "attention.key", "attention.value", "attention.dense"),
        "mpnet": ("attn.q", "attn.k", "attn.v", "attn.o"),
        "deberta": ("in_proj", "pos_proj", "pos_q_proj"),
        "deberta-v2": ("query_proj", "key_proj", "value_proj"),
        "modernbert": ("attn.Wqkv", "attn.Wo"),
        "t5": ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o"),
    }
)


@pytest.mark.parametrize("kind", FAMILIES)
def test_lora_equals_peft_on_the_same_layers(kind):
    peft = pytest.importorskip("peft")
    ours, untouched = build(kind), build(kind)
    rank = 3
    with low_rank(ours, rank, 7):
        pass  # they stay where nothing fails
    batch = batch_of(kind, [8, 8], 8)
    with torch.no_grad():
        assert torch.equal(ours(**batch)[0], untouched(**batch)[0])  # the second matrix is zero
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(ATTENTION_LINEARS[kind]))
    theirs = peft.get_peft_model(build(kind), config).eval()
    own = {name: value for name, value in ours.state_dict().items() if ".lora_" in name}
    for name, value in own.items():
        value.copy_(0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    other = {name.removeprefix("base_model.model."): value for name, value in theirs.state_dict().items()}
    assert {name for name in other if ".lora_" in name} == set(own)
    for name, value in own.items():
        other[name].copy_(value)
    with torch.no_grad():
        wanted = theirs(**batch)[0]
        assert torch.equal(ours(**batch)[0], wanted)
        assert (wanted - untouched(**batch)[0]).abs().max() > 1e-3
        attach(ours)
        close(ours(**batch)[0], wanted)
    base = {name.replace(".base_layer", ""): value for name, value in ours.state_dict().items() if name not in own}
    assert set(base) == set(untouched.state_dict())
    assert all(torch.equal(base[name], value) for name, value in untouched.state_dict().items())


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "modernbert", "qwen3", "deberta-v2", "albert", "deberta"])
def test_lora_trains_and_comes_back_on_other_families(kind, sst2, tmp_path):
    def fresh():
        return backbone_of(kind, masked=False)

    model = make(sst2, "lora", fresh(), lora_rank=2)
    before = weights(model.backbone)
    optimize(model, sst2.rows["train"][:8])
    after = model.backbone.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {name for name in before if ".lora_" in name}
    model.save_prompt(tmp_path / "p")
    loaded = pt.load_prompt(tmp_path / "p", backbone=fresh())
    rows = sst2.rows["train"]
    assert same(logits_of(loaded, rows), logits_of(model, rows))
    optimize(loaded, rows[:8], 1)
    assert all(parameter.grad.abs().max() > 0 for parameter in loaded.trainable().values())


@pytest.mark.parametrize("kind", FAMILIES)
def test_bitfit_trains_every_bias_and_refuses_an_encoder_without_any(kind, sst2):
    backbone = backbone_of(kind, masked=False)
    biases = {name for name, _ in backbone.encoder.named_parameters() if name.rsplit(".")[-1].endswith("bias")}
    if not biases:
        with pytest.raises(BadOption, match="bias") as error:
            make(sst2, "bitfit", backbone)
        assert one_sentence(error)
        return
    model = make(sst2, "bitfit", backbone)
    assert {name for name in model.trainable() if not name.startswith("head.")} == {f"backbone.{n}" for n in biases}


# Tasks of one's own


def test_a_task_of_ones_own_with_templates_and_words(tmp_path):
    rows = [{"remark": text, "label": ["sad", "glad"][i % 2]} for i, text in enumerate(texts(12))]
    mood = Classification(
        "mood",
        ("remark",),
        ("sad", "glad"),
        templates=("{remark} How {mask}!", "{mask}: {remark}"),
        soft_template="{soft:2} {remark} {soft} {mask}",
        words={"sad": ("bad", "terrible"), "glad": "great"},
    )
    task = pt.load_task(mood, dataset=folder(tmp_path / "data", train=rows, validation=rows[:4], test=rows[4:8]))
    for method in ("discrete", "ptv1"):
        model = make(task, method)
        if method == "ptv1":
            assert model.prompt.length == 3 and model.template.text == mood.soft_template
            optimize(model, task.rows["train"])
        model.save_prompt(tmp_path / method)
        loaded = pt.load_prompt(tmp_path / method)
        assert loaded.family.templates == mood.templates and loaded.family.soft_template == mood.soft_template
        assert same(logits_of(loaded, task.rows["train"]), logits_of(model, task.rows["train"]))
        example = {"remark": "the mill was lost"}
        assert loaded.predict([example]) == model.predict([example])
        assert model.predict([example])[0]["label"] in ("sad", "glad")
    assert [one["template"] for one in compare_templates(task, backbone="tiny")] == list(mood.templates)


def test_a_bare_task_takes_template_and_words_as_options(sst2, tmp_path):
    """A task without templates of its own, as the message of the library advises."""
    bare = replace(sst2, family=Classification("mood", ("sentence",), ("negative", "positive")))
    words = {"negative": "bad", "positive": "good"}
    for method in ("discrete", "pt", "ptv1", "pt2"):
        template = SOFT if method == "ptv1" else CLOZE
        model = make(bare, method, template=template, verbalizer=words)
        assert model.template.text == template and type(model.head).__name__ == "VerbalizerHead"
        model.save_prompt(tmp_path / method)
        rows = sst2.rows["train"][:3]
        assert same(logits_of(pt.load_prompt(tmp_path / method), rows), logits_of(model, rows))


def test_a_task_with_one_text_for_templates_is_refused():
    with pytest.raises(BadOption, match="templates='{a} {mask}' of the task 'mood' must be several texts") as error:
        Classification("mood", ("a",), ("sad", "glad"), templates="{a} {mask}")
    assert one_sentence(error)


# Methods that fall back, and methods that refuse


def test_p_tuning_without_gaps_to_fill_puts_its_vectors_before_the_input(sst2, tmp_path):
    build("qwen3").config.save_pretrained(tmp_path)
    encoder = build("qwen3", vocab_size=360)
    encoder.save_pretrained(tmp_path / "m")
    tokenizer_of("qwen3").save_pretrained(tmp_path / "m")
    for backbone in (str(tmp_path / "m"), backbone_of("bert", masked=False)):
        model = make(sst2, "ptv1", backbone, prompt_length=4)
        assert model.template is None and model.prompt.length == 4 and not model.prompt.is_folded
        optimize(model, sst2.rows["train"][:8], 1)
        assert model.prompt.vectors.grad.abs().max() > 0


SOFT_PT2 = {"method": "pt2", "template": SOFT}
BAD = {
    "a word of several pieces": (
        {"method": "discrete", "verbalizer": {"negative": "terribly", "positive": "good"}},
        "word 'terribly' is 8 pieces to this tokenizer; the nearest single one is 'terrible'",
    ),
    "an unknown word": (
        {"method": "pt2", "verbalizer": {"negative": "日本", "positive": "good"}},
        "word '日本' is unknown to this tokenizer",
    ),
    "no gap": ({"method": "discrete", "template": "{sentence} It was good."}, r"has no \{mask\}, which a verbalizer"),
    "no gap for p-tuning": ({"method": "ptv1", "template": "{soft:3} {sentence}"}, r"has no \{mask\}"),
    "an unknown column": (
        {"method": "ptv1", "template": "{soft} {text} {mask}"},
        "asks for the column 'text'; there are sentence",
    ),
    "an unknown column without a verbalizer": (
        {"method": "probe", "template": "{premise}"},
        "asks for the column 'premise'; there are sentence",
    ),
    "braces": ({"method": "discrete", "template": "{sentence"}, "braces do not match"),
    "an empty template": ({"method": "probe", "template": ""}, "holds no column"),
    "gate with pt": ({"method": "pt", "gate": "zero"}, "gate='zero' belongs to deep prompts, and 'pt' has none"),
    "layer gate with ptv1": ({"method": "ptv1", "gate": "layer"}, "belongs to deep prompts, and 'ptv1' has none"),
    "gate with lora": ({"method": "lora", "gate": "zero"}, "belongs to deep prompts, and 'lora' has none"),
    "length with probe": ({"method": "probe", "prompt_length": 8}, "belongs to deep prompts or prompts at the input"),
    "layers with pt": ({"method": "pt", "layers": "1-2"}, "layers='1-2' belongs to deep prompts, and 'pt' has none"),
    "dropout with ft": ({"method": "ft", "prefix_dropout": 0.1}, "prefix_dropout=0.1 belongs to deep prompts"),
    "shift with lora": ({"method": "lora", "position_offset": "shift"}, "'lora' has none"),
    "rank with pt2": ({"method": "pt2", "lora_rank": 4}, "lora_rank=4 belongs to LoRA"),
    "residual with pt": ({"method": "pt", "reparameterization": "residual"}, "belongs to deep prompts"),
    "lstm with pt2": ({"method": "pt2", "reparameterization": "lstm"}, "belongs to prompts at the input"),
    "mlp with bitfit": ({"method": "bitfit", "reparameterization": "mlp"}, "and 'bitfit' has none"),
    "activations with pt": ({"method": "pt", "init": "activations"}, "belongs to deep prompts"),
    "labels with pt2": ({"method": "pt2", "init": "labels"}, "belongs to prompts at the input"),
    "vocabulary with discrete": ({"method": "discrete", "init": "vocabulary"}, "and 'discrete' has none"),
    "labels with ptv1": (
        {"method": "ptv1", "init": "labels"},
        "init='labels' sets the vectors directly and so excludes reparameterization='lstm'",
    ),
    "vocabulary with an mlp": ({"method": "pt", "init": "vocabulary", "reparameterization": "mlp"}, "excludes"),
    "template with layout": ({"method": "pt2", "template": CLOZE, "layout": "pair"}, "leave layout= out"),
    "soft slots with pt2": (SOFT_PT2, r"has \{soft\} slots, which only pt and ptv1 fill"),
    "soft slots with discrete": ({"method": "discrete", "template": SOFT}, "which only pt and ptv1 fill"),
    "soft slots with lora": ({"method": "lora", "template": SOFT}, "which only pt and ptv1 fill"),
    "another length than slots": (
        {"method": "ptv1", "template": SOFT, "prompt_length": 4},
        "prompt_length=4, and the template .* has 5 slots",
    ),
    "verbalizer with a linear head": (
        {"method": "pt", "head": "linear", "verbalizer": {"negative": "bad", "positive": "good"}},
        "need head='verbalizer'",
    ),
    "calibration with a linear head": ({"method": "pt", "head": "linear", "calibration": "empty"}, "head='verbalizer'"),
    "discrete with a linear head": (
        {"method": "discrete", "head": "linear"},
        "Discrete prompts, .* need head='verbalizer', not 'linear'",
    ),
    "verbalizer that is a word": ({"method": "discrete", "verbalizer": "good"}, "a mapping of labels to words"),
    "a verbalizer without words": ({"method": "pt2", "verbalizer": {}}, "no word|needs words"),
    "verbalizer with a number": (
        {"method": "discrete", "verbalizer": {"negative": 3, "positive": "good"}},
        "no word for the label 'negative'|must",
    ),
    "one piece for two labels": (
        {"method": "discrete", "verbalizer": {"negative": "Good", "positive": "good"}},
        "[Gg]ood",
    ),
    "an unknown head": ({"method": "pt", "head": "verbaliser"}, "did you mean 'verbalizer'"),
    "an unknown calibration": ({"method": "discrete", "calibration": "trian"}, "did you mean 'train'"),
    "a rank of zero": ({"method": "lora", "lora_rank": 0}, "lora_rank=0 must be at least 1"),
    "a template longer than a text may be": (
        {"method": "discrete", "template": "{sentence} " + "and so on " * 60 + "{mask}"},
        "leaves no room for its text in 256 pieces",
    ),
    "nothing to train": ({"method": "probe", "head": "verbalizer"}, "A verbalizer has nothing to train"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, sst2):
    options, words = BAD[name]
    with pytest.raises((BadOption, UnknownName), match=words) as error:
        make(sst2, **options)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("conll04", {"method": "pt2", "head": "verbalizer"}, "one label per text, and 'conll04' is not one"),
        ("conll04", {"method": "pt2", "verbalizer": {"O": "good"}}, "one label per text, and 'conll04' is not one"),
        ("conll04", {"method": "ptv1", "template": "{tokens} {mask}"}, "one label per text, and 'conll04' is not one"),
        ("conll04", {"method": "pt2", "calibration": "empty"}, "one label per text, and 'conll04' is not one"),
        ("conll04", {"method": "discrete"}, "one label per text, and 'conll04' is not one"),
        ("squad", {"method": "discrete"}, "one label per text, and 'squad' is not one"),
        ("copa", {"method": "ptv1", "head": "verbalizer"}, "one label per text, and 'copa' is not one"),
    ],
)
def test_tasks_that_are_no_classification_say_that_they_have_no_verbalizer(name, options, words, tasks):
    with pytest.raises(BadOption, match=words) as error:
        make(tasks[name], **options)
    assert one_sentence(error)


def test_a_classification_without_words_says_what_to_give(sst2):
    bare = replace(sst2, family=Classification("mood", ("sentence",), ("negative", "positive")))
    half = replace(sst2, family=Classification("mood", ("sentence",), ("negative", "positive"), templates=(CLOZE,)))
    for task in (bare, half):
        for options in ({"method": "discrete"}, {"method": "pt2", "head": "verbalizer"}):
            with pytest.raises(BadOption, match="'mood' has none of its own: give template= and verbalizer=") as error:
                make(task, **options)
            assert one_sentence(error)
        assert make(task, "ptv1", prompt_length=3).template is None  # a linear head needs no words


def test_a_template_does_not_go_along_to_a_task_without_its_columns(sst2):
    model = make(sst2, "mpt2", template="So: {sentence}", prompt_length=2)
    with pytest.raises(BadOption, match="asks for the column 'sentence'") as error:
        model.for_task(TASKS["rte"])
    assert one_sentence(error)


def test_calibrating_on_training_texts_needs_them():
    with pytest.raises(BadOption, match="calibration='train' needs a loaded task") as error:
        make("sst2", "discrete", calibration="train")
    assert one_sentence(error)


def test_a_backbone_without_its_masked_lm_head_is_named(sst2):
    for options in ({"method": "discrete"}, {"method": "pt2", "head": "verbalizer"}):
        with pytest.raises(NoMaskedLM, match=r"load_backbone\('tiny', masked_lm=True\)") as error:
            make(sst2, backbone=load_backbone("tiny"), **options)
        assert one_sentence(error)


def test_without_peft_or_with_an_old_one_lora_is_one_sentence(sst2, monkeypatch):
    old = types.ModuleType("peft")
    old.LoraConfig = object
    for module in (None, old):
        monkeypatch.setitem(sys.modules, "peft", module)
        with pytest.raises(BadOption, match="'lora' needs PEFT") as error:
            make(sst2, "lora")
        assert one_sentence(error)
    extra = re.search(r"ptv2lib\[(\w+)\]", str(error.value))[1]
    project = tomllib.loads((Path(pt.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert any(one.startswith("peft") for one in project["optional-dependencies"].get(extra, ()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": "verbalizer"}, "head='verbalizer' belongs to one task"),
        ({"verbalizer": {"negative": "bad", "positive": "good"}}, "verbalizer=.* belongs to one task"),
        ({"calibration": "empty"}, "calibration='empty' belongs to one task"),
    ],
)
def test_several_tasks_have_no_verbalizer_in_common(options, words, sst2):
    with pytest.raises(BadOption, match=words) as error:
        make(sst2, "mpt2", **options)
    assert one_sentence(error)


def test_networks_that_memory_cannot_take_are_refused(sst2):
    for kind in ("mlp", "residual"):
        with pytest.raises(BadOption, match="reparameterization_hidden=10000000000 needs .* GiB") as error:
            make(sst2, "pt2", reparameterization=kind, reparameterization_hidden=10**10)
        assert one_sentence(error)


def test_a_folder_may_be_a_path_everywhere(sst2, tmp_path):
    backbone = load_backbone("tiny", masked_lm=True)
    place = tmp_path / "tiny"
    backbone.masked_lm.save_pretrained(place)
    backbone.tokenizer.save_pretrained(place)
    model = pt.build_model(sst2, backbone=place, method="pt2", prompt_length=3)
    model.save_prompt(tmp_path / "p")
    rows = sst2.rows["train"][:2]
    assert pt.load_prompt(tmp_path / "p", backbone=place).predict(rows) == model.predict(rows)
    assert compare_templates(sst2, [CLOZE], {"negative": "bad", "positive": "good"}, backbone=place)


def test_threads_that_share_a_tokenizer_get_what_they_would_get_alone(sst2):
    backbone = load_backbone("tiny")
    models = [make(sst2, "probe", backbone) for _ in range(2)]
    models[1].max_length = 16
    rows = [{"sentence": "word " * 200, "label": -1}, {"sentence": "a", "label": -1}]

    def lengths(number):
        return {tuple(len(one[0]) for one in models[number % 2].encode(rows)) for _ in range(150)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lengths, range(4)))
    assert found == [{(256, 3)}, {(16, 3)}] * 2


def test_saved_options_are_plain_values(sst2, tmp_path):
    model = make(sst2, "ptv1", verbalizer={"negative": ("bad", "terrible"), "positive": "great"})
    model.save_prompt(tmp_path / "p")
    saved = json.loads((tmp_path / "p" / "prompt.json").read_text())
    assert saved["options"]["verbalizer"] == {"negative": ["bad", "terrible"], "positive": "great"}
    assert saved["options"]["template"] == sst2.family.soft_template and saved["options"]["prompt_length"] == 6
    assert pt.load_prompt(tmp_path / "p").head.pieces == model.head.pieces

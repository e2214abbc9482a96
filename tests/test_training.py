"""A whole run: what is trained, what is kept, what is written (invariants 1, 2, 3, 6, 8)."""

import dataclasses
import itertools
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from test_tasks import SENTENCES, TAGGED, folder

import ptv2lib as pt
from ptv2lib import training
from ptv2lib.backbones import BACKBONES, Backbone, fingerprint
from ptv2lib.encoding import collate
from ptv2lib.errors import BadOption, DataError, NoNetwork, OutputError, PromptMismatch, UnknownName, UnsupportedEncoder
from ptv2lib.heads import SequenceHead
from ptv2lib.methods import METHODS
from ptv2lib.model import TOKENIZING, PromptedModel
from ptv2lib.tasks import find_task
from ptv2lib.templates import Verbalizer
from ptv2lib.training import BESIDE_A_PROMPT, _fits_memory, _groups, batches, choose_precision

QUICK = {"epochs": 2, "batch_size": 8}


@pytest.fixture(params=["sst2", "wikiann"])
def task(request, tmp_path):
    rows = SENTENCES if request.param == "sst2" else TAGGED * 5
    return pt.load_task(
        request.param, dataset=folder(tmp_path / "data", train=rows, validation=rows[:8], test=rows[:6])
    )


@pytest.fixture
def sentences(tmp_path):
    return pt.load_task(
        "sst2", dataset=folder(tmp_path / "data", train=SENTENCES, validation=SENTENCES[:8], test=SENTENCES[:6])
    )


EXAMPLES = {"sst2": {"sentence": "a dull film"}, "wikiann": {"tokens": ["Ann", "met", "Bob"]}}
VARIANTS = [
    ("probe", {}),
    ("pt", {"prompt_length": 3}),
    ("pt2", {"prompt_length": 3}),
    (
        "pt2",
        {
            "prompt_length": 3,
            "layers": [2],
            "reparameterization": "mlp",
            "reparameterization_hidden": 8,
            "position_offset": "shift",
        },
    ),
    ("pt2", {"prompt_length": 3, "init": "activations", "prefix_dropout": 0.2, "prefix_dropout_per_example": True}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_the_backbone_stays_and_the_prompt_comes_back(method, options, task, tmp_path):
    model = pt.build_model(task, backbone="tiny", method=method, **options)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    run = pt.train(model, task, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "run", progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())

    loaded = pt.load_prompt(tmp_path / "run" / "prompt")
    example = [EXAMPLES[task.name]]
    assert loaded.predict(example) == model.predict(example)
    one = next(model.logits(model.encode([model.family.prepare(example[0])])[0]))[1]
    two = next(loaded.logits(loaded.encode([loaded.family.prepare(example[0])])[0]))[1]
    assert (one == two).all()
    assert loaded.trainable_parameters == run.trainable_parameters
    again = pt.train(loaded, task, pt.TrainingConfig(**QUICK), progress=False)
    assert math.isfinite(again.record["history"]["epochs"][-1]["loss"])


def test_what_is_trainable_is_the_prompt_and_the_head(task):
    labels = len(task.family.labels)
    head = {"head.linear.weight", "head.linear.bias"}
    wanted = {
        "probe": (set(), 0),
        "pt": ({"prompt.vectors"}, 3 * 32),
        "pt2": ({"prompt.keys_values"}, 2 * 2 * 32 * 3),
    }
    for method, (names, numbers) in wanted.items():
        options = {"prompt_length": 3} if method != "probe" else {}
        model = pt.build_model(task, backbone="tiny", method=method, **options)
        assert set(model.trainable()) == names | head
        assert model.trainable_parameters == numbers + 32 * labels + labels
    model = pt.build_model(task, backbone="tiny", method="ft")
    assert model.trainable_parameters == sum(p.numel() for p in model.parameters())


def test_fine_tuning_moves_the_encoder_and_comes_back(task, tmp_path):
    model = pt.build_model(task, backbone="tiny", method="ft")
    before = fingerprint(model.backbone, model.tokenizer)
    pt.train(model, task, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "run", progress=False)
    assert fingerprint(model.backbone, model.tokenizer) != before
    loaded = pt.load_prompt(tmp_path / "run" / "model")
    example = [EXAMPLES[task.name]]
    assert loaded.predict(example) == model.predict(example)
    with pytest.raises(BadOption, match="save_model"):
        model.save_prompt(tmp_path / "prompt")


LEARNABLE = [{"sentence": f"{'zz' if i % 2 else 'qq'} {i % 7}", "label": i % 2} for i in range(64)]


def test_a_prompt_learns_something(tmp_path):
    rows = LEARNABLE
    task = pt.load_task("sst2", dataset=folder(tmp_path / "x", train=rows, validation=rows[:16], test=rows[16:32]))
    model = pt.build_model(task, backbone="tiny", method="pt2", prompt_length=4)
    run = pt.train(model, task, pt.TrainingConfig(epochs=15, learning_rate=3e-2), progress=False)
    losses = [line["loss"] for line in run.record["history"]["epochs"]]
    assert losses[-1] < 0.6 * losses[0] and run.metrics["test"]["accuracy"] > 0.9


def test_a_seed_repeats_a_run_and_another_does_not(sentences):
    def losses(seed):
        model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3, seed=seed)
        run = pt.train(model, sentences, pt.TrainingConfig(**QUICK, seed=seed), progress=False)
        return [line["loss"] for line in run.record["history"]["epochs"]]

    assert losses(1) == losses(1) != losses(2)


def test_the_best_epoch_is_kept_and_patience_ends_the_run(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    run = pt.train(model, sentences, pt.TrainingConfig(epochs=30, patience=2, learning_rate=1e-6), progress=False)
    history = run.record["history"]
    assert len(history["epochs"]) == history["best_epoch"] + 2 < 30
    rows = sentences.split().validation
    scored = training.evaluate(model, model.encode(rows), rows)
    assert scored["accuracy"] == max(line["selection"] for line in history["epochs"])


@pytest.fixture(scope="module")
def options():
    return pt.load_task("multirc", source="miniature", train_limit=40)


def test_a_threshold_is_the_best_on_the_rows_that_select_and_stays_with_the_model(options, tmp_path):
    model = pt.build_model(options, backbone="tiny", method="pt2", prompt_length=3)
    config = pt.TrainingConfig(**QUICK, threshold="selection")
    run = pt.train(model, options, config, output_dir=tmp_path / "run", progress=False)
    epochs, split = run.record["history"]["epochs"], options.split()
    scored = training.evaluate(
        model, model.encode(split.validation), split.validation
    )  # with the moved bias, as it is now
    assert scored == pytest.approx(run.metrics["validation"])
    assert scored["f1a"] == pytest.approx(max(line["selection"] for line in epochs))
    # To call every option right is among the choices, so no threshold does worse where it is chosen.
    assert scored["f1a"] >= options.family.majority([], split.validation)["f1a"]
    row = split.test[0]
    loaded = pt.load_prompt(tmp_path / "run" / "prompt", backbone="tiny")
    assert loaded.predict([row]) == model.predict([row])


def test_a_threshold_does_not_change_the_training(options):
    weights = {}
    for threshold in ("fixed", "selection"):
        model = pt.build_model(options, backbone="tiny", method="pt2", prompt_length=3)
        run = pt.train(model, options, pt.TrainingConfig(epochs=1, threshold=threshold), progress=False)
        weights[threshold] = model.trainable()
    (moved,) = [
        name for name, weight in weights["fixed"].items() if not torch.equal(weight, weights["selection"][name])
    ]
    (shift,) = run.record["history"]["epochs"][0]["thresholds"]
    assert moved == "head.linear.bias"
    assert (weights["fixed"][moved] - weights["selection"][moved]).tolist() == pytest.approx([0, shift], abs=1e-6)


def test_the_row_error_of_an_f1_leaves_paragraphs_out(options):
    model = pt.build_model(options, backbone="tiny", method="pt2", prompt_length=3)
    run = pt.train(model, options, pt.TrainingConfig(epochs=1, threshold="selection"), progress=False)
    rows = options.split().test
    predicted = model.decode(model.encode(rows), rows)
    scores = []
    for paragraph in {row["paragraph"] for row in rows}:
        kept = [i for i, row in enumerate(rows) if row["paragraph"] != paragraph]
        scores.append(options.family.score([predicted[i] for i in kept], [rows[i] for i in kept])["f1a"])
    assert len(scores) == 10  # no more than the twenty parts
    assert run.record["standard_error"] == pytest.approx(math.sqrt(9 * np.var(scores)))
    assert 0 < run.record["standard_error"] < 0.1


def test_a_threshold_is_refused_where_nothing_has_one(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    with pytest.raises(BadOption, match="threshold='selection' moves the bias .* 'probe' on 'sst2' has none"):
        pt.train(model, sentences, pt.TrainingConfig(threshold="selection"), progress=False)
    with pytest.raises(UnknownName, match="threshold"):
        pt.TrainingConfig(threshold="best")


def test_the_record_says_what_was_done(sentences, tmp_path):
    from ptv2lib.records import FIELDS, read_record, summarize

    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    run = pt.train(
        model,
        sentences,
        pt.TrainingConfig(**QUICK, max_length=9),
        output_dir=tmp_path / "run",
        name="short",
        progress=False,
    )
    record = read_record(run.record_path)
    assert list(record) == FIELDS
    assert record["inputs"]["max_length"] == 9 and record["inputs"]["cut"]["train"] == 1.0
    assert record["protocol"] == "validation selects, test is scored once"
    assert record["settings"]["fingerprint"] == model.fingerprint
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    assert "a fine film" not in json.dumps(record)
    row = summarize([record, record | {"seed": 1}])[0]
    assert row["seeds"] == 2 and row["deviation"] == 0.0 and row["name"] == "short"


def test_a_folder_with_another_run_is_refused_and_kept(sentences, tmp_path):
    def run(**options):
        model = pt.build_model(sentences, backbone="tiny", method="pt2", **options)
        return pt.train(model, sentences, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "run", progress=False)

    first = run(prompt_length=3).record_path.read_text()
    with pytest.raises(OutputError, match="prompt_length=3, not 4"):
        run(prompt_length=4)
    assert (tmp_path / "run" / "record.json").read_text() == first
    run(prompt_length=3)


def test_a_file_in_the_way_is_refused(sentences, tmp_path):
    (tmp_path / "run").write_text("")
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    with pytest.raises(OutputError, match="cannot be written"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "run", progress=False)


def test_prompts_refuse_what_is_not_theirs(sentences, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    model.save_prompt(tmp_path / "p")
    other = pt.load_backbone("tiny")
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1e-3)
    changed = Backbone("other", None, other.encoder, other.tokenizer, fingerprint(other.encoder, other.tokenizer))
    with pytest.raises(PromptMismatch, match="trained on 'tiny' with fingerprint"):
        pt.load_prompt(tmp_path / "p", backbone=changed)
    meta = json.loads((tmp_path / "p" / "prompt.json").read_text())
    (tmp_path / "p" / "prompt.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(PromptMismatch, match="format 99, newer"):
        pt.load_prompt(tmp_path / "p")
    (tmp_path / "p" / "prompt.json").write_text(json.dumps(meta))
    tensors = tmp_path / "p" / "prompt.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-20])
    with pytest.raises(PromptMismatch, match="damaged or incomplete"):
        pt.load_prompt(tmp_path / "p")
    with pytest.raises(PromptMismatch):
        pt.load_prompt(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"prompt_lenght": 3}, UnknownName, "did you mean 'prompt_length'"),
        ({"prompt_length": 0}, BadOption, "at least 1"),
        ({"prompt_length": 10**11}, BadOption, "GiB"),
        ({"prompt_length": 3, "layers": "2-5"}, BadOption, "layer 3"),
        ({"prompt_length": 500, "position_offset": "shift"}, BadOption, "leaves 12 of 512 positions"),
        ({"method": "pt", "prompt_length": 500}, BadOption, "leaves 12 of 512 positions"),
        ({"method": "pt3"}, UnknownName, "method 'pt3'"),
        ({"method": "pt", "init": "activations"}, BadOption, "belongs to deep prompts"),
        ({"backbone": "minlm"}, UnknownName, "did you mean 'minilm'"),
        ({"backbone": "some/thing"}, NoNetwork, "some/thing"),
        ({"head_dropout": 1.5}, BadOption, "between 0 and 1"),
        ({"pooling": "max"}, UnknownName, "pooling 'max'"),
        ({"prompt_length": 3, "init": "activations", "reparameterization": "mlp"}, BadOption, "excludes"),
    ],
)
def test_bad_options(options, error, words, sentences, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(error, match=words) as caught:
        pt.build_model(sentences, **({"backbone": "tiny", "method": "pt2"} | options))
    assert "\n" not in str(caught.value)


def test_an_unsupported_folder_is_refused_by_name(sentences, tmp_path):
    import transformers

    transformers.SqueezeBertConfig().save_pretrained(tmp_path / "m")
    with pytest.raises(UnsupportedEncoder, match="'squeezebert'"):
        pt.build_model(sentences, backbone=str(tmp_path / "m"))


def test_too_much_activation_is_refused_before_training(sentences, monkeypatch):
    monkeypatch.setattr("ptv2lib.training.free_memory", lambda: 10_000)
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    with pytest.raises(BadOption, match="GiB, and"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)


def test_a_run_that_is_refused_leaves_the_earlier_results(sentences, tmp_path, monkeypatch):
    def again():
        model = pt.build_model(sentences, backbone="tiny", method="probe")
        return pt.train(model, sentences, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "o", progress=False)

    again()
    kept = {path.name for path in (tmp_path / "o").iterdir()}
    with monkeypatch.context() as patch, pytest.raises(BadOption, match="GiB, and"):
        patch.setattr("ptv2lib.training.free_memory", lambda: 10_000)
        again()
    assert {path.name for path in (tmp_path / "o").iterdir()} == kept


def test_folders_of_one_name_are_two_data_sets(tmp_path):
    def trained(rows, place):
        (tmp_path / place).mkdir(exist_ok=True)
        task = pt.load_task("sst2", dataset=folder(tmp_path / place / "data", train=rows, validation=rows[:8]))
        model = pt.build_model(task, backbone="tiny", method="probe")
        return pt.train(model, task, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "o", progress=False)

    trained(SENTENCES, "a")
    trained(SENTENCES, "a")  # the same again
    with pytest.raises(OutputError, match="holds a run with rows="):
        trained(SENTENCES[::-1], "b")
    assert (tmp_path / "o" / "record.json").is_file()


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": "abc"}, {"num_attention_heads": 0}, {"hidden_act": "zzz"}, {"model_type": ["bert"]}, None],
    ids=str,
)
def test_an_odd_configuration_is_one_sentence(change, sentences, tmp_path):
    pt.build_model(sentences, backbone="tiny", method="ft").save_model(tmp_path / "saved")
    file = tmp_path / "saved" / "backbone" / "config.json"
    file.write_text("[]" if change is None else json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises((DataError, UnsupportedEncoder)) as error:
        pt.load_backbone(tmp_path / "saved" / "backbone")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a--b/c", "a..b/c"])
def test_a_name_that_the_hub_does_not_take_is_one_sentence(name, monkeypatch):
    monkeypatch.setattr("ptv2lib.backbones.require_network", lambda what: None)
    with pytest.raises(DataError, match="The Hub has no model"):
        pt.load_backbone(name)


def test_a_download_that_breaks_off_is_one_sentence(monkeypatch):
    import huggingface_hub

    def breaks(local_files_only=False, **_):
        raise OSError("No space left on device")

    monkeypatch.setattr("ptv2lib.backbones.require_network", lambda what: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)
    with pytest.raises(DataError, match="that can be read: No space left on device"):
        pt.load_backbone("owner/name")


@pytest.mark.parametrize("way", ["built", "loaded"])
def test_a_verbalizer_is_read_while_no_other_thread_tokenizes(way, sentences, tmp_path, monkeypatch):
    """What a tokenizer cuts at is a state of its own: reading a word meanwhile would take another thread's cut away."""
    backbone = pt.load_backbone("tiny", masked_lm=True)
    pt.build_model(sentences, backbone=backbone, method="discrete").save_prompt(tmp_path / "p")
    read, pieces = threading.Event(), Verbalizer.pieces

    def noted(self, tokenizer):
        read.set()
        return pieces(self, tokenizer)

    monkeypatch.setattr(Verbalizer, "pieces", noted)
    make = {
        "built": lambda: pt.build_model(sentences, backbone=backbone, method="discrete"),
        "loaded": lambda: pt.load_prompt(tmp_path / "p", backbone=backbone),
    }
    maker = threading.Thread(target=make[way])
    with TOKENIZING:  # as while texts are encoded
        maker.start()
        assert not read.wait(0.5)
    maker.join()
    assert read.is_set()


def test_a_starter_file_with_other_bytes_is_refused(tmp_path, monkeypatch):
    from ptv2lib import backbones

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(backbones, "_starter_wheel", lambda: tmp_path)
    with pytest.raises(DataError, match="sha256"):
        pt.load_backbone("minilm")


def test_batches_hold_every_row_once_and_group_lengths():
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 200, (1000,), generator=draw).tolist()
    order = list(batches(lengths, 16, torch.Generator().manual_seed(1)))
    assert sorted(i for batch in order for i in batch) == list(range(1000))
    spread = lambda found: sum(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found)  # noqa: E731
    assert spread(order) < 0.2 * spread(batches(lengths, 16, torch.Generator().manual_seed(1), grouped=False))
    assert order != list(batches(lengths, 16, torch.Generator().manual_seed(2)))


def test_predictions_do_not_depend_on_company(task):
    model = pt.build_model(task, backbone="tiny", method="pt2", prompt_length=3).eval()
    rows = [*task.rows["train"][:4], task.family.prepare(EXAMPLES[task.name])]
    encoded = [one for inputs in model.encode(rows) for one in inputs]
    assert len({len(one) for one in encoded}) > 1  # so that some are padded
    together = dict(model.logits(encoded, batch_size=4))
    alone = dict(model.logits(encoded, batch_size=1))
    assert all(abs(together[i] - alone[i]).max() < 1e-5 for i in together)


@pytest.mark.parametrize(
    ("cuda", "emulated", "native", "avx512", "amx", "expected"),
    [
        (True, True, True, False, False, "bf16"),
        (True, True, False, True, True, "fp16"),  # a T4, whatever its processor has
        (False, False, False, True, False, "bf16"),
        (False, False, False, False, True, "bf16"),
        (False, False, False, False, False, "fp32"),
    ],
)
def test_precision_follows_the_hardware(cuda, emulated, native, avx512, amx, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: emulated if including_emulation else native
    )
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert choose_precision("auto") == expected
    assert choose_precision("bf16") == "bf16" and choose_precision("fp32") == "fp32"
    if cuda:
        assert choose_precision("fp16") == "fp16"
    else:
        with pytest.raises(BadOption, match="'fp16' needs a CUDA device"):
            choose_precision("fp16")


@pytest.mark.parametrize(("precision", "backend"), [("bf16", "ptv2_eager"), ("fp32", "ptv2_sdpa")])
@pytest.mark.skipif(torch.cuda.is_available(), reason="the fused attention is slow on a CPU alone")
def test_bf16_on_a_cpu_trains_without_the_fused_attention(precision, backend, sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    used = {True: set(), False: set()}
    model.backbone.register_forward_pre_hook(
        lambda encoder, _: used[encoder.training].add(encoder.config._attn_implementation)
    )
    pt.train(model, sentences, pt.TrainingConfig(precision=precision, **QUICK), progress=False)
    assert used == {True: {backend}, False: {"ptv2_sdpa"}}


@pytest.mark.parametrize(("name", "rows"), [("sst2", LEARNABLE), ("wikiann", TAGGED * 16)])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"discrete"}))
def test_every_method_has_settings_that_train(method, name, rows, tmp_path):
    task = pt.load_task(name, dataset=folder(tmp_path / "data", train=rows, validation=rows[:8]))
    model = pt.build_model(task, backbone="tiny", method=method)
    run = pt.train(model, task, pt.TrainingConfig(epochs=8), progress=False)
    losses = [line["loss"] for line in run.record["history"]["epochs"]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"discrete"}))
def test_a_new_model_answers_without_dropout(method, task):
    model = pt.build_model(task, backbone="tiny", method=method, backbone_dropout=0.5)
    assert not any(module.training for module in model.modules())
    one = model.encode(task.rows["train"][:1])[0][0]
    batch = collate([one], model.tokenizer)[0]
    assert torch.equal(model(**batch), model(**batch))


def test_training_leaves_the_accelerator_around_it_as_it_was(sentences):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    outer = Accelerator(mixed_precision="bf16", cpu=True)
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    run = pt.train(model, sentences, pt.TrainingConfig(**QUICK, precision="fp32"), progress=False)
    assert run.record["settings"]["precision"] == "fp32"
    assert (outer.mixed_precision, str(outer.device)) == ("bf16", "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_rows_that_select_are_scored_once_an_epoch(sentences, monkeypatch):
    scored, decode = [], PromptedModel.decode

    def counted(model, encoded, rows, batch_size):
        scored.append(rows)
        return decode(model, encoded, rows, batch_size)

    monkeypatch.setattr(PromptedModel, "decode", counted)
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    run = pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    split = sentences.split()
    assert scored == [split.validation, split.validation, split.test]
    # What was scored then is what the weights that are kept score now.
    again = training.evaluate(model, model.encode(split.validation), split.validation)
    assert run.metrics["validation"] == again


def test_weights_opened_by_hand_are_refused_and_not_trained(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    model.requires_grad_(False)
    with pytest.raises(BadOption, match="Every weight has requires_grad=False"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    model.requires_grad_(True)  # "thawed" again, the frozen encoder with it
    with pytest.raises(BadOption, match="'pt2' leaves the encoder's 'embeddings.*' as it is"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    model.backbone.requires_grad_(False)
    pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)


@pytest.mark.parametrize("method", ["bitfit", "lora"])
def test_what_was_trained_is_saved_although_it_was_frozen_since(sentences, method, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method=method)
    pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    model.requires_grad_(False)
    model.save_prompt(tmp_path / "prompt")
    again = pt.load_prompt(tmp_path / "prompt", backbone="tiny")
    assert again.predict([EXAMPLES["sst2"]]) == model.predict([EXAMPLES["sst2"]])


def test_a_run_leaves_the_random_states_as_they_were(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_seeds_hold_in_threads(sentences):
    def build(seed):
        return pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3, seed=seed).prompt.keys_values

    alone, wrong = {seed: build(seed) for seed in range(4)}, []

    def work(seed):
        wrong.extend(seed for _ in range(8) if not torch.equal(build(seed), alone[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_compiled_model_trains_as_the_plain_one(sentences):
    weights = {}
    for compiled in (False, True):
        model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3, tune_backbone=True)
        given = torch.compile(model, backend="eager") if compiled else model
        pt.train(given, sentences, pt.TrainingConfig(epochs=1), progress=False)
        weights[compiled] = model.state_dict()
    assert all(torch.equal(weight, weights[True][name]) for name, weight in weights[False].items())


class Largest(SequenceHead):
    """A head that the library does not have."""


@pytest.mark.parametrize("part", ["head", "prompt"])
def test_a_part_put_in_by_hand_is_not_saved_as_another(sentences, part, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    other = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3, position_offset="shift")
    setattr(model, part, Largest(32, 2) if part == "head" else other.prompt)
    with pytest.raises(BadOption, match=f"The {part} was replaced"):
        model.save_prompt(tmp_path / "prompt")
    assert not (tmp_path / "prompt").exists()


def test_models_that_share_an_encoder_can_be_scored_in_turn(sentences):
    backbone = pt.load_backbone("tiny")
    first, second = (
        pt.build_model(sentences, backbone=backbone, method="pt2", prompt_length=3, seed=seed) for seed in (0, 1)
    )
    rows = sentences.split().train
    expected = dict(second.logits([one for inputs in second.encode(rows) for one in inputs], 4))
    first.train(), second.train()
    few = [one for inputs in first.encode(rows[:4]) for one in inputs]
    found = {}
    for (k, scores), _ in itertools.zip_longest(
        second.logits([one for inputs in second.encode(rows) for one in inputs], 4),
        first.logits(few, 4),
        fillvalue=None,
    ):
        found[k] = scores
    assert first.training and second.training
    assert all(np.array_equal(found[k], scores) for k, scores in expected.items())


def test_building_on_a_shared_encoder_leaves_the_dropout_of_a_training(sentences):
    backbone = pt.load_backbone("tiny")
    pt.build_model(sentences, backbone=backbone, method="pt2", prompt_length=3, backbone_dropout=0.1).train()
    pt.build_model(sentences, backbone=backbone, method="pt2", prompt_length=3, backbone_dropout=0.4)
    assert {module.p for module in backbone.encoder.modules() if isinstance(module, torch.nn.Dropout)} == {0.1}


def test_weights_are_on_disk_before_anything_is_scored(sentences, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("the scorer")

    monkeypatch.setattr(training, "predict_sets", fails)
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    with pytest.raises(RuntimeError, match="the scorer"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), output_dir=tmp_path / "run", progress=False)
    again = pt.load_prompt(tmp_path / "run" / "prompt", backbone="tiny")
    assert again.predict([EXAMPLES["sst2"]]) == model.predict([EXAMPLES["sst2"]])


def test_a_refused_training_leaves_the_cut(sentences, monkeypatch):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    before = model.max_length
    with monkeypatch.context() as patch, pytest.raises(BadOption, match="needs about"):
        patch.setattr(training, "free_memory", lambda: 0)
        pt.train(model, sentences, pt.TrainingConfig(**QUICK, max_length=9), progress=False)
    assert model.max_length == before


def test_a_batch_larger_than_the_set_is_all_of_it(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    pt.train(model, sentences, pt.TrainingConfig(epochs=1, batch_size=10**8), progress=False)


def test_several_processes_are_refused(sentences, monkeypatch):
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 2)
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    with pytest.raises(BadOption, match="2 processes were started"):
        pt.train(model, sentences, pt.TrainingConfig(epochs=1), progress=False)


@pytest.mark.parametrize("swapped", ["model", "task", "config"])
def test_what_train_takes_is_checked(sentences, swapped):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    given = {"model": model, "task": sentences, "config": pt.TrainingConfig()} | {swapped: "sst2"}
    with pytest.raises(BadOption, match="Training takes a model of build_model, .* not 'sst2'"):
        pt.train(given["model"], given["task"], given["config"], progress=False)


def test_scores_are_float32_whatever_surrounds_them(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    alone = model.predict([EXAMPLES["sst2"]])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.predict([EXAMPLES["sst2"]]) == alone


def test_a_model_for_another_task_is_checked_and_ready(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    assert not model.for_task(find_task("rte")).training
    with pytest.raises(BadOption, match="a model needs two or more"):
        model.for_task(find_task("ewt_srl"))
    words = pt.build_model(sentences, backbone="tiny", method="discrete", calibration="empty")
    with pytest.raises(BadOption, match="calibration='empty' belongs to one task"):
        words.for_task(find_task("rte"))


def test_an_interrupt_leaves_the_best_finished_epoch(sentences, tmp_path, monkeypatch):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    kept = []

    def select(material):
        if kept:
            raise KeyboardInterrupt
        kept.append({name: weight.detach().clone() for name, weight in model.trainable().items()})
        return {"accuracy": 0.5}, 0.0

    monkeypatch.setattr(training, "_select", select)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pt.train(model, sentences, pt.TrainingConfig(epochs=3, learning_rate=1e-2), output_dir=out, progress=False)
    assert pt.load_prompt(out / "prompt", backbone="tiny").predict([EXAMPLES["sst2"]]) == model.predict(
        [EXAMPLES["sst2"]]
    )
    assert not (out / "record.json").exists()
    assert all(torch.equal(weight, kept[0][name]) for name, weight in model.trainable().items())
    assert not any(module.training for module in model.modules())
    assert model.trained


def test_a_run_that_diverged_leaves_the_model_as_it_was(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    before = {name: weight.detach().clone() for name, weight in model.trainable().items()}
    with pytest.raises(BadOption, match=r"The loss became nan in epoch 1; a learning rate below 1e\+30"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK, learning_rate=1e30, clip=0), progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.trainable().items())
    assert not model.trained
    pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)


def test_gradients_that_a_script_accumulates_do_not_stop_a_run(sentences):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    outer, other = Accelerator(gradient_accumulation_steps=4, cpu=True), torch.nn.Linear(2, 2)
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    before = model.head.state_dict()["linear.weight"].clone()
    with outer.accumulate(other):
        assert not outer.sync_gradients
        pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
        assert not outer.sync_gradients
    assert not torch.equal(model.head.state_dict()["linear.weight"], before)
    assert outer.gradient_accumulation_steps == 4
    AcceleratorState._reset_state(reset_partial_state=True)


def test_numbers_of_other_libraries_can_be_saved(sentences, tmp_path):
    options = {"layers": range(1, 3), "prompt_length": np.int64(3), "prefix_dropout": np.float32(0.125)}
    model = pt.build_model(sentences, backbone="tiny", seed=np.int64(3), **options)
    config = pt.TrainingConfig(**QUICK, warmup_ratio=np.float32(0.5), learning_rate=np.float64(1e-2))
    pt.train(model, sentences, config, output_dir=tmp_path / "run", progress=False)
    loaded = pt.load_prompt(tmp_path / "run/prompt")
    assert loaded.options == model.options
    assert (loaded.options.layers, loaded.options.prefix_dropout) == ((1, 2), 0.125)


def test_examples_may_come_one_by_one_and_batches_hold_at_least_one(sentences):
    model = pt.build_model(sentences, backbone="tiny", prompt_length=3)
    rows = sentences.split().test
    assert model.predict(iter(rows)) == model.predict(rows) and len(model.predict(iter(rows))) == len(rows)
    for size in (0, -1):
        with pytest.raises(BadOption, match=f"batch_size={size} must be at least 1"):
            model.predict(rows, batch_size=size)


def test_checkpointing_stays_with_its_model(sentences):
    backbone = pt.load_backbone("tiny")
    first = pt.build_model(sentences, backbone=backbone, prompt_length=3, gradient_checkpointing=True)
    second = pt.build_model(sentences, backbone=backbone, prompt_length=3)
    for model in (second, first, second):
        model.train()
        on = any(getattr(module, "gradient_checkpointing", False) for module in backbone.encoder.modules())
        assert on == model.options.gradient_checkpointing


def test_a_task_of_one_s_own_in_lists_trains_on_after_loading(tmp_path):
    family = pt.Classification("mood", texts=["sentence"], labels=["sad", "glad"])
    path = folder(tmp_path / "data", train=SENTENCES, validation=SENTENCES[:8])
    task = pt.load_task(family, dataset=path)
    model = pt.build_model(task, backbone="tiny", prompt_length=3)
    model.save_prompt(tmp_path / "prompt")
    pt.train(pt.load_prompt(tmp_path / "prompt"), task, pt.TrainingConfig(**QUICK), progress=False)
    renamed = folder(
        tmp_path / "other", **dict.fromkeys(("train", "validation"), [{"text": "x", "label": k} for k in (0, 1)])
    )
    other = pt.load_task(pt.Classification("mood", ("text",), ("sad", "glad")), dataset=renamed)
    with pytest.raises(BadOption, match=r"its texts is \('sentence',\), not \('text',\)"):
        pt.train(model, other, progress=False)


class Louder(pt.Classification):
    """A family of one's own, written outside the library."""


def test_a_family_of_one_s_own_says_why_its_prompt_cannot_be_loaded(tmp_path):
    path = folder(tmp_path / "data", train=SENTENCES, validation=SENTENCES[:8])
    task = pt.load_task(Louder("mood", ("sentence",), ("sad", "glad")), dataset=path)
    pt.build_model(task, backbone="tiny", prompt_length=3).save_prompt(tmp_path / "prompt")
    with pytest.raises(PromptMismatch, match="is a 'Louder', a class of one's own"):
        pt.load_prompt(tmp_path / "prompt")


@pytest.mark.parametrize("seed", [None, "a", 1.5, -1, True])
def test_a_seed_of_the_wrong_kind_is_named(seed, sentences):
    with pytest.raises(BadOption, match="seed=.* must be a whole number between 0 and"):
        pt.build_model(sentences, backbone="tiny", seed=seed)


def test_code_beside_weights_is_never_run(sentences, tmp_path):
    evil = tmp_path / "evil"
    pt.build_model(sentences, backbone="tiny", method="ft").save_model(tmp_path / "saved")
    (tmp_path / "saved" / "backbone").rename(evil)
    (evil / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    config = json.loads((evil / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Config"}}
    for kind in ("bert", "unheard-of"):
        (evil / "config.json").write_text(json.dumps(config | {"model_type": kind}))
        command = [sys.executable, "-c", f"import ptv2lib as pt; pt.load_backbone({str(evil)!r})"]
        done = subprocess.run(command, input="y\n" * 9, capture_output=True, text=True)
        assert not (tmp_path / "ran").exists(), done.stderr
        assert "custom code" not in done.stdout
        assert (done.returncode == 0) == (kind == "bert"), done.stderr


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_half_there_is_one_sentence(file, sentences, tmp_path):
    pt.build_model(sentences, backbone="tiny", method="ft").save_model(tmp_path / "saved")
    path = tmp_path / "saved/backbone" / file
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="no readable tokenizer: "):
        pt.load_backbone(path.parent)


def test_the_records_of_several_runs_are_read_together(sentences, tmp_path):
    for seed in (0, 1):
        model = pt.build_model(sentences, backbone="tiny", method="probe", seed=seed)
        config = pt.TrainingConfig(epochs=1, seed=seed)
        pt.train(model, sentences, config, output_dir=tmp_path / f"run{seed}", progress=False)
    assert [record["seed"] for record in pt.read_records(tmp_path)] == [0, 1]
    assert [record["seed"] for record in pt.read_records(tmp_path / "run1")] == [1]
    with pytest.raises(DataError, match="There is no folder"):
        pt.read_records(tmp_path / "nowhere")


def test_a_discrete_prompt_is_scored_without_training(tmp_path, task):
    if task.family.head != "sequence":
        with pytest.raises(pt.PtvError, match="has none of its own|one label per text"):
            pt.build_model(task, backbone="tiny", method="discrete")
        return
    model = pt.build_model(task, backbone="tiny", method="discrete")
    run = pt.train(model, task, output_dir=tmp_path / "run", progress=False)
    assert run.trainable_parameters == 0 and run.record["history"] == {"best_epoch": 0, "epochs": []}
    rows = task.split().test
    answers = [task.family.labels.index(one["label"]) for one in pt.load_prompt(tmp_path / "run/prompt").predict(rows)]
    right = [answer == row["label"] for answer, row in zip(answers, rows, strict=True)]
    assert run.metrics["test"]["accuracy"] == sum(right) / len(right)


def test_the_encoder_beside_a_prompt_has_a_rate_of_its_own(task):
    model = pt.build_model(task, backbone="tiny", method="pt", tune_backbone=True)
    weights = {f"0.{name}": weight for name, weight in model.trainable().items()}
    config = pt.TrainingConfig(learning_rate=1e-3, backbone_learning_rate=1e-3)
    for rate in (1e-3, 1e-5):  # equal rates, too, leave no weight out
        prompt, encoder = _groups(weights, dataclasses.replace(config, backbone_learning_rate=rate))
        assert (prompt["lr"], encoder["lr"]) == (1e-3, rate)
        assert {id(w) for w in encoder["params"]} == {id(w) for w in model.backbone.parameters()}
        assert len(prompt["params"]) + len(encoder["params"]) == len(weights)
    run = pt.train(model, task, pt.TrainingConfig(epochs=1), progress=False)
    assert run.record["settings"]["training"]["backbone_learning_rate"] == BESIDE_A_PROMPT


def test_a_killed_run_leaves_no_half_file(tmp_path):
    data = folder(tmp_path / "data", train=SENTENCES * 20, validation=SENTENCES)
    command = [sys.executable, "-m", "ptv2lib", "run", "--task", "sst2", "--method", "probe", "--backbone", "tiny"]
    command += ["--dataset", str(data), "--out", str(tmp_path / "run"), "--set", "epochs=1000"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.is_file() and log.read_text().count("\n") > 1):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [json.loads(line) for line in log.read_text().splitlines()]
    assert not (tmp_path / "run" / "record.json").exists()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "log.jsonl"}


KILLED = """
import os, signal, sys
import ptv2lib as pt
from ptv2lib import model as saving

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

move = os.replace
if sys.argv[3] == "weights":
    saving._save_tensors = killed
else:
    os.replace = lambda old, new: killed() if str(new).endswith("record.json") else move(old, new)
task = pt.load_task("sst2", dataset=sys.argv[1])
model = pt.build_model(task, backbone="tiny", method="probe")
pt.train(model, task, pt.TrainingConfig(epochs=2, batch_size=8), output_dir=sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("moment", ["weights", "record"])
def test_what_a_run_that_was_killed_while_it_wrote_left_is_gone_after_the_next(moment, sentences, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"

    def train():
        model = pt.build_model(sentences, backbone="tiny", method="probe")
        return pt.train(model, sentences, pt.TrainingConfig(**QUICK), output_dir=out, progress=False)

    killed = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, data, out, moment])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert not (out / "record.json").exists() and (out / "prompt").exists() == (moment == "record")
    train()
    assert {path.name for path in out.iterdir()} == {"run.json", "log.jsonl", "record.json", "prompt"}


@pytest.mark.parametrize("harm", ["none", "gone", "cut off", "other weights"])
def test_a_trained_encoder_that_is_not_the_saved_one_is_refused(harm, sentences, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method="ft")
    pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
    folder = model.save_model(tmp_path / "m")
    if harm == "none":
        assert pt.load_prompt(folder).predict([EXAMPLES["sst2"]]) == model.predict([EXAMPLES["sst2"]])
        return
    weights = folder / "backbone" / "model.safetensors"
    if harm == "gone":
        shutil.rmtree(folder / "backbone")
    elif harm == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        with torch.no_grad():
            next(model.backbone.parameters()).add_(0.1)
        model.backbone.save_pretrained(folder / "backbone")
    with pytest.raises(PromptMismatch, match="The encoder in .*m (is damaged or missing|has fingerprint)") as error:
        pt.load_prompt(folder)
    assert "\n" not in str(error.value)


def test_a_pooler_and_a_masked_language_model_exclude_each_other():
    with pytest.raises(BadOption, match="pooler=True and masked_lm=True exclude each other"):
        pt.load_backbone("tiny", pooler=True, masked_lm=True)


def test_words_of_any_mapping_can_be_saved(sentences, tmp_path):
    words = types.MappingProxyType({"negative": "bad", "positive": "good"})
    model = pt.build_model(sentences, backbone="tiny", method="discrete", verbalizer=words)
    assert pt.load_prompt(model.save_prompt(tmp_path / "p")).options.verbalizer == dict(words)


def test_rows_are_scored_and_drawn_as_the_settings_say(sentences, monkeypatch):
    grouped, sizes, scores = [], [], []
    decode = PromptedModel.decode
    # What comes of it: test_batches_hold_every_row_once_and_group_lengths
    monkeypatch.setattr(training, "batches", lambda *given: grouped.append(given[-1]) or batches(*given))
    monkeypatch.setattr(PromptedModel, "decode", lambda *given: sizes.append(given[3]) or decode(*given))
    for size, together in ((1, True), (64, True), (64, False)):
        model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
        config = pt.TrainingConfig(**QUICK, evaluation_batch_size=size, length_grouped=together, precision="fp32")
        scores.append(pt.train(model, sentences, config, progress=False).metrics)
    assert grouped == [True, True, True, True, False, False]
    assert sizes == [1, 1, 1, 64, 64, 64, 64, 64, 64]
    assert scores[0] == scores[1]


def test_models_that_share_an_encoder_keep_their_own_dropout(sentences):
    def losses(other):
        backbone = pt.load_backbone("tiny")
        model = pt.build_model(sentences, backbone=backbone, method="pt2", prompt_length=3, backbone_dropout=0.4)
        if other:
            pt.build_model(sentences, backbone=backbone, method="probe")  # without dropout
        run = pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False)
        return [line["loss"] for line in run.record["history"]["epochs"]]

    assert losses(other=False) == losses(other=True)


def test_a_start_from_words_does_not_depend_on_earlier_models(sentences):
    backbone = pt.load_backbone("tiny")

    def start():
        model = pt.build_model(sentences, backbone=backbone, prompt_length=3, init="activations", backbone_dropout=0.5)
        return model.prompt.keys_values.detach().clone(), model

    first, model = start()
    model.train()  # as a training that was interrupted leaves it
    assert torch.equal(start()[0], first)


def test_predicting_leaves_every_module_in_its_mode(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3)
    before = [module.training for module in model.modules()]
    model.predict([EXAMPLES["sst2"]])
    assert [module.training for module in model.modules()] == before


def test_a_model_whose_encoder_another_one_trained_says_so(sentences, tmp_path):
    backbone = pt.load_backbone("tiny")
    model = pt.build_model(sentences, backbone=backbone, method="probe")
    other = pt.build_model(sentences, backbone=backbone, method="ft")
    pt.train(other, sentences, pt.TrainingConfig(**QUICK), progress=False)
    for use in (
        lambda: model.predict([EXAMPLES["sst2"]]),
        lambda: model.save_prompt(tmp_path / "p"),
        lambda: pt.train(model, sentences, pt.TrainingConfig(**QUICK), progress=False),
    ):
        with pytest.raises(BadOption, match="'ft' trains the encoder"):
            use()
    assert other.predict([EXAMPLES["sst2"]])


def test_saving_replaces_a_prompt_and_nothing_else(sentences, tmp_path, monkeypatch):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    tuned = pt.build_model(sentences, backbone="tiny", method="ft")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "notes.txt").write_text("mine")
    for save in (model.save_prompt, tuned.save_model):
        for place in ("project", "project/notes.txt"):
            with pytest.raises(OutputError, match="something else than a saved prompt"):
                save(tmp_path / place)
    assert (tmp_path / "project" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert pt.load_prompt(model.save_prompt(tmp_path / "empty")).method == "probe"
    (tmp_path / "empty" / "notes.txt").write_text("mine, too")
    with pytest.raises(OutputError, match="something else than a saved prompt"):
        model.save_prompt(tmp_path / "empty")
    whole = tuned.save_model(tmp_path / "whole")
    with pytest.raises(OutputError, match="something else than a saved prompt"):  # its encoder would be lost
        model.save_prompt(whole)
    assert pt.load_prompt(whole).method == "ft"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="the folder this process works in"):
        model.save_prompt(".")


@pytest.mark.parametrize("examples", ["a film", {"sentence": "a film"}, [None], ["a film"]])
def test_predict_wants_a_list_of_dicts(examples, sentences):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    with pytest.raises(DataError, match="a list of examples"):
        model.predict(examples)
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rte", {"hypothesis": None}),
        ("wic", {"sentence2": None}),
        ("wsc", {"span1_text": None}),
        ("copa", {"premise": 3}),
        ("multirc", {"answers": []}),
        ("multirc", {"answers": "abc"}),
        ("conll03", {"tokens": [1, 2]}),
    ],
)
def test_an_example_of_the_wrong_kind_is_named(name, change):
    loaded = pt.load_task(name, source="miniature")
    model = pt.build_model(loaded, backbone="tiny", method="probe")
    row = loaded.rows["test"][0]
    assert model.predict([row])
    with pytest.raises(DataError, match=next(iter(change))):
        model.predict([row | change])


@pytest.mark.parametrize(
    "change",
    [{"options": []}, {"method": "zz"}, {"max_length": "x"}, {"backbone": None, "fingerprint": None}, {"options": {}}],
)
def test_a_changed_description_is_one_sentence(change, sentences, tmp_path):
    path = pt.build_model(sentences, backbone="tiny", method="probe").save_prompt(tmp_path / "p") / "prompt.json"
    saved = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in saved.items() if value is not None}))
    with pytest.raises(PromptMismatch, match="damaged or incomplete"):
        pt.load_prompt(path.parent)


def test_a_backbone_that_lacks_what_the_head_reads_is_refused(sentences, tmp_path):
    with pytest.raises(BadOption, match="pooler=True"):
        pt.build_model(sentences, backbone=pt.load_backbone("tiny"), pooling="pooler")
    whole = pt.load_backbone("tiny", pooler=True)
    folder = pt.build_model(sentences, backbone=whole, pooling="pooler").save_prompt(tmp_path / "a")
    with pytest.raises(PromptMismatch, match="pooler=True"):
        pt.load_prompt(folder, backbone=pt.load_backbone("tiny"))
    folder = pt.build_model(sentences, backbone="tiny", method="ptv1").save_prompt(tmp_path / "b")
    with pytest.raises(PromptMismatch, match="masked_lm=True"):
        pt.load_prompt(folder, backbone=pt.load_backbone("tiny"))


def test_a_data_set_of_the_same_name_and_other_labels_is_refused(sentences, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method="probe")
    turned = dataclasses.replace(sentences.family, labels=sentences.family.labels[::-1])
    with pytest.raises(BadOption, match="its labels differ"):
        pt.train(model, dataclasses.replace(sentences, family=turned), progress=False)
    with pytest.raises(BadOption, match="its labels differ"):
        pt.write_predictions(model, dataclasses.replace(sentences, family=turned), tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tune_backbone": "no"}, "tune_backbone='no' must be True or False"),
        ({"prompt_length": 2.5}, "must be a whole number"),
        ({"layers": [1.5]}, "cannot be read"),
        ({"layers": None}, "cannot be read"),
        ({"layers": True}, "cannot be read"),
        ({"reparameterization": "mlp", "reparameterization_hidden": 0}, "at least 1"),
        ({"reparameterization_hidden": 8}, "does nothing without reparameterization"),
        ({"prefix_dropout_per_example": True}, "does nothing without prefix_dropout"),
        ({"stride": 16}, "belongs to question answering"),
        ({"method": "discrete", "pooling": "cls"}, "a verbalizer has none"),
        ({"method": "discrete", "head_dropout": 0.3}, "a verbalizer has none"),
        ({"method": "ptv1", "position_offset": "none"}, "belongs to vectors before the text"),
        ({"backbone": None}, "must be a name"),
    ],
)
def test_options_that_would_be_misread_or_ignored_are_refused(options, words, sentences):
    with pytest.raises(BadOption, match=words):
        pt.build_model(sentences, **({"backbone": "tiny", "method": "pt2"} | options))


def test_pooling_belongs_to_one_vector_per_text(tmp_path):
    tagged = pt.load_task("wikiann", dataset=folder(tmp_path / "x", train=TAGGED, validation=TAGGED))
    with pytest.raises(BadOption, match="one per piece"):
        pt.build_model(tagged, backbone="tiny", pooling="mean")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"seed": None},
        {"clip": -1.0},
        {"clip": "x"},
        {"weight_decay": -0.1},
        {"weight_decay": math.inf},
        {"max_length": 9.5},
        {"length_grouped": "no"},
        {"epochs": True},
        {"learning_rate": True},
    ],
)
def test_settings_of_the_wrong_kind_or_size_are_named(settings):
    with pytest.raises(BadOption, match=f"^{next(iter(settings))}="):
        pt.TrainingConfig(**settings)


def test_a_rate_for_an_encoder_that_stays_is_refused(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="pt2")
    with pytest.raises(BadOption, match="has nothing to move"):
        pt.train(model, sentences, pt.TrainingConfig(**QUICK, backbone_learning_rate=1e-3), progress=False)


def test_the_recurrent_prompt_trains_in_half_precision(sentences):
    model = pt.build_model(sentences, backbone="tiny", method="ptv1")
    run = pt.train(model, sentences, pt.TrainingConfig(**QUICK, precision="bf16"), progress=False)
    assert all(math.isfinite(line["loss"]) for line in run.record["history"]["epochs"])


def test_checkpointing_lets_a_larger_batch_through(sentences, monkeypatch):
    sizes = {}
    for checkpointed in (False, True):
        model = pt.build_model(sentences, backbone="tiny", method="pt2", gradient_checkpointing=checkpointed)
        units = [[one] for inputs in model.encode(sentences.rows["train"]) for one in inputs]
        for free in range(10**5, 10**7, 10**4):
            monkeypatch.setattr("ptv2lib.training.free_memory", lambda free=free: free)
            try:
                _fits_memory(model, units, 8)
            except BadOption:
                continue
            sizes[checkpointed] = free
            break
    assert sizes[True] < 0.8 * sizes[False]


def test_a_backbone_that_is_half_there_is_one_sentence(tmp_path, monkeypatch):
    tiny = pt.load_backbone("tiny")
    tiny.encoder.config.save_pretrained(tmp_path / "bare")
    with pytest.raises(DataError, match="no readable weights"):
        pt.load_backbone(str(tmp_path / "bare"))
    tiny.encoder.save_pretrained(tmp_path / "wordless")
    with pytest.raises(DataError, match="no tokenizer"):
        pt.load_backbone(str(tmp_path / "wordless"))
    tiny.tokenizer.save_pretrained(tmp_path / "wordless")
    assert pt.load_backbone(str(tmp_path / "wordless")).fingerprint == tiny.fingerprint
    (tmp_path / "wordless" / "model.safetensors").write_bytes(b"junk" * 10)
    with pytest.raises(DataError, match="no readable weights"):
        pt.load_backbone(str(tmp_path / "wordless"))
    # A tokenizer loaded by itself leaves a snapshot without weights: the Hub must be asked for them.
    source = BACKBONES["bert-base"]
    snapshot = tmp_path / f"models--{source.hub_id.replace('/', '--')}" / "snapshots" / source.revision
    tiny.encoder.config.save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NoNetwork, match="bert-base"):
        pt.load_backbone("bert-base")


@pytest.mark.parametrize("name", ["./nothing", "/x", "a/b c", "a/", "a/b/c", ""])
def test_a_backbone_that_can_be_no_name_is_refused(name):
    with pytest.raises(UnknownName, match="There is no backbone"):
        pt.load_backbone(name)


def test_the_record_tells_the_seed_of_the_weights_and_a_second_training(sentences, tmp_path):
    model = pt.build_model(sentences, backbone="tiny", method="pt2", prompt_length=3, seed=4)
    loaded = pt.load_prompt(model.save_prompt(tmp_path / "p"))
    found = []
    for one in (model, model, loaded):
        run = pt.train(one, sentences, pt.TrainingConfig(**QUICK, seed=1), progress=False)
        found.append([run.record["seed"], *(run.record["settings"][key] for key in ("model_seed", "continued"))])
    assert found == [[1, 4, False], [1, 4, True], [1, None, True]]


def test_other_first_weights_are_another_run(sentences, tmp_path):
    config = pt.TrainingConfig(**QUICK, seed=1)
    models = [pt.build_model(sentences, backbone="tiny", method="probe", seed=seed) for seed in (4, 5)]
    run = pt.train(models[0], sentences, config, output_dir=tmp_path, progress=False)
    before = run.record_path.read_bytes()
    for model, told in ((models[1], "model_seed=4, not 5"), (models[0], "continued=False, not True")):
        with pytest.raises(OutputError, match=told):
            pt.train(model, sentences, config, output_dir=tmp_path, progress=False)
    assert run.record_path.read_bytes() == before


def test_a_commit_that_is_asked_for_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    tiny = pt.load_backbone("tiny")
    source, other = BACKBONES["minilm"], "0" * 40
    snapshot = tmp_path / f"models--{source.hub_id.replace('/', '--')}" / "snapshots" / other
    for part in (tiny.encoder, tiny.tokenizer):
        part.save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = pt.load_backbone("minilm", revision=other)
    assert (found.revision, found.fingerprint) == (other, tiny.fingerprint)
    for name in ("tiny", str(snapshot), "minilm-mlm"):
        with pytest.raises(BadOption, match=f"revision='{other}'"):
            pt.load_backbone(name, revision=other)


@pytest.mark.parametrize("method", ["pt2", "lora", "ft"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_default_number_format_changes_no_weight(method, dtype, sentences):
    def trained():
        model = pt.build_model(sentences, backbone="tiny", method=method)
        pt.train(model, sentences, pt.TrainingConfig(**QUICK, precision="fp32"), progress=False)
        return model.state_dict(), model.predict([EXAMPLES["sst2"]])

    expected, said = trained()
    torch.set_default_dtype(dtype)
    try:
        found, also_said = trained()
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(
        torch.equal(found[name], weight) and found[name].dtype == weight.dtype for name, weight in expected.items()
    )
    assert also_said == said

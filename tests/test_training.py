"""A whole run: what is trained, what is kept, what is written (invariants 1, 2, 3, 6, 8)."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_tasks import SENTENCES, TAGGED, folder

import ptv2lib as pt
from ptv2lib.backbones import Backbone, fingerprint
from ptv2lib.errors import BadOption, DataError, NoNetwork, OutputError, PromptMismatch, UnknownName, UnsupportedEncoder
from ptv2lib.methods import METHODS
from ptv2lib.training import BESIDE_A_PROMPT, _groups, batches, choose_precision

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


def test_a_prompt_learns_something(tmp_path):
    rows = [{"sentence": f"{'zz' if i % 2 else 'qq'} {i % 7}", "label": i % 2} for i in range(64)]
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
    assert run.metrics["validation"]["accuracy"] == max(line["selection"] for line in history["epochs"])


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
    encoded = [one for inputs in model.encode(task.rows["train"][:4]) for one in inputs]
    together = dict(model.logits(encoded, batch_size=4))
    alone = dict(model.logits(encoded, batch_size=1))
    assert all(abs(together[i] - alone[i]).max() < 1e-5 for i in together)


def test_precision_follows_the_hardware():
    assert choose_precision("fp16") == "fp16"
    assert choose_precision("auto") in ("fp32", "bf16", "fp16")


def test_every_method_has_settings_that_train(task):
    for method in METHODS.keys() - {"discrete"}:
        model = pt.build_model(task, backbone="tiny", method=method)
        run = pt.train(model, task, pt.TrainingConfig(epochs=1), progress=False)
        assert math.isfinite(run.record["history"]["epochs"][0]["loss"])


def test_a_discrete_prompt_is_scored_without_training(tmp_path, task):
    if task.family.head != "sequence":
        with pytest.raises(pt.PtvError, match="has none of its own|one label a text"):
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

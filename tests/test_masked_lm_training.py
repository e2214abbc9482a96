"""Training the masked-LM form: cut off and resumed it ends the same, and its file holds what was trained and nothing else."""

import gzip
import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import train_masked_lm as mlm
from safetensors.torch import load_file, save_file

from ptv2lib.backbones import load_backbone, with_changes
from ptv2lib.errors import BadOption, DataError

WHO = ["The cook", "A miner", "My aunt", "The old dog", "Nobody", "The queen", "Their band", "A boy"]
DOES = ["saw", "liked", "sold", "lost", "painted", "forgot", "heard", "hid"]
WHAT = ["the red boat", "a long film", "some bread", "the town", "his coat", "a song", "two maps", "the end"]
SENTENCES = [f"{who} {does} {what}." for who, does, what in itertools.product(WHO, DOES, WHAT)]
PLAN = mlm.Plan("mixed", rate=1e-2, head_rate=1e-2, steps=9, batch=256)


@pytest.fixture(scope="module", autouse=True)
def openings():
    """Openings for an encoder of two layers: each kind of trained weight, alone and together."""
    more = {
        "mixed": mlm.Opening(whole=1, rank=3, small=True),
        "one": mlm.Opening(whole=1),
        "low": mlm.Opening(rank=3),
        "small": mlm.Opening(small=True),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, opening in more.items():
            patch.setitem(mlm.OPENINGS, name, opening)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Both sources in their owners' forms, from the sentences above."""
    folder = tmp_path_factory.mktemp("text")
    documents = [" ".join(SENTENCES[start : start + 2]) for start in range(0, len(SENTENCES), 2)]
    with gzip.open(folder / "imdb_unlabelled.jsonl.gz", "wt") as file:
        for number, document in enumerate(documents):
            file.write(
                json.dumps({"id": number, "label": "unsup", "text": document.replace(". ", ".<br /><br />")}) + "\n"
            )
    with gzip.open(folder / "wikipedia.txt.gz", "wt") as file:
        for number, document in enumerate(documents):
            file.write(f"TITLE {number}\nSection::::Title {number}.\n{document}\n* a list of things\n")
    return folder


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


@pytest.fixture(scope="module")
def chunks(text, backbone):
    return mlm.cut_text(text, backbone.tokenizer, mlm.Cutting(length=64, held_out=4))


@pytest.fixture(scope="module")
def trained(backbone, chunks, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return mlm.train(backbone, chunks, PLAN, folder), folder


def test_chunks_are_whole_sentences_of_one_document(chunks, backbone):
    assert chunks.lengths.max() <= 64 and chunks.lengths.min() >= mlm.SHORTEST
    for number in range(0, len(chunks.lengths), 37):
        (row,) = chunks.rows(np.array([number]))
        assert row[0] == backbone.tokenizer.cls_token_id and row[-1] == backbone.tokenizer.sep_token_id
        spelled = backbone.tokenizer.decode(row[1:-1]).strip()
        assert spelled.endswith(".") and "title" not in spelled and "list" not in spelled and "<" not in spelled


def test_half_of_the_text_is_of_each_source_and_the_held_out_chunks_are_no_training_chunks(chunks):
    pieces = [chunks.lengths[~chunks.held_out & (chunks.source == source)].sum() for source in (0, 1)]
    assert abs(pieces[0] - pieces[1]) <= 64
    assert [(chunks.held_out & (chunks.source == source)).sum() for source in (0, 1)] == [4, 4]
    train = {chunks.rows(np.array([number])).tobytes() for number in chunks.training() if chunks.source[number] == 0}
    held = np.flatnonzero(chunks.held_out & (chunks.source == 0))
    assert not train & {chunks.rows(np.array([number])).tobytes() for number in held}


def test_a_pass_takes_every_training_chunk_once(chunks):
    batches = mlm.batches_of(chunks, PLAN, 0)
    assert sorted(np.concatenate(batches)) == list(chunks.training())
    assert all(len(set(chunks.lengths[batch])) == 1 for batch in batches)
    assert all(chunks.lengths[batch].sum() <= PLAN.batch for batch in batches)
    again = mlm.batches_of(chunks, PLAN, 1)
    assert len(again) == len(batches) and any(a.tolist() != b.tolist() for a, b in zip(again, batches, strict=True))


def test_masks_follow_bert(backbone):
    rows = np.random.default_rng(1).integers(5, len(backbone.tokenizer), (400, 42)).astype(np.int32)
    batch = mlm.mask(rows, 0.2, np.random.default_rng(0), backbone.tokenizer)
    assert batch.places.shape == (400, 8) and batch.places.min() >= 1 and batch.places.max() <= 40
    assert all(len(set(row)) == 8 for row in batch.places.tolist())
    assert (np.take_along_axis(rows, batch.places.numpy(), 1) == batch.targets.numpy()).all()
    shown = batch.pieces.gather(1, batch.places)
    masked, kept = shown == backbone.tokenizer.mask_token_id, shown == batch.targets
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.02)
    changed = batch.pieces.numpy() != rows
    changed[np.arange(400)[:, None], batch.places.numpy()] = False
    assert not changed.any()


def test_a_run_cut_off_and_resumed_equals_one_that_was_not(trained, backbone, chunks, tmp_path, monkeypatch):
    whole, _ = trained
    real, calls = mlm.train_step, itertools.count()

    def cut_off(*inputs):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return real(*inputs)

    monkeypatch.setattr(mlm, "train_step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        mlm.train(backbone, chunks, PLAN, tmp_path, save_seconds=0)
    checkpoint = tmp_path / "checkpoint.safetensors"
    assert json.loads(mlm.metadata_of(checkpoint)["progress"])["step"] == 5
    monkeypatch.setattr(mlm, "train_step", real)
    resumed = mlm.train(backbone, chunks, PLAN, tmp_path)
    for name, parameter in mlm.opened(whole).items():
        assert torch.equal(parameter, mlm.opened(resumed)[name]), name
    assert json.loads(mlm.metadata_of(checkpoint)["progress"])["step"] == PLAN.steps


def test_a_run_with_other_settings_is_refused(trained, backbone, chunks):
    with pytest.raises(BadOption, match="other settings"):
        mlm.train(backbone, chunks, replace(PLAN, rate=0.5), trained[1])


def test_bf16_rounds_the_forward_pass_and_teaches_as_much(trained, backbone, chunks, tmp_path):
    model = mlm.train(backbone, chunks, replace(PLAN, precision="bf16"), tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    losses = [mlm.held_out_scores(one, chunks, backbone.tokenizer)["all"]["loss"] for one in (trained[0], model)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_training_teaches(trained, backbone, chunks):
    before = mlm.new_model(backbone, PLAN, chunks, None)
    losses = [mlm.held_out_scores(model, chunks, backbone.tokenizer)["all"]["loss"] for model in (before, trained[0])]
    assert losses[1] < losses[0] - 0.1


@pytest.mark.parametrize("opening", ["head", "one", "low", "small", "mixed"])
def test_what_is_opened_moves_and_everything_else_stays(backbone, chunks, tmp_path, opening):
    model = mlm.train(backbone, chunks, replace(PLAN, opening=opening, steps=3), tmp_path)
    starter, learnt = mlm.starter_state(backbone.encoder), mlm.opened(model)
    names = {name for name in learnt if not name.startswith("cls.")}
    layers = {name.split(".")[3] for name in names if ".layer." in name}
    assert layers == {"head": set(), "one": {"1"}}.get(opening, {"0", "1"})
    assert any(name.endswith(".up") for name in names) == (opening in ("low", "mixed"))
    assert "bert.embeddings.word_embeddings.weight" not in names
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    for name, parameter in model.named_parameters():
        if name in starter:
            # A key's bias moves every score of a row alike: its slope is zero, whatever is opened.
            assert torch.equal(parameter, starter[name]) != (name in names) or name.endswith("key.bias"), name
    tensors = mlm.shipped_tensors(model, starter)
    assert set(tensors) == {mlm.shipped_name(name) for name in learnt}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


@pytest.mark.parametrize("opening", ["one", "low", "mixed"])
def test_the_file_applied_to_the_starter_gives_the_trained_models_logits(backbone, chunks, tmp_path, opening):
    model = mlm.train(backbone, chunks, replace(PLAN, opening=opening), tmp_path)
    starter = mlm.starter_state(backbone.encoder)
    save_file(mlm.shipped_tensors(model, starter), tmp_path / "file.safetensors")
    tensors = load_file(tmp_path / "file.safetensors")
    rebuilt = mlm.masked_lm(backbone.encoder, tensors)
    mlm.take_shipped(model, starter, tensors)  # the trained model, its own forward pass, rounded as the file is
    for either in (model, rebuilt):
        either.double()  # so that only the weights differ, not the order of the sums
    pieces = torch.randint(5, 60, (4, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = model(input_ids=pieces).logits, rebuilt(input_ids=pieces).logits
        untouched = mlm.masked_lm(backbone.encoder, {}).double()(input_ids=pieces).logits
    assert (found - expected).abs().max() < 1e-5
    assert (untouched - expected).abs().max() > 1e-2


def test_changes_need_nothing_but_the_starters_weights():
    starter = {"bert.a.weight": torch.ones(2, 3), "bert.a.bias": torch.zeros(2), "bert.b.weight": torch.ones(2)}
    tensors = {
        "bert.a.weight.up": torch.full((2, 1), 2.0, dtype=torch.float16),
        "bert.a.weight.down": torch.full((1, 3), 3.0, dtype=torch.float16),
        "delta.bert.a.bias": torch.tensor([1.0, -1.0], dtype=torch.float16),
        "cls.predictions.bias": torch.ones(4, dtype=torch.float16),
    }
    state = with_changes(starter, tensors)
    assert state.keys() == starter.keys() | {"cls.predictions.bias"}
    assert torch.equal(state["bert.a.weight"], torch.full((2, 3), 7.0))
    assert state["bert.a.bias"].tolist() == [1.0, -1.0] and torch.equal(state["bert.b.weight"], torch.ones(2))
    assert torch.equal(starter["bert.a.weight"], torch.ones(2, 3)), "the starter's own weights stay"
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_the_command_line_trains_exports_and_starts_again(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mlm, "TEMPLATES", {"tiny": mlm.Template("{sentence} {mask}.", ("-",), ("+",))})
    sst2, target = tmp_path / "sst2", tmp_path / "shipped" / "form.safetensors"
    sst2.mkdir()
    table = pyarrow.table({"sentence": SENTENCES[:20], "label": [0, 1] * 10})
    pyarrow.parquet.write_table(table, sst2 / "validation.parquet")
    target.parent.mkdir()
    blocks = "\n".join(
        f"<!-- {name} -->\nold\n<!-- /{name} -->" for name in ("figures", "held-out", "tried", "zero-shot")
    )
    (target.parent / "README.md").write_text(f"# Card\n{blocks}\nLast words.\n")
    common = ["--backbone", "tiny", "--work", str(tmp_path / "work")]
    train = [*common, "--text", str(text), "--held-out", "4", "--opening", "mixed", "--batch", "256"]
    assert mlm.main(["train", *train, "--run", "a", "--steps", "4"]) == 0
    assert mlm.main(["export", *common, "--run", "a", "--to", str(target), "--sst2", str(sst2)]) == 0
    figures = json.loads(target.with_suffix(".json").read_text())
    result = json.loads((tmp_path / "work/runs/a/result.json").read_text())
    assert figures["held_out"] == result["held_out"], "what is shipped is what was measured"
    assert figures["steps"] == 4 and mlm.metadata_of(target)["steps"] == "4"
    card = (target.parent / "README.md").read_text()
    assert "old" not in card and card.startswith("# Card") and card.endswith("Last words.\n")
    assert f"{figures['held_out']['all']['accuracy']:.1%}" in card and figures["sha256"] in card

    capsys.readouterr()
    assert mlm.main(["zeroshot", "--backbone", "tiny", "--file", str(target), "--sst2", str(sst2)]) == 0
    assert capsys.readouterr().out.strip() == mlm.zero_shot_table(figures["zero_shot"])

    more = ["train", *train, "--run", "b", "--steps", "3", "--seed", "1", "--start", str(target)]
    assert mlm.main(more) == 0
    assert mlm.main(["export", *common, "--run", "b", "--to", str(target), "--sst2", str(sst2)]) == 0
    assert json.loads(target.with_suffix(".json").read_text())["steps"] == 7

    assert mlm.main(["train", *train, "--run", "a", "--steps", "5"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_templates_have_words_on_both_sides_and_one_mask():
    assert len(mlm.TEMPLATES) == 10 == len({template.text for template in mlm.TEMPLATES.values()})
    for template in mlm.TEMPLATES.values():
        assert template.text.count("{mask}") == 1 == template.text.count("{sentence}")
        assert 1 <= len(template.negative) <= 3 and 1 <= len(template.positive) <= 3
        assert not set(template.negative) & set(template.positive)


def test_a_prior_that_favours_one_side_is_removed(backbone, monkeypatch):
    """Scores that lean to one side by the same amount for every sentence: raw they err, without the prior they do not."""
    lean = torch.tensor([[5.0, 0.0]]) + torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    monkeypatch.setattr(mlm, "TEMPLATES", {"tiny": mlm.Template("{sentence} {mask}.", ("-",), ("+",))})
    empty = torch.tensor([[5.0, 0.0]])
    monkeypatch.setattr(mlm, "word_scores", lambda model, tokenizer, template, rows: lean if len(rows) == 4 else empty)
    (row,) = mlm.zero_shot(None, None, ["a", "b", "c", "d"], [1, 0, 1, 0])
    assert (row["raw"], row["empty"], row["batch"]) == (0.5, 1.0, 1.0)


def test_a_label_word_of_several_pieces_is_refused(backbone, chunks):
    model = mlm.masked_lm(backbone.encoder, {})
    with pytest.raises(BadOption, match="one piece"):
        mlm.word_scores(model, backbone.tokenizer, mlm.Template("{sentence} {mask}", ("qqqz",), ("+",)), ["x"])


def test_a_missing_source_is_one_sentence(tmp_path, backbone):
    with pytest.raises(DataError, match="imdb_unlabelled"):
        mlm.cut_text(tmp_path, backbone.tokenizer, mlm.Cutting())

"""Multi-task P-tuning v2: one prompt in phase 1, one a task after phase 2, and heads that meet only their own rows."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from test_tasks import SENTENCES, folder

import ptv2lib as pt
from ptv2lib import multitask, training
from ptv2lib.errors import BadOption, OutputError
from ptv2lib.multitask import tempered, train_multitask
from ptv2lib.records import FIELDS, read_record
from ptv2lib.training import TrainingConfig, TrainingState, evaluate, plan_training, prepare

CONFIG = TrainingConfig(epochs=2, batch_size=8, weight_decay=0.1, max_length=64)


def load(*names, limit=32, scored=24):
    """Tasks of the miniature suite with few rows, also of those that are scored."""
    tasks = [pt.load_task(name, source="miniature", train_limit=limit) for name in names]
    return [
        replace(task, rows={split: rows if split == "train" else rows[:scored] for split, rows in task.rows.items()})
        for task in tasks
    ]


def build(tasks, **options):
    return pt.build_model(tasks[0], backbone="tiny", **({"method": "mpt2", "prompt_length": 4} | options))


@pytest.fixture(scope="module")
def entities():
    return load("conll04", "wikiann")


@pytest.fixture(scope="module")
def finished(entities, tmp_path_factory):
    """A finished group of two, its folder, and the frozen encoder's weights from before."""
    model = build(entities)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    out = tmp_path_factory.mktemp("group") / "out"
    found = train_multitask(
        model, entities, CONFIG, output_dir=out, name="pair", progress=False, phase2_epochs=3, phase2_learning_rate=2e-2
    )
    return model, found, out, before


class Watched:
    """The loop, with what it was called with; before the call number `stop`, it is interrupted."""

    def __init__(self, monkeypatch, stop=math.inf):
        self.calls, self.after, self.stop, self.fit = [], [], stop, multitask.fit
        monkeypatch.setattr(multitask, "fit", self)

    def __call__(self, materials, config, **options):
        if len(self.calls) == self.stop:
            raise KeyboardInterrupt
        self.calls.append([material.plan.model for material in materials])
        state = self.fit(materials, config, **options)
        self.after.append([{k: v.detach().clone() for k, v in m.trainable().items()} for m in self.calls[-1]])
        return state


def test_the_prompt_is_one_in_phase_1_and_each_tasks_own_in_phase_2(entities, monkeypatch):
    watched, model = Watched(monkeypatch), build(entities)
    found = train_multitask(model, entities, CONFIG, progress=False)
    together, *alone = watched.calls
    assert [len(call) for call in watched.calls] == [2, 1, 1]
    assert all(member.prompt is model.prompt and member.backbone is model.backbone for member in together)
    assert together[0].head is model.head is not together[1].head
    assert [call[0] for call in alone] == list(found.models.values())
    own = [model, *found.models.values()]
    assert len({id(one.prompt) for one in own}) == len({id(one.head) for one in own}) == 3
    assert len({id(one.backbone) for one in own}) == 1
    ends = [state["prompt.keys_values"] for state in (watched.after[0][0], watched.after[1][0], watched.after[2][0])]
    assert not any(torch.equal(ends[i], ends[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    # What a model ended with is what it still has: neither phase 2 touched phase 1's weights or the other's.
    for one, end in zip(own, (watched.after[0][0], watched.after[1][0], watched.after[2][0]), strict=True):
        assert all(torch.equal(weight, end[name]) for name, weight in one.trainable().items())


def test_the_encoder_stays_bit_for_bit(finished):
    model, found, _, before = finished
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    for one in (model, *found.models.values()):
        assert set(one.trainable()) == {"prompt.keys_values", "head.linear.weight", "head.linear.bias"}
        assert not one.training


def test_a_head_learns_from_its_own_rows_only(entities, monkeypatch):
    watched, model = Watched(monkeypatch, stop=1), build(entities)
    monkeypatch.setattr(multitask, "tempered", lambda sizes, temperature: [1.0, 0.0])
    untouched = model.for_task(entities[1], CONFIG.seed).head.state_dict()
    start = {name: weight.detach().clone() for name, weight in model.trainable().items()}
    with pytest.raises(KeyboardInterrupt):
        train_multitask(model, entities, CONFIG, progress=False)
    assert all(not torch.equal(weight, start[name]) for name, weight in model.trainable().items())
    other = watched.calls[0][1].head.state_dict()  # weight decay does not reach it, either
    assert all(torch.equal(value, untouched[name]) for name, value in other.items())


def test_a_batch_comes_from_one_data_set_and_moves_only_its_head(entities, monkeypatch):
    collate, batches, heads, model = training.collate, [], [], build(entities)

    def seen(encoded, tokenizer):
        batches.append(encoded)
        heads.append([one.head.linear.weight.detach().clone() for one in loop.calls[0]])
        return collate(encoded, tokenizer)

    monkeypatch.setattr(training, "collate", seen)
    loop, materials = Watched(monkeypatch, stop=1), []
    monkeypatch.setattr(multitask, "prepare", lambda plan: (materials.append(prepare(plan)), materials[-1])[1])
    with pytest.raises(KeyboardInterrupt):
        train_multitask(model, entities, CONFIG, progress=False)
    home = {id(one): k for k, material in enumerate(materials) for unit in material.units for one in unit}
    sets = [{home[id(one)] for one in batch} for batch in batches]
    assert len(sets) == CONFIG.epochs * sum(material.batches for material in materials)
    assert all(len(found) == 1 for found in sets) and {0} in sets and {1} in sets
    moved = [
        {k for k in (0, 1) if not torch.equal(before[k], after[k])}
        for before, after in zip(heads, heads[1:], strict=False)
    ]
    assert moved[0] == set() and moved[1:] == sets[1:-1]  # the first step of the warm-up has a rate of 0


def test_probabilities_follow_the_tempered_sizes():
    assert tempered([100, 25], 0.5) == pytest.approx([2 / 3, 1 / 3])
    assert tempered([100, 25], 1) == pytest.approx([0.8, 0.2])
    assert tempered([100, 25, 7], 0) == pytest.approx([1 / 3] * 3)


def test_steps_are_drawn_by_these_probabilities_and_rows_come_round():
    tasks = [*load("conll04", limit=128), *load("wikiann", limit=32)]
    model = build(tasks)
    materials = [prepare(plan_training(model.for_task(task), task, CONFIG)) for task in tasks]
    sizes = [material.batches for material in materials]
    assert sizes == [16, 4]
    state = TrainingState(None, None, torch.Generator().manual_seed(0), [[], []])
    epochs = [list(training._turns(materials, tempered(sizes, 0.5), CONFIG, state)) for _ in range(60)]
    assert all(len(turns) == 20 for turns in epochs)
    drawn = [turn for turns in epochs for turn in turns]
    share = sum(k == 0 for k, _, _ in drawn) / len(drawn)
    deviation = math.sqrt(2 / 3 * 1 / 3 / len(drawn))  # of a share of independent draws
    assert abs(share - 2 / 3) < 6 * deviation < min(2 / 3 - 0.5, 0.8 - 2 / 3)  # neither all alike nor by size
    for k, material in enumerate(materials):
        units = [id(unit) for of, _, batch in drawn if of == k for unit in batch]
        everything = sorted(map(id, material.units))
        rounds = [units[i : i + len(everything)] for i in range(0, len(units), len(everything))]
        assert len(rounds) > 2 and all(sorted(one) == everything for one in rounds[:-1])
        assert rounds[0] != rounds[1]


def test_a_seed_repeats_both_phases(entities):
    def run(seed):
        found = train_multitask(build(entities), entities, replace(CONFIG, seed=seed), progress=False)
        return found.history, [one.record["history"] for one in found.runs.values()]

    assert run(1) == run(1) != run(2)


def test_the_seed_orders_the_rows(entities):
    def losses(seed):
        model = build(entities, method="pt2", backbone_dropout=0.0, head_dropout=0.0)
        run = pt.train(model, entities[0], replace(CONFIG, epochs=1, seed=seed), progress=False)
        return run.record["history"]["epochs"][0]["loss"]

    assert losses(1) == losses(1) != losses(2)


def test_the_best_mean_is_kept(finished, entities):
    _, found, out, _ = finished
    means = [line["selection"] for line in found.history]
    for line in found.history:
        scores = [one["selection"] for one in line["tasks"].values()]
        assert line["selection"] == pytest.approx(sum(scores) / 2)
        assert sum(one["steps"] for one in line["tasks"].values()) == 8
    for task in entities:
        phase1 = read_record(found.runs[task.name].record_path)["settings"]["phase1"]
        best = phase1["best_epoch"]
        assert means[best - 1] == max(means)
        assert phase1["metrics"]["validation"]["f1"] == found.history[best - 1]["tasks"][task.name]["selection"]
        loaded = pt.load_prompt(out / "phase1" / task.name)
        rows = task.rows["test"]
        assert evaluate(loaded, loaded.encode(rows), rows) == phase1["metrics"]["test"]


def test_the_records_say_what_was_done(finished, entities):
    _, found, out, _ = finished
    for task in entities:
        record = read_record(out / task.name / "record.json")
        assert list(record) == FIELDS and record == json.loads(json.dumps(found.runs[task.name].record))
        assert (record["task"], record["method"], record["name"]) == (task.name, "mpt2", "pair")
        phase1, later = record["settings"]["phase1"], record["settings"]["training"]
        assert phase1["tasks"] == ["conll04", "wikiann"] and phase1["temperature"] == 0.5
        assert (phase1["epochs"], later["epochs"]) == (2, 3) and len(record["history"]["epochs"]) == 3
        assert (phase1["learning_rate"], later["learning_rate"]) == (5e-2, 2e-2)
        head = found.models[task.name].head.linear
        assert record["trainable_parameters"] == 2 * 2 * 32 * 4 + head.weight.numel() + head.bias.numel()
        assert len((out / task.name / "log.jsonl").read_text().splitlines()) == 3
        example = [{"tokens": ["Ann", "met", "Bob"]}]
        assert pt.load_prompt(out / task.name / "prompt").predict(example) == found.models[task.name].predict(example)
    *epochs, last = map(json.loads, (out / "phase1.jsonl").read_text().splitlines())
    assert [{k: v for k, v in line.items() if k != "seconds"} for line in epochs] == found.history
    assert {name: run.record["settings"]["phase1"]["metrics"] for name, run in found.runs.items()} == last["metrics"]


def test_the_model_is_left_with_phase_1(finished):
    model, _, out, _ = finished
    example = [{"tokens": ["Ann", "met", "Bob"]}]
    assert model.predict(example) == pt.load_prompt(out / "phase1" / "conll04").predict(example)


def test_phase_2_is_a_training_from_phase_1_undisturbed_by_the_other_task(finished, entities):
    _, found, out, _ = finished
    loaded = pt.load_prompt(out / "phase1" / "wikiann")
    alone = pt.train(loaded, entities[1], replace(CONFIG, epochs=3, learning_rate=2e-2), progress=False)
    record = found.runs["wikiann"].record
    assert alone.record["history"] == record["history"] and alone.metrics == record["metrics"]


def test_an_interrupted_run_keeps_what_was_finished(entities, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Watched(patch, stop=2)
        train_multitask(build(entities), entities, CONFIG, output_dir=out, progress=False)
    first = (out / "conll04" / "record.json").read_text()
    assert pt.load_prompt(out / "conll04" / "prompt").family == entities[0].family
    assert {path.name for path in (out / "wikiann").iterdir()} == {"run.json"}
    assert "metrics" in json.loads((out / "phase1.jsonl").read_text().splitlines()[-1])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # again, cut off after phase 1
        patch.setattr(multitask, "predict_sets", lambda *given, **named: (_ for _ in ()).throw(KeyboardInterrupt))
        train_multitask(build(entities), entities, CONFIG, output_dir=out, progress=False)
    assert (out / "conll04" / "record.json").read_text() == first
    train_multitask(build(entities), entities, CONFIG, output_dir=out, progress=False)
    assert read_record(out / "wikiann" / "record.json")["history"]["epochs"]


def test_an_interrupted_phase_1_leaves_a_model_that_knows_it_was_trained(entities, tmp_path, monkeypatch):
    model, scored = build(entities), []

    def cut_off(material):
        if len(scored) == len(entities):  # in the second epoch
            raise KeyboardInterrupt
        scored.append(material)
        return {"f1": 0.5}, 0.0

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_select", cut_off)
        train_multitask(model, entities, replace(CONFIG, epochs=3), progress=False)
    assert model.trained
    train_multitask(model, entities, CONFIG, output_dir=tmp_path / "o", progress=False)
    assert json.loads((tmp_path / "o" / "run.json").read_text())["continued"]


def test_folders_of_other_runs_are_refused_before_training_and_kept(entities, finished, tmp_path, monkeypatch):
    _, found, out, _ = finished
    watched = Watched(monkeypatch)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = {"output_dir": out, "name": "pair", "progress": False, "phase2_epochs": 3, "phase2_learning_rate": 2e-2}
    with pytest.raises(OutputError, match=r"phase1\.temperature=0\.5, not 1\.0"):
        train_multitask(build(entities), entities, CONFIG, **again, temperature=1.0)
    with pytest.raises(OutputError, match=r"phase1\.epochs=2, not 4"):
        train_multitask(build(entities), entities, replace(CONFIG, epochs=4), **again)
    with pytest.raises(OutputError, match="model_seed=0, not None"):  # the same settings by the ordinary loop
        pt.train(
            pt.load_prompt(out / "phase1" / "wikiann"),
            entities[1],
            replace(CONFIG, epochs=3, learning_rate=2e-2),
            output_dir=out / "wikiann",
            name="pair",
            progress=False,
        )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
    single = build(entities, method="pt2")
    pt.train(single, entities[0], CONFIG, output_dir=tmp_path / "new" / "conll04", progress=False)
    with pytest.raises(OutputError, match="method='pt2', not 'mpt2'"):
        train_multitask(build(entities), entities, CONFIG, output_dir=tmp_path / "new", progress=False)
    (tmp_path / "other" / "prompt").mkdir(parents=True)
    with pytest.raises(OutputError, match="results of something else"):
        train_multitask(build(entities), entities, CONFIG, output_dir=tmp_path / "other", progress=False)
    mine = shutil.copytree(out, tmp_path / "copy") / "phase1" / "wikiann" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(OutputError, match="something else than a saved prompt"):
        train_multitask(build(entities), entities, CONFIG, **again | {"output_dir": tmp_path / "copy"})
    assert mine.read_text() == "mine"
    for model, config in (("sst2", CONFIG), (build(entities), "fast")):
        with pytest.raises(BadOption, match="Training takes a model of build_model"):
            train_multitask(model, entities, config, progress=False)
    assert not watched.calls


def test_questions_without_answers(tmp_path):
    tasks = load("squad", "squad_v2", limit=12, scored=8)
    model = build(tasks)
    found = train_multitask(
        model, tasks, replace(CONFIG, epochs=1, max_length=192), output_dir=tmp_path, progress=False
    )
    for name, run in found.runs.items():
        joint = run.record["settings"]["phase1"]["metrics"]["test"]
        assert "no_answer" in joint and pt.load_prompt(tmp_path / "phase1" / name).family.unanswerable
        assert found.models[name].family.unanswerable is ("no_answer" in run.metrics["test"]) is (name == "squad_v2")
    assert model.family == tasks[0].family and model.max_length == 192
    assert multitask._joint_family(tasks[0].family, [tasks[0], tasks[0]]) == tasks[0].family  # none without an answer


def test_roles():
    tasks = load("ewt_srl", "conll12")
    found = train_multitask(build(tasks), tasks, replace(CONFIG, epochs=1), progress=False)
    labels = [len(task.family.labels) for task in tasks]
    assert [one.head.linear.out_features for one in found.models.values()] == labels and labels[0] != labels[1]
    assert all(math.isfinite(run.record["history"]["epochs"][0]["loss"]) for run in found.runs.values())


def test_a_group_learns(tmp_path):
    def words(name, one, two):
        rows = [{"sentence": f"{(one, two)[i % 2]} {i % 7}", "label": i % 2} for i in range(64)]
        family = pt.Classification(name, ("sentence",), ("no", "yes"))
        data = folder(tmp_path / name, train=rows, validation=rows[:16], test=rows[16:32])
        return pt.load_task(family, dataset=data)

    tasks = [words("first", "zz", "qq"), words("second", "kk", "pp")]
    config = TrainingConfig(epochs=15, learning_rate=5e-2)
    found = train_multitask(build(tasks), tasks, config, progress=False, phase2_epochs=2)
    for task in tasks:
        losses = [line["tasks"][task.name]["loss"] for line in found.history]
        assert losses[-1] < 0.6 * losses[0]
        phase1 = found.runs[task.name].record["settings"]["phase1"]
        means = [line["selection"] for line in found.history]
        assert phase1["best_epoch"] == 1 + means.index(max(means)) and max(means) > min(means)
        kept = found.history[phase1["best_epoch"] - 1]["tasks"][task.name]["selection"]
        assert phase1["metrics"]["validation"]["accuracy"] == kept
        assert found.runs[task.name].metrics["test"]["accuracy"] > 0.9


def test_patience_ends_phase_1(entities):
    config = replace(CONFIG, epochs=30, patience=2, learning_rate=1e-6)
    found = train_multitask(build(entities), entities, config, progress=False)
    best = found.runs["conll04"].record["settings"]["phase1"]["best_epoch"]
    assert len(found.history) == best + 2 < 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ["conll04"]}, "needs two tasks or more, not 1"),
        ({"tasks": ["conll04", "conll04"]}, "'conll04' is named twice"),
        ({"tasks": ["conll04", "squad"]}, "'conll04' is Tagging but 'squad' is QuestionAnswering"),
        ({"tasks": ["conll04", "ewt_srl"]}, "'conll04' is Tagging but 'ewt_srl' is SemanticRoles"),
        ({"tasks": ["conll03", "wikiann"]}, "built for 'conll04', which is none of conll03, wikiann"),
        ({"method": "pt2"}, "method='mpt2', not 'pt2'"),
        ({"temperature": 2.0}, "temperature=2.0 must be a number between 0"),
        ({"temperature": "hot"}, "temperature=hot must be a number between 0"),
        ({"phase2_learning_rate": "slow"}, "phase2_learning_rate=slow must be a number"),
        ({"phase2_epochs": 0}, "phase2_epochs=0 must be a whole number"),
    ],
)
def test_what_is_no_group(change, words, entities, monkeypatch):
    watched, model = Watched(monkeypatch), build(entities, method=change.get("method", "mpt2"))
    tasks = load(*change["tasks"]) if "tasks" in change else entities
    options = {key: value for key, value in change.items() if key not in ("tasks", "method")}
    with pytest.raises(BadOption, match=words) as caught:
        train_multitask(model, tasks, CONFIG, progress=False, **options)
    assert "\n" not in str(caught.value) and not watched.calls


@pytest.mark.parametrize(
    "given", [lambda tasks: tasks[0], lambda tasks: "conll04", lambda tasks: ["conll04", "wikiann"]]
)
def test_only_loaded_tasks_are_a_group(given, entities):
    with pytest.raises(
        BadOption, match="needs two tasks or more, not 1|a task of load_task and a TrainingConfig, not 'conll04'"
    ):
        train_multitask(build(entities), given(entities), CONFIG, progress=False)


def test_labels_in_another_order_are_not_the_models_task(entities):
    family = entities[0].family
    turned = replace(entities[0], family=replace(family, types=tuple(reversed(family.types))))
    with pytest.raises(BadOption, match="its labels differ from the data set's"):
        train_multitask(build([turned]), entities, CONFIG, progress=False)


def test_tasks_of_one_kind_are_a_group_whatever_their_class():
    tasks = load("boolq", "wic", limit=16, scored=8)
    found = train_multitask(build(tasks), (task for task in tasks), replace(CONFIG, epochs=1), progress=False)
    assert set(found.runs) == {"boolq", "wic"}


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    data = folder(tmp_path / "data", train=SENTENCES, validation=SENTENCES[:8])
    families = [pt.Classification(name, ("sentence",), ("no", "yes")) for name in ("first", "../second")]
    tasks = [pt.load_task(family, dataset=data) for family in families]
    with pytest.raises(BadOption, match="fit for a folder"):
        train_multitask(build(tasks), tasks, CONFIG, output_dir=tmp_path / "out", progress=False)

"""The plans of the measuring script are runs that the command line takes."""

import tempfile
from collections import Counter
from dataclasses import fields

import measure
import pandas
import pytest
from test_tasks import TAGGED, folder

from ptv2lib.errors import DataError
from ptv2lib.methods import METHODS
from ptv2lib.multitask import PHASES
from ptv2lib.options import ModelOptions
from ptv2lib.records import read_record
from ptv2lib.tasks import TASKS
from ptv2lib.training import TrainingConfig

FIXED = (
    "anchors",
    "sentence_rates",
    "classification",
    "dropout_rates",
    "variants",
    "families",
    *(f"trials-{task}" for task in measure.COMPARED),
    "together",
    "miniature",
    "miniature_prompts",
)


def test_every_plan_names_what_exists():
    options = {field.name for owner in (ModelOptions, TrainingConfig) for field in fields(owner)}
    for name in FIXED:
        for plan in measure.PLANS[name]():
            assert set(plan.task.split("+")) <= set(TASKS) and plan.method in METHODS
            phases = PHASES if plan.method == "mpt2" else ()
            assert {setting.partition("=")[0] for setting in plan.settings.split()} <= options | set(phases)


def test_no_two_different_runs_share_a_record():
    made: dict = {}
    for name in FIXED:
        for plan in measure.PLANS[name]():
            for seed in plan.seeds:
                what = (plan.settings, plan.train_limit, plan.scored, plan.miniature)
                for path in plan.records(seed).values():
                    assert made.setdefault(path, what) == what


def test_the_search_keeps_its_budget():
    assert sum(len(plan.seeds) for name in ("dropout_rates", "variants") for plan in measure.PLANS[name]()) == 24


@pytest.mark.parametrize("task", measure.COMPARED)
def test_every_method_gets_the_same_number_of_trials(task):
    counted = Counter(plan.method for plan in measure.trials(task))
    assert set(counted.values()) == {8} and {"probe", "pt", "pt2", "ft"} <= set(counted) <= set(measure.TRIED)


@pytest.mark.parametrize("task", measure.COMPARED)
def test_the_comparison_takes_what_the_trials_selected(task, monkeypatch):
    tried = measure.trials(task)
    monkeypatch.setattr(measure.Plan, "selection", lambda plan: tried.index(plan))  # the last one wins
    last = {plan.method: plan for plan in tried}
    compared = {plan.method: plan for plan in measure.comparison(task)}
    assert compared.keys() == last.keys()
    for method, plan in compared.items():
        assert plan.settings.split()[1:] == last[method].settings.split()[1:] and plan.seeds == (0, 1, 2)
        assert (plan.train_limit or 10_000) > last[method].train_limit


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Runs a plan on the `tiny` encoder and gives its records by their file's name."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the claims of another copy of these tests stay apart

    def run(task, method, settings, **options):
        plan = measure.Plan(task, method, "quick", settings, seeds=(0,), backbone="tiny", **options)
        measure.run(plan, 0, tmp_path)
        return {path.stem: read_record(path) for path in sorted(measure.RESULTS.iterdir())}

    return run


def test_several_sets_are_run_from_one_folder_and_leave_a_record_each(quick, tmp_path):
    named = [{"tokens": ["Ann", "met", "Bob"], "entities": [{"start": 0, "end": 1, "type": "Peop"}]}] * 8
    folder(tmp_path / "conll04", train=named, validation=named, test=named)
    folder(tmp_path / "wikiann_en", train=TAGGED * 5, validation=TAGGED, test=TAGGED)
    found = quick("conll04+wikiann", "mpt2", "prompt_length=2 epochs=1 phase2_epochs=2 temperature=1.0")
    assert list(found) == ["conll04-mpt2-quick-seed0", "wikiann-mpt2-quick-seed0"]
    for record in found.values():
        assert record["settings"]["phase1"]["temperature"] == 1.0 and len(record["history"]["epochs"]) == 2


def test_a_part_of_the_official_validation_is_scored(quick, tmp_path):
    def questions(start, count):
        texts = [f"The roof of house {k} is green." for k in range(start, start + count)]
        return [
            {
                "id": str(start + k),
                "title": str(k),
                "question": "Which colour has the roof?",
                "context": text,
                "answers": {"text": ["green"], "answer_start": [text.index("green")]},
            }
            for k, text in enumerate(texts)
        ]

    (tmp_path / "squad_articles").mkdir()
    for split, rows in (("train", questions(0, 30)), ("validation", questions(100, 9))):
        pandas.DataFrame(rows).to_parquet(tmp_path / "squad_articles" / f"{split}.parquet")
    (record,) = quick("squad", "probe", "epochs=1", train_limit=8, scored=5).values()
    assert record["data"]["rows"]["test"] == 5 and record["data"]["rows"]["train"] == 8


def test_the_anchor_of_deep_prompts_is_a_run_of_the_search():
    assert [plan.name for plan in measure.dropout_rates()].count("anchor") == 1


def test_a_choice_waits_for_the_records_it_rests_on(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    with pytest.raises(DataError):
        measure.finalists()

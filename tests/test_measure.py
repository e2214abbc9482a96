"""The plans of the measuring script are runs that the command line takes."""

from dataclasses import fields

import measure
import pytest

from ptv2lib.errors import DataError
from ptv2lib.methods import METHODS
from ptv2lib.options import ModelOptions
from ptv2lib.tasks import TASKS
from ptv2lib.training import TrainingConfig

FIXED = (
    "anchors",
    "sentence_rates",
    "classification",
    "dropout_rates",
    "variants",
    "families",
    "miniature",
    "miniature_prompts",
)


def test_every_plan_names_what_exists():
    options = {field.name for owner in (ModelOptions, TrainingConfig) for field in fields(owner)}
    for name in FIXED:
        for plan in measure.PLANS[name]():
            assert plan.task in TASKS and plan.method in METHODS
            assert {setting.partition("=")[0] for setting in plan.settings.split()} <= options


def test_no_two_different_runs_share_a_record():
    made: dict = {}
    for name in FIXED:
        for plan in measure.PLANS[name]():
            for seed in plan.seeds:
                what = (plan.settings, plan.train_limit, plan.miniature)
                assert made.setdefault(plan.record(seed), what) == what


def test_the_search_keeps_its_budget():
    assert sum(len(plan.seeds) for name in ("dropout_rates", "variants") for plan in measure.PLANS[name]()) == 24


def test_the_anchor_of_deep_prompts_is_a_run_of_the_search():
    assert [plan.name for plan in measure.dropout_rates()].count("anchor") == 1


def test_a_choice_waits_for_the_records_it_rests_on(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    with pytest.raises(DataError):
        measure.finalists()

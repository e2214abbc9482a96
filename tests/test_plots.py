"""The tables that notebooks print."""

from types import SimpleNamespace

import pytest

from ptv2lib.errors import DataError
from ptv2lib.plots import recorded_table, scores_table
from ptv2lib.records import main_score, summarize


def record(name: str, seed: int, score: float) -> dict:
    return {
        "name": name, "task": "rte", "method": "pt2", "backbone": "minilm", "seed": seed, "seconds": 1.0,
        "metrics": {"test": {"accuracy": score}}, "majority": {"accuracy": 0.5, "answer": "entailment"},
        "standard_error": score / 20, "trainable_parameters": 1234,
    }  # fmt: skip


def test_recorded_runs_are_summed_up_and_missing_ones_are_named():
    records = [record("long", seed, score) for seed, score in enumerate((0.6, 0.7, 0.8))]
    records += [record("search-1", 0, 0.9), record("long", 0, 0.1) | {"task": "sst2"}]
    head, line, missing = recorded_table(records, "rte", ["short", "long"]).splitlines()
    assert line.split() == ["pt2", "long", "0.700", "±", "0.100", "0.035", "0.500", "3", "1,234"]
    assert len(head) == len(line)
    assert missing == "short: not recorded here yet"
    assert recorded_table([], "rte", ["short"]) == missing


def test_a_run_without_a_test_shows_a_dash_and_has_no_main_score():
    run = SimpleNamespace(
        metrics={"validation": {"accuracy": 0.5}, "test": None},
        majority={"accuracy": 0.5, "answer": "positive"},
        trainable_parameters=66,
        seconds=1.0,
    )
    assert scores_table({"probe": run}, "accuracy").splitlines()[1].split() == ["probe", "0.500", "-", "66", "1.0"]
    record = {"task": "sst2", "method": "probe", "metrics": run.metrics}
    assert main_score(record, "validation") == 0.5
    with pytest.raises(DataError, match="has no score on 'test'; it has validation"):
        main_score(record)


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    first = record("", 0, 0.6)
    others = [first | {"backbone": "bert-large"}, first | {"data": {"source": "hub", "train_limit": 100}}]
    rows = summarize([first, record("", 1, 0.8), *others])
    assert sorted((row["backbone"], row["seeds"]) for row in rows) == [("bert-large", 1), ("minilm", 1), ("minilm", 2)]


def test_one_seed_with_two_settings_is_refused_until_the_runs_have_names():
    runs = [record("", 0, 0.6), record("", 0, 0.6) | {"trainable_parameters": 9}]
    with pytest.raises(DataError, match="Two runs of 'pt2' on 'rte' have name=None and seed=0"):
        summarize(runs)
    assert len(summarize([runs[0], runs[1] | {"name": "short"}])) == 2

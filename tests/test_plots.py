"""The tables that notebooks print."""

from ptv2lib.plots import recorded_table


def record(name: str, seed: int, score: float) -> dict:
    return {
        "name": name, "task": "rte", "method": "pt2", "backbone": "minilm", "seed": seed, "seconds": 1.0,
        "metrics": {"test": {"accuracy": score}}, "majority": {"accuracy": 0.5, "answer": "entailment"},
        "standard_error": 0.03, "trainable_parameters": 1234,
    }  # fmt: skip


def test_recorded_runs_are_summed_up_and_missing_ones_are_named():
    records = [record("long", seed, score) for seed, score in enumerate((0.6, 0.7, 0.8))]
    records += [record("search-1", 0, 0.9), record("long", 0, 0.1) | {"task": "sst2"}]
    head, line, missing = recorded_table(records, "rte", ["short", "long"]).splitlines()
    assert line.split() == ["pt2", "long", "0.700", "±", "0.100", "0.030", "0.500", "3", "1,234"]
    assert len(head) == len(line)
    assert missing == "short: not recorded here yet"
    assert recorded_table([], "rte", ["short"]) == missing

"""The roles and the table that print numbers."""

import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

from ptv2lib.records import read_records

pytest.importorskip("sphinx", reason="the book's packages are not part of this environment")
results = pytest.importorskip("results")

ROOT = Path(__file__).parent.parent


def record(method: str, seed: int, score: float, name: str | None = None, source: str = "conll04") -> dict:
    metrics = {"validation": {"f1": score - 0.1}, "test": {"f1": score}}
    return {
        "name": name, "task": "conll04", "method": method, "backbone": "minilm", "seed": seed, "metrics": metrics,
        "majority": {"f1": 0.25}, "trainable_parameters": 1234, "seconds": 10.0 + seed, "standard_error": None,
        "data": {"source": source, "rows": {"train": 1000, "validation": 200, "test": 300}},
        "settings": {"precision": "bf16" if seed else "fp32"},
    }  # fmt: skip


RECORDS = [record("pt2", seed, score) for seed, score in enumerate((0.70, 0.72, 0.74))]
RECORDS += [record("probe", 0, 0.4), record("pt2", 0, 0.8, "long")]
TABLES = results.read_paper(ROOT)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conll04/pt2", "72.0 ± 2.0"),
        ("conll04/pt2/long", "80.0"),
        ("conll04/pt2:validation.f1", "62.0 ± 2.0"),
        ("conll04/pt2:seeds", "3"),
        ("conll04/pt2:trainable_parameters", "1,234"),
        ("conll04/pt2:seconds", "11"),
        ("conll04/pt2:majority", "25.0"),
    ],
)
def test_result(text, shown):
    assert results.result(RECORDS, text)[0] == shown


@pytest.mark.parametrize("text", ["conll04", "conll04/ft", "rte/pt2", "conll04/pt2:test.accuracy", "conll04/pt2/short"])
def test_unknown_result(text):
    with pytest.raises(KeyError):
        results.result(RECORDS, text)


def test_one_seed_twice():
    with pytest.raises(KeyError, match="same seed"):
        results.result([*RECORDS, record("probe", 0, 0.5)], "conll04/probe")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("acl/table3_ner/BERT-large/CoNLL04/PT2", "84.5"),
        ("arxiv1/table5/RTE/verbalizer", "86.6"),
        ("acl/table3_qa/BERT-large/SQuAD1.1/PT2/F1", "86.0"),
    ],
)
def test_paper(text, shown):
    assert results.paper(TABLES, text)[0] == shown


@pytest.mark.parametrize(
    "text",
    ["acl/table2/BERT-large/RTE", "acl/table2/BERT-large/RTE/MPT2", "acl/table2/BERT-large/RTE/PT2/F1", "acl/none"]
    + ["acl/table3_qa/BERT-large/SQuAD1.1/PT2", "arxiv1/table5/RTE/PT2", "columns"],
)
def test_unknown_number_of_the_paper(text):
    with pytest.raises(KeyError):
        results.paper(TABLES, text)


def test_table():
    options = {"methods": "probe pt2 pt2/long", "paper": "acl/table3_ner/BERT-large/CoNLL04"}
    assert results.table(RECORDS, "conll04", options, TABLES) == [
        ["Method", "f1, test (%)", "Seeds", "Trainable parameters", "Paper, BERT-large (%)"],
        ["head only", "40.0", "1", "1,234", "–"],
        ["P-tuning v2", "72.0 ± 2.0", "3", "1,234", "84.5"],
        ["P-tuning v2, long", "80.0", "1", "1,234", "84.5"],
        ["the most frequent answer", "25.0", "–", "–", "–"],
    ]


def test_what_was_measured_on_real_data():
    runs = [*RECORDS, record("pt2", 0, 0.9, "miniature", source="miniature")]
    runs += [record("pt2", seed, 0.6, "search-length8") for seed in (0, 1)] + [record("pt2", 0, 0.7, "search-length64")]
    assert results.measured(runs, "conll04") == [
        ["Method", "f1, test (%)", "Majority line", "Row error", "Seeds", "Run", "Rows: train / scored", "Precision"],
        ["head only", "40.0", "25.0", "–", "1", "–", "1,000 / 300", "fp32"],
        ["P-tuning v2", "72.0 ± 2.0", "25.0", "–", "3", "–", "1,000 / 300", "bf16, fp32"],
        ["P-tuning v2", "80.0", "25.0", "–", "1", "long", "1,000 / 300", "fp32"],
        ["P-tuning v2", "60.0 ± 0.0", "25.0", "–", "2", "search-length8", "1,000 / 300", "bf16, fp32"],
    ]
    assert results.searched(runs, "conll04") == [
        ["Method", "Setting", "f1, validation (%)", "Training rows", "Seeds"],
        ["P-tuning v2", "length64", "60.0", "1,000", "1"],
        ["P-tuning v2", "length8", "50.0 ± 0.0", "1,000", "2"],
    ]
    assert not results.measured(runs, "rte") and not results.searched(runs, "rte")


def test_neighbours_of_the_papers_order_are_told_apart_or_not():
    def runs(method, *scores):
        return [record(method, seed, score, "compared") for seed, score in enumerate(scores)]

    told = runs("pt", 0.60, 0.61, 0.62) + runs("pt2", 0.70, 0.71, 0.72) + runs("ft", 0.66, 0.72, 0.78)
    told += runs("probe", 0.80, 0.81, 0.82)
    cells = results.gaps(told, "conll04", ["compared"])
    assert [line[3] for line in cells[1:]] == ["fails", "holds", "cannot be told"]
    # scipy.stats.ttest_ind([.70, .71, .72], [.60, .61, .62], equal_var=False).confidence_interval() gives .0773 to .1227
    assert cells[2][:3] == ["P-tuning v2 above prompt tuning", "+10.0", "+7.7 to +12.3"]
    assert not results.gaps(told, "conll04", ["other"])
    # Not every record of an F1 has an error of its rows, so none counts; of accuracies all do.
    assert results.gaps([run | {"standard_error": 0.05} for run in told], "conll04", ["compared"]) == cells
    shares = [run | {"standard_error": 0.05, "majority": {"accuracy": 0.25}} for run in told]
    assert results.gaps(shares, "conll04", ["compared"])[2][3] == "cannot be told"


@pytest.mark.parametrize("other", [[0.5, 0.52, 0.58], [0.6, 0.6, 0.61]])
def test_the_interval_of_a_gap_is_welchs(other):
    one = [0.70, 0.73, 0.71]
    rows = [
        {"mean": statistics.mean(x), "deviation": statistics.stdev(x), "seeds": 3, "standard_error": None}
        for x in (one, other)
    ]
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert results.gap(*rows)[1:] == pytest.approx((expected.low, expected.high))
    rows[0]["standard_error"] = 0.05  # few scored rows make it wider
    assert results.gap(*rows)[1] < expected.low


def test_the_page_lists_every_run_on_real_data_and_explains_its_name():
    page = (ROOT / "book/measured.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{measured\} (\w+)\n(.*?)```", page, re.DOTALL)
    explained = [name.removesuffix("…") for name in re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)]
    records = [run for run in read_records(ROOT / results.RECORDS) if run["data"]["source"] != "miniature"]
    assert records and explained
    for run in records:
        name, searching = run["name"] or "", (run["name"] or "").startswith(results.SEARCHES)
        assert run["task"] in [task for task, options in blocks if (":searches:" in options) == searching], run["task"]
        assert searching or name.startswith(tuple(explained)), name

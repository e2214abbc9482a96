"""What is asked of the Hub: the registry's pins, the cache before the network. Nothing is downloaded."""

import datasets
import pytest

from ptv2lib.__main__ import main
from ptv2lib.errors import DataError
from ptv2lib.sources import HubSet, read_hub
from ptv2lib.tasks import TASKS, load_task

GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
SUPERGLUE = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646")
BRANCH = "refs/convert/parquet"
ONTONOTES = "ontonotes/conll2012_ontonotesv5"
THREE = ("train", "validation", "test")


def asked(where, revision, config=None, splits=THREE, data_dir=None):
    """The calls that load some splits: repository, configuration, folder, split, commit or branch."""
    return {(where, config, data_dir, split, revision) for split in splits}


# Written out a second time, from part 1 of the research notes: a pin that changed by accident is found.
CALLS = {
    "sst2": asked(*GLUE, "sst2"),
    "mnli": asked(
        *GLUE, "mnli", ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    ),
    **{name: asked(*SUPERGLUE, name) for name in ["rte", "boolq", "cb", "copa", "multirc", "record", "wic", "wsc"]},
    "conll03": asked("lhoestq/conll2003", "19edcb426bfd625c275c17b9a99b2239243f4377"),
    "ontonotes5": asked("tner/ontonotes5", BRANCH),
    "conll04": asked("DFKI-SLT/conll04", None),
    "wikiann": asked("unimelb-nlp/wikiann", None, "en"),
    "squad": asked("rajpurkar/squad", "7b6d24c440a36b6815f21b70d25016731768db1f", None, THREE[:2]),
    "squad_v2": asked("rajpurkar/squad_v2", "3ffb306f725f7d2ce8394bc1873b24868140c412", None, THREE[:2]),
    "squadshifts": {
        call
        for name in ("new_wiki", "nyt", "reddit", "amazon")
        for call in asked("ludwigschmidt/squadshifts", BRANCH, None, ["test"], name)
    },
    "conll12": asked(ONTONOTES, BRANCH, None, THREE, "english_v12")
    | asked(ONTONOTES, BRANCH, None, ["test"], "english_v4"),
}
OWN_FILES_ONLY = {"conll05", "ewt_srl"}


@pytest.fixture
def hub(monkeypatch):
    """Answers in the Hub's place; gives the list of calls, and `hub.rows` makes the rows of an answer."""

    class Hub(list):
        def rows(self, data_dir, split):
            return [{"document_id": "a"}]

    calls = Hub()

    def load_dataset(hub_id, config=None, *, data_dir=None, split=None, revision=None, download_config=None):
        calls.append((hub_id, config, data_dir, split, revision))
        return datasets.Dataset.from_list(calls.rows(data_dir, split))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_every_task_is_asked_for_or_known_to_be_nowhere():
    assert CALLS.keys() | OWN_FILES_ONLY == TASKS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_the_pin_of_the_registry_reaches_the_hub(name, hub):
    tables, commit = read_hub(TASKS[name].hub)
    assert set(hub) == CALLS[name] and len(hub) == len(CALLS[name])
    assert list(tables) == list(TASKS[name].hub.rows)
    assert commit == TASKS[name].hub.revision  # None where no commit is pinned and the cache folder names none


@pytest.mark.parametrize("name", sorted(OWN_FILES_ONLY))
def test_a_set_that_is_nowhere_says_how_to_get_it(name, hub):
    with pytest.raises(DataError, match="not on the Hub.*dataset="):
        load_task(name)
    assert not hub


def test_the_standard_test_of_conll12_is_the_documents_of_the_smaller_release(hub):
    names = {("english_v12", "test"): "abcd", ("english_v4", "test"): "ca"}
    hub.rows = lambda data_dir, split: [{"document_id": name} for name in names.get((data_dir, split), "xy")]
    tables, _ = read_hub(TASKS["conll12"].hub)
    kept = {split: [row["document_id"] for row in table.rows] for split, table in tables.items()}
    assert kept == {"train": ["x", "y"], "validation": ["x", "y"], "test": ["a", "c"]}


def test_parts_of_squadshifts_go_under_their_own_names_and_train_on_squad(hub):
    def rows(data_dir, split):
        answers = {"text": ["Oslo"], "answer_start": [13]}
        where = {"title": "t", "context": "Ann lives in Oslo.", "question": f"{data_dir} {split}", "answers": answers}
        return [where | {"id": "1"}]

    hub.rows = rows
    with pytest.warns(UserWarning, match="official set"):
        task = load_task("squadshifts")
    assert {split: part[0]["question"] for split, part in task.rows.items()} == {
        "test": "new_wiki test",
        "test_nyt": "nyt test",
        "test_reddit": "reddit test",
        "test_amazon": "amazon test",
        "train": "None train",
        "validation": "None validation",
    }
    assert set(hub) == CALLS["squadshifts"] | CALLS["squad"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_cache_is_asked_first_and_the_network_once(fails, monkeypatch):
    calls = []

    def load_dataset(*_, download_config=None, **__):
        calls.append((download_config is not None and download_config.local_files_only, datasets.config.HF_HUB_OFFLINE))
        if len(calls) == 1 or fails:
            raise RuntimeError("Dataset scripts are no longer supported\nbut found x.py")
        return datasets.Dataset.from_list([{"a": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("ptv2lib.sources.require_network", lambda what: calls.append(what))
    source = HubSet("owner/name", None, None, "none", {"test": 1})
    if fails:
        with pytest.raises(DataError, match="'owner/name' cannot be loaded: Dataset scripts are no longer supported$"):
            read_hub(source)
    else:
        assert read_hub(source)[0]["test"].rows == [{"a": 1}]
    assert calls == [(True, True), "The data set 'owner/name'", (False, False)]
    assert datasets.config.HF_HUB_OFFLINE is False


def test_the_listing_says_what_nobody_tried_and_what_is_not_pinned(capsys):
    assert main(["tasks"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")}
    assert lines.keys() == TASKS.keys()
    for name, line in lines.items():
        hub = TASKS[name].hub
        assert ("not tried against the Hub" in line) == (name in CALLS) == (hub.hub_id is not None)
        assert ("not on the Hub" in line) == (name in OWN_FILES_ONLY)
        pinned = f"at {hub.revision};" in line
        assert pinned == (hub.revision is not None)
        loaded = {revision or "main" for _, _, _, _, revision in CALLS.get(name, ())}
        assert pinned or name in OWN_FILES_ONLY or f"at {loaded.pop()} (not pinned);" in line

"""`python -m ptv2lib`: one JSON object, one sentence, and exit codes that can be relied on."""

import json
import subprocess
import sys

import pytest
from test_tasks import SENTENCES, folder

from ptv2lib.__main__ import main
from ptv2lib.backbones import BACKBONES
from ptv2lib.methods import METHODS
from ptv2lib.tasks import TASKS


@pytest.fixture
def data(tmp_path):
    return str(folder(tmp_path / "data", train=SENTENCES, validation=SENTENCES[:8]))


def arguments(data, out, *more, method="pt2", task="sst2"):
    return [
        "run",
        "--task",
        task,
        "--method",
        method,
        "--backbone",
        "tiny",
        "--dataset",
        data,
        "--out",
        str(out),
        *more,
    ]


def test_the_last_line_is_the_result(data, tmp_path, capsys):
    assert main(arguments(data, tmp_path / "o", "--set", "epochs=1", "--set", "prompt_length=3", "--seed", "4")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result) == [
        "task",
        "method",
        "backbone",
        "seed",
        "metrics",
        "majority",
        "trainable_parameters",
        "seconds",
        "record",
    ]
    assert result["seed"] == 4 and set(result["metrics"]) == {"validation", "test"}
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"record.json", "log.jsonl", "prompt", "run.json"}


def test_several_tasks_take_settings_of_both_phases(tmp_path, capsys):
    wanted = {"temperature": 1.0, "phase2_epochs": 2, "phase2_learning_rate": 1e-3, "epochs": 1, "prompt_length": 3}
    command = ["run", "--task", "sst2+cb", "--method", "mpt2", "--backbone", "tiny", "--source", "miniature"]
    command += ["--train-limit", "16", "--out", str(tmp_path / "o")]
    command += [part for key, value in wanted.items() for part in ("--set", f"{key}={value}")]
    assert main(command) == 0
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert list(runs) == ["sst2", "cb"]
    settings = json.loads((tmp_path / "o" / "cb" / "record.json").read_text())["settings"]
    assert settings["phase1"]["temperature"] == 1.0 and settings["phase1"]["epochs"] == 1
    assert settings["training"]["epochs"] == 2 and settings["training"]["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"task": "sst3"}, 1, "did you mean 'sst2'"),
        ({"method": "pt-2"}, 1, "did you mean 'pt2'"),
        ({"more": ["--backbone", "minlm"]}, 1, "did you mean 'minilm'"),
        ({"more": ["--set", "epoch=3"]}, 2, "did you mean 'epochs'"),
        ({"more": ["--set", "epochs"]}, 2, "KEY=VALUE"),
        ({"more": ["--set", "epochs=many"]}, 1, "epochs=many must be a whole number"),
        ({"more": ["--set", "learning_rate=fast"]}, 1, "learning_rate=fast must be a number"),
        ({"more": ["--set", "warmup_ratio=fast"]}, 1, "warmup_ratio=fast must be a number"),
        ({"more": ["--set", "batch_size=none"]}, 1, "batch_size=None must be a whole number"),
        ({"more": ["--set", "head_dropout=none"]}, 1, "head_dropout=None must be a number"),
        ({"more": ["--set", "temperature=0.5"]}, 2, "There is no option 'temperature'"),
        ({"more": ["--train-limit", "0"]}, 1, "at least 1"),
        ({"more": ["--seed", "-1"]}, 1, "seed=-1 must lie between 0"),
        ({"more": ["--set", "seed=3"]}, 2, "--seed N"),
        ({"more": ["--set", "tune_backbone=no"]}, 1, "must be True or False"),
        ({"more": ["--set", "layers=2.5"]}, 1, "layers=2.5 cannot be read"),
        ({"more": ["--set", "clip=-1"]}, 1, "clip=-1 must be a number of at least 0"),
        ({"more": ["--set", "weight_decay=x"]}, 1, "weight_decay=x must be a number"),
        ({"more": ["--set", "selection=3"]}, 1, "There is no selection '3'"),
        ({"more": ["--set", "verbalizer={[]: 1}"]}, 1, "A verbalizer is a mapping"),
        ({"more": ["--backbone", "./nothing"]}, 1, "There is no backbone './nothing'"),
        # Wrong names are named before any data is looked for.
        ({"method": "p2", "more": ["--dataset", "nowhere"]}, 1, "did you mean 'pt2'"),
        ({"more": ["--backbone", "minlm", "--dataset", "nowhere"]}, 1, "did you mean 'minilm'"),
    ],
)
def test_mistakes_are_one_line(change, code, words, data, tmp_path, capsys):
    more = change.pop("more", [])
    assert main([*arguments(data, tmp_path / "o", **change), *more]) == code
    written = capsys.readouterr()
    assert written.out == "" and len(written.err.splitlines()) == 1 and words in written.err


@pytest.mark.parametrize("method", ["pt", "pt2"])
def test_a_value_that_is_called_none_is_taken(method, data, tmp_path):
    more = [part for one in ("epochs=1", "position_offset=none", "prompt_length=3") for part in ("--set", one)]
    assert main(arguments(data, tmp_path / "o", *more, method=method)) == 0
    settings = json.loads((tmp_path / "o" / "record.json").read_text())["settings"]
    assert settings["model"]["position_offset"] == "none"  # and not the method's default, as of other options


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory ran out"),
        (MemoryError(), "memory ran out"),
        (OSError(28, "No space left on device", "record.json"), "No space left on device"),
    ],
    ids=str,
)
def test_a_full_machine_is_one_line(error, words, data, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("ptv2lib.training.train", full)
    assert main(arguments(data, tmp_path / "o", "--set", "epochs=1")) == 1
    *notes, last = capsys.readouterr().err.splitlines()
    assert words in last and all(note.startswith("ptv2lib: note: ") for note in notes)


@pytest.mark.parametrize("content", ["{bad", "[1]", "3"])
def test_a_damaged_run_json_is_one_line(content, data, tmp_path, capsys):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "run.json").write_text(content)
    assert main(arguments(data, tmp_path / "o", "--set", "epochs=1")) == 1
    assert "is damaged" in capsys.readouterr().err
    assert (tmp_path / "o" / "run.json").read_text() == content


def test_wrong_usage_is_exit_2():
    for command in (["run"], ["nothing"], []):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2


@pytest.mark.parametrize(("command", "table"), [("tasks", TASKS), ("methods", METHODS), ("backbones", BACKBONES)])
def test_a_listing_begins_a_line_with_every_name(command, table, capsys):
    assert main([command]) == 0
    assert set(table) <= {line.split()[0] for line in capsys.readouterr().out.splitlines()}


def test_no_traceback_reaches_the_terminal(tmp_path):
    command = [sys.executable, "-m", "ptv2lib", *arguments(str(tmp_path / "missing"), tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr

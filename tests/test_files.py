"""Files and folders that appear whole or not at all, with the rights that the user grants."""

import json
import os

import pytest

from ptv2lib.errors import OutputError
from ptv2lib.files import whole_folder, write_whole
from ptv2lib.folders import check_folder, claim


def test_a_folder_that_cannot_follow_leaves_the_old_one(tmp_path, monkeypatch):
    place, real, moves = tmp_path / "prompt", os.replace, []
    place.mkdir()
    (place / "kept.txt").write_text("old")

    def fails_once(source, target):
        moves.append(target)
        if len(moves) == 2:
            raise OSError("the disk went away")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(OSError, match="went away"), whole_folder(place) as staging:
        (staging / "kept.txt").write_text("new")
    assert (place / "kept.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["prompt"], "nothing is left beside it"


def test_a_folder_whose_writing_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt" / "kept.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "prompt") as staging:
        (staging / "kept.txt").write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "prompt" / "kept.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_the_folder_it_names_is_written(there, tmp_path):
    if there:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "old.txt").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_folder(tmp_path / "link") as staging:
        (staging / "new.txt").touch()
    assert (tmp_path / "link").is_symlink() and [path.name for path in (tmp_path / "real").iterdir()] == ["new.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"], "nothing is left beside it"


RUN = {"task": "sst2", "settings": {"model": {"gate": None}, "training": {"epochs": 2, "threshold": "fixed"}}}


def test_a_run_from_before_a_setting_had_its_usual_value(tmp_path):
    run = {"task": "sst2", "settings": {"model": {}, "training": {"epochs": 2}, "phase1": {"epochs": 2}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    settings = RUN["settings"] | {"phase1": {"epochs": 2, "threshold": "fixed"}}
    claim(tmp_path, RUN | {"settings": settings})
    (tmp_path / "run.json").write_text(json.dumps(run))
    settings["training"] = {"epochs": 2, "threshold": "selection"}
    with pytest.raises(OutputError, match="threshold='fixed', not 'selection'"):
        check_folder(tmp_path, RUN | {"settings": settings})


def test_a_run_removes_no_file_but_its_own(tmp_path):
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="results of something else"):
        claim(tmp_path, RUN)
    assert (tmp_path / "log.jsonl").read_text() == "mine"
    claim(tmp_path / "run", RUN)
    (tmp_path / "run" / "prompt").mkdir()
    for name in ("record.json", "prompt/prompt.json", "prompt/notes.txt"):
        (tmp_path / "run" / name).touch()
    with pytest.raises(OutputError, match="prompt holds something else than a saved prompt"):
        claim(tmp_path / "run", RUN)
    assert (tmp_path / "run" / "record.json").exists() and (tmp_path / "run" / "prompt" / "notes.txt").exists()
    (tmp_path / "run" / "prompt" / "notes.txt").unlink()
    claim(tmp_path / "run", RUN)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


@pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_rights_are_those_that_the_umask_leaves(umask, file, folder, tmp_path):
    before = os.umask(umask)
    try:
        path = write_whole(tmp_path / "record.json", "{}")
        with whole_folder(tmp_path / "prompt") as staging:
            (staging / "x").touch()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == file
    assert (tmp_path / "prompt").stat().st_mode & 0o777 == folder


def test_claiming_a_folder_removes_all_that_an_earlier_run_left(tmp_path):
    claim(tmp_path, RUN)
    for name in ("phase1/sst2/prompt.json", "prompt/prompt.json", ".prompt.0a1b/prompt.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "phase1" / ".sst2.0a1b").mkdir()  # of a killed run
    for name in ("record.json", "log.jsonl", "phase1.jsonl", ".record.json.0a1b", "notes.txt", "phase1/notes.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(OutputError, match="phase1/notes.txt holds something else"):
        claim(tmp_path, RUN)
    assert (tmp_path / "record.json").exists()
    (tmp_path / "phase1" / "notes.txt").unlink()
    claim(tmp_path, RUN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run.json"]

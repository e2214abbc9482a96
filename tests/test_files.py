"""Files and folders that appear whole or not at all, with the rights that the user grants."""

import os

import pytest

from ptv2lib.files import whole_folder, write_whole


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

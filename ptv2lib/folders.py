"""The output folder of a run: whose it is, and the log in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .errors import OutputError
from .files import writable_folder, write_json
from .model import check_replaceable
from .options import ModelOptions

RESULTS = ("record.json", "log.jsonl", "prompt", "model", "phase1.jsonl", "phase1")
# What a run had of a setting that it does not name, because the setting came later.
BEFORE = {f.name: f.default for f in fields(ModelOptions)} | {"threshold": "fixed"}


def claim(output_dir: str | os.PathLike, identity: dict[str, Any]) -> Path:
    """Take the output folder for a run, and remove what an earlier run of the same identity left there.

    Raises:
        OutputError: as `check_folder`.
    """
    folder = check_folder(output_dir, identity)
    unfinished = [path for name in ("run.json", *RESULTS) for path in folder.glob(f".{name}.*")]  # of a killed run
    for old in [*(folder / name for name in RESULTS), *unfinished]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
    write_json(folder / "run.json", identity)
    return folder


def check_folder(output_dir: str | os.PathLike, identity: dict[str, Any]) -> Path:
    """Make the output folder, or say what else it holds; nothing in it changes.

    Raises:
        OutputError: if it cannot be written to, or holds another run or something else, also where a prompt was saved.
    """
    folder = writable_folder(output_dir)
    path = folder / "run.json"
    if path.is_file():
        try:
            found = _flat(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, AttributeError):
            raise OutputError(
                f"{path} is damaged, so whose results {folder} holds is unknown; choose another folder."
            ) from None
        wanted = _flat(json.loads(json.dumps(identity)))
        for key in found | wanted:
            old, new = found.get(key, BEFORE.get(key.removeprefix("phase1."))), wanted.get(key)
            if old != new:
                raise OutputError(f"{folder} holds a run with {key}={old!r}, not {new!r}; choose another folder.")
        saved = [folder / "prompt", folder / "model", *(folder / "phase1").glob("[!.]*")]
        for part in saved:
            check_replaceable(part)
    elif any((folder / other).exists() for other in RESULTS):
        raise OutputError(f"{folder} holds results of something else; choose another folder.")
    return folder


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with its settings on one level; those of an earlier phase keep its name."""
    flat = {key: value for key, value in identity.items() if key != "settings"}
    for part, options in identity.get("settings", {}).items():
        before = "" if part in ("model", "training") else f"{part}."
        flat |= {before + option: value for option, value in options.items()}
    return flat


class Log:
    """Appends one JSON object a line and flushes it, so that a killed run leaves whole lines.

    Args:
        path: the file; None writes nothing.
    """

    def __init__(self, path: Path | None):
        self.path = path

    def __enter__(self) -> Log:
        self.file = open(self.path, "a", encoding="utf-8") if self.path else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        if self.file:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()

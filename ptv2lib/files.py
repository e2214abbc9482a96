"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import OutputError


def writable_folder(path: str | os.PathLike) -> Path:
    """Make `path` a folder that can be written to, or say in one sentence why it is not.

    Raises:
        OutputError: if it is a file, cannot be made, or cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be written to: {error.strerror or error}.") from None
    return folder


def write_whole(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a file under a temporary name beside `path`, then move it into place."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"The file {path} cannot be written: a folder of that name is there.")
    temporary = _beside(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def _beside(path: Path) -> Path:
    """A hidden name of its own beside `path`; what is made there gets the rights that the user's umask leaves."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}"


def write_json(path: str | os.PathLike, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all."""
    return write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Give an empty folder to write into; it takes the name `path` only when the block ends without an error.

    A folder that already stands at `path` is moved aside in that moment, not before, and back if the new one cannot follow.
    A link at `path` stays; the folder that it names is written.
    """
    path = Path(path).resolve()
    writable_folder(path.parent)
    staging, old = _beside(path), _beside(path)
    staging.mkdir()
    try:
        yield staging
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(staging, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

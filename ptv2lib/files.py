"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def write_json(path: str | os.PathLike, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all."""
    return write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Give an empty folder to write into; it takes the name `path` only when the block ends without an error.

    A folder that already stands at `path` is replaced in that moment, not before.
    """
    path = Path(path)
    writable_folder(path.parent)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield staging
        os.chmod(staging, 0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old / "content")
            os.replace(staging, path)
            shutil.rmtree(old)
        else:
            os.replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

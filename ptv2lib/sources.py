"""Where examples come from: the Hub, a local folder, or the built-in miniature suite. All give rows as plain dicts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError
from .hub import require_network

SPLITS = ("train", "validation", "test")
MINIATURE = Path(__file__).parent / "miniature"


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hub.

    Attributes:
        hub_id: `owner/name`.
        config: the configuration, where the repository has several.
        revision: the pinned commit; None where no full commit is known, and then none is invented.
        licence: as its card states it.
        rows: official numbers of rows, train / validation / test.
    """

    hub_id: str
    config: str | None
    revision: str | None
    licence: str
    rows: tuple[int, int, int]


@dataclass(frozen=True)
class Table:
    """One split: its rows and, where the file carries them, the names behind integer labels.

    Attributes:
        rows: one dict a row.
        names: column to its ClassLabel names, in order.
        where: what to call this split in a message.
    """

    rows: list[dict[str, Any]]
    names: Mapping[str, tuple[str, ...]]
    where: str


def read_folder(folder: str | os.PathLike) -> dict[str, Table]:
    """Read `train|validation|test` as `.parquet`, `.jsonl` or `.json` (lines).

    Raises:
        DataError: if the folder or a split is missing, or a file cannot be read; the sentence names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"The data set folder {folder} does not exist.")
    tables = {}
    for split in SPLITS:
        found = [path for end in (".parquet", ".jsonl", ".json") if (path := folder / f"{split}{end}").is_file()]
        if found:
            tables[split] = _read_file(found[0])
    missing = [split for split in ("train", "validation") if split not in tables]
    if missing:
        raise DataError(
            f"The folder {folder} has no {missing[0]} split; it must hold train and validation as .parquet or .jsonl."
        )
    return tables


def read_miniature(name: str) -> dict[str, Table]:
    """Read a data set of the miniature suite, written for this book.

    Raises:
        DataError: if the suite has no data set of that name.
    """
    folder = MINIATURE / name
    if not (folder / "train.jsonl").is_file():
        raise DataError(f"The miniature suite has no data set {name!r}.")
    return read_folder(folder)


def read_hub(source: HubSet) -> tuple[dict[str, Table], str | None]:
    """Read a data set of the Hub: from the local cache if it is there, else in one attempt.

    Returns:
        The splits, and the commit they came from where it is known.

    Raises:
        NoNetwork: if it is not in the cache and the Hub does not answer.
        DataError: if the Hub answers but the data set cannot be loaded.
    """
    import datasets

    def load(**extra: Any) -> Any:
        return datasets.load_dataset(source.hub_id, source.config, revision=source.revision, **extra)

    offline = datasets.DownloadConfig(local_files_only=True)
    was_offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = True  # the cache alone, without the client's own retries
        found = load(download_config=offline)
    except Exception:  # nothing usable in the cache, whatever the client calls that
        datasets.config.HF_HUB_OFFLINE = was_offline
        require_network(f"The data set {source.hub_id!r}")
        try:
            found = load()
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"The Hub's {source.hub_id!r} cannot be loaded: {first}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
    return {
        split: _from_dataset(found[split], f"{source.hub_id} {split}") for split in SPLITS if split in found
    }, source.revision or commit_of([file["filename"] for file in next(iter(found.values())).cache_files])


def commit_of(files: Sequence[str | os.PathLike]) -> str | None:
    """The commit a loaded data set came from: its cache folder is named after it (`…/0.0.0/<commit>/name-train.arrow`)."""
    names = (Path(file).parent.name for file in files)
    return next((name for name in names if re.fullmatch("[0-9a-f]{40}", name)), None)


def _read_file(path: Path) -> Table:
    import datasets
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            return _from_dataset(datasets.Dataset(pyarrow.parquet.read_table(path)), str(path))
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"The file {path} cannot be read: {first}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"The file {path} must hold one JSON object a line.")
    return Table(rows, {}, str(path))


def _from_dataset(dataset: Any, where: str) -> Table:
    import datasets

    names = {}
    for column, feature in dataset.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.ClassLabel):
            names[column] = tuple(inner.names)
    return Table(dataset.to_list(), names, where)

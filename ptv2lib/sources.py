"""Where examples come from: the Hub, a local folder, or the built-in miniature suite. All give rows as plain dicts."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DataError, first_line
from .formats import ending_of, files_in, json_objects, read_text
from .hub import require_network

MINIATURE = Path(__file__).parent / "miniature"
PARQUET_BRANCH = "refs/convert/parquet"

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "testa": "validation",
    "test": "test",
    "testb": "test",
}
"""Words by which owners name their splits."""

FURTHER = ("mismatched", "wsj", "brown", "nyt", "reddit", "amazon")
"""Words behind a split's name that tell a further set from the main one."""

SHIFTS = {"new_wiki": "test", "nyt": "test_nyt", "reddit": "test_reddit", "amazon": "test_amazon"}
"""The four parts of SQuADShifts; the first stands in for the test."""


@dataclass(frozen=True)
class HubPart:
    """Where one split lies on the Hub.

    Attributes:
        hub_id: `owner/name`.
        config: the configuration, where the repository has several.
        split: the split's name there.
        revision: a full commit, or a branch.
        data_dir: the folder of a configuration on the parquet branch, which has no names for them.
        only_in: keep the rows whose `document_id` occurs in this other part.
    """

    hub_id: str
    config: str | None
    split: str
    revision: str | None
    data_dir: str | None = None
    only_in: HubPart | None = None


@dataclass(frozen=True)
class HubSet:
    """A data set on the Hub.

    Attributes:
        hub_id: `owner/name`; None for a set that is not there.
        config: the configuration, where the repository has several.
        revision: the pinned commit; None where no full commit is known, and then none is invented.
        licence: as its card states it.
        rows: official numbers of rows by split, in the Hub's sense of a row.
        obtain: how to get it where the Hub has no usable copy, or what a licence asks for.
        branch: the branch to load where there is no pin; None for the main one.
        parts: splits that do not simply bear their own name in `hub_id`.
    """

    hub_id: str | None
    config: str | None
    revision: str | None
    licence: str
    rows: Mapping[str, int]
    obtain: str = ""
    branch: str | None = None
    parts: Mapping[str, HubPart] = field(default_factory=dict)

    def part(self, split: str) -> HubPart:
        """Where this split lies."""
        return self.parts.get(split) or HubPart(self.hub_id, self.config, split, self.revision or self.branch)


@dataclass(frozen=True)
class Table:
    """One split: its rows and, where the file carries them, the names behind integer labels.

    Attributes:
        rows: one dict a row.
        names: column to its ClassLabel names, in order.
        where: what to call this split in a message.
        origins: for each row its file with a unit, `"train.txt, line"`, and its number there; None where they are the rows of
            one file in order.
    """

    rows: list[dict[str, Any]]
    names: Mapping[str, tuple[str, ...]]
    where: str
    origins: Sequence[tuple[str, int]] | None = None

    def origin(self, number: int) -> tuple[str, int]:
        """Where a row comes from: its file with a unit, and its number there."""
        return (f"{self.where}, row", number) if self.origins is None else self.origins[number]

    def place(self, number: int) -> str:
        """What to call a row in a message: its file, and its line or its number there."""
        return "{} {}".format(*self.origin(number))

    def second_place(self, number: int, first: int) -> str:
        """What to call a row beside one that was named already: in the same file, its line or number alone."""
        (unit, at), (named, _) = self.origin(number), self.origin(first)
        return f"{unit.rpartition(' ')[2]} {at}" if unit == named else f"{unit} {at}"

    def expanded(self, expand: Callable[[dict[str, Any]], Iterable[dict[str, Any]]], form: str) -> Table:
        """The table of what `expand` makes of each row; what is made of one row keeps its place.

        Args:
            expand: gives the rows; its `KeyError` names what is missing, its `ValueError` says what is wrong.
            form: what the rows are in, for a message.

        Raises:
            DataError: naming the row, where `expand` raises.
        """
        rows: list[dict[str, Any]] = []
        origins = []
        for number, row in enumerate(self.rows):
            try:
                made = list(expand(row))
            except KeyError as error:
                raise DataError(f"{self.place(number)}: {error} is missing from the object.") from None
            except ValueError as error:
                raise DataError(f"{self.place(number)}: {error}.") from None
            except (TypeError, AttributeError):
                raise DataError(f"{self.place(number)} does not have the form of {form}.") from None
            rows += made
            origins += [self.origin(number)] * len(made)
        return Table(rows, self.names, self.where, origins)


def lined(path: Path, rows: Sequence[dict[str, Any]]) -> Table:
    """The table of a text file whose reader left under `line` where each row begins."""
    unit = f"{path}, line"
    origins = [(unit, row["line"]) for row in rows]
    return Table([{k: v for k, v in row.items() if k != "line"} for row in rows], {}, str(path), origins)


def joined(tables: Sequence[Table], where: str) -> Table:
    """Tables one behind the other, as one; each row keeps its place.

    Args:
        tables: of the same columns.
        where: what to call the whole in a message.
    """
    if len(tables) == 1:
        return tables[0]
    rows = [row for table in tables for row in table.rows]
    origins = [table.origin(number) for table in tables for number in range(len(table.rows))]
    return Table(rows, tables[0].names if tables else {}, where, origins)


def split_of(name: str) -> str | None:
    """The split that a file or folder of this name holds; None if it does not say.

    `dev-v1.1.json`, `eng.testa`, `validation-00000-of-00001.parquet` and `devel` are validation; `test.wsj` and
    `dev_mismatched` keep what stands behind and tells them from the main one: `test_wsj`, `validation_mismatched`. Names
    without such a word may be parts of SQuADShifts, as `nyt_v1.0.json`.
    """
    words = re.split(r"[^a-z]+", name.lower())  # digits fall off: "train00"
    at = next((place for place, word in enumerate(words) if word in SPLIT_WORDS), None)
    if at is None:
        return next((split for shift, split in SHIFTS.items() if name.lower().startswith(shift)), None)
    found = SPLIT_WORDS[words[at]]
    special = next((word for word in words[at:] if word in FURTHER), None)
    return f"{found}_{special}" if special and found != "train" else found


def read_folder(folder: str | os.PathLike, parse: Callable[[list[Path]], Table] | None = None) -> dict[str, Table]:
    """Read the splits of a folder: files or sub-folders named after their split (`split_of`).

    Parquet, JSON lines, SQuAD's JSON (both also packed as `.gz`) and what `save_to_disk` of `datasets` wrote are read here;
    `parse` reads other files, in the owner's own form.

    Raises:
        DataError: if the folder is missing or holds no split, two files claim one, or a file cannot be read; named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"The data set folder {folder} does not exist.")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        split = split_of(path.name)
        if split and not path.name.startswith("."):
            found[split].append(path)
    return {split: _read_split(paths, parse) for split, paths in found.items()}


def _read_split(paths: list[Path], parse: Callable[[list[Path]], Table] | None) -> Table:
    """One split from the best of its forms: as `datasets` saves it, parquet, JSON, the owner's own."""
    saved = [path for path in paths if any((path / name).is_file() for name in ("state.json", "dataset_info.json"))]
    if saved:
        return joined([_read_saved(path) for path in _one_source(saved)], f"{saved[0]} and {len(saved) - 1} more")
    for ending in (".parquet", ".jsonl", ".json"):
        chosen = [path for path in paths if ending_of(path) == ending]
        folders = [path for path in paths if path.is_dir()]
        inside = [path for folder in folders for path in files_in(folder) if ending_of(path) == ending]
        if chosen or inside:
            tables = [_read_file(path) for path in _one_source(chosen) or inside]
            return joined(tables, f"{tables[0].where} and {len(tables) - 1} more")
    # CoNLL-2012 keeps its standard test beside a larger one.
    standard = [path for path in paths if path.name.startswith("conll-2012")]
    chosen = _one_source(standard or paths)
    if parse is None:
        raise DataError(f"The file {chosen[0]} must be .parquet, .jsonl or .json.")
    return parse(chosen)


def _one_source(paths: list[Path]) -> list[Path]:
    """The paths if they are parts of one: their names differ in the number at the end, and that is no version (`v1.1`).

    Raises:
        DataError: for two that both claim a split.
    """
    if len({re.sub(r"(?<!\d)(?<!\d\.)(\d+-of-)?\d+(?=(\.[a-z]\w*)*$)", "", path.name) for path in paths}) > 1:
        raise DataError(f"Both {paths[0]} and {paths[1]} seem to hold the same split; leave one.")
    return paths


def read_miniature(name: str) -> dict[str, Table]:
    """Read a data set of the miniature suite, written for this book.

    Raises:
        DataError: if the suite has no data set of that name.
    """
    folder = MINIATURE / name
    if not folder.is_dir():
        raise DataError(f"The miniature suite has no data set {name!r}.")
    return read_folder(folder)


def read_hub(source: HubSet) -> tuple[dict[str, Table], str | None]:
    """Read a data set of the Hub: from the local cache if it is there, else in one attempt.

    Returns:
        The splits, and the commit they came from where it is known.

    Raises:
        NoNetwork: if it is not in the cache and the Hub does not answer.
        DataError: if the Hub has no such set, or answers but the set cannot be loaded.
    """
    if source.hub_id is None:
        raise DataError(f"This data set is not on the Hub. {source.obtain}")
    tables, commit = {}, source.revision
    for split in source.rows:
        part = source.part(split)
        found = _load(part)
        if part.only_in is not None:
            wanted = set(_load(part.only_in)["document_id"])
            found = found.filter(lambda row, wanted=wanted: row["document_id"] in wanted)
        tables[split] = _from_dataset(found, f"{part.hub_id} {part.split}")
        commit = commit or commit_of([file["filename"] for file in found.cache_files])
    return tables, commit


def _load(part: HubPart) -> Any:
    """One split as a `datasets.Dataset`."""
    import datasets

    def load(**extra: Any) -> Any:
        return datasets.load_dataset(
            part.hub_id, part.config, data_dir=part.data_dir, split=part.split, revision=part.revision, **extra
        )

    offline = datasets.DownloadConfig(local_files_only=True)
    was_offline = datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = True  # the cache alone, without the client's own retries
        return load(download_config=offline)
    except Exception:  # nothing usable in the cache, whatever the client calls that
        datasets.config.HF_HUB_OFFLINE = was_offline
        require_network(f"The data set {part.hub_id!r}")
        try:
            return load()
        except Exception as error:
            raise DataError(f"The Hub's {part.hub_id!r} cannot be loaded: {first_line(error)}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline


def commit_of(files: Sequence[str | os.PathLike]) -> str | None:
    """The commit a loaded data set came from: its cache folder is named after it (`…/0.0.0/<commit>/name-train.arrow`)."""
    names = (Path(file).parent.name for file in files)
    return next((name for name in names if re.fullmatch("[0-9a-f]{40}", name)), None)


def _read_file(path: Path) -> Table:
    import datasets
    import pyarrow.parquet

    if ending_of(path) != ".parquet":
        return Table(json_objects(path, read_text(path)), {}, str(path))
    try:
        return _from_dataset(datasets.Dataset(pyarrow.parquet.read_table(path)), str(path))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"The file {path} cannot be read: {first_line(error)}") from None


def _read_saved(path: Path) -> Table:
    """A split in the folder that `datasets.Dataset.save_to_disk` wrote."""
    import datasets

    try:
        return _from_dataset(datasets.Dataset.load_from_disk(str(path)), str(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"The saved data set {path} cannot be read: {first_line(error)}") from None


def _from_dataset(dataset: Any, where: str) -> Table:
    return Table(dataset.to_list(), _class_names("", dataset.features), where)


def _class_names(column: str, feature: Any) -> dict[str, tuple[str, ...]]:
    """The names of each `ClassLabel`, also inside lists and objects, by the innermost column; outer columns go first."""
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return {column: tuple(feature.names)}
    if isinstance(feature, Mapping):
        found = {key: _class_names(key, inner) for key, inner in feature.items()}
        nested = {name: names for inside in found.values() for name, names in inside.items()}
        return nested | {key: found[key][key] for key in feature if key in found[key]}
    inner = getattr(feature, "feature", None)
    return {} if inner is None else _class_names(column, inner)

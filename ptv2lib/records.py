"""One JSON file a run: what was run, on what, and what came out.

A record holds, in this order: `name` (None, or what tells this run from others of the same task and method), `task`,
`method`, `backbone`, `seed`, `metrics` by split (the task's own metric first), `majority`, `standard_error`,
`trainable_parameters`, `backbone_parameters`, `seconds`, `protocol`, `data`, `inputs`, `settings`, `history`, `machine`.
Scores lie between 0 and 1. It holds no text of any data set.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import DataError

FIELDS = [
    "name",
    "task",
    "method",
    "backbone",
    "seed",
    "metrics",
    "majority",
    "standard_error",
    "trainable_parameters",
    "backbone_parameters",
    "seconds",
    "protocol",
    "data",
    "inputs",
    "settings",
    "history",
    "machine",
]


def machine() -> dict[str, Any]:
    """Versions, processor and threads a result depends on."""
    import torch

    packages = ("ptv2lib", "torch", "transformers", "accelerate", "tokenizers")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def read_record(path: str | os.PathLike) -> dict[str, Any]:
    """Read one record.

    Raises:
        DataError: if the file is not a record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        missing = [field for field in FIELDS if field not in record]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"The record {path} cannot be read: {error}") from None
    if missing:
        raise DataError(f"The record {path} lacks the field {missing[0]!r}.")
    return record


def read_records(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Every record of a folder, ordered by file name; of a folder of runs, the record of each.

    Raises:
        DataError: if there is no such folder, or a file in it is not a record.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder} with records.")
    # Beside a run's record lies what claimed its folder.
    paths = {path for path in folder.glob("*.json") if path.name != "run.json"} | set(folder.rglob("record.json"))
    return [read_record(path) for path in sorted(paths)]


def main_score(record: dict[str, Any], split: str = "test") -> float:
    """The task's own metric on a split: the first one of the record.

    Raises:
        DataError: for a split that was not scored, as the test where `selection="paper"` leaves none.
    """
    scores = record["metrics"].get(split)
    if scores is None:
        scored = ", ".join(name for name, found in record["metrics"].items() if found)
        raise DataError(
            f"The record of {record['method']!r} on {record['task']!r} has no score on {split!r}; it has {scored}."
        )
    return next(iter(scores.values()))


def summarize(records: Iterable[dict[str, Any]], split: str = "test") -> list[dict[str, Any]]:
    """One row for each task, method and name: mean and sample standard deviation of the main metric over the seeds.

    Runs on another backbone, source or number of training rows stand in rows of their own, also without a name that tells
    them apart. Beside the mean stand the majority line, the rows of each part, the precisions of the forward pass in training,
    and the standard error that the number of scored rows alone brings, averaged over the seeds (None where a record has none).

    Raises:
        DataError: if two runs of a row have the same seed, so that something else tells them apart.
    """
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for record in records:
        data = record.get("data", {})
        apart = (record["backbone"], data.get("source"), data.get("train_limit"))
        groups[record["task"], record["method"], record["name"] or "", str(apart)].append(record)
    rows = []
    for (task, method, name, _), runs in sorted(groups.items()):
        seeds = [run["seed"] for run in runs]
        twice = [seed for seed in seeds if seeds.count(seed) > 1]
        if twice:
            raise DataError(
                f"Two runs of {method!r} on {task!r} have name={name or None!r} and seed={twice[0]}; give runs with other "
                "settings another name=."
            )
        scores = [main_score(run, split) for run in runs]
        errors = [run["standard_error"] for run in runs]
        rows.append(
            {
                "task": task,
                "method": method,
                "name": name,
                "backbone": runs[0]["backbone"],
                "mean": statistics.mean(scores),
                "deviation": spread(scores),
                "seeds": len(scores),
                "rows": runs[0].get("data", {}).get("rows", {}),
                "precision": sorted({run.get("settings", {}).get("precision", "") for run in runs}),
                "standard_error": None if None in errors else statistics.mean(errors),
                "majority": next(iter(runs[0]["majority"].values())),
                "trainable_parameters": runs[0]["trainable_parameters"],
                "seconds": statistics.mean(run["seconds"] for run in runs),
            }
        )
    return rows


def spread(scores: Sequence[float]) -> float | None:
    """Sample standard deviation; None for a single score, which has no spread."""
    return statistics.stdev(scores) if len(scores) > 1 else None

"""The command line: `python -m ptv2lib run | tasks | methods | backbones`."""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import warnings
from dataclasses import fields
from typing import Any

from .errors import PtvError, unknown


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 a failure with one line on stderr, 2 wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return _run(options)
        {"tasks": _tasks, "methods": _methods, "backbones": _backbones}[options.command]()
    except PtvError as error:
        print(f"ptv2lib: {error}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for that
            print(
                "ptv2lib: The accelerator's memory ran out; take a smaller batch_size or max_length.", file=sys.stderr
            )
        elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            print("ptv2lib: The machine's memory ran out; take fewer rows, or a smaller batch_size.", file=sys.stderr)
        else:
            raise
        return 1
    except OSError as error:  # a full disk, say
        print(f"ptv2lib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ptv2lib: interrupted.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ptv2lib", description="Deep prompts for frozen encoders.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train one method on one task and score it")
    run.add_argument("--task", required=True, help="a data set, or with mpt2 several: conll04+wikiann")
    run.add_argument("--method", required=True)
    run.add_argument("--backbone", default="minilm")
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--dataset",
        metavar="DIR",
        help="your own copy: train, validation, test as .parquet or .jsonl; of several data sets, one folder each",
    )
    where.add_argument("--source", choices=("hub", "miniature"), default="hub")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument(
        "--train-limit", type=int, metavar="N", help="use N training rows, the same for every method and seed"
    )
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a model option or training setting"
    )
    run.add_argument("--name", help="tells this run from others of the same task and method in tables")
    run.add_argument("--out", required=True, metavar="DIR", help="takes record.json, log.jsonl and prompt/ or model/")
    commands.add_parser("tasks", help="the data sets")
    commands.add_parser("methods", help="the methods")
    commands.add_parser("backbones", help="the encoders")
    return parser


def _run(options: argparse.Namespace) -> int:
    from .backbones import check_name
    from .building import build_model
    from .methods import find_method
    from .multitask import PHASES, train_multitask
    from .options import CHOICES, ModelOptions
    from .training import TrainingConfig, train

    known = {f.name: owner for owner in (ModelOptions, TrainingConfig) for f in fields(owner) if f.name != "seed"}
    if options.method == "mpt2":
        known |= dict.fromkeys(PHASES, train_multitask)
    chosen: dict[Any, dict[str, Any]] = {ModelOptions: {}, TrainingConfig: {"seed": options.seed}, train_multitask: {}}
    for setting in options.set:
        key, sign, value = setting.partition("=")
        if not sign or key not in known:
            problem = unknown("option", key, known) if sign else f"--set takes KEY=VALUE, not {setting!r}."
            problem = "The seed has an option of its own: --seed N." if key == "seed" else problem
            print(f"ptv2lib: {problem}", file=sys.stderr)
            return 2
        chosen[known[key]][key] = value if value in CHOICES.get(key, ()) else _value(value)
    config = TrainingConfig(**chosen[TrainingConfig])
    # Refused before any data is loaded, which may take a download.
    ModelOptions(**chosen[ModelOptions])
    find_method(options.method)
    check_name(options.backbone)
    names = options.task.split("+")
    if (len(names) > 1) != (options.method == "mpt2"):
        print("ptv2lib: --method mpt2 takes several tasks, --task a+b, and every other method one.", file=sys.stderr)
        return 2
    with warnings.catch_warnings(record=True) as notes:
        tasks = [_load(name, options) for name in names]
    model = build_model(
        tasks[0], backbone=options.backbone, method=options.method, seed=options.seed, **chosen[ModelOptions]
    )
    for note in notes:
        print(f"ptv2lib: note: {note.message}", file=sys.stderr)
    how = {"output_dir": options.out, "name": options.name, "progress": sys.stderr.isatty()}
    if len(tasks) == 1:
        print(json.dumps(_result(train(model, tasks[0], config, **how), options, tasks[0].name)))
    else:
        group = train_multitask(model, tasks, config, **how, **chosen[train_multitask])
        results = {name: _result(run, options, name) for name, run in group.runs.items()}
        print(json.dumps({"task": options.task, "method": options.method, "runs": results}))
    return 0


def _load(name: str, options: argparse.Namespace) -> Any:
    from .tasks import load_task

    folder = options.dataset
    if folder is not None and "+" in options.task:
        folder = os.path.join(folder, name)
    return load_task(name, source=options.source, dataset=folder, train_limit=options.train_limit)


def _result(run: Any, options: argparse.Namespace, task: str) -> dict[str, Any]:
    return {
        "task": task,
        "method": options.method,
        "backbone": options.backbone,
        "seed": options.seed,
        "metrics": run.metrics,
        "majority": run.majority,
        "trainable_parameters": run.trainable_parameters,
        "seconds": round(run.seconds, 1),
        "record": str(run.record_path),
    }


def _value(text: str) -> Any:
    """Read a value as Python does, words as text: `3`, `1e-2`, `true`, `none`, `[1, 2]`, `mlp`."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _tasks() -> None:
    from .tasks.registry import task_table

    for row in task_table():
        at = f" at {row['revision']}" if row["revision"] else ""
        tried = "; not tried against the Hub" if row["revision"] else ""
        trained = f"; trains on {row['trains on']}" if row["trains on"] else ""
        print(f"{row['data set']:10} {row['Hub']}{at}; rows {row['rows']}; licence: {row['licence']}{trained}{tried}")
        if row["to obtain it"]:
            print(f"{'':10} {row['to obtain it']}")


def _methods() -> None:
    from .methods import METHODS

    for name, method in METHODS.items():
        print(f"{name:10} {method.title}: {method.description}")


def _backbones() -> None:
    from .backbones import BACKBONES, encoder_table

    for name, source in BACKBONES.items():
        print(f"{name:18} {source.hub_id:42} {source.revision}")
    print(f"{'tiny':18} a two-layer random BERT for tests, built on the spot")
    print("Also any Hub id or folder of these families:")
    for row in encoder_table():
        shown = [f"{column} {row[column]}" for column in row if column not in ("encoder", "model_type", "short names")]
        print(f"{row['encoder']:18} {row['model_type']}: {'; '.join(shown)}")


if __name__ == "__main__":
    sys.exit(main())

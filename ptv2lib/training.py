"""The training loop, on accelerate, for every method and task."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .encoding import Encoded, collate
from .errors import BadOption, OutputError, unknown
from .files import writable_folder, write_json
from .methods import METHODS
from .metrics import standard_error
from .model import PromptedModel, fill, free_memory
from .records import machine
from .tasks import Split, Task

SCHEDULES = ("linear", "constant_with_warmup", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. None: the method's default for this task (`methods.METHODS`).

    Attributes:
        learning_rate: peak, for AdamW.
        epochs: passes over the training rows.
        batch_size: rows a step.
        weight_decay: of AdamW.
        warmup_ratio: share of the steps in which the rate climbs from 0.
        schedule: `"linear"` to 0, `"cosine"`, or `"constant_with_warmup"`.
        clip: largest gradient norm; 0 for no clipping.
        patience: stop after this many epochs without a better selection score; None to run to the end.
        precision: `"auto"`, `"fp32"`, `"bf16"` or `"fp16"`; trained weights stay float32.
        max_length: cut, in pieces; None for the task's own.
        selection: `"heldout"` or `"paper"`, see `Task.split`.
        seed: of the order of the rows and of dropout; `build_model` has its own.
        length_grouped: batch rows of similar length together.
        evaluation_batch_size: rows at once when scoring.
    """

    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int = 16
    weight_decay: float = 0.0
    warmup_ratio: float = 0.06
    schedule: str = "linear"
    clip: float = 1.0
    patience: int | None = None
    precision: str = "auto"
    max_length: int | None = None
    selection: str = "heldout"
    seed: int = 0
    length_grouped: bool = True
    evaluation_batch_size: int = 64

    def __post_init__(self) -> None:
        """Check every value that can be checked alone."""
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", str(self.schedule), SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)
        for name in ("epochs", "batch_size", "evaluation_batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise BadOption(f"{name}={value} must be a whole number of at least 1.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise BadOption(f"learning_rate={self.learning_rate} must be above 0.")
        if not 0 <= self.warmup_ratio <= 1:
            raise BadOption(f"warmup_ratio={self.warmup_ratio} must lie between 0 and 1.")
        if self.max_length is not None and self.max_length < 8:
            raise BadOption(f"max_length={self.max_length} leaves no room for a text; use at least 8.")


@dataclass
class TrainingState:
    """All that changes while training runs; whoever keeps it can go on from it.

    Attributes:
        epoch: epochs finished.
        step: optimizer steps finished.
        best_score: best selection score so far.
        best_epoch: when it was reached, from 1.
        best_weights: what was trainable then, on the CPU.
        history: one dict an epoch.
        optimizer: with its moments.
        scheduler: of the learning rate.
        order: draws the order of the rows.
    """

    optimizer: torch.optim.Optimizer
    scheduler: Any
    order: torch.Generator
    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        metrics: scores by split, 0 to 1; `test` is None where nothing is left to score.
        majority: the score of the most frequent answer on the scored split.
        trainable_parameters: how many numbers were trained.
        seconds: wall time of training and scoring.
        record_path: the record, or None without an output folder.
        record: its content.
    """

    metrics: dict[str, dict[str, Any] | None]
    majority: dict[str, Any]
    trainable_parameters: int
    seconds: float
    record_path: Path | None
    record: dict[str, Any]


def train(
    model: PromptedModel,
    task: Task,
    config: TrainingConfig | None = None,
    *,
    output_dir: str | os.PathLike | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Run:
    """Train what the method trains, keep the weights of the best epoch, and score once.

    Args:
        model: what `build_model` gave for this task.
        task: the loaded task.
        config: settings; the method's defaults where they are left open.
        output_dir: takes `record.json`, `log.jsonl` and `prompt/` (`ft`: `model/`).
        name: tells this run from others of the same task and method in tables.
        progress: show a progress bar.

    Raises:
        BadOption: for settings that make no sense together or would not fit the memory.
        OutputError: if the folder cannot be written, or holds a run with other settings.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import set_seed
    from tqdm.auto import tqdm
    from transformers import get_scheduler

    if model.family.name != task.name:
        raise BadOption(f"The model was built for {model.family.name!r} and the data set is {task.name!r}.")
    config = config or TrainingConfig()
    split = task.split(config.selection)
    rows = sum(map(model.family.size, split.train))
    defaults = METHODS[model.method].settings(model.family.head, model.backbone.config.hidden_size, rows)
    config = fill(config, defaults)
    model.max_length = min(config.max_length or model.family.max_length, model.room)
    settings = {"model": dataclasses.asdict(model.options), "training": dataclasses.asdict(config)}
    folder = None if output_dir is None else _claim(output_dir, _identity(model, task, settings, name))
    started = time.perf_counter()

    parts = {"train": split.train, "validation": split.validation, "test": split.test or [], **split.further}
    data = {part: model.encode(rows, store=True) for part, rows in parts.items() if rows}
    units = _units(data["train"], model.family.together)
    _fits_memory(model, units, config.batch_size)
    set_seed(config.seed)
    # accelerate keeps its settings in a singleton, and two runs of one process may differ in precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = choose_precision(config.precision)
    accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(precision, precision))
    model.to(accelerator.device)

    steps = config.epochs * math.ceil(len(units) / config.batch_size)
    weights = list(model.trainable().values())
    optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler = get_scheduler(config.schedule, optimizer, round(config.warmup_ratio * steps), steps)
    state = TrainingState(
        accelerator.prepare(optimizer), accelerator.prepare(scheduler), torch.Generator().manual_seed(config.seed)
    )
    bar = tqdm(total=steps, desc=f"{model.method} on {task.name}", disable=not progress, leave=False, file=sys.stderr)
    with _Log(folder) as log, bar:
        while state.epoch < config.epochs:
            loss = _epoch(model, units, config, accelerator, state, bar)
            scores = evaluate(model, data["validation"], split.validation, config.evaluation_batch_size)
            score = scores[model.family.metric]
            state.epoch += 1
            line = {"epoch": state.epoch, "step": state.step, "loss": loss, "selection": score}
            state.history.append(line)
            log.write(line | {"seconds": round(time.perf_counter() - started, 1)})
            bar.set_postfix(loss=f"{loss:.3f}", selection=f"{score:.3f}")
            if not math.isfinite(loss):
                raise BadOption(
                    f"The loss became {loss} in epoch {state.epoch}; a learning rate below {config.learning_rate} may help."
                )
            if score > state.best_score:
                state.best_score, state.best_epoch = score, state.epoch
                state.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in model.trainable().items()}
            if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
                break
    with torch.no_grad():
        for key, weight in model.trainable().items():
            weight.copy_(state.best_weights[key])
    model.eval()
    metrics: dict[str, dict[str, Any] | None] = {"validation": None, "test": None}
    for part, rows in parts.items():
        if rows and part != "train":
            same = rows is split.test and part != "test"  # a second name of the same rows
            metrics[part] = metrics["test"] if same else evaluate(model, data[part], rows, config.evaluation_batch_size)
    seconds = time.perf_counter() - started
    record = _record(model, task, split, data, settings, metrics, state, seconds, precision, name)
    path = None
    if folder is not None:
        if METHODS[model.method].tunes_backbone:
            model.save_model(folder / "model")
        else:
            model.save_prompt(folder / "prompt")
        path = write_json(folder / "record.json", record)
    return Run(metrics, record["majority"], model.trainable_parameters, seconds, path, record)


def evaluate(
    model: PromptedModel, encoded: Sequence[Sequence[Encoded]], rows: Sequence[Mapping], batch_size: int = 64
) -> dict[str, Any]:
    """Score a model on labelled rows, in float32.

    Args:
        model: the model.
        encoded: the rows as `model.encode` gives them.
        rows: the same rows.
        batch_size: inputs at once.
    """
    return model.family.score(model.decode(encoded, rows, batch_size), rows)


def choose_precision(wanted: str = "auto") -> str:
    """The precision of the forward pass; `auto` takes bf16 only where the hardware has it.

    A T4 claims bf16 by emulation, so emulation is not counted; other CUDA devices get fp16 with scaled gradients.
    """
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def batches(
    lengths: Sequence[int], batch_size: int, order: torch.Generator, grouped: bool = True
) -> Iterator[list[int]]:
    """Batches of row numbers in random order; grouped, rows of similar length share a batch.

    Rows are shuffled, sorted by length inside runs of fifty batches, and the batches shuffled again.
    """
    numbers = torch.randperm(len(lengths), generator=order).tolist()
    if grouped:
        run = 50 * batch_size
        numbers = [
            i
            for start in range(0, len(numbers), run)
            for i in sorted(numbers[start : start + run], key=lengths.__getitem__)
        ]
    chunks = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
    for k in torch.randperm(len(chunks), generator=order).tolist():
        yield chunks[k]


def _units(data: Sequence[Sequence[Encoded]], together: bool) -> list[list[Encoded]]:
    """What is drawn into a batch as one: the inputs of a row where they are compared, else each input by itself."""
    return [list(inputs) for inputs in data] if together else [[one] for inputs in data for one in inputs]


def _epoch(model, units: Sequence[Sequence[Encoded]], config, accelerator, state: TrainingState, bar) -> float:
    """One pass over the training rows; the mean loss."""
    model.train()
    lengths = [max(map(len, unit)) for unit in units]
    total, rows = 0.0, 0
    for chosen in batches(lengths, config.batch_size, state.order, config.length_grouped):
        batch, labels = collate([one for i in chosen for one in units[i]], model.tokenizer)
        batch = {key: tensor.to(accelerator.device) for key, tensor in batch.items()}
        with accelerator.autocast():
            logits = model(**batch)
        loss = model.head.loss(logits, labels.to(accelerator.device))
        accelerator.backward(loss)
        if config.clip:
            accelerator.clip_grad_norm_(model.trainable().values(), config.clip)
        state.optimizer.step()
        state.scheduler.step()
        state.optimizer.zero_grad()
        state.step += 1
        total, rows = total + loss.item() * len(chosen), rows + len(chosen)
        bar.update()
    return total / rows


def _identity(model: PromptedModel, task: Task, settings: dict, name: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "task": task.name,
        "method": model.method,
        "backbone": model.name,
        "source": task.source,
        "train_limit": task.train_limit,
        "settings": settings,
    }


def _claim(output_dir: str | os.PathLike, identity: dict[str, Any]) -> Path:
    """Take the output folder, or say what else it holds."""
    folder = writable_folder(output_dir)
    path = folder / "run.json"
    if path.is_file():
        found = json.loads(path.read_text())
        wanted = json.loads(json.dumps(identity))
        differing = sorted(key for key in wanted if found.get(key) != wanted[key])
        if differing:
            key = differing[0]
            if key == "settings":
                pairs = [
                    (option, found["settings"][part].get(option), value)
                    for part, options in wanted["settings"].items()
                    for option, value in options.items()
                    if found.get("settings", {}).get(part, {}).get(option) != value
                ]
                option, old, new = pairs[0]
                raise OutputError(f"{folder} holds a run with {option}={old!r}, not {new!r}; choose another folder.")
            raise OutputError(
                f"{folder} holds a run with {key}={found.get(key)!r}, not {identity[key]!r}; choose another folder."
            )
        for old in ("record.json", "log.jsonl"):
            (folder / old).unlink(missing_ok=True)
        for old in ("prompt", "model"):
            shutil.rmtree(folder / old, ignore_errors=True)
    elif any((folder / other).exists() for other in ("record.json", "prompt", "model")):
        raise OutputError(f"{folder} holds results of something else; choose another folder.")
    write_json(path, identity)
    return folder


class _Log:
    """Appends one JSON object a line and flushes it, so that a killed run leaves whole lines."""

    def __init__(self, folder: Path | None):
        self.path = folder and folder / "log.jsonl"

    def __enter__(self) -> _Log:
        self.file = open(self.path, "a", encoding="utf-8") if self.path else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        if self.file:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()


def _fits_memory(model: PromptedModel, units: Sequence[Sequence[Encoded]], batch_size: int) -> None:
    """Refuse a batch whose activations would not fit, before anything is allocated.

    Counted are the widest batch's hidden states (about 20 a layer: projections, feed-forward, normalisation), its keys and
    values with the prompt, and two attention maps a layer, all float32.
    """
    config = model.backbone.config
    text = max(len(one) for unit in units for one in unit)
    batch_size *= len(units[0])
    prompt = model.options.prompt_length or 0
    rows = text + prompt if METHODS[model.method].prompt == "input" else text
    columns = text + prompt
    per_layer = 20 * rows * config.hidden_size + 2 * columns * config.hidden_size
    per_layer += 2 * config.num_attention_heads * rows * columns
    need = 4 * batch_size * config.num_hidden_layers * per_layer
    free = free_memory()
    if need > free:
        raise BadOption(
            f"A batch of {batch_size} texts of up to {text} pieces with prompt_length={prompt} needs about "
            f"{need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free."
        )


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found)


def _record(
    model, task: Task, split: Split, data, settings, metrics, state, seconds, precision, name
) -> dict[str, Any]:
    scored = "test" if split.test else "validation"
    rows = getattr(split, scored)
    majority = model.family.majority(split.train, rows)
    score = metrics[scored][model.family.metric]
    peak = (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "name": name,
        "task": task.name,
        "method": model.method,
        "backbone": model.name,
        "seed": settings["training"]["seed"],
        "metrics": metrics,
        "majority": majority,
        "standard_error": standard_error(score, len(rows)) if model.family.metric == "accuracy" else None,
        "trainable_parameters": model.trainable_parameters,
        "backbone_parameters": sum(parameter.numel() for parameter in model.backbone.parameters()),
        "seconds": round(seconds, 1),
        "protocol": split.protocol,
        "data": {
            "source": task.source,
            "revision": task.revision,
            "train_limit": task.train_limit,
            "rows": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test or [])}
            | {part: len(rows) for part, rows in split.further.items()},
            "notes": list(task.notes),
        },
        "inputs": {
            "max_length": model.max_length,
            "layout": model.family.layout_name(model.layout),
            "cut": {part: _share(one.cut for inputs in rows for one in inputs) for part, rows in data.items()},
            "gold_answers_lost": {
                part: sum(one.lost for inputs in rows for one in inputs) for part, rows in data.items()
            },
        },
        "settings": settings | {"precision": precision, "fingerprint": model.fingerprint, "revision": model.revision},
        "history": {"best_epoch": state.best_epoch, "epochs": state.history},
        "machine": machine() | {"peak_memory_bytes": peak},
    }

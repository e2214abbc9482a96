"""The training loop, on accelerate, for every method and task.

`train` has four steps: `plan_training` settles it, `prepare` encodes its rows, `fit` is the loop, `conclude` scores and
writes. Several data sets may share one `fit` (`multitask`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .attention import eager_where_faster
from .encoding import Encoded, collate
from .errors import BadOption, unknown
from .files import write_json
from .folders import Log, check_folder, claim
from .heads import SequenceHead
from .memory import free_memory, give_back
from .methods import METHODS
from .metrics import jackknife_error, standard_error
from .model import PromptedModel
from .options import fill, settle_kinds
from .randomness import seeded
from .records import machine
from .tasks import SELECTIONS, Split, Task
from .tasks.common import SHORTEST

GIVE_BACK_EVERY = 16  # steps; one call costs about a tenth of a step
SCHEDULES = ("linear", "constant_with_warmup", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
THRESHOLDS = ("fixed", "selection")
BESIDE_A_PROMPT = 1e-5  # the encoder's rate in the few-shot runs of P-tuning v1's code, whatever the prompt's


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. None: the method's default for this task (`methods.METHODS`).

    Attributes:
        learning_rate: peak, for AdamW.
        backbone_learning_rate: peak for the encoder's own weights, where they are trained; None: as `learning_rate`, and beside
            a prompt (`tune_backbone`) `BESIDE_A_PROMPT`.
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
        threshold: where two labels part: `"fixed"` where both are equally likely, as the official scorers have it;
            `"selection"` where the rows that select score best, which moves the head's bias (MultiRC only).
        seed: of the order of the rows and of dropout; the fresh weights have that of `build_model`, so give both.
        length_grouped: batch rows of similar length together.
        evaluation_batch_size: inputs at once when scoring; changes no score. Small ones waste less on padding.
    """

    learning_rate: float | None = None
    backbone_learning_rate: float | None = None
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
    threshold: str = "fixed"
    seed: int = 0
    length_grouped: bool = True
    evaluation_batch_size: int = 16

    def __post_init__(self) -> None:
        """Check every value that can be checked alone."""
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", str(self.schedule), SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", str(self.precision), PRECISIONS)
        if self.selection not in SELECTIONS:
            raise unknown("selection", str(self.selection), SELECTIONS)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", str(self.threshold), THRESHOLDS)
        counts = ("epochs", "batch_size", "evaluation_batch_size", "patience")
        rates, sizes = ("learning_rate", "backbone_learning_rate"), ("weight_decay", "clip")
        settle_kinds(
            self,
            whole=("max_length", "seed", *counts),
            numbers=("warmup_ratio", *rates, *sizes),
            flags=("length_grouped",),
        )
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadOption(f"{name}={value} must be a whole number of at least 1.")
        for name in rates:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise BadOption(f"{name}={value} must be a number above 0.")
        for name in sizes:
            if not 0 <= getattr(self, name) < math.inf:
                raise BadOption(f"{name}={getattr(self, name)} must be a number of at least 0.")
        if not 0 <= self.seed < 2**32:
            raise BadOption(f"seed={self.seed} must lie between 0 and {2**32 - 1}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise BadOption(f"warmup_ratio={self.warmup_ratio} must lie between 0 and 1.")
        if self.max_length is not None and self.max_length < SHORTEST:
            raise BadOption(f"max_length={self.max_length} leaves no room for a text; use at least {SHORTEST}.")


@dataclass
class TrainingState:
    """All that changes while training runs, beside the weights.

    Attributes:
        epoch: epochs finished.
        step: optimizer steps finished.
        best_score: best selection score so far.
        best_epoch: when it was reached, from 1.
        best_metrics: all scores of the rows that select at that time, of each data set.
        best_weights: what was trainable then, on the CPU; before the first epoch, what training began with.
        history: one dict an epoch.
        optimizer: with its moments.
        scheduler: of the learning rate.
        order: draws the order of the rows, and of the data sets where there are several.
        waiting: of each data set, the batches to come before its rows are drawn anew, as numbers of units.
    """

    optimizer: torch.optim.Optimizer
    scheduler: Any
    order: torch.Generator
    waiting: list[list[list[int]]]
    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    best_metrics: Sequence[dict[str, Any]] = ()
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A training that is settled and has not begun.

    Attributes:
        model: what will be trained.
        task: the loaded task.
        split: its rows by use.
        config: how to train, filled with the method's defaults.
        settings: all that was chosen, by part, as it goes into the record.
        name: tells the run from others of the same task and method.
        model_seed: of the weights the training begins with; None where they were loaded.
        continued: whether those weights come from an earlier training.
    """

    model: PromptedModel
    task: Task
    split: Split
    config: TrainingConfig
    settings: dict[str, dict[str, Any]]
    name: str | None
    model_seed: int | None
    continued: bool

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to be the same run, and so to share an output folder."""
        return {
            "name": self.name,
            "task": self.task.name,
            "method": self.model.method,
            "backbone": self.model.name,
            "source": self.task.source,
            "rows": _digest(self.task.rows),
            "train_limit": self.task.train_limit,
            "settings": self.settings,
            "model_seed": self.model_seed,
            "continued": self.continued,
        }


def _digest(rows: Mapping[str, Sequence[Mapping]]) -> str:
    """What tells data sets apart that are called alike, such as two folders named `data`."""
    found = hashlib.sha256()
    for split in sorted(rows):
        found.update(split.encode())
        for row in rows[split]:
            found.update(json.dumps(row, default=str).encode())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Material:
    """A plan with its rows encoded.

    Attributes:
        plan: the plan.
        data: the inputs of every row, by part: `train`, `validation`, `test` and the further sets, as far as there are any.
        units: what is drawn into a batch as one: the inputs of a training row where they are compared, else each by itself.
    """

    plan: Plan
    data: dict[str, list[list[Encoded]]]
    units: list[list[Encoded]]

    @property
    def batches(self) -> int:
        """Steps of one pass over the training rows."""
        return math.ceil(len(self.units) / self.plan.config.batch_size)


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
        output_dir: takes `record.json`, `log.jsonl` and `prompt/` (`ft`: `model/`); a run that is cut off behind a finished
            epoch leaves the weights of the best one, and no record.
        name: tells this run from others of the same task and method in tables.
        progress: show a progress bar.

    Raises:
        BadOption: for settings that make no sense together or would not fit the memory.
        OutputError: if the folder cannot be written, or holds a run with other settings.
    """
    plan = plan_training(model, task, config, name)
    if output_dir is not None:
        check_folder(output_dir, plan.identity)
    started = time.perf_counter()
    material = prepare(plan)
    # Only now, when the training can begin, do earlier results go.
    folder = None if output_dir is None else claim(output_dir, plan.identity)
    log = folder and folder / "log.jsonl"
    title = f"{plan.model.method} on {task.name}"
    with saving_what_was_reached(plan.model, folder):
        state = fit([material], plan.config, log=log, title=title, progress=progress)
    return conclude(material, state, folder, started)


def plan_training(
    model: PromptedModel, task: Task, config: TrainingConfig | None = None, name: str | None = None
) -> Plan:
    """Settle a training: divide the rows, fill what the settings leave open.

    Args:
        model: what will be trained.
        task: the loaded task.
        config: settings; the method's defaults where they are left open.
        name: tells the run from others.

    Raises:
        BadOption: if the model is another task's, its encoder was changed since, a rate is given for an encoder that
            stays, or a threshold is to be chosen where there is none.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps; names of weights would change with it
    config = config or TrainingConfig()
    check_kinds(model, config, task)
    model.check_task(task)
    model.check_encoder()
    model.check_open()
    if config.backbone_learning_rate is not None and model.trains == "nothing":
        raise BadOption(
            f"backbone_learning_rate={config.backbone_learning_rate} has nothing to move: {model.method!r} leaves the "
            "encoder as it is."
        )
    movable = isinstance(model.head, SequenceHead) and model.head.linear.bias.requires_grad
    if config.threshold != "fixed" and not (movable and hasattr(model.family, "best_threshold")):
        raise BadOption(
            f"threshold={config.threshold!r} moves the bias of a linear head that tells right from wrong options, as on "
            f"multirc; {model.method!r} on {task.name!r} has none."
        )
    split = task.split(config.selection)
    config = fill_config(config, model, [split])
    choose_precision(config.precision)  # refuses what this machine lacks before anything is written
    settings = {"model": dataclasses.asdict(model.options), "training": dataclasses.asdict(config)}
    return Plan(model, task, split, config, settings, name, model.seed, model.trained)


def check_kinds(model: Any, config: Any, *tasks: Any) -> None:
    """Raise `BadOption` for what is no model, no settings or no loaded task."""
    for given, kind in ((model, PromptedModel), (config, TrainingConfig), *((task, Task) for task in tasks)):
        if not isinstance(given, kind):
            raise BadOption(
                f"Training takes a model of build_model, a task of load_task and a TrainingConfig, not {given!r:.60}."
            )


def fill_config(config: TrainingConfig, model: PromptedModel, splits: Sequence[Split]) -> TrainingConfig:
    """The settings, with the method's defaults for training on all these rows where they leave something open."""
    rows = sum(model.family.size(row) for split in splits for row in split.train)
    if model.trains == "everything" and model.prompt is not None and config.backbone_learning_rate is None:
        config = dataclasses.replace(config, backbone_learning_rate=BESIDE_A_PROMPT)
    return fill(config, METHODS[model.method].settings(model.family.head, model.backbone.config.hidden_size, rows))


def prepare(plan: Plan) -> Material:
    """Set the model's cut, and encode every row that trains or is scored.

    Raises:
        BadOption: if a batch would not fit the memory.
    """
    before = plan.model.max_length
    plan.model.max_length = min(plan.config.max_length or plan.model.family.max_length, plan.model.room)
    try:
        return _encoded(plan)
    except BaseException:
        plan.model.max_length = before
        raise


def _encoded(plan: Plan) -> Material:
    parts = {"train": plan.split.train, **_scored(plan.split)}
    data: dict[str, list[list[Encoded]]] = {}
    for part, rows in parts.items():
        if rows is plan.split.test and part != "test":  # a second name of the same rows
            data[part] = data["test"]
        elif rows:
            data[part] = plan.model.encode(rows, store=True)
    if plan.model.family.together:
        units = [list(inputs) for inputs in data["train"]]
    else:
        units = [[one] for inputs in data["train"] for one in inputs]
    _fits_memory(plan.model, units, plan.config.batch_size)
    return Material(plan, data, units)


@contextlib.contextmanager
def _accelerate_set_anew() -> Iterator[None]:
    """Let accelerate start as in a fresh process, and put back what it was set to.

    It keeps its settings in singletons; those of an earlier run, or of a script around this one, may name another precision,
    or be in the middle of accumulating gradients.
    """
    from accelerate.state import AcceleratorState, GradientState, PartialState

    shared = [kind._shared_state for kind in (AcceleratorState, GradientState, PartialState)]
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        for state, old in zip(shared, before, strict=True):
            state.clear()
            state.update(old)


@seeded()
@_accelerate_set_anew()
def fit(
    materials: Sequence[Material],
    config: TrainingConfig,
    *,
    shares: Sequence[float] = (1.0,),
    log: Path | None = None,
    title: str = "",
    progress: bool = True,
) -> TrainingState:
    """The loop: train what is trainable in the models, and leave in them the weights of the best epoch.

    Every batch comes from one data set. An epoch has as many steps as the data sets together have batches. The best epoch
    has the highest score on the rows that select, the mean over the data sets.

    Args:
        materials: one a data set; what their models share is trained by all.
        config: settings, filled.
        shares: the probability that a step's batch comes from each data set.
        log: a file that takes a line an epoch.
        title: of the progress bar.
        progress: show it.

    Raises:
        BadOption: if the loss stops being a number, or several processes were started.
    """
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, set_seed
    from tqdm.auto import tqdm
    from transformers import get_scheduler

    started = time.perf_counter()
    models = nn.ModuleList(material.plan.model for material in materials)  # lists what they share once
    set_seed(config.seed)
    precision = choose_precision(config.precision)
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision, precision),
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # else a launcher's environment decides
    )
    if accelerator.num_processes > 1:
        raise BadOption(
            f"{accelerator.num_processes} processes were started, and a run trains in one; start it with plain `python`."
        )
    models.to(accelerator.device)
    if torch.cuda.is_available():  # an earlier run of this process may have needed more
        torch.cuda.reset_peak_memory_stats()
    weights = {name: weight for name, weight in models.named_parameters() if weight.requires_grad}
    if not weights:  # a discrete prompt
        return TrainingState(None, None, torch.Generator(), [])

    steps = config.epochs * sum(material.batches for material in materials)
    optimizer = torch.optim.AdamW(_groups(weights, config), lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler = get_scheduler(config.schedule, optimizer, round(config.warmup_ratio * steps), steps)
    state = TrainingState(
        accelerator.prepare(optimizer),
        accelerator.prepare(scheduler),
        torch.Generator().manual_seed(config.seed),
        [[] for _ in materials],
    )
    bar = tqdm(total=steps, desc=title, disable=not progress, leave=False, file=sys.stderr)
    _keep(weights, state)
    with _ending_with_the_best(models, weights, state), Log(log) as file, bar:
        while state.epoch < config.epochs:
            models.train()
            turns = _turns(materials, shares, config, state)
            with eager_where_faster([model.backbone for model in models], precision):
                tally = _epoch(turns, list(weights.values()), config, accelerator, state, bar)
            selected, thresholds = zip(*(_select(material) for material in materials), strict=True)
            scores = [
                metrics[material.plan.model.family.metric]
                for metrics, material in zip(selected, materials, strict=True)
            ]
            _, rows, losses = tally.sum(0).tolist()
            loss, score = losses / rows, sum(scores) / len(scores)
            state.epoch += 1
            line = {"epoch": state.epoch, "step": state.step, "loss": loss, "selection": score}
            if len(materials) > 1:
                line["tasks"] = _by_task(materials, tally, scores)
            if config.threshold != "fixed":
                line["thresholds"] = thresholds
            state.history.append(line)
            file.write(line | {"seconds": round(time.perf_counter() - started, 1)})
            bar.set_postfix(loss=f"{loss:.3f}", selection=f"{score:.3f}")
            if not math.isfinite(loss):
                raise BadOption(
                    f"The loss became {loss} in epoch {state.epoch}; a learning rate below {config.learning_rate} may help."
                )
            if score > state.best_score:
                state.best_score, state.best_epoch, state.best_metrics = score, state.epoch, selected
                _keep(weights, state)
                for k, threshold in enumerate(thresholds):
                    if threshold:  # in what is kept: the training goes on without it
                        state.best_weights[f"{k}.head.linear.bias"][1] -= threshold
            if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
                break
    return state


def _keep(weights: Mapping[str, nn.Parameter], state: TrainingState) -> None:
    """Take the weights as they are for the best so far."""
    state.best_weights = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


@contextlib.contextmanager
def _ending_with_the_best(models: nn.ModuleList, weights: Mapping[str, nn.Parameter], state: TrainingState) -> Iterator:
    """Whatever ends the loop, an interrupt too: leave the weights of the best finished epoch, in evaluation mode.

    If none was finished they are those it began with.
    """
    try:
        yield
    finally:
        with torch.no_grad():
            for key, best in state.best_weights.items():
                weights[key].copy_(best)
        models.eval()
        for model in models:
            model.trained = model.trained or state.best_epoch > 0


def _groups(weights: Mapping[str, nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """The weights with their learning rates: the encoder's may have one of its own."""
    if config.backbone_learning_rate is None:
        return [{"params": list(weights.values())}]
    encoder = {name for name in weights if name.split(".")[1] in ("backbone", "lm_head")}  # behind the model's number
    parts = [(config.learning_rate, weights.keys() - encoder), (config.backbone_learning_rate, encoder)]
    return [{"params": [weights[name] for name in sorted(names)], "lr": rate} for rate, names in parts if names]


def conclude(
    material: Material, state: TrainingState, folder: Path | None, started: float, **further: dict[str, Any]
) -> Run:
    """Write a trained model's weights, score it once, and write its record.

    Args:
        material: the model and its rows.
        state: what `fit` gave.
        folder: what `claim` gave; None writes nothing.
        started: when the training began, by `time.perf_counter`.
        **further: what the record adds to parts of the settings.
    """
    model, settings = material.plan.model, material.plan.settings
    if folder is not None:  # before anything is scored, which may fail
        _save_weights(model, folder)
    selected = state.best_metrics[0] if state.best_metrics else None
    predicted = predict_sets(material, selected is None)
    metrics = score_sets(material, predicted, selected)
    error = _row_error(material, metrics, predicted)
    seconds = time.perf_counter() - started
    settings = settings | {part: settings[part] | added for part, added in further.items()}
    record = _record(material, settings, metrics, error, state, seconds)
    path = None
    if folder is not None:
        path = write_json(folder / "record.json", record)
    return Run(metrics, record["majority"], model.trainable_parameters, seconds, path, record)


@contextlib.contextmanager
def saving_what_was_reached(model: PromptedModel, folder: Path | None) -> Iterator[None]:
    """If what follows is cut off behind a finished epoch, write the weights of the best one all the same."""
    try:
        yield
    except BaseException:
        if folder is not None and model.trained:
            _save_weights(model, folder)
        raise


def _save_weights(model: PromptedModel, folder: Path) -> None:
    if model.trains == "everything":
        model.save_model(folder / "model")
    else:
        model.save_prompt(folder / "prompt")


def predict_sets(material: Material, validation: bool = True) -> dict[str, list[Any]]:
    """The predictions for every set that is scored, by name.

    Args:
        material: the model and its rows.
        validation: whether also for the rows that select.
    """
    plan, predicted = material.plan, {}
    for part, rows in _scored(plan.split).items():
        if rows is plan.split.test and part != "test":  # a second name of the same rows
            predicted[part] = predicted["test"]
        elif rows and (validation or part != "validation"):
            predicted[part] = plan.model.decode(material.data[part], rows, plan.config.evaluation_batch_size)
    return predicted


def score_sets(
    material: Material, predicted: Mapping[str, Sequence], selected: dict[str, Any] | None = None
) -> dict[str, dict[str, Any] | None]:
    """The scores of every set that is scored, by name; `test` is None where nothing is left to score.

    Args:
        material: the model and its rows.
        predicted: what `predict_sets` gave.
        selected: scores of the rows that select, if these weights have them already.
    """
    family, parts = material.plan.model.family, _scored(material.plan.split)
    scores = {part: family.score(found, parts[part]) for part, found in predicted.items()}
    return {"validation": selected, "test": None} | scores


def evaluate(
    model: PromptedModel, encoded: Sequence[Sequence[Encoded]], rows: Sequence[Mapping], batch_size: int = 16
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

    Raises:
        BadOption: for fp16 on a CPU, which would compute in float32.
    """
    if wanted == "fp16" and not torch.cuda.is_available():
        raise BadOption("precision='fp16' needs a CUDA device; on a CPU use 'fp32', or 'bf16' where it has that.")
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


def _scored(split: Split) -> dict[str, list[dict[str, Any]]]:
    return {"validation": split.validation, "test": split.test or [], **split.further}


def _select(material: Material) -> tuple[dict[str, Any], float]:
    """The scores of the rows that select, and the margin by which a second label has to lead for them."""
    plan, inputs = material.plan, material.data["validation"]
    rows, batch_size, family = plan.split.validation, plan.config.evaluation_batch_size, plan.model.family
    if plan.config.threshold == "fixed":
        return evaluate(plan.model, inputs, rows, batch_size), 0.0
    found = dict(plan.model.logits([one for of_row in inputs for one in of_row], batch_size))
    logits = [found[k] for k in range(len(found))]
    threshold = family.best_threshold(logits, rows)
    moved = iter(logits - np.array([0, threshold]))
    predicted = [
        family.decode([next(moved) for _ in of_row], of_row, row) for of_row, row in zip(inputs, rows, strict=True)
    ]
    return family.score(predicted, rows), threshold


def _turns(
    materials: Sequence[Material], shares: Sequence[float], config: TrainingConfig, state: TrainingState
) -> Iterator[tuple[int, PromptedModel, list[list[Encoded]]]]:
    """The steps of one epoch: the number of a data set, its model, and a batch of its units.

    A data set goes through all its rows before they are drawn anew, be it in this epoch or in a later one.
    """
    steps = sum(material.batches for material in materials)
    drawn = [0] * steps
    if len(materials) > 1:
        chances = torch.tensor(shares, dtype=torch.float64)
        drawn = torch.multinomial(chances, steps, replacement=True, generator=state.order).tolist()
    for k in drawn:
        units = materials[k].units
        if not state.waiting[k]:
            lengths = [max(map(len, unit)) for unit in units]
            state.waiting[k] = list(batches(lengths, config.batch_size, state.order, config.length_grouped))
        yield k, materials[k].plan.model, [units[i] for i in state.waiting[k].pop(0)]


def _by_task(materials: Sequence[Material], tally: Tensor, scores: Sequence[float]) -> dict[str, dict[str, Any]]:
    """What the history says of each data set; the loss is None where no step was drawn."""
    return {
        material.plan.task.name: {"steps": int(steps), "loss": losses / rows if rows else None, "selection": score}
        for material, (steps, rows, losses), score in zip(materials, tally.tolist(), scores, strict=True)
    }


def _epoch(turns: Iterable, weights: list[nn.Parameter], config, accelerator, state: TrainingState, bar) -> Tensor:
    """Take the steps of one epoch; of each data set the steps, the rows and the sum of their losses, `[data sets, 3]`."""
    tally = torch.zeros(len(state.waiting), 3, dtype=torch.float64)
    for k, model, units in turns:
        batch, labels = collate([one for unit in units for one in unit], model.tokenizer)
        batch = {key: tensor.to(accelerator.device) for key, tensor in batch.items()}
        with accelerator.autocast():
            logits = model(**batch)
        loss = model.head.loss(logits, labels.to(accelerator.device))
        accelerator.backward(loss)
        if config.clip:
            accelerator.clip_grad_norm_(weights, config.clip)
        state.optimizer.step()
        state.scheduler.step()
        state.optimizer.zero_grad()
        state.step += 1
        if state.step % GIVE_BACK_EVERY == 0 and accelerator.device.type == "cpu":
            give_back()
        tally[k] += torch.tensor([1, len(units), loss.item() * len(units)], dtype=torch.float64)
        bar.update()
    return tally


def _fits_memory(model: PromptedModel, units: Sequence[Sequence[Encoded]], batch_size: int) -> None:
    """Refuse a batch whose activations would not fit, before anything is allocated.

    Counted are the widest batch's hidden states (about 20 a layer: projections, feed-forward, normalisation), its keys and
    values with the prompt, and two attention maps a layer, all float32; with checkpointing those of one layer, and what
    enters each of the others.
    """
    config = model.backbone.config
    text = max(len(one) for unit in units for one in unit)
    batch_size = min(batch_size, len(units)) * len(units[0])
    prompt = model.options.prompt_length or 0
    rows = text + prompt if METHODS[model.method].prompt == "input" else text
    columns = text + prompt
    per_layer = 20 * rows * config.hidden_size + 2 * columns * config.hidden_size
    per_layer += 2 * config.num_attention_heads * rows * columns
    numbers = config.num_hidden_layers * per_layer
    if model.options.gradient_checkpointing:
        numbers = per_layer + config.num_hidden_layers * rows * config.hidden_size
    need = 4 * batch_size * numbers
    free = free_memory()
    if need > free:
        raise BadOption(
            f"A batch of {batch_size} texts of up to {text} pieces with prompt_length={prompt} needs about "
            f"{need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free."
        )


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found)


def _peak_memory() -> int | None:
    """The most bytes held on the accelerator since `fit` began; without one, by this process since it began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _row_error(material: Material, metrics: Mapping[str, Any], predicted: Mapping[str, Sequence]) -> float | None:
    """The standard error that the number of scored rows alone brings; None for an F1 where all that is scored selects."""
    family, split = material.plan.model.family, material.plan.split
    if family.metric == "accuracy":
        part = "test" if split.test else "validation"
        return standard_error(metrics[part][family.metric], len(getattr(split, part)))
    if not split.test:
        return None
    rows, found = split.test, predicted["test"]
    groups = [k if family.group(row) is None else family.group(row) for k, row in enumerate(rows)]
    return jackknife_error(
        lambda kept: family.score([found[i] for i in kept], [rows[i] for i in kept])[family.metric], groups
    )


def _record(
    material: Material,
    settings: dict[str, Any],
    metrics: dict[str, Any],
    error: float | None,
    state: TrainingState,
    seconds: float,
) -> dict[str, Any]:
    plan, data = material.plan, material.data
    model, task, split = plan.model, plan.task, plan.split
    rows = split.test or split.validation
    parts = {"train": split.train} | _scored(split)
    majority = model.family.majority(split.train, rows)
    return {
        "name": plan.name,
        "task": task.name,
        "method": model.method,
        "backbone": model.name,
        "seed": settings["training"]["seed"],
        "metrics": metrics,
        "majority": majority,
        "standard_error": error,
        "trainable_parameters": model.trainable_parameters,
        "backbone_parameters": sum(
            parameter.numel() for name, parameter in model.backbone.named_parameters() if ".lora_" not in name
        ),
        "seconds": round(seconds, 1),
        "protocol": split.protocol,
        "data": {
            "source": task.source,
            "revision": task.revision,
            "train_limit": task.train_limit,
            "rows": {part: len(rows) for part, rows in parts.items()},
            "peculiar": {part: model.family.peculiar(rows) for part, rows in parts.items()},
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
        "settings": settings
        | {
            "precision": choose_precision(plan.config.precision),
            "model_seed": plan.model_seed,
            "continued": plan.continued,
            "fingerprint": model.fingerprint,
            "revision": model.revision,
        },
        "history": {"best_epoch": state.best_epoch, "epochs": state.history},
        "machine": machine() | {"peak_memory_bytes": _peak_memory()},
    }

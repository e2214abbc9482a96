"""Multi-task P-tuning v2: a deep prompt that several data sets train together, and then each by itself.

Phase 1 trains one prompt on all data sets, with a linear head for each. Phase 2 takes each data set by itself and trains it
on, from phase 1's prompt and its own head (Liu et al., 2022, 3.3 and 4.3). The authors published no code for it. That each
batch of phase 1 comes from one data set is what they answered in issue 22 of their repository.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .errors import BadOption
from .folders import check_folder, claim
from .model import PromptedModel
from .tasks import Task
from .tasks.common import TaskFamily
from .training import (
    Material,
    Plan,
    Run,
    TrainingConfig,
    check_kinds,
    conclude,
    fill_config,
    fit,
    plan_training,
    predict_sets,
    prepare,
    saving_what_was_reached,
    score_sets,
)

METHOD = "mpt2"
PHASES = ("temperature", "phase2_epochs", "phase2_learning_rate")  # what `train_multitask` adds to the settings


@dataclass(frozen=True)
class MultitaskRun:
    """A finished multi-task training.

    Attributes:
        runs: by task, phase 2. The record of each has phase 1 under `settings["phase1"]`: its tasks and settings, its best
            epoch, and as `metrics` what its weights scored on this task.
        models: by task, the model of phase 2, with a prompt and a head of its own; the frozen encoder is one for all.
        history: of phase 1, one dict an epoch.
    """

    runs: dict[str, Run]
    models: dict[str, PromptedModel]
    history: list[dict[str, Any]]


def train_multitask(
    model: PromptedModel,
    tasks: Sequence[Task],
    config: TrainingConfig | None = None,
    *,
    output_dir: str | os.PathLike | None = None,
    name: str | None = None,
    progress: bool = True,
    temperature: float = 0.5,
    phase2_epochs: int | None = None,
    phase2_learning_rate: float | None = None,
) -> MultitaskRun:
    """Train a prompt on several data sets together, then on each of them by itself; score after both phases.

    An epoch of phase 1 has as many steps as the data sets together have batches. Each step draws its data set
    (`tempered`). The epoch with the best mean selection score is kept, the prompt and all heads.

    Args:
        model: what `build_model(tasks[0], method="mpt2")` gave, or one for another of the tasks. It is left with the prompt
            of phase 1 and the head of its own task.
        tasks: two or more loaded tasks of one kind. If one of them has questions without an answer, phase 1 takes every
            question of the others as possibly unanswerable, too (4.3); phase 2 does not.
        config: settings of both phases; the method's defaults where they are left open.
        output_dir: takes a folder a task, as `train` writes it, and of phase 1 `phase1.jsonl` and `phase1/<task>`, a prompt.
        name: tells this run from others of the same tasks in tables.
        progress: show progress bars.
        temperature: exponent of the data sets' sizes in phase 1, from 0 (all alike) to 1 (as many steps as batches).
        phase2_epochs: epochs of phase 2; None for those of `config`.
        phase2_learning_rate: learning rate of phase 2; None for that of `config`.

    Raises:
        BadOption: for tasks that are not a group, a model of another method, or settings that make no sense together.
        OutputError: if a folder cannot be written, or holds a run with other settings.
    """
    model = getattr(model, "_orig_mod", model)
    tasks = [tasks] if isinstance(tasks, (Task, str)) else list(tasks)
    config = config or TrainingConfig()
    check_kinds(model, config, *tasks)
    _check(model, tasks, temperature)
    asked = {"epochs": phase2_epochs, "learning_rate": phase2_learning_rate}
    try:
        later = replace(config, **{name: value for name, value in asked.items() if value is not None})
    except BadOption as error:
        raise BadOption(f"phase2_{error}") from None
    plans = [plan_training(model.for_task(task, config.seed), task, later, name) for task in tasks]
    # Phase 2 chooses thresholds; one of phase 1 would be part of what it starts from.
    joint = fill_config(replace(config, threshold="fixed"), model, [plan.split for plan in plans])
    phase1 = {"tasks": [task.name for task in tasks], "temperature": temperature} | asdict(joint)
    plans = [
        replace(plan, settings=plan.settings | {"phase1": phase1}, model_seed=model.seed, continued=model.trained)
        for plan in plans
    ]
    if output_dir is not None:
        check_folder(output_dir, _identity(plans))
        for plan in plans:
            check_folder(Path(output_dir) / plan.task.name, plan.identity)

    started = time.perf_counter()
    materials = [prepare(plan) for plan in plans]
    folder = None if output_dir is None else claim(output_dir, _identity(plans))
    members = [_member(model, material, tasks) for material in materials]
    shares = tempered([material.batches for material in materials], temperature)
    log, title = folder and folder / "phase1.jsonl", f"{METHOD} on {len(tasks)} tasks"
    try:
        first = fit(members, joint, shares=shares, log=log, title=title, progress=progress)
    finally:  # interrupted behind an epoch, the prompt is a trained one as well
        model.trained = model.trained or any(member.plan.model.trained for member in members)
    model.eval()
    reached = [
        {
            "best_epoch": first.best_epoch,
            "metrics": score_sets(member, predict_sets(member, validation=False), selected),
        }
        for member, selected in zip(members, first.best_metrics, strict=True)
    ]
    seconds = round(time.perf_counter() - started, 1)
    if folder is not None:
        _keep_phase1(folder, members, reached, seconds)

    runs, models = {}, {}
    for material, member, found in zip(materials, members, reached, strict=True):
        plan, started = material.plan, time.perf_counter()
        plan.model.prompt, plan.model.head = copy.deepcopy(model.prompt), copy.deepcopy(member.plan.model.head)
        plan.model.seed = model.seed
        place = None if folder is None else claim(folder / plan.task.name, plan.identity)
        log, title = place and place / "log.jsonl", f"{METHOD} on {plan.task.name}"
        with saving_what_was_reached(plan.model, place):
            state = fit([material], plan.config, log=log, title=title, progress=progress)
        runs[plan.task.name] = conclude(material, state, place, started, phase1=found | {"seconds": seconds})
        models[plan.task.name] = plan.model
    return MultitaskRun(runs, models, first.history)


def tempered(sizes: Sequence[int], temperature: float) -> list[float]:
    """Probabilities of data sets, in proportion to their sizes raised to the temperature.

    0.5 is the square-root sampling of Stickland and Murray (2019, arXiv 1902.02671; `--sample sqrt` in their code). Liu et
    al. do not say how they draw. Elsewhere the temperature is the inverse of this one.
    """
    weights = [size**temperature for size in sizes]
    return [weight / sum(weights) for weight in weights]


def _check(model: PromptedModel, tasks: Sequence[Task], temperature: float) -> None:
    """Refuse what is no group."""
    names = [task.name for task in tasks]
    if model.method != METHOD:
        raise BadOption(f"Multi-task training needs a model built with method={METHOD!r}, not {model.method!r}.")
    if len(tasks) < 2:
        raise BadOption(f"Multi-task training needs two tasks or more, not {len(tasks)}; `train` is for one.")
    for k, task in enumerate(tasks):
        if task.name in names[:k]:
            raise BadOption(f"The task {task.name!r} is named twice; every task of a group needs a name of its own.")
        if Path(task.name).name != task.name or task.name == "..":
            raise BadOption(f"The task's name {task.name!r} must be fit for a folder, without a path in it.")
        kinds = [_kind(one.family) for one in (tasks[0], task)]
        if kinds[0] != kinds[1]:
            raise BadOption(
                f"The tasks of a group must be of one kind, and {names[0]!r} is {kinds[0]} but {task.name!r} is {kinds[1]}."
            )
    if model.family.name not in names:
        raise BadOption(f"The model was built for {model.family.name!r}, which is none of {', '.join(names)}.")
    model.check_task(tasks[names.index(model.family.name)])
    if not (isinstance(temperature, (int, float)) and 0 <= temperature <= 1):
        raise BadOption(f"temperature={temperature} must be a number between 0 (all alike) and 1 (by size).")


def _kind(family: TaskFamily) -> str:
    """The kind of task: the class right below `TaskFamily`, which WSC and WiC share with other classification."""
    return next(kind.__name__ for kind in type(family).__mro__ if TaskFamily in kind.__bases__)


def _identity(plans: Sequence[Plan]) -> dict[str, Any]:
    """What two runs of a group must have in common to be the same run."""
    found = [plan.identity for plan in plans]
    return found[0] | {
        "task": "+".join(one["task"] for one in found),
        **{key: [one[key] for one in found] for key in ("source", "rows", "train_limit")},
    }


def _member(model: PromptedModel, material: Material, tasks: Sequence[Task]) -> Material:
    """A task's part in phase 1: the prompt of all, and a head of its own."""
    plan = material.plan
    member = model.for_task(_joint_family(plan.task.family, tasks), plan.config.seed)
    member.max_length = plan.model.max_length
    if member.family.name == model.family.name:
        member.head, model.max_length = model.head, member.max_length
    return replace(material, plan=replace(plan, model=member))


def _joint_family(family: TaskFamily, tasks: Sequence[Task]) -> TaskFamily:
    """What phase 1 takes the task for: one that may have no answer, if another of the group may have none."""
    if any(getattr(task.family, "unanswerable", False) for task in tasks):
        return replace(family, unanswerable=True)
    return family


def _keep_phase1(folder: Path, members: Sequence[Material], reached: Sequence[dict], seconds: float) -> None:
    """Write what phase 1 reached before phase 2 begins: the scores as the log's last line, and a prompt a task."""
    for member in members:
        member.plan.model.save_prompt(folder / "phase1" / member.plan.task.name)
    found = {member.plan.task.name: one["metrics"] for member, one in zip(members, reached, strict=True)}
    with open(folder / "phase1.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"best_epoch": reached[0]["best_epoch"], "metrics": found, "seconds": seconds}) + "\n")

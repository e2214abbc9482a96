"""Predictions for a whole split, as a file in the form its owner asks for."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import BadOption
from .files import writable_folder, write_whole
from .model import PromptedModel
from .tasks import Task


def write_predictions(
    model: PromptedModel, task: Task, path: str | os.PathLike, *, split: str = "test", batch_size: int = 32
) -> Path:
    """Answer every row of a split and write the answers, whole or not at all.

    The form is the task's: GLUE's and SuperGLUE's test files, SQuAD's JSON from question to answer, CoNLL's columns.

    Args:
        model: a trained model of this task.
        task: the loaded task.
        path: the file to write.
        split: a split of `task.rows`; its gold answers, if any, are not looked at.
        batch_size: inputs at once.

    Raises:
        BadOption: for a split the task does not have, a model of another task, or a task that is not loaded.
        OutputError: if the folder cannot be written.
    """
    if not isinstance(task, Task):
        raise BadOption(f"write_predictions takes a loaded task, such as load_task('sst2'), not {task!r:.60}.")
    if split not in task.rows:
        raise BadOption(f"{task.name} has no split {split!r} here; it has {', '.join(task.rows)}.")
    model.check_task(task)
    path = Path(path)
    writable_folder(path.parent)
    rows = task.rows[split]
    predicted = model.decode(model.encode(rows), rows, batch_size)
    return write_whole(path, model.family.submission(predicted, rows))

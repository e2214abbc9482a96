"""Building a task's model: the encoder it names, a fresh prompt and a fresh head."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import fields
from numbers import Integral
from typing import Any

import torch

from .adapters import low_rank
from .backbones import Backbone
from .errors import BadOption, unknown
from .heads import VerbalizerHead
from .methods import find_method
from .model import TOKENIZING, PromptedModel, check_labels
from .options import ModelOptions, settle
from .randomness import seeded
from .tasks import Task, find_task

CALIBRATED_ON = 256  # training texts, without their labels, that calibration="train" looks at


def build_model(
    task: Task | str,
    *,
    backbone: str | os.PathLike | Backbone = "minilm",
    method: str = "pt2",
    seed: int = 0,
    **options: Any,
) -> PromptedModel:
    """Build a task's model, in evaluation mode: a frozen encoder, a fresh prompt and a fresh head.

    An encoder that several models share is then in evaluation mode for all of them.

    Args:
        task: a loaded task, or the name of one.
        backbone: what `load_backbone` takes, or what it gave; if building fails, its weights stay as closed as they were.
        method: a name of `METHODS`.
        seed: of the fresh weights; the random state outside is left as it is.
        **options: fields of `ModelOptions`.

    Raises:
        UnknownName: for an unknown task, backbone, method or option.
        BadOption: for a value that makes no sense, layers outside the model, or a prompt that does not fit.
    """
    family = task.family if isinstance(task, Task) else find_task(task)
    if len(family.labels) < 2 and not isinstance(task, Task):
        raise BadOption(f"The labels of {family.name!r} come from its data; give build_model the loaded task.")
    check_labels(family)
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise BadOption(f"seed={seed!r} must be a whole number between 0 and {2**32 - 1}.")
    seed = int(seed)  # numpy's numbers cannot go into a record
    chosen = find_method(method)
    known = [f.name for f in fields(ModelOptions)]
    for option in options:
        if option not in known:
            raise unknown("option", option, known)
    loaded, filled = settle(ModelOptions(**options), method, family, backbone)
    adapters = chosen.trains == "adapters"
    beside = low_rank(loaded.encoder, filled.lora_rank, seed) if adapters else nullcontext()
    with seeded(seed), loaded.undone_on_error(), beside:
        model = PromptedModel(family, loaded, method, filled)
        model.seed = seed
        _start(model, task)
    model.claim_encoder()
    return model.eval()


def _start(model: PromptedModel, task: Task | str) -> None:
    """What goes beyond random numbers: a prompt that starts from words, a verbalizer without its prior."""
    options, tokenizer = model.options, model.tokenizer
    needs_rows = options.init == "activations" or options.calibration == "train"
    if needs_rows and not isinstance(task, Task):
        option = "init='activations'" if options.init == "activations" else "calibration='train'"
        raise BadOption(f"{option} needs a loaded task, whose training text it reads.")
    if options.init == "activations":
        pieces = _running_text(task, model)
        model.prompt.start_from_words(model.backbone, pieces, tokenizer.cls_token_id, tokenizer.sep_token_id)
    elif options.init in ("vocabulary", "labels"):
        words = _label_pieces(model) if options.init == "labels" else _whole_words(tokenizer)
        if options.init == "vocabulary":
            words = [words[k] for k in torch.randperm(len(words))[: model.prompt.length].tolist()]
        model.prompt.start_from_pieces(model.backbone, words)
    if options.calibration == "empty":
        model.calibrate([dict.fromkeys(model.template.columns, "")])
    elif options.calibration == "train":
        model.calibrate([row | {"label": -1} for row in task.split().train[:CALIBRATED_ON]])


def _label_pieces(model: PromptedModel) -> list[int]:
    """Pieces of the labels' words: the verbalizer's, or the labels' own names."""
    if isinstance(model.head, VerbalizerHead):
        return [piece for group in model.head.pieces for piece in group]
    names = [label.replace("_", " ").replace("-", " ") for label in model.family.labels]
    with TOKENIZING:
        return [piece for name in names for piece in model.tokenizer(name, add_special_tokens=False)["input_ids"]]


def _whole_words(tokenizer: Any) -> list[int]:
    """Every piece of the vocabulary that is a word by itself, in a fixed order."""
    vocabulary = tokenizer.get_vocab()
    return sorted(number for piece, number in vocabulary.items() if piece.lstrip("Ġ▁").isalpha())


def _running_text(task: Task, model: PromptedModel) -> list[int]:
    """Pieces of training text, whole texts until there are enough for the prompt."""
    pieces: list[int] = []
    for row in task.split().train:
        with TOKENIZING:
            pieces += model.tokenizer(task.family.texts_of(row), add_special_tokens=False, verbose=False)["input_ids"]
        if len(pieces) >= model.prompt.length:
            break
    return pieces

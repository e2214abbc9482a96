"""An encoder, a prompt and a head: building, predicting, saving and loading."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from .attention import attach, check_position_offset
from .backbones import Backbone, checkpoint_activations, load_backbone, set_dropout, silent
from .encoding import Encoded, Layout, collate, stored
from .errors import BadOption, PromptMismatch, unknown
from .files import whole_folder, write_json, write_whole
from .heads import POOLINGS, ChoiceHead, SequenceHead, SpanHead, TokenHead
from .methods import METHODS, find_method
from .prefix import PrefixEncoder, choose_layers
from .prompts import SoftPrompt
from .tasks import Task, find_task
from .tasks.common import TaskFamily
from .tasks.registry import family_from, family_to

FORMAT = 1  # of a saved prompt; a reader refuses newer ones


@dataclass(frozen=True)
class ModelOptions:
    """What `build_model` and `--set` take. None: the method's default for this task (`methods.METHODS`).

    Attributes:
        prompt_length: prompt positions, in every chosen layer for `pt2`.
        layers: `"all"`, an interval `"9-12"`, or a list, counted from 1 (`pt2`).
        reparameterization: None or `"mlp"` (`pt2`).
        reparameterization_hidden: width of the MLP.
        init: `"normal"`, N(0, 0.02), or `"activations"` of real words (`pt2`).
        position_offset: `"none"` or `"shift"`: does the text move by the prompt's length?
        prefix_dropout: share of the prompt's numbers set to zero in training (`pt2`).
        prefix_dropout_per_example: one dropout mask an example rather than one a step.
        backbone_dropout: dropout inside the encoder in training.
        head_dropout: dropout before the linear head.
        pooling: `"cls"`, `"mean"`, `"last"` or `"pooler"` (tasks with one label a text); None for the backbone's own.
        layout: how a row is laid out for the encoder, where the task knows several ways (`task.family.layouts`).
        stride: pieces that two windows of one context share (question answering).
        gradient_checkpointing: recompute activations in the backward pass.
    """

    prompt_length: int | None = None
    layers: str | Sequence[int] = "all"
    reparameterization: str | None = None
    reparameterization_hidden: int = 512
    init: str = "normal"
    position_offset: str | None = None
    prefix_dropout: float = 0.0
    prefix_dropout_per_example: bool = False
    backbone_dropout: float | None = None
    head_dropout: float = 0.1
    pooling: str | None = None
    layout: str | None = None
    stride: int = 128
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check every value that can be checked alone."""
        if self.prompt_length is not None and self.prompt_length < 1:
            raise BadOption(f"prompt_length={self.prompt_length} must be at least 1.")
        if self.reparameterization not in (None, "mlp"):
            raise unknown("reparameterization", str(self.reparameterization), ("mlp",))
        if self.init not in ("normal", "activations"):
            raise unknown("init", str(self.init), ("normal", "activations"))
        if self.position_offset not in (None, "none", "shift"):
            raise unknown("position_offset", str(self.position_offset), ("none", "shift"))
        if self.pooling not in (None, *POOLINGS):
            raise unknown("pooling", str(self.pooling), POOLINGS)
        if self.stride < 0:
            raise BadOption(f"stride={self.stride} must not be below 0.")
        for name in ("prefix_dropout", "backbone_dropout", "head_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise BadOption(f"{name}={value} must lie between 0 and 1, 1 excluded.")


def fill(options: Any, defaults: Mapping[str, Any]) -> Any:
    """A copy of a dataclass whose None fields take the defaults of the same name."""
    chosen = {f.name: getattr(options, f.name) for f in fields(options)}
    return type(options)(**{k: defaults.get(k) if v is None else v for k, v in chosen.items()})


class PromptedModel(nn.Module):
    """A task's model: `backbone` encodes, `prompt` steers it, `head` reads the answer. Built by `build_model`.

    Attributes:
        family: the task's schema and scoring.
        method: the method's name.
        options: all options, none left open.
        max_length: the cut, in pieces, that `predict` and training use.
    """

    def __init__(self, family: TaskFamily, backbone: Backbone, method_name: str, options: ModelOptions):
        super().__init__()
        self.family, self.method, self.options = family, method_name, options
        self.name, self.revision, self.fingerprint = backbone.name, backbone.revision, backbone.fingerprint
        self.tokenizer, self.segments = backbone.tokenizer, backbone.segments > 1
        self.backbone = backbone.encoder
        shape = attach(self.backbone)
        width = self.backbone.config.hidden_size
        kind = METHODS[method_name].prompt
        self.prompt: PrefixEncoder | SoftPrompt | None = None
        length = options.prompt_length
        if kind is not None:
            check_position_offset(self.backbone, options.position_offset, kind)
        if kind == "deep":
            layers = choose_layers(options.layers, shape.layers)
            _fits_memory(length * len(layers) * 2 * shape.key_value_width, f"A prompt of length {length}")
            self.prompt = PrefixEncoder(
                shape,
                length,
                layers,
                options.reparameterization,
                options.reparameterization_hidden,
                options.prefix_dropout,
                options.prefix_dropout_per_example,
                options.position_offset,
            )
        elif kind == "input":
            _fits_memory(length * width, f"A prompt of length {length}")
            self.prompt = SoftPrompt(
                self.backbone.get_input_embeddings().embedding_dim, length, options.position_offset
            )
        self.max_length = family.max_length
        family.check_layout(self.layout)
        self.head = self._fresh_head(width)
        # Positions that the prompt takes from the text.
        taken = self.prompt.offset if self.prompt is not None else 0
        if kind == "input":
            taken = length
        self.room = backbone.context - taken
        if self.room < 16:
            raise BadOption(
                f"A prompt of length {length} leaves {max(self.room, 0)} of {backbone.context} positions for the text; "
                "shorten it, or use position_offset='none' with pt2."
            )
        self.max_length = min(family.max_length, self.room)
        self.backbone.requires_grad_(METHODS[method_name].tunes_backbone)
        set_dropout(self.backbone, options.backbone_dropout)
        if options.gradient_checkpointing:
            checkpoint_activations(self.backbone)

    def _fresh_head(self, width: int) -> nn.Module:
        family, options = self.family, self.options
        if family.head == "sequence":
            words = family.words_read(self.layout)
            return SequenceHead(width, len(family.labels), options.pooling, options.head_dropout, words)
        if family.head == "choice":
            return ChoiceHead(width, len(family.labels), options.pooling, options.head_dropout)
        if family.head == "span":
            return SpanHead(width, options.head_dropout)
        return TokenHead(width, len(family.labels), options.head_dropout)

    @property
    def trainable_parameters(self) -> int:
        """How many numbers training moves."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training moves, by name: the prompt and the head, and with `ft` the encoder."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.head.parameters()).device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, marks: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Logits of a padded batch, always float32: `[batch, labels]`, or one row a piece for tags and answers."""
        if self.prompt is None:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **inputs)[0]
        else:
            hidden = self.prompt.encode(self.backbone, input_ids, attention_mask, **inputs)
        return self.head(hidden, attention_mask, getattr(self.backbone, "pooler", None), marks)

    @property
    def layout(self) -> Layout:
        """How rows become pieces for this model."""
        return Layout(self.max_length, self.options.stride, self.options.layout, self.segments)

    def encode(self, rows: Sequence[Mapping], *, store: bool = False) -> list[list[Encoded]]:
        """The encoder's inputs of each row, with this model's layout and cut.

        Args:
            rows: rows of the task.
            store: keep them on disk for the next run, in the Hugging Face cache; a large set is then read, not tokenized.
        """
        layout = self.layout
        if not store:
            return self.family.encode(rows, self.tokenizer, layout)
        # What the last call cut and padded at would otherwise be part of the key.
        self.tokenizer.backend_tokenizer.no_truncation()
        self.tokenizer.backend_tokenizer.no_padding()
        vocabulary = self.tokenizer.backend_tokenizer.to_str()
        make = partial(self.family.encode, rows, self.tokenizer, layout)
        return stored(make, rows, self.family, layout, vocabulary)

    @torch.no_grad()
    def logits(self, encoded: Sequence[Encoded], batch_size: int = 32) -> Iterator[tuple[int, np.ndarray]]:
        """Logits of each input with its number, without padding; runs in evaluation mode, longest inputs first."""
        training = self.training
        self.eval()
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
        left = self.tokenizer.padding_side == "left"
        try:
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                batch, _ = collate([encoded[i] for i in chosen], self.tokenizer)
                scores = self(**{name: tensor.to(self.device) for name, tensor in batch.items()}).cpu().numpy()
                for i, row in zip(chosen, scores, strict=True):
                    size = len(encoded[i])
                    yield i, row if row.ndim == 1 else row[-size:] if left else row[:size]
        finally:
            self.train(training)

    def decode(
        self,
        encoded: Sequence[Sequence[Encoded]],
        rows: Sequence[Mapping],
        batch_size: int = 32,
        *,
        words: bool = False,
    ) -> list[Any]:
        """The prediction for each row, from all of its inputs.

        Args:
            encoded: what `encode` gave for the rows.
            rows: the rows.
            batch_size: how many inputs at once.
            words: answer as a person wants it (`TaskFamily.answer`) rather than as it is scored (`TaskFamily.decode`).
        """
        of_row = [i for i, inputs in enumerate(encoded) for _ in inputs]
        flat = [one for inputs in encoded for one in inputs]
        first = {i: k for k, i in reversed(list(enumerate(of_row)))}
        waiting: list[list[np.ndarray | None]] = [[None] * len(inputs) for inputs in encoded]
        left = [len(inputs) for inputs in encoded]
        say = self.family.answer if words else self.family.decode
        predicted: list[Any] = [None] * len(rows)
        for k, scores in self.logits(flat, batch_size):
            i = of_row[k]
            waiting[i][k - first[i]] = scores
            left[i] -= 1
            if not left[i]:
                predicted[i] = say(waiting[i], encoded[i], rows[i])
                waiting[i] = []  # logits of long contexts are large
        return predicted

    def predict(self, examples: Sequence[Mapping], batch_size: int = 32) -> list[dict[str, Any]]:
        """Answer raw examples of the task in its own words, computed in float32.

        Args:
            examples: dicts with the task's text columns (tagging: `tokens` or `text`).
            batch_size: how many inputs at once.

        Returns:
            For each example what the family's `answer` says: `label` and `probabilities`; `tags` and `entities`; `answer`,
            `characters` and `score`; `predicate` and `roles`.

        Raises:
            DataError: if an example lacks a column.
        """
        rows = [self.family.prepare(example) for example in examples]
        return self.decode(self.encode(rows), rows, batch_size, words=True)

    def save_prompt(self, folder: str | os.PathLike) -> Path:
        """Write prompt and head to a folder, whole or not at all.

        `prompt.safetensors` holds them ready for use, a reparameterization folded away; `reparameterization.safetensors`
        keeps its raw weights so that training can go on; `prompt.json` says what they belong to.

        Raises:
            BadOption: for `ft`, which has no prompt apart from the encoder: use `save_model`.
            OutputError: if the folder cannot be written.
        """
        if METHODS[self.method].tunes_backbone:
            raise BadOption(
                f"{self.method!r} changes the encoder itself, so there is no prompt to save; use save_model."
            )
        with whole_folder(folder) as staging:
            self._save_into(staging)
        return Path(folder)

    def save_model(self, folder: str | os.PathLike) -> Path:
        """Write the whole encoder, its tokenizer and the head to a folder, whole or not at all.

        Raises:
            OutputError: if the folder cannot be written.
        """
        with whole_folder(folder) as staging, silent():
            self.backbone.save_pretrained(staging / "backbone")
            self.tokenizer.save_pretrained(staging / "backbone")
            self._save_into(staging)
        return Path(folder)

    def _save_into(self, folder: Path) -> None:
        tensors = {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}
        raw: dict[str, Tensor] = {}
        if isinstance(self.prompt, PrefixEncoder):
            tensors["prompt.keys_values"] = self.prompt.folded().detach()
            if self.prompt.network is not None:
                raw = self.prompt.state_dict()
        elif self.prompt is not None:
            tensors["prompt.vectors"] = self.prompt.vectors.detach()
        _save_tensors(tensors, folder / "prompt.safetensors")
        if raw:
            _save_tensors(raw, folder / "reparameterization.safetensors")
        write_json(
            folder / "prompt.json",
            {
                "format": FORMAT,
                "task": family_to(self.family),
                "method": self.method,
                "backbone": self.name,
                "revision": self.revision,
                "fingerprint": self.fingerprint,
                "max_length": self.max_length,
                "options": asdict(self.options),
            },
        )


def build_model(
    task: Task | str,
    *,
    backbone: str | Backbone = "minilm",
    method: str = "pt2",
    seed: int = 0,
    **options: Any,
) -> PromptedModel:
    """Build a task's model: a frozen encoder, a fresh prompt and a fresh head.

    Args:
        task: a loaded task, or the name of one.
        backbone: what `load_backbone` takes, or what it gave.
        method: a name of `METHODS`.
        seed: of the fresh weights; the random state outside is left as it is.
        **options: fields of `ModelOptions`.

    Raises:
        UnknownName: for an unknown task, backbone, method or option.
        BadOption: for a value that makes no sense, layers outside the model, or a prompt that does not fit.
    """
    family = task.family if isinstance(task, Task) else find_task(task)
    if len(family.labels) < 2:
        raise BadOption(f"The labels of {family.name!r} come from its data; give build_model the loaded task.")
    chosen = find_method(method)
    known = [f.name for f in fields(ModelOptions)]
    for option in options:
        if option not in known:
            raise unknown("option", option, known)
    given = ModelOptions(**options)
    if chosen.prompt != "deep" and given.init != "normal":
        raise BadOption(f"init={given.init!r} belongs to deep prompts, and {method!r} has none.")
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, pooler=given.pooling == "pooler")
    defaults = chosen.settings(family.head, backbone.encoder.config.hidden_size)
    filled = fill(given, defaults | {"pooling": backbone.pooling})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PromptedModel(family, backbone, method, filled)
    if filled.init == "activations":
        if not isinstance(task, Task):
            raise BadOption("init='activations' needs a loaded task, whose training text it reads.")
        model.prompt.start_from_words(
            model.backbone, _running_text(task, model), model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
        )
    return model


def load_prompt(folder: str | os.PathLike, *, backbone: str | Backbone | None = None) -> PromptedModel:
    """Load a saved prompt (or a model saved by `ft`) onto its encoder: the same logits, ready to be trained further.

    Args:
        folder: what `save_prompt` or `save_model` wrote.
        backbone: the encoder, if it is not to be found by the name that was saved.

    Raises:
        PromptMismatch: if a file is missing, damaged or of a newer format, or the encoder is not the one it was trained on.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        saved = json.loads((folder / "prompt.json").read_text())
        version = saved["format"]
        if version > FORMAT:
            raise PromptMismatch(f"The prompt in {folder} has format {version}, newer than this library's {FORMAT}.")
        tensors = load_file(folder / "prompt.safetensors")
        raw_file = folder / "reparameterization.safetensors"
        raw = load_file(raw_file) if raw_file.is_file() else {}
        options, name = saved["options"], saved["method"]
        family = family_from(saved["task"])
    except PromptMismatch:
        raise
    except Exception as error:  # safetensors and json raise many kinds for a damaged file
        raise PromptMismatch(f"The prompt in {folder} is damaged or incomplete: {str(error).splitlines()[0]}") from None
    own = METHODS[name].tunes_backbone
    if backbone is None:
        place = str(folder / "backbone") if own else saved["backbone"]
        backbone = load_backbone(place, revision=saved["revision"], pooler=options["pooling"] == "pooler")
    elif isinstance(backbone, str):
        backbone = load_backbone(backbone, pooler=options["pooling"] == "pooler")
    if not own and backbone.fingerprint != saved["fingerprint"]:
        raise PromptMismatch(
            f"The prompt in {folder} was trained on {saved['backbone']!r} with fingerprint {saved['fingerprint'][:12]}, "
            f"and {backbone.name!r} has {backbone.fingerprint[:12]}."
        )
    if isinstance(options["layers"], list):
        options["layers"] = tuple(options["layers"])
    model = PromptedModel(family, backbone, name, ModelOptions(**options))
    model.max_length = saved["max_length"]
    if raw:
        tensors = {k: v for k, v in tensors.items() if k != "prompt.keys_values"} | {
            f"prompt.{k}": v for k, v in raw.items()
        }
    elif isinstance(model.prompt, PrefixEncoder):
        model.prompt.fold()
    expected = {k for k in model.state_dict() if not k.startswith("backbone.")}
    if expected != set(tensors):
        raise PromptMismatch(f"The prompt in {folder} lacks or adds tensors: {sorted(expected ^ set(tensors))[0]!r}.")
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise PromptMismatch(
            f"The prompt in {folder} has tensors of another shape: {str(error).splitlines()[-1].strip()}"
        ) from None
    model.eval()
    return model


def _running_text(task: Task, model: PromptedModel) -> list[int]:
    """Pieces of training text, whole texts until there are enough for the prompt."""
    pieces: list[int] = []
    for row in task.split().train:
        pieces += model.tokenizer(task.family.texts_of(row), add_special_tokens=False, verbose=False)["input_ids"]
        if len(pieces) >= model.prompt.length:
            break
    return pieces


def free_memory() -> int:
    """Bytes free on the accelerator, or in this machine's memory."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available


def _fits_memory(numbers: int, what: str) -> None:
    """Refuse what cannot be trained in the free memory: weight, gradient and two moments, four bytes each."""
    need, free = 16 * numbers, free_memory()
    if need > free:
        raise BadOption(f"{what} needs {need / 2**30:.1f} GiB to train, and {free / 2**30:.1f} GiB are free.")


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save

    # Not `save_file`: it leaves the file readable by its owner alone.
    write_whole(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

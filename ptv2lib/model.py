"""An encoder, a prompt and a head: predicting and saving."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .adapters import is_open, open_weights
from .attention import Shape, attach, check_gate, check_position_offset, evaluating
from .backbones import Backbone, checkpoint_activations, fingerprint, set_dropout, silent
from .encoding import Encoded, Layout, collate, stored
from .errors import BadOption, DataError, OutputError
from .files import whole_folder, write_json, write_whole
from .heads import ChoiceHead, SequenceHead, SpanHead, TokenHead, VerbalizerHead
from .memory import check_fits
from .methods import METHODS
from .options import ModelOptions, check_causal
from .prefix import PrefixEncoder, choose_layers
from .prompts import SoftPrompt
from .randomness import seeded
from .tasks import Task
from .tasks.common import TaskFamily
from .tasks.registry import family_to
from .templates import Template, Verbalizer

FORMAT = 1  # of a saved prompt; a reader refuses newer ones
# A tokenizer keeps the length at which it cuts as a state of its own, and models share it: one thread at a time.
TOKENIZING = threading.Lock()
# What the folder of a saved prompt or model may hold.
SAVED = {"prompt.json", "prompt.safetensors", "reparameterization.safetensors", "backbone"}


class PromptedModel(nn.Module):
    """A task's model: `backbone` encodes, `prompt` steers it, `head` reads the answer. Built by `build_model`.

    Attributes:
        family: the task's schema and scoring.
        method: the method's name.
        options: all options, none left open.
        loaded: the backbone as it was loaded; its encoder is `backbone`.
        template: the words around a row, or None.
        trains: what of the encoder itself is trained (`methods.Method.trains`).
        max_length: the cut, in pieces, that `predict` and training use.
        seed: of the weights it was built with; None where they were loaded.
        trained: whether these weights come from a training, in this process or before they were saved.
    """

    def __init__(
        self,
        family: TaskFamily,
        loaded: Backbone,
        method_name: str,
        options: ModelOptions,
        prompt: PrefixEncoder | SoftPrompt | None = None,
    ):
        super().__init__()
        method = METHODS[method_name]
        self.family, self.method, self.options, self.loaded = family, method_name, options, loaded
        self.name, self.revision, self.fingerprint = loaded.name, loaded.revision, loaded.fingerprint
        self.trains = "everything" if options.tune_backbone else method.trains
        self.tokenizer, self.segments = loaded.tokenizer, loaded.segments > 1
        self.template = None if options.template is None else Template(options.template)
        self.max_length = family.max_length
        self.seed: int | None = None
        self.trained = False
        family.check_layout(self.layout)
        self.backbone = loaded.encoder
        shape = attach(self.backbone)
        self.prompt = prompt
        if method.prompt is not None:
            check_position_offset(self.backbone, options.position_offset, method.prompt)
        if method.prompt == "deep" and prompt is None:
            self.prompt = _deep_prompt(options, shape, self.backbone)
        elif method.prompt == "input" and prompt is None:
            self.prompt = _input_prompt(options, self.backbone)
        self.head = self._fresh_head(self.backbone.config.hidden_size)
        verbalized = isinstance(self.head, VerbalizerHead)
        self.lm_head = loaded.lm_head if verbalized else None
        # Positions that the prompt takes from the text; in a template they are counted with the text.
        slotted = self.template is not None and self.template.slots > 0
        taken = 0 if self.prompt is None or slotted else self.prompt.offset
        if method.prompt == "input" and not slotted:
            taken = options.prompt_length
        self.room = loaded.context - taken
        if self.room < 16:
            raise BadOption(
                f"A prompt of length {options.prompt_length} leaves {max(self.room, 0)} of {loaded.context} positions for "
                "the text; shorten it, or use position_offset='none' with pt2."
            )
        self.max_length = min(family.max_length, self.room)
        if self.lm_head is not None:
            self.lm_head.requires_grad_(False)
        open_weights(self.backbone, self.trains)
        if self.lm_head is not None and self.trains == "everything":
            self.lm_head.requires_grad_(True)
        if options.gradient_checkpointing:
            checkpoint_activations(self.backbone)
        self.to(self.device)  # an earlier run may have moved the encoder
        self.made = _form(self.prompt), _form(self.head)

    def _fresh_head(self, width: int) -> nn.Module:
        family, options = self.family, self.options
        if options.head == "verbalizer":
            with TOKENIZING:
                return VerbalizerHead(Verbalizer.of(options.verbalizer, family.labels).pieces(self.tokenizer))
        if family.head == "sequence":
            words = 0 if self.template is not None else family.words_read(self.layout)
            return SequenceHead(width, len(family.labels), options.pooling, options.head_dropout, words)
        if family.head == "choice":
            return ChoiceHead(width, len(family.labels), options.pooling, options.head_dropout)
        if family.head == "span":
            return SpanHead(width, options.head_dropout)
        return TokenHead(width, len(family.labels), options.head_dropout)

    def train(self, mode: bool = True) -> PromptedModel:
        """Switch to training mode or out of it.

        The encoder, which several models may share, trains with this one's dropout and checkpointing.
        """
        if mode:
            set_dropout(self.backbone, self.options.backbone_dropout)
            checkpoint_activations(self.backbone, self.options.gradient_checkpointing)
        return super().train(mode)

    def claim_encoder(self) -> None:
        """Mark the encoder as this model's to train, where it trains it: no other is built on it from now on."""
        if self.trains != "nothing":
            self.loaded.mark_changed(self.method)

    def check_encoder(self) -> None:
        """Raise `BadOption` if another model trained this model's encoder, which it takes for frozen."""
        if self.trains == "nothing":
            self.loaded.check_unchanged()

    def check_open(self) -> None:
        """Raise `BadOption` if `requires_grad` was set by hand so that the encoder would be trained, or nothing at all."""
        for name, weight in self.backbone.named_parameters():
            if weight.requires_grad and not is_open(name, self.trains):
                raise BadOption(
                    f"{self.method!r} leaves the encoder's {name!r} as it is, and its requires_grad was set to True since; "
                    "set it to False, or build the model anew."
                )
        if not self.trainable() and not METHODS[self.method].only_words:
            raise BadOption("Every weight has requires_grad=False, so nothing can be trained; build the model anew.")

    def check_task(self, task: Task) -> None:
        """Raise `BadOption` for a task of another name, or of the same name with other labels or columns."""
        if self.family.name != task.name:
            raise BadOption(f"The model was built for {self.family.name!r} and the data set is {task.name!r}.")
        if self.family.labels != task.family.labels:
            raise BadOption(f"The model was built for another {task.name!r}: its labels differ from the data set's.")
        for part in ("texts", "stem", "choices", "column", "kind", "connectives", "unanswerable"):
            own, other = (getattr(family, part, None) for family in (self.family, task.family))
            if own != other:
                raise BadOption(f"The model was built for another {task.name!r}: its {part} is {own!r}, not {other!r}.")

    def for_task(self, task: Task | TaskFamily, seed: int = 0) -> PromptedModel:
        """A model of another task with this one's encoder and prompt, the very same, and a head of its own.

        Args:
            task: the other task.
            seed: of the fresh head.

        Raises:
            BadOption: for a task that the encoder or the method cannot read, or a verbalizer without its prior, which belongs
                to one task.
        """
        family = task.family if isinstance(task, Task) else task
        check_labels(family)
        check_causal(self.options, family, self.loaded)
        if self.options.calibration is not None:
            raise BadOption(
                f"calibration={self.options.calibration!r} belongs to one task; use build_model for another."
            )
        if self.template is not None:
            self.template.check(getattr(family, "shown", ()), gap=isinstance(self.head, VerbalizerHead))
        with seeded(seed):
            model = PromptedModel(family, self.loaded, self.method, self.options, self.prompt)
        model.seed = seed
        return model.train(self.training)

    @property
    def trainable_parameters(self) -> int:
        """How many numbers training moves."""
        return sum(parameter.numel() for parameter in self.trainable().values())

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training moves, by name: the prompt and the head, and what the method opens of the encoder."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.backbone.parameters()).device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, marks: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Logits of a padded batch, always float32: `[batch, labels]`, or one row a piece for tags and answers."""
        if self.prompt is None:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **inputs)[0]
        else:
            hidden = self.prompt.encode(self.backbone, input_ids, attention_mask, **inputs)
        own = getattr(self.backbone, "pooler", None) if self.lm_head is None else self.lm_head
        return self.head(hidden, attention_mask, own, marks)

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
        make = partial(self.family.encode, rows, self.tokenizer, layout)
        if self.template is not None:
            make = partial(self._encode_cloze, rows)
        with TOKENIZING:
            # The store knows a family by the library's own sources, and so not one that was written elsewhere.
            if not store or not type(self.family).__module__.startswith(f"{__package__}."):
                return make()
            # What the last call cut and padded at would otherwise be part of the key.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
            vocabulary = self.tokenizer.backend_tokenizer.to_str()
            tokenizer = (
                self.tokenizer.truncation_side,
                self.tokenizer.model_input_names,
                self.tokenizer.special_tokens_map,
            )
            return stored(make, rows, self.family, layout, vocabulary, tokenizer, self.template)

    def _encode_cloze(self, rows: Sequence[Mapping]) -> list[list[Encoded]]:
        return [[one] for one in self.template.encode(rows, self.tokenizer, self.max_length, self.family.cut_last)]

    def calibrate(self, rows: Sequence[Mapping]) -> None:
        """Subtract from now on, as each label's prior, its mean score over `rows`; their labels are not looked at.

        Source: Zhao et al. (2021) with an empty text for `rows`, Zhou et al. (2024) with texts of the kind that is asked about.

        Raises:
            BadOption: for a linear head, or without rows.
        """
        if not isinstance(self.head, VerbalizerHead):
            raise BadOption("Only a verbalizer has a prior to remove; this model has a linear head.")
        if not rows:
            raise BadOption("A prior is a mean over texts, and there are none.")
        encoded = [one for inputs in self.encode(rows) for one in inputs]
        self.head.prior.zero_()
        scores = [score for _, score in self.logits(encoded)]
        with torch.no_grad():
            self.head.prior.copy_(torch.from_numpy(np.mean(scores, axis=0)))

    @torch.no_grad()
    def logits(self, encoded: Sequence[Encoded], batch_size: int = 32) -> Iterator[tuple[int, np.ndarray]]:
        """Logits of each input with its number, without padding; runs in evaluation mode, longest inputs first.

        Raises:
            BadOption: for a batch size below 1, or if another model trained this one's encoder since.
        """
        if batch_size < 1:
            raise BadOption(f"batch_size={batch_size} must be at least 1.")
        self.check_encoder()
        self.to(self.device)  # another model may have moved the encoder that they share
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
        left = self.tokenizer.padding_side == "left"
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch, _ = collate([encoded[i] for i in chosen], self.tokenizer)
            # Not across the `yield`: whoever takes the rows may run another model of this encoder between them.
            with evaluating(self), torch.autocast(self.device.type, enabled=False):
                scores = self(**{name: tensor.to(self.device) for name, tensor in batch.items()}).cpu().numpy()
            for i, row in zip(chosen, scores, strict=True):
                size = len(encoded[i])
                yield i, row if row.ndim == 1 else row[-size:] if left else row[:size]

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

    def predict(self, examples: Iterable[Mapping], batch_size: int = 32) -> list[dict[str, Any]]:
        """Answer raw examples of the task in its own words, computed in float32.

        Args:
            examples: dicts with the task's text columns (tagging: `tokens` or `text`).
            batch_size: how many inputs at once.

        Returns:
            For each example what the family's `answer` says: `label` and `probabilities`; `tags` and `entities`; `answer`,
            `characters` and `score`; `predicate` and `roles`. A warning says how many examples had to be cut.

        Raises:
            DataError: if an example lacks a column.
        """
        examples = [examples] if isinstance(examples, str) else list(examples)
        if not all(isinstance(example, Mapping) for example in examples):
            raise DataError("predict takes a list of examples, each a dict of the task's columns.")
        rows = [self.family.prepare(example) for example in examples]
        inputs = self.encode(rows)
        cut = sum(any(one.cut for one in row) for row in inputs)
        if cut:
            warnings.warn(
                f"{cut} of {len(rows)} examples are longer than {self.max_length} pieces; what stands behind was not read.",
                stacklevel=2,
            )
        return self.decode(inputs, rows, batch_size, words=True)

    def save_prompt(self, folder: str | os.PathLike) -> Path:
        """Write prompt and head to a folder, whole or not at all.

        `prompt.safetensors` holds them ready for use, a reparameterization folded away; `reparameterization.safetensors`
        keeps its raw weights so that training can go on; `prompt.json` says what they belong to.

        Raises:
            BadOption: where the encoder itself was trained, so that no prompt can be had apart from it: use `save_model`.
            OutputError: if the folder cannot be written, or holds anything but an earlier prompt.
        """
        self.check_encoder()
        if self.trains == "everything":
            raise BadOption(
                f"{self.method!r} changes the encoder itself, so there is no prompt to save; use save_model."
            )
        check_replaceable(folder, SAVED - {"backbone"})
        with whole_folder(folder) as staging:
            self._save_into(staging)
        return Path(folder)

    def save_model(self, folder: str | os.PathLike) -> Path:
        """Write the whole encoder, its tokenizer and the head to a folder, whole or not at all.

        Raises:
            BadOption: where the encoder's weights are not all trained, so that what was is small: use `save_prompt`.
            OutputError: if the folder cannot be written, or holds anything but an earlier prompt or model.
        """
        if self.trains != "everything":
            raise BadOption(f"{self.method!r} trains little or nothing of the encoder; use save_prompt.")
        check_replaceable(folder)
        with whole_folder(folder) as staging, silent():
            (self.loaded.masked_lm or self.backbone).save_pretrained(staging / "backbone")
            self.tokenizer.save_pretrained(staging / "backbone")
            self._save_into(staging, trained_fingerprint=fingerprint(self.backbone, self.tokenizer))
        return Path(folder)

    def own_weights(self) -> set[str]:
        """Names of the weights that a saved prompt holds: all but the encoder's, save for its biases or adapters."""
        own = {name for name in self.state_dict() if not name.startswith(("backbone.", "lm_head."))}
        if self.trains not in ("biases", "adapters"):
            return own
        return own | {f"backbone.{name}" for name, _ in self.backbone.named_parameters() if is_open(name, self.trains)}

    def _save_into(self, folder: Path, **further: Any) -> None:
        for part, made, now in zip(("prompt", "head"), self.made, (self.prompt, self.head), strict=True):
            if _form(now) != made:
                raise BadOption(
                    f"The {part} was replaced by another than build_model makes, which could not be loaded again; save its "
                    "state_dict yourself."
                )
        state = self.state_dict()
        tensors = {name: state[name] for name in self.own_weights() if not name.startswith("prompt.")}
        raw: dict[str, Tensor] = {}
        if self.prompt is not None:
            tensors |= {f"prompt.{name}": tensor for name, tensor in self.prompt.folded_state().items()}
            raw = {} if self.prompt.is_folded else self.prompt.state_dict()
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
            }
            | further,
        )


def _deep_prompt(options: ModelOptions, shape: Shape, encoder: nn.Module) -> PrefixEncoder:
    layers, length = choose_layers(options.layers, shape.layers), options.prompt_length
    check_gate(encoder, options.gate)
    width, hidden = shape.key_value_width, options.reparameterization_hidden
    check_fits(length * len(layers) * 2 * width, f"A prompt of length {length}")
    networks = {"mlp": hidden * (1 + 2 * len(layers)) * width, "residual": 2 * hidden * width}
    check_fits(networks.get(options.reparameterization, 0), f"reparameterization_hidden={hidden}")
    return PrefixEncoder(
        shape,
        length,
        layers,
        options.reparameterization,
        options.reparameterization_hidden,
        options.prefix_dropout,
        options.prefix_dropout_per_example,
        options.position_offset,
        options.gate,
    )


def _input_prompt(options: ModelOptions, encoder: nn.Module) -> SoftPrompt:
    width, length = encoder.get_input_embeddings().embedding_dim, options.prompt_length
    check_fits(length * width, f"A prompt of length {length}")
    return SoftPrompt(width, length, options.position_offset, options.reparameterization)


def _form(part: nn.Module | None) -> tuple:
    """What a saved folder says of a prompt or a head only through the options it was built with."""
    return type(part), *(getattr(part, name, None) for name in ("layers", "length", "offset", "pooling", "words"))


def check_labels(family: TaskFamily) -> None:
    """Raise `BadOption` for a task with fewer than two labels."""
    if len(family.labels) < 2:
        raise BadOption(
            f"{family.name!r} has the labels {', '.join(family.labels) or 'none'}; a model needs two or more."
        )


def check_replaceable(folder: str | os.PathLike, parts: Set[str] = SAVED) -> None:
    """Refuse a folder that would be emptied of something else than a saved prompt or model.

    Args:
        folder: the folder; it need not exist.
        parts: what it may hold.

    Raises:
        OutputError: naming it.
    """
    path = Path(folder).absolute()
    held = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if path.is_file() or held - parts or (held and "prompt.json" not in held):
        raise OutputError(
            f"{path} holds something else than a saved prompt, which would be removed; choose another folder."
        )
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise OutputError(f"{path} is the folder this process works in and cannot be replaced; choose another folder.")


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save

    # Not `save_file`: it leaves the file readable by its owner alone.
    write_whole(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

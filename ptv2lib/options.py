"""What can be chosen of a model: the options, which of them go together, and what an open one becomes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from . import prefix, prompts
from .attention import family_of
from .backbones import Backbone, load_backbone
from .errors import BadOption, NoMaskedLM, unknown
from .heads import POOLINGS
from .methods import Method, find_method
from .tasks.common import TaskFamily
from .templates import Template

CHOICES = {
    "reparameterization": tuple(dict.fromkeys((*prefix.REPARAMETERIZATIONS, *prompts.REPARAMETERIZATIONS, "none"))),
    "init": ("normal", "activations", "vocabulary", "labels"),
    "position_offset": prefix.POSITION_OFFSETS,
    "pooling": POOLINGS,
    "gate": prefix.GATES,
    "head": ("linear", "verbalizer"),
    "calibration": ("empty", "train", "none"),
}

DEEP, INPUT, BOTH = ("deep",), ("input",), ("deep", "input")
OF_PROMPTS: dict[str, Any] = {
    "prompt_length": BOTH,
    "layers": DEEP,
    "reparameterization": {"mlp": BOTH, "residual": DEEP, "lstm": INPUT},
    "reparameterization_hidden": DEEP,
    "init": {"activations": DEEP, "vocabulary": INPUT, "labels": INPUT},
    "gate": DEEP,
    "position_offset": BOTH,
    "prefix_dropout": DEEP,
    "prefix_dropout_per_example": DEEP,
}
"""The kinds of prompt that an option, or one value of it, belongs to; elsewhere it would be ignored, and is refused."""


@dataclass(frozen=True)
class ModelOptions:
    """What `build_model` and `--set` take. None: the method's default for this task (`methods.METHODS`).

    Attributes:
        prompt_length: prompt positions, in every chosen layer for `pt2`.
        layers: `"all"`, an interval `"9-12"`, or a list, counted from 1 (`pt2`).
        reparameterization: what computes the prompt in training: `"mlp"`, `"residual"` (`pt2`), `"lstm"` (`ptv1`, its
            default), or `"none"`, nothing (the default of the others).
        reparameterization_hidden: width of the MLP of `pt2`.
        init: `"normal"`, N(0, 0.02); `"activations"` of real words (`pt2`); embeddings of words of the `"vocabulary"`, drawn
            at random, or of the `"labels"` (`pt`).
        gate: None; `"zero"`, attention over the prompt apart and scaled by a gate that starts at zero; `"layer"`, a learned
            scale a layer (`pt2`).
        position_offset: `"none"` or `"shift"`: does the text move by the prompt's length?
        prefix_dropout: share of the prompt's numbers set to zero in training (`pt2`).
        prefix_dropout_per_example: one dropout mask an example rather than one a step.
        backbone_dropout: dropout inside the encoder in training.
        head_dropout: dropout before the linear head.
        pooling: `"cls"`, `"mean"`, `"last"` or `"pooler"` (tasks with one label per text); None for the backbone's own.
        head: `"linear"`, or `"verbalizer"`: the words that a masked language model puts into a template's gap.
        template: text around a row, `"{sentence} It was {mask}."`; None for the task's own.
        verbalizer: the words of each label; None for the task's own.
        calibration: what is subtracted from a verbalizer's scores: those of the `"empty"` template (the default of
            `discrete`), the mean over texts of `"train"`, without their labels, or `"none"`, nothing (of the others).
        tune_backbone: train the encoder, too, at a rate of its own (`TrainingConfig.backbone_learning_rate`).
        lora_rank: rank of the matrices (`lora`).
        layout: how a row is laid out for the encoder, where the task knows several ways (`task.family.layouts`).
        stride: pieces that two windows of one context share (question answering).
        gradient_checkpointing: recompute activations in the backward pass.
    """

    prompt_length: int | None = None
    layers: str | Sequence[int] = "all"
    reparameterization: str | None = None
    reparameterization_hidden: int = 512
    init: str = "normal"
    gate: str | None = None
    position_offset: str | None = None
    prefix_dropout: float = 0.0
    prefix_dropout_per_example: bool = False
    backbone_dropout: float | None = None
    head_dropout: float = 0.1
    pooling: str | None = None
    head: str | None = None
    template: str | None = None
    verbalizer: Mapping[str, Any] | None = None
    calibration: str | None = None
    tune_backbone: bool = False
    lora_rank: int = 8
    layout: str | None = None
    stride: int = 128
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check every value that can be checked alone."""
        settle_kinds(
            self,
            whole=("prompt_length", "lora_rank", "reparameterization_hidden", "stride"),
            numbers=("prefix_dropout", "backbone_dropout", "head_dropout"),
            flags=("prefix_dropout_per_example", "tune_backbone", "gradient_checkpointing"),
        )
        if isinstance(self.verbalizer, Mapping):
            object.__setattr__(self, "verbalizer", dict(self.verbalizer))  # other kinds cannot be saved
        if isinstance(self.layers, Iterable) and not isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(self.layers))
        for name in ("prompt_length", "lora_rank", "reparameterization_hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadOption(f"{name}={value} must be at least 1.")
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise unknown(name, str(value), known)
        if self.stride < 0:
            raise BadOption(f"stride={self.stride} must not be below 0.")
        for name in ("prefix_dropout", "backbone_dropout", "head_dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise BadOption(f"{name}={value} must lie between 0 and 1, 1 excluded.")


def settle_kinds(options: Any, *, whole: Sequence[str], numbers: Sequence[str], flags: Sequence[str]) -> None:
    """Refuse fields of another kind than the one they have: `"no"`, for instance, would count as true.

    None stays where it is the field's default. Numbers of other libraries become plain ones, which JSON can hold.

    Args:
        options: a frozen dataclass.
        whole: fields that hold a whole number.
        numbers: fields that hold any number.
        flags: fields that hold True or False.

    Raises:
        BadOption: naming the field and its value.
    """
    open_fields = {f.name for f in fields(options) if f.default is None and getattr(options, f.name) is None}
    kinds = {name: (Integral, int, "a whole number") for name in whole}
    kinds |= {name: (Real, float, "a number") for name in numbers}
    for name, (kind, plain, said) in kinds.items():
        value = getattr(options, name)
        if name in open_fields:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadOption(f"{name}={value} must be {said}.")
        if type(value) not in (int, float):
            object.__setattr__(options, name, plain(value))
    for name in flags:
        value = getattr(options, name)
        if not isinstance(value, bool):
            raise BadOption(f"{name}={value!r} must be True or False.")


def fill(options: Any, defaults: Mapping[str, Any]) -> Any:
    """A copy of a dataclass whose None fields take the defaults of the same name."""
    chosen = {f.name: getattr(options, f.name) for f in fields(options)}
    return type(options)(**{k: defaults.get(k) if v is None else v for k, v in chosen.items()})


def settle(
    given: ModelOptions, method: str, family: TaskFamily, backbone: str | os.PathLike | Backbone
) -> tuple[Backbone, ModelOptions]:
    """Load the backbone and leave no option open.

    Args:
        given: the options asked for.
        method: a name of `METHODS`.
        family: the task.
        backbone: what `load_backbone` takes, or what it gave; it comes with its masked-LM head where one will be read.

    Raises:
        BadOption: for options that do not go together.
        NoMaskedLM: for a verbalizer on an encoder without a masked-LM head.
        UnknownName: for an unknown method or backbone.
    """
    chosen = find_method(method)
    _check_method(given, method, chosen)
    loaded, cloze = _with_cloze(given, chosen, family, backbone)
    _check_head(given, family, cloze["head"])
    check_causal(given, family, loaded)
    defaults = chosen.settings(family.head, loaded.encoder.config.hidden_size)
    filled = fill(given, defaults | {"pooling": loaded.pooling} | cloze)
    none = [name for name in ("reparameterization", "calibration") if getattr(filled, name) == "none"]
    return loaded, replace(filled, **dict.fromkeys(none))


def _check_method(given: ModelOptions, name: str, method: Method) -> None:
    """Refuse options that this method cannot have."""
    for option, kinds in OF_PROMPTS.items():
        value = getattr(given, option)
        kinds = kinds.get(value, BOTH) if isinstance(kinds, dict) else kinds
        if value != getattr(ModelOptions, option) and method.prompt not in kinds:
            what = " or ".join({"deep": "deep prompts", "input": "prompts at the input"}[kind] for kind in kinds)
            raise BadOption(f"{option}={value!r} belongs to {what}, and {name!r} has none.")
    if given.lora_rank != ModelOptions.lora_rank and method.trains != "adapters":
        raise BadOption(f"lora_rank={given.lora_rank} belongs to LoRA, and {name!r} has no low-rank matrices.")
    words = [
        option
        for option in ("head", "verbalizer", "calibration")
        if getattr(given, option) not in (None, "linear", "none")
    ]
    if words and name == "mpt2":
        raise BadOption(
            f"{words[0]}={getattr(given, words[0])!r} belongs to one task; 'mpt2' has a linear head for each."
        )
    if given.tune_backbone and name == "mpt2":
        raise BadOption("tune_backbone=True would move the encoder that the data sets of 'mpt2' share; use 'pt2'.")
    if given.tune_backbone and method.prompt is None:
        raise BadOption(f"tune_backbone=True belongs to prompts, and {name!r} has none; 'ft' trains the encoder.")
    usual = method.defaults.get("reparameterization")
    if usual and given.reparameterization == "none":
        raise BadOption(f"reparameterization='none' makes {name!r} plain prompt tuning; use the method 'pt'.")
    computed = given.reparameterization or usual
    if computed not in (None, "none") and given.init in ("vocabulary", "labels"):
        raise BadOption(
            f"init={given.init!r} sets the vectors directly and so excludes reparameterization={computed!r}."
        )
    for option, needed in (
        ("reparameterization_hidden", "reparameterization"),
        ("prefix_dropout_per_example", "prefix_dropout"),
    ):
        if getattr(given, option) != getattr(ModelOptions, option) and getattr(given, needed) in (None, 0, "none"):
            raise BadOption(f"{option}={getattr(given, option)} does nothing without {needed}; give both.")


def _check_head(given: ModelOptions, family: TaskFamily, head: str | None) -> None:
    """Refuse options of a head, or of its inputs, that this task's head does not read."""
    if given.stride != ModelOptions.stride and family.head != "span":
        raise BadOption(f"stride={given.stride} belongs to question answering, and {family.name!r} has no windows.")
    if given.pooling is not None and family.head not in ("sequence", "choice"):
        raise BadOption(
            f"pooling={given.pooling!r} belongs to heads with one vector per text; {family.name!r} has one per piece."
        )
    if head == "verbalizer":
        for option, unused in (("pooling", (None,)), ("head_dropout", (0, ModelOptions.head_dropout))):
            if getattr(given, option) not in unused:
                raise BadOption(f"{option}={getattr(given, option)!r} belongs to linear heads; a verbalizer has none.")


def check_causal(given: ModelOptions, family: TaskFamily, loaded: Backbone) -> None:
    """Refuse what cannot read a text under a causal mask, where a piece has seen nothing of what stands behind it."""
    encoder = family_of(loaded.encoder)
    if family.head not in encoder.heads:
        raise BadOption(
            f"{encoder.name} reads from left to right, so it takes heads with one vector per text; {family.name!r} has one "
            "per piece."
        )
    if encoder.causal and (given.pooling or loaded.pooling) == "cls":
        raise BadOption(
            f"pooling='cls' reads the first piece, which has seen no other in {encoder.name}; use 'last' or 'mean'."
        )


def _with_cloze(
    given: ModelOptions, method: Method, family: TaskFamily, backbone: str | os.PathLike | Backbone
) -> tuple[Backbone, dict[str, Any]]:
    """The backbone, with its masked-LM head where one is read; and head, template and verbalizer where they were left open."""
    templates = getattr(family, "templates", None)
    # A discrete prompt is nothing but words; P-tuning v1 does without where there are none.
    asked = given.head == "verbalizer" or given.verbalizer is not None or given.calibration not in (None, "none")
    must = asked or method.only_words
    if must and given.head == "linear":
        raise BadOption("Discrete prompts, verbalizers and their calibration need head='verbalizer', not 'linear'.")
    if (must or given.template is not None) and templates is None:
        raise BadOption(
            f"Templates and verbalizers belong to tasks with one label per text, and {family.name!r} is not one."
        )
    words = bool(
        templates is not None and (given.template or templates) and (given.verbalizer is not None or family.words)
    )
    if must and method.prompt is None and method.trains == "nothing" and not method.only_words:
        raise BadOption(
            "A verbalizer has nothing to train, and neither has the frozen encoder; use the method 'discrete'."
        )
    if must and not words:
        raise BadOption(
            f"A verbalizer needs words, and {family.name!r} has none of its own: give template= and verbalizer=."
        )
    may = method.cloze and words and given.head is None
    loaded = _load(backbone, given.pooling == "pooler", must, may)
    cloze: dict[str, Any] = {"head": "linear"}
    if must or (may and loaded.masked_lm is not None):
        soft = family.soft_template if method.cloze and method.prompt is not None else None
        cloze = {"head": "verbalizer", "template": soft or next(iter(templates), None), "verbalizer": family.words}
    pattern = given.template or cloze.get("template")
    if pattern is not None:
        cloze |= _checked(Template(pattern), given, method, family, gap=cloze["head"] == "verbalizer")
    return loaded, cloze


def _load(backbone: str | os.PathLike | Backbone, pooler: bool, must: bool, may: bool) -> Backbone:
    """The backbone; with a masked-LM head if there must be one, or if there may be one and the checkpoint has it."""
    if not isinstance(backbone, (str, os.PathLike, Backbone)):
        raise BadOption(f"backbone={backbone!r:.60} must be a name, or what load_backbone gave.")
    if isinstance(backbone, Backbone):
        backbone.check_unchanged()
        backbone.check_padding()
        if must and backbone.masked_lm is None:
            raise NoMaskedLM(f"A verbalizer needs load_backbone({backbone.name!r}, masked_lm=True).")
        if pooler and getattr(backbone.encoder, "pooler", None) is None:
            raise BadOption(f"pooling='pooler' needs load_backbone({backbone.name!r}, pooler=True).")
        return backbone
    try:
        return load_backbone(backbone, pooler=pooler, masked_lm=must or may)
    except NoMaskedLM:
        if must:
            raise
        return load_backbone(backbone, pooler=pooler)


def _checked(
    template: Template, given: ModelOptions, method: Method, family: TaskFamily, *, gap: bool
) -> dict[str, Any]:
    """Refuse a template that does not fit; what follows from one that does."""
    template.check(family.shown, gap=gap)
    if given.layout is not None:
        raise BadOption("A template is a layout of its own; leave layout= out.")
    if not template.slots:
        return {}
    if method.prompt != "input":
        raise BadOption(f"The template {template.text!r} has {{soft}} slots, which only pt and ptv1 fill.")
    if given.prompt_length not in (None, template.slots):
        raise BadOption(
            f"prompt_length={given.prompt_length}, and the template {template.text!r} has {template.slots} slots."
        )
    if given.position_offset is not None:
        raise BadOption(
            f"position_offset={given.position_offset!r} belongs to vectors before the text; in the slots of "
            f"{template.text!r} they stand where words do."
        )
    return {"prompt_length": template.slots}

"""Loading what `PromptedModel.save_prompt` and `save_model` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from .adapters import low_rank
from .backbones import Backbone, load_backbone
from .errors import DataError, NoNetwork, PromptMismatch, PtvError, UnknownName, first_line
from .methods import METHODS, find_method
from .model import FORMAT, PromptedModel
from .options import ModelOptions
from .randomness import seeded
from .tasks.common import TaskFamily
from .tasks.registry import family_from


@dataclass(frozen=True)
class Saved:
    """What a folder with a saved prompt holds.

    Attributes:
        folder: the folder.
        family: the task's schema and scoring.
        method: the method's name.
        options: all options, none left open.
        max_length: the cut, in pieces.
        backbone: the name of the encoder it was trained on.
        revision: that encoder's commit on the Hub, if it came from there.
        fingerprint: of that encoder.
        trained_fingerprint: of the encoder in the folder, if there is one; None where it was saved before it had one.
        tensors: prompt and head, ready for use.
        raw: the prompt's reparameterization, if it had one.
    """

    folder: Path
    family: TaskFamily
    method: str
    options: ModelOptions
    max_length: int
    backbone: str
    revision: str | None
    fingerprint: str
    trained_fingerprint: str | None
    tensors: dict[str, Tensor]
    raw: dict[str, Tensor]

    @property
    def own_encoder(self) -> bool:
        """Whether the folder holds the encoder, too, because it was trained."""
        return METHODS[self.method].trains == "everything" or self.options.tune_backbone


def load_prompt(folder: str | os.PathLike, *, backbone: str | os.PathLike | Backbone | None = None) -> PromptedModel:
    """Load a saved prompt (or a model saved by `ft`) onto its encoder: the same logits, ready to be trained further.

    Args:
        folder: what `save_prompt` or `save_model` wrote.
        backbone: the encoder, if it is not to be found by the name that was saved.

    The random state outside is left as it is.

    Raises:
        PromptMismatch: if a file is missing, damaged or of a newer format, or the encoder is not the one it was trained on
            or, being one of your own, no longer where it was.
    """
    saved = _read(Path(folder))
    loaded = _encoder(saved, backbone)
    adapters = METHODS[saved.method].trains == "adapters"
    beside = low_rank(loaded.encoder, saved.options.lora_rank, 0) if adapters else nullcontext()
    with seeded(), loaded.undone_on_error(), beside:
        model = PromptedModel(saved.family, loaded, saved.method, saved.options)
        model.max_length, model.trained = saved.max_length, True
        tensors = saved.tensors
        if saved.raw:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("prompt.")}
            tensors |= {f"prompt.{name}": tensor for name, tensor in saved.raw.items()}
        elif model.prompt is not None:
            model.prompt.fold()
        _fill(model, tensors, saved.folder)
    model.claim_encoder()
    return model.eval()


def _read(folder: Path) -> Saved:
    from safetensors.torch import load_file

    try:
        found = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
        if found["format"] > FORMAT:
            raise PromptMismatch(
                f"The prompt in {folder} has format {found['format']}, newer than this library's {FORMAT}."
            )
        raw_file = folder / "reparameterization.safetensors"
        options, method = found["options"], found["method"]
        if isinstance(options["layers"], list):
            options["layers"] = tuple(options["layers"])
        find_method(method)
        return Saved(
            folder,
            family_from(found["task"]),
            method,
            ModelOptions(**options),
            int(found["max_length"]),
            found["backbone"],
            found["revision"],
            found["fingerprint"],
            found.get("trained_fingerprint"),
            load_file(folder / "prompt.safetensors"),
            load_file(raw_file) if raw_file.is_file() else {},
        )
    except PromptMismatch:
        raise
    except Exception as error:  # safetensors and json raise many kinds for a damaged file
        raise PromptMismatch(f"The prompt in {folder} is damaged or incomplete: {first_line(error)}") from None


def _encoder(saved: Saved, given: str | os.PathLike | Backbone | None) -> Backbone:
    """The encoder for a saved prompt, with the parts that it reads, and proven to be the one it was trained on."""
    needs = {"pooler": saved.options.pooling == "pooler", "masked_lm": saved.options.head == "verbalizer"}
    if saved.own_encoder and given is not None:
        name = given.name if isinstance(given, Backbone) else str(given)
        raise PromptMismatch(
            f"{saved.folder} holds an encoder of its own, which was trained; leave backbone={name!r} out."
        )
    if saved.own_encoder:
        return _own_encoder(saved, needs)
    if given is None:
        try:
            loaded = load_backbone(saved.backbone, revision=saved.revision, **needs)
        except (UnknownName, NoNetwork, DataError):
            if saved.revision is not None or os.path.isdir(saved.backbone):
                raise
            raise PromptMismatch(
                f"The prompt in {saved.folder} was trained on the encoder {saved.backbone!r}, which is not found here; say "
                "where it is now with backbone=."
            ) from None
    elif not isinstance(given, Backbone):
        loaded = load_backbone(given, **needs)
    else:
        loaded = given
        parts = {"pooler": getattr(loaded.encoder, "pooler", None), "masked_lm": loaded.masked_lm}
        lacking = [part for part, needed in needs.items() if needed and parts[part] is None]
        if lacking:
            raise PromptMismatch(
                f"The prompt in {saved.folder} needs load_backbone({loaded.name!r}, {lacking[0]}=True)."
            )
    if loaded.fingerprint != saved.fingerprint:
        raise PromptMismatch(
            f"The prompt in {saved.folder} was trained on {saved.backbone!r} with fingerprint {saved.fingerprint[:12]}, "
            f"and {loaded.name!r} has {loaded.fingerprint[:12]}."
        )
    loaded.check_unchanged()
    loaded.check_padding()
    return loaded


def _own_encoder(saved: Saved, needs: Mapping[str, bool]) -> Backbone:
    try:
        loaded = load_backbone(str(saved.folder / "backbone"), **needs)
    except PtvError as error:
        raise PromptMismatch(f"The encoder in {saved.folder} is damaged or missing: {first_line(error)}") from None
    if saved.trained_fingerprint not in (None, loaded.fingerprint):
        raise PromptMismatch(
            f"The encoder in {saved.folder} has fingerprint {loaded.fingerprint[:12]}, and the one that was trained and saved "
            f"there had {saved.trained_fingerprint[:12]}."
        )
    return replace(loaded, name=saved.backbone)


def _fill(model: PromptedModel, tensors: dict[str, Tensor], folder: Path) -> None:
    """Put the tensors where they belong; refuse those that do not fit."""
    expected = model.own_weights()
    if expected != set(tensors):
        raise PromptMismatch(f"The prompt in {folder} lacks or adds tensors: {sorted(expected ^ set(tensors))[0]!r}.")
    state = model.state_dict()
    for name, tensor in tensors.items():  # before the first is put in: BitFit's belong to the encoder
        if tensor.shape != state[name].shape:
            shapes = f"{list(tensor.shape)}, not {list(state[name].shape)}"
            raise PromptMismatch(f"The prompt in {folder} has tensors of another shape: {name!r} is {shapes}.")
    model.load_state_dict(tensors, strict=False)

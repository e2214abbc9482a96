"""What the encoder sees: tokenized inputs, batches of them, and a store that keeps them between runs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import OutputError
from .files import write_whole

IGNORED = -100  # label of a piece that is not scored
STORED_FROM = 1000  # rows; fewer are tokenized faster than they are looked up


@dataclass(frozen=True)
class Layout:
    """How a row becomes pieces.

    Attributes:
        max_length: the cut, in pieces.
        stride: pieces that two neighbouring windows of one context share (question answering).
        name: one of the family's `layouts`; None for its first.
        segments: whether the encoder tells two kinds of segment ids apart.
    """

    max_length: int
    stride: int = 128
    name: str | None = None
    segments: bool = True


@dataclass
class Encoded:
    """One input of the encoder; a row of a data set gives one or, with choices or windows, several.

    Attributes:
        inputs: integer arrays of equal length: `input_ids`, where the tokenizer has them `token_type_ids`, and `marks`
            where a head reads single words (0 elsewhere, 1 and 2 on the first and second marked words).
        labels: one label; an array with one a piece; a pair (start, end) of pieces; None without gold answer.
        cut: whether text was lost to the maximal length.
        lost: gold answers of the row that no piece can give: cut off, or of a word of which the tokenizer leaves nothing.
        places: what a piece belongs to: for tagging the word it opens, for answers the start and end of its characters in
            the context (`[pieces, 2]`); -1 for none.
    """

    inputs: dict[str, np.ndarray]
    labels: int | tuple[int, int] | np.ndarray | None
    cut: bool
    lost: int = 0
    places: np.ndarray | None = None

    def __len__(self) -> int:
        """Its length in pieces."""
        return len(self.inputs["input_ids"])


def collate(encoded: Sequence[Encoded], tokenizer: Any) -> tuple[dict[str, Tensor], Tensor | None]:
    """Pad inputs to a batch of `[inputs, pieces]` tensors; labels, where all have some, as one tensor.

    Labels are `[inputs]` for one label an input, `[inputs, 2]` for answers, and `[inputs, pieces]` for tags, padded with -100.
    """
    pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}
    side = tokenizer.padding_side

    def pad(arrays: Sequence[np.ndarray], value: int) -> Tensor:
        tensors = [torch.from_numpy(array.astype(np.int64)) for array in arrays]
        return torch.nn.utils.rnn.pad_sequence(tensors, True, value, side)

    batch = {name: pad([one.inputs[name] for one in encoded], pads.get(name, 0)) for name in encoded[0].inputs}
    batch["attention_mask"] = pad([np.ones(len(one), np.int64) for one in encoded], 0)
    if any(one.labels is None for one in encoded):
        return batch, None
    if isinstance(encoded[0].labels, np.ndarray):
        return batch, pad([one.labels for one in encoded], IGNORED)
    labels = torch.tensor([one.labels for one in encoded])
    if labels.dim() == 2 and side == "left":  # padding before the text moves an answer's pieces
        labels += batch["input_ids"].shape[1] - torch.tensor([[len(one)] for one in encoded])
    return batch, labels


def stored(make: Callable[[], list[list[Encoded]]], rows: Sequence[Mapping], *what: Any) -> list[list[Encoded]]:
    """What `make` gives, from the store if the same rows were encoded the same way before.

    Args:
        make: encodes the rows.
        rows: the rows; their content is part of the key.
        what: all else the result depends on; its `repr` is part of the key.
    """
    if len(rows) < STORED_FROM:
        return make()
    path = _place(rows, what)
    if path.is_file():
        try:
            return _unpack(path.read_bytes())
        except (OSError, ValueError):
            pass  # a damaged entry is made again
    encoded = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _pack(encoded))
    except (OSError, OutputError):
        pass  # a cache that cannot be written costs time, not the run
    return encoded


def _place(rows: Sequence[Mapping], what: tuple) -> Path:
    import datasets
    import tokenizers
    import transformers

    digest = hashlib.sha256(repr((what, tokenizers.__version__, transformers.__version__)).encode())
    folder = Path(__file__).parent
    deciding = [folder / f"{name}.py" for name in ("encoding", "metrics", "model", "templates")]
    for source in sorted([*deciding, *(folder / "tasks").glob("*.py")]):
        digest.update(source.read_bytes())
    for row in rows:
        digest.update(json.dumps(row, default=str).encode())
    return Path(datasets.config.HF_DATASETS_CACHE) / "ptv2lib" / f"{digest.hexdigest()}.npz"


def _pack(encoded: Sequence[Sequence[Encoded]]) -> bytes:
    """Flat arrays of all inputs, with what is needed to part them again."""
    flat = [one for row in encoded for one in row]
    arrays: dict[str, np.ndarray] = {
        "per_row": np.array([len(row) for row in encoded]),
        "length": np.array([len(one) for one in flat]),
        "cut": np.array([one.cut for one in flat]),
        "lost": np.array([one.lost for one in flat]),
    }
    if flat:
        for name in flat[0].inputs:
            arrays[f"inputs.{name}"] = np.concatenate([one.inputs[name] for one in flat])
        if flat[0].places is not None:
            arrays["places"] = np.concatenate([one.places for one in flat])
        known = [one.labels is not None for one in flat]
        arrays["known"] = np.array(known)
        if any(known):
            example = next(one.labels for one in flat if one.labels is not None)
            if isinstance(example, np.ndarray):
                found = [np.zeros(len(one), np.int32) if one.labels is None else one.labels for one in flat]
                arrays["labels.pieces"] = np.concatenate(found)
            else:
                nothing = (0, 0) if isinstance(example, tuple) else 0
                arrays["labels"] = np.array([nothing if one.labels is None else one.labels for one in flat])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return hashlib.sha256(file.getvalue()).digest() + file.getvalue()


def _unpack(content: bytes) -> list[list[Encoded]]:
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("The entry is damaged.")
    arrays = dict(np.load(io.BytesIO(content[32:]), allow_pickle=False))
    ends = np.cumsum(arrays["length"])
    inputs = {name.removeprefix("inputs."): array for name, array in arrays.items() if name.startswith("inputs.")}
    labels = arrays.get("labels")
    flat = []
    for i, end in enumerate(ends):
        piece = slice(end - arrays["length"][i], end)
        label: Any = None
        if not arrays["known"][i]:
            pass
        elif "labels.pieces" in arrays:
            label = arrays["labels.pieces"][piece]
        elif labels is not None:
            label = tuple(map(int, labels[i])) if labels.ndim == 2 else int(labels[i])
        flat.append(
            Encoded(
                {name: array[piece] for name, array in inputs.items()},
                label,
                bool(arrays["cut"][i]),
                int(arrays["lost"][i]),
                arrays["places"][piece] if "places" in arrays else None,
            )
        )
    rest = iter(flat)
    return [[next(rest) for _ in range(count)] for count in arrays["per_row"]]

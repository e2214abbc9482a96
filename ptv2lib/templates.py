"""Words around a text: templates with a gap to fill, and verbalizers that read the filled gap as a label.

The notation follows Schick and Schütze (2021): a template turns a row into a cloze, a masked language model fills the gap, and
the verbalizer says which words stand for which label.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .encoding import Encoded
from .errors import BadOption

MASK, SOFT = "mask", "soft"
LEAST = 4  # pieces of a column that cutting leaves


@dataclass(frozen=True)
class Template:
    """A pattern such as `"{sentence} It was {mask}."`.

    `{column}` takes a column of the row, `{mask}` is the gap, `{soft}` or `{soft:3}` are one or three trainable vectors that
    stand in the line as words do (P-tuning v1).

    Attributes:
        text: the pattern.
    """

    text: str

    def __post_init__(self) -> None:
        """Refuse a pattern that cannot be read, has two gaps, or holds no column."""
        if not self.columns:
            raise BadOption(f"The template {self.text!r} holds no column of the data, such as {{sentence}}.")
        if sum(kind == MASK for kind, _ in self.parts) > 1:
            raise BadOption(f"The template {self.text!r} has more than one {{mask}}; it may have one.")

    @cached_property
    def parts(self) -> tuple[tuple[str, Any], ...]:
        """The pattern in order: `("text", words)`, `("column", name)`, `("mask", None)`, `("soft", number of vectors)`."""
        found: list[tuple[str, Any]] = []
        try:
            pieces = list(string.Formatter().parse(self.text))
        except (ValueError, TypeError, AttributeError):
            raise BadOption(f"The template {self.text!r} cannot be read: its braces do not match.") from None
        for words, name, amount, conversion in pieces:
            if words:
                found.append(("text", words))
            if name is None:
                continue
            counted = name == SOFT and (not amount or (amount.isdecimal() and int(amount) > 0))
            if not name or conversion or (amount and not counted):
                raise BadOption(
                    f"The template {self.text!r} cannot be read: write {{column}}, {{mask}}, {{soft}} or {{soft:3}}."
                )
            if name == SOFT:
                found.append((SOFT, int(amount or 1)))
            else:
                found.append((MASK, None) if name == MASK else ("column", name))
        return tuple(found)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it shows."""
        return tuple(value for kind, value in self.parts if kind == "column")

    @property
    def masked(self) -> bool:
        """Whether it has a gap."""
        return any(kind == MASK for kind, _ in self.parts)

    @property
    def slots(self) -> int:
        """How many trainable vectors stand in it."""
        return sum(value for kind, value in self.parts if kind == SOFT)

    def check(self, columns: Iterable[str], *, gap: bool) -> None:
        """Raise `BadOption` for a column the task does not have, or, with `gap`, a missing `{mask}`."""
        known = list(columns)
        for column in self.columns:
            if column not in known:
                raise BadOption(
                    f"The template {self.text!r} asks for the column {column!r}; there are {', '.join(known)}."
                )
        if gap and not self.masked:
            raise BadOption(f"The template {self.text!r} has no {{mask}}, which a verbalizer reads.")

    def encode(
        self, rows: Sequence[Mapping], tokenizer: Any, max_length: int, keep: Iterable[str] = ()
    ) -> list[Encoded]:
        """Tokenize rows inside the template.

        The gap is marked by 1 in `marks`, and the trainable vectors' places are counted from 1 in `slots`. Of a row that is
        too long, the longest column loses pieces at its end, the template none.

        Args:
            rows: rows with the columns as text, and `label` where there is one (-1 for none).
            tokenizer: a fast tokenizer.
            max_length: in pieces, special ones and trainable vectors included.
            keep: columns that are cut last.

        Raises:
            BadOption: for a tokenizer without a mask piece, or a template longer than `max_length`.
        """
        mask = tokenizer.mask_token
        if (self.masked or self.slots) and mask is None:
            raise BadOption(f"The template {self.text!r} needs a tokenizer with a mask piece, and this one has none.")
        if mask is not None and any(kind == "text" and mask in words for kind, words in self.parts):
            raise BadOption(f"The template {self.text!r} writes {mask} out; write {{mask}} for the gap.")
        filled = [{column: self._plain(row[column], tokenizer) for column in self.columns} for row in rows]
        if not filled:
            return []
        encoding = tokenizer([self._fill(values, tokenizer)[0] for values in filled], **_OPTIONS)
        found = []
        for number, row in enumerate(rows):
            ids, cut = encoding["input_ids"][number], len(encoding["input_ids"][number]) > max_length
            if cut:
                ids, filled[number] = self._cut(filled[number], tokenizer, max_length, set(keep))
            label = row.get("label", -1)
            found.append(Encoded(self._inputs(ids, filled[number], tokenizer), None if label == -1 else label, cut))
        return found

    @staticmethod
    def _plain(value: Any, tokenizer: Any) -> str:
        """A column's text, without what would be taken for a gap."""
        text = str(value)
        return text.replace(tokenizer.mask_token, " ") if tokenizer.mask_token else text

    def _fill(self, values: Mapping[str, str], tokenizer: Any) -> tuple[str, dict[str, list[tuple[int, int]]]]:
        """The line, and where in it each column stands; trainable vectors are written as gaps until `_inputs`."""
        line, places = "", {column: [] for column in self.columns}
        for kind, value in self.parts:
            start = len(line)
            if kind == "text":
                line += value
            elif kind == "column":
                line += values[value]
                places[value].append((start, len(line)))
            else:
                line += tokenizer.mask_token * (value or 1)
        return line, places

    def _cut(
        self, values: dict[str, str], tokenizer: Any, max_length: int, keep: set[str]
    ) -> tuple[list[int], dict[str, str]]:
        """The pieces of the longest line that fits, and the columns as they stand in it."""
        values = dict(values)
        while True:
            line, places = self._fill(values, tokenizer)
            encoding = tokenizer(line, return_offsets_mapping=True, **_OPTIONS)
            ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
            over = len(ids) - max_length
            if over <= 0:
                return ids, values
            held = {
                column: [offset for offset in offsets if spans[0][0] <= offset[0] < offset[1] <= spans[0][1]]
                for column, spans in places.items()
            }
            open_ = {column: pieces for column, pieces in held.items() if len(pieces) > LEAST}
            if not open_:
                raise BadOption(f"The template {self.text!r} leaves no room for its text in {max_length} pieces.")
            longest = max(open_, key=lambda column: (column not in keep, len(open_[column])))
            others = [len(pieces) for column, pieces in open_.items() if (column in keep) == (longest in keep)]
            ahead = len(open_[longest]) - (sorted(others)[-2] if len(others) > 1 else 0)
            excess = -(-over // len(places[longest]))  # a column may be shown twice
            # Down to the next longest column, and from there in turns.
            left = max(LEAST, len(open_[longest]) - min(excess, max(ahead, -(-excess // 2))))
            kept = values[longest][: open_[longest][left - 1][1] - places[longest][0][0]]
            # Several pieces may stand for one sign, and a cut behind any of them takes nothing away.
            values[longest] = kept if len(kept) < len(values[longest]) else kept[:-1]

    def _inputs(self, ids: Sequence[int], values: Mapping[str, str], tokenizer: Any) -> dict[str, np.ndarray]:
        arrays = {"input_ids": np.array(ids, np.int32)}
        if "token_type_ids" in tokenizer.model_input_names:
            arrays["token_type_ids"] = np.zeros(len(ids), np.int32)
        arrays["marks"] = np.zeros(len(ids), np.int32)
        if self.slots:
            arrays["slots"] = np.zeros(len(ids), np.int32)
        gaps = iter(self._gaps(arrays["input_ids"], values, tokenizer))
        slot = 0
        for kind, amount in self.parts:
            if kind == MASK:
                arrays["marks"][next(gaps)] = 1
            elif kind == SOFT:
                for _ in range(amount):
                    slot += 1
                    arrays["slots"][next(gaps)] = slot
        return arrays

    def _gaps(self, ids: np.ndarray, values: Mapping[str, str], tokenizer: Any) -> Sequence[int]:
        """Where the template's own gaps and trainable vectors stand among the pieces."""
        found = np.flatnonzero(ids == tokenizer.mask_token_id)
        if len(found) == self.masked + self.slots:
            return found
        # A normalizer made a mask piece of other signs in a text. Those stand inside a column, ours do not.
        line, places = self._fill(values, tokenizer)
        offsets = tokenizer(line, return_offsets_mapping=True, **_OPTIONS)["offset_mapping"]
        texts = [span for spans in places.values() for span in spans]
        return [at for at in found if not any(start <= offsets[at][0] < end for start, end in texts)]


_OPTIONS = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


@dataclass(frozen=True)
class Verbalizer:
    """Which words stand for which label.

    Attributes:
        words: for each label, in the task's order, one or several words.
    """

    words: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, words: Mapping[str, str | Sequence[str]], labels: Sequence[str]) -> Verbalizer:
        """Read `{"negative": "terrible", "positive": ("great", "good")}`.

        Raises:
            BadOption: if a label has no word, a word stands for two labels, or there is a label too many.
        """
        if not isinstance(words, Mapping):
            raise BadOption(f"A verbalizer is a mapping of labels to words, not {words!r:.60}.")
        strange = [label for label in words if label not in labels]
        if strange:
            raise BadOption(f"The verbalizer names the label {strange[0]!r}; the task has {', '.join(labels)}.")
        found: list[tuple[str, ...]] = []
        for label in labels:
            given = words.get(label, ())
            given = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
            if not given or not all(isinstance(word, str) and word.strip() for word in given):
                raise BadOption(f"The verbalizer has no word for the label {label!r}.")
            found.append(tuple(word.strip() for word in given))
        flat = [word for group in found for word in group]
        twice = [word for word in flat if flat.count(word) > 1]
        if twice:
            raise BadOption(f"The verbalizer uses the word {twice[0]!r} twice; a word stands for one label.")
        return cls(tuple(found))

    def pieces(self, tokenizer: Any) -> list[list[int]]:
        """The vocabulary ids of each label's words.

        Raises:
            BadOption: for a word that is unknown or several pieces, naming the nearest single one, and for two words that
                are one piece to this tokenizer.
        """
        found: list[list[int]] = []
        for group in self.words:
            ids = []
            for word in group:
                # Behind a space, as a word stands in running text: some vocabularies tell the two apart.
                pieces = _behind_a_space(word, tokenizer)
                if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
                    why = "is unknown" if tokenizer.unk_token_id in pieces else f"is {len(pieces)} pieces"
                    raise BadOption(
                        f"The verbalizer's word {word!r} {why} to this tokenizer; {_nearest(word, tokenizer)}"
                    )
                if any(pieces[0] in group for group in (*found, ids)):
                    raise BadOption(f"The verbalizer's word {word!r} is the same piece as another of its words.")
                ids.append(pieces[0])
            found.append(ids)
        return found


def _nearest(word: str, tokenizer: Any) -> str:
    """A hint at the most similar whole word of the vocabulary."""
    whole = {piece.lstrip("Ġ▁"): piece for piece in tokenizer.get_vocab() if piece.lstrip("Ġ▁").isalpha()}
    near = difflib.get_close_matches(word, whole, n=10, cutoff=0.5)
    single = [
        one
        for one in near
        if len(pieces := _behind_a_space(one, tokenizer)) == 1 and pieces[0] != tokenizer.unk_token_id
    ]
    return f"the nearest single one is {single[0]!r}." if single else "take a word of its vocabulary."


def _behind_a_space(word: str, tokenizer: Any) -> list[int]:
    return tokenizer(f" {word}", add_special_tokens=False, **_OPTIONS)["input_ids"]

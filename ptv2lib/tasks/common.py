"""What all task families share: the contract of a family, reading labels, checking columns, tokenizing."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..encoding import Encoded, Layout
from ..errors import BadOption, DataError, unknown
from ..memory import free_ram
from ..sources import HubSet, Table

UNLABELLED = -1
SHORTEST = 8  # pieces of the shortest cut that leaves room for a text
BYTES_A_CHARACTER = 250  # that tokenizing takes; 205 measured on English text in overlapping windows
CUTS = ("longest_first", "only_first", "only_second")  # which text of a pair is cut
NO_HUB = HubSet(None, None, None, "your own", {}, "Give the folder of your own copy with dataset=.")


class TaskFamily(ABC):
    """What a kind of task must know; a data set is an instance, a frozen dataclass of its columns and labels.

    A row is what is answered at once: a sentence, a question with its options, a predicate. It may need several inputs of
    the encoder: `encode` gives a list of them for each row, and `decode` reads their logits together.
    """

    head: ClassVar[str]
    """Which head reads it: `"sequence"`, `"choice"`, `"token"` or `"span"`."""
    label_column: ClassVar[str] = "label"
    """The column with the gold answer, where a test may lack it."""
    metric: ClassVar[str]
    """The score by which epochs and settings are chosen."""
    together: ClassVar[bool] = False
    """Whether the inputs of a row must share a training batch."""
    row_names: ClassVar[tuple[str, ...]] = ("idx",)
    """Columns that place a row and say nothing of it."""
    layouts: ClassVar[tuple[str, ...]] = ()
    """Ways to lay a row out, the default first; none where there is one way only."""

    name: str
    hub: HubSet
    max_length: int
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a name that is no text, one text where several are needed, or a cut that is too short or of no known kind."""
        if not isinstance(self.name, str) or not self.name:
            raise BadOption(f"A task's name must be text, not {self.name!r}.")
        for part in ("texts", "choices", "types", "roles", "labels", "templates"):
            value = getattr(self, part, ())
            if isinstance(value, list) and part in {f.name for f in fields(self)}:
                value = tuple(value)  # a saved prompt gives tuples back
                object.__setattr__(self, part, value)
            if not isinstance(value, (tuple, list)) or not all(isinstance(one, str) for one in value):
                raise BadOption(
                    f"{part}={value!r} of the task {self.name!r} must be several texts, such as ('one', 'two')."
                )
            if part == "texts" and value and len(value) > 2:
                raise BadOption(f"texts={value!r} of the task {self.name!r}: an encoder reads one text or two.")
            twice = [one for one in value if value.count(one) > 1]
            if twice:
                raise BadOption(f"{part} of the task {self.name!r} names {twice[0]!r} twice.")
        if type(self.max_length) is not int or self.max_length < SHORTEST:
            raise BadOption(
                f"max_length={self.max_length!r} of the task {self.name!r} leaves no room for a text; use a whole number "
                f"of at least {SHORTEST}."
            )
        cut = getattr(self, "cut", CUTS[0])
        if cut not in CUTS:
            raise unknown("cut", cut, CUTS)

    @abstractmethod
    def read(self, table: Table) -> list[dict[str, Any]]:
        """Check a split and give its rows. Raises `DataError` naming the file, the row and the column."""

    @abstractmethod
    def encode(self, rows: Sequence[Mapping], tokenizer: Any, layout: Layout) -> list[list[Encoded]]:
        """The inputs of each row."""

    @abstractmethod
    def decode(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> Any:
        """The prediction for one row from the logits of its inputs."""

    @abstractmethod
    def score(self, predicted: Sequence, rows: Sequence[Mapping]) -> dict[str, Any]:
        """Scores of predictions, the task's own metric first. Raises `DataError` for rows without gold answers."""

    @abstractmethod
    def majority(self, train: Sequence[Mapping], rows: Sequence[Mapping]) -> dict[str, Any]:
        """The score of the most frequent answer, and under `answer` what it is."""

    @abstractmethod
    def prepare(self, example: Mapping) -> dict[str, Any]:
        """Turn what a person asks about into a row. Raises `DataError` if something is missing."""

    @abstractmethod
    def answer(self, logits: Sequence[np.ndarray], inputs: Sequence[Encoded], row: Mapping) -> dict[str, Any]:
        """The prediction for one row in the task's own words."""

    @abstractmethod
    def submission(self, predicted: Sequence, rows: Sequence[Mapping]) -> str:
        """Predictions as the text of a file in the form that the data set's owner asks for."""

    @abstractmethod
    def texts_of(self, row: Mapping) -> str:
        """The row's running text."""

    def parse(self, paths: list[Path]) -> Table:
        """A split from files in the owner's own form, where it is neither parquet nor JSON."""
        raise DataError(f"The file {paths[0]} must be .parquet, .jsonl or .json.")

    def with_labels_of(self, tables: Mapping[str, Table]) -> TaskFamily:
        """This family with the labels that the data hold, for sets whose labels are not listed beforehand."""
        return self

    def labelled(self, rows: Sequence[Mapping]) -> bool:
        """Whether the rows have gold answers."""
        return True

    def check_labelled(self, rows: Sequence[Mapping]) -> None:
        """Refuse to score rows without gold answers."""
        if not self.labelled(rows):
            raise DataError(
                f"Rows of {self.name} without {self.label_column!r} cannot be scored; write their predictions instead."
            )

    def strata(self, row: Mapping) -> Any:
        """What a stratified split keeps in proportion."""
        return 0

    def group(self, row: Mapping) -> Hashable | None:
        """Rows of one group never part: all questions on one paragraph, for instance."""
        return None

    def size(self, row: Mapping) -> int:
        """How many rows of the Hub's file this row is."""
        return 1

    def peculiar(self, rows: Sequence[Mapping]) -> dict[str, int]:
        """How many rows of a split are odd and yet kept: `repeated` ones, and `empty` ones, which lack a text."""
        seen: set[int] = set()
        empty = 0
        for row in rows:
            told = {column: value for column, value in row.items() if column not in self.row_names}
            seen.add(hash(repr(told)))
            blank = any(isinstance(value, str) and not value.strip() for value in told.values())
            empty += blank or not self.texts_of(row).strip()
        return {"repeated": len(rows) - len(seen), "empty": empty}

    def words_read(self, layout: Layout) -> int:
        """How many marked words the head reads beside the whole text."""
        return 0

    def layout_name(self, layout: Layout) -> str | None:
        """The layout in use: the one asked for, or the default; None where there is one way only."""
        return layout.name or next(iter(self.layouts), None)

    def check_layout(self, layout: Layout) -> None:
        """Raise `UnknownName` for a layout this family does not have, `BadOption` for one that the encoder cannot read."""
        if layout.name is not None and not self.layouts:
            raise BadOption(f"layout={layout.name!r}: {self.name} has one layout only.")
        if layout.name is not None and layout.name not in self.layouts:
            raise unknown("layout", layout.name, self.layouts)


def check_columns(table: Table, columns: Sequence[str]) -> None:
    """Raise a `DataError` that names what is missing."""
    if not table.rows:
        raise DataError(f"{table.where} has no rows.")
    for number, row in enumerate(table.rows):
        missing = [column for column in columns if column not in row]
        if missing:
            place = table.where if number == 0 else f"{table.place(number)},"
            raise DataError(f"{place} has no column {missing[0]!r}; it has {', '.join(row)}.")


def check_unique(table: Table, column: str) -> None:
    """Refuse two rows with one name, `1` and `"1"` being the same; a row with nothing in the column has none."""
    named: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        name = row.get(column)
        first = number if name is None else named.setdefault(str(name), number)
        if first != number:
            again = table.second_place(first, number)
            raise DataError(f"{table.place(number)}: column {column!r} repeats {name!r:.60} of {again}.")


def check_text(value: Any, column: str, where: str) -> None:
    """Refuse what is no text, or has half of a surrogate pair, which JSON can write down and no tokenizer reads."""
    if not isinstance(value, str):
        raise DataError(f"{where}: column {column!r} must be text, not {value!r:.60}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: column {column!r} has half of a surrogate pair, {value[error.start]!r}, as character {error.start}."
        ) from None


def check_texts(table: Table, column: str) -> None:
    """Refuse a text column that is not text, is empty in every row, or has a text that memory cannot take.

    Single empty texts are kept.
    """
    for number, row in enumerate(table.rows):
        check_text(row.get(column), column, table.place(number))
    if not any(row[column].strip() for row in table.rows):
        raise DataError(f"{table.where}: the text column {column!r} is empty in every row.")
    longest = max(range(len(table.rows)), key=lambda number: len(table.rows[number][column]))
    need, free = BYTES_A_CHARACTER * len(table.rows[longest][column]), free_ram()
    if need > free:
        raise DataError(
            f"{table.place(longest)}: column {column!r} has {len(table.rows[longest][column]):,} characters; to tokenize them "
            f"takes about {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free."
        )


def check_strings(row: Mapping, columns: Sequence[str], where: str) -> None:
    """Refuse a row with something else than text in one of these columns; empty texts are kept."""
    for column in columns:
        check_text(row[column], column, where)


def check_words(table: Table) -> None:
    """Refuse a `tokens` column that is not lists of words, or is empty in every row."""
    for number, row in enumerate(table.rows):
        tokens, where = row["tokens"], table.place(number)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise DataError(f"{where}: column 'tokens' must be a list of words.")
        check_text(" ".join(tokens), "tokens", where)
    if not any(token.strip() for row in table.rows for token in row["tokens"]):
        raise DataError(f"{table.where}: the text column 'tokens' is empty in every row.")


def read_label(
    value: Any, labels: Sequence[str], names: Sequence[str] | None, where: str, column: str = "label"
) -> int:
    """One label as an index into `labels`; accepts an index, a ClassLabel index of the file, a string, or a truth value.

    Where all labels are whole numbers themselves, such as `("1", "2", "3")`, a bare number means the label of that name.

    Raises:
        DataError: for anything else, naming row and column.
    """
    if isinstance(value, bool) and tuple(labels) == ("False", "True"):
        return int(value)
    if isinstance(value, bool) or value is None:
        raise DataError(f"{where}: column {column!r} is {value!r}, which is no label; labels are {', '.join(labels)}.")
    if isinstance(value, int):
        numbers = names is None and all(re.fullmatch("-?[0-9]+", label) for label in labels)
        if numbers and (value != UNLABELLED or str(value) in labels):
            value = str(value)
        elif value == UNLABELLED:
            return UNLABELLED
        elif names is not None and 0 <= value < len(names):
            value = names[value]
        elif names is None and 0 <= value < len(labels):
            return value
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    raise DataError(f"{where}: column {column!r} is {value!r}, not one of {', '.join(labels)}.")


def json_lines(objects: Iterable[Mapping]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def most_frequent(values: Sequence) -> Any:
    """The most frequent value; the smallest of several."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def shares(logits: np.ndarray) -> np.ndarray:
    """Softmax: scores as chances that add up to 1."""
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


@dataclass(frozen=True)
class Pieces:
    """One tokenized text or pair: `encoding` is the tokenizer's answer for a batch, `at` this text's place in it."""

    encoding: Any
    at: int
    cut: bool

    def arrays(self) -> dict[str, np.ndarray]:
        """What the encoder takes: `input_ids` and, where the tokenizer gives them, `token_type_ids`."""
        return {
            name: np.array(self.encoding[name][self.at], np.int32)
            for name in ("input_ids", "token_type_ids")
            if name in self.encoding
        }


def tokenize(
    tokenizer: Any,
    first: Sequence,
    second: Sequence | None,
    max_length: int,
    cut: str = "longest_first",
    words: bool = False,
    offsets: bool = False,
) -> list[Pieces]:
    """Tokenize texts, or pairs, and cut those that are too long.

    Args:
        tokenizer: a fast tokenizer.
        first: texts, or lists of words.
        second: the texts paired with them; None for single texts.
        max_length: in pieces, special ones included.
        cut: which text of a pair is cut: `"only_first"`, `"only_second"`, or the longer one. Where cutting the one alone
            cannot make room, the longer one is cut.
        words: texts are lists of words.
        offsets: ask for character offsets.
    """
    if not first:
        return []
    options = {"is_split_into_words": words, "return_attention_mask": False, "verbose": False}

    def encode(numbers: Sequence[int], **more: Any) -> Any:
        pairs = None if second is None else [second[i] for i in numbers]
        return tokenizer([first[i] for i in numbers], pairs, return_offsets_mapping=offsets, **options, **more)

    whole = encode(range(len(first)))
    found = [Pieces(whole, i, False) for i in range(len(first))]
    long = [i for i, ids in enumerate(whole["input_ids"]) if len(ids) > max_length]
    ways: dict[str, list[int]] = defaultdict(list)
    stays = {"only_first": second, "only_second": first}.get(cut) if second is not None else None
    kept = tokenizer([stays[i] for i in long], **options)["input_ids"] if stays is not None and long else []
    for place, i in enumerate(long):
        one_will_do = stays is not None and len(kept[place]) + 4 <= max_length
        ways[cut if one_will_do else "longest_first"].append(i)
    for way, numbers in ways.items():
        shortened = encode(numbers, truncation=way, max_length=max_length)
        for at, i in enumerate(numbers):
            found[i] = Pieces(shortened, at, True)
    return found

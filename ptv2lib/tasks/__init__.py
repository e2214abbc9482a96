"""Loading data sets, and dividing their rows between training, selection and score."""

from __future__ import annotations

import os
import random
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backbones import load_backbone
from ..encoding import Layout
from ..errors import BadOption, DataError, unknown
from ..formats import superglue_rows
from ..sources import Table, read_folder, read_hub, read_miniature
from .common import SHORTEST, UNLABELLED, TaskFamily
from .registry import TASKS

SPLIT_SEED = 20211014  # one fixed draw for all methods and seeds
SELECTIONS = ("heldout", "paper")
MAIN = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Who trains, who selects, who is scored.

    Attributes:
        train: rows that train.
        validation: rows that select the epoch.
        test: rows that are scored once; None where no labelled ones are left.
        further: more sets that are scored once, by name: `validation_mismatched`, `test_brown`.
        protocol: all this in words.
    """

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]] | None
    further: dict[str, list[dict[str, Any]]]
    protocol: str


@dataclass(frozen=True)
class Task:
    """A loaded data set.

    Attributes:
        family: schema, labels, encoding and score.
        rows: the checked rows of each official split.
        source: `"hub"`, `"miniature"`, or the name of the folder.
        revision: the Hub commit, where one is known.
        train_limit: how many training rows are used, as the Hub counts rows; None for all.
        notes: what differs from the official set.
    """

    family: TaskFamily
    rows: dict[str, list[dict[str, Any]]]
    source: str
    revision: str | None = None
    train_limit: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The task's name."""
        return self.family.name

    def split(self, selection: str = "heldout") -> Split:
        """Divide the rows so that selection and score never share one.

        With a labelled test split, validation selects and test is scored. Without one, a tenth of train (at most 1,000
        rows, or a few more where labels are rounded and the last group is whole; stratified, whole paragraphs and articles,
        the same for every seed) selects and the official validation is
        scored. `"paper"` selects on the official validation, as the paper's code does.

        Raises:
            UnknownName: for another selection.
            DataError: without training or validation rows, or with training rows that cannot be divided: one of each label,
                or nearly all of one group.
        """
        if selection not in SELECTIONS:
            raise unknown("selection", selection, SELECTIONS)
        for needed in ("train", "validation"):
            if not self.rows.get(needed):
                raise DataError(
                    f"{self.source} has no {needed} split, which training needs; it has {', '.join(self.rows)}."
                )
        train, validation, test = self.rows["train"], self.rows["validation"], self.rows.get("test")
        if not test or not self.family.labelled(test):
            test = None
        if selection == "paper":
            protocol = "the official validation selects the epoch, as in the paper's code"
        elif test is not None:
            protocol = "validation selects, test is scored once"
        else:
            train, chosen = self._hold_out(train)
            validation, test = chosen, validation
            protocol = "a tenth of train selects, the official validation is scored once"
        further = {
            name: rows for name, rows in self.rows.items() if name not in MAIN and rows and self.family.labelled(rows)
        }
        return Split(self._limited(train), validation, test, further, protocol)

    def _grouped(self, rows: Sequence[dict]) -> list[list[int]]:
        """Row numbers in groups that must not part, in the order of their first row."""
        groups: dict[Any, list[int]] = defaultdict(list)
        for number, row in enumerate(rows):
            key = self.family.group(row)
            groups[("alone", number) if key is None else ("group", key)].append(number)
        return list(groups.values())

    def _limited(self, rows: list[dict]) -> list[dict]:
        total = sum(map(self.family.size, rows))
        if self.train_limit is None or self.train_limit >= total:
            return rows
        chosen, count = [], 0
        for row in random.Random(SPLIT_SEED).sample(rows, min(self.train_limit, len(rows))):
            if count >= self.train_limit:
                break
            chosen.append(row)
            count += self.family.size(row)
        return chosen

    def _hold_out(self, rows: Sequence[dict]) -> tuple[list[dict], list[dict]]:
        draw = random.Random(SPLIT_SEED)
        groups = self._grouped(rows)
        chosen: set[int] = set()
        if len(groups) == len(rows):
            wanted = min(len(rows) // 10, 1000)
            share = wanted / len(rows)
            strata = defaultdict(list)
            for number, row in enumerate(rows):
                strata[self.family.strata(row)].append(number)
            for _, numbers in sorted(strata.items()):
                # The only row of its label trains: held out, it would leave nothing to learn the label from.
                chosen.update(draw.sample(numbers, min(max(1, round(share * len(numbers))), len(numbers) - 1)))
            if max(2, wanted) < min(len(strata), len(chosen)):  # with a row of each label too few would train
                chosen = set(draw.sample(sorted(chosen), max(2, wanted)))
        else:
            wanted = min(sum(map(self.family.size, rows)) / 10, 1000)
            count = 0
            for group in draw.sample(groups, len(groups)):
                if count >= wanted or len(chosen) + len(group) >= len(rows):
                    break
                if 2 * len(group) > len(rows):
                    continue  # most of the rows train, whatever the draw
                chosen.update(group)
                count += sum(self.family.size(rows[number]) for number in group)
        if not chosen:
            raise DataError(
                f"The {len(rows)} training rows of {self.source} cannot be divided between training and selection; give a "
                "labelled test split, or use selection='paper'."
            )
        kept = [row for number, row in enumerate(rows) if number not in chosen]
        return kept, [rows[number] for number in sorted(chosen)]

    def show(
        self, count: int = 3, *, backbone: str = "minilm", layout: str | None = None, max_length: int | None = None
    ) -> None:
        """Print what the encoder sees of the first training rows: pieces, segments, labels a piece, windows.

        Args:
            count: how many rows; without a training split the first of another one.
            backbone: whose tokenizer cuts the words.
            layout: one of `family.layouts`.
            max_length: the cut; None for the task's own.

        Raises:
            BadOption: for a cut that leaves no room for a text, as in training.
        """
        if max_length is not None and (type(max_length) is not int or max_length < SHORTEST):
            raise BadOption(
                f"max_length={max_length!r} leaves no room for a text; use a whole number of at least {SHORTEST}."
            )
        encoder = load_backbone(backbone)
        tokenizer = encoder.tokenizer
        length = min(max_length or self.family.max_length, encoder.context)
        chosen = Layout(length, name=layout, segments=encoder.segments > 1)
        self.family.check_layout(chosen)
        trains = {"train", "validation"} <= set(self.rows)
        rows = self.split().train if trains else next(iter(self.rows.values()))
        laid = self.family.encode(rows[:count], tokenizer, chosen)
        for number, inputs in enumerate(laid):
            print(f"row {number}: {len(inputs)} input{'s' if len(inputs) > 1 else ''}")
            for one in inputs:
                print("\n".join(_shown(one, tokenizer, self.family)), end="\n\n")


def _shown(one: Any, tokenizer: Any, family: TaskFamily) -> list[str]:
    """An input as lines of equal columns: pieces, segments, marks, labels."""
    pieces = tokenizer.convert_ids_to_tokens(one.inputs["input_ids"].tolist())
    lines = {"pieces": pieces}
    for name, title in (("token_type_ids", "segment"), ("marks", "marked")):
        if name in one.inputs and one.inputs[name].any():
            lines[title] = [str(value) if value else "." for value in one.inputs[name]]
    verdict = f"label: {one.labels}"
    if family.head == "token" and one.labels is not None:
        lines["label"] = ["" if label < 0 else family.labels[label] for label in one.labels]
        verdict = ""
    elif family.head == "span" and one.labels is not None:
        verdict = (
            "answer: not in this window"
            if one.labels == (0, 0)
            else f"answer: pieces {one.labels[0]} to {one.labels[1]}"
        )
    elif family.head == "sequence" and one.labels is not None:
        verdict = f"label: {family.labels[one.labels]}"
    widths = [max(len(column[k]) for column in lines.values()) for k in range(len(pieces))]
    found, start = [], 0
    while start < len(pieces):
        end, width = start, 0
        while end < len(pieces) and (end == start or width + widths[end] + 1 <= 100):
            width += widths[end] + 1
            end += 1
        for title, column in lines.items():
            found.append(f"  {title:8}" + " ".join(column[k].ljust(widths[k]) for k in range(start, end)).rstrip())
        start = end
    return [*found, f"  {verdict}{' (cut)' if one.cut else ''}"] if verdict or one.cut else found


def load_task(
    name: str | TaskFamily,
    *,
    source: str = "hub",
    dataset: str | os.PathLike | None = None,
    train_limit: int | None = None,
) -> Task:
    """Load a data set and check every row.

    Args:
        name: a name of `TASKS`, or a family of your own, such as `Classification("mood", ("text",), ("sad", "glad"))`.
        source: `"hub"` or `"miniature"`, the suite that ships with the library.
        dataset: a folder of your own copy, in the Hub's columns or its owner's form; it takes the place of `source`.
        train_limit: use this many training rows, drawn with a fixed seed.

    Raises:
        UnknownName: for an unknown task or source.
        DataError: for data that cannot be read or break the schema.
        NoNetwork: if the Hub is needed and does not answer.
    """
    family = name if isinstance(name, TaskFamily) else find_task(name)
    if train_limit is not None and (type(train_limit) is not int or train_limit < 1):
        raise BadOption(f"train_limit={train_limit!r} must be a whole number of at least 1.")
    tables, origin, revision = _tables(family, source, dataset)
    if not tables:
        raise DataError(f"{origin} holds no split; name its files train, validation and test.")
    if ("train" in tables) != ("validation" in tables):
        missing = "validation" if "train" in tables else "train"
        raise DataError(
            f"{origin} has no {missing} split; training needs train and validation, and scoring alone only test."
        )
    family = family.with_labels_of(tables)
    rows = {split: family.read(table) for split, table in tables.items()}
    for split, table in tables.items():
        _check_labelled(family, rows[split], table, f"The {split} split of {origin}", split in ("train", "validation"))
    if "test" not in rows and "test_wsj" in rows:  # CoNLL-2005 names its main test after its source
        rows["test"] = rows["test_wsj"]
    notes = [] if source == "miniature" and dataset is None else _against_official(family, rows)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return Task(family, rows, origin, revision, train_limit, tuple(notes))


def _check_labelled(family: TaskFamily, rows: Sequence[dict], table: Table, split: str, needed: bool) -> None:
    """Refuse a split that lacks the labels it needs, and a test that is labelled in part.

    A test without any label is kept, as GLUE and SuperGLUE give it out.
    """
    if family.labelled(rows):
        return
    bare = [number for number, row in enumerate(rows) if not family.labelled([row])]
    if len(bare) == len(rows) and not needed:
        return
    column, table = family.label_column, table.expanded(superglue_rows, family.name)
    if len(bare) == len(rows) and not any(column in row for row in table.rows):
        raise DataError(
            f"{split} has no labels: {table.where} has no column {column!r}; it has {', '.join(table.rows[0])}."
        )
    if len(table.rows) != len(rows):  # MultiRC's rows are questions, and the table's are their answers
        bare = [number for number, row in enumerate(table.rows) if row.get(column, UNLABELLED) == UNLABELLED]
    why = "only a test may be unlabelled" if needed else "others have one, and a test is labelled wholly or not at all"
    place = table.place(bare[0]) if bare else table.where
    raise DataError(f"{split} has rows without a label ({place}, column {column!r}); {why}.")


def find_task(name: str) -> TaskFamily:
    """Look a task up.

    Raises:
        UnknownName: with the nearest name.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]


def _tables(
    family: TaskFamily, source: str, dataset: str | os.PathLike | None
) -> tuple[dict[str, Table], str, str | None]:
    revision = None
    if dataset is not None:
        tables, origin = read_folder(dataset, family.parse), os.path.basename(os.path.normpath(dataset))
    elif source == "miniature":
        tables, origin = read_miniature(family.name), source
    elif source == "hub":
        (tables, revision), origin = read_hub(family.hub), source
    else:
        raise unknown("source", source, ("hub", "miniature"))
    base = getattr(family, "trained_on", None)
    if base and dataset is None:
        other = _tables(find_task(base), source, None)[0]
        tables |= {split: other[split] for split in ("train", "validation") if split in other}
    return tables, origin, revision


def _against_official(family: TaskFamily, rows: dict[str, list[dict]]) -> list[str]:
    """What to say about row counts that are not the official ones: nothing, or one sentence."""
    counts = {split: sum(map(family.size, rows[split])) for split in family.hub.rows if split in rows}
    other = [
        f"{split} {count:,} (official {family.hub.rows[split]:,})"
        for split, count in counts.items()
        if count != family.hub.rows[split]
    ]
    return [f"{family.name} has other numbers of rows than the official set: {', '.join(other)}."] if other else []

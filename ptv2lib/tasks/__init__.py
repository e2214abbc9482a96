"""The data sets, by name, and how their rows are divided between training, selection and score."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadOption, unknown
from ..sources import HubSet, read_folder, read_hub, read_miniature
from .classification import Classification
from .tagging import Tagging

_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_SUPERGLUE = "3de24cf8022e94f4ee4b9d55a6f539891524d646"

TASKS: dict[str, Classification | Tagging] = {
    family.name: family
    for family in (
        Classification(
            "sst2",
            ("sentence",),
            ("negative", "positive"),
            HubSet("nyu-mll/glue", "sst2", _GLUE, "none stated", (67349, 872, 1821)),
        ),
        Classification(
            "rte",
            ("premise", "hypothesis"),
            ("entailment", "not_entailment"),
            HubSet("aps/super_glue", "rte", _SUPERGLUE, "research use", (2490, 277, 3000)),
        ),
        Tagging(
            "conll04",
            ("Loc", "Org", "Other", "Peop"),
            "entities",
            HubSet("DFKI-SLT/conll04", None, None, "none stated", (922, 231, 288)),
        ),
        Tagging(
            "wikiann",
            ("PER", "ORG", "LOC"),
            "ner_tags",
            HubSet(
                "unimelb-nlp/wikiann", "en", None, "none stated; text from Wikipedia, CC BY-SA", (20000, 10000, 10000)
            ),
        ),
    )
}
"""Every task, by the name `--task` takes."""

SPLIT_SEED = 20211014  # one fixed draw for all methods and seeds
SELECTIONS = ("heldout", "paper")


@dataclass(frozen=True)
class Split:
    """Who trains, who selects, who is scored; `test` is None where no labelled rows are left for it."""

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]] | None
    protocol: str


@dataclass(frozen=True)
class Task:
    """A loaded data set.

    Attributes:
        family: schema, labels, encoding and score.
        rows: the checked rows of each official split.
        source: `"hub"`, `"miniature"`, or the name of the folder.
        revision: the Hub commit, where one is known.
        train_limit: how many training rows are used; None for all.
    """

    family: Classification | Tagging
    rows: dict[str, list[dict[str, Any]]]
    source: str
    revision: str | None = None
    train_limit: int | None = None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.family.name

    def split(self, selection: str = "heldout") -> Split:
        """Divide the rows so that selection and score never share one.

        With a labelled test split, validation selects and test is scored. Without one, a tenth of train (at most 1,000
        rows, stratified, the same for every seed) selects and the official validation is scored. `"paper"` selects on the
        official validation, as the paper's code does.

        Raises:
            UnknownName: for another selection.
        """
        if selection not in SELECTIONS:
            raise unknown("selection", selection, SELECTIONS)
        train, validation, test = self.rows["train"], self.rows["validation"], self.rows.get("test")
        if test is not None and not self.family.labelled(test):
            test = None
        if selection == "paper":
            protocol = "the official validation selects the epoch, as in the paper's code"
        elif test is not None:
            protocol = "validation selects, test is scored once"
        else:
            train, chosen = self._hold_out(train)
            validation, test = chosen, validation
            protocol = "a tenth of train selects, the official validation is scored once"
        if self.train_limit is not None and self.train_limit < len(train):
            train = random.Random(SPLIT_SEED).sample(train, self.train_limit)
        return Split(train, validation, test, protocol)

    def _hold_out(self, rows: Sequence[dict]) -> tuple[list[dict], list[dict]]:
        draw = random.Random(SPLIT_SEED)
        share = min(len(rows) // 10, 1000) / len(rows)
        strata = defaultdict(list)
        for number, row in enumerate(rows):
            strata[self.family.strata(row)].append(number)
        chosen = set()
        for _, numbers in sorted(strata.items()):
            chosen.update(draw.sample(numbers, max(1, round(share * len(numbers)))))
        kept = [row for number, row in enumerate(rows) if number not in chosen]
        return kept, [rows[number] for number in sorted(chosen)]


def load_task(
    name: str,
    *,
    source: str = "hub",
    dataset: str | os.PathLike | None = None,
    train_limit: int | None = None,
) -> Task:
    """Load a data set and check every row.

    Args:
        name: a name of `TASKS`.
        source: `"hub"` or `"miniature"`, the suite that ships with the library.
        dataset: a folder of your own copy in the Hub's columns; it takes the place of `source`.
        train_limit: use this many training rows, drawn with a fixed seed.

    Raises:
        UnknownName: for an unknown task or source.
        DataError: for data that cannot be read or break the schema.
        NoNetwork: if the Hub is needed and does not answer.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    if train_limit is not None and train_limit < 1:
        raise BadOption(f"train_limit={train_limit} must be at least 1.")
    family, revision = TASKS[name], None
    if dataset is not None:
        tables, origin = read_folder(dataset), os.path.basename(os.path.normpath(dataset))
    elif source == "miniature":
        tables, origin = read_miniature(name), source
    elif source == "hub":
        (tables, revision), origin = read_hub(family.hub), source
    else:
        raise unknown("source", source, ("hub", "miniature"))
    rows = {split: family.read(table) for split, table in tables.items()}
    for split in ("train", "validation"):
        if not family.labelled(rows[split]):
            raise BadOption(f"The {split} split of {origin} has rows without a label; only test may be unlabelled.")
    return Task(family, rows, origin, revision, train_limit)

"""Makes the records behind the book's results on real data; run it again and it goes on where it stopped.

    PTV2_DATA=/folder/of/data/sets python book/measure.py [PLAN ...]

`PTV2_DATA` holds one folder a data set (`conll04/train.parquet`, …). Without names every plan is run, in order. A record that
exists is not made again; a run that was cut off is repeated whole. Each record lands in `book/_data/results/`. Several copies
may run side by side: a run that another copy is busy with is left to it. One thread a copy is the fastest on few cores.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas

from ptv2lib.errors import DataError
from ptv2lib.files import write_whole
from ptv2lib.records import main_score, read_record
from ptv2lib.sources import MINIATURE

RESULTS = Path(__file__).parent / "_data" / "results"


@dataclass(frozen=True)
class Plan:
    """Runs that differ in the seed only.

    Attributes:
        task: a data set, or several with a plus between them; each of them gets a record.
        method: the method.
        name: goes into the record.
        settings: `--set` pairs.
        seeds: one run each.
        train_limit: training rows; None for all.
        scored: of the official validation and of a labelled test so many rows each, drawn once; the training file is cut to
            twice `train_limit`, so that the tenth of it that may have to select is small, too. None for all.
        miniature: on the suite instead of real data.
        backbone: the encoder.
    """

    task: str
    method: str
    name: str
    settings: str
    seeds: tuple[int, ...] = (0, 1, 2)
    train_limit: int | None = None
    scored: int | None = None
    miniature: bool = False
    backbone: str = "minilm"

    def records(self, seed: int) -> dict[str, Path]:
        """Where the record of one seed belongs, by task."""
        return {task: RESULTS / f"{task}-{self.method}-{self.name}-seed{seed}.json" for task in self.task.split("+")}

    def selection(self) -> float:
        """The mean score by which settings are chosen: of the selection split, never of the test."""
        found = [read_record(path) for seed in self.seeds for path in self.records(seed).values()]
        return statistics.mean(main_score(record, "validation") for record in found)


def anchors() -> list[Plan]:
    """The settings of a first prototype, which the library must reach."""
    return [
        Plan("conll04", "pt2", "anchor", "prompt_length=128 learning_rate=5e-2 epochs=40 backbone_dropout=0.1"),
        Plan("conll04", "ft", "anchor", "learning_rate=1e-4 epochs=15 backbone_dropout=0.1"),
        Plan("conll04", "pt", "anchor", "prompt_length=64 learning_rate=2e-2 epochs=25 backbone_dropout=0.1"),
        Plan("conll04", "probe", "anchor", "learning_rate=1e-2 epochs=20"),
    ]


DROPOUT_CELLS = [(dropout, epochs) for dropout in (0.0, 0.1) for epochs in (20, 40)]


def _cell(dropout: float, epochs: int) -> list[Plan]:
    """The learning rates tried with this dropout and length of training; a run that is an anchor keeps that name."""
    plans = []
    for rate in ("2e-2", "5e-2", "1e-1"):
        settings = f"prompt_length=128 learning_rate={rate} epochs={epochs} backbone_dropout={dropout}"
        names = [plan.name for plan in anchors() if plan.settings == settings]
        name = names[0] if names else f"search-dropout{dropout}-epochs{epochs}-rate{rate}"
        plans.append(Plan("conll04", "pt2", name, settings, seeds=(0,)))
    return plans


def dropout_rates() -> list[Plan]:
    """The first half of the search: learning rates with and without dropout inside the frozen encoder."""
    return [plan for cell in DROPOUT_CELLS for plan in _cell(*cell)]


def dropout() -> list[Plan]:
    """Each of the four cells with its best rate, three seeds."""
    return [replace(max(_cell(*cell), key=Plan.selection), seeds=(0, 1, 2)) for cell in DROPOUT_CELLS]


def variants() -> list[Plan]:
    """The second half of the search: everything else, twenty epochs each."""
    tried = {
        "length32": "prompt_length=32 learning_rate=5e-2",
        "length64": "prompt_length=64 learning_rate=5e-2",
        "length64-rate1e-1": "prompt_length=64 learning_rate=1e-1",
        "activations-rate1e-2": "prompt_length=64 learning_rate=1e-2 init=activations",
        "activations-rate3e-2": "prompt_length=64 learning_rate=3e-2 init=activations",
        "mlp-rate1e-3": "prompt_length=64 learning_rate=1e-3 reparameterization=mlp",
        "mlp-rate5e-3": "prompt_length=64 learning_rate=5e-3 reparameterization=mlp",
        "prefixdropout": "prompt_length=128 learning_rate=5e-2 prefix_dropout=0.1 backbone_dropout=0",
        "headdropout0.3": "prompt_length=128 learning_rate=5e-2 head_dropout=0.3 backbone_dropout=0",
        "decay": "prompt_length=128 learning_rate=5e-2 weight_decay=0.1 backbone_dropout=0",
        "shift": "prompt_length=128 learning_rate=5e-2 position_offset=shift",
        "batch8": "prompt_length=128 learning_rate=5e-2 batch_size=8",
    }
    return [Plan("conll04", "pt2", f"search-{name}", f"epochs=20 {text}", seeds=(0,)) for name, text in tried.items()]


def finalists() -> list[Plan]:
    """The two best of the search on the selection split, three seeds."""
    best = sorted([*dropout_rates(), *variants()], key=Plan.selection, reverse=True)[:2]
    return [replace(plan, seeds=(0, 1, 2)) for plan in best]


def sentence_rates() -> list[Plan]:
    """Learning rates, and for deep prompts what the head should read, on sentences: chosen on a small part of SST-2."""
    tried = [("pt2", "cls", "1e-2"), ("pt2", "mean", "1e-2"), ("pt2", "cls", "3e-2"), ("pt2", "mean", "3e-2")]
    tried += [("pt", "mean", rate) for rate in ("1e-2", "2e-2", "5e-2")]
    tried += [("ft", "mean", rate) for rate in ("5e-5", "1e-4")]
    tried += [("probe", "mean", rate) for rate in ("1e-2", "3e-2")]
    return [
        Plan(
            "sst2",
            method,
            f"search-{pooling}-rate{rate}",
            f"epochs=3 learning_rate={rate} pooling={pooling}",
            seeds=(0,),
            train_limit=2500,
        )
        for method, pooling, rate in tried
    ]


def classification() -> list[Plan]:
    """Every method on SST-2 and RTE."""
    methods = ("probe", "pt2", "ft", "pt")
    return [Plan("sst2", method, "rows10000", "epochs=3", train_limit=10000) for method in methods] + [
        Plan("rte", method, "epochs8", "epochs=8") for method in methods
    ]


@dataclass(frozen=True)
class Comparison:
    """One set on which methods are compared.

    Attributes:
        trial: what all trials have in common, on a part of the rows.
        final: the same, when the methods are compared.
        methods: which.
        shared: settings of every run.
        prompt_lengths: the two that are tried; short ones where the texts are short.
    """

    trial: dict[str, int]
    final: dict[str, int]
    methods: tuple[str, ...] = ("probe", "pt", "pt2", "ft")
    shared: str = ""
    prompt_lengths: tuple[int, int] = (16, 64)


TRIED: dict[str, tuple[tuple[str, ...], str, tuple[float, float] | None]] = {
    "probe": (("3e-3", "1e-2", "3e-2", "1e-1"), "head_dropout", (0, 0.1)),
    "pt": (("1e-2", "3e-2", "1e-1", "3e-1"), "prompt_length", None),
    "ptv1": (("1e-3", "1e-2", "3e-2", "1e-1"), "prompt_length", None),
    "pt2": (("1e-2", "3e-2", "5e-2", "1e-1"), "prompt_length", None),
    "lora": (("3e-4", "1e-3", "3e-3", "1e-2"), "lora_rank", (8, 32)),
    "ft": (("3e-5", "1e-4", "2e-4", "4e-4"), "batch_size", (8, 16)),
}
"""Eight trials a method: four learning rates, and two values of what else matters most for it; lengths by the task."""

COMPARED = {
    "conll04": Comparison({"epochs": 5, "train_limit": 400}, {"epochs": 10}, tuple(TRIED)),
    "sst2": Comparison({"epochs": 3, "train_limit": 1000}, {"epochs": 4, "train_limit": 2000}, tuple(TRIED)),
    "squad": Comparison(
        {"epochs": 2, "train_limit": 800, "scored": 50},
        {"epochs": 3, "train_limit": 2000, "scored": 500},
        tuple(TRIED),
        "backbone_dropout=0",  # doubles the price of a step on a CPU; no row is seen often enough to be learned by heart
    ),
    "ewt_srl": Comparison(
        # On 600 predicates no trial of fine-tuning came off the ground, so that its rates were chosen by chance.
        {"epochs": 3, "train_limit": 1500, "scored": 200},
        {"epochs": 4, "train_limit": 3000, "scored": 1000},
    ),
    "copa": Comparison({"epochs": 5, "train_limit": 300}, {"epochs": 10}, prompt_lengths=(4, 16)),
    "wsc": Comparison({"epochs": 5, "train_limit": 400}, {"epochs": 10}, prompt_lengths=(4, 16)),
}
"""The sets on which every method gets the same trials and the same rows; names of settings as in `Plan`."""


def trials(task: str) -> list[Plan]:
    """Every method with the same number of trials on the same rows, one seed."""
    plans = []
    for method in COMPARED[task].methods:
        rates, option, values = TRIED[method]
        for rate, value in itertools.product(rates, values or COMPARED[task].prompt_lengths):
            budget = dict(COMPARED[task].trial)
            settings = f"epochs={budget.pop('epochs')} learning_rate={rate} {option}={value} {COMPARED[task].shared}"
            plans.append(
                Plan(task, method, f"trial-rate{rate}-{option}{value}", settings.strip(), seeds=(0,), **budget)
            )
    return plans


def comparison(task: str) -> list[Plan]:
    """Each method with the settings of its best trial, by the rows that select, on more rows and with three seeds."""
    plans = []
    for method in COMPARED[task].methods:
        best = max((plan for plan in trials(task) if plan.method == method), key=Plan.selection)
        budget = dict(COMPARED[task].final)
        settings = f"epochs={budget.pop('epochs')} {best.settings.partition(' ')[2]}"
        plans.append(Plan(task, method, "compared", settings, **budget))
    return plans


def together() -> list[Plan]:
    """Multi-task prompts beside deep prompts alone: the same rows; ten epochs of both sets and five of each, beside fifteen."""
    shared = "prompt_length=64 learning_rate=5e-2"
    few = {"train_limit": 2000, "scored": 2000}  # of WikiANN; CoNLL04 has fewer
    alone = [Plan(task, "pt2", "alone", f"{shared} epochs=15", **few) for task in ("conll04", "wikiann")]
    settings = f"{shared} epochs=10 phase2_epochs=5 phase2_learning_rate=1e-2"
    return [*alone, Plan("conll04+wikiann", "mpt2", "together", settings, **few)]


FOLDERS = {
    "wikiann": "wikiann_en",
    "squad": "squad_articles",
    "squad_v2": "squad_v2_articles",
    "ewt_srl": "srl_ewt_propbank",
}
"""Folders of real data that are not named after their task, because they are a part of its set or a stand-in for it."""


def families() -> list[Plan]:
    """Deep prompts on a part of every data set at hand, one seed: that each task trains and scores.

    CoNLL04 is not among them, since `anchors` and `comparison-conll04` have it with all rows and three seeds.
    """
    # On long texts half a batch keeps within 6 GB, and a step without dropout costs half.
    long = "batch_size=8 backbone_dropout=0"
    tried = {
        "sst2": (8000, "epochs=3"),
        "rte": (None, "epochs=4 backbone_dropout=0"),
        "cb": (None, "epochs=20"),
        "boolq": (8000, f"epochs=1 {long}"),
        "copa": (None, "epochs=20"),
        "wsc": (None, "epochs=20"),
        "multirc": (3000, f"epochs=1 {long} threshold=selection"),
        "wikiann": (8000, "epochs=4"),
        "squad": (3000, f"epochs=2 {long}"),
        "squad_v2": (3000, f"epochs=2 {long}"),
        "ewt_srl": (8000, "epochs=3"),
    }
    return [
        Plan(task, "pt2", f"rows{limit or 'all'}", settings, seeds=(0,), train_limit=limit)
        for task, (limit, settings) in tried.items()
    ]


def cuts() -> list[Plan]:
    """The long texts of `families` once more, cut at the 128 pieces of the official code."""
    return [
        replace(plan, name=f"{plan.name}-cut128", settings=f"{plan.settings} max_length=128")
        for plan in families()
        if plan.task in ("boolq", "multirc")
    ]


def _on_the_suite(methods: tuple[str, ...]) -> list[Plan]:
    names = sorted(path.name for path in MINIATURE.iterdir() if (path / "train.jsonl").is_file())
    return [Plan(task, method, "miniature", "", miniature=True) for task in names for method in methods]


def miniature() -> list[Plan]:
    """The two methods that bound the miniature suite, with their default settings."""
    return _on_the_suite(("probe", "ft"))


def miniature_prompts() -> list[Plan]:
    """What prompts do on the suite, with their default settings."""
    return _on_the_suite(("pt2", "pt"))


PLANS: dict[str, Callable[[], list[Plan]]] = {
    plans.__name__: plans
    for plans in (
        anchors,
        sentence_rates,
        classification,
        dropout_rates,
        dropout,
        variants,
        finalists,
        families,
        cuts,
        together,
        miniature,
        miniature_prompts,
    )
}
for _task in COMPARED:
    PLANS[f"trials-{_task}"] = functools.partial(trials, _task)
    PLANS[f"comparison-{_task}"] = functools.partial(comparison, _task)


@contextlib.contextmanager
def claimed(targets: list[Path]) -> Iterator[bool]:
    """Whether this copy may make the records; the claim ends with the process, however it ends."""
    with open(Path(tempfile.gettempdir()) / f"{targets[0].stem}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield not all(target.is_file() for target in targets)


def source(plan: Plan, data: Path, scratch: Path) -> list[str]:
    """The arguments that name the data: of several sets, or of one cut short, a folder made in `scratch`."""
    if plan.miniature:
        return ["--source", "miniature"]
    folders = {task: data / FOLDERS.get(task, task) for task in plan.task.split("+")}
    if plan.scored:
        folders = {task: cut_short(folder, scratch / "short" / task, plan) for task, folder in folders.items()}
    if len(folders) == 1:
        return ["--dataset", str(folders[plan.task])]
    scratch.mkdir(exist_ok=True)
    for task, folder in folders.items():
        (scratch / task).symlink_to(folder.resolve())
    return ["--dataset", str(scratch)]


def cut_short(folder: Path, target: Path, plan: Plan) -> Path:
    """Write as many rows of every split as the plan wants into `target`."""
    target.mkdir(parents=True)
    for file in folder.glob("*.parquet"):
        rows = pandas.read_parquet(file)
        most = 2 * plan.train_limit if file.stem == "train" else plan.scored
        rows.sample(min(most, len(rows)), random_state=0).sort_index().to_parquet(target / file.name)
    return target


def run(plan: Plan, seed: int, data: Path) -> None:
    """Make one run's record, or one a task, unless they are there or another copy is busy with them."""
    targets = plan.records(seed)
    with claimed(list(targets.values())) as mine:
        if not mine:
            return
        print(f"{plan.task}-{plan.method}-{plan.name}-seed{seed} …", flush=True)
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "out"
            command = [sys.executable, "-m", "ptv2lib", "run", "--task", plan.task, "--method", plan.method]
            command += ["--backbone", plan.backbone]
            command += source(plan, data, Path(place) / "data")
            command += ["--name", plan.name, "--seed", str(seed), "--out", str(out)]
            command += [part for setting in plan.settings.split() for part in ("--set", setting)]
            if plan.train_limit:
                command += ["--train-limit", str(plan.train_limit)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            RESULTS.mkdir(parents=True, exist_ok=True)
            for task, target in targets.items():
                write_whole(target, ((out / task if len(targets) > 1 else out) / "record.json").read_bytes())


def main() -> None:
    """Run the plans named on the command line, or all; one seed of each before the next seed."""
    if "PTV2_DATA" not in os.environ:
        sys.exit("Set PTV2_DATA to the folder that holds the data sets.")
    data = Path(os.environ["PTV2_DATA"])
    names = sys.argv[1:] or list(PLANS)
    for name in names:
        if name not in PLANS:
            sys.exit(f"There are no plans named {name!r}; known are {', '.join(PLANS)}.")
    for name in names:
        try:
            plans = PLANS[name]()
        except DataError as error:
            sys.exit(f"{name} waits for other plans: {error}")
        for seed in sorted({seed for plan in plans for seed in plan.seeds}):
            for plan in plans:
                if seed in plan.seeds:
                    try:
                        run(plan, seed, data)
                    except subprocess.CalledProcessError:
                        sys.exit(f"{plan.task}-{plan.method}-{plan.name}-seed{seed} ended without a record.")


if __name__ == "__main__":
    main()

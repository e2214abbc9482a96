"""Makes the records behind the book's results on real data; run it again and it goes on where it stopped.

    PTV2_DATA=/folder/of/data/sets python book/measure.py [NAME ...]

`PTV2_DATA` holds one folder a data set (`conll04/train.parquet`, …). Without names every plan is run. A record that exists
is not made again; a run that was cut off is repeated whole. Each record lands in `book/_data/results/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "_data" / "results"


@dataclass(frozen=True)
class Plan:
    """Runs that differ in the seed only. `settings` are `--set` pairs; `name` goes into the record."""

    task: str
    method: str
    name: str
    settings: str
    seeds: tuple[int, ...] = (0, 1, 2)
    train_limit: int | None = None


# The first, third and last but one row of the prototype's table.
ANCHORS = [
    Plan("conll04", "pt2", "anchor", "prompt_length=128 learning_rate=5e-2 epochs=40 backbone_dropout=0.1"),
    Plan("conll04", "ft", "anchor", "learning_rate=1e-4 epochs=15 backbone_dropout=0.1"),
    Plan("conll04", "pt", "anchor", "prompt_length=64 learning_rate=2e-2 epochs=25 backbone_dropout=0.1"),
    Plan("conll04", "probe", "anchor", "learning_rate=1e-2 epochs=20"),
]

# What does dropout inside the frozen encoder buy? The rate is chosen on one seed's selection score first.
DROPOUT_RATES = [
    Plan(
        "conll04",
        "pt2",
        f"dropout{dropout}-epochs{epochs}-rate{rate}",
        f"prompt_length=128 learning_rate={rate} epochs={epochs} backbone_dropout={dropout}",
        seeds=(0,),
    )
    for dropout in (0.0, 0.1)
    for epochs in (20, 40)
    for rate in ("2e-2", "5e-2", "1e-1")
]

CLASSIFICATION = [Plan("rte", method, "epochs8", "epochs=8") for method in ("probe", "pt", "pt2", "ft")] + [
    Plan("sst2", method, "rows10000", "epochs=3", train_limit=10000) for method in ("probe", "pt", "pt2", "ft")
]

PLANS = {"anchors": ANCHORS, "classification": CLASSIFICATION, "dropout_rates": DROPOUT_RATES}


def run(plan: Plan, seed: int, data: Path) -> None:
    """Make one record, unless it is there."""
    target = RESULTS / f"{plan.task}-{plan.method}-{plan.name}-seed{seed}.json"
    if target.is_file():
        return
    print(f"{target.stem} …", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ptv2lib", "run", "--task", plan.task, "--method", plan.method]
        command += ["--dataset", str(data / plan.task), "--name", plan.name, "--seed", str(seed), "--out", folder]
        command += [part for setting in plan.settings.split() for part in ("--set", setting)]
        if plan.train_limit:
            command += ["--train-limit", str(plan.train_limit)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(folder) / "record.json", target)


def main() -> None:
    """Run the plans named on the command line, or all; one seed of each before the next seed."""
    if "PTV2_DATA" not in os.environ:
        sys.exit("Set PTV2_DATA to the folder that holds the data sets.")
    data = Path(os.environ["PTV2_DATA"])
    for name in sys.argv[1:] or PLANS:
        if name not in PLANS:
            sys.exit(f"There are no plans named {name!r}; known are {', '.join(PLANS)}.")
        for seed in sorted({seed for plan in PLANS[name] for seed in plan.seeds}):
            for plan in PLANS[name]:
                if seed in plan.seeds:
                    run(plan, seed, data)


if __name__ == "__main__":
    main()

"""The figures and tables that several chapters share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .records import summarize

HATCHES = {"probe": "", "pt": "//", "pt2": "xx", "ft": ".."}


def scores_table(runs: Mapping[str, Any], metric: str) -> str:
    """One line a method: validation score, test score, trainable parameters; the majority line last.

    Args:
        runs: method to what `train` gave.
        metric: the score to show.
    """
    lines = [f"{'method':8} {'validation':>10} {'test':>8} {'trainable':>12} {'seconds':>8}"]
    for method, run in runs.items():
        # With selection="paper" there may be no test left to score.
        scores = [run.metrics[split] and f"{run.metrics[split][metric]:.3f}" for split in ("validation", "test")]
        lines.append(
            f"{method:8} {scores[0] or '-':>10} {scores[1] or '-':>8} {run.trainable_parameters:>12,} {run.seconds:>8.1f}"
        )
    first = next(iter(runs.values()))
    lines.append(f"majority {'':>10} {first.majority[metric]:>8.3f}   (always {first.majority['answer']!r})")
    return "\n".join(lines)


def score_bars(
    results: Mapping[str, Mapping[str, float]], lines: Mapping[str, float], metric: str, line: str = "majority"
) -> None:
    """Bars of one score, a group for each task and a bar for each method, and each task's line to beat.

    Args:
        results: task to method to score.
        lines: task to the score of the line, the majority's for instance.
        metric: name of the score, for the axis.
        line: what the line is.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    methods = list(next(iter(results.values())))
    width = 0.8 / len(methods)
    top = max(*lines.values(), *(score for scores in results.values() for score in scores.values()))
    digits = "%.2f" if top > 0.2 else "%.3f"
    for place, task in enumerate(results):
        left = place - 0.4
        for number, method in enumerate(methods):
            bar = axes.bar(
                left + (number + 0.5) * width,
                results[task][method],
                width,
                color=f"C{number}",
                alpha=0.75,
                edgecolor="black",
                hatch=HATCHES.get(method, ""),
                label=method if place == 0 else None,
            )
            plain = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # else the dashed line strikes through it
            axes.bar_label(bar, fmt=digits, fontsize=8, bbox=plain)
        axes.hlines(
            lines[task], left, left + 0.8, colors="black", linestyles="dashed", label=line if place == 0 else None
        )
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel(metric)
    axes.set_ylim(0, min(1.08, 1.35 * top) or 1.08)
    axes.legend(ncols=len(methods) + 1, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=8)
    figure.tight_layout()
    plt.show()


def recorded_table(records: Iterable[Mapping[str, Any]], task: str, settings: Sequence[str]) -> str:
    """One line for each method and setting: mean and spread over the seeds, the rows' standard error, the majority line.

    Args:
        records: what `records.read_records` gave.
        task: the task's name.
        settings: names of runs, in the order to show; those without a record are said to be missing.
    """
    chosen = [record for record in records if record["task"] == task and record["name"] in settings]
    rows = sorted(summarize(chosen), key=lambda row: settings.index(row["name"]))
    lines = [("method", "setting", "test, spread", "row error", "majority", "seeds", "trainable")] if rows else []
    for row in rows:
        score = f"{row['mean']:.3f}" + ("" if row["deviation"] is None else f" ± {row['deviation']:.3f}")
        error = "-" if row["standard_error"] is None else f"{row['standard_error']:.3f}"
        lines.append(
            (row["method"], row["name"], score, error, f"{row['majority']:.3f}")
            + (row["seeds"], f"{row['trainable_parameters']:,}")
        )
    wide = max(12, *(len(name) for _, name, *_ in lines)) if lines else 0
    lines = [f"{{:8}} {{:{wide}}} {{:>15}} {{:>10}} {{:>9}} {{:>6}} {{:>12}}".format(*line) for line in lines]
    measured = {row["name"] for row in rows}
    return "\n".join(lines + [f"{setting}: not recorded here yet" for setting in settings if setting not in measured])

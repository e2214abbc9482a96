"""Numbers on a page come from records and from the paper's tables, never from the keyboard.

    {result}`conll04/pt2`                      mean ± standard deviation over the seeds, in percent, of the test score
    {result}`conll04/pt2/long:validation.f1`   of the runs named `long`, another split and metric
    {result}`conll04/pt2:seeds`                their number; also `trainable_parameters`, `seconds` (mean), `majority`
    {paper}`acl/table3_ner/BERT-large/CoNLL04/PT2`

    ```{results-table} conll04
    :methods: probe pt pt2 pt2/long ft
    :paper: acl/table3_ner/BERT-large/CoNLL04
    ```

    ```{measured} squad
    :title: squad, the development set alone
    ```

    ```{gaps} squad compared
    ```

A key that names nothing is an error, and an error fails the strict build.
"""

import hashlib
import math
import statistics
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from scipy.stats import t as student
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ptv2lib.errors import DataError
from ptv2lib.methods import METHODS
from ptv2lib.records import read_records, spread, summarize
from ptv2lib.tasks.registry import TASKS

RECORDS = "book/_data/results"
PAPER = "book/_data/paper.toml"
PAPER_COLUMN = {"ft": "FT", "pt": "PT", "pt2": "PT2", "mpt2": "MPT2"}
VERSIONS = {"acl": "as printed at ACL 2022", "arxiv1": "as printed in the first preprint"}
NONE = "–"
PAPERS_ORDER = [("pt", "probe"), ("ptv1", "pt"), ("pt2", "ptv1"), ("pt2", "pt"), ("ft", "pt2"), ("mpt2", "pt2")]
SEARCHES = ("search-", "trial-")  # runs that chose a setting: what they score on the test is nobody's result


def select(records: list[dict], key: str) -> list[dict]:
    """The runs of `task/method` or `task/method/name`, one a seed. Without a name: those that have none."""
    task, _, rest = key.partition("/")
    method, _, name = rest.partition("/")
    found = [r for r in records if (r["task"], r["method"], r["name"] or "") == (task, method, name)]
    if not found:
        known = sorted({"/".join(filter(None, (r["task"], r["method"], r["name"]))) for r in records})
        raise KeyError(f"no record of {key} (there: {', '.join(known) or 'none'})")
    if len({record["seed"] for record in found}) < len(found):
        raise KeyError(f"two records of {key} have the same seed: give one of them a name")
    return found


def scores(runs: list[dict], split: str, metric: str) -> list[float]:
    """One score a seed; without a metric the task's own, which is the first."""
    tables = [run["metrics"].get(split) or {} for run in runs]
    metric = metric or next(iter(tables[0]), "")
    if not all(metric in table for table in tables):
        known = ", ".join(tables[0]) or "none"
        raise KeyError(f"{runs[0]['task']}/{runs[0]['method']} has no {metric or 'score'} on {split} (there: {known})")
    return [table[metric] for table in tables]


def percent(values: list[float]) -> str:
    """`77.0 ± 0.9`: mean and sample standard deviation, which one value has not."""
    return points(statistics.mean(values), spread(values))


def points(mean: float, deviation: float | None = None) -> str:
    """A share in percent, with its deviation where there is one."""
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def result(records: list[dict], text: str) -> tuple[str, str]:
    """What `{result}` prints, and where it comes from."""
    key, _, field = text.partition(":")
    runs = select(records, key)
    if field == "seeds":
        shown = str(len(runs))
    elif field == "trainable_parameters":
        shown = f"{runs[0]['trainable_parameters']:,}"
    elif field == "seconds":
        shown = f"{statistics.mean(run['seconds'] for run in runs):,.0f}"
    elif field == "majority":
        shown = percent([majority(runs[0])])
    else:
        split, _, metric = field.partition(".")
        shown = percent(scores(runs, split or "test", metric))
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return shown, f"{runs[0]['backbone']}, {runs[0]['task']}, {runs[0]['method']}, seeds {seeds}"


def majority(run: dict, metric: str = "") -> float:
    """The score of the most frequent answer."""
    return run["majority"][metric or next(iter(run["majority"]))]


def paper(tables: dict, text: str) -> tuple[str, str]:
    """What `{paper}` prints (version/table/row/…/column, then EM or F1), and the version that prints it."""
    value, columns, seen = tables, tables["columns"], []
    for part in text.split("/"):
        seen.append(part)
        if isinstance(value, dict):
            columns = value.get("columns", columns)
            names = [name for name in value if name not in ("columns", "pair")]
        else:
            names = columns[: len(value)] if isinstance(value, list) else []
        if part not in names:
            raise KeyError(f"the paper's tables have no {'/'.join(seen)} (there: {', '.join(names) or 'one number'})")
        if isinstance(value, dict):
            value = value[part]
        else:
            value, columns = value[names.index(part)], tables["pair"]
    if isinstance(value, dict | list):
        raise KeyError(f"{text} is more than one number of the paper")
    return str(value), VERSIONS.get(seen[0], "as printed")


def paper_or_none(tables: dict, row: str, method: str) -> str:
    """The paper's number for a method, a dash for a method that the paper has not."""
    return paper(tables, f"{row}/{PAPER_COLUMN[method]}")[0] if method in PAPER_COLUMN else NONE


def table(records: list[dict], task: str, options: dict, tables: dict) -> list[list[str]]:
    """The cells of `{results-table}`, its head first."""
    known = {record["method"] for record in records if record["task"] == task and not record["name"]}
    chosen = options.get("methods", " ".join(filter(known.__contains__, METHODS))).split()
    groups = [select(records, f"{task}/{method}") for method in chosen]
    if not groups:
        raise KeyError(f"no record of {task}")
    row, split = options.get("paper"), options.get("split", "test")
    metric = options.get("metric") or next(iter(groups[0][0]["metrics"].get(split) or {}), "")
    cells = [["Method", f"{metric}, {split} (%)", "Seeds", "Trainable parameters"]]
    for runs in groups:
        method, name = runs[0]["method"], runs[0]["name"]
        label = f"{METHODS[method].title}, {name}" if name else METHODS[method].title
        trained = f"{runs[0]['trainable_parameters']:,}"
        cells.append([label, percent(scores(runs, split, metric)), str(len(runs)), trained])
    if metric in groups[0][0]["majority"]:
        cells.append(["the most frequent answer", percent([majority(groups[0][0], metric)]), NONE, NONE])
    if row:
        printed = [paper_or_none(tables, row, runs[0]["method"]) for runs in groups]
        printed = [f"Paper, {row.split('/')[2]} (%)", *printed, NONE]
        cells = [[*line, last] for line, last in zip(cells, printed, strict=False)]
    return cells


def on_real_data(records: list[dict], task: str, split: str) -> list[dict]:
    """What `summarize` says of a task's runs on real data, the methods of each name in their usual order."""
    found = [r for r in records if r["task"] == task and r["data"]["source"] != "miniature"]
    return sorted(summarize(found, split), key=lambda row: (row["name"], list(METHODS).index(row["method"])))


def measured(records: list[dict], task: str) -> list[list[str]]:
    """The cells of `{measured}`: test scores of all runs but a search's, of which those count that have several seeds."""
    head = ["Majority line", "Row error", "Seeds", "Run", "Rows: train / scored", "Precision"]
    cells = [
        [METHODS[row["method"]].title, points(row["mean"], row["deviation"]), points(row["majority"])]
        + [NONE if row["standard_error"] is None else points(row["standard_error"]), str(row["seeds"])]
        + [row["name"] or NONE, f"{row['rows']['train']:,} / {row['rows']['test']:,}", ", ".join(row["precision"])]
        for row in on_real_data(records, task, "test")
        if row["seeds"] > 1 or not row["name"].startswith(SEARCHES)
    ]
    return [["Method", f"{main_metric(records, task)}, test (%)", *head], *cells] if cells else []


def searched(records: list[dict], task: str) -> list[list[str]]:
    """The cells of `{measured}` with `:searches:`: what each setting scored on the rows that select, the best first."""
    rows = [row for row in on_real_data(records, task, "validation") if row["name"].startswith(SEARCHES)]
    cells = [
        [METHODS[row["method"]].title, row["name"].partition("-")[2], points(row["mean"], row["deviation"])]
        + [f"{row['rows']['train']:,}", str(row["seeds"])]
        for row in sorted(rows, key=lambda row: -row["mean"])
    ]
    score = f"{main_metric(records, task)}, validation (%)"
    return [["Method", "Setting", score, "Training rows", "Seeds"], *cells] if cells else []


def gap(one: dict, other: dict) -> tuple[float, float, float]:
    """By how much one row of `summarize` is above another, and the ends of the 95 % interval (Welch).

    Two things make it wide: the seeds, a few each, and where the rows have a standard error, the number of scored rows. The
    second is taken as independent although both methods are scored on the same rows, so the interval is wider than it need be.
    """
    seeds = [row["deviation"] ** 2 / row["seeds"] for row in (one, other)]
    both = sum(seeds) + sum((row["standard_error"] or 0) ** 2 for row in (one, other))
    freedom = sum(part**2 / (row["seeds"] - 1) for part, row in zip(seeds, (one, other), strict=True))
    factor = student.ppf(0.975, both**2 / freedom) if freedom else student.ppf(0.975, math.inf)
    between, half = one["mean"] - other["mean"], factor * math.sqrt(both)
    return between, between - half, between + half


def gaps(records: list[dict], task: str, names: list[str]) -> list[list[str]]:
    """The cells of `{gaps}`: which neighbours of the paper's order the runs of these names can tell apart.

    The error of the scored rows counts for accuracies only: records of an F1 do not all have one.
    """
    rows = {
        row["method"]: row for row in on_real_data(records, task, "test") if row["name"] in names and row["seeds"] > 1
    }
    if main_metric(records, task) != "accuracy":
        rows = {method: row | {"standard_error": None} for method, row in rows.items()}
    cells = []
    for better, worse in PAPERS_ORDER:
        if better in rows and worse in rows:
            between, low, high = (100 * value for value in gap(rows[better], rows[worse]))
            verdict = "holds" if low > 0 else "fails" if high < 0 else "cannot be told"
            pair = f"{METHODS[better].title} above {METHODS[worse].title}"
            cells.append([pair, f"{between:+.1f}", f"{low:+.1f} to {high:+.1f}", verdict])
    head = ["Order asked about", f"{main_metric(records, task)}, difference in points", "95 % interval", "Here it"]
    return [head, *cells] if cells else []


def main_metric(records: list[dict], task: str) -> str:
    """The name of the score that a task is judged by, which is the first of a record's majority line."""
    return next((next(iter(r["majority"])) for r in records if r["task"] == task), "")


def read_paper(root: Path) -> dict:
    """The paper's tables."""
    return tomllib.loads((root / PAPER).read_text(encoding="utf-8"))


class NumberRole(SphinxRole):
    """A role that prints one number with its origin, or an error."""

    def __init__(self, read, look_up):
        super().__init__()
        self.read, self.look_up = read, look_up

    def run(self):
        try:
            shown, origin = self.look_up(self.read(Path(self.env.srcdir)), self.text)
        except KeyError as error:
            message = self.inliner.reporter.error(error.args[0], line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.abbreviation(self.rawtext, shown, explanation=origin)], []


class ResultsTable(SphinxDirective):
    """One row a method: score, number of seeds, trainable parameters, and the paper's number if asked for."""

    required_arguments = 1
    option_spec = dict.fromkeys(("methods", "metric", "split", "paper"), directives.unchanged_required)

    def run(self):
        root = Path(self.env.srcdir)
        try:
            cells = table(read_records(root / RECORDS), self.arguments[0], self.options, read_paper(root))
        except (KeyError, DataError) as error:
            return [self.state.document.reporter.error(error.args[0], line=self.lineno)]
        return [drawn(cells, "results")]


class Measured(SphinxDirective):
    """The runs on real data of a task; `:searches:` for those that chose a setting, `:title:` where a name says too little."""

    required_arguments = 1
    option_spec = {"searches": directives.flag, "title": directives.unchanged_required}

    def run(self):
        task = self.arguments[0]
        if task not in TASKS:
            return [self.state.document.reporter.error(f"no task is called {task}", line=self.lineno)]
        title, show = self.options.get("title", task), searched if "searches" in self.options else measured
        cells = show(read_records(Path(self.env.srcdir) / RECORDS), task)
        return [drawn(cells, "measured", title) if cells else nodes.paragraph(text=f"{title}: no run recorded yet.")]


class Gaps(SphinxDirective):
    """Whether neighbours of the paper's order are in that order here: a task, then the names of the runs that are compared."""

    required_arguments, optional_arguments = 2, 8

    def run(self):
        task, *names = self.arguments
        if task not in TASKS:
            return [self.state.document.reporter.error(f"no task is called {task}", line=self.lineno)]
        cells = gaps(read_records(Path(self.env.srcdir) / RECORDS), task, names)
        title = f"{task}, {' and '.join(names)}"
        return [drawn(cells, "gaps", title) if cells else nodes.paragraph(text=f"{title}: not compared yet.")]


def drawn(cells: list[list[str]], kind: str, title: str = "") -> nodes.table:
    """A docutils table of these texts, the first row its head; `kind` is its class in the page."""

    def line(texts: list[str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))

    group = nodes.tgroup(cols=len(cells[0]))
    group += [nodes.colspec(colwidth=1) for _ in cells[0]]
    group += [nodes.thead("", line(cells[0])), nodes.tbody("", *map(line, cells[1:]))]
    above = [nodes.title(text=title)] if title else []
    return nodes.table("", *above, group, classes=[kind])


def note_sources(app, config):
    """Read every page anew when a record or a number of the paper has changed, come or gone."""
    root = Path(app.srcdir)
    sources = [*sorted((root / RECORDS).glob("*.json")), root / PAPER]
    text = "".join(f"{path.name} {path.read_text(encoding='utf-8')}" for path in sources)
    config.results_sha256 = hashlib.sha256(text.encode()).hexdigest()


def setup(app):
    app.add_config_value("results_sha256", "", "env")
    app.connect("config-inited", note_sources)
    app.add_role("result", NumberRole(lambda root: read_records(root / RECORDS), result))
    app.add_role("paper", NumberRole(read_paper, paper))
    app.add_directive("results-table", ResultsTable)
    app.add_directive("measured", Measured)
    app.add_directive("gaps", Gaps)
    return {"parallel_read_safe": True}

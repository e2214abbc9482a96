"""Make executed notebooks fit to be committed: `python book/_ext/notebook_outputs.py notebooks/*.ipynb`.

Removes what differs from run to run without meaning anything (time stamps, the interpreter's version, the places where a
stream was cut into pieces, the state of widgets that no output shows) and stores the hash of the code cells that made the
outputs. `make outputs` calls it right after running the notebooks; a test compares the hash, so that a cell edited since
then is noticed.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def code_cells(notebook) -> list:
    """The code cells that have a source."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def source_hash(notebook) -> str:
    """SHA-256 of the sources of the code cells, in order."""
    return hashlib.sha256(json.dumps([cell.source for cell in code_cells(notebook)]).encode()).hexdigest()


def shown_widgets(notebook, state: dict) -> set[str]:
    """The models that an output shows, and those that these refer to."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    waiting = [output.data[WIDGET_VIEW]["model_id"] for output in outputs if WIDGET_VIEW in output.get("data", {})]
    shown = set()
    while waiting:
        model = waiting.pop()
        if model in state and model not in shown:
            shown.add(model)
            waiting += re.findall(r"IPY_MODEL_(\w+)", json.dumps(state[model]))
            linked = (
                name for name, entry in state.items() if entry["model_name"] in ("LinkModel", "DirectionalLinkModel")
            )
            waiting += [name for name in linked if f"IPY_MODEL_{model}" in json.dumps(state[name])]
    return shown


def clean(notebook) -> None:
    """Remove the noise and store the hash."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata.get("language_info", {}).pop("version", None)
    notebook.metadata.pop("signature", None)
    widgets = notebook.metadata.get("widgets", {}).get(WIDGET_STATE)
    if widgets is not None:
        shown = shown_widgets(notebook, widgets["state"])
        widgets["state"] = {name: entry for name, entry in sorted(widgets["state"].items()) if name in shown}
        if not shown:
            del notebook.metadata["widgets"]
    notebook.metadata.setdefault("ptv2", {})["source_sha256"] = source_hash(notebook)


def main(paths: list[str]) -> None:
    """Clean the notebooks in place, each written whole or not at all."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        clean(notebook)
        nbformat.validate(notebook)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        scratch.replace(path)
        print(f"{path}: {len(code_cells(notebook))} code cells")


if __name__ == "__main__":
    main(sys.argv[1:])

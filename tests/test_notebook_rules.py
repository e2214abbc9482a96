"""What every notebook keeps to; CONTRIBUTING.md says why. Nothing here runs a notebook but the test of the exercises."""

import ast
import os
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path

import nbclient
import nbformat
import pytest
from notebook_outputs import clean, source_hash

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
MYST = {
    "a directive": r"^\s*(:{3,}|`{3,})\{",
    "a fence of colons": r"^:{3,}",
    "a role": r"\{[a-z][a-z0-9:_-]*\}`",
    "a label": r"^\([\w-]+\)=\s*$",
    "a comment": r"^%\s",
    "a substitution": r"\{\{.*\}\}",
    "attributes": r"[`)\]]\{[.#][\w-]+",
}
SOLUTION = re.compile(r"<details>.*?^```python\n(.*?)^```\s*$.*?</details>", re.DOTALL | re.MULTILINE)
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=list(NOTEBOOKS))


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def without_code(text: str) -> str:
    """Markdown without its fenced blocks and formulas, in which braces mean something else."""
    text = re.sub(r"^(```+)[^{\n]*\n.*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.DOTALL)


def functions(source: str) -> list[ast.AST]:
    """The functions and classes that a cell defines; a line for IPython counts as `pass`."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def body(function: ast.AST) -> str:
    """What a function does, without its name and its docstring."""
    inner = function.body[1:] if ast.get_docstring(function) else function.body
    return "\n".join(map(ast.dump, inner))


@each_notebook
def test_outputs_are_stored_clean(notebook):
    again = deepcopy(notebook)
    clean(again)
    assert again == notebook


@each_notebook
def test_no_warning_is_stored(notebook):
    warned = [output.text for cell in code_cells(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert warned == []


def test_cleaning_joins_a_line_that_was_printed_in_pieces():
    pieces = [("stdout", "a "), ("stdout", "b\n"), ("stderr", "c"), ("stdout", "d")]
    outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", outputs=outputs)])
    clean(notebook)
    assert [(one.name, one.text) for one in notebook.cells[0].outputs] == [
        ("stdout", "a b\n"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


@each_notebook
def test_executed_in_order_without_error(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []


@each_notebook
def test_outputs_are_as_new_as_the_cells(notebook):
    assert notebook.metadata.get("ptv2", {}).get("source_sha256") == source_hash(notebook), "run make outputs"


@each_notebook
def test_no_traces_of_the_run(notebook):
    assert [cell.source for cell in notebook.cells if "execution" in cell.metadata] == []
    assert "version" not in notebook.metadata.get("language_info", {})
    for state in notebook.metadata.get("widgets", {}).values():
        assert "state" in state


@each_notebook
def test_every_figure_has_an_alternative_text(notebook):
    for cell in code_cells(notebook):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if any(kind.startswith("image/") for kind in kinds):
            assert len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 20, cell.source
        html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in cell.outputs)
        assert all("alt=" in image for image in re.findall(r"<img[^>]*>", html)), cell.source
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source
            assert all("alt=" in image for image in re.findall(r"<img[^>]*>", cell.source))


@each_notebook
def test_code_fits_the_page(notebook):
    """About what a column of the site shows without scrolling."""
    assert [line for cell in code_cells(notebook)[1:] for line in cell.source.splitlines() if len(line) > 88] == []


@each_notebook
def test_no_slider_without_a_kernel_to_answer_it(notebook):
    assert [
        cell.source for cell in code_cells(notebook) if re.search(r"\binteract(ive)?(_manual)?\(", cell.source)
    ] == []


@each_notebook
def test_markdown_reads_everywhere(notebook):
    texts = [without_code(cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]
    found = [(what, text) for text in texts for what, rule in MYST.items() if re.search(rule, text, re.MULTILINE)]
    assert found == []


def test_set_up_is_the_same_everywhere():
    assert len({code_cells(notebook)[0].source for notebook in NOTEBOOKS.values()}) <= 1


def test_no_function_has_two_homes():
    defined = [
        node.name
        for notebook in NOTEBOOKS.values()
        for cell in code_cells(notebook)
        if "exercise" not in cell.metadata.get("tags", [])
        for node in functions(cell.source)
    ]
    assert [name for name, times in Counter(defined).items() if times > 1] == []


def test_no_function_of_the_library_is_written_again():
    library = {body(node) for path in (ROOT / "ptv2lib").rglob("*.py") for node in functions(path.read_text())}
    copies = [
        node.name
        for notebook in NOTEBOOKS.values()
        for cell in code_cells(notebook)
        if "exercise" not in cell.metadata.get("tags", [])  # a stub says nothing yet
        for node in functions(cell.source)
        if body(node) in library
    ]
    assert copies == []


def exercises(notebook) -> list[tuple[int, int, str]]:
    """For each exercise: the places of stub and check, and the source of the solution."""
    found, cells = [], notebook.cells
    for place, cell in enumerate(cells):
        if "exercise" in cell.metadata.get("tags", []):
            check = next(k for k in range(place + 1, len(cells)) if cells[k].cell_type == "code")
            assert "exercise-check" in cells[check].metadata.get("tags", []), f"no check follows:\n{cell.source}"
            answer = next((SOLUTION.search(c.source) for c in cells[check:] if SOLUTION.search(c.source)), None)
            assert answer, f"no solution follows:\n{cell.source}"
            found.append((place, check, answer[1]))
    return found


def test_a_solution_is_read_from_the_fence():
    text = "<details><summary>Solution</summary>\n\n```python\nx = 1\n```\n\n</details>"
    assert SOLUTION.search(text)[1] == "x = 1\n"


@each_notebook
def test_exercises_refuse_the_stub_and_accept_the_solution(notebook, tmp_path):
    """Run the notebook as it is, with each solution and a second check behind the first check, in a folder beside links."""
    answers = {check: solution for _, check, solution in exercises(notebook)}
    assert len(answers) == len(tagged(notebook, "exercise")) == len(tagged(notebook, "exercise-check"))
    if not answers:
        return
    cells, pairs = [], []
    for place, cell in enumerate(notebook.cells):
        cells.append(nbformat.from_dict({**cell, "outputs": []} if cell.cell_type == "code" else cell))
        if place in answers:
            cells.append(nbformat.v4.new_code_cell(answers[place]))
            cells.append(nbformat.v4.new_code_cell(cell.source))
            pairs.append((len(cells) - 3, len(cells) - 1))
    trial = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    for name in ("book", "ptv2lib"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    variables = {**os.environ, "PTV2_PROFILE": "smoke"}
    place = {"metadata": {"path": str(tmp_path / "notebooks")}}
    nbclient.NotebookClient(trial, timeout=300, resources=place).execute(env=variables)
    for stub, solution in pairs:
        assert printed(cells[stub]).startswith("Not yet"), printed(cells[stub])
        assert printed(cells[solution]).startswith("Right"), printed(cells[solution])


def printed(cell) -> str:
    """What a cell wrote to its standard output."""
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")

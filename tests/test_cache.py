"""The execution cache answers from the present state of the library, never from an older one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
COPIED = ["_config.yml", "constraints.txt", "ptv2lib", "book/_ext", "book/_data", "book/_static", "book/references.bib"]
SOURCE = "import time\nfrom ptv2lib.answer import answer\nprint(answer(), time.time_ns())"
pytestmark = pytest.mark.site


@pytest.fixture
def book(tmp_path) -> Path:
    """A copy of the book's machinery with one notebook, which prints a library function's answer and the time."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (tmp_path / "ptv2lib/answer.py").write_text('def answer():\n    return "before"\n')
    (tmp_path / "book/_toc.yml").write_text("format: jb-book\nroot: page\n")
    cells = [nbformat.v4.new_markdown_cell("# Page"), nbformat.v4.new_code_cell(SOURCE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.ipynb")
    return tmp_path


def build(book: Path, **environment: str) -> list[str]:
    """Build the book; the words that the notebook's cell printed."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ".", "--toc", "book/_toc.yml"]
    variables = {**os.environ, "EXECUTE": "cache", "PTV2_PROFILE": "smoke", "PYTHONPATH": str(book), **environment}
    run = subprocess.run(command, cwd=book, env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    page = BeautifulSoup((book / "_build/html/page.html").read_text(), "html.parser")
    shown = page.select_one(".cell_output")
    return shown.get_text().split() if shown else []


def test_a_change_of_library_or_profile_changes_the_page(book):
    first = build(book)
    assert first[0] == "before"
    os.utime(book / "page.ipynb")  # the page is read again, its notebook not run again
    assert build(book) == first
    (book / "ptv2lib/answer.py").write_text('def answer():\n    return "after"\n')
    assert build(book)[0] == "after"
    (book / "ptv2lib/answer.py").write_text('def answer():\n    return "before"\n')
    assert build(book, PTV2_PROFILE="cpu")[1] != first[1]
    assert build(book, EXECUTE="off") == []

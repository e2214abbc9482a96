"""What only the `gpu` profile does in a notebook runs: its settings, cuts and branches, on the encoder and the data of a test.

Whether it is right on a GPU, with BERT-large and the Hub's data, is not shown here.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
STAND_IN = '''
from ptv2lib.profiles import Profile

profile, load_task = Profile("gpu", "tiny", "hub", 32, 1), pt.load_task


def load_stand_in(name, source="miniature", **given):
    """The suite where the profile asks for the Hub."""
    return load_task(name, source="miniature" if source == "hub" else source, **given)


pt.load_task = load_stand_in
'''


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_branches_of_the_gpu_profile_run(path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, 4)
    (setup,) = (cell for cell in notebook.cells if "profile = pt.profile()" in cell.source)
    setup.source = setup.source.replace("profile = pt.profile()", STAND_IN)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(FOLDER)}}).execute()

"""The quickstart notebook runs from top to bottom on one core, says what it should, and is committed without output."""

from __future__ import annotations

import ast
import resource
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")

pytestmark = pytest.mark.timeout(900)  # on a machine that is busy with other work

PATH = Path(__file__).parent / "quickstart.ipynb"
LONGEST = 40  # seconds of one core, kernel and imports included


def text_of(cell):
    """Everything that a cell printed or showed, as plain text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(shown)


def _seconds():
    """What processes that this one started and saw end have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(PATH.parents[2]))
        notebook = nbformat.read(PATH, as_version=4)
        before = _seconds()
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook, folder, _seconds() - before


def test_it_is_committed_without_output():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_it_runs_reads_evaluates_and_plots_without_a_warning(executed):
    notebook, folder, seconds = executed
    run, read, evaluate, _ = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert "6 success" in text_of(run)
    assert all(name in text_of(read) for name in ("zero_shot", "coop", "advtp", "worst low"))
    clean, robust, suspect = ast.literal_eval(text_of(evaluate))
    assert 0 <= robust <= clean <= 1 and isinstance(suspect, tuple)
    assert (folder / "clean-against-worst.png").stat().st_size > 5000
    assert 1 < seconds < LONGEST
    outputs = [output for cell in executed[0].cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.get("name") == "stderr"] == []

"""The notebooks run from top to bottom, and are committed as executed."""

from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fedrec.data.prepare import prepare
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.raw import Frames, Root
from fedrec.data.readers.sources import source_named
from fedrec.data.synthetic.demo_films import DemoConfig, generate
from tests.support.source import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_executed(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(output.output_type in ("execute_result", "display_data") for cell in cells for output in cell.outputs)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of notebooks beside the benchmarks, in which `demo` is prepared already: a small one, embedded once."""

    def read_few_films(_: Root) -> Frames:
        interactions, items = generate(DemoConfig(films=120, users=100))
        return Frames(interactions, add_text(items).drop("plot"))

    folder = tmp_path / "notebooks"
    few = replace(source_named("demo"), read=read_few_films)
    prepare(few, folder / "var" / "prepared" / "demo", None, lambda done, total: None, lambda text: None)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return folder


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own libraries
def test_the_notebooks_run(folder: Path) -> None:
    """One after the other in one process, each with no name of the others: they import the same libraries."""
    from nbclient import NotebookClient

    cells = []
    for path in NOTEBOOKS:
        cells += [*nbformat.read(path, as_version=4).cells, new_code_cell("%reset -f")]
    notebook = new_notebook(cells=[cell for cell in cells if cell.cell_type == "code"])
    NotebookClient(notebook, timeout=240, startup_timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells)

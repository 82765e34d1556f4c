"""docs/tutorial.ipynb: it runs, and what it is saved with is what comes out."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = 500_000


@pytest.fixture(scope="module")
def saved():
    """Read the notebook as it is committed."""
    return nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)


def shapes(notebook):
    """What kinds of outputs each cell has."""
    return [
        [(out.output_type, out.get("name"), sorted(out.get("data", {}))) for out in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


FEWER = {
    "trials=12": "trials=6, epochs=4",
    'set="retrain.max_epochs=20"': 'set=["retrain.max_epochs=4", "data.limit=400"]',
}


@pytest.mark.parametrize(
    "changes", [FEWER, pytest.param({}, marks=pytest.mark.slow)], ids=["fewer trials", "whole"]
)
def test_it_runs_to_its_end_with_the_outputs_that_it_is_saved_with(tmp_path, saved, changes):
    """No cell fails or warns, and each puts out what a reader sees, apart from the numbers."""
    spec = importlib.util.spec_from_file_location(
        "tutorial", ROOT / "docs" / "website" / "tutorial.py"
    )
    tutorial = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tutorial)
    run = tutorial.executed(tmp_path, changes)
    if not changes:
        assert [cell.source for cell in run.cells] == [cell.source for cell in saved.cells]
    assert shapes(run) == shapes(saved), "run: python docs/website/tutorial.py"
    assert "identical" in run.cells[-2].outputs[0].text


def test_it_is_small_and_says_nothing_of_the_machine(saved):
    """Every code cell was executed, in order; no warning and no path of somebody's is kept."""
    cells = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "stderr" not in {output.get("name") for output in outputs}
    content = (ROOT / "docs" / "tutorial.ipynb").read_text()
    assert len(content) < LARGEST_BYTES
    assert not any(word in content for word in ("/home/", "/Users/", "/tmp/", "site-packages"))

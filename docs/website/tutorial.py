"""The tutorial, executed; as a program, this renews the outputs that it is saved with."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIAL = Path(__file__).resolve().parents[1] / "tutorial.ipynb"


def executed(folder: Path, changes: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """Run all cells with a folder as the current one; an error in a cell is raised.

    Times, and outputs that were emptied, are left out; streams are in one piece.

    Parameters
    ----------
    changes : mapping from str to str, optional
        Words of the cells, and what is run in their place.
    """
    notebook = nbformat.read(TUTORIAL, as_version=4)
    for words, others in (changes or {}).items():
        (cell,) = (cell for cell in notebook.cells if words in cell.source)
        cell.source = cell.source.replace(words, others)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _tidy(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _tidy(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    tidy: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "display_data" and not any(output.data.values()):
            continue
        if tidy and output.output_type == "stream" and output.name == tidy[-1].get("name"):
            tidy[-1].text += output.text
        else:
            tidy.append(output)
    return tidy


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), TUTORIAL)
    sys.stdout.write(f"{TUTORIAL}: {TUTORIAL.stat().st_size // 1000} kB\n")

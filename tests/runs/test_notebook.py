"""docs/notebooks/quickstart.ipynb runs, and is stored without traces of a machine."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.runs import ROOT

PATH = ROOT / "docs" / "notebooks" / "quickstart.ipynb"


def outputs(notebook: Any) -> tuple[str, int, set[str]]:
    """The printed text, the number of pictures, and the names of the streams."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    streams = [output for output in found if output.output_type == "stream"]
    text = "".join(output.text for output in streams if output.name == "stdout")
    pictures = sum("image/png" in output.get("data", {}) for output in found)
    return text, pictures, {output.name for output in streams}


def test_the_stored_outputs() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    text, pictures, streams = outputs(notebook)
    assert pictures == 3 and streams == {"stdout"}
    assert "accuracy" in text and "corruptions raise the accuracy" in text
    assert not any(word in PATH.read_text() for word in ("/tmp", "/work", "/home", "/root"))
    assert all(cell.get("execution_count") is None for cell in notebook.cells)


@pytest.mark.slow
def test_it_runs(tmp_path: Path, data_root: Path) -> None:
    data_root.mkdir(exist_ok=True)
    (tmp_path / "data").symlink_to(data_root)
    notebook = nbformat.read(PATH, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    text, pictures, _ = outputs(notebook)
    assert pictures == 3
    assert text.count("\n") == outputs(nbformat.read(PATH, as_version=4))[0].count("\n")
    assert (tmp_path / "output" / "notebook" / "results.json").is_file()

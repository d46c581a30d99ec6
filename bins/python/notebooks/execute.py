"""Runs a notebook to its end, in an empty folder: `python execute.py NOTEBOOK [OUTPUT]`. A cell that fails ends it with its error.
With OUTPUT, the notebook with what its cells gave is written there."""

import sys
import tempfile

import nbformat
from nbclient import NotebookClient


def main(path: str, output: str | None = None) -> None:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}})
        client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        for told in cell.outputs:
            text = told.get("text") or told.get("data", {}).get("text/plain", "")
            print("".join(text).rstrip())
    print(f"{path}: {len(cells)} cells")
    if output:
        nbformat.write(notebook, output)


if __name__ == "__main__":
    main(*sys.argv[1:])

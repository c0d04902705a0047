"""Copies of the notebooks without solutions and without outputs, for a class: notebooks/student.

    python notebooks/student.py

A cell tagged `solution` becomes an empty one to write in; links and data are those of the folder above.
"""

import re
import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parent


def main(folder=FOLDER):
    """The exit status; writes a copy of every notebook to <folder>/student."""
    out = folder / "student"
    out.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.ipynb")):
        nbformat.write(unsolved(nbformat.read(path, as_version=4)), out / path.name)
    sys.stderr.write(f"{folder.name}/{out.name}: {len(list(out.glob('*.ipynb')))} notebooks without solutions\n")
    return 0


def unsolved(notebook):
    """The notebook (in place) without outputs, its solution cells empty, its data one folder further up."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = re.sub(r"""(["'])\.\./data/""", r"\1../../data/", cell.source)
        if "solution" in cell.metadata.get("tags", []):
            cell.source = "# your solution"
    notebook.metadata.pop("widgets", None)
    return notebook


if __name__ == "__main__":
    sys.exit(main())

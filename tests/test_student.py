"""Does a student's copy hold no solution, and find its data?"""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def student():
    """The script notebooks/student.py as a module."""
    spec = importlib.util.spec_from_file_location("student", FOLDER / "student.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_students_copy_holds_no_solution(student, tmp_path):
    """Oracle: the solutions' own lines, none of which is in the copy; the other cells are as they were but for `data`."""
    path = NOTEBOOKS[1]
    original = nbformat.read(path, as_version=4)
    nbformat.write(original, tmp_path / path.name)
    assert student.main(tmp_path) == 0
    copy = nbformat.read(tmp_path / "student" / path.name, as_version=4)
    for cell, kept in zip(original.cells, copy.cells, strict=True):
        if "solution" in cell.metadata.get("tags", []):
            assert kept.source == "# your solution"
        else:
            assert kept.source == cell.source.replace("../data/", "../../data/")
        assert not kept.get("outputs")


def test_a_students_copy_finds_the_data(student):
    """Oracle: every path to data in a copy leads to a file that is there, seen from notebooks/student."""
    for path in NOTEBOOKS:
        copy = student.unsolved(nbformat.read(path, as_version=4))
        for name in re.findall(r"\.\./[\w./-]+\.(?:pt|csv|json)\b", "\n".join(c.source for c in copy.cells)):
            assert (FOLDER / "student" / name).resolve().is_file(), name

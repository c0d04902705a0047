"""Are the exercises open in a student's copy, and solved in the notebook?

nbval runs every solved notebook; here each check cell is held against its exercise with nothing filled in, and against
what it printed when the notebook was executed with its solutions.
"""

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


def exercises(notebook):
    """(the cell to fill in, the solution, the check) of each exercise."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    at = [i for i, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    return [cells[i - 1 : i + 2] for i in at]


def all_exercises():
    """Every exercise of every notebook, named."""
    for path in NOTEBOOKS:
        for number, cells in enumerate(exercises(nbformat.read(path, as_version=4)), start=1):
            yield pytest.param(cells, id=f"{path.stem}-{number}")


@pytest.mark.parametrize("exercise", list(all_exercises()))
def test_a_check_fails_on_an_open_exercise_and_passed_on_the_solved_one(exercise):
    """Oracle: run right after the cell to fill in, the check says that its exercise is open; after its solution it printed
    that the exercise is solved."""
    blank, _, check = exercise
    names = {}
    exec(blank.source, names)
    with pytest.raises(AssertionError, match="is open"):
        exec(check.source, names)
    assert re.search(r"exercise \d is solved", "".join(output.get("text", "") for output in check.outputs))


def test_every_notebook_has_exercises():
    """Oracle: an empty list would pass the test above."""
    assert len(list(all_exercises())) >= 2 * len(NOTEBOOKS) > 0


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

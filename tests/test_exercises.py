"""Are the exercises open before their solutions, and solved after them?

Each check cell is executed twice, behind the cell to fill in and behind the solution. Of the notebook before it only
those cells run that the exercises' names lead back to, and trainings among them make four steps.
"""

import ast
import asyncio
import inspect
import re
import symtable
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TRAINING = ("00_start_here", "06_segmentation", "09_deploy")  # whose exercises need a trained network


def code_cells(path):
    """The sources of a notebook's code cells, its training shortened, and which of them are solutions."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    sources = [cell.source for cell in cells]
    if path.stem in TRAINING:
        sources = [re.sub(r"^STEPS = \d+", "STEPS = 4", source, flags=re.MULTILINE) for source in sources]
        assert any("STEPS = 4" in source for source in sources)
    return sources, [i for i, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]


def names(source):
    """The names that a cell gives a value, and those that it reads, inside functions and comprehensions as well."""
    table = symtable.symtable(source, "cell", "exec")
    given = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    given |= {child.get_name() for child in table.get_children() if child.get_type() in ("function", "class")}
    read = {one.get_name() for one in table.get_symbols() if one.is_referenced()}
    inner = list(table.get_children())
    for child in inner:  # grows while it is walked
        inner += child.get_children()
        read |= {one.get_name() for one in child.get_symbols() if one.is_global()}
    return given, read


def leading_to(sources, wanted):
    """Those of the cells, in their order, that give `wanted` names their values, and what those need in turn."""
    wanted, chosen = set(wanted), []
    for source in reversed(sources):
        given, read = names(source)
        if given & wanted:
            chosen.insert(0, source)
            wanted |= read
    return chosen


def run(source, space):
    """Execute a cell in a namespace, as a notebook does: `await` may stand outside of functions."""
    result = eval(compile(source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), space)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_check_fails_on_the_open_exercise_and_passes_on_the_solved_one(path, monkeypatch, capsys):
    """Oracle: behind the cell to fill in the check says that its exercise is open; behind the solution that it is solved."""
    monkeypatch.chdir(FOLDER)
    sources, solutions = code_cells(path)
    assert len(solutions) >= 2
    exercises = [sources[i - 1 : i + 2] for i in solutions]
    read = set().union(*(names("\n".join(one))[1] for one in exercises))
    space = {"__name__": "notebook"}
    for source in leading_to(sources[: solutions[0] - 1], read):
        run(source, space)
    for number, (blank, solution, check) in enumerate(exercises, start=1):
        run(blank, space)
        with pytest.raises(AssertionError, match=f"exercise {number} is open"):
            run(check, space)
        capsys.readouterr()
        run(solution, space)
        run(check, space)
        assert f"exercise {number} is solved" in capsys.readouterr().out


def test_cells_that_lead_to_a_name():
    """Oracle: by hand. `c` needs `b` and the function, which reads `a`; the loop variable of a comprehension is no need."""
    cells = ["a = 1", "x = 5", "def double(n):\n    return n * a", "b = 3", "y = [x for x in (1, 2)]", "c = double(b)"]
    assert leading_to(cells, {"c"}) == [cells[i] for i in (0, 2, 3, 5)]
    assert leading_to(cells, {"y"}) == [cells[4]]
    assert leading_to(["w = await work()", "import math"], {"w"}) == ["w = await work()"]

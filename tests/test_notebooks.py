"""Do the notebooks keep the house rules, as they are committed, without a kernel?

nbval runs the cells and compares outputs, but passes on a notebook that was stripped or never executed, and says
nothing about size, structure or prose. Each rule here is a function that returns complaints; every notebook must raise
none, and the notebook at the end of this file, which breaks them all, must raise one for each.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"
RULES = []


def rule(function):
    """Adds a function (notebook, path) -> complaints to the rules."""
    RULES.append(function)
    return function


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tags(cell):
    return cell.metadata.get("tags", [])


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@rule
def executed_in_order(notebook, path):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}: run `make notebooks`"]


@rule
def no_error(notebook, path):
    return [f"a cell ended in {o.ename}" for o in outputs(notebook) if o.output_type == "error"]


@rule
def no_warning(notebook, path):
    found = [o.text[:80] for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr"]
    return [f"stderr: {text}" for text in found if "Warning" in text]


@rule
def at_most_500_kilobytes(notebook, path):
    size = len(nbformat.writes(notebook).encode()) / 1024
    return [] if size <= 500 else [f"{size:.0f} KB"]


@rule
def header(notebook, path):
    first = notebook.cells[0].source if notebook.cells[0].cell_type == "markdown" else ""
    missing = [word for word in ("**You will learn**", "**Time**", "**Needs**") if word not in first]
    titles = re.findall(r"^# .+", prose(notebook), re.MULTILINE)
    wrong = [f"{len(titles)} titles"] if len(titles) != 1 or not first.startswith("# ") else []
    return [f"the header lacks {word}" for word in missing] + wrong


@rule
def closing_sections(notebook, path):
    found = re.findall(r"^## (Summary|What this does not show|Exercises)", prose(notebook), re.MULTILINE)
    wanted = ["Summary", "What this does not show", "Exercises"]
    return [] if found == wanted else [f"it ends with {found}, not {wanted}"]


@rule
def cell_count(notebook, path):
    count = len(code_cells(notebook))
    return [] if 15 <= count <= 35 else [f"{count} code cells, 15 to 35 are allowed"]


@rule
def short_cells(notebook, path):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    return [f"a cell of {length} lines" for length in lengths if length > 25]


@rule
def lines_that_fit_a_page(notebook, path):
    lines = [line for cell in code_cells(notebook) for line in cell.source.splitlines()]
    return [f"a line of {len(line)} characters: {line[:40]}" for line in lines if len(line) > 120]


@rule
def short_functions(notebook, path):
    trees = [ast.parse(re.sub(r"^[%!].*", "", c.source, flags=re.MULTILINE)) for c in code_cells(notebook)]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = [f for f in functions if f.end_lineno - f.lineno + 1 > 12]
    return [f"function {f.name} belongs into the library: more than 12 lines" for f in long]


@rule
def one_parameters_cell(notebook, path):
    count = sum("parameters" in tags(cell) for cell in code_cells(notebook))
    return [] if count == 1 else [f"{count} cells tagged 'parameters'"]


@rule
def solutions(notebook, path):
    count = sum("solution" in tags(cell) for cell in code_cells(notebook))
    return [] if count else ["no cell tagged 'solution'"]


@rule
def nothing_skipped(notebook, path):
    return [f"nbval-skip on {cell.source[:40]!r}" for cell in code_cells(notebook) if "nbval-skip" in tags(cell)]


@rule
def ignored_output_is_asserted(notebook, path):
    cells = code_cells(notebook)
    pairs = zip(cells, [*cells[1:], None], strict=True)
    bare = [a for a, b in pairs if "nbval-ignore-output" in tags(a) and not asserts(a) and not (b and asserts(b))]
    return [f"no assert follows the ignored output of {cell.source[:40]!r}" for cell in bare]


def asserts(cell):
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source)))


@rule
def widgets_show_a_picture_without_a_kernel(notebook, path):
    views = [o.data for o in outputs(notebook) if VIEW in o.get("data", {})]
    return ["a widget has no image/png beside its view" for data in views if "image/png" not in data]


@rule
def no_output_areas(notebook, path):
    source = "\n".join(cell.source for cell in code_cells(notebook))
    return [f"{word} fails strict nbval" for word in ("interact(", "interactive_output(", "Output()") if word in source]


@rule
def pictures(notebook, path):
    count = sum("image/png" in o.get("data", {}) for o in outputs(notebook))
    return [] if count else ["not one picture"]


@rule
def plain_words(notebook, path):
    words = re.findall(r"\b(simply|just|obviously|trivial(?:ly)?)\b", prose(notebook), re.IGNORECASE)
    return [f"the word '{word}'" for word in words]


@rule
def no_machine_paths(notebook, path):
    found = re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/[\w./-]*", nbformat.writes(notebook))
    return [f"the path {name}" for name in found]


@rule
def links_lead_somewhere(notebook, path):
    targets = re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", prose(notebook))
    return [f"a dead link to {target}" for target in targets if not (path.parent / target).exists()]


@rule
def links_to_another_notebook(notebook, path):
    others = [name for name in re.findall(r"\]\(([^)#]+\.ipynb)", prose(notebook)) if name != path.name]
    return [] if others else ["no link to another notebook"]


@rule
def settled(notebook, path):
    timed = [cell for cell in notebook.cells if "execution" in cell.metadata]
    versions = notebook.metadata.get("language_info", {}).get("version")
    return ["execution times are stored"] * bool(timed) + [f"Python {versions} is stored"] * bool(versions)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_house_rules(path):
    """Oracle: the rules' text in the house style; each rule is shown to bite below."""
    notebook = nbformat.read(path, as_version=4)
    complaints = {check.__name__: found for check in RULES if (found := check(notebook, path))}
    assert not complaints


def test_there_are_notebooks():
    """Oracle: an empty folder would pass every rule."""
    assert {"00_start_here", "01_what_is_an_oscillation"} <= {path.stem for path in NOTEBOOKS}


def broken():
    """A notebook that breaks every rule."""
    long = "\n".join(["def much():", *(f"    x{i} = {i}" for i in range(30))])
    error = new_output("error", ename="ValueError", evalue="", traceback=[])
    warning = new_output("stream", name="stderr", text="/tmp/x.py: UserWarning: beware")
    view = new_output("display_data", data={VIEW: {"model_id": "1"}, "text/plain": "x" * 600_000})
    cells = [
        new_markdown_cell("## Summary\nIt is simply [gone](missing.md)."),
        new_code_cell(
            "interact(f)" + " " * 120,
            metadata={"tags": ["nbval-skip", "nbval-ignore-output"]},
            outputs=[error, warning],
        ),
        new_code_cell(long, metadata={"execution": {"at": "noon"}}, outputs=[view]),
    ]
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.11.0"}})


def test_every_rule_bites(tmp_path):
    """Oracle: a notebook made to break each of the rules."""
    assert not [check.__name__ for check in RULES if not check(broken(), tmp_path / "broken.ipynb")]

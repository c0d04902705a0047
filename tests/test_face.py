"""The public face: few names, each typed and documented, and nothing else in notebooks, examples and README."""

import ast
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

import oscillab
from oscillab import plot, study, tables, toy

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"oscillab": oscillab, **{f"oscillab.{m.__name__.split('.')[1]}": m for m in (plot, study, tables, toy)}}
PACKAGES = ("plot", "show", "study", "tables", "toy")  # reached as `oscillab.plot`; no names of their own
PUBLIC = {f"{name}.{one}" for name, module in MODULES.items() for one in module.__all__} - {
    f"oscillab.{name}" for name in PACKAGES
}
USERS = [ROOT / "README.md", *sorted(ROOT.glob("examples/*.py")), *sorted(ROOT.glob("notebooks/*.ipynb"))]


def resolved(dotted):
    """Return the object of a dotted name."""
    module, _, name = dotted.rpartition(".")
    return getattr(MODULES[module], name)


def test_there_are_at_most_sixty_names():
    """Oracle: the issue's limit."""
    assert len(PUBLIC) <= 60
    assert {name for name in dir(oscillab) if not name.startswith("_")} == set(oscillab.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_typed_and_documented(name):
    """Oracle: its docstring; an annotation of every parameter, and of what comes back from a function."""
    found = resolved(name)
    assert inspect.getdoc(found) and (inspect.isclass(found) or callable(found))
    signature = inspect.signature(found)
    bare = [one.name for one in signature.parameters.values() if one.annotation is inspect.Parameter.empty]
    assert not bare, f"no type of {', '.join(bare)}"
    assert inspect.isclass(found) or signature.return_annotation is not inspect.Signature.empty


def test_show_is_plot_and_no_package_is_callable():
    """Oracle: the former name of the room, which other people's notebooks have; a module is no function."""
    assert oscillab.show is oscillab.plot and callable(oscillab.plot.live)
    packages = [one.name for one in pkgutil.walk_packages(oscillab.__path__, "oscillab.") if one.ispkg]
    assert len(packages) > 8 and not [name for name in packages if callable(import_module(name))]


@pytest.mark.parametrize(
    ("module", "given", "wanted"),
    [("oscillab", "quantise", "quantize"), ("oscillab.plot", "drew", "draw"), ("oscillab.study", "drwa", "draw")],
)
def test_an_unknown_name_suggests_the_nearest(module, given, wanted):
    """Oracle: the sentence that a user who mistypes a name reads."""
    with pytest.raises(AttributeError, match=f"'{module}' has no attribute '{given}'; did you mean '{wanted}'"):
        getattr(MODULES[module], given)


@pytest.mark.parametrize(("draw", "name"), [(plot.draw, "layer map"), (study.draw, "layer errors")])
def test_an_unknown_figure_suggests_the_nearest(draw, name):
    """Oracle: the sentence; every figure stands in the docstring's table."""
    with pytest.raises(ValueError, match=f"there is no figure '{name}!'; did you mean '{name}'"):
        draw({}, f"{name}!")
    names = import_module(draw.__module__).FIGURES
    rows = re.findall(r"^\| ([\w ,]+) \|.*\|.*\|$", inspect.getdoc(draw), re.M)[1:]
    assert sorted(names) == sorted(name for row in rows for name in row.split(", "))


def code_of(path):
    """Return the Python of a file: a script's, a notebook's code cells', the Markdown's python blocks'."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = [cell.source for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
        text = "\n".join(re.sub(r"^[%!].*", "", cell, flags=re.M) for cell in cells)
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    return compile(text, str(path), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def names_used(tree):
    """Return the dotted names of oscillab that a program imports or reaches through an attribute."""
    known, used = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {(one.asname or one.name.split(".")[0]): one.asname and one.name or one.name.split(".")[0]
                      for one in node.names if one.name.split(".")[0] == "oscillab"}  # fmt: skip
            used |= {one.name for one in node.names if one.name.startswith("oscillab.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "oscillab":
            known |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
            used |= {f"{node.module}.{one.name}" for one in node.names}
    for node in ast.walk(tree):
        words = dotted(node).split(".")
        if words[0] in known and len(words) > 1:
            used.add(".".join([known[words[0]], *words[1:]]))
    return used


def dotted(node):
    """Return `a.b.c` of a chain of attributes, an empty string for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{before}.{node.attr}" if isinstance(node, ast.Attribute) and (before := dotted(node.value)) else ""


@pytest.mark.parametrize("path", USERS, ids=lambda path: path.stem)
def test_lessons_use_public_names_alone(path):
    """Oracle: the lists; what stands behind a public object (`Recording.open`) is that object's."""
    modules = {*MODULES, "oscillab.show"}
    used = {name.replace("oscillab.show", "oscillab.plot") for name in names_used(code_of(path))} - modules
    own = [name for name in used if not any(name == one or name.startswith(f"{one}.") for one in PUBLIC)]
    assert used and not own, f"not public: {sorted(own)}"


def test_names_used_are_found():
    """Oracle: by hand, one of each way to reach a name."""
    program = """
import oscillab as o
from oscillab import tables
from oscillab.quant import x as y
o.plot.live(1).fit, tables.layers(y.z)"""
    wanted = {"tables", "quant.x", "plot", "plot.live", "tables.layers", "quant.x.z"}
    assert names_used(ast.parse(program)) == {f"oscillab.{name}" for name in wanted}

"""The house has three storeys, and no room imports one above it."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "oscillab"
STOREYS = {  # from the ground up; a room may import the rooms before it and nothing else
    "core": ("io", "provenance", "methods", "quant", "recording", "toy", "plot"),
    "detector": ("yolo", "data", "export", "train"),
    "study": ("study", "cli"),
}
ROOMS = [room for rooms in STOREYS.values() for room in rooms]
FACE = ("__init__", "__main__", "extras", "tables")  # the package itself: public names, the command
WITHOUT_TORCH = ("io", "methods", "plot")


def room_of(path):
    """Return the room of a file: its folder, or its own name at the top of the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Return the dotted names of all modules and names that a file imports, inside functions too."""
    found, package = set(), ["oscillab", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = (start + (node.module or "")).rstrip(".")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(room):
    """Return the other rooms that the files of `room` import."""
    files = [path for path in PACKAGE.rglob("*.py") if room_of(path) == room]
    names = [name.split(".") for path in files for name in imports_of(path)]
    return {name[1] for name in names if name[0] == "oscillab" and len(name) > 1 and name[1] in ROOMS} - {room}


def test_every_file_has_a_room():
    """Oracle: the list above; a file at the top of the package is a room or the package itself."""
    assert {room_of(path) for path in PACKAGE.rglob("*.py")} <= {*ROOMS, *FACE}


def test_no_room_imports_one_above_it():
    """Oracle: the order of the list."""
    wrong = [
        (room, other) for room in ROOMS for other in rooms_imported(room) if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not wrong, f"(room, what it imports from above): {wrong}"


def test_figures_need_no_torch():
    """Oracle: the text of the files; a recording is plain arrays, and what is drawn from it opens without torch."""
    files = [path for path in PACKAGE.rglob("*.py") if room_of(path) in WITHOUT_TORCH]
    assert not [(path.name, name) for path in files for name in imports_of(path) if name.split(".")[0] == "torch"]


def test_the_readme_says_the_same():
    """Oracle: the imports; README's table has a row `| storey | room | what | imports |` for each room in this order."""
    rows = re.findall(
        r"^\| (\w+) \| `(\w+)[/.py]*` \| .* \| (.*) \|$", (PACKAGE.parent / "README.md").read_text(), re.M
    )
    assert [row[1] for row in rows] == ROOMS
    assert [(storey, room) for storey, room, _ in rows] == [(s, room) for s, rooms in STOREYS.items() for room in rooms]
    for _, room, imports in rows:
        assert set(re.findall(r"\w+", imports.replace("nothing", ""))) == rooms_imported(room), room

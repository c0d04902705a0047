"""How large is the house? `python -m benchmarks.size`: files, lines, longest file and function of each room.

Lines are counted as `wc -l` counts them; Python and C; a function's lines run from `def` to its last line.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ("io", "methods", "extras", "quant", "recording", "toy", "plot")


def functions(path):
    """Return (lines, file:name) of every function of a Python file."""
    tree = ast.parse(path.read_text()) if path.suffix == ".py" else ast.Module([], [])
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}") for node in found]


def measured(paths):
    """Return (Python files, lines, longest file, longest function) of some files."""
    lines = [(len(path.read_text().splitlines()), str(path.relative_to(ROOT))) for path in paths]
    longest = max((each for path in paths for each in functions(path)), default=(0, ""))
    return sum(path.suffix == ".py" for path in paths), sum(n for n, _ in lines), max(lines, default=(0, "")), longest


def main():
    """Print a line for each room, the core, the whole package and the tests."""
    sources = sorted(path for path in (ROOT / "oscillab").rglob("*") if path.suffix in (".py", ".pyi", ".c"))
    rooms = {}
    for path in sources:
        rooms.setdefault(path.relative_to(ROOT / "oscillab").parts[0].removesuffix(".py"), []).append(path)
    rooms["CORE"] = [path for room in CORE for path in rooms.get(room, [])]
    rooms["OSCILLAB"] = sources
    rooms["TESTS"] = sorted((ROOT / "tests").rglob("*.py"))
    print(f"{'':<12}{'files':>6}{'lines':>7}  longest file, longest function")
    for room, paths in rooms.items():
        files, lines, (length, name), (span, function) = measured(paths)
        print(f"{room:<12}{files:>6}{lines:>7}  {length} {name}, {span} {function}")


if __name__ == "__main__":
    main()

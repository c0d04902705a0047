"""Files that mean harm, through every command that opens one.

Oracle: exit status 2, one line on stderr, nothing created, no module imported, and that the test ends; where Python's own
pickle is shown to do the harm, the file is proven to be able to.
"""

import importlib
import pickle
import sys
import zipfile

import pytest
import torch

import oscillab
from oscillab.__main__ import main
from oscillab.provenance import SHIPPED

KINDS = ("creates", "imports", "nests", "truncated")
DOORS = {
    "inspect": ["inspect", "{file}"],
    "evaluate": ["evaluate", "--weights", "{file}"],
    "qat": ["qat", "--weights", "{file}", "--out", "{folder}/out"],
    "correct": ["correct", "--weights", "{file}", "--out", "{folder}/out.pt"],
    "pretrain": ["pretrain", "--start", "{file}", "--out", "{folder}/out.pt", "--count", "8"],
    "resume": ["pretrain", "--resume", "--out", "{folder}/evil.pt", "--count", "8"],
}


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A function(kind) that writes a file of that kind in a folder of its own and gives its path."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "foreign_module_of_the_test.py").write_text("thing = 1\n")
    importlib.invalidate_caches()
    path = tmp_path / "files" / "evil.last"  # the name under which `pretrain --resume` looks for it
    path.parent.mkdir()

    def write(kind):
        if kind == "creates":
            torch.save({"epoch": -1, "model": Calls(open, str(tmp_path / "files" / "made"), "w")}, path)
        elif kind == "imports":
            torch.save({"ema": Calls(importlib.import_module, "foreign_module_of_the_test")}, path)
        elif kind == "nests":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("evil/data.pkl", b"]" * 10_000 + b"a" * 9_999 + b".")
        else:
            whole = SHIPPED.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        return path

    return write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", DOORS)
def test_no_command_does_harm(door, kind, evil, tmp_path, capfd):
    """Oracle: see above; the line names the file."""
    path = evil(kind)
    words = [word.format(file=path, folder=path.parent) for word in DOORS[door]]
    assert main([*words, "--no-progress"] if door != "inspect" else words) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("anchors: kept")]
    assert len(errors) == 1 and errors[0].startswith(f"error: {path}") and len(errors[0]) < 500
    assert list(path.parent.iterdir()) == [path]
    assert "foreign_module_of_the_test" not in sys.modules


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_refuses_too(kind, evil):
    """Oracle: ValueError in one line that names the file, from the function that a program calls."""
    path = evil(kind)
    with pytest.raises(ValueError, match="evil.last") as error:
        oscillab.load(path)
    assert "\n" not in str(error.value)
    assert list(path.parent.iterdir()) == [path]


def test_the_harm_is_real(evil):
    """Oracle: Python's own pickle creates the file and imports the module; it cannot be that the files above are tame."""
    for kind in ("creates", "imports"):
        path = evil(kind)
        with zipfile.ZipFile(path) as archive:
            program = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        found = pickle.loads(program)
        if kind == "creates":
            found["model"].close()
    assert (path.parent / "made").is_file()
    assert sys.modules.pop("foreign_module_of_the_test").thing == 1

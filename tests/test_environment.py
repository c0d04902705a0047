"""The conda file and the pins say what pyproject says, and importing oscillab stays light."""

import re
import subprocess
import sys
import tomllib

import pytest


def requirement_names(root):
    """Return the packages that any part of the project asks for."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    return {re.match(r"[A-Za-z0-9_.-]+", line).group().lower().replace("_", "-") for line in wanted} - {"oscillab"}


def test_environment_installs_the_project_under_its_pins(root):
    """Oracle: pyproject.toml. conda may give Python and pip alone; the pip section is the project with its constraints."""
    text = (root / "environment.yml").read_text()
    items = [line.strip()[2:].strip() for line in text.splitlines() if line.strip().startswith("- ")]
    asked = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert [i for i in items if not i.startswith("--")] == [
        "conda-forge",
        "nodefaults",
        f"python={asked}",
        "pip",
        "pip:",
    ]
    assert [i for i in items if i.startswith("--")] == ["--constraint constraints.txt", "--editable .[dev]"]


def test_every_dependency_is_pinned_once(root):
    """Oracle: pyproject.toml's dependencies, each of which has one exact version in constraints.txt."""
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line) for line in lines)
    assert len(set(pinned)) == len(pinned)
    assert requirement_names(root) <= set(pinned)
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize(
    "statement",
    ["import oscillab", "import oscillab; oscillab.Recording", "import oscillab.tables; oscillab.plot.draw"],
)
def test_light_imports_need_no_torch(statement):
    """Oracle: a Python in which importing torch fails still runs the statement."""
    blocked = f"import sys; sys.modules['torch'] = None; {statement}"
    assert subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False).stderr == ""


def test_no_public_name_loads_torchs_compiler():
    """Oracle: the modules that are loaded; the compiler takes as long to load as torch itself."""
    loads = "import sys; from oscillab import *; print('torch._dynamo' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"

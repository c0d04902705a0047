"""Write the oldest versions that pyproject.toml allows as pip's constraints: `python tests/lowest.py FILE`."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest(project):
    """Return a line `name==version` for each requirement of the core and the extra `all` that has a lower bound."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["yolo"], *extras["study"], *extras["lab"]]
    return [f"{name}=={version}" for line in lines for name, version in re.findall(r"^([\w.-]+)>=([\d.]+)", line)]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lowest(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])) + "\n")

"""The commands `study` and `report`: run a grid of jobs, and draw what they measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oscillab.study.config import Study


def study(options: Study) -> dict[str, Any]:
    """Run a study and return its table as text and rows, the seconds it took and the report's path."""
    from oscillab.study.run import run_study

    return run_study(options)


@dataclass(frozen=True)
class Report:
    """Draw the figures and the self-contained report.html from a folder of results, a run or a recording."""

    folder: Path = Path("results/quick")
    """a folder that `study` or `qat` wrote, or a recording (.npz)"""
    readme: Path | None = None
    """instead: fill the marked tables of this Markdown file from the folders that it names"""
    json: Path | None = None
    """also write the report's path to this file"""


def report(options: Report) -> dict[str, Any]:
    """Write the report, or the tables of a Markdown file, and return the path of what was written."""
    from oscillab.io import atomic_write
    from oscillab.study.report import fill, write

    if options.readme:
        with atomic_write(options.readme) as temporary:
            temporary.write_text(fill(options.readme.read_text(), options.readme.resolve().parent))
        return {"readme": str(options.readme)}
    if not options.folder.exists():
        raise ValueError(f"there is no {options.folder}: run `oscillab study` first, or name its folder")
    return {"report": str(write(options.folder))}

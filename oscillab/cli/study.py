"""Run a study, and draw its report again."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oscillab.io import atomic_write
from oscillab.study import report
from oscillab.train.config import RunOptions


@dataclass(frozen=True)
class Report:
    """Draw the figures and the self-contained report.html again from a folder of results."""

    folder: Path = Path("results/quick")
    """a folder that `study` wrote"""
    readme: Path | None = None
    """instead: fill the marked tables of this Markdown file from the folders that it names"""
    run: RunOptions = field(default_factory=RunOptions)


def report_folder(options: Report) -> dict[str, Any]:
    """Write the report, or the tables of a Markdown file, and return the path of what was written."""
    if options.readme:
        with atomic_write(options.readme) as temporary:
            temporary.write_text(report.fill(options.readme.read_text(), options.readme.resolve().parent))
        return {"readme": str(options.readme)}
    if not (options.folder / "table.csv").is_file():
        raise ValueError(f"no table.csv in {options.folder}: run `oscillab study` first, or name its folder")
    return {"report": str(report.write(options.folder))}

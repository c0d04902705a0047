"""What do the commands `study` and `report` do?"""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from oscillab.io import atomic_write, write_json
from oscillab.plot.text import table_text
from oscillab.provenance import provenance
from oscillab.study import plan, report, state
from oscillab.study.grid import grid
from oscillab.study.job import write_table
from oscillab.study.pool import run_all
from oscillab.train.config import RunOptions

log = logging.getLogger(__name__)


def study(options):
    """The study's table as text and the folder that now holds table.csv, recordings, figures and report.html.

    Raises ValueError before anything runs where the options, the data, the checkpoints or the folder do not fit, and at
    the end where a job failed; the table and the report are of all others then.
    """
    jobs = grid(options)
    plan.check_data(options, jobs)
    out = options.folder
    text = plan.text(options, jobs)
    if options.dry_run:
        return {"text": text, "jobs": len(jobs)}
    log.info("%s", text)
    with state.locked(out, "study", patience=state.PATIENCE):
        for job in jobs:
            state.claim(job)
        started = time.perf_counter()
        failed = run_all(jobs, at_once=options.jobs)
        table = write_table(jobs, out / "table.csv")
        if table.empty:
            raise ValueError(f"each of {len(jobs)} runs failed: {reasons(failed)}")
        page = report.write(out)
        seconds = time.perf_counter() - started
        write_json(out / "study.json", provenance(options, device=options.run.device, seconds=round(seconds, 1)))
    text = f"{table_text(table)}\n\n{seconds:.0f} s; report: {page}"
    if failed:
        log.warning("%s", text)
        raise ValueError(
            f"{len(failed)} of {len(jobs)} runs failed, the others are in {page}; failed: {reasons(failed)}"
        )
    return {"text": text, "table": json.loads(table.to_json(orient="records")), "seconds": seconds, "report": str(page)}


def reasons(failed):
    """Which jobs failed and why, in one line."""
    return "; ".join(f"{job.folder.name} ({error})" for job, error in failed)


@dataclass(frozen=True)
class Report:
    """Draw the figures and the self-contained report.html again from a folder of results."""

    folder: Path = Path("results/quick")
    """a folder that `study` wrote"""
    readme: Path | None = None
    """instead: fill the marked tables of this Markdown file from the folders that it names"""
    run: RunOptions = field(default_factory=RunOptions)


def report_folder(options):
    """The path of the report that was written."""
    if options.readme:
        with atomic_write(options.readme) as temporary:
            temporary.write_text(report.fill(options.readme.read_text(), options.readme.resolve().parent))
        return {"readme": str(options.readme)}
    if not (options.folder / "table.csv").is_file():
        raise ValueError(f"no table.csv in {options.folder}: run `oscillab study` first, or name its folder")
    return {"report": str(report.write(options.folder))}

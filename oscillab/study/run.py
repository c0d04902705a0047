"""Run a study: plan it, run its jobs a few at a time, and write the table and the report.

Each job has a process of its own, on a device of its own where there are several, so that one that fails takes no other
along. A process whose study was killed ends itself.
"""

import json
import logging
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from oscillab.data.options import DataSource
from oscillab.io import write_json
from oscillab.provenance import provenance
from oscillab.study import plan, report
from oscillab.study.config import Study
from oscillab.study.grid import Job, jobs_of
from oscillab.study.job import claim, locked, read_status, run_job, set_status, status, write_table
from oscillab.study.text import table_text

log = logging.getLogger(__name__)
Failures = list[tuple[Job, str]]


def run_study(study: Study) -> dict[str, Any]:
    """Run a study in its folder, and return its table as text and rows, the seconds it took and the report's path.

    The folder then holds table.csv, recordings, figures and report.html. Raises ValueError before anything runs where the
    options, the data, the checkpoints or the folder do not fit, and at the end where a job failed; the table and the report
    are of all others then.
    """
    jobs, source, folder = jobs_of(study), DataSource(study.data), study.folder
    plan.check_data(study, jobs, source)
    text = plan.text(study, jobs, source)
    if study.dry_run:
        return {"text": text, "jobs": len(jobs)}
    log.info("%s", text)
    with locked(folder, "study"):
        for job in jobs:
            claim(job)
        started = time.perf_counter()
        failed = run_all(jobs, source, at_once=study.jobs)
        table = write_table(jobs, folder / "table.csv")
        if table.empty:
            raise ValueError(f"each of {len(jobs)} runs failed: {_reasons(failed)}")
        page = report.write(folder)
        seconds = time.perf_counter() - started
        write_json(folder / "study.json", provenance(study, device=study.run.device, seconds=round(seconds, 1)))
    text = f"{table_text(table)}\n\n{seconds:.0f} s; report: {page}"
    if failed:
        log.warning("%s", text)
        others = f"{len(failed)} of {len(jobs)} runs failed, the others are in {page}"
        raise ValueError(f"{others}; failed: {_reasons(failed)}")
    return {"text": text, "table": json.loads(table.to_json(orient="records")), "seconds": seconds, "report": str(page)}


def _reasons(failed: Failures) -> str:
    return "; ".join(f"{job.folder.name} ({error})" for job, error in failed)


def run_all(jobs: Sequence[Job], source: DataSource, *, at_once: int) -> Failures:
    """Run the jobs that are not finished, and return those that failed, (job, error text) each."""
    todo = [job for job in jobs if status(job) != "done"]
    if at_once == 1 or len(todo) <= 1:
        errors = [run_here(job, source) for job in todo]
    else:
        os.environ["TQDM_MININTERVAL"] = "1" if sys.stderr.isatty() else "30"
        with ThreadPoolExecutor(at_once) as threads:
            try:
                errors = list(threads.map(in_processes(at_once), todo))
            except KeyboardInterrupt:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
    return [(job, error) for job, error in zip(todo, errors, strict=True) if error]


def run_here(job: Job, source: DataSource) -> str | None:
    """Run a job in this process, and return what went wrong; None where nothing did."""
    try:
        run_job(job, source)
    except Exception as error:
        log.warning("%s failed: %s", job.folder.name, error)
        return f"{type(error).__name__}: {error}"
    return None


def in_processes(at_once: int) -> Callable[[Job], str | None]:
    """Return a function that runs a job in a process of its own, as `run_here`, to be called in `at_once` threads."""
    slots: queue.Queue[int] = queue.Queue()
    for number in range(at_once):
        slots.put(number)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork

    def run(job: Job) -> str | None:
        slot = slots.get()
        try:
            child = context.Process(target=run_in_child, args=(on_device_of(job, slot), slot, os.getpid()))
            child.start()
            child.join()
            return outcome(job, child.exitcode)
        finally:
            slots.put(slot)

    return run


def on_device_of(job: Job, slot: int) -> Job:
    """Return the job, on the GPU of its slot where it asks for "cuda" and there are several."""
    if job.run.device != "cuda" or torch.cuda.device_count() < 2:
        return job
    return replace(job, run=replace(job.run, device=f"cuda:{slot % torch.cuda.device_count()}"))


def run_in_child(job: Job, slot: int, parent: int) -> None:
    """Run the job, its progress bars on a line of their own, and end when `parent` is no more."""
    os.environ["TQDM_POSITION"] = str(slot)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        run_job(job)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        sys.exit(1)  # status.json says why


def _end_with(parent: int) -> None:
    """End this process as soon as it has another parent than `parent`."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def outcome(job: Job, exit_code: int | None) -> str | None:
    """Return what went wrong in a job's process, None where nothing did; raises KeyboardInterrupt for one that was stopped."""
    if exit_code == 130:
        raise KeyboardInterrupt
    if exit_code == 0:
        return None
    if read_status(job)["status"] != "failed":  # it had no time to say why
        set_status(job, "failed", error=f"its process ended with exit code {exit_code}")
    error = read_status(job)["error"]
    log.warning("%s failed: %s", job.folder.name, error)
    return error

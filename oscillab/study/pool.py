"""How do several jobs run at once, so that one that fails takes no other along?

Each job has a process of its own, a few at a time, each on a device of its own where there are several. A process whose
study was killed ends itself.
"""

import logging
import multiprocessing
import os
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from oscillab.study import state
from oscillab.study.job import run_job

log = logging.getLogger(__name__)


def run_all(jobs, *, at_once, progress=True):
    """The jobs that failed, as a list of (job, error text); all others are done. Finished jobs are passed over."""
    todo = [job for job in jobs if state.status(job) != "done"]
    if at_once == 1 or len(todo) <= 1:
        run = run_here
    else:
        os.environ["TQDM_MININTERVAL"] = "1" if sys.stderr.isatty() else "30"
        run = in_process_of_its_own(at_once)
    with ThreadPoolExecutor(1 if run is run_here else at_once) as threads:
        try:
            errors = list(threads.map(run, todo)) if run is not run_here else [run_here(job) for job in todo]
        except KeyboardInterrupt:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return [(job, error) for job, error in zip(todo, errors, strict=True) if error]


def run_here(job):
    """None, or what went wrong in a job that ran in this process."""
    try:
        run_job(job)
    except Exception as error:
        log.warning("%s failed: %s", job.folder.name, error)
        return f"{type(error).__name__}: {error}"
    return None


def in_process_of_its_own(at_once):
    """A function job -> None or what went wrong, to be called in `at_once` threads."""
    slots = queue.Queue()
    for number in range(at_once):
        slots.put(number)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork

    def run(job):
        slot = slots.get()
        try:
            child = context.Process(target=run_in_child, args=(on_device_of(job, slot), slot, os.getpid()))
            child.start()
            child.join()
            return outcome(job, child.exitcode)
        finally:
            slots.put(slot)

    return run


def on_device_of(job, slot):
    """The job, on the GPU of its slot where it asks for "cuda" and there are several."""
    if job.qat.run.device != "cuda" or torch.cuda.device_count() < 2:
        return job
    device = f"cuda:{slot % torch.cuda.device_count()}"
    return replace(job, qat=replace(job.qat, run=replace(job.qat.run, device=device)))


def run_in_child(job, slot, parent):
    """Nothing; runs the job, its progress bars on a line of their own, and ends when `parent` is no more."""
    os.environ["TQDM_POSITION"] = str(slot)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    try:
        run_job(job)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        sys.exit(1)  # status.json says why


def end_with(parent):
    """Nothing; ends this process as soon as it has another parent than `parent`."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def outcome(job, exit_code):
    """None for a job that is done, else what went wrong; raises KeyboardInterrupt for one that was stopped."""
    if exit_code == 130:
        raise KeyboardInterrupt
    if exit_code == 0:
        return None
    status = state.read_status(job)
    if status["status"] != "failed":  # it had no time to say why
        state.set_status(job, "failed", error=f"its process ended with exit code {exit_code}")
    error = state.read_status(job)["error"]
    log.warning("%s failed: %s", job.folder.name, error)
    return error

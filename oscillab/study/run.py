"""Run a study: plan it, run its jobs a few at a time, and write the table and the report.

The plan's hours come from steps measured on the spot, forward to Adam, at the study's image size: an estimate. Each job has a
process of its own, on a device of its own where there are several, so that one that fails takes no other along. A process
whose study was killed ends itself.
"""

import json
import logging
import multiprocessing
import os
import queue
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partialmethod
from typing import Any

import torch
from tqdm.auto import tqdm

from oscillab.data.batches import Batch
from oscillab.data.options import DataSource, check_classes
from oscillab.io import write_json
from oscillab.provenance import provenance
from oscillab.quant import quantize
from oscillab.study import report
from oscillab.study.config import Study
from oscillab.study.grid import Job, jobs_of
from oscillab.study.job import STATUSES, claim, locked, missing, read_status, run_job, set_status, status, write_table
from oscillab.study.text import table_text, width
from oscillab.train.run import placed, prepare
from oscillab.train.trainer import Trainer
from oscillab.yolo import zoo
from oscillab.yolo.loss import build_loss

PROBE_BATCH = 4  # images in a measured step
FORWARD_SHARE = 0.35  # of a training step that one forward pass takes
BYTES_PER_PARAMETER = 40  # of a job's folder: networks, optimizer and recorder while it runs, recordings
log = logging.getLogger(__name__)


def run_study(study: Study) -> dict[str, Any]:
    """Run a study in its folder, and return its table as text and rows, the seconds it took and the report's path.

    The folder then holds table.csv, recordings, figures and report.html. Raises ValueError before anything runs where the
    options, the data, the checkpoints or the folder do not fit, and at the end where a job failed; the table and the report
    are of all others then.
    """
    jobs, source, folder = jobs_of(study), DataSource(study.data), study.folder
    check_data(study, jobs, source)
    text = plan(study, jobs, source)
    if study.dry_run:
        return {"text": text, "jobs": len(jobs)}
    log.info("%s", text)
    with locked(folder, "study"):
        for job in jobs:
            claim(job)
        started = time.perf_counter()
        failed = run_all(jobs, source, at_once=study.jobs)
        reasons = "; ".join(f"{job.folder.name} ({error})" for job, error in failed)
        table = write_table(jobs, folder / "table.csv")
        if table.empty:
            raise ValueError(f"each of {len(jobs)} runs failed: {reasons}")
        page = report.write(folder)
        seconds = time.perf_counter() - started
        write_json(folder / "study.json", provenance(study, device=study.run.device, seconds=round(seconds, 1)))
    text = f"{table_text(table)}\n\n{seconds:.0f} s; report: {page}"
    if failed:
        log.warning("%s", text)
        raise ValueError(f"{len(failed)} of {len(jobs)} runs failed, the others are in {page}; failed: {reasons}")
    return {"text": text, "table": json.loads(table.to_json(orient="records")), "seconds": seconds, "report": str(page)}


def check_data(study: Study, jobs: Sequence[Job], source: DataSource) -> None:
    """Raise ValueError where a data set is missing or has other classes than a checkpoint, or the disk is too small."""
    for weights in {job.weights.path: job.weights for job in jobs}.values():
        masks = weights.network.endswith("-seg")
        for dataset in (source.training_batches(0, masks=masks).dataset, source.held_out(masks=masks)):
            check_classes(weights, dataset, weights.path)
    study.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(study.folder).free
    needed = BYTES_PER_PARAMETER * sum(job.weights.parameter_count for job in jobs if not job.folder.exists())
    if needed > free:
        raise ValueError(f"{study.folder} has {free / 1e9:.1f} GB free, the study needs about {needed / 1e9:.1f} GB")


def plan(study: Study, jobs: Sequence[Job], source: DataSource) -> str:
    """Say, a line per network and width, how many runs of how many steps there are, how far they came, and how long it takes."""
    first = {job.weights.network: job for job in reversed(jobs)}
    seconds = {network: seconds_per_image(job) for network, job in first.items()}
    lines, total = [], 0.0
    for network, bits, passes in dict.fromkeys((job.weights.network, job.bits, job.train.epochs) for job in jobs):
        group = [job for job in jobs if (job.weights.network, job.bits, job.train.epochs) == (network, bits, passes)]
        counts = Counter(map(status, group))
        how = ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name])
        runs = f"{len(group)} runs ({how}) of {passes * len(source.training_batches(0))} steps"
        arms, seeds = dict.fromkeys(job.arm for job in group), dict.fromkeys(str(job.seed) for job in group)
        total += (left := sum(images_left(job, source) for job in group) * seconds[network])
        how = f"arms {', '.join(arms)}, {', '.join(dict.fromkeys(job.schedule for job in group))} rate, seeds {' '.join(seeds)}"
        lines.append(f"{network} {width(*bits)} bit: {runs}, {how}, {duration(left)}")
    device = "GPU" if study.run.device.startswith("cuda") else "CPU"
    hours = f", {total / 3600:.1f} {device}-hours" if total > 3600 else ""
    end = f"about {duration(total / min(study.jobs, len(jobs)))} in all with {study.jobs} at once{hours}"
    return "\n".join([*lines, end])


def images_left(job: Job, source: DataSource) -> float:
    """Return how many images' worth of training steps a job still takes; one that is measured on takes a third of one."""
    batches, left = source.training_batches(0), missing(job)
    passes = job.correction.epochs * sum(control.startswith(("qc", "bn_affine")) for _, _, control in left)
    passes += 0 if (job.folder / "run.json").is_file() else job.train.epochs
    return passes * len(batches) * batches.batch_size + len(left) * len(source.held_out()) * FORWARD_SHARE


def seconds_per_image(job: Job) -> float:
    """Return the seconds that an image takes in a training step of the job's network, measured now, on its device."""
    prepare(job.run)
    size, classes = job.data.size, job.weights.classes
    images = torch.randint(0, 256, (PROBE_BATCH, 3, size, size), dtype=torch.uint8)
    model = zoo.build(job.weights.network, classes)
    quantize(placed(model, "cpu"), job.quant, [images.float() / 255])
    trainer = Trainer(placed(model, job.run.device), build_loss(model), [None], job.train, progress=False)
    targets = torch.tensor([[n, n % classes, 0.5, 0.5, 0.2, 0.2] for n in range(PROBE_BATCH)])
    masks = [torch.ones(1, size, size, dtype=torch.uint8) for _ in images] if model.task == "segment" else None
    for _ in range(2):  # the first step is slower
        started = time.perf_counter()
        trainer.train_step(Batch(images, targets, masks, []))
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / PROBE_BATCH


def duration(seconds: float) -> str:
    """Return seconds as a reader says them.

    >>> duration(42), duration(400), duration(20_000)
    ('42 s', '7 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_all(jobs: Sequence[Job], source: DataSource, *, at_once: int) -> list[tuple[Job, str]]:
    """Run the jobs that are not finished, and return those that failed, (job, error text) each."""
    todo = [job for job in jobs if status(job) != "done"]
    if at_once == 1 or len(todo) <= 1:
        errors = [_run_here(job, source) for job in todo]
    else:
        os.environ["TQDM_MININTERVAL"] = "1" if sys.stderr.isatty() else "30"
        slots: queue.Queue[int] = queue.Queue()
        for number in range(at_once):
            slots.put(number)
        with ThreadPoolExecutor(at_once) as threads:
            try:
                errors = list(threads.map(lambda job: _run_in_process(job, slots), todo))
            except KeyboardInterrupt:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
    return [(job, error) for job, error in zip(todo, errors, strict=True) if error]


def _run_here(job: Job, source: DataSource) -> str | None:
    """Run a job in this process, and return what went wrong; None where nothing did."""
    try:
        run_job(job, source)
    except Exception as error:
        log.warning("%s failed: %s", job.folder.name, error)
        return f"{type(error).__name__}: {error}"
    return None


def _run_in_process(job: Job, slots: "queue.Queue[int]") -> str | None:
    """Run a job in a process of its own, as `_run_here`; with several GPUs "cuda" is that of a free slot."""
    slot, count = slots.get(), torch.cuda.device_count()
    if job.run.device == "cuda" and count > 1:
        job = replace(job, run=replace(job.run, device=f"cuda:{slot % count}"))
    try:  # spawned, since torch's threads do not survive a fork
        child = multiprocessing.get_context("spawn").Process(target=_run_in_child, args=(job, slot, os.getpid()))
        child.start()
        child.join()
        return outcome(job, child.exitcode)
    finally:
        slots.put(slot)


def _run_in_child(job: Job, slot: int, parent: int) -> None:
    """Run the job, its progress bars on a line of their own, and end when `parent` is no more."""
    tqdm.__init__ = partialmethod(tqdm.__init__, position=slot)
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

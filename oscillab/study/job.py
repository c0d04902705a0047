"""Run one job: train once, then measure the network, its average, and each control on a copy of either.

A killed study goes on where it was: in a job's folder job.json holds the configuration and its hash, status.json how far it
came, rows.csv what was measured; `lock` is held by the process that works on it, and let go by the system however that ends.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from torch import nn
from tqdm.auto import tqdm

from oscillab.data.evaluate import evaluate
from oscillab.data.options import DataSource
from oscillab.io import atomic_write, write_json
from oscillab.methods import method, names
from oscillab.provenance import provenance
from oscillab.quant.exact import exact_or_float
from oscillab.quant.layers import RENAMED
from oscillab.recording.recording import Recording
from oscillab.recording.tables import (
    LOW_BITS,
    chosen_layers,
    crowding,
    flip_attribution,
    flip_rate,
    layers,
    oscillating_share,
)
from oscillab.study.grid import Job
from oscillab.study.table import COLUMNS
from oscillab.train.run import placed, prepare, prepare_qat, run_qat
from oscillab.yolo import checkpoint

PATIENCE = 20.0  # seconds that a dying process may take to let go of its lock
STATUSES = ("planned", "running", "failed", "done")


def run_job(job: Job, source: DataSource | None = None) -> list[dict[str, Any]]:
    """Run what is missing of a job and return its rows; a training that was cut off goes on.

    `source`: the job's data where they are open already.
    """
    source, tell = source or DataSource(job.data), {"bar_format": f"{job.folder.name} {{l_bar}}{{bar}}{{r_bar}}"}
    with locked(job.folder, "process"), patch.object(tqdm, "__init__", partialmethod(tqdm.__init__, **tell)):
        claim(job)
        set_status(job, "running")
        try:
            prepare(job.run)
            train(job, source)
            for name, start, control in missing(job):
                measure_method(job, source, name, start, control)
        except Exception as error:
            set_status(job, "failed", error=f"{type(error).__name__}: {error}")
            raise
        set_status(job, "done")
        return rows_of(job)


def train(job: Job, source: DataSource) -> None:
    """Write the job's networks and recordings; raises KeyboardInterrupt where the run was stopped.

    The first arm of a width and seed measures the float and the untrained quantized network before its first step.
    """
    if (job.folder / "run.json").is_file():
        return
    model = checkpoint.load(job.weights.path)
    batches = source.training_batches(job.seed, masks=model.task == "segment", model=model, source=job.weights.path)
    model, batches = prepare_qat(model, batches, job.quant, device=job.run.device)
    if job.untrained and not any(row["method"] == "ptq" for row in rows_of(job)):
        started, unquantized = time.perf_counter(), placed(checkpoint.load(job.weights.path), job.run.device)
        add_row(job, measured_row(job, source, "fp32", unquantized, started))
        add_row(job, measured_row(job, source, "ptq", model, time.perf_counter()))
    resume, about = (job.folder / "last.pt").is_file(), provenance(job, device=job.run.device)
    options: dict[str, Any] = {"seed": job.seed, "progress": job.run.progress, "resume": resume, "about": about}
    if run_qat(model, batches, job, job.folder, **options).get("interrupted"):
        raise KeyboardInterrupt
    with atomic_write(job.folder / "layers.csv.gz") as temporary:
        how = {"method": "gzip", "mtime": 0}  # the same bytes from the same run
        table = crowding(Recording.open(job.folder / "lsq.npz"))
        table.to_csv(temporary, index=False, float_format="%.5g", compression=how)


def measure_method(job: Job, source: DataSource, name: str, start: str, control: str) -> None:
    """Add the row of a method; QC's network is saved, for export and for the notebooks."""
    prepare(job.run)
    started, path = time.perf_counter(), job.folder / f"{start}.pt"
    if not path.is_file():
        raise ValueError(f"{path}, which {name} is measured from, was removed after the run: give another --out")
    model = placed(checkpoint.load(path), job.run.device)
    if control != "none":
        batches = source.training_batches(job.seed, masks=model.task == "segment", model=model, source=path)
        method(control).apply(model, batches, spec=job.correction, choices=job.choices, progress=job.run.progress)
    if control == "qc":
        checkpoint.save(model, job.folder / f"{start}+{control}.pt")
    row = measured_row(job, source, name, model, started, is_exact=control == "none" or method(control).exact)
    recorded, run = job.folder / f"{start}.npz", json.loads((job.folder / "run.json").read_text())
    row |= {"schedule": job.schedule, "steps": run["steps"]} | (oscillation(recorded) if recorded.is_file() else {})
    if control == "none":
        row["seconds"] = round(row["seconds"] + run["seconds"], 2)
    add_row(job, row)


def oscillation(path: Path) -> dict[str, float]:
    """Return what a table says of a recording, over its layers of 4 bits and fewer; see `docs/study.md`.

    `near_edge_share`: median over layers of 1,000 weights and more; `edge_flip_share`: of the sampled weights' flips;
    `step_size_spread`: standard deviation of log(step size) over the last tenth of the run, median over layers.
    """
    recording = Recording.open(path)
    chosen = [recording.index(name) for name in chosen_layers(recording, LOW_BITS)]
    large = [i for i in chosen if recording.weight_counts[i] >= 1000]
    flips = flip_attribution(recording).iloc[chosen][["flip_count", "edge_flip_count"]].sum()
    sizes = recording["step_size"][-max(2, len(recording.steps) // 10) :, chosen]
    return {
        "oscillating_share": oscillating_share(recording),
        "flip_rate": flip_rate(recording),
        "near_edge_share": layers(recording)["near_edge_share"].iloc[large].median(),
        "edge_flip_share": flips["edge_flip_count"] / max(1, flips["flip_count"]),
        "step_size_spread": float(np.median(np.log(sizes).std(0))),
    }


def measured_row(
    job: Job, source: DataSource, name: str, model: nn.Module, started: float, *, is_exact: bool = True
) -> dict[str, Any]:
    """Measure a model and return its row, `seconds` since `started`.

    A quantized network is measured in its exact form, which an exported file has too; where hooks are the method (not
    `is_exact`), as it is.
    """
    dataset = source.held_out(masks=model.task == "segment", model=model, source=name)
    measured = exact_or_float(model) if is_exact else model
    found = evaluate(measured, dataset, size=job.data.size, progress=job.run.progress)
    bits = (32, 32) if name == "fp32" else job.bits
    about = job.weights.network, model.task, *bits, "none", 0, name, job.seed, found.map, found.map50, found.mask_map
    return dict(zip(COLUMNS, about, strict=False)) | {"seconds": round(time.perf_counter() - started, 2)}


@contextmanager
def locked(folder: Path, what: str, *, patience: float = PATIENCE) -> Iterator[None]:
    """Let this process alone work in `folder` within the block; raises ValueError when another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=patience, poll_interval=0.1):
            yield
    except Timeout:
        raise ValueError(f"another {what} is at work in {folder}: wait for it, or give another --out") from None


def claim(job: Job) -> None:
    """Write into job.json what the folder is for; raises ValueError where it is for another configuration.

    Options that came after the folder was made were at their defaults then, and do not count.
    """
    path, mine = job.folder / "job.json", job.configuration()
    if path.is_file():
        before = json.loads(path.read_text())["configuration"]
        before["quant"] = {RENAMED.get(name, name): value for name, value in before["quant"].items()}
        if changed := ", ".join(_differences(before, mine)):
            held = f"a run of another configuration ({changed} differ)"
            raise ValueError(f"{job.folder} holds {held}: give another --out")
    elif (job.folder / "run.json").is_file():
        held = "a run that no job of a study made (it has no job.json)"
        raise ValueError(f"{job.folder} holds {held}: give another --out")
    else:
        write_json(path, {"hash": job.hash(), "configuration": mine})


def _differences(before: Any, after: Any, name: str = "") -> list[str]:
    """Return the dotted names of the entries of both of two nested mappings in which they differ."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [name] if before != after else []
    both = sorted(before.keys() & after.keys())
    return [found for key in both for found in _differences(before[key], after[key], f"{name}.{key}".lstrip("."))]


def status(job: Job) -> str:
    """Return how far a job came: planned, running, failed or done (all of its methods measured)."""
    if not missing(job):
        return "done"
    found = read_status(job)["status"]
    return "running" if found == "done" else found  # more was asked for than when it was done


def read_status(job: Job) -> dict[str, str]:
    """Return what status.json says: the status, and the error of a job that failed."""
    path = job.folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {"status": "planned"}


def set_status(job: Job, name: str, **more: str) -> None:
    """Write the status into status.json."""
    write_json(job.folder / "status.json", {"status": name, **more})


def rows_of(job: Job) -> list[dict[str, Any]]:
    """Return what was measured so far, as rows of `COLUMNS`."""
    path = job.folder / "rows.csv"
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


def add_row(job: Job, row: dict[str, Any]) -> None:
    """Add a row to rows.csv, whole or not at all."""
    _write_rows([*rows_of(job), row], job.folder / "rows.csv")


def missing(job: Job) -> list[tuple[str, str, str]]:
    """Return the methods that are not measured yet, (method, start, control) each."""
    measured = {row["method"] for row in rows_of(job)}
    return [each for each in job.methods if each[0] not in measured]


def write_table(jobs: Sequence[Job], path: Path) -> pd.DataFrame:
    """Write and return the table of what the jobs were asked to measure and have so far, FP32 once; no file without a row."""
    asked_for = [
        {*names("untrained"), *(each[0] for each in job.methods)} for job in jobs
    ]  # an earlier study: for more
    rows = [row for job, asked in zip(jobs, asked_for, strict=True) for row in rows_of(job) if row["method"] in asked]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table[(table["method"] != "fp32") | ~table.duplicated(["network", "method"])].reset_index(drop=True)
    return table if table.empty else _write_rows(table, path)


def _write_rows(rows: Any, path: Path) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table

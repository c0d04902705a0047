"""What happens in one job: train once, then measure the network, its average, and each control on a copy of either."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace

import pandas as pd

from oscillab.cli.commands import qat, start_qat
from oscillab.data.evaluate import evaluate
from oscillab.data.options import held_out, training_batches
from oscillab.io import atomic_write
from oscillab.methods import METHODS
from oscillab.quant.exact import exact_or_float
from oscillab.recording.recording import Recording
from oscillab.recording.tables import flip_rate, oscillating_share
from oscillab.study import state
from oscillab.study.table import COLUMNS
from oscillab.train.remedies.soft_rounding import soft_rounding
from oscillab.train.run import placed, prepare
from oscillab.yolo import checkpoint

UNTRAINED = ("fp32", "ptq")  # measured beside the arm "lsq", before its first step
KEPT = ("qc",)  # controls whose network is kept, for export and for the notebooks


def run_job(job):
    """The rows of one job; what an earlier call measured is kept, and a training that was cut off goes on."""
    with state.locked(job.folder, "process"):
        state.claim(job)
        state.set_status(job, "running")
        try:
            prepare(job.qat.run)
            train(job)
            for method, start, control in state.missing(job):
                measure_method(job, method, start, control)
        except Exception as error:
            state.set_status(job, "failed", error=f"{type(error).__name__}: {error}")
            raise
        state.set_status(job, "done")
        return state.rows(job)


def train(job):
    """Nothing; the job's networks and recordings are on disk. Raises KeyboardInterrupt where the run was stopped."""
    if (job.folder / "run.json").is_file():
        return
    model, batches = start_qat(job.qat)
    if job.arm == "lsq" and not any(row["method"] == "ptq" for row in state.rows(job)):
        started = time.perf_counter()
        add_row(job, "fp32", placed(checkpoint.load(job.qat.weights), job.qat.run.device), started)
        add_row(job, "ptq", exact_or_float(model), time.perf_counter())
    resume = (job.folder / "last.pt").is_file()
    if qat(replace(job.qat, resume=resume), start=(model, batches)).get("interrupted"):
        raise KeyboardInterrupt


def measure_method(job, method, start, control):
    """Nothing; the method's row is in the table, and its network in a file where that is kept."""
    prepare(job.qat.run)
    started = time.perf_counter()
    trained = job.folder / f"{start}.pt"
    if not trained.is_file():
        raise ValueError(f"{trained}, which {method} is measured from, was removed after the run: give another --out")
    model = placed(checkpoint.load(trained), job.qat.run.device)
    if control == "soft_rounding":
        context = soft_rounding(model)
    else:
        context = nullcontext()
        batches = training_batches(job.qat.data, job.seed, masks=model.task == "segment")
        options = {"spec": job.correction, "choices": job.choices, "progress": job.qat.run.progress}
        if control != "none":
            METHODS[control].apply(model, batches, **options)
    if control in KEPT:
        checkpoint.save(model, job.folder / f"{start}+{control}.pt")
    with context:
        # The exact form is a copy that would lose soft rounding's hooks.
        measured = model if control == "soft_rounding" else exact_or_float(model)
        add_row(job, method, measured, started, recording=recording(job, start), trained=control == "none")


def recording(job, start):
    """What was recorded of the live network or of its average; None where nothing was."""
    path = job.folder / f"{start}.npz"
    return Recording.open(path) if path.is_file() else None


def add_row(job, method, model, started, *, recording=None, trained=False):
    """Nothing; measures the model and adds its row. `seconds` are since `started`, and those of training where `trained`."""
    data = job.qat.data
    measured = evaluate(model, held_out(data, masks=model.task == "segment"), size=data.size).summary()
    seconds = time.perf_counter() - started
    if trained:
        seconds += json.loads((job.folder / "run.json").read_text())["seconds"]
    bits, ends_bits = (32, 32) if method == "fp32" else job.bits
    row = {"network": job.network, "task": model.task, "bits": bits, "ends_bits": ends_bits, "method": method}
    row |= {"seed": job.seed, "map": measured["map"], "map50": measured["map50"], "mask_map": measured.get("mask_map")}
    row["oscillating_share"] = oscillating_share(recording) if recording else None
    row["flip_rate"] = flip_rate(recording) if recording else None
    state.add_row(job, row | {"seconds": round(seconds, 2)})


def asked_for(job):
    """The rows of a job's methods and of the untrained network; an earlier study may have asked for more."""
    methods = {*UNTRAINED, *(method for method, _, _ in job.methods)}
    return [row for row in state.rows(job) if row["method"] in methods]


def write_table(jobs, path):
    """The table of what the jobs were asked to measure and have so far, FP32 once, also written to `path` where it has a row."""
    table = pd.DataFrame([row for job in jobs for row in asked_for(job)], columns=COLUMNS)
    once = ~((table.method == "fp32") & table.duplicated(["network", "method"]))
    table = table[once].reset_index(drop=True)
    if table.empty:
        return table
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table

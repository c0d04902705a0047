"""Does the paper's ladder hold: PTQ, LSQ, EMA, each with QC, at 4 and at 3 bit, in oscillation and in mAP?

A study is a grid of QAT runs (network x bits x seed). LSQ, EMA and QC share one run each, because EMA and QC are passive:
LSQ is the live model's last state, EMA the average beside it, QC one more epoch on a copy of either.
"""

import json
import logging
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from oscillab import files
from oscillab.atomic import replacing
from oscillab.commands import Correct, Qat, correct_file, measure, qat, start_qat
from oscillab.qat.train import TrainSpec
from oscillab.quant import QuantSpec
from oscillab.record.oscillation import flip_rate, oscillating_share
from oscillab.record.recording import Recording
from oscillab.runs import SHIPPED, DataOptions, RunOptions, held_out, placed, prepare, provenance, write_json
from oscillab.show import readme, report

COLUMNS = ["network", "task", "bits", "method", "seed", "map", "map50", "oscillating_share", "flip_rate", "seconds"]


@dataclass(frozen=True)
class Study:
    """Run the ladder FP32, PTQ, LSQ, EMA, LSQ+QC, EMA+QC over bits and seeds, before and after, and report it."""

    preset: Literal["quick"] = "quick"
    """'quick': scenes, 4 and 3 bit, one seed, minutes on two cores"""
    weights: Path = SHIPPED
    """the float checkpoint to start from"""
    out: Path | None = None
    """the folder of results; None: results/<preset>"""
    bits: tuple[int, ...] = (4, 3)
    """bit widths of weights and activations"""
    seeds: tuple[int, ...] = (0,)
    """one run each"""
    ends_bits: int = 8
    """bits of the first and the last layers; the paper's 4-bit* is 4"""
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=4, learning_rate=1e-3, schedule="constant"))
    qc_learning_rate: float = 1e-3
    """QC's peak rate, cosine over one pass; the paper's 1e-4 suits its 1,849 steps and more"""
    qc_epochs: int = 1
    """passes of QC; the paper makes one"""
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)
    ema_decay: float | None = None
    """None: a horizon of a quarter of the run, at most the paper's 0.9999"""
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """runs at once, each in a process of `threads` threads"""


def study(options):
    """The study's table as text and the folder that now holds table.csv, recordings, figures and report.html."""
    out = options.out or Path("results") / options.preset
    grid = [(bits, seed) for seed in options.seeds for bits in options.bits]
    check_grid(options, grid)
    started = time.perf_counter()
    rows = [row for rows in run_all(options, out, grid) for row in rows]
    table = write_table(rows, out)
    page = report.write(out)
    seconds = time.perf_counter() - started
    write_json(out / "study.json", provenance(options, seconds=round(seconds, 1)))
    text = f"{report.table_text(table)}\n\n{seconds:.0f} s; report: {page}"
    return {"text": text, "table": json.loads(table.to_json(orient="records")), "seconds": seconds, "report": str(page)}


def check_grid(options, grid):
    """Raise ValueError, before anything runs, for a seed or a width given twice, or no run at all."""
    if not grid:
        raise ValueError("a study needs at least one bit width and one seed")
    for name, values in (("seed", options.seeds), ("bit width", options.bits)):
        if len(set(values)) < len(values):
            raise ValueError(f"each {name} may be given once, got {' '.join(map(str, values))}")
    for bits in options.bits:
        QuantSpec(bits=bits, ends_bits=options.ends_bits)
    if options.jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {options.jobs}")


def run_all(options, out, grid):
    """The rows of each run of the grid, in its order, `options.jobs` runs at a time."""
    places = [(options, out, bits, seed) for bits, seed in grid]
    if options.jobs == 1 or len(grid) == 1:
        return [run_one(*place) for place in places]
    quiet_bars = "1" if sys.stderr.isatty() else "30"
    os.environ["TQDM_MININTERVAL"] = quiet_bars
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(min(options.jobs, len(grid)), mp_context=context) as pool:
        return list(pool.map(run_in_child, range(len(places)), places))


def run_in_child(position, place):
    """The rows of one run, in a process of its own whose progress bar has a line of its own."""
    os.environ["TQDM_POSITION"] = str(position)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_one(*place)


def run_one(options, out, bits, seed):
    """The rows of one QAT run and its corrections; its files go to <out>/<network>-<bits>bit-seed<seed>/."""
    run = replace(options.run, seed=seed)
    prepare(run)
    spec = QuantSpec(bits=bits, ends_bits=options.ends_bits)
    detector = placed(files.load(options.weights), run.device)
    network = detector.name
    folder = out / f"{network}-{bits}bit-seed{seed}"
    options_qat = Qat(options.weights, folder, spec, options.train, options.data, run, options.ema_decay)
    pictures = held_out(options.data, masks=detector.task == "segment")
    score = Scores(network, bits, seed, pictures, options.data.size)
    score.add("fp32", detector, bits=32)
    model, batches = start_qat(options_qat)
    score.add("ptq", model)
    trained = qat(options_qat, start=(model, batches))
    if trained.get("interrupted"):
        raise KeyboardInterrupt
    score.clock(trained["seconds"])

    def load(name):
        return placed(files.load(folder / name), run.device)

    for method in ("lsq", "ema"):
        score.add(method, load(f"{method}.pt"), Recording.open(folder / f"{method}.npz"))
    for method in ("lsq", "ema"):
        recording = Recording.open(folder / f"{method}.npz")
        correct_file(correction(options, run, folder, method))
        score.add(f"{method}+qc", load(f"{method}+qc.pt"), recording)
    return score.rows


def correction(options, run, folder, method):
    """The options of QC on the result of `method`."""
    spec = TrainSpec(
        epochs=options.qc_epochs,
        learning_rate=options.qc_learning_rate,
        schedule="cosine",
        warmup_steps=0,
        autocast=options.train.autocast,
    )
    return Correct(folder / f"{method}.pt", folder / f"{method}+qc.pt", spec, options.data, run)


class Scores:
    """Collects the table's rows of one run, with the wall time since the last one."""

    def __init__(self, network, bits, seed, pictures, size):
        self.network, self.bits, self.seed, self.pictures, self.size = network, bits, seed, pictures, size
        self.task = "segment" if network.endswith("-seg") else "detect"
        self.rows, self.shared, self.started = [], 0.0, time.perf_counter()

    def clock(self, seconds):
        """Count `seconds` of shared training into the rows of LSQ and EMA alike."""
        self.shared, self.started = seconds, time.perf_counter()

    def add(self, method, model, recording=None, *, bits=None):
        """Measure the model and add its row."""
        measured = measure(model, self.pictures, self.size)
        seconds = time.perf_counter() - self.started + (self.shared if method in ("lsq", "ema") else 0)
        self.started = time.perf_counter()
        share = oscillating_share(recording) if recording else float("nan")
        rate = flip_rate(recording) if recording else float("nan")
        values = (self.network, self.task, bits or self.bits, method, self.seed, measured["map"], measured["map50"])
        self.rows.append(dict(zip(COLUMNS, (*values, share, rate, round(seconds, 2)), strict=True)))


def write_table(rows, out):
    """The table of all rows, FP32 once, also written to <out>/table.csv."""
    table = pd.DataFrame(rows, columns=COLUMNS)
    once = ~((table.method == "fp32") & table.duplicated(["network", "task", "bits", "method"]))
    table = table[once].reset_index(drop=True)
    with replacing(out / "table.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table


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
        with replacing(options.readme) as temporary:
            temporary.write_text(readme.fill(options.readme.read_text(), options.readme.resolve().parent))
        return {"readme": str(options.readme)}
    if not (options.folder / "table.csv").is_file():
        raise ValueError(f"no table.csv in {options.folder}: run `oscillab study` first, or name its folder")
    return {"report": str(report.write(options.folder))}

"""What does it cost to watch a training run?

    python -m benchmarks.live --steps 60 --rounds 5

Runs of the same steps from the same state, recorded, alternate without and with the live widget, in a kernel as a
notebook has it, so that the widget's messages are sent. The table gives the processor seconds of a run in all threads
(wall-clock seconds say little on a machine that others use), the ratio of neighbouring runs (median and quartiles), and
the share of the watched runs' wall-clock time that was spent on drawing and sending.
"""

import copy
import os
import sys
import time
from dataclasses import dataclass

import nbformat
import numpy as np
import torch
import tyro
from nbclient import NotebookClient

import oscillab
import oscillab.show
from oscillab.runs import ROOT, SHIPPED, calibration_batches, hardware


@dataclass(frozen=True)
class Options:
    """What is measured."""

    bits: int = 4
    steps: int = 60
    batch_size: int = 16
    rounds: int = 5
    threads: int = 1


class Pair:
    """The same recorded run, to be made again and again, with or without the widget."""

    def __init__(self, options):
        torch.set_num_threads(options.threads)
        oscillab.seed_everything(0)
        pool = oscillab.Scenes(options.batch_size * options.steps, split="train")
        self.batches = oscillab.Batches(pool, size=160, batch_size=options.batch_size)
        detector = oscillab.load(SHIPPED)
        quant = oscillab.QuantSpec(bits=options.bits)
        self.model = oscillab.quantize(detector, quant, list(calibration_batches(self.batches)))
        self.shares, self.draw_counts = [], []

    async def run(self, *, watched):
        """The processor seconds of one run."""
        model = copy.deepcopy(self.model)
        spec = oscillab.TrainSpec(learning_rate=1e-3)
        trainer = oscillab.Trainer(model, oscillab.DetectionLoss(model), self.batches, spec, progress=False)
        with oscillab.record(model, trainer.optimizer) as recorder:
            begin = time.process_time()
            if not watched:
                trainer.fit()
                return time.process_time() - begin
            live = oscillab.show.live(recorder)
            await live.fit(trainer)
            seconds = time.process_time() - begin
        self.shares.append(live.draw_seconds / trainer.seconds)
        self.draw_counts.append(live.draw_count)
        return seconds


async def measure(options):
    """Print the table."""
    pair = Pair(options)
    await pair.run(watched=True)  # warm up: fonts, caches
    pair.shares.clear(), pair.draw_counts.clear()
    plain, watched = [], []
    for number in range(options.rounds):
        first = bool(number % 2)  # each comes first in turn
        runs = {first: await pair.run(watched=first), not first: await pair.run(watched=not first)}
        plain.append(runs[False])
        watched.append(runs[True])
    low, middle, high = np.quantile(np.array(watched) / plain, [0.25, 0.5, 0.75])
    print(f"{options.steps} steps, batch {options.batch_size}, {options.rounds} pairs, {hardware()}")
    print(f"recorded {np.median(plain):.2f} s, watched {np.median(watched):.2f} s, ratio {middle:.3f} ", end="")
    print(f"({low:.3f} .. {high:.3f})")
    print(f"drawing: {100 * np.mean(pair.shares):.2f} % of the time, {np.mean(pair.draw_counts):.0f} pictures a run")


def main(options):
    """Run `measure` in a kernel and print what it printed."""
    code = f"from benchmarks import live\nawait live.measure(live.{options!r})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    os.environ["PYTHONPATH"] = str(ROOT)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    for output in notebook.cells[0].outputs:
        sys.stdout.write(output.get("text", ""))


if __name__ == "__main__":
    main(tyro.cli(Options))

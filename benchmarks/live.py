"""Measure what it costs to watch a training run.

    python -m benchmarks.live --steps 60 --rounds 4

Two runs of the same steps from the same state, both recorded, one of them watched, take turns step by step in one kernel,
as a notebook has it, so that a busy moment meets both alike. What is counted are processor seconds. Those of all other
threads (the kernel's loop, its messages) belong to the watched run, as do making the widget, its first picture and its
last.

The same is done with nobody watching: that ratio is the measurement's own error, and what the idle threads take in a second
is subtracted above, as a machine that others use makes them wait long.
"""

import asyncio
import copy
import os
import sys
import time
from dataclasses import dataclass

import cv2
import nbformat
import numpy as np
import pandas as pd
import torch
import tyro
from nbclient import NotebookClient

import oscillab
import oscillab.plot
from oscillab.data.options import calibration_batches
from oscillab.plot.live_widget import Live
from oscillab.provenance import ROOT, SHIPPED, hardware


@dataclass(frozen=True)
class Options:
    """What is measured."""

    bits: int = 4
    steps: int = 60
    batch_size: int = 16
    rounds: int = 4
    threads: int = 1


class Runs:
    """Two runs of the same steps: seconds of each step, (2, steps), in `taken`."""

    def __init__(self, options, model, batches):
        self.options, self.batches, self.taken = options, batches, np.zeros((2, options.steps))
        self.trainers = [self._trainer(copy.deepcopy(model)) for _ in range(2)]

    def _trainer(self, model):
        spec = oscillab.TrainSpec(learning_rate=1e-3)
        return oscillab.Trainer(model, oscillab.DetectionLoss(model), self.batches, spec, progress=False)

    def step(self, which, number, batch):
        """Make a step of one of the two."""
        begin = time.thread_time()
        self.trainers[which].train_step(batch)
        self.taken[which, number] = time.thread_time() - begin

    def alternate(self):
        """Make all steps of both, each first in turn; processor and clock seconds of this thread."""
        begin = time.thread_time(), time.perf_counter()
        for number, batch in enumerate(self.batches.epoch(0)):
            for which in (0, 1) if number % 2 else (1, 0):
                self.step(which, number, batch)
        return time.thread_time() - begin[0], time.perf_counter() - begin[1]


class CountedLive(Live):
    """A Live that counts the figures that it draws."""

    count = 0

    def draw(self, headline=""):
        """Draw, and count it."""
        super().draw(headline)
        self.count += 1


async def measured(runs, *, watched):
    """Processor seconds of the first run, of the second, of all other threads; clock seconds; the widget or None."""
    first, second = runs.trainers
    live = None
    with oscillab.record(first.model, first.optimizer), oscillab.record(second.model, second.optimizer) as recorder:
        begin = time.process_time()
        if watched:
            live = CountedLive(recorder)
            second.callbacks.append(live)

        def drive():
            if watched:
                live.start(second)
            return runs.alternate()

        inside, clock = await (live.run(drive) if watched else asyncio.to_thread(drive))
        others = time.process_time() - begin - inside
    return *runs.taken.sum(1), others, clock, live


async def round_of(options, model, batches):
    """Return the numbers that `measure` prints of one round."""
    first, second, idle, clock, _ = await measured(Runs(options, model, batches), watched=False)
    bare, watched, others, longer, live = await measured(Runs(options, model, batches), watched=True)
    around = others - idle * longer / clock
    return {
        "nobody watching": second / first,
        "watched / not": (watched + around) / bare,
        "the widget's own seconds / the run's": around / bare,
        "seconds": bare,
        "figures": live.count,
    }


async def measure(options):
    """Print the table."""
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)  # its threads' seconds would be taken for the widget's
    oscillab.seed_everything(0)
    pool = oscillab.Scenes(options.batch_size * options.steps, split="train")
    batches = oscillab.Batches(pool, size=160, batch_size=options.batch_size)
    quant = oscillab.QuantSpec(bits=options.bits)
    model = oscillab.quantize(oscillab.load(SHIPPED), quant, list(calibration_batches(batches)))
    await warm_up(model)
    rounds = pd.DataFrame([await round_of(options, model, batches) for _ in range(options.rounds)])
    seconds, figures = rounds.pop("seconds").median(), rounds.pop("figures").mean()
    print(f"{options.steps} steps of batch {options.batch_size}, {options.rounds} rounds, {hardware()}")
    print(f"a run takes {seconds:.1f} processor seconds, {figures:.1f} figures while it runs")
    for name, ratios in rounds.items():
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"{name:38s} {middle:.4f}  ({low:.4f} .. {high:.4f})")


async def warm_up(model):
    """Show a widget once, so that fonts and caches are loaded, as in any notebook that has drawn before."""
    with oscillab.record(model, torch.optim.SGD(model.parameters(), lr=0.0)) as recorder:
        await oscillab.plot.live(recorder).run(lambda: None)


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

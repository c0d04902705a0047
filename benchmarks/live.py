"""What does it cost to watch a training run?

    python -m benchmarks.live --steps 60 --rounds 4

Two runs of the same steps from the same state, both recorded, one of them watched, take turns step by step in one kernel,
as a notebook has it, so that a busy moment meets both alike. What is counted are processor seconds. Those of all other
threads (the kernel's loop, its messages) belong to the watched run, as do making the widget, its first picture and its
last. The widget's clock counts processor seconds too, so that it draws as often as on a machine that nobody else uses.

The second line compares steps in the main thread with steps in a thread of their own, where the widget puts a run.
"""

import copy
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import nbformat
import numpy as np
import torch
import tyro
from nbclient import NotebookClient

import oscillab
import oscillab.show
from oscillab.runs import ROOT, SHIPPED, calibration_batches, hardware
from oscillab.show.pace import Pace
from oscillab.show.running import Live


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
        trainer = oscillab.Trainer(model, oscillab.DetectionLoss(model), self.batches, spec, progress=False)
        trainer._set_modes()
        return trainer

    def step(self, which, number, batch):
        """Make a step of one of the two."""
        begin = time.thread_time()
        self.trainers[which]._run_step(batch)
        self.taken[which, number] = time.thread_time() - begin

    def alternate(self, steps=None):
        """Make all steps of both, each first in turn; `steps`: what makes a step of each instead of `step`."""
        for number, batch in enumerate(self.batches.epoch(0)):
            for which in (0, 1) if number % 2 else (1, 0):
                (steps[which] if steps else self.step)(which, number, batch)


async def watched_ratio(options, model, batches):
    """Seconds of the watched run / of the other; the widget's own seconds / those; pictures; the other's seconds."""
    runs = Runs(options, model, batches)
    bare, watched = runs.trainers
    with oscillab.record(bare.model, bare.optimizer), oscillab.record(watched.model, watched.optimizer) as recorder:
        begin = time.process_time()
        live = Live(recorder, pace=Pace(clock=time.thread_time))
        watched.callbacks.append(live)

        def drive():
            live.start(watched)
            start = time.thread_time()
            runs.alternate()
            return time.thread_time() - start

        inside = await live.run(drive)
        others = time.process_time() - begin - inside
    plain, taken = runs.taken.sum(1)
    return (taken + others) / plain, (live.pace.seconds + others) / plain, live.pace.count, plain


def thread_ratio(options, model, batches):
    """Seconds of a run in a thread of its own / of the same run in this thread."""
    runs = Runs(options, model, batches)
    with ThreadPoolExecutor(1) as other:
        runs.alternate([runs.step, lambda *step: other.submit(runs.step, *step).result()])
    plain, threaded = runs.taken.sum(1)
    return threaded / plain


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
    watched = np.array([await watched_ratio(options, model, batches) for _ in range(options.rounds)])
    threaded = [thread_ratio(options, model, batches) for _ in range(options.rounds)]
    print(f"{options.steps} steps of batch {options.batch_size}, {options.rounds} rounds, {hardware()}")
    print(
        f"a run takes {np.median(watched[:, 3]):.1f} processor seconds, {np.mean(watched[:, 2]):.0f} pictures beside it"
    )
    tell("watched / not", watched[:, 0])
    tell("the widget's own seconds / the run's", watched[:, 1])
    tell("in a thread of its own / not", threaded)


async def warm_up(model):
    """Show a widget once, so that fonts and caches are loaded, as in any notebook that has drawn before."""
    with oscillab.record(model, torch.optim.SGD(model.parameters(), lr=0.0)) as recorder:
        await oscillab.show.live(recorder).run(lambda: None)


def tell(name, ratios):
    """Print the median and the quartiles of a ratio over the rounds."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"{name:38s} {middle:.4f}  ({low:.4f} .. {high:.4f})")


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

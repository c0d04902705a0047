"""What does it cost to leave the recorder on?

    python -m benchmarks.recorder --size 320 --batch-size 16 --rounds 3

One training run in which every batch is taken twice, with the recorder on and off in turn, ten batches a round, so that
a busy machine slows both alike; one tick in ten observes input ranges. The table gives the median and the quartiles of a
step with each and of the differences within the pairs, and the time spent in the recorder's own code, which a busy
machine blurs less. Times are wall-clock seconds of forward, loss, backward, Adam and recording.
"""

import time
from dataclasses import dataclass
from functools import wraps
from itertools import cycle, islice

import numpy as np
import torch
import tyro

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.provenance import hardware
from oscillab.quant import QuantSpec, quantize
from oscillab.recording.observers import RangeObserver
from oscillab.recording.recorder import record
from oscillab.train.config import TrainSpec
from oscillab.train.run import placed
from oscillab.train.trainer import Trainer
from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss

PAIRS = 10  # a round; the recorder observes ranges at every tenth tick


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: str = "yolov5n"
    bits: int = 4
    size: int = 320
    batch_size: int = 16
    rounds: int = 3
    threads: int = 1
    device: str = "cpu"


class Switch:
    """An optimizer's step hook that can be switched off, and the seconds spent in it."""

    def __init__(self, optimizer):
        self.param_groups, self._optimizer = optimizer.param_groups, optimizer
        self.on, self.seconds = True, 0.0

    def register_step_post_hook(self, hook):
        """Return the handle of `hook`, which is called while the switch is on."""
        return self._optimizer.register_step_post_hook(self.timed(hook))

    def timed(self, function):
        """Call `function`, its time counted; do nothing while the switch is off."""

        @wraps(function)
        def call(*arguments):
            if self.on:
                begin = time.perf_counter()
                function(*arguments)
                self.seconds += time.perf_counter() - begin

        return call


def start(options):
    """Return a trainer of a freshly quantized detector, and four batches for it."""
    dataset = Scenes(4 * options.batch_size, split="train", size=options.size)
    batches = Batches(dataset, size=options.size, batch_size=options.batch_size)
    torch.manual_seed(0)
    model = placed(zoo.build(options.model, classes=len(dataset.names)), options.device)
    pictures = [to_pixels(batches.batch(0, 0).images, options.device)]
    model = placed(quantize(model, QuantSpec(bits=options.bits), pictures), options.device)
    spec = TrainSpec(learning_rate=1e-4, warmup_steps=0)
    trainer = Trainer(model, DetectionLoss(model), batches, spec, progress=False)
    return trainer, list(batches.epoch(0))


def seconds_of(trainer, batch):
    """Return the wall time of a step."""
    begin = time.perf_counter()
    trainer.train_step(batch)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def main(options):
    """Print the table."""
    torch.set_num_threads(options.threads)
    trainer, batches = start(options)
    switch, steps = Switch(trainer.optimizer), {True: [], False: []}
    RangeObserver._look, look = switch.timed(RangeObserver._look), RangeObserver._look
    seconds_of(trainer, batches[0])  # the first step allocates
    with record(trainer.model, switch) as recorder:
        for number, batch in enumerate(islice(cycle(batches), PAIRS * options.rounds)):
            for switch.on in (True, False) if number % 2 else (False, True):
                steps[switch.on].append(seconds_of(trainer, batch))
        size, windows = recorder.bytes_per_weight(), recorder.windows.nbytes / recorder.layers.weight_count
    RangeObserver._look = look
    print_table(options, steps, switch.seconds / len(steps[True]))
    print(f"memory           {size:.0f} bytes a weight, and 2 of scratch; windows of time {windows:.2f} compressed")


def print_table(options, steps, inside):
    """Print the time of a step with the recorder on and off, and that spent inside it, in seconds."""
    print(
        f"{options.model} W{options.bits}A{options.bits}, batch {options.batch_size}, {options.size} pixels, ", end=""
    )
    print(f"n {len(steps[True])} steps each, {hardware(options.device)}")
    off = np.median(steps[False])
    for on, name in ((False, "recorder off"), (True, "recorder on")):
        low, median, high = np.quantile(steps[on], [0.25, 0.5, 0.75])
        print(f"{name:16s} {median:7.3f} s  ({low:.3f} .. {high:.3f})  ratio {median / off:.3f}")
    low, median, high = np.quantile(np.array(steps[True]) - np.array(steps[False]), [0.25, 0.5, 0.75])
    print(f"difference       {median:7.3f} s  ({low:.3f} .. {high:.3f})  {100 * median / off:.2f} % of a step")
    print(f"inside it        {inside:7.4f} s  a step on average, {100 * inside / off:.2f} % of a step")


if __name__ == "__main__":
    main(tyro.cli(Options))

"""What does a quantized, recorded step cost beside a float one?

    python -m benchmarks.steps --size 160 --batch-size 8 --rounds 11

Every variant takes one step in turn, `rounds` times, so that a busy machine slows all alike; the table gives the median,
the quartiles and the ratio of medians to the float step. Times are wall-clock seconds of forward, loss, backward, Adam.
"""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from oscillab.coco.batches import Batches
from oscillab.coco.scenes import Scenes
from oscillab.qat.train import Trainer, TrainSpec, to_pixels
from oscillab.quant import QuantSpec, quantize
from oscillab.record.recorder import record
from oscillab.runs import hardware, placed
from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: str = "yolov5n"
    bits: int = 4
    size: int = 160
    batch_size: int = 8
    rounds: int = 11
    warmup: int = 2
    threads: int = 1
    device: str = "cpu"


class Variant:
    """One way to train: its own copy of the model, its own optimizer, perhaps a recorder."""

    def __init__(self, model, batches, *, autocast=False, recorded=False):
        spec = TrainSpec(learning_rate=1e-4, warmup_steps=0, autocast=autocast)
        self.trainer = Trainer(model, DetectionLoss(model), batches, spec, progress=False)
        self.trainer._set_modes()
        self.recording = record(model, self.trainer.optimizer) if recorded else nullcontext()
        self.seconds = []

    def step(self, batch):
        """One optimizer step; the recorder is attached, as it is in training."""
        begin = time.perf_counter()
        self.trainer._run_step(batch)
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - begin)


def variants(options, batches):
    """The variants by name, all from the same weights."""
    torch.manual_seed(0)
    model = placed(zoo.build(options.model, classes=len(batches.dataset.names)), options.device)
    pictures = [to_pixels(batches.batch(0, 0).images, options.device)]
    quantized = quantize(copy.deepcopy(model), QuantSpec(bits=options.bits), pictures)
    return {
        "float": Variant(copy.deepcopy(model), batches),
        "float, bf16": Variant(copy.deepcopy(model), batches, autocast=True),
        "LSQ": Variant(copy.deepcopy(quantized), batches),
        "LSQ, bf16": Variant(copy.deepcopy(quantized), batches, autocast=True),
        "LSQ + recorder": Variant(copy.deepcopy(quantized), batches, recorded=True),
    }


def main(options):
    """Print the table."""
    torch.set_num_threads(options.threads)
    count = options.batch_size * (options.rounds + options.warmup)
    batches = Batches(Scenes(count, split="train", size=options.size), size=options.size, batch_size=options.batch_size)
    runs = variants(options, batches)
    for run in runs.values():
        run.recording.__enter__()
    for batch in batches.epoch(0):
        for run in runs.values():
            run.step(batch)
    print(
        f"{options.model} W{options.bits}A{options.bits}, batch {options.batch_size}, {options.size} pixels, ", end=""
    )
    print(f"n {options.rounds}, {hardware(options.device)}")
    first = None
    for name, run in runs.items():
        seconds = np.array(run.seconds[options.warmup :])
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        first = first or median
        print(f"{name:16s} {median:7.3f} s  ({low:.3f} .. {high:.3f})  ratio {median / first:.3f}")
    for run in runs.values():
        run.recording.__exit__(None, None, None)


if __name__ == "__main__":
    main(tyro.cli(Options))

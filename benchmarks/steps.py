"""What does a quantized, recorded, repaired step cost beside a float one, and what do peers pay?

    python -m benchmarks.steps --size 160 --batch-size 8 --rounds 21

Every variant takes one step a round (see interleaved.py); a step is forward, loss, backward, clipping and Adam. The
second table has the recorder and the remedies against the LSQ step. `--device cuda --autocast` measures on a GPU.
"""

import copy
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import tyro

from benchmarks.interleaved import interleave, print_table
from benchmarks.peers import PEERS
from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.provenance import hardware
from oscillab.quant import QuantSpec, quantize
from oscillab.quant.kernel import kernel_off
from oscillab.recording.recorder import record
from oscillab.train.config import TrainSpec
from oscillab.train.remedies.dampening import Dampening
from oscillab.train.remedies.freezing import Freezing
from oscillab.train.run import placed
from oscillab.train.trainer import Trainer
from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss

FROZEN = 0.05  # share of weights that are frozen while freezing is timed
MANY = 10**6  # steps of a run, so that a remedy's share of it stays what it is


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: str = "yolov5n"
    bits: int = 4
    size: int = 160
    batch_size: int = 8
    rounds: int = 21
    warmup: int = 3
    threads: int = 1
    device: str = "cpu"
    autocast: bool = False
    peers: bool = True
    compiled: bool = False
    """a step by torch.compile as well, which takes minutes to compile"""


class Run:
    """One way to train: its own copy of the model, its own optimizer, perhaps a recorder or a remedy."""

    def __init__(self, model, batches, *, autocast=False, recorded=False, remedy=None, compiled=False):
        self.batches = batches
        spec = TrainSpec(learning_rate=1e-4, warmup_steps=0, autocast=autocast, compile=compiled)
        self.trainer = Trainer(model, DetectionLoss(model), batches, spec, progress=False)
        self.stack = ExitStack()
        if compiled:
            self.stack.enter_context(self.trainer.ready())
        if remedy:
            made = self.stack.enter_context(remedy(model, self.trainer.optimizer))
            self.trainer.loss = made.loss(self.trainer.loss)
        if recorded:
            self.stack.enter_context(record(model, self.trainer.optimizer))

    def step(self, number):
        """One optimizer step."""
        self.trainer.train_step(self.batches[number % len(self.batches)])


class Served(list):
    """Batches that are drawn already, with the length that a trainer asks for."""


def dampening(model, optimizer):
    """Dampening in the middle of a run."""
    made = Dampening(model, optimizer, MANY, begin=0.0)
    made.step_count = MANY // 2
    return made


def freezing(model, optimizer):
    """Freezing in the middle of a run, a part of the weights frozen already."""
    made = Freezing(model, optimizer, MANY, begin=0.0)
    made.step_count = MANY // 2
    frozen = torch.rand(made.states.frozen.shape, generator=torch.Generator().manual_seed(0)) < FROZEN
    made.states.frozen.copy_(frozen)
    made.states.frozen_state.copy_(made.states.tracker.state * made.states.frozen)
    made._any = True
    return made


def start(options, count=4):
    """Return a float detector, the same quantized, and `count` batches."""
    torch.set_num_threads(options.threads)
    dataset = Scenes(count * options.batch_size, split="train", size=options.size)
    batches = Batches(dataset, size=options.size, batch_size=options.batch_size)
    torch.manual_seed(0)
    model = placed(zoo.build(options.model, classes=len(dataset.names)), options.device)
    served = Served(batches.epoch(0))
    pictures = [to_pixels(served[0].images, options.device)]
    quantized = quantize(copy.deepcopy(model), QuantSpec(bits=options.bits), pictures)
    return model, placed(quantized, options.device), served


def by_torch(run):
    """Return a step of `run` on torch's own operations."""

    def step(number):
        with kernel_off():
            run.step(number)

    return step


def variants(options, model, quantized, batches):
    """Return the runs by name, all from the same weights."""
    made = {name: copy.deepcopy(quantized) for name in ("LSQ", "LSQ + recorder", "LSQ + dampening", "LSQ + freezing")}
    same = {"autocast": options.autocast}
    runs = {
        "float": Run(copy.deepcopy(model), batches, **same),
        "LSQ": Run(made["LSQ"], batches, **same),
        "LSQ + recorder": Run(made["LSQ + recorder"], batches, recorded=True, **same),
        "LSQ + dampening": Run(made["LSQ + dampening"], batches, remedy=dampening, **same),
        "LSQ + freezing": Run(made["LSQ + freezing"], batches, remedy=freezing, **same),
    }
    steps = {name: run.step for name, run in runs.items()}
    steps["LSQ, torch's operations"] = by_torch(Run(copy.deepcopy(quantized), batches, **same))
    if options.compiled:
        steps["LSQ, torch.compile"] = Run(copy.deepcopy(quantized), batches, compiled=True, **same).step
    if options.peers:
        steps |= peers(options, model, batches)
    return steps


def peers(options, model, batches):
    """Return the steps of the peers that are installed, by name; says why one is left out."""
    steps = {}
    for name, make in PEERS.items():
        try:
            peer = placed(make(copy.deepcopy(model), options.bits), options.device)
            run = Run(peer, batches, autocast=options.autocast)
            run.step(0)
        except (ImportError, AttributeError, RuntimeError) as error:
            print(f"{name}: left out ({str(error).splitlines()[0]})")
            continue
        steps[name] = run.step
    return steps


def main(options):
    """Print the tables."""
    model, quantized, batches = start(options)
    about = f"{options.model} W{options.bits}A{options.bits}, batch {options.batch_size}, {options.size} pixels"
    seconds = interleave(
        variants(options, model, quantized, batches), options.rounds, warmup=options.warmup, device=options.device
    )
    print(f"{about}, n {options.rounds}, {hardware(options.device)}{', bfloat16' * options.autocast}")
    print_table(seconds)
    print("against the LSQ step")
    print_table(
        {name: taken for name, taken in seconds.items() if name.startswith("LSQ +")} | {"LSQ": seconds["LSQ"]},
        base="LSQ",
    )


if __name__ == "__main__":
    main(tyro.cli(Options))

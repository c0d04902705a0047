"""Which EMA decay suits a run of a few hundred steps? One QAT run with several averages beside it.

    python -m benchmarks.ema_decays --bits 3 --steps 500 --decays 0.98 0.988 0.992 0.994 0.996

Prints the mAP of the live network and of each average on 500 held-out scenes, and how much of each oscillates.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from oscillab.data.evaluate import evaluate
from oscillab.data.options import DataOptions, DataSource
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec
from oscillab.quant.exact import exact_or_float
from oscillab.recording.recorder import record
from oscillab.recording.tables import flip_rate, oscillating_share
from oscillab.train.callbacks import MoveEma
from oscillab.train.config import RunOptions, TrainSpec
from oscillab.train.ema import Ema, ramp_for
from oscillab.train.run import prepare, prepare_qat
from oscillab.train.trainer import Trainer
from oscillab.yolo import checkpoint
from oscillab.yolo.loss import DetectionLoss


@dataclass(frozen=True)
class Options:
    """The run and the averages beside it."""

    weights: Path = SHIPPED
    bits: int = 3
    steps: int = 500
    decays: tuple[float, ...] = (0.98, 0.988, 0.992, 0.994, 0.996)
    learning_rate: float = 1e-3
    seed: int = 0
    data: DataOptions = field(default_factory=DataOptions)


def main(options):
    """Print a line for the live network and one for each average."""
    data = options.data
    spec = TrainSpec(learning_rate=options.learning_rate, schedule="constant", autocast=True)
    one_pass = DataOptions(count=options.steps * data.batch_size, held_out=data.held_out)
    prepare(RunOptions(seed=options.seed))
    batches = DataSource(one_pass).training_batches(options.seed)
    model, batches = prepare_qat(checkpoint.load(options.weights), batches, QuantSpec(options.bits))
    trainer = Trainer(model, DetectionLoss(model), batches, spec)
    averages = {decay: Ema(model, decay=decay, ramp=ramp_for(options.steps)) for decay in options.decays}
    trainer.callbacks += [MoveEma(ema) for ema in averages.values()]
    with ExitStack() as stack:
        recorders = [stack.enter_context(record(model, trainer.optimizer))]
        recorders += [stack.enter_context(record(ema.model, ema)) for ema in averages.values()]
        trainer.fit()
    networks = [model, *(ema.model for ema in averages.values())]
    for name, network, recorder in zip(["live", *averages], networks, recorders, strict=True):
        score, recording = (
            evaluate(exact_or_float(network), DataSource(one_pass).held_out(), size=one_pass.size).map,
            recorder.recording(),
        )
        share, rate = oscillating_share(recording), flip_rate(recording)
        print(f"{name!s:>6}  mAP {score:.3f}  oscillating {share:.1%}  flips/step {rate:.3%}")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))

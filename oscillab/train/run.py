"""Run pretraining, QAT and correction on objects: a model, its batches, a configuration, a place to write.

The command line and the study call these; options, data sets and measuring are theirs. Under torchrun every process calls
them, each with the same arguments: all train, rank 0 calibrates, records and writes.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from oscillab.data.options import calibration_batches
from oscillab.io import write_json
from oscillab.quant import QuantSpec, is_quantized, quantize
from oscillab.quant.fold import fold
from oscillab.recording.recorder import record
from oscillab.train.callbacks import CountFlips, KeepCheckpoint, MoveEma
from oscillab.train.correct import Choices, correct
from oscillab.train.distributed import group
from oscillab.train.ema import Ema, decay_for, ramp_for
from oscillab.train.keep import LossLog, continue_from, save_run
from oscillab.train.options import placed
from oscillab.train.remedies import AVERAGES, treat
from oscillab.train.spec import TrainSpec
from oscillab.train.trainer import Callback, Trainer
from oscillab.yolo import checkpoint
from oscillab.yolo.loss import build_loss


@dataclass(frozen=True)
class QatConfig:
    """How a float detector is quantized and trained."""

    quant: QuantSpec = field(default_factory=QuantSpec)
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=6, learning_rate=1e-3, schedule="constant"))
    ema_decay: float | None = None
    """None: a horizon of a quarter of the run, at most the paper's 0.9999"""
    ema_ramp: float | None = None
    """updates over which EMA's decay grows from 0; None: a fifth of the horizon, as YOLOv5's 2,000 are of 10,000"""
    remedy: Literal["none", "dampening", "freezing", "scale_freezing", "q_ema"] = "none"
    """what acts against oscillations during training, beside the passive EMA"""
    averages: tuple[Literal["ema", "ema_weights", "ema_step_sizes", "ema_buffers"], ...] = ("ema",)
    """the passive averages, each to a file of its name; the last three average one part and copy the rest"""
    checkpoint_every: int = 200
    """optimizer steps between checkpoints"""


def run_pretraining(
    model: nn.Module,
    batches: Any,
    spec: TrainSpec,
    out: Path,
    *,
    ema_decay: float = 0.999,
    progress: bool = True,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a float detector and write its average to `out`, the log to <out>.csv; return its steps and seconds.

    The checkpoint <out>.last is left for the caller to delete once everything that follows is done.
    """
    ema, last = Ema(model, decay=ema_decay, ramp=200), out.with_suffix(".last")
    trainer = Trainer(model, build_loss(model), batches, spec, title=model.name, progress=progress)
    if resume:
        continue_from(last, trainer, averages={"ema": ema})
    keep = KeepCheckpoint(lambda trainer: save_run(last, trainer, averages={"ema": ema}))
    trainer.callbacks += [MoveEma(ema), keep, LossLog(out.with_suffix(".csv"), append=resume)]
    trainer.fit()
    if trainer.interrupted:
        return interruption(trainer, last)
    checkpoint.save(ema.model, out, half=True)
    return {"steps": trainer.step, "seconds": trainer.seconds}


def prepare_qat(model: nn.Module, batches: Any, spec: QuantSpec, *, device: str = "cpu") -> tuple[nn.Module, Any]:
    """Quantize and calibrate a float detector (in place); return it on `device`, and this process's part of `batches`.

    Of several processes rank 0 calibrates, on whole batches; the others take over what it found.
    """
    if is_quantized(model):
        raise ValueError("the model is already quantized; QAT starts from a float one")
    members = group()
    images = calibration_batches(batches) if members.leader else None
    model = members.with_leaders_state(quantize(placed(model, "cpu"), spec, images))
    return placed(model, device), members.share(batches)


def run_qat(
    model: nn.Module,
    batches: Any,
    config: QatConfig,
    out: Path,
    *,
    seed: int = 0,
    progress: bool = True,
    resume: bool = False,
    callbacks: Iterable[Callback] = (),
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train what `prepare_qat` made, with averages beside it and every flip recorded; return what was measured.

    `out` gets lsq.pt (the live network), a file for each average, lsq.npz and ema.npz (recordings), log.csv and run.json,
    which holds `about` and what was measured; last.pt while the run goes on, which `resume` continues to the same result.
    `callbacks`: more of them, in every process.
    """
    members = group()
    title, progress = f"QAT {config.quant.bits} bit", progress and members.leader
    trainer = Trainer(model, build_loss(model), batches, config.train, title=title, progress=progress, members=members)
    last = out / "last.pt"
    with ExitStack() as stack:
        remedy = stack.enter_context(treat(trainer, config.remedy))
        averages = averages_of(model, config, trainer.total_steps)
        watched = {"lsq": (model, trainer.optimizer)} | {
            "ema": (ema.model, ema) for ema in [averages.get("ema")] if ema
        }
        recorders = {
            name: stack.enter_context(record(network, trainer.clock.timed(steps, "recorder"), seed=seed))
            for name, (network, steps) in watched.items()
        }
        parts = {"averages": averages, "recorders": recorders, "remedies": {config.remedy: remedy}}
        if resume:
            continue_from(last, trainer, **parts)
        trainer.callbacks += [*(MoveEma(average) for average in averages.values()), *callbacks]
        if members.leader:
            keep = KeepCheckpoint(lambda trainer: save_run(last, trainer, **parts), every=config.checkpoint_every)
            trainer.callbacks += [CountFlips(recorders["lsq"]), LossLog(out / "log.csv", append=resume), keep]
        trainer.fit()
        for name, recorder in recorders.items() if members.leader else ():
            recorder.recording().save(out / f"{name}.npz")
    if trainer.interrupted:
        return interruption(trainer, last)
    decay = next((average.decay for average in averages.values()), None)
    measured = {"steps": trainer.step, "seconds": trainer.seconds, "ema_decay": decay, "processes": members.count}
    if members.leader:
        for name, network in {"lsq": model, **{name: average.model for name, average in averages.items()}}.items():
            checkpoint.save(remedy.settle(network), out / f"{name}.pt")
        write_json(out / "run.json", (about or {}) | measured)
        last.unlink(missing_ok=True)
    members.wait()  # for the files, which another command may read next
    return measured


def averages_of(model: nn.Module, config: QatConfig, total_steps: int) -> dict[str, Ema]:
    """Return the averages that the configuration names, by name; decay and ramp suit a run of `total_steps`."""
    decay = decay_for(total_steps) if config.ema_decay is None else config.ema_decay
    ramp = ramp_for(total_steps) if config.ema_ramp is None else config.ema_ramp
    return {name: Ema(model, decay=decay, ramp=ramp, parts=AVERAGES[name]) for name in config.averages}


def run_correction(
    model: nn.Module,
    batches: Any,
    out: Path,
    *,
    spec: TrainSpec,
    choices: Choices,
    progress: bool = True,
) -> dict[str, Any]:
    """Train QC on a quantized detector, fold it away (in place) and write the detector to `out`; return steps and path."""
    if not is_quantized(model):
        raise ValueError("the model is a float network: QC corrects a quantized one, which `oscillab qat` trains")
    members = group()
    batches = members.share(batches)
    progress = progress and members.leader
    fold(correct(model, batches, spec=spec, choices=choices, progress=progress, members=members))
    if members.leader:
        checkpoint.save(model, out)
    members.wait()
    return {"steps": spec.epochs * len(batches), "out": str(out)}


def interruption(trainer: Trainer, checkpoint: Path) -> dict[str, Any]:
    """Return what a run that was stopped reports."""
    return {"interrupted": True, "step": trainer.step, "checkpoint": str(checkpoint)}

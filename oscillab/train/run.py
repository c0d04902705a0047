"""Run pretraining, QAT and correction on objects: a model, its batches, a configuration, a place to write.

Options, data sets and measuring are the callers'. Under torchrun every process calls these with the same arguments: all
train, rank 0 calibrates, records and writes.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from oscillab import methods
from oscillab.data.options import calibration_batches
from oscillab.io import write_json
from oscillab.quant import QuantSpec, is_quantized, quantize
from oscillab.quant.fold import fold
from oscillab.recording.recorder import record
from oscillab.train.callbacks import LossLog, MoveEma, SaveCheckpoint, resume_from, save_checkpoint
from oscillab.train.config import HORIZON_SHARE, Choices, RunOptions, TrainSpec
from oscillab.train.correction import correct
from oscillab.train.ddp import current_world
from oscillab.train.ema import Ema
from oscillab.train.remedies import Remedy
from oscillab.train.trainer import Trainer, seed_everything
from oscillab.yolo import checkpoint
from oscillab.yolo.graph import Detector
from oscillab.yolo.loss import build_loss


@dataclass(frozen=True)
class QatConfig:
    """How a float detector is quantized and trained."""

    quant: QuantSpec = field(default_factory=QuantSpec)
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=6, learning_rate=1e-3, schedule="official"))
    ema_decay: float | None = None
    """share of the average that a step keeps; by default that of `ema_horizon`, at most the paper's 0.9999"""
    ema_horizon: float = HORIZON_SHARE
    """1 / (1 - decay) as a share of the run; the paper's 0.9999 is 0.054 of its 184,900 steps"""
    ema_ramp: float | None = None
    """updates over which EMA's decay grows from 0; None: a fifth of the horizon, as YOLOv5's 2,000 are of 10,000"""
    remedy: str = "none"
    """what acts against oscillations during training, beside the passive EMA"""
    averages: tuple[str, ...] = ("ema",)
    """the passive averages, each to a file of its name; the last three average one part and copy the rest"""
    checkpoint_every: int = 200
    """optimizer steps between checkpoints"""


def run_pretraining(
    model: Detector, batches: Any, spec: TrainSpec, out: Path, *, ema_decay: float, progress: bool, resume: bool
) -> dict[str, Any]:
    """Train a float detector and write its average to `out`, the log to <out>.csv; return its steps and seconds.

    The checkpoint <out>.last is left for the caller to delete once everything that follows is done.
    """
    ema, last = Ema(model, decay=ema_decay, ramp=200), out.with_suffix(".last")
    trainer = Trainer(model, build_loss(model), batches, spec, title=model.name, progress=progress)
    if resume:
        resume_from(last, trainer, averages={"ema": ema})
    save = SaveCheckpoint(lambda trainer: save_checkpoint(last, trainer, averages={"ema": ema}))
    trainer.callbacks += [MoveEma(ema), save, LossLog(out.with_suffix(".csv"), append=resume)]
    trainer.fit()
    if trainer.interrupted:
        return {"interrupted": True, "step": trainer.step, "checkpoint": str(last)}
    averaged: Any = ema.model
    checkpoint.save(averaged, out, half=True, size=getattr(batches, "size", None))
    return {"steps": trainer.step, "seconds": trainer.seconds}


def prepare_qat(model: Detector, batches: Any, spec: QuantSpec, *, device: str = "cpu") -> tuple[Detector, Any]:
    """Quantize and calibrate a float detector (in place); return it on `device`, and this process's part of `batches`.

    Of several processes rank 0 calibrates, on whole batches; the others take over what it found.
    """
    if is_quantized(model):
        raise ValueError("the model is already quantized; QAT starts from a float one")
    world = current_world()
    images = calibration_batches(batches) if world.is_main else None
    world.broadcast_state(quantize(placed(model, "cpu"), spec, images))
    return placed(model, device), world.shard(batches)


def run_qat(
    model: Detector,
    batches: Any,
    config: QatConfig,
    out: Path,
    *,
    seed: int = 0,
    progress: bool = True,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train what `prepare_qat` made, with averages beside it and every flip recorded; return what was measured.

    `out` gets lsq.pt (the live network), a file for each average, lsq.npz and ema.npz (recordings), log.csv and run.json
    with `about`; last.pt while the run goes on, which `resume` continues.
    """
    world, last = current_world(), out / "last.pt"
    trainer = Trainer(model, build_loss(model), batches, config.train, world=world, progress=progress and world.is_main)
    trainer.title = f"QAT {config.quant.bits} bit"
    model.size = getattr(batches, "size", None) or getattr(model, "size", None)  # the averages copy it
    with ExitStack() as stack:
        remedy, averages, recorders = _beside(stack, trainer, config, seed)
        parts: dict[str, Any] = {"averages": averages, "recorders": recorders, "remedies": {config.remedy: remedy}}
        if resume:
            resume_from(last, trainer, **parts)
        trainer.callbacks += map(MoveEma, averages.values())
        if world.is_main:
            saves = SaveCheckpoint(partial(save_checkpoint, last, **parts), every=config.checkpoint_every)
            trainer.callbacks += [LossLog(out / "log.csv", append=resume), saves]
            trainer.notes["flips"] = recorders["lsq"].last_flip_count
        trainer.fit()
    for name, recorder in recorders.items() if world.is_main else ():
        recorder.recording().save(out / f"{name}.npz")
    if trainer.interrupted:
        return {"interrupted": True, "step": trainer.step, "checkpoint": str(last)}
    decay = next((average.decay for average in averages.values()), None)
    measured = {"steps": trainer.step, "seconds": trainer.seconds, "ema_decay": decay, "processes": world.size}
    _finish(out, model, averages, remedy, {**(about or {}), **measured})
    return measured


def _beside(stack: ExitStack, trainer: Trainer, config: QatConfig, seed: int) -> tuple[Remedy, dict[str, Ema], Any]:
    """Attach the remedy, build the averages, and record the live network and the whole average until the stack ends."""
    remedy = stack.enter_context(apply_remedy(trainer, config.remedy))
    how = {"decay": config.ema_decay, "ramp": config.ema_ramp, "horizon": config.ema_horizon}
    averages = {}
    for name in config.averages:
        own = methods.method(name).options
        chosen = how | ({"decay": None, "ramp": None} if "horizon" in own else {}) | dict(own)
        averages[name] = methods.method(name).apply(trainer.model, trainer.total_steps, **chosen)
    watched: dict[str, Any] = {"lsq": (trainer.model, trainer.optimizer)}
    if ema := averages.get("ema"):
        watched["ema"] = (ema.model, ema)
    return remedy, averages, {name: stack.enter_context(record(*two, seed=seed)) for name, two in watched.items()}


def _finish(out: Path, model: Any, averages: dict[str, Ema], remedy: Remedy, about: dict[str, Any]) -> None:
    """Write the networks and run.json in the main process; the checkpoint goes last, for a crash in between."""
    if current_world().is_main:
        for name, network in {"lsq": model, **{name: average.model for name, average in averages.items()}}.items():
            checkpoint.save(remedy.finalize(network), out / f"{name}.pt")
        write_json(out / "run.json", about)
        (out / "last.pt").unlink(missing_ok=True)
    current_world().barrier()  # another command may read the files next


def apply_remedy(trainer: Trainer, name: str, **options: Any) -> Remedy:
    """Return the registered remedy of that name, "none" for none, to be attached to `trainer`, whose loss it may change.

    Raises ValueError for a name that is no registered remedy.
    """
    known = methods.remedies()
    if name not in ("none", *known):
        raise ValueError(f"remedy must be one of none, {', '.join(known)}, got {name}")
    how = methods.method("lsq" if name == "none" else name)
    remedy: Remedy = how.apply(trainer.model, trainer.optimizer, trainer.total_steps, **options)
    trainer.loss = remedy.loss(trainer.loss)
    return remedy


def run_correction(
    model: Detector, batches: Any, out: Path, *, spec: TrainSpec, choices: Choices, progress: bool = True
) -> dict[str, Any]:
    """Train QC on a quantized detector, fold it away (in place) and write the detector to `out`; return steps and path."""
    if not is_quantized(model):
        raise ValueError("the model is a float network: QC corrects a quantized one, which `oscillab qat` trains")
    world = current_world()
    batches, progress = world.shard(batches), progress and world.is_main
    fold(correct(model, batches, spec=spec, choices=choices, progress=progress, world=world))
    if world.is_main:
        checkpoint.save(model, out, size=getattr(batches, "size", None))
    world.barrier()
    return {"steps": spec.epochs * len(batches), "out": str(out)}


def prepare(options: RunOptions) -> None:
    """Set threads and seeds as the options say; called first in every command."""
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {options.device} needs a GPU that this torch can use; allowed here: cpu")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    seed_everything(options.seed)


def placed(model: Detector, device: str) -> Detector:
    """Move the model to its device, channels last, which is a third faster on CPUs (in place)."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub

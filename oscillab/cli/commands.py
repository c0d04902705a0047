"""What do the commands `pretrain`, `qat`, `correct` and `evaluate` do?

Each is a frozen dataclass of plain values, the command line's options, and one function that carries it out and returns
what it measured. A study runs the same functions over a grid.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oscillab.data.options import DataOptions, calibration_batches, check_classes, held_out, training_batches
from oscillab.io import write_json
from oscillab.provenance import SHIPPED, provenance
from oscillab.quant import QuantSpec, is_quantized, quantize
from oscillab.quant.fold import fold
from oscillab.recording.recorder import record
from oscillab.train.accuracy import evaluate
from oscillab.train.callbacks import CountFlips, KeepCheckpoint, MoveEma
from oscillab.train.correct import Choices, correct
from oscillab.train.distributed import group
from oscillab.train.ema import Ema, decay_for, ramp_for
from oscillab.train.keep import LossLog, continue_from, save_run
from oscillab.train.options import RunOptions, placed, prepare
from oscillab.train.remedies import AVERAGES, treat
from oscillab.train.spec import TrainSpec
from oscillab.train.tensorboard import TensorBoard
from oscillab.train.trainer import Trainer
from oscillab.yolo import begin, files, zoo
from oscillab.yolo.loss import build_loss


@dataclass(frozen=True)
class Pretrain:
    """Train a float detector, from scratch or from what another one has learned."""

    model: str = "yolov5n"
    """a name of the zoo"""
    out: Path = Path("runs/yolov5n-scenes.pt")
    """the checkpoint to write; <out>.json beside it says how it was made"""
    train: TrainSpec = field(
        default_factory=lambda: TrainSpec(epochs=48, learning_rate=3e-3, autocast=True, warmup_steps=200)
    )
    data: DataOptions = field(default_factory=lambda: DataOptions(count=2048, batch_size=32))
    run: RunOptions = field(default_factory=RunOptions)
    start: Path | None = None
    """a float checkpoint: every tensor whose name and shape match is taken from it; None: all start at random"""
    anchors: Literal["keep", "auto"] = "keep"
    """'auto' fits other anchors to the data where the present ones can answer for at most 98 % of its boxes"""
    ema_decay: float = 0.999
    """of the average that is written; its horizon 1 / (1 - decay) suits a run of at least three times as many steps"""
    resume: bool = False
    """continue from <out>.last"""


def pretrain(options):
    """The measured mAP of a detector that was trained and written to `options.out`, as a mapping."""
    prepare(options.run)
    batches = training_batches(options.data, options.run.seed, masks=options.model.endswith("-seg"))
    names = batches.dataset.names
    model = placed(zoo.build(options.model, classes=len(names), names=names), options.run.device)
    taken = begin.load_matching_weights(model, options.start) if options.start else 0
    choice = {"choice": options.anchors, "seed": options.run.seed}
    recall = begin.auto_anchor(model, batches.dataset, options.data.size, **choice)
    ema = Ema(model, decay=options.ema_decay, ramp=200)
    trainer = Trainer(
        model, build_loss(model), batches, options.train, title=options.model, progress=options.run.progress
    )
    last = options.out.with_suffix(".last")
    if options.resume:
        continue_from(last, trainer, averages={"ema": ema})
    keep = KeepCheckpoint(lambda trainer: save_run(last, trainer, averages={"ema": ema}))
    trainer.callbacks += [MoveEma(ema), keep, LossLog(options.out.with_suffix(".csv"), append=options.resume)]
    trainer.fit()
    if trainer.interrupted:
        return {"interrupted": True, "step": trainer.step, "checkpoint": str(last)}
    files.save(ema.model, options.out, half=True)
    model = placed(files.load(options.out), options.run.device)
    measured = measure(model, held_out(options.data, masks=model.task == "segment"), options.data.size) | {
        "tensors_taken": taken,
        "anchor_recall": recall,
        "seconds": trainer.seconds,
    }
    write_json(options.out.with_suffix(".json"), provenance(options, device=options.run.device, **measured))
    last.unlink(missing_ok=True)
    return measured


@dataclass(frozen=True)
class Qat:
    """Quantize a float detector and train it, with an EMA beside it and every flip recorded."""

    weights: Path = SHIPPED
    """a float checkpoint, official or oscillab's"""
    out: Path = Path("runs/qat")
    """the folder for lsq.pt (the live network), ema.pt, lsq.npz, ema.npz (recordings), log.csv, run.json"""
    quant: QuantSpec = field(default_factory=QuantSpec)
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=6, learning_rate=1e-3, schedule="constant"))
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)
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
    resume: bool = False
    """continue from last.pt in `out`, to the same result"""
    tensorboard: bool = False
    """also write scalars for TensorBoard to `out`/tensorboard; needs the extra of that name"""


def start_qat(options):
    """The quantized, calibrated model and its training batches, before the first step.

    Of several processes the leader calibrates, on whole batches; the others take over what it found.
    """
    prepare(options.run)
    model = files.load(options.weights)
    batches = training_batches(options.data, options.run.seed, masks=model.task == "segment")
    if is_quantized(model):
        raise ValueError(f"{options.weights} is already quantized; start from a float checkpoint")
    check_classes(model, batches.dataset, options.weights)
    members = group()
    pictures = calibration_batches(batches) if members.leader else None
    model = members.with_leaders_state(quantize(placed(model, "cpu"), options.quant, pictures))
    return placed(model, options.run.device), members.share(batches)


def qat(options, *, start=None, watch=()):
    """What one QAT run measured: steps, seconds and the files it wrote; `start` is a result of `start_qat`.

    `watch`: more callbacks. Of several processes all train, average and compare, the leader records and writes.
    """
    members, board = group(), scalars(options)
    model, batches = start or start_qat(options)
    total = options.train.epochs * len(batches)
    decay = decay_for(total) if options.ema_decay is None else options.ema_decay
    title = f"QAT {options.quant.bits} bit"
    progress = options.run.progress and members.leader
    trainer = Trainer(model, build_loss(model), batches, options.train, title=title, progress=progress, members=members)
    remedy = treat(trainer, options.remedy)
    ramp = ramp_for(total) if options.ema_ramp is None else options.ema_ramp
    averages = {name: Ema(model, decay=decay, ramp=ramp, parts=AVERAGES[name]) for name in options.averages}
    with ExitStack() as stack:
        watched = {"lsq": (model, trainer.optimizer)}
        watched |= {name: (average.model, average) for name, average in averages.items() if name == "ema"}
        recorders = {
            name: stack.enter_context(record(network, trainer.clock.timed(steps, "recorder"), seed=options.run.seed))
            for name, (network, steps) in watched.items()
        }
        parts = {"averages": averages, "recorders": recorders, "remedies": {options.remedy: remedy}}
        last = options.out / "last.pt"
        if options.resume:
            continue_from(last, trainer, **parts)
        keep = KeepCheckpoint(lambda trainer: save_run(last, trainer, **parts), every=options.checkpoint_every)
        loss_log = LossLog(options.out / "log.csv", append=options.resume)
        moves = [MoveEma(average) for average in averages.values()]
        trainer.callbacks += [*moves, *watch]
        if members.leader:
            trainer.callbacks += [CountFlips(recorders["lsq"]), loss_log, *board, keep]
        trainer.fit()
        for name, recorder in recorders.items() if members.leader else ():
            recorder.recording().save(options.out / f"{name}.npz")
    if trainer.interrupted:
        return {"interrupted": True, "step": trainer.step, "checkpoint": str(last)}
    measured = {"steps": trainer.step, "seconds": trainer.seconds, "ema_decay": decay, "processes": members.count}
    if members.leader:
        networks = {"lsq": model} | {name: average.model for name, average in averages.items()}
        for name, network in networks.items():
            files.save(remedy.settle(network), options.out / f"{name}.pt")
        write_json(
            options.out / "run.json",
            provenance(options, device=options.run.device, **measured, step_seconds=trainer.clock.seconds()),
        )
        last.unlink(missing_ok=True)
    members.wait()  # for the files, which another command may read next
    return measured


def scalars(options):
    """The callback that writes scalars for TensorBoard, in a list that is empty where that is not wanted."""
    return [TensorBoard(options.out / "tensorboard")] if options.tensorboard else []


@dataclass(frozen=True)
class Correct:
    """Train QC on a quantized detector for one epoch and fold it away."""

    weights: Path
    """a quantized checkpoint, such as ema.pt of a QAT run"""
    out: Path
    """the corrected, folded checkpoint to write"""
    train: TrainSpec = field(
        default_factory=lambda: TrainSpec(epochs=1, learning_rate=1e-3, schedule="cosine", warmup_steps=0)
    )
    choices: Choices = field(default_factory=Choices)
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)


def correct_file(options):
    """What a QC run measured; the folded detector is written to `options.out`."""
    prepare(options.run)
    model = files.load(options.weights)
    batches = training_batches(options.data, options.run.seed, masks=model.task == "segment")
    check_classes(model, batches.dataset, options.weights)
    if not is_quantized(model):
        raise ValueError(
            f"{options.weights} is a float network: QC corrects a quantized one, which `oscillab qat` trains"
        )
    members = group()
    progress = options.run.progress and members.leader
    model, batches = placed(model, options.run.device), members.share(batches)
    correct(model, batches, spec=options.train, choices=options.choices, progress=progress, members=members)
    fold(model)
    if members.leader:
        files.save(model, options.out)
    members.wait()
    return {"steps": options.train.epochs * len(batches), "out": str(options.out)}


@dataclass(frozen=True)
class Evaluate:
    """Measure COCO mAP."""

    weights: Path = SHIPPED
    """a checkpoint, official or oscillab's, float or quantized, or an exported .onnx"""
    data: str = "scenes"
    """'scenes' or a folder in COCO's layout"""
    size: int | None = None
    """side of the square letterbox in pixels; None: 160 for scenes, 640 for a folder"""
    held_out: int = 500
    """pictures, for scenes"""
    batch_size: int = 16
    """pictures at once"""
    judge: Literal["pycocotools", "faster"] = "pycocotools"
    """who works out the mAP: 'faster' is faster-coco-eval, with the same results in less time"""
    run: RunOptions = field(default_factory=RunOptions)


def evaluate_file(options):
    """The measured mAP as a mapping."""
    prepare(options.run)
    size = options.size or (160 if options.data == "scenes" else 640)
    model = files.open_detector(options.weights)
    dataset = held_out(DataOptions(options.data, size, held_out=options.held_out), masks=model.task == "segment")
    check_classes(model, dataset, options.weights)
    return measure(
        placed(model, options.run.device),
        dataset,
        size,
        batch_size=options.batch_size,
        judge=options.judge,
        progress=options.run.progress and group().leader,
    )


def measure(model, dataset, size, **options):
    """COCO mAP, AP50 and AP75 of boxes, and of masks where there are any, and how many pictures that took.

    Several processes share the pictures; all must call this, and all get the same.
    """
    result = evaluate(model, dataset, size=size, members=group(), **options)
    names = ("map", "map50", "map75", "mask_map", "mask_map50", "mask_map75")
    measured = {name: getattr(result, name) for name in names if getattr(result, name) is not None}
    return measured | {"images": result.image_count}

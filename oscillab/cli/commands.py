"""What do the commands `pretrain`, `qat`, `correct` and `evaluate` do?

Each is a frozen dataclass of plain values, the command line's options, and one function that carries it out and returns
what it measured. A study runs the same functions over a grid.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from oscillab.data.evaluate import evaluate
from oscillab.data.options import DataOptions, check_classes, held_out, training_batches
from oscillab.io import write_json
from oscillab.provenance import SHIPPED, provenance
from oscillab.quant import is_quantized
from oscillab.quant.exact import exact_or_float
from oscillab.train.config import RunOptions, TrainSpec
from oscillab.train.correction import Choices
from oscillab.train.ddp import current_world
from oscillab.train.run import QatConfig, placed, prepare, prepare_qat, run_correction, run_pretraining, run_qat
from oscillab.yolo import checkpoint, zoo
from oscillab.yolo.anchors import auto_anchor


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
    taken = checkpoint.load_matching_weights(model, options.start) if options.start else 0
    choice = {"choice": options.anchors, "seed": options.run.seed}
    recall = auto_anchor(model, batches.dataset, options.data.size, **choice)
    how = {"ema_decay": options.ema_decay, "progress": options.run.progress, "resume": options.resume}
    trained = run_pretraining(model, batches, options.train, options.out, **how)
    if trained.get("interrupted"):
        return trained
    model = placed(checkpoint.load(options.out), options.run.device)
    measured = measure(model, held_out(options.data, masks=model.task == "segment"), options.data.size) | {
        "tensors_taken": taken,
        "anchor_recall": recall,
        "seconds": trained["seconds"],
    }
    write_json(options.out.with_suffix(".json"), provenance(options, device=options.run.device, **measured))
    options.out.with_suffix(".last").unlink(missing_ok=True)
    return measured


@dataclass(frozen=True)
class Qat(QatConfig):
    """Quantize a float detector and train it, with an EMA beside it and every flip recorded."""

    weights: Path = SHIPPED
    """a float checkpoint, official or oscillab's"""
    out: Path = Path("runs/qat")
    """the folder for lsq.pt (the live network), ema.pt, lsq.npz, ema.npz (recordings), log.csv, run.json"""
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)
    resume: bool = False
    """continue from last.pt in `out`, to the same result"""


def start_qat(options):
    """The quantized, calibrated model and its training batches, before the first step."""
    prepare(options.run)
    model = checkpoint.load(options.weights)
    batches = training_batches(options.data, options.run.seed, masks=model.task == "segment")
    if is_quantized(model):
        raise ValueError(f"{options.weights} is already quantized; start from a float checkpoint")
    check_classes(model, batches.dataset, options.weights)
    return prepare_qat(model, batches, options.quant, device=options.run.device)


def qat(options, *, start=None, watch=()):
    """What one QAT run measured: steps, seconds and the files it wrote; `start` is a result of `start_qat`.

    `watch`: more callbacks. Of several processes all train, average and compare, the leader records and writes.
    """
    model, batches = start or start_qat(options)
    run = options.run
    how = {"seed": run.seed, "progress": run.progress, "resume": options.resume, "callbacks": watch}
    return run_qat(model, batches, options, options.out, about=provenance(options, device=run.device), **how)


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
    model = checkpoint.load(options.weights)
    batches = training_batches(options.data, options.run.seed, masks=model.task == "segment")
    check_classes(model, batches.dataset, options.weights)
    if not is_quantized(model):
        raise ValueError(
            f"{options.weights} is a float network: QC corrects a quantized one, which `oscillab qat` trains"
        )
    model, progress = placed(model, options.run.device), options.run.progress
    return run_correction(model, batches, options.out, spec=options.train, choices=options.choices, progress=progress)


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
    run: RunOptions = field(default_factory=RunOptions)


def evaluate_file(options):
    """The measured mAP as a mapping."""
    prepare(options.run)
    size = options.size or (160 if options.data == "scenes" else 640)
    from oscillab.export.reader import open_detector  # onnx is imported by whoever needs it alone

    model = open_detector(options.weights)
    dataset = held_out(DataOptions(options.data, size, held_out=options.held_out), masks=model.task == "segment")
    check_classes(model, dataset, options.weights)
    return measure(
        placed(model, options.run.device),
        dataset,
        size,
        batch_size=options.batch_size,
        progress=options.run.progress and current_world().is_main,
    )


def measure(model, dataset, size, **options):
    """Return COCO mAP of a network's exact form as a mapping; all processes must call this, and all get the same."""
    return evaluate(exact_or_float(model), dataset, size=size, world=current_world(), **options).summary()

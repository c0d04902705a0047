"""The commands `qat` and `correct`: open a data set and a checkpoint, train, and say what came of it."""

import shlex
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tyro.conf import Fixed, Suppress

from oscillab import methods
from oscillab.data.options import DataOptions, DataSource, chosen_size
from oscillab.io import shipped
from oscillab.train.config import HORIZON_SHARE, Choices, RunOptions, TrainSpec

if TYPE_CHECKING:
    from oscillab.yolo.graph import Detector

    RemedyName: TypeAlias = str
    AverageName: TypeAlias = str
else:  # so that help lists what is registered
    RemedyName = Literal["none", *methods.remedies()]
    AverageName = Literal[methods.names("average")]

# Of a QAT run, and what the commands derive from it
NETWORKS = [f"{name}{more}" for name in ("lsq", *methods.names("average")) for more in ("", "+qc")]
RUN_FILES = [f"{name}{suffix}" for name in NETWORKS for suffix in (".pt", ".npz", ".onnx")]
RUN_FILES += ["run.json", "log.csv", "last.pt", "report.html"]
ANY_SIZE = DataOptions(size=0)


@dataclass(frozen=True)
class FloatSpec(TrainSpec):
    """How to train; each field with its unit."""

    step_size_rate: Suppress[Fixed[float]] = 1.0  # there are none
    sync_bn: Suppress[Fixed[bool]] = True  # one process


@dataclass(frozen=True)
class FactorSpec(TrainSpec):
    """How to train QC's factors; each field with its unit."""

    step_size_rate: Suppress[Fixed[float]] = 1.0  # neither step sizes …
    weight_decay: Suppress[Fixed[float]] = 0.0  # … nor weights are trained
    sync_bn: Suppress[Fixed[bool]] = True  # batch norm is fixed


@dataclass(frozen=True)
class QuantOptions:
    """How the network is quantized; the fields of `oscillab.QuantSpec`."""

    bits: int = 4
    """of weights and of each convolution's input, 2 to 8"""
    first_last_bits: int = 8
    """of the first and the last layers; 4 of 4-bit* networks"""
    weight_granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    """one step size for a layer's weights, or one for each output channel"""
    activation: Literal["symmetric", "unsigned", "affine"] = "symmetric"
    """the inputs' grid: signed where calibration sees a negative value, never signed, or with LSQ+'s offset"""
    init: Literal["mse", "lsq"] = "mse"
    """the first step sizes: of the smallest squared error, or LSQ's formula"""
    gradient_mask: Literal["unrounded", "rounded"] = "unrounded"
    """whether w / s is compared with the grid's ends before it is rounded, as in LSQ's paper, or after"""
    gradient_scale: bool = True
    """LSQ's 1 / sqrt(N Qp) on the step sizes' gradients"""


@dataclass(frozen=True)
class Qat:
    """Quantize a float detector and train it, with an EMA beside it and every flip recorded."""

    weights: Path = field(default_factory=lambda: shipped("yolov5n-scenes.pt"))
    """a float checkpoint, official or oscillab's"""
    out: Path = Path("runs/qat")
    """the folder for lsq.pt (the live network), ema.pt, lsq.npz, ema.npz (recordings), log.csv, run.json"""
    quant: QuantOptions = field(default_factory=QuantOptions)
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=6, learning_rate=1e-3, schedule="official"))
    data: DataOptions = ANY_SIZE
    run: RunOptions = field(default_factory=RunOptions)
    ema_decay: float | None = None
    """share of the average that a step keeps; by default that of ema_horizon, at most the paper's 0.9999"""
    ema_horizon: float = HORIZON_SHARE
    """1 / (1 - decay) as a share of the run; the paper's 0.9999 is 0.054 of its 184,900 steps"""
    ema_ramp: float | None = None
    """updates over which EMA's decay grows from 0; None: a fifth of the horizon, as YOLOv5's 2,000 are of 10,000"""
    remedy: RemedyName = "none"
    """what acts against oscillations during training, beside the passive EMA"""
    averages: tuple[AverageName, ...] = ("ema",)
    """the passive averages, each to a file of its name; the last three average one part and copy the rest"""
    checkpoint_every: int = 200
    """optimizer steps between checkpoints"""
    measure: bool = True
    """measure mAP before and after on the held-out images"""
    resume: bool = False
    """continue from last.pt in `out`, to the same result"""
    overwrite: bool = False
    """remove a run that is in `out`, with what was derived from it"""
    timeout: int = 600
    """under torchrun: seconds to wait for the other processes"""
    json: Path | None = None
    """also write what was measured to this file"""


def qat(options: Qat) -> dict[str, Any]:
    """Train a quantized network and its averages; return what was measured of them."""
    from oscillab.provenance import provenance
    from oscillab.quant import QuantSpec, is_quantized
    from oscillab.recording.recording import Recording
    from oscillab.recording.tables import flip_rate
    from oscillab.train.run import QatConfig, placed, prepare, prepare_qat, run_qat
    from oscillab.yolo import checkpoint

    same = {name: getattr(options, name) for name in (field.name for field in fields(QatConfig)) if name != "quant"}
    config = QatConfig(quant=QuantSpec(**asdict(options.quant)), **same)
    run, out = options.run, options.out
    check_free([out / name for name in RUN_FILES], options)
    prepare(run)
    model = checkpoint.load(options.weights)
    if is_quantized(model):
        raise ValueError(f"{options.weights} is already quantized; start from a float checkpoint")
    data, source, batches = opened(model, options.weights, options.data, run)
    before = {}
    if options.measure:
        held_out = source.held_out(masks=model.task == "segment", model=model, source=options.weights)
        before = {"map_float": measure(placed(model, run.device), held_out, run, "float")["map"]}
        prepare(run)
    network, batches = prepare_qat(model, batches, config.quant, device=run.device)
    how: dict[str, Any] = {"seed": run.seed, "progress": run.progress, "resume": options.resume}
    measured = run_qat(network, batches, config, out, about=provenance(options, device=run.device), **how)
    if measured.get("interrupted"):
        return measured
    for name in ("lsq", *options.averages) if options.measure else ():
        trained = placed(checkpoint.load(out / f"{name}.pt"), run.device)
        before[f"map_{name}"] = measure(trained, held_out, run, name)["map"]
    recordings = [path for path in (out / "lsq.npz", out / "ema.npz") if path.is_file()]
    flips = {f"flips_{path.stem}": float(flip_rate(Recording.open(path))) for path in recordings}
    best = out / ("ema" if "ema" in options.averages else "lsq")
    after = next_command("correct", "--weights", f"{best}.pt", "--out", f"{best}+qc.pt", data=data)
    return before | flips | measured | {"out": str(out), "next": after}


@dataclass(frozen=True)
class Correct:
    """Train QC on a quantized detector for one epoch and fold it away."""

    weights: Path
    """a quantized checkpoint, such as ema.pt of a QAT run"""
    out: Path
    """the corrected, folded checkpoint to write"""
    train: FactorSpec = field(default_factory=lambda: FactorSpec(learning_rate=1e-3, warmup_steps=0))
    choices: Choices = field(default_factory=Choices)
    data: DataOptions = ANY_SIZE
    run: RunOptions = field(default_factory=RunOptions)
    measure: bool = True
    """measure mAP before and after on the held-out images"""
    overwrite: bool = False
    """write over a checkpoint that is there"""
    timeout: int = 600
    """under torchrun: seconds to wait for the other processes"""
    json: Path | None = None
    """also write what was measured to this file"""


def correct(options: Correct) -> dict[str, Any]:
    """Correct a quantized detector, write it to `options.out` and return what was measured."""
    from oscillab.quant import is_quantized
    from oscillab.train.run import placed, prepare, run_correction
    from oscillab.yolo import checkpoint

    run = options.run
    found: dict[str, Any] = {}
    check_free([options.out], options)
    prepare(run)
    model = checkpoint.load(options.weights)
    data, source, batches = opened(model, options.weights, options.data, run)
    if not is_quantized(model):
        raise ValueError(f"{options.weights} is a float network: QC corrects a quantized one; `oscillab qat` trains it")
    placed(model, run.device)
    if options.measure:
        held_out = source.held_out(masks=model.task == "segment", model=model, source=options.weights)
        found["map_before"] = measure(model, held_out, run, "before")["map"]
        prepare(run)
    how: dict[str, Any] = {"spec": options.train, "choices": options.choices, "progress": run.progress}
    corrected = run_correction(model, batches, options.out, **how)
    if options.measure:
        found["map_after"] = measure(model, held_out, run, "after")["map"]
    return found | corrected | {"next": next_command("export", options.out, options.out.with_suffix(".onnx"))}


def opened(model: "Detector", weights: Path, data: DataOptions, run: RunOptions) -> tuple[DataOptions, DataSource, Any]:
    """Return the options with their size settled, the opened data and its training batches, for a loaded detector."""
    data = replace(data, size=chosen_size(data.size, data.data, model))
    model.size, source = data.size, DataSource(data)
    masks = model.task == "segment"
    return data, source, source.training_batches(run.seed, masks=masks, model=model, source=weights)


def measure(model: "Detector", dataset: Any, run: RunOptions, name: str) -> dict[str, Any]:
    """Return COCO mAP of a network's exact form; of several processes all call this, and all get the same."""
    from oscillab.data.evaluate import evaluate
    from oscillab.quant.exact import exact_or_float
    from oscillab.train.ddp import current_world

    world = current_world()
    shown = f"evaluate {name}" if run.progress and world.is_main else False
    return evaluate(exact_or_float(model), dataset, size=model.size, world=world, progress=shown).summary()


def check_free(paths: list[Path], options: Any) -> None:
    """Remove files of an earlier run where the options say so; raise ValueError where they are in the way."""
    there = [] if getattr(options, "resume", False) else [path for path in paths if path.exists()]
    if there and not options.overwrite:
        more = "--resume to go on with it, " if any(path.name == "last.pt" for path in there) else ""
        ways = f"give another --out, {more}or --overwrite to replace it"
        raise ValueError(f"{there[0]} is there, of an earlier run: {ways}")
    for path in there:
        path.unlink(missing_ok=True)


def next_command(word: str, *words: Path | str, data: DataOptions | None = None) -> str:
    """Return a command line for a shell, with the data where they are not the default."""
    named = () if data is None or data.data == "scenes" else ("--data", data.data)
    return shlex.join(["oscillab", word, *map(str, words), *named])

"""Which runs does a study consist of, and what is measured on each?

A job is one QAT run: a network, a bit width, a way to train (an arm), a seed. LSQ, EMA, QC and the controls share the run of
the arm "lsq", because they are passive: LSQ is the live network's last state, EMA the average beside it, and QC or a
control comes after training, on a copy of either.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from oscillab import methods
from oscillab.cli.commands import Qat
from oscillab.io import shipped
from oscillab.provenance import plain
from oscillab.quant import QuantSpec
from oscillab.study.table import run_name
from oscillab.train.config import TrainSpec
from oscillab.train.correction import Choices
from oscillab.yolo import checkpoint, zoo

SLOW_STEP_SIZES = 0.1  # the step sizes' share of the weights' learning rate in the arm "slow_step_sizes"
PARTIAL = {"qc_scale", "qc_shift", "qc_per_tensor", "bn_affine_and_biases"}  # measured on EMA alone, as in the paper
PASSIVE = {
    "out",
    "run",
    "averages",
    "checkpoint_every",
    "resume",
}  # options that leave results as they are


@dataclass(frozen=True)
class Job:
    """One QAT run and the methods that are measured on it."""

    network: str
    arm: str
    qat: Qat
    methods: tuple[tuple[str, str, str], ...]  # (method, start: lsq or an average, control)
    correction: TrainSpec  # how QC, and what is laid beside it, is trained
    choices: Choices  # what the paper leaves open about QC

    @property
    def folder(self):
        """Where all of it goes."""
        return self.qat.out

    @property
    def seed(self):
        """The run's seed."""
        return self.qat.run.seed

    @property
    def bits(self):
        """The bits of the inner layers and of the ends."""
        return self.qat.quant.bits, self.qat.quant.first_last_bits

    def configuration(self):
        """Every option that a result depends on, in what JSON holds; the checkpoint by its content."""
        options = {name: value for name, value in asdict(self.qat).items() if name not in PASSIVE}
        digest = hashlib.sha256(self.qat.weights.read_bytes()).hexdigest()
        after = {"correction": asdict(self.correction), "choices": asdict(self.choices)}
        return plain(options | after | {"weights": digest, "seed": self.seed})

    def hash(self):
        """A digest of `configuration`: runs of the same hash have the same result."""
        return hashlib.sha256(json.dumps(self.configuration(), sort_keys=True).encode()).hexdigest()[:16]


def grid(options):
    """The jobs of a study, network by network, width by width; raises ValueError for options that make no grid."""
    check(options)
    return [
        job(options, network, weights, width, arm, seed)
        for network, weights in checkpoints(options).items()
        for width in options.bits
        for seed in options.seeds
        for arm in options.arms
    ]


def job(options, network, weights, width, arm, seed):
    """The job of one cell of the grid."""
    same = {name: getattr(options, name) for name in ("activation", "init", "gradient_scale", "gradient_mask")}
    quant = replace(quant_spec(width, options.first_last_bits), **same | dict(methods.method(arm).quant))
    name = run_name(network, quant.bits, quant.first_last_bits, arm, seed)
    train = options.train
    if arm == "slow_step_sizes":
        train = replace(train, step_size_rate=train.step_size_rate * SLOW_STEP_SIZES)
    averages = options.averages if arm == "lsq" else tuple(name for name in options.averages if name == "ema")
    qat = Qat(
        weights=weights,
        out=options.folder / name,
        quant=quant,
        train=train,
        data=options.data,
        run=replace(options.run, seed=seed, json=None),
        ema_decay=options.ema_decay,
        ema_ramp=options.ema_ramp,
        remedy=arm if arm in methods.remedies() else "none",
        averages=averages,
    )
    return Job(network, arm, qat, methods_of(arm, averages, options.controls), correction_spec(options), options.qc)


def correction_spec(options):
    """How QC, and what is laid beside it, is trained."""
    return TrainSpec(
        epochs=options.qc_epochs,
        learning_rate=options.qc_learning_rate,
        schedule="cosine",
        warmup_steps=0,
        autocast=options.train.autocast,
    )


def methods_of(arm, averages, controls):
    """(method, start, control) of all that is measured on the run of an arm.

    >>> [method for method, _, _ in methods_of("lsq", ("ema", "ema_weights"), ("none", "qc"))]
    ['lsq', 'ema', 'ema_weights', 'lsq+qc', 'ema+qc']
    >>> [method for method, _, _ in methods_of("dampening", ("ema",), ("none", "qc", "bn_affine"))]
    ['dampening', 'dampening+ema', 'dampening+qc']
    """
    starts = ["lsq", *averages]
    cells = [(start, control) for control in controls for start in starts if wanted(arm, start, control)]
    return tuple((method_name(arm, start, control), start, control) for start, control in cells)


def wanted(arm, start, control):
    """Whether a control is measured on that start: parts of an average and other arms get little of it."""
    if control == "none":
        return True
    if arm == "lsq":
        return start == "ema" or (start == "lsq" and control not in PARTIAL)
    return control == "qc" and start == "lsq"


def method_name(arm, start, control):
    """What a table calls it: words joined by +, "lsq" left out where another word says more."""
    words = [arm] if start == "lsq" else [start] if arm == "lsq" else [arm, start]
    return "+".join(words if control == "none" else [*words, control])


def quant_spec(width, first_last_bits=8):
    """The `QuantSpec` of a width as a study writes it: "4", or "4*" for the first and last layers at 4 bit too."""
    digits = width.removesuffix("*")
    if not digits.isdigit():
        raise ValueError(f"bits must be 2..8, or 4* for the first and last layers too, got {width}")
    return QuantSpec(bits=int(digits), first_last_bits=int(digits) if width.endswith("*") else first_last_bits)


def checkpoints(options):
    """Network -> float checkpoint; raises ValueError where there is none, or where it holds another network."""
    if options.weights and options.weights.is_file():
        held = checkpoint.inspect(options.weights).name
        names = options.model or (held,)
        if tuple(names) != (held,):
            raise ValueError(f"{options.weights} holds {held or 'no network of the zoo'}, not {' '.join(names)}")
        return {held: options.weights}
    found = {name: checkpoint_of(name, options.weights) for name in options.model or ("yolov5n",)}
    for name, path in found.items():
        if name not in zoo.MODELS:
            raise ValueError(f"unknown model {name!r}, allowed are {', '.join(zoo.MODELS)}")
        if not path.is_file():
            raise ValueError(f"no checkpoint of {name} at {path}: give --weights, or make one with `oscillab pretrain`")
        if (held := checkpoint.inspect(path).name) != name:
            raise ValueError(f"{path} holds {held or 'no network of the zoo'}, not {name}")
    return found


def checkpoint_of(name, folder):
    """Where the checkpoint of a network is looked for."""
    return folder / f"{name}.pt" if folder else shipped(f"{name}-scenes.pt")


def check(options):
    """Raise ValueError for a value given twice, nothing to run, or what cannot be quantized so."""
    each = {"network": options.model, "bit width": options.bits, "arm": options.arms, "seed": options.seeds}
    for name, values in each.items():
        if len(set(values)) < len(values):
            raise ValueError(f"each {name} may be given once, got {' '.join(map(str, values))}")
        if not values and name != "network":
            raise ValueError(f"a study needs at least one {name}")
    for width in options.bits:
        quant_spec(width, options.first_last_bits)
    if options.jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {options.jobs}")

"""Make the jobs of a study: which runs it consists of, and what is measured on each.

A job is one QAT run: a network, a bit width, a way to train (an arm), a seed. LSQ, EMA, QC and the controls share the run of
the arm "lsq", because they are passive: LSQ is the live network's last state, EMA its average, and QC or a control comes
after training, on a copy of either.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from oscillab.data.options import DataOptions
from oscillab.io import shipped
from oscillab.methods import Method, method, names
from oscillab.provenance import plain
from oscillab.quant import QuantSpec
from oscillab.study.config import PRESETS, Study
from oscillab.study.table import run_name
from oscillab.train.config import RunOptions, TrainSpec
from oscillab.train.correction import Choices
from oscillab.train.run import QatConfig
from oscillab.yolo import checkpoint, zoo

# Fields of a job that change no result
PASSIVE = ("folder", "run", "averages", "checkpoint_every", "methods", "schedule", "untrained")


@dataclass(frozen=True)
class FloatNetwork:
    """The float checkpoint that runs start from, looked at once."""

    path: Path
    network: str
    classes: int
    parameter_count: int
    digest: str
    names: tuple[str, ...]  # of the classes; their numbers where the file has none

    @classmethod
    def inspect(cls, path: Path) -> "FloatNetwork":
        """Return what the checkpoint at `path` holds; its `network` is empty where it is none of the zoo's."""
        found = checkpoint.inspect(path)
        count, classes = sum(tensor.numel() for tensor in found.state.values()), found.classes or 0
        names = tuple(found.names or map(str, range(classes)))
        return cls(path, found.name or "", classes, count, hashlib.sha256(path.read_bytes()).hexdigest(), names)


@dataclass(frozen=True, kw_only=True)
class Job(QatConfig):
    """One QAT run and the methods that are measured on it."""

    weights: FloatNetwork
    folder: Path
    arm: str
    seed: int
    data: DataOptions
    run: RunOptions
    methods: tuple[tuple[str, str, str], ...]
    """(method, start: lsq or an average, control)"""
    schedule: str
    """its name, such as official"""
    untrained: bool
    """whether FP32 and PTQ are measured: once for each width and seed"""
    correction: TrainSpec
    """how QC, and what is compared with it, is trained"""
    choices: Choices
    """what the paper leaves open about QC"""

    @property
    def bits(self) -> tuple[int, int]:
        """The bits of the inner layers, and of the first and last ones."""
        return self.quant.bits, self.quant.first_last_bits

    def configuration(self) -> dict[str, Any]:
        """Return every option that a result depends on, in what JSON holds; the checkpoint by its content."""
        options = {name: value for name, value in asdict(self).items() if name not in PASSIVE}
        return plain(options | {"weights": self.weights.digest})

    def hash(self) -> str:
        """Return a digest of `configuration`: runs of the same hash have the same result."""
        return hashlib.sha256(json.dumps(self.configuration(), sort_keys=True).encode()).hexdigest()[:16]


def jobs_of(study: Study) -> list[Job]:
    """Return the jobs of a study, network by network, width by width; raises ValueError for options that make no grid."""
    _check(study)
    schedules, passes = study.schedules or (study.train.schedule,), study.passes or (study.train.epochs,)
    axes = passes, _float_networks(study), study.bits, study.seeds, study.arms, schedules
    jobs = [_job(study, *cell) for cell in itertools.product(*axes) if in_protocol(study, *cell)]
    if study.preset == "regime":  # breadth first, for a study of many hours
        jobs.sort(key=lambda job: (job.train.epochs, job.arm != "lsq", job.seed))
    first = {(job.weights.network, job.bits, job.seed): job.folder for job in reversed(jobs) if job.arm == "lsq"}
    return [replace(job, untrained=job.folder in first.values()) for job in jobs]


def in_protocol(study: Study, passes: int, _: Any, width: str, seed: int, arm: str, schedule: str) -> bool:
    """Return whether a study runs a cell of its grid: "regime" leaves out what docs/study.md leaves out."""
    if study.preset != "regime" or arm == "lsq" and passes <= 8:
        return True
    return seed < 2 if arm == "lsq" else schedule == "official" and passes <= 8


def _job(study: Study, passes: int, weights: FloatNetwork, width: str, seed: int, arm: str, schedule: str) -> Job:
    same = {name: getattr(study, name) for name in ("activation", "init", "gradient_scale", "gradient_mask")}
    quant = replace(quant_spec(width, study.first_last_bits), **same | dict(method(arm).quant))
    averages = study.averages if arm == "lsq" else tuple(name for name in study.averages if name == "ema")
    correction = TrainSpec(
        epochs=study.qc_epochs, learning_rate=study.qc_learning_rate, schedule="cosine", warmup_steps=0
    )
    cell = weights.network, quant.bits, quant.first_last_bits, schedule, arm, seed
    return Job(
        weights=weights,
        folder=study.folder / run_name(*cell, passes if len(study.passes) > 1 else 0),
        arm=arm,
        seed=seed,
        quant=quant,
        train=train_spec(study, passes, schedule, weights.network, method(arm)),
        schedule=schedule,
        untrained=False,
        data=study.data,
        run=replace(study.run, seed=seed),
        ema_decay=study.ema_decay,
        ema_ramp=study.ema_ramp,
        ema_horizon=study.ema_horizon,
        remedy=arm if arm != "lsq" and method(arm).applied else "none",
        averages=averages,
        methods=methods_of(arm, averages, study.controls),
        correction=replace(correction, autocast=study.train.autocast),
        choices=study.qc,
    )


def train_spec(study: Study, passes: int, schedule: str, network: str, arm: Method) -> TrainSpec:
    """Return how a cell of the grid trains, its schedule that of its network where it is "official"."""
    fall: dict[str, Any] = (
        {"schedule": "cosine", "final_share": 0.1} if schedule == "cosine10" else {"schedule": schedule}
    )
    return replace(study.train, epochs=passes, **fall, **arm.train).for_network(network)


def methods_of(arm: str, averages: Iterable[str], controls: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
    """Return (method, start, control) of all that is measured on the run of an arm.

    >>> [method for method, _, _ in methods_of("dampening", ("ema",), ("none", "qc", "bn_affine"))]
    ['dampening', 'dampening+ema', 'dampening+qc']
    """
    found = []
    for control, start in itertools.product(controls, ("lsq", *averages)):  # parts of an average and other arms get few
        starts = ["lsq"] * (control == "qc") if arm != "lsq" else [] if control == "none" else method(control).starts
        if control == "none" or start in starts:
            words = [arm] if start == "lsq" else [start] if arm == "lsq" else [arm, start]
            found.append(("+".join(words + [control] * (control != "none")), start, control))
    return tuple(found)


def quant_spec(width: str, first_last_bits: int = 8) -> QuantSpec:
    """Return the `QuantSpec` of a width as a study writes it: "4", or "4*" for the first and last layers at 4 bit too."""
    digits = width.removesuffix("*")
    if not digits.isdigit():
        raise ValueError(f"bits must be 2..8, or 4* for the first and last layers too, got {width}")
    return QuantSpec(bits=int(digits), first_last_bits=int(digits) if width.endswith("*") else first_last_bits)


def _float_networks(study: Study) -> list[FloatNetwork]:
    """Return the checkpoints that a study starts from; raises ValueError where one is missing or holds another network."""
    if study.weights and study.weights.is_file():
        held = FloatNetwork.inspect(study.weights)
        return [_held(held, " ".join(study.model or [held.network]) or "one of it")]
    found = []
    for name in study.model or ("yolov5n",):
        if name not in zoo.MODELS:
            raise ValueError(f"unknown model {name!r}, allowed are {', '.join(zoo.MODELS)}")
        path = study.weights / f"{name}.pt" if study.weights else shipped(f"{name}-scenes.pt")
        if not path.is_file():
            raise ValueError(f"no checkpoint of {name} at {path}: give --weights, or make one with `oscillab pretrain`")
        found.append(_held(FloatNetwork.inspect(path), name))
    return found


def _held(network: FloatNetwork, wanted: str) -> FloatNetwork:
    if network.network != wanted:
        raise ValueError(f"{network.path} holds {network.network or 'no network of the zoo'}, not {wanted}")
    return network


def _check(study: Study) -> None:
    """Raise ValueError for an unknown method, a value given twice, nothing to run, or what cannot be quantized so."""
    each = ("network", study.model), ("bit width", study.bits), ("arm", study.arms), ("seed", study.seeds)
    for name, values in each:
        if len(set(values)) < len(values):
            raise ValueError(f"each {name} may be given once, got {' '.join(map(str, values))}")
        if not values and name != "network":
            raise ValueError(f"a study needs at least one {name}")
    for kind, given in (("training", study.arms), ("average", study.averages), ("control", study.controls)):
        allowed = ("none",) * (kind == "control") + names(kind)
        if unknown := [name for name in given if name not in allowed]:
            raise ValueError(f"unknown {kind} {unknown[0]!r}, allowed are {', '.join(allowed)}")
    usual = PRESETS[study.preset].train
    for one, several in (("schedule", "schedules"), ("epochs", "passes")):
        if getattr(study, several) and (given := getattr(study.train, one)) != getattr(usual, one):
            raise ValueError(
                f"this study has {several} of its own, which {one} {given} would not change: give --{several} {given}"
            )
    for width in study.bits:
        quant_spec(width, study.first_last_bits)
    if study.jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {study.jobs}")

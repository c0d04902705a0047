"""Configure a study: every option that it takes, and the presets that fill all of them; an option given beside one wins."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oscillab.data.options import DataOptions
from oscillab.methods import names
from oscillab.train.config import HORIZON_SHARE, Choices, RunOptions, TrainSpec, has_bfloat16

if TYPE_CHECKING:
    ArmName = str
    AverageName = str
    ControlName = str
else:  # what the command line allows is what the registry holds
    ArmName, AverageName = Literal[names("training")], Literal[names("average")]
    ControlName = Literal["none", *names("control")]
PresetName = Literal["quick", "regime", "ablation", "scenes", "coco-subset", "paper"]
ScheduleName = Literal["official", "constant", "linear", "cosine", "cosine10"]


@dataclass(frozen=True)
class Study:
    """Run the paper's methods over networks, bit widths, ways to train and seeds, and report mAP and oscillations."""

    preset: PresetName = "quick"
    """'quick': scenes, 4 and 3 bit, one seed, official and constant rate, minutes on two cores. 'regime': lengths and schedules,
    the map of docs/study.md, many hours. 'ablation': every remedy and control at 3 bit, 3 seeds.
    'scenes': the paper's methods on scenes, 3 networks, 4, 3 and 4* bit, 3 seeds. 'coco-subset': a COCO folder and an
    official checkpoint (give --data and --weights). 'paper': its 9 networks and recipe, 100 epochs of COCO 2017 at 640
    pixels (give --data and a folder of checkpoints as --weights)"""
    model: tuple[str, ...] = ()
    """networks of the zoo; none: the one that `weights` holds, else yolov5n"""
    weights: Path | None = None
    """a float checkpoint, or a folder of <model>.pt; None: the detectors of data/ that were trained on scenes"""
    out: Path | None = None
    """the folder of results; None: results/<preset>. What is finished there is kept, what is not goes on"""
    bits: tuple[str, ...] = ("4", "3")
    """bit widths of weights and activations, 2 to 8; 4* has the first and the last layers at 4 bit too"""
    first_last_bits: int = 8
    """bits of the first and the last layers where a width has no star"""
    arms: tuple[ArmName, ...] = ("lsq",)
    """ways to train, each a run of its own"""
    averages: tuple[AverageName, ...] = ("ema",)
    """passive averages of the run of `lsq`; of other arms only ema"""
    controls: tuple[ControlName, ...] = ("none", "qc")
    """what is done to the trained network and to its average; to those of other arms only none and qc"""
    seeds: tuple[int, ...] = (0,)
    """one run each"""
    schedules: tuple[ScheduleName, ...] = ()
    """of the learning rate, each a run of its own; cosine10 falls to 10 %. None: train.schedule"""
    passes: tuple[int, ...] = ()
    """over the data, each a run of its own; none: train.epochs"""
    train: TrainSpec = field(default_factory=lambda: TrainSpec(epochs=4, learning_rate=1e-3, schedule="official"))
    qc_learning_rate: float = 1e-3
    """QC's peak rate, cosine over its passes; the paper's 1e-4 suits its 1,849 steps and more"""
    qc_epochs: int = 1
    """passes of QC; the paper makes one"""
    qc: Choices = field(default_factory=Choices)
    ema_decay: float | None = None
    """share of the average that a step keeps; by default that of ema_horizon, at most the paper's 0.9999"""
    ema_horizon: float = HORIZON_SHARE
    """1 / (1 - decay) of the average "ema" as a share of the run; the paper's 0.9999 is 0.054 of its 184,900 steps"""
    ema_ramp: float | None = None
    """updates over which EMA's decay grows from 0 (A6); None: a fifth of the horizon, as YOLOv5's 2,000 are of 10,000"""
    activation: Literal["symmetric", "unsigned", "affine"] = "symmetric"
    """the inputs' grid (A1): signed where a value is negative, never signed, or with LSQ+'s offset"""
    init: Literal["mse", "lsq"] = "mse"
    """the first step sizes (A2): of the smallest squared error, or LSQ's formula"""
    gradient_scale: bool = True
    """LSQ's 1 / sqrt(N Qp) on the step sizes' gradients (A3)"""
    gradient_mask: Literal["unrounded", "rounded"] = "unrounded"
    """whether w / s is compared with the grid's ends before it is rounded, as in LSQ's paper, or after"""
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """runs at once, each in a process of `threads` threads; on several GPUs each has one of them"""
    json: Path | None = None
    """also write the table to this file"""
    dry_run: bool = False
    """show what would run and for how long, and end"""

    @property
    def folder(self) -> Path:
        """The folder of results."""
        return self.out or Path("results") / self.preset


QUICK = Study(schedules=("official", "constant"))
THREE_SEEDS = replace(QUICK, bits=("4", "3", "4*"), seeds=(0, 1, 2), schedules=("official",))
CONTROLS, PARTS = ("none", *names("control")), ("ema", "ema_weights", "ema_step_sizes", "ema_buffers")
ABLATION = replace(THREE_SEEDS, preset="ablation", bits=("3",), averages=PARTS, controls=CONTROLS)
ABLATION = replace(ABLATION, arms=tuple(arm for arm in names("training") if arm != "relative_step_sizes"))
ABLATION = replace(ABLATION, schedules=("constant",))  # where the swing that its arms act on is largest
REGIME = replace(  # docs/study.md says what is run and why; `grid.in_protocol` which cells
    THREE_SEEDS,
    preset="regime",
    bits=("4", "3"),
    schedules=("official", "constant", "cosine10"),
    passes=(2, 8, 32),
    arms=("lsq", "dampening", "freezing", "relative_step_sizes"),
    averages=("ema", "ema_1", "ema_2", "ema_10", "ema_25"),
    controls=("none", "qc", "bn_reestimation"),
    ema_horizon=0.05,
    data=DataOptions(batch_size=8),
)
NETWORKS = ("yolov5n", "yolov7-tiny", "yolov5n-seg")
SCENES = replace(THREE_SEEDS, preset="scenes", model=NETWORKS, arms=("lsq", "dampening", "freezing"))
COCO_SUBSET = replace(
    THREE_SEEDS,
    preset="coco-subset",
    train=TrainSpec(epochs=24, learning_rate=2e-4, autocast=has_bfloat16()),
    qc_epochs=5,
    data=DataOptions(size=416, augment="flip"),
)
# Section 4 of 2311.05109. What it leaves open is named A1 to A15: A1 activation, A2 init, A3 gradient_scale, A4 one rate of Adam
# for weights and step sizes (step_size_rate), A5 schedule and warmup_steps (the official linear fall, no warm-up of biases),
# A6 ema_ramp, A7 averages (all floats), A8 qc share, A9 qc layers, A10 qc averaged, A11 qc bn_affine, A12 first_last_bits (both
# ends, weights and inputs), A13 model (yolov7 and yolov7-tiny are the training graphs), A14 inputs of convolutions alone are
# quantized, A15 autocast and seeds.
PAPER = replace(
    THREE_SEEDS,
    preset="paper",
    model=(*(f"yolov5{size}" for size in "nsmlx"), "yolov7-tiny", "yolov7", "yolov5n-seg", "yolov5s-seg"),
    arms=("lsq", "dampening"),
    seeds=(0, 1),
    train=TrainSpec(epochs=100, learning_rate=1e-4, schedule="official", warmup_steps=0),
    qc_learning_rate=1e-4,
    ema_decay=0.9999,
    ema_ramp=2000.0,
    data=DataOptions(data="coco", size=640, batch_size=64, augment="recipe", workers=8),
    run=RunOptions(device="cuda"),
)
PRESETS: dict[str, Study] = {study.preset: study for study in (QUICK, REGIME, ABLATION, SCENES, COCO_SUBSET, PAPER)}


def preset_in(arguments: Sequence[str]) -> Study:
    """Return the preset that command line arguments name, as the `Study` whose options they then change; else 'quick'."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    named = words[words.index("--preset") + 1 :][:1] if "--preset" in words else []
    return PRESETS.get(named[0] if named else "quick", QUICK)

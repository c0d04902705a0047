"""Say how long, how fast and in what precision a detector is trained, and how a command runs."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

# The schedule of each network's own trainer after warm-up, and its last rate as a share of the peak: YOLOv5's train.py and
# hyp.scratch-low.yaml, YOLOv7's train.py with hyp.scratch.tiny.yaml and hyp.scratch.p5.yaml
OFFICIAL: dict[str, tuple[Literal["linear", "cosine"], float]] = {
    "yolov5": ("linear", 0.01),
    "yolov7-tiny": ("cosine", 0.01),
    "yolov7": ("cosine", 0.1),
}
HORIZON_SHARE = 1 / 4  # of a run, the horizon 1 / (1 - decay) of an average; see `ema.decay_for`


def has_bfloat16() -> bool:
    """Return whether this machine has instructions for bfloat16, without which a step takes several times as long.

    Looks for an NVIDIA GPU or the processor's flags, as Linux shows them, and loads no torch.
    """
    flags = Path("/proc/cpuinfo")
    has_flag = flags.is_file() and re.search(r"\b(avx512_bf16|amx_bf16)\b", flags.read_text()) is not None
    return has_flag or Path("/dev/nvidia0").exists()


@dataclass(frozen=True)
class TrainSpec:
    """How to train; each field with its unit."""

    epochs: int = 1
    """passes over the data"""
    learning_rate: float = 1e-4
    """Adam's peak rate; 1e-4 is the paper's for 184,900 steps, short runs need more"""
    step_size_rate: float = 1.0
    """the step sizes' learning rate as a share of the weights'; the paper has one rate for both"""
    schedule: Literal["official", "constant", "cosine", "linear"] = "cosine"
    """what follows the warm-up; cosine and linear fall to `final_share` of the peak, official is the network's own trainer's"""
    final_share: float = 0.01
    """the last learning rate as a share of the peak"""
    warmup_steps: int = 50
    """optimizer steps from 0 to the peak rate"""
    weight_decay: float = 5e-4
    """decoupled decay of convolution weights alone: never of biases, BN or step sizes"""
    gradient_clip: float = 10.0
    """largest norm of the whole gradient, as YOLOv5 has it"""
    autocast: bool = False
    """convolutions in bfloat16 (quantizers stay in float32)"""
    accumulate: int = 1
    """micro-batches that a batch is split into, one after another: batch_size 64 in 4 takes the memory of 16"""
    compile: bool = False
    """let torch.compile fuse the network; it pays off on long runs. Steps that hooks look at (input ranges) run without"""
    sync_bn: bool = True
    """with several GPUs: batch norm over the whole batch, as one process has it, not over each process's own share"""
    check_every: int = 10
    """steps between looks at the loss for NaN on an accelerator, where each look waits; on the CPU every step is looked at"""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must be in 0 < rate < 1, got {self.learning_rate}")
        for name, least in (("epochs", 1), ("step_size_rate", 0), ("accumulate", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.schedule not in ("official", "constant", "cosine", "linear"):
            raise ValueError(f"schedule must be official, constant, cosine or linear, got {self.schedule}")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share must be in 0 <= final_share <= 1, got {self.final_share}")

    def for_network(self, network: str) -> "TrainSpec":
        """Return the spec with the schedule of that network's own trainer in place of "official"; others as they are.

        YOLOv5: linear to 1 %; YOLOv7-tiny: cosine to 1 %; YOLOv7: cosine to 10 %. Raises ValueError for any other network.
        """
        if self.schedule != "official":
            return self
        family = next((name for name in OFFICIAL if network.startswith(name)), "")
        if not family:
            given = f"got {network or 'a network without a name'}: choose constant, cosine or linear"
            raise ValueError(f"an official schedule is known of {', '.join(OFFICIAL)} alone, {given}")
        schedule, final_share = OFFICIAL[family]
        return replace(self, schedule=schedule, final_share=final_share)

    def rate_at(self, step: int, total: int) -> float:
        """Return the learning rate of optimizer step `step` (from 0) of `total`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        share = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
        left = 1 - share if self.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
        return self.learning_rate * (self.final_share + (1 - self.final_share) * left)


@dataclass(frozen=True)
class RunOptions:
    """How a command runs."""

    seed: int = 0
    """of data, augmentation and initial weights"""
    device: str = "cpu"
    """'cpu', 'cuda', 'cuda:1', ...; under torchrun 'cuda' is a GPU for each process"""
    threads: int = 1
    """torch threads; two on two cores are faster only while nothing else runs"""
    progress: bool = True
    """show progress bars"""


@dataclass(frozen=True)
class Choices:
    """What the paper leaves open about QC, each with the choice that is made here."""

    qc_share: float = 1.0
    """of the training batches of each pass; the paper's calibration set is 'small' and 'also part of the training set'"""
    qc_layers: Literal["all", "before_bn"] = "all"
    """'before_bn' leaves out the detection convolutions, which have no batch norm to fold into"""
    qc_averaged: bool = False
    """keep an average of the factors, whose horizon is a quarter of the passes, and take it at the end"""
    qc_bn_affine: bool = False
    """train the batch norms' own scale and shift with the factors"""

    def __post_init__(self) -> None:
        if not 0 < self.qc_share <= 1:
            raise ValueError(f"qc_share must be in 0 < qc_share <= 1, got {self.qc_share}")
        if self.qc_layers not in ("all", "before_bn"):
            raise ValueError(f"qc_layers must be one of all, before_bn, got {self.qc_layers}")

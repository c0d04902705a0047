"""Take the options of every command that runs a network: seed, device, threads, progress."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import nn

from oscillab.train.trainer import seed_everything


@dataclass(frozen=True)
class RunOptions:
    """How a command runs."""

    seed: int = 0
    """of data, augmentation and initial weights"""
    device: str = "cpu"
    """'cpu', 'cuda', 'cuda:1', ...; under torchrun 'cuda' is a GPU for each process"""
    timeout: int = 600
    """under torchrun: seconds to wait for the other processes"""
    threads: int = 1
    """torch threads; two on two cores are faster only while nothing else runs"""
    progress: bool = True
    """show progress bars"""
    json: Path | None = None
    """also write what was measured to this file"""


def prepare(options: RunOptions) -> None:
    """Set threads and seeds as the options say; called first in every command."""
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {options.device} needs a GPU that this torch can use, and there is none; allowed here: cpu"
        )
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    seed_everything(options.seed)


def placed(model: nn.Module, device: str) -> nn.Module:
    """Move the model to its device, channels last (in place), and return it."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub

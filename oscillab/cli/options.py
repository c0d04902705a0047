"""What do all commands share: options, data, calibration and the record of how a number came about?"""

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch

import oscillab
from oscillab.data.augment import Augment
from oscillab.data.batches import Batches
from oscillab.data.dataset import open_dataset
from oscillab.io import replacing
from oscillab.train.trainer import seed_everything, to_pixels

ROOT = Path(__file__).resolve().parents[2]
COMMIT = ("describe", "--always", "--abbrev=12")
CODE = ("oscillab", "pyproject.toml", "constraints.txt", "data/*.pt")  # what a result depends on
CHANGES = ("status", "--porcelain", "--", *CODE)
SHIPPED = ROOT / "data" / "yolov5n-scenes.pt"


@dataclass(frozen=True)
class DataOptions:
    """Which pictures, and how they are served."""

    data: str = "scenes"
    """'scenes', drawn afresh, or a folder in COCO's layout (annotations/instances_train2017.json, images/train2017, ...)"""
    size: int = 160
    """side of the square pictures in pixels, a multiple of 32"""
    count: int = 2000
    """pictures in a pass, for scenes; a folder's pass is the whole folder"""
    held_out: int = 500
    """pictures that are measured on, for scenes"""
    batch_size: int = 16
    """pictures in an optimizer step, over all processes"""
    drop_last: bool = False
    """leave out the last batch of a pass where it is not full"""
    augment: Literal["auto", "none", "flip", "recipe"] = "auto"
    """'recipe' is YOLOv5's: mosaic, affine, HSV, flip; 'auto' is that for a folder and none for scenes, always new"""
    workers: int = 0
    """processes that load pictures beside training; 0 loads in this one"""


@dataclass(frozen=True)
class RunOptions:
    """What every command takes."""

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


def training_batches(data, seed, *, masks=False):
    """The training pictures as `Batches`, with instance masks for a network that segments."""
    dataset = open_dataset(data.data, "train", count=data.count, size=data.size, seed=seed, masks=masks)
    return Batches(
        dataset,
        size=data.size,
        batch_size=data.batch_size,
        seed=seed,
        augment=augmentation(data),
        workers=data.workers,
        drop_last=data.drop_last,
        masks=masks,
    )


def held_out(data, *, masks=False):
    """The pictures that are measured on; scenes are the same 500 for every seed.

    `masks`: scenes draw them too. A folder's annotations tell theirs anyway; boxes are measured where it has none.
    """
    masks = masks and data.data == "scenes"
    return open_dataset(data.data, "val", count=data.held_out, size=data.size, seed=0, masks=masks)


def augmentation(data):
    """The augmentation that the options name, or None."""
    name = data.augment
    if name == "auto":
        name = "none" if data.data == "scenes" else "recipe"
    flip = Augment(mosaic=0.0, translate=0.0, scale=0.0, hsv=(0.0, 0.0, 0.0), flip=0.5)
    known = {"none": None, "flip": flip, "recipe": Augment()}
    if name not in known:
        raise ValueError(f"augment must be one of auto, {', '.join(known)}, got {name}")
    return known[name]


def prepare(options):
    """Threads and seeds as the options say; call it first in every command."""
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {options.device} needs a GPU that this torch can use, and there is none; allowed here: cpu"
        )
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    seed_everything(options.seed)


def placed(model, device):
    """The model on its device, channels last, which is a third faster on CPUs (in place)."""
    return model.to(device).to(memory_format=torch.channels_last)


def check_classes(model, dataset, source):
    """Raise ValueError when a detector and a data set do not have the same number of classes."""
    if model.classes != len(dataset.names):
        raise ValueError(
            f"{source} detects {model.classes} classes, {dataset.name} has {len(dataset.names)}: "
            "take a checkpoint that was trained for this data, or `oscillab pretrain` one"
        )


def calibration_batches(batches, *, count=4):
    """The first `count` training batches as float pixels, the same for every method."""
    for index, batch in enumerate(batches.epoch(0)):
        if index == count:
            return
        yield to_pixels(batch.images)


def provenance(config, **measured):
    """What is needed to make a result again: the configuration, versions, hardware, commit and what was measured."""
    versions = {"oscillab": oscillab.__version__, "torch": torch.__version__, "python": platform.python_version()}
    where = {"versions": versions, "hardware": hardware(config.run.device), "commit": commit()}
    return {"config": plain(asdict(config)), **where, **measured}


def plain(value):
    """The value in what JSON holds; a path as it was given, or relative to the project, never one machine's own."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, Path):
        return value
    if not value.is_absolute():
        return value.as_posix()
    return value.relative_to(ROOT).as_posix() if value.is_relative_to(ROOT) else value.name


def commit():
    """The commit of the project that is running, with a plus when its code differs from it; None outside a checkout."""
    try:
        found, changed = (_git(*words) for words in (COMMIT, CHANGES))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changed else "")


def _git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def hardware(device="cpu"):
    """One line that names the processor and the threads, or the accelerator."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} thread(s)"


def processor():
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_json(path, content):
    """The path of the JSON file that now holds `content`, written whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return Path(path)

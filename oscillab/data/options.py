"""Open the data that options name, once, and hand it on: training batches, held-out images, calibration images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from oscillab.data.augment import augmentation
from oscillab.data.batches import Batches, to_pixels
from oscillab.data.dataset import CocoFolder, open_dataset
from oscillab.data.scenes import Scenes


@dataclass(frozen=True)
class DataOptions:
    """Which images, and how they are served."""

    data: str = "scenes"
    """'scenes', drawn afresh, or a folder in COCO's layout (annotations/instances_train2017.json, images/train2017, ...)"""
    size: int = 160
    """side of the square images in pixels, a multiple of 32"""
    count: int = 2000
    """images in a pass, for scenes; a folder's pass is the whole folder"""
    held_out: int = 500
    """images that are measured on, for scenes"""
    batch_size: int = 16
    """images in an optimizer step, over all processes"""
    drop_last: bool = False
    """leave out the last batch of a pass where it is not full"""
    augment: Literal["auto", "none", "flip", "recipe"] = "auto"
    """'recipe' is YOLOv5's: mosaic, affine, HSV, flip; 'auto' is that for a folder and none for scenes, always new"""
    workers: int = 0
    """processes that load images beside training; 0 loads in this one"""


class DataSource:
    """The data sets of some options; each annotation file is opened once, when it is first asked for."""

    def __init__(self, options: DataOptions) -> None:
        self.options = options
        self._opened: dict[Any, Any] = {}

    def training_batches(self, seed: int, *, masks: bool = False) -> Batches:
        """Return the training images as `Batches`, with instance masks for a network that segments."""
        options = self.options
        name = options.augment if options.augment != "auto" else "none" if options.data == "scenes" else "recipe"
        return Batches(
            self._open("train", options.count, seed, masks),
            size=options.size,
            batch_size=options.batch_size,
            seed=seed,
            augment=augmentation(name),
            workers=options.workers,
            drop_last=options.drop_last,
            masks=masks,
        )

    def held_out(self, *, masks: bool = False) -> Scenes | CocoFolder:
        """Return the images that are measured on; scenes are the same for every seed.

        `masks`: scenes draw them too. A folder's annotations tell theirs anyway; boxes are measured where it has none.
        """
        return self._open("val", self.options.held_out, 0, masks and self.options.data == "scenes")

    def _open(self, split: str, count: int, seed: int, masks: bool) -> Any:
        if self.options.data == "scenes":
            return open_dataset("scenes", split, count=count, size=self.options.size, seed=seed, masks=masks)
        if split not in self._opened:
            self._opened[split] = open_dataset(self.options.data, split)
        return self._opened[split].with_masks() if masks else self._opened[split]


def training_batches(options: DataOptions, seed: int, *, masks: bool = False) -> Batches:
    """Return the training images as `Batches`; who needs more than one data set of the options takes a `DataSource`."""
    return DataSource(options).training_batches(seed, masks=masks)


def held_out(options: DataOptions, *, masks: bool = False) -> Scenes | CocoFolder:
    """Return the images that are measured on; who needs more of the options' data takes a `DataSource`."""
    return DataSource(options).held_out(masks=masks)


def known_size(model: nn.Module) -> int | None:
    """Return the side in pixels of the images that a detector was trained with, or exported for; None where unknown."""
    return getattr(model, "size", None) or getattr(getattr(model, "facts", None), "size", None)


def check_classes(model: Any, dataset: Any, source: Any) -> None:
    """Raise ValueError when a detector and a data set do not have the same number of classes."""
    if model.classes != len(dataset.names):
        raise ValueError(
            f"{source} detects {model.classes} classes, {dataset.name} has {len(dataset.names)}: "
            "take a checkpoint that was trained for this data, or `oscillab pretrain` one"
        )


def calibration_batches(batches: Batches, *, count: int = 4) -> Iterator[torch.Tensor]:
    """Yield the first `count` training batches as float pixels, the same for every method."""
    for index, batch in enumerate(batches.epoch(0)):
        if index == count:
            return
        yield to_pixels(batch.images)

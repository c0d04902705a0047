"""Open the data that options name, once, and hand it on; needs no torch until then, so that a command's help is quick."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from oscillab.data.batches import Batches
    from oscillab.data.images import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """Which images, and how they are served."""

    data: str = "scenes"
    """'scenes', drawn afresh, or a folder in COCO's layout (annotations/instances_train2017.json, images/train2017, ...)"""
    size: int = 160
    """side of the square images in pixels, a multiple of 32; 0: the checkpoint's own, else 160 for scenes and 640 for a folder"""
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

    def training_batches(self, seed: int, *, masks: bool = False, model: Any = None, source: Any = None) -> Batches:
        """Return the training images as `Batches`; with a model, from the file `source`, classes are joined by name."""
        from oscillab.data.batches import Batches

        options = self.options
        auto = "none" if options.data == "scenes" else "recipe"
        dataset = self._open("train", options.count, seed, masks)
        how: dict[str, Any] = {name: getattr(options, name) for name in ("size", "batch_size", "workers", "drop_last")}
        how |= {"augment": auto if options.augment == "auto" else options.augment, "seed": seed, "masks": masks}
        return Batches(dataset if model is None else joined_classes(model, dataset, source), **how)

    def held_out(self, *, masks: bool = False, model: Any = None, source: Any = None) -> Dataset:
        """Return the images that are measured on; scenes, the same for every seed, with `masks`, a folder with what it has."""
        dataset = self._open("val", self.options.held_out, 0, masks and self.options.data == "scenes")
        return dataset if model is None else joined_classes(model, dataset, source)

    def _open(self, split: str, count: int, seed: int, masks: bool) -> Any:
        from oscillab.data.dataset import open_dataset

        if self.options.data == "scenes":
            return open_dataset("scenes", split, count=count, size=self.options.size, seed=seed, masks=masks)
        if split not in self._opened:
            self._opened[split] = open_dataset(self.options.data, split)
        return self._opened[split].with_masks() if masks else self._opened[split]


def chosen_size(size: int, data: str, model: Any = None) -> int:
    """Return `size`, or where it is 0 the detector's own, else 160 for scenes, 640 for a folder; warn of another than its own.

    Its own is that of the images that it was trained with, or exported for, as far as it tells.
    """
    from oscillab.data.paint import NAMES

    own = getattr(model, "size", None) or getattr(getattr(model, "facts", None), "size", None)
    if model is not None and own is None and tuple(model.names) == NAMES:
        own = 160  # the shipped files do not tell theirs
    if own and size not in (0, own):
        log.warning("the detector was trained with images of %d pixels and is given images of %d", own, size)
    return size or own or (160 if data == "scenes" else 640)


def check_classes(model: Any, dataset: Any, source: Any) -> None:
    """Raise ValueError when a detector and a data set differ in classes, but for their order; names may be numbers."""
    if model.classes != len(dataset.names):
        counts = f"{source} detects {model.classes} classes, {dataset.name} has {len(dataset.names)}"
        raise ValueError(f"{counts}: take a checkpoint that was trained for this data, or `oscillab pretrain` one")
    if sorted(model.names) == sorted(dataset.names) or all(name.isdecimal() for name in model.names):
        return
    number = next(n for n, pair in enumerate(zip(model.names, dataset.names, strict=True)) if pair[0] != pair[1])
    names = f"class {number} is {model.names[number]!r} in {source} and {dataset.names[number]!r} in {dataset.name}"
    remedy = "take a checkpoint that was trained for this data, or give the data's categories its names"
    raise ValueError(f"{names}: {remedy}")


def class_order(model: Any, dataset: Any, source: Any = "the model") -> list[int]:
    """Return the data set's index of each of a detector's classes, by name; raise ValueError where they are not the same."""
    if not hasattr(model, "names"):
        return [*range(len(dataset.names))]
    check_classes(model, dataset, source)
    same = sorted(model.names) == sorted(dataset.names)
    return [dataset.names.index(name) if same else number for number, name in enumerate(model.names)]


def joined_classes(model: Any, dataset: Any, source: Any) -> Any:
    """Return the data set with its classes in the detector's order; raise ValueError where they are not the same."""
    if class_order(model, dataset, source) == [*range(len(dataset.names))]:
        return dataset
    log.info("%s has %s's classes in another order; they are joined by name", source, dataset.name)
    return dataset.with_names(list(model.names))


def calibration_batches(batches: Batches, *, count: int = 4) -> Iterator[torch.Tensor]:
    """Yield the first `count` training batches as float pixels, the same for every method."""
    from oscillab.data.batches import to_pixels

    for batch in islice(batches.epoch(0), count):
        yield to_pixels(batch.images)

"""Serve a data set in batches that are a pure function of (seed, epoch, position).

The order comes from (seed, epoch), each image's augmentation from (seed, epoch, index). Hence a run that resumes in the
middle of an epoch sees what it would have seen, with or without worker processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from oscillab.data.augment import augmentation
from oscillab.data.images import Dataset, Sample, check_dataset, letterbox_sample

STRIDE = 32  # of the detectors' coarsest grid: the size of an image is a multiple of it


class Batch(NamedTuple):
    """Images of one size, and their objects."""

    images: torch.Tensor  # (N, 3, size, size) uint8, RGB
    targets: torch.Tensor  # (n, 6) float32: image in the batch, class, cx, cy, w, h as fractions of size
    masks: list[torch.Tensor] | None  # N tensors (objects, size, size) uint8, as targets; None unless asked for
    image_ids: list[int]  # N ids of the data set's ground truth


class Batches:
    """All batches of a data set, epoch by epoch.

    `augment`: "recipe" (YOLOv5's), "flip", or what is called as augment(dataset, index, size, generator, pool=indices) and
    gives a Sample of (size, size); without it images are letterboxed. A `fresh` data set gives new images in every epoch.
    `pinned`: images lie in memory that a GPU copies from while it computes; by default where there is a GPU.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        size: int,
        batch_size: int,
        seed: int = 0,
        augment: Callable[..., Sample] | str | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        workers: int = 0,
        masks: bool = False,
        pinned: bool | None = None,
    ) -> None:
        check_dataset(dataset)
        if len(dataset) == 0:
            raise ValueError(f"the data set {dataset.name} is empty: it must hold one image or more")
        if size < STRIDE or size % STRIDE:
            raise ValueError(f"size must be a multiple of {STRIDE} pixels, got {size}")
        if batch_size < 1 or workers < 0 or seed < 0:
            given = f"{batch_size}, {workers} and {seed}"
            raise ValueError(f"batch_size must be 1 or more, workers and seed 0 or more, got {given}")
        self.dataset, self.size, self.batch_size, self.seed = dataset, size, batch_size, seed
        self.augment = augmentation(augment) if isinstance(augment, str) else augment
        self.shuffle, self.workers, self.masks = shuffle, workers, masks
        self.pinned = torch.cuda.is_available() if pinned is None else pinned
        self._length = (len(dataset) + (0 if drop_last else batch_size - 1)) // batch_size
        if self._length == 0:
            raise ValueError(f"batch_size must be 1..{len(dataset)} with drop_last on this data set, got {batch_size}")
        self._rank, self._count = 0, 1

    def __len__(self) -> int:
        return self._length

    def part(self, rank: int, count: int) -> Batches:
        """Return these batches for process `rank` of `count`: its own images of each, which together are the whole batch.

        Raises ValueError where a batch cannot be shared equally, or the last one has too few images.
        """
        if (size := self.batch_size) % count:
            raise ValueError(f"batch_size must be a multiple of the {count} processes that share it, got {size}")
        if (last := min(len(self.dataset) - (len(self) - 1) * size, size)) < count:
            remedy = "choose another batch_size, or leave that batch out with drop_last"
            given = f"the last of {len(self)} batches has {last} images for {count} processes"
            raise ValueError(f"{given}, each needs one: {remedy}")
        part = copy.copy(self)
        part._rank, part._count = rank, count
        return part

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of epoch `index` (0, 1, …), from number `start` on."""
        places = [(index, position) for position in range(start, len(self))]
        if not self.workers:
            return (self._pinned(self[place]) for place in places)
        how: dict[str, Any] = {"num_workers": self.workers, "worker_init_fn": _one_thread, "pin_memory": self.pinned}
        batches: Any = self  # a map from the sampler's values is all that a loader asks for
        return iter(DataLoader(batches, batch_size=None, sampler=places, **how))

    def __iter__(self) -> Iterator[Batch]:
        raise ValueError(
            "batches are served by epoch: `batches.epoch(0)` gives them, `to_pixels(batch.images)` a network's input"
        )

    def __getitem__(self, place: tuple[int, int]) -> Batch:
        return self.batch(*place)

    def batch(self, epoch: int, position: int) -> Batch:
        """Return the Batch number `position` of an epoch, or this process's part of it."""
        count, generator = len(self.dataset), np.random.default_rng((self.seed, epoch))
        pool = range(epoch * count, (epoch + 1) * count) if self.dataset.fresh else range(count)
        order = generator.permutation(count) if self.shuffle else np.arange(count)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        chosen = np.array_split(chosen, self._count)[self._rank]
        samples = [self._sample(epoch, pool[number], pool) for number in chosen]
        if self.masks and any(sample.masks is None for sample in samples):
            raise ValueError("masks=True needs a data set with masks: open it with masks=True")
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))  # (N, size, size, 3), a copy
        low, high = np.split(np.concatenate([sample.boxes for sample in samples]).clip(0, self.size), 2, axis=1)
        places = np.repeat(np.arange(len(samples)), [len(sample.labels) for sample in samples])
        columns = (
            places,
            np.concatenate([s.labels for s in samples]),
            (low + high) / 2 / self.size,
            (high - low) / self.size,
        )
        targets = np.column_stack(columns).astype(np.float32)  # (n, 6)
        masks = [torch.from_numpy(np.ascontiguousarray(s.masks)) for s in samples] if self.masks else None
        images = images.permute(0, 3, 1, 2).contiguous()  # (N, 3, size, size)
        return Batch(images, torch.from_numpy(targets), masks, [sample.image_id for sample in samples])

    def _pinned(self, batch: Batch) -> Batch:
        fixed = {name: getattr(batch, name).pin_memory() for name in ("images", "targets") if self.pinned}
        return batch._replace(**fixed)

    def _sample(self, epoch: int, index: int, pool: Sequence[int]) -> Sample:
        if self.augment is None:
            return letterbox_sample(self.dataset.sample(index), self.size)
        generator = np.random.default_rng((self.seed, epoch, index))
        return self.augment(self.dataset, index, self.size, generator, pool=pool)


def to_pixels(images: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return uint8 images (N, 3, H, W) as floats in 0..1 on `device`, channels last, which is faster on CPUs."""
    return images.to(device, non_blocking=True).to(memory_format=torch.channels_last).float().div_(255)


def _one_thread(_worker: int) -> None:
    """Keep OpenCV's own threads from fighting over the cores inside a worker process."""
    cv2.setNumThreads(0)

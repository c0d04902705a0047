"""Vary a training image as YOLOv5's official recipe does.

Four images are laid around a point of a grey canvas of twice the size (mosaic), the canvas is moved, scaled and cut to the
size (affine), colours are shifted (HSV) and the image is mirrored. Every choice comes from the generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from oscillab.data.images import GREY, Dataset, Sample, letterbox_sample, resize_masks, shape_of_longest, tight_box


@dataclass(frozen=True)
class Augment:
    """The recipe's settings; call it with a data set and an index for a Sample of (size, size)."""

    mosaic: float = 1.0  # probability of four images in one; otherwise one image, letterboxed
    degrees: float = 0.0  # largest turn to either side
    translate: float = 0.1  # largest shift, in image sides
    scale: float = 0.5  # gain drawn from 1 - scale … 1 + scale
    shear: float = 0.0  # largest slant in degrees
    hsv: tuple[float, float, float] = (0.015, 0.7, 0.4)  # largest relative change of hue, saturation, value
    flip: float = 0.5  # probability of left for right

    def __post_init__(self) -> None:
        if outside := [n for n in ("mosaic", "flip", "translate", "scale") if not 0 <= getattr(self, n) <= 1]:
            raise ValueError(f"{outside[0]} must be 0..1, got {getattr(self, outside[0])}")
        if len(self.hsv) != 3 or not all(0 <= gain <= 1 for gain in self.hsv):
            raise ValueError(f"hsv must be three gains of 0..1, got {self.hsv}")
        if not (0 <= self.degrees <= 180 and 0 <= self.shear < 90):
            raise ValueError(f"degrees must be 0..180 and shear 0..90, got {self.degrees} and {self.shear}")

    def __call__(
        self, dataset: Dataset, index: int, size: int, generator: np.random.Generator, *, pool: Sequence[int] = ()
    ) -> Sample:
        """Return the varied Sample (size, size) of image `index`; a mosaic's other three come from `pool`, or from all."""
        if generator.random() < self.mosaic:
            pool = pool or range(len(dataset))
            others = [pool[number] for number in generator.integers(len(pool), size=3)]
            samples = [dataset.sample(number) for number in (index, *others)]
            sample = mosaic([samples[place] for place in generator.permutation(4)], size, generator)
            sample = sample._replace(image_id=samples[0].image_id)
        else:
            sample = letterbox_sample(dataset.sample(index), size, smooth=False)
        matrix, gain = self.draw_matrix(sample.image.shape[:2], size, generator)
        sample = transform(sample, matrix, size, gain=gain)
        sample = sample._replace(image=shift_colours(sample.image, self.hsv, generator))
        return mirror(sample) if generator.random() < self.flip else sample

    def draw_matrix(self, shape: Sequence[int], size: int, generator: np.random.Generator) -> tuple[np.ndarray, float]:
        """Return a random affine matrix (2, 3) from a canvas (height, width) to a square of `size`, and its gain."""
        centre = np.array([[1, 0, -shape[1] / 2], [0, 1, -shape[0] / 2], [0, 0, 1]])
        angle = math.radians(generator.uniform(-self.degrees, self.degrees))
        gain = max(generator.uniform(1 - self.scale, 1 + self.scale), 0.01)
        cosine, sine = gain * math.cos(angle), gain * math.sin(angle)
        turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
        across, down = np.tan(np.radians(generator.uniform(-self.shear, self.shear, size=2)))
        slant = np.array([[1, across, 0], [down, 1, 0], [0, 0, 1]])
        x, y = generator.uniform(0.5 - self.translate, 0.5 + self.translate, size=2) * size
        shift = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
        return (shift @ slant @ turn @ centre)[:2], gain


def augmentation(name: str) -> Augment | None:
    """Return the augmentation of that name: "recipe" (YOLOv5's), "flip" (left for right alone), "none"."""
    flip = Augment(mosaic=0.0, translate=0.0, scale=0.0, hsv=(0.0, 0.0, 0.0), flip=0.5)
    known = {"none": None, "flip": flip, "recipe": Augment()}
    if name not in known:
        raise ValueError(f"augment must be one of auto, {', '.join(known)}, got {name}")
    return known[name]


def mosaic(samples: Sequence[Sample], size: int, generator: np.random.Generator) -> Sample:
    """Lay four Samples around a random point of a grey canvas (2 * size, 2 * size); the point lies in its middle half.

    Each image is resized to `size` at its longer side and cut where it stands out of the canvas or its quarter.
    """
    centre_x, centre_y = (int(part) for part in generator.uniform(size / 2, 3 * size / 2, size=2))
    canvas = np.full((2 * size, 2 * size, 3), GREY, dtype=np.uint8)
    moved_boxes, masks = [], []
    for place, sample in enumerate(samples):
        height, width = shape_of_longest(sample.image, size)
        left = centre_x - width if place in (0, 2) else centre_x  # upper left, upper right, lower left, lower right
        top = centre_y - height if place in (0, 1) else centre_y
        image = sample.image
        _paste(canvas, cv2.resize(image, (width, height)), left, top)
        ratio = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        moved_boxes.append(sample.boxes * ratio + np.array([left, top] * 2, np.float32))
        if sample.masks is not None:
            moved = np.zeros((len(sample.masks), 2 * size, 2 * size), dtype=np.uint8)
            for target, mask in zip(moved, resize_masks(sample.masks, (height, width)), strict=True):
                _paste(target, mask, left, top)
            masks.append(moved)
    labels = np.concatenate([sample.labels for sample in samples])
    boxes = np.clip(np.concatenate(moved_boxes), 0, 2 * size)
    return Sample(canvas, boxes, labels, np.concatenate(masks) if len(masks) == 4 else None, samples[0].image_id)


def transform(sample: Sample, matrix: np.ndarray, size: int, *, gain: float) -> Sample:
    """Return the Sample seen through an affine matrix (2, 3) of scale `gain` in a square; objects cut to little are dropped.

    A box becomes the box around its four moved corners, or around its mask where there is one.
    """
    image = cv2.warpAffine(sample.image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3)
    corners = sample.boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]  # (n, 4, 2)
    boxes = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32).clip(0, size)
    masks = sample.masks
    if masks is not None:
        planes = [cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_NEAREST) for mask in masks]
        masks = np.array(planes, dtype=np.uint8).reshape(-1, size, size)
        boxes = np.array([tight_box(mask) for mask in masks], dtype=np.float32).reshape(-1, 4)
    kept = box_candidates(sample.boxes * gain, boxes)
    return Sample(image, boxes[kept], sample.labels[kept], None if masks is None else masks[kept], sample.image_id)


def box_candidates(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Tell which boxes (n, 4) are still worth learning: both sides above 2 pixels, a tenth of the area, aspect below 100."""
    (width, height), full = (after[:, 2:] - after[:, :2]).T, before[:, 2:] - before[:, :2]
    share = width * height / (full[:, 0] * full[:, 1] + 1e-16)
    aspect = np.maximum(width / (height + 1e-16), height / (width + 1e-16))
    return (width > 2) & (height > 2) & (share > 0.1) & (aspect < 100)


def shift_colours(image: np.ndarray, gains: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Return the image (H, W, 3) RGB with hue, saturation and value each scaled by a random 1 ± gain."""
    if not any(gains):
        return image
    hue, saturation, value = generator.uniform(-1, 1, size=3) * gains + 1
    steps = np.arange(256)
    tables = (steps * hue % 180, np.clip(steps * saturation, 0, 255), np.clip(steps * value, 0, 255))
    table = np.stack(tables, axis=-1).astype(np.uint8)[None]  # (1, 256, 3)
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def mirror(sample: Sample) -> Sample:
    """Return the Sample with left and right exchanged."""
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = sample.image.shape[1] - sample.boxes[:, [2, 0]]
    masks = None if sample.masks is None else np.ascontiguousarray(sample.masks[:, :, ::-1])
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), boxes, sample.labels, masks, sample.image_id)


def _paste(canvas: np.ndarray, image: np.ndarray, left: int, top: int) -> None:
    """Copy the part of the image that lies on the canvas, its upper left corner at (left, top)."""
    height, width = image.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]

"""Read images, fit them into the network's square or rectangle, and take boxes back from there.

An image is fitted in two steps, as the official code takes them, so that pixels agree to the bit: first the longer side is
resized to the square's (INTER_AREA when shrinking for validation, else INTER_LINEAR; sizes cut to whole pixels), then grey
fills up: to a square, or, as the official validation does, to the smallest rectangle that suits all images of a batch,
which then have similar shapes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from oscillab.data.sample import Dataset, Sample
from oscillab.io import atomic_write

GREY = 114  # the borders' colour, of 255
MARGIN = 0.5  # strides of grey that the official validation leaves in a rectangle: a square of 640 becomes one of 672


def read_image(path: Path | str) -> np.ndarray:
    """Return an image as it is shown (turned as its EXIF tag says), uint8 RGB (H, W, 3).

    Raises ValueError where the file is no image, is cut short (some versions of OpenCV fill up with grey), or too large.
    """
    data = Path(path).read_bytes()  # by bytes, since OpenCV does not open every path on every system
    if is_cut_short(data):
        raise ValueError(f"{path} cannot be read as an image: the file is cut short")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        reason = "it is too large" if "pixels" in str(error).lower() else str(error).strip().splitlines()[-1]
        raise ValueError(f"{path} cannot be read as an image: {reason}") from None
    if pixels is None:
        raise ValueError(f"{path} cannot be read as an image: it is no JPEG, PNG or other image, or damaged")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def is_cut_short(data: bytes) -> bool:
    """Tell whether bytes begin as a JPEG or PNG does, but lack its end."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-4096:]
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    place = 2  # the segments before the scan may hold a thumbnail with an end of its own: step over them
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda" and place + 4 <= len(data):
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return b"\xff\xd9" not in data[place:]


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an image, uint8 RGB (H, W, 3), in the format that its name says, PNG where it says none."""
    suffix = path.suffix if path.suffix and cv2.haveImageWriter(path.name) else ".png"
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_write(path if suffix == path.suffix else path.with_name(f"{path.name}.png")) as temporary:
        temporary.write_bytes(data.tobytes())


def resize_longest(image: np.ndarray, size: int, *, smooth: bool = True) -> np.ndarray:
    """Return the image with its longer side resized to `size` pixels; `smooth` shrinks by INTER_AREA (validation)."""
    height, width = shape_of_longest(image, size)
    if (height, width) == image.shape[:2]:
        return image
    method = cv2.INTER_AREA if smooth and size < max(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def shape_of_longest(image: np.ndarray, size: int) -> tuple[int, int]:
    """Return height and width of the image with its longer side resized to `size` pixels, cut to whole ones."""
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    return max(int(height * ratio), 1), max(int(width * ratio), 1)


def letterbox(image: np.ndarray, size: int, *, smooth: bool = True) -> tuple[np.ndarray, float, tuple[float, float]]:
    """Return the image (H, W, 3) in a square (size, size, 3), with ratio and (pad_x, pad_y) to undo it by.

    A point of the original lies at (x * ratio + pad_x, y * ratio + pad_y). Pads may be half pixels: the official code
    maps boxes back with the unrounded ones, and so must who compares with it.
    """
    resized = resize_longest(image, size, smooth=smooth)
    ratio = resized.shape[0] / image.shape[0]
    square, pads = pad_to_square(resized, size)
    return square, ratio, pads


def pad_to_square(image: np.ndarray, size: int, *, value: int = GREY) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the image (H, W[, 3]), no side above size, centred in a square, and (pad_x, pad_y) in halves of a pixel."""
    height, width = image.shape[:2]
    pad_x, pad_y = (size - width) / 2, (size - height) / 2
    top, bottom, left, right = (round(pad + side) for pad in (pad_y, pad_x) for side in (-0.1, 0.1))
    if not (top or bottom or left or right):
        return image, (pad_x, pad_y)
    border = (value,) * 3
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border), (pad_x, pad_y)


def letterbox_sample(sample: Sample, size: int, *, smooth: bool = True) -> Sample:
    """Return the Sample letterboxed to (size, size): image, boxes and masks; itself when it has that size already."""
    height, width = sample.image.shape[:2]
    if (height, width) == (size, size):
        return sample
    resized = resize_longest(sample.image, size, smooth=smooth)
    image, (pad_x, pad_y) = pad_to_square(resized, size)
    across, down = resized.shape[1] / width, resized.shape[0] / height
    boxes = sample.boxes * np.array([across, down, across, down], np.float32) + np.array([pad_x, pad_y] * 2, np.float32)
    masks = sample.masks
    if masks is not None:
        masks = resize_masks(masks, resized.shape[:2])
        planes = [pad_to_square(mask, size, value=0)[0] for mask in masks]
        masks = np.stack(planes) if planes else np.zeros((0, size, size), dtype=np.uint8)
    return Sample(image, boxes, sample.labels, masks, sample.image_id)


def resize_masks(masks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the masks (n, H, W) at shape (height, width), by the nearest pixel."""
    planes = [cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.stack(planes) if planes else np.zeros((0, *shape), dtype=np.uint8)


class Place(NamedTuple):
    """Where an image lies in its letterbox, for the way back."""

    image_id: int
    width: int  # pixels of the image as it was
    height: int
    ratio: float  # letterbox pixels per pixel
    pad: tuple[float, float]  # grey pixels to the left and above; may end in a half
    shape: tuple[int, int]  # height and width of the letterbox

    def boxes(self, rows: np.ndarray) -> np.ndarray:
        """Return reported boxes (k, 6) of rows (k, 6 [+ M]), in the pixels of the image as it was, clipped to it."""
        rows = rows[:, :6].copy()  # mask coefficients end here
        rows[:, :4] = (rows[:, :4] - np.tile(self.pad, 2)) / self.ratio
        rows[:, :4] = rows[:, :4].clip(0, [self.width, self.height] * 2)
        return rows


def evaluation_batches(
    images: list[dict[str, Any]], size: int, batch_size: int, *, stride: int = 32, rectangular: bool = False
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Return the batches of an evaluation: (indices, (height, width) of their letterbox), every index below len(images) once.

    `images` are entries of COCO's format with width and height. Squares come in the given order; rectangles in the
    order of the aspect ratio, each as large as the batch's extremes need, in whole strides.
    """
    order = np.arange(len(images))
    if not rectangular:
        return [(part, (size, size)) for part in np.split(order, order[batch_size::batch_size])]
    ratios = np.array([image["height"] / image["width"] for image in images])
    parts = np.split(ratios.argsort(), order[batch_size::batch_size])
    return [(part, rectangle(ratios[part], size, stride)) for part in parts]


def in_order(reports: list[dict[int, Any]], count: int) -> list[Any]:
    """Return a list of `count` reports out of several processes' mappings from index to report, each image's once.

    >>> in_order([{0: "a", 2: "c"}, {1: "b"}], 3)
    ['a', 'b', 'c']
    """
    pairs = sorted((index, report) for each in reports for index, report in each.items())
    if [index for index, _ in pairs] != list(range(count)):
        raise ValueError(f"each of {count} images must be reported once, got {len(pairs)} reports")
    return [report for _, report in pairs]


def rectangle(ratios: np.ndarray, size: int, stride: int) -> tuple[int, int]:
    """Return height and width of the letterbox of images with those ratios of height to width.

    >>> rectangle(np.array([0.5, 0.75]), 640, 32)
    (512, 672)
    """
    height, width = min(ratios.max(), 1), min(1 / ratios.min(), 1)
    return math.ceil(height * size / stride + MARGIN) * stride, math.ceil(width * size / stride + MARGIN) * stride


def letterbox_batch(
    dataset: Dataset, indices: np.ndarray, size: int, shape: tuple[int, int]
) -> tuple[torch.Tensor, list[Place]]:
    """Return letterboxed images uint8 (N, 3, *shape) with longer sides of `size` pixels, and the `Place` of each."""
    canvases = np.full((len(indices), *shape, 3), GREY, np.uint8)
    places = []
    for canvas, index in zip(canvases, indices, strict=True):
        sample = dataset.sample(int(index))
        resized = resize_longest(sample.image, size)
        height, width = resized.shape[:2]
        pad = (shape[1] - width) / 2, (shape[0] - height) / 2
        left, top = (round(side - 0.1) for side in pad)
        canvas[top : top + height, left : left + width] = resized
        own_height, own_width = sample.image.shape[:2]
        places.append(Place(sample.image_id, own_width, own_height, height / own_height, pad, shape))
    # A view: the colours stay innermost, the layout that convolutions on a CPU are quickest with.
    return torch.from_numpy(canvases).permute(0, 3, 1, 2), places

"""How does a picture of any shape become the square that the network reads?

In two steps, as the official code takes them, so that pixels agree to the bit: first the longer side is resized to the
square's (INTER_AREA when shrinking for validation, else INTER_LINEAR; sizes cut to whole pixels), then grey fills up.
"""

from __future__ import annotations

import cv2
import numpy as np

from oscillab.data.sample import Sample

GREY = 114  # the borders' colour, of 255


def resize_longest(image, size, *, smooth=True):
    """The image with its longer side resized to `size` pixels; smooth=True shrinks by INTER_AREA (validation)."""
    height, width = shape_of_longest(image, size)
    if (height, width) == image.shape[:2]:
        return image
    method = cv2.INTER_AREA if smooth and size < max(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def shape_of_longest(image, size):
    """Height and width of the image with its longer side resized to `size` pixels, cut to whole ones."""
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    return max(int(height * ratio), 1), max(int(width * ratio), 1)


def letterbox(image, size, *, smooth=True):
    """The image (H, W, 3) in a square (size, size, 3), with (ratio, (pad_x, pad_y)) to undo it by.

    A point of the original lies at (x * ratio + pad_x, y * ratio + pad_y). Pads may be half pixels: the official code
    maps boxes back with the unrounded ones, and so must who compares with it.
    """
    resized = resize_longest(image, size, smooth=smooth)
    ratio = resized.shape[0] / image.shape[0]
    square, pads = pad_to_square(resized, size)
    return square, ratio, pads


def pad_to_square(image, size, *, value=GREY):
    """The image (H, W[, 3]), no side above size, centred in a square, and (pad_x, pad_y), each a multiple of 0.5."""
    height, width = image.shape[:2]
    pad_x, pad_y = (size - width) / 2, (size - height) / 2
    top, bottom, left, right = (round(pad + side) for pad in (pad_y, pad_x) for side in (-0.1, 0.1))
    if not (top or bottom or left or right):
        return image, (pad_x, pad_y)
    border = (value,) * 3
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border), (pad_x, pad_y)


def letterbox_sample(sample, size, *, smooth=True):
    """The Sample letterboxed to (size, size): picture, boxes and masks; itself when it has that size already."""
    height, width = sample.image.shape[:2]
    if (height, width) == (size, size):
        return sample
    resized = resize_longest(sample.image, size, smooth=smooth)
    image, (pad_x, pad_y) = pad_to_square(resized, size)
    across, down = resized.shape[1] / width, resized.shape[0] / height
    boxes = sample.boxes * np.float32([across, down, across, down]) + np.float32([pad_x, pad_y, pad_x, pad_y])
    masks = sample.masks
    if masks is not None:
        masks = resize_masks(masks, resized.shape[:2])
        planes = [pad_to_square(mask, size, value=0)[0] for mask in masks]
        masks = np.stack(planes) if planes else np.zeros((0, size, size), dtype=np.uint8)
    return Sample(image, boxes, sample.labels, masks, sample.image_id)


def resize_masks(masks, shape):
    """The masks (n, H, W) at shape (height, width), by the nearest pixel."""
    planes = [cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.stack(planes) if planes else np.zeros((0, *shape), dtype=np.uint8)

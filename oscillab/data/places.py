"""Where in the network's input does each picture lie, and how do boxes come back from there?

For evaluation a picture is shrunk or enlarged until its longer side has the size asked for, and grey fills it up: to a
square, or, as the official validation does, to the smallest rectangle that suits all pictures of a batch, which then
have similar shapes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from oscillab.data.letterbox import GREY, resize_longest

MARGIN = 0.5  # strides of grey that the official validation leaves in a rectangle: a square of 640 becomes one of 672


class Place(NamedTuple):
    """Where a picture lies in its letterbox, for the way back."""

    image_id: int
    width: int  # pixels of the picture as it was
    height: int
    ratio: float  # letterbox pixels per pixel
    pad: tuple[float, float]  # grey pixels to the left and above; may end in a half
    shape: tuple[int, int]  # height and width of the letterbox

    def boxes(self, rows):
        """Reported boxes (k, 6) of rows (k, 6 [+ M]), in the pixels of the picture as it was, clipped to it."""
        rows = rows[:, :6].copy()  # mask coefficients end here
        rows[:, :4] = (rows[:, :4] - np.tile(self.pad, 2)) / self.ratio
        rows[:, :4] = rows[:, :4].clip(0, [self.width, self.height] * 2)
        return rows


def batches(images, size, batch_size, *, stride=32, rectangular=False):
    """The batches of an evaluation: (indices, (height, width) of their letterbox), every index below len(images) once.

    `images` are entries of COCO's format with width and height. Squares come in the given order; rectangles in the
    order of the aspect ratio, each as large as the batch's extremes need, in whole strides.
    """
    order = np.arange(len(images))
    if not rectangular:
        return [(part, (size, size)) for part in np.split(order, order[batch_size::batch_size])]
    ratios = np.array([image["height"] / image["width"] for image in images])
    parts = np.split(ratios.argsort(), order[batch_size::batch_size])
    return [(part, rectangle(ratios[part], size, stride)) for part in parts]


def rectangle(ratios, size, stride):
    """Height and width of the letterbox of pictures with those ratios of height to width.

    >>> rectangle(np.array([0.5, 0.75]), 640, 32)
    (512, 672)
    """
    sides = min(ratios.max(), 1), min(1 / ratios.min(), 1)
    return tuple(math.ceil(side * size / stride + MARGIN) * stride for side in sides)


def pictures(dataset, indices, size, shape):
    """Letterboxed images uint8 (N, 3, *shape) with longer sides of `size` pixels, and the `Place` of each."""
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

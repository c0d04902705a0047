"""What is one picture with its objects, and how do masks turn into boxes, run lengths and COCO annotations?

Boxes are (x1, y1, x2, y2) in pixels, measured on pixel edges: a mask of the single pixel (row 3, column 5) has the box
(5, 3, 6, 4). Masks are 0/1 bytes, one plane an object. Run lengths follow COCO: column after column, zeros first.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SUPERSAMPLING = 4  # outlines are filled at 4 x 4 points a pixel, and averaged


class Sample(NamedTuple):
    """One picture and what is annotated on it."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    boxes: np.ndarray  # (n, 4) float32, x1 y1 x2 y2 in pixels
    labels: np.ndarray  # (n,) int64, index into the data set's names
    masks: np.ndarray | None  # (n, H, W) uint8 of 0 and 1; None where the data set was opened without masks
    image_id: int  # the picture's id in the data set's ground truth


def tight_box(mask):
    """The box x1, y1, x2, y2 (whole pixels) around the ones of a mask (H, W); all zeros for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return x, y, x + width, y + height


def encode_runs(mask):
    """The mask (H, W) as COCO's uncompressed run lengths, {"size": [H, W], "counts": [zeros, ones, zeros, …]}."""
    flat = np.asarray(mask, dtype=np.int8).ravel(order="F")  # (W * H,), column after column
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(changes, prepend=0, append=flat.size)
    return {"size": [int(side) for side in mask.shape], "counts": counts.tolist()}


def decode_runs(runs):
    """The mask (H, W) of 0 and 1 from COCO's run lengths, plain (a list) or compressed (a string).

    >>> decode_runs({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[0, 1], [1, 0]]
    """
    height, width = runs["size"]
    counts = runs["counts"]
    counts = _uncompress(counts) if isinstance(counts, (str, bytes)) else counts
    if sum(counts) != height * width or any(count < 0 for count in counts):
        raise ValueError(f"run lengths of a {height}x{width} mask must add up to {height * width}, got {sum(counts)}")
    bits = np.arange(len(counts), dtype=np.uint8) % 2
    return np.ascontiguousarray(np.repeat(bits, counts).reshape(width, height).T)


def coverage(contours, height, width):
    """The share of every pixel that contours cover, as (alpha, x, y), or None where they miss the picture.

    alpha is (h, w) uint8, 255 = all of the pixel, for the part of the picture (height, width) whose upper left pixel is
    (x, y). Contours are (n, 2) arrays in pixels, measured from the upper left edge; one inside another is a hole.
    """
    low = np.floor(np.min([contour.min(axis=0) for contour in contours], axis=0)).astype(int)
    high = np.ceil(np.max([contour.max(axis=0) for contour in contours], axis=0)).astype(int)
    (x, y), (right, bottom) = np.maximum(low, 0).tolist(), np.minimum(high, (width, height)).tolist()
    if right <= x or bottom <= y:
        return None
    fine = np.zeros(((bottom - y) * SUPERSAMPLING, (right - x) * SUPERSAMPLING), dtype=np.uint8)
    # OpenCV counts from the centre of a point, hence the half; shift=4 gives sixteenths of a point.
    corners = [np.round(((contour - (x, y)) * SUPERSAMPLING - 0.5) * 16).astype(np.int32) for contour in contours]
    cv2.fillPoly(fine, corners, 255, cv2.LINE_8, shift=4)
    return cv2.resize(fine, (right - x, bottom - y), interpolation=cv2.INTER_AREA), x, y


def draw_polygons(polygons, height, width):
    """The mask (height, width) of 0 and 1: pixels that polygons, lists x0, y0, x1, y1, …, cover by half or more."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        covered = coverage([np.reshape(polygon, (-1, 2))], height, width) if len(polygon) >= 6 else None
        if covered is not None:
            alpha, x, y = covered
            mask[y : y + alpha.shape[0], x : x + alpha.shape[1]] |= alpha > 127
    return mask


def annotations_of(sample, category_ids, first_id):
    """The COCO annotations (a list of dictionaries) of a sample; ids count up from first_id."""
    rows = []
    for number, (box, label) in enumerate(zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True)):
        row = {
            "id": first_id + number,
            "image_id": sample.image_id,
            "category_id": category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": 0,
        }
        if sample.masks is not None:
            row["area"] = int(np.count_nonzero(sample.masks[number]))
            row["segmentation"] = encode_runs(sample.masks[number])
        rows.append(row)
    return rows


def _uncompress(text):
    """COCO's compressed run lengths as a list: 5 bits a character, signed, each count less the one two before it."""
    text = text.encode() if isinstance(text, str) else text
    counts, position = [], 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position == len(text):
                raise ValueError("compressed run lengths end within a number")
            code = text[position] - 48
            value |= (code & 31) << shift
            more, position, shift = code & 32, position + 1, shift + 5
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts

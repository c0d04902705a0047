"""Hold one image with its objects, and turn masks into boxes, run lengths and COCO annotations.

Boxes are (x1, y1, x2, y2) in pixels, measured on pixel edges: a mask of the single pixel (row 3, column 5) has the box
(5, 3, 6, 4). Masks are 0/1 bytes, one plane an object. Run lengths follow COCO: column after column, zeros first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

SUPERSAMPLING = 4  # outlines are filled at 4 x 4 points a pixel, and averaged


class Sample(NamedTuple):
    """One image and what is annotated on it."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    boxes: np.ndarray  # (n, 4) float32, x1 y1 x2 y2 in pixels
    labels: np.ndarray  # (n,) int64, index into the data set's names
    masks: np.ndarray | None  # (n, H, W) uint8 of 0 and 1; None where the data set was opened without masks
    image_id: int  # the image's id in the data set's ground truth


class Dataset(Protocol):
    """What batches and `evaluate` ask of a data set, such as `Scenes` and `CocoFolder`."""

    name: str
    names: list[str]  # of the classes
    category_ids: list[int]  # of the classes, in the ground truth
    fresh: bool  # whether indices beyond the length give further new images

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Return the Sample number `index`."""

    def ground_truth(self) -> dict[str, Any]:
        """Return images, annotations and categories in COCO's format."""


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box x1, y1, x2, y2 (whole pixels) around the ones of a mask (H, W); all zeros for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return x, y, x + width, y + height


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """Return the mask (H, W) as COCO's uncompressed run lengths, {"size": [H, W], "counts": [zeros, ones, zeros, …]}."""
    flat = np.asarray(mask, dtype=np.int8).ravel(order="F")  # (W * H,), column after column
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(changes, prepend=0, append=flat.size)
    return {"size": [int(side) for side in mask.shape], "counts": counts.tolist()}


def decode_runs(runs: dict[str, Any]) -> np.ndarray:
    """Return the mask (H, W) of 0 and 1 from COCO's run lengths, plain (a list) or compressed (a string).

    >>> decode_runs({"size": [2, 2], "counts": [1, 2, 1]}).tolist()
    [[0, 1], [1, 0]]
    """
    height, width = runs["size"]
    counts = checked_counts(runs["counts"], height * width)
    bits = np.arange(len(counts), dtype=np.uint8) % 2
    return np.ascontiguousarray(np.repeat(bits, counts).reshape(width, height).T)


def checked_counts(counts: Any, total: int) -> list[int]:
    """Return run lengths as a list; raise ValueError where they are none, or do not add up to `total` pixels."""
    if isinstance(counts, str | bytes):
        counts = _uncompress(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or any(type(count) is not int or not 0 <= count <= total for count in counts):
        raise ValueError(f"counts of run lengths must be a string, or a list of whole numbers of 0..{total}")
    if sum(counts) != total:
        raise ValueError(f"run lengths must add up to {total} pixels, got {sum(counts)}")
    return counts


def coverage(contours: Sequence[np.ndarray], height: int, width: int) -> tuple[np.ndarray, int, int] | None:
    """Return the share of every pixel that contours cover, as (alpha, x, y), or None where they miss the image.

    alpha is (h, w) uint8, 255 = all of the pixel, for the part of the image (height, width) whose upper left pixel is
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


def draw_polygons(polygons: Iterable[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) of 0 and 1: pixels that polygons, lists x0, y0, x1, y1, …, cover by half or more."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        covered = coverage([np.reshape(polygon, (-1, 2))], height, width) if len(polygon) >= 6 else None
        if covered is not None:
            alpha, x, y = covered
            mask[y : y + alpha.shape[0], x : x + alpha.shape[1]] |= alpha > 127
    return mask


def annotations_of(sample: Sample, category_ids: Sequence[int], first_id: int) -> list[dict[str, Any]]:
    """Return the COCO annotations of a sample; ids count up from first_id."""
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


def _uncompress(text: bytes) -> list[int]:
    """Return COCO's compressed run lengths: 5 bits a character, signed, each count less the one two before it."""
    counts: list[int] = []
    value = shift = 0
    for code in (character - 48 for character in text):
        if not 0 <= code < 64:
            raise ValueError(f"compressed run lengths hold the character {chr(code + 48)!r}; allowed are '0' to 'o'")
        value |= (code & 31) << shift
        shift += 5
        if shift > 35:
            raise ValueError("compressed run lengths hold a number of more than 35 bits")
        if code & 32:  # more of this number follows
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end within a number")
    return counts

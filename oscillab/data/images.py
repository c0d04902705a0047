"""Hold an image with its objects, read and write images, fit them into the network's square or rectangle and take boxes back.

Boxes are (x1, y1, x2, y2) in pixels, on pixel edges: a mask of the single pixel (row 3, column 5) has the box (5, 3, 6, 4).
Masks are 0/1 bytes, one plane an object. An image is fitted as by the official code, to the bit: its longer side is resized
(INTER_AREA when shrinking for validation, else INTER_LINEAR; sizes cut to whole pixels), then grey fills up, to a square, or
to the smallest rectangle that suits all images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from pycocotools import mask as coco

from oscillab.io import atomic_write

GREY = 114  # the borders' colour, of 255
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # of the images in a folder
MARGIN = 0.5  # strides of grey that the official validation leaves in a rectangle: a square of 640 becomes one of 672


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


def check_dataset(dataset: Any) -> None:
    """Raise ValueError where batches, a loader, a path or a list is given for a data set."""
    if not hasattr(dataset, "sample"):
        inside = "; these batches hold theirs as `dataset`" if hasattr(dataset, "dataset") else ""
        raise ValueError(f"a data set, such as Scenes or CocoFolder, is needed, got a {type(dataset).__name__}{inside}")


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box x1, y1, x2, y2 (whole pixels) around the ones of a mask (H, W); all zeros for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return x, y, x + width, y + height


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """Return the mask (H, W) as COCO's uncompressed run lengths, {"size": [H, W], "counts": [zeros, ones, zeros, …]}."""
    mask = np.asarray(mask, dtype=np.uint8)
    (height, width), (left, _, right, _) = mask.shape, tight_box(mask)
    flat = np.zeros((right - left) * height + 2, dtype=np.int8)  # column after column, those with ones alone
    flat[1:-1] = mask[:, left:right].T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + left * height
    changes = changes[changes < mask.size]
    counts = np.diff(changes, prepend=0, append=mask.size)
    return {"size": [height, width], "counts": counts.tolist()}


def decode_mask(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) of 0 and 1 of COCO's polygons or run lengths, pycocotools' very pixels.

    Run lengths of another size than the image's (images were shrunk, crowds forgotten) are brought to it.

    >>> decode_mask({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist()
    [[0, 1], [1, 0]]
    """
    if isinstance(segmentation, list):
        return coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width)))
    plain = isinstance(segmentation["counts"], list)
    mask = coco.decode(coco.frPyObjects(segmentation, height, width) if plain else segmentation)
    if mask.shape == (height, width):
        return mask
    return cv2.resize(np.ascontiguousarray(mask), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def read_image(path: Path | str) -> np.ndarray:
    """Return an image as it is shown (turned as its EXIF tag says), uint8 RGB (H, W, 3).

    Raises ValueError where the file is no image, is cut short (some versions of OpenCV fill up with grey), or too large.
    """
    data = Path(path).read_bytes()  # by bytes, since OpenCV does not open every path on every system
    reason, pixels, cut_short = "it is no JPEG, PNG or other image, or damaged", None, _is_cut_short(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        reason = "it is too large" if "pixels" in str(error).lower() else str(error).strip().splitlines()[-1]
    if pixels is None or cut_short:
        raise ValueError(f"{path} cannot be read as an image: {'the file is cut short' if cut_short else reason}")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _is_cut_short(data: bytes) -> bool:
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


def shape_of_longest(image: np.ndarray, size: int) -> tuple[int, int]:
    """Return height and width of the image with its longer side resized to `size` pixels, cut to whole ones."""
    ratio = size / max(image.shape[:2])
    return max(int(image.shape[0] * ratio), 1), max(int(image.shape[1] * ratio), 1)


class Place(NamedTuple):
    """Where an image lies in its letterbox: a point of it at (x * ratio + pad_x, y * ratio + pad_y)."""

    image_id: int
    width: int  # pixels of the image as it was
    height: int
    ratio: float  # letterbox pixels per pixel
    pad: tuple[float, float]  # grey pixels to the left and above; a half counts, as the official code maps boxes back
    shape: tuple[int, int]  # height and width of the letterbox

    def boxes(self, rows: np.ndarray) -> np.ndarray:
        """Return reported boxes (k, 6) of rows (k, 6 [+ M]), in the pixels of the image as it was, clipped to it."""
        rows = rows[:, :6].copy()  # mask coefficients end here
        rows[:, :4] = (rows[:, :4] - np.tile(self.pad, 2)) / self.ratio
        rows[:, :4] = rows[:, :4].clip(0, [self.width, self.height] * 2)
        return rows


def letterbox(
    image: np.ndarray, size: int, shape: tuple[int, int] | None = None, *, image_id: int = 0
) -> tuple[np.ndarray, Place]:
    """Return the image (H, W, 3), its longer side resized to `size`, in grey of `shape`, else a square, and its `Place`."""
    shape = shape or (size, size)
    boxed, resized, _ = _boxed(image, size, shape)
    pad = (shape[1] - resized[1]) / 2, (shape[0] - resized[0]) / 2
    return boxed, Place(image_id, image.shape[1], image.shape[0], resized[0] / image.shape[0], pad, shape)


def letterbox_sample(sample: Sample, size: int, *, smooth: bool = True) -> Sample:
    """Return the Sample letterboxed to (size, size): image, boxes and masks; `smooth` shrinks by INTER_AREA (validation)."""
    image, (height, width), borders = _boxed(sample.image, size, (size, size), smooth=smooth)
    ratio = np.array([width / sample.image.shape[1], height / sample.image.shape[0]] * 2, np.float32)
    boxes = sample.boxes * ratio + np.array([(size - width) / 2, (size - height) / 2] * 2, np.float32)
    masks = sample.masks
    if masks is not None and masks.shape[1:] != (size, size):
        masks = np.pad(resize_masks(masks, (height, width)), ((0, 0), *borders))
    return Sample(image, boxes, sample.labels, masks, sample.image_id)


def _boxed(image: np.ndarray, size: int, shape: tuple[int, int], *, smooth: bool = True) -> tuple[np.ndarray, Any, Any]:
    """Return the image resized and centred in grey, its height and width there, and the grey (above, below), (left, right).

    Raises ValueError where it is none of uint8 (H, W, 3): floats would be scaled once more.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{getattr(image, 'dtype', '')} {tuple(getattr(image, 'shape', ()))}"
        raise ValueError(f"an image must be an array of uint8 (H, W, 3), RGB, got a {type(image).__name__} {given}")
    inner = shape_of_longest(image, size)
    if inner != image.shape[:2]:
        method = cv2.INTER_AREA if smooth and size < max(image.shape[:2]) else cv2.INTER_LINEAR
        image = cv2.resize(image, inner[::-1], interpolation=method)
    pads = [(outer - side) / 2 for outer, side in zip(shape, inner, strict=True)]
    borders = [(round(pad - 0.1), round(pad + 0.1)) for pad in pads]
    return image if inner == shape else np.pad(image, (*borders, (0, 0)), constant_values=GREY), inner, borders


def resize_masks(masks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the masks (n, H, W) at shape (height, width), by the nearest pixel."""
    planes = [cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for mask in masks]
    return np.array(planes, dtype=np.uint8).reshape(-1, *shape)


def letterbox_batch(
    dataset: Dataset, indices: Iterable[int], size: int, shape: tuple[int, int]
) -> tuple[torch.Tensor, list[Place]]:
    """Return letterboxed images uint8 (N, 3, *shape) with longer sides of `size` pixels, and the `Place` of each."""
    samples = [dataset.sample(int(index)) for index in indices]
    images, places = zip(*(letterbox(s.image, size, shape, image_id=s.image_id) for s in samples), strict=True)
    # A view: the colours stay innermost, the layout that convolutions on a CPU are quickest with.
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), list(places)


def evaluation_batches(
    images: list[dict[str, Any]], size: int, batch_size: int, *, stride: int = 32, rectangular: bool = False
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Return the batches of an evaluation of `images`, COCO's entries: (indices, (height, width) of their letterbox).

    Squares come in the given order; rectangles in that of the aspect ratio, as large as the batch's extremes need, in strides.
    """
    order = np.arange(len(images))
    if not rectangular:
        return [(part, (size, size)) for part in np.split(order, order[batch_size::batch_size])]
    ratios = np.array([image["height"] / image["width"] for image in images])
    batches = []
    for part in np.split(ratios.argsort(), order[batch_size::batch_size]):
        sides = min(ratios[part].max(), 1), min(1 / ratios[part].min(), 1)
        height, width = (math.ceil(side * size / stride + MARGIN) * stride for side in sides)
        batches.append((part, (height, width)))
    return batches

"""Draw the embedded data set: image i is a pure function of (seed, split, i, size), drawn when it is asked for.

Coloured shapes lie on clouds of noise, some behind others, some behind clutter. A shape is annotated by what is seen of it:
its box is tight around its visible pixels, and every shape that is drawn is annotated.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any, NamedTuple

import cv2
import numpy as np

from oscillab.data import paint
from oscillab.data.images import Sample, encode_runs, tight_box
from oscillab.data.paint import LEVELS, NAMES, area, coverage, outline

SPLITS = ("train", "val", "test")
LEAST_VISIBLE = 0.4  # a shape that shows less of its area is left out of the image
LEAST_SIDE = 0.03  # … as is one whose visible box has a side below this share of the image (5 of 160 pixels)
SMALLEST, LARGEST = 0.055, 0.22  # longest radius of a shape, in image sides (9 to 35 of 160 pixels)

Circle = tuple[float, float, float]  # x, y, radius


class Piece(NamedTuple):
    """A shape or a piece of clutter, where it lies in the image."""

    label: int  # class index, -1 for clutter
    area: float  # pixels, were nothing of it hidden; 0 for clutter
    alpha: np.ndarray  # (h, w) uint8, how much of each pixel it covers
    x: int  # of alpha's upper left pixel
    y: int

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the image that it may cover."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


class Scenes:
    """A COCO-like data set of `count` drawn images; indices beyond count give further new images (`fresh`)."""

    fresh = True

    def __init__(
        self, count: int = 500, *, split: str = "val", seed: int = 0, size: int = 160, masks: bool = True
    ) -> None:
        if count < 1 or seed < 0 or not 64 <= size <= 640:
            given = f"{count}, {seed} and {size}"
            raise ValueError(f"count must be 1 or more, seed 0 or more, size 64..640 pixels, got {given}")
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.count, self.split, self.seed, self.size, self.masks = count, split, seed, size, masks
        self.name = "scenes"
        self.names = list(NAMES)
        self.category_ids = list(range(1, len(NAMES) + 1))

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int) -> Sample:
        """Return the Sample number `index` (0 or more), the same in any process and in any order."""
        if index < 0:
            raise ValueError(f"index must be 0 or more, got {index}")
        random = Random(f"{self.seed}/{self.split}/{index}")
        fields = paint.bank(self.seed, self.size)
        pieces, owner = _visible(_layout(random, self.size), self.size)
        image, ground = paint.background(random, fields, self.size)
        for piece in pieces:
            fill = paint.texture(random, fields, piece.alpha.shape, self.size, paint.contrasting(random, ground))
            paint.blend(image, fill, piece.alpha, piece.x, piece.y)
        image = paint.develop(random, fields, image)
        shown = [(number, piece) for number, piece in enumerate(pieces, start=1) if piece.label >= 0]
        boxes = np.array([_seen(owner, piece, number)[1] for number, piece in shown], dtype=np.float32)
        labels = np.array([piece.label for _, piece in shown], dtype=np.int64)
        masks = np.stack([owner == number for number, _ in shown]).view(np.uint8) if self.masks else None
        return Sample(image, boxes.reshape(-1, 4), labels, masks, index)

    def ground_truth(self) -> dict[str, Any]:
        """Return the first `count` images in COCO's format: a dictionary of images, annotations and categories."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(self.count):
            images.append({"id": index, "width": self.size, "height": self.size, "file_name": f"{index:06d}.png"})
            sample = self.sample(index)
            for number, (x1, y1, x2, y2) in enumerate(sample.boxes.tolist()):
                entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": index, "iscrowd": 0}
                entry |= {"category_id": self.category_ids[sample.labels[number]]}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                if sample.masks is not None:
                    mask = sample.masks[number]
                    entry |= {"area": int(np.count_nonzero(mask)), "segmentation": encode_runs(mask)}
                annotations.append(entry)
        info = {"description": f"scenes, split {self.split}, seed {self.seed}, {self.size} pixels"}
        categories = [{"id": number, "name": name} for number, name in enumerate(self.names, start=1)]
        return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _layout(random: Random, size: int) -> list[Piece]:
    """Return the pieces of an image from the farthest to the nearest, a shape last, so that one is always seen."""
    crowding = random.uniform(0.6, 1.1)
    circles: list[Circle] = []
    pieces: list[Piece] = []
    for _ in range(random.randint(1, 8)):
        if (circle := _place(random, circles, crowding)) is not None:
            circles.append(circle)
            pieces.append(_shape(random, circle, size))
    for _ in range(random.randint(0, 5)):
        if (covered := coverage(clutter(random, size), size, size)) is not None:
            pieces.insert(random.randrange(len(pieces)), Piece(-1, 0.0, *covered))
    return pieces


def _place(random: Random, circles: list[Circle], crowding: float) -> Circle | None:
    """Return a free circle (x, y, radius), in image sides, or None after six tries; neighbours overlap by 1 - crowding."""
    for _ in range(6):
        radius = SMALLEST * (LARGEST / SMALLEST) ** random.random()
        x, y = (random.uniform(0.5 * radius, 1 - 0.5 * radius) for _ in "xy")
        if all(math.hypot(x - a, y - b) > crowding * (radius + c) for a, b, c in circles):
            return x, y, radius
    return None


def _shape(random: Random, circle: Circle, size: int) -> Piece:
    """Return a Piece of a random class in a circle, squeezed along one axis and then turned."""
    label, angle = random.randrange(len(NAMES)), random.uniform(0, 2 * math.pi)
    squeeze, level = random.uniform(0.65, 1), random.randrange(LEVELS)
    x, y, radius = (size * part for part in circle)
    cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
    turn = np.array([[cosine, sine], [-sine * squeeze, cosine * squeeze]])
    contours = tuple(contour @ turn + (x, y) for contour in outline(NAMES[label], level))
    covered = coverage(contours, size, size)
    assert covered is not None  # its circle's centre lies in the image
    return Piece(label, area(NAMES[label], level) * squeeze * radius**2, *covered)


def _visible(pieces: list[Piece], size: int) -> tuple[list[Piece], np.ndarray]:
    """Return the pieces left when shapes that are mostly hidden are taken away, and who owns each pixel (1, 2, …; 0 = none)."""
    # Taking one away only shows more of the others, hence one pass is enough.
    owner = _owners(pieces, size)
    kept = []
    for number, piece in enumerate(pieces, start=1):
        count, (left, top, right, bottom) = _seen(owner, piece, number)
        shown = count >= LEAST_VISIBLE * piece.area and min(right - left, bottom - top) >= LEAST_SIDE * size
        if shown or piece.label < 0:
            kept.append(piece)
    return (pieces, owner) if len(kept) == len(pieces) else (kept, _owners(kept, size))


def _owners(pieces: list[Piece], size: int) -> np.ndarray:
    owner = np.zeros((size, size), dtype=np.uint8)
    for number, piece in enumerate(pieces, start=1):
        np.putmask(owner[piece.place], piece.alpha > 127, number)
    return owner


def _seen(owner: np.ndarray, piece: Piece, number: int) -> tuple[int, tuple[int, int, int, int]]:
    """Return how many pixels of a piece are seen, and the tight box around them."""
    mask = (owner[piece.place] == number).view(np.uint8)
    left, top, right, bottom = tight_box(mask)
    return cv2.countNonZero(mask), (left + piece.x, top + piece.y, right + piece.x, bottom + piece.y)


def clutter(random: Random, size: int) -> tuple[np.ndarray, ...]:
    """Return the contours (pixels) of a thing that is no class: a bar, a splinter or a blob with a wavy edge."""
    centre = random.uniform(0, size), random.uniform(0, size)
    kind, angle = random.choice(("bar", "bar", "splinter", "blob")), random.uniform(0, 2 * math.pi)
    reach = size * random.uniform(0.08, 0.28)
    if kind == "blob":
        angles, radii = np.linspace(0, 2 * math.pi, 28, endpoint=False), np.ones(28)
        for wave in (2, 3, 5):
            radii += random.uniform(0.1, 0.35) * np.cos(wave * angles + random.uniform(0, 2 * math.pi))
        return (reach * 0.4 * paint.polar(radii, angles) + centre,)
    half = size * random.uniform(0.003, 0.009)
    ends = [(-reach, -half), (reach, -half), (reach, half), (-reach, half)]
    if kind == "splinter":
        ends = [(-reach, 0), (reach * 0.6, -4 * half), (reach * 0.8, 2 * half)]
    cosine, sine = math.cos(angle), math.sin(angle)
    return (np.array([(x * cosine - y * sine, x * sine + y * cosine) for x, y in ends]) + centre,)

"""Draw the parts of a scene: outlines of its shapes, background, fills, noise.

Ten classes of shapes, most in pairs that only a fine detail tells apart (a thin gap, a small notch, a sixth point, an arm
that is too long), because such details are what a network of 3 or 4 bits loses first. A scene must cost little beside the
training step that reads it: OpenCV draws on bytes, and the fields of noise are drawn once and then only cropped.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import cache, lru_cache
from random import Random
from typing import Any, NamedTuple

import cv2
import numpy as np

Colour = tuple[float, float, float]  # r, g, b, each 0 … 255

SUPERSAMPLING = 4  # outlines are filled at 4 x 4 points a pixel, and averaged
LEVELS = 8  # how many sizes of its fine detail each class has
CONTRAST = 60  # how far the colours of a shape keep from the background's, of 255
_TURN = np.arange(256) / 256
_WAVES = {  # how much of the second colour, over one period of 256 steps
    "plain": np.zeros(256),
    "stripes": np.clip(0.5 + 2.5 * np.cos(2 * np.pi * _TURN), 0, 1),
    "waves": 0.5 + 0.5 * np.cos(2 * np.pi * _TURN),
    "dots": np.clip((_TURN - 0.66) * 12, 0, 1),
    "mottled": _TURN,
}
_COSINE = np.round(63.5 + 63.5 * np.cos(2 * np.pi * _TURN)).astype(np.uint8)


@cache
def outline(name: str, level: int) -> tuple[np.ndarray, ...]:
    """Return the contours of a shape, a tuple of float32 (n, 2) arrays, centred, with longest radius 1.

    The first contour is the outside, a second one is a hole. `level` in 0 … LEVELS - 1 sets the size of the fine
    detail: how thin the ring, how wide the gap, how deep the notch, how sharp the star.
    """
    if name not in NAMES:
        raise ValueError(f"unknown shape {name!r}; shapes are {', '.join(NAMES)}")
    detail = level / (LEVELS - 1)
    contours = [np.asarray(contour, dtype=np.float64) for contour in _contours(detail)[name]]
    centre = (contours[0].min(axis=0) + contours[0].max(axis=0)) / 2
    radius = np.linalg.norm(contours[0] - centre, axis=1).max()
    return tuple(((contour - centre) / radius).astype(np.float32) for contour in contours)


@cache
def area(name: str, level: int) -> float:
    """Return the area that outline(name, level) encloses, less its hole: at most pi, a disc's."""
    outside, *holes = [cv2.contourArea(contour) for contour in outline(name, level)]
    return outside - sum(holes)


def coverage(contours: Sequence[np.ndarray], height: int, width: int) -> tuple[np.ndarray, int, int] | None:
    """Return the share of every pixel that contours cover, as (alpha, x, y), or None where they miss the image.

    alpha is (h, w) uint8, 255 = all of the pixel, for the part of the image (height, width) whose upper left pixel is
    (x, y). Contours are (n, 2) arrays in pixels, measured from the upper left edge; one inside another is a hole.
    """
    points = np.concatenate(contours)
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)
    (x, y), (right, bottom) = np.maximum(low, 0).tolist(), np.minimum(high, (width, height)).tolist()
    if right <= x or bottom <= y:
        return None
    fine = np.zeros(((bottom - y) * SUPERSAMPLING, (right - x) * SUPERSAMPLING), dtype=np.uint8)
    # OpenCV counts from the centre of a point, hence the half; shift=4 gives sixteenths of a point.
    corners = [np.round(((contour - (x, y)) * SUPERSAMPLING - 0.5) * 16).astype(np.int32) for contour in contours]
    cv2.fillPoly(fine, corners, 255, cv2.LINE_8, shift=4)
    return cv2.resize(fine, (right - x, bottom - y), interpolation=cv2.INTER_AREA), x, y


class Bank(NamedTuple):
    """Fields of noise to crop from, each twice as wide as an image."""

    smooth: list[np.ndarray]  # of (2 * size, 2 * size) uint8, clouds of different roughness
    grain: np.ndarray  # (2 * size, 2 * size, 3) uint8, white noise around 128, standard deviation 32


@lru_cache(maxsize=4)
def bank(seed: int, size: int) -> Bank:
    """Return the Bank of a seed and an image size, the same in every process."""
    generator, side, smooth = np.random.default_rng((seed, 20231105)), 2 * size, []
    for roughness in (0.35, 0.45, 0.55, 0.65, 0.75, 0.85):
        total, strength = np.zeros((side, side), dtype=np.float32), 1.0
        for octave in range(6):  # from 4 cells a side on, each `roughness` times as strong as the one before
            noise = generator.standard_normal((4 * 2**octave,) * 2).astype(np.float32)
            total += strength * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
            strength *= roughness
        smooth.append(np.clip(128 + 52 * total / total.std(), 0, 255).astype(np.uint8))
    grain = generator.normal(128, 32, size=(side, side, 3))
    return Bank(smooth, np.clip(np.round(grain), 0, 255).astype(np.uint8))


def blend(image: np.ndarray, fill: np.ndarray, alpha: np.ndarray, x: int, y: int) -> None:
    """Lay fill (h, w, 3) over the image at pixel (x, y), in place, by alpha (h, w) of 0 … 255."""
    height, width = alpha.shape
    part = image[y : y + height, x : x + width]
    weight = alpha.astype(np.uint16)
    weight = (weight + (weight >> 7))[..., None]  # 0 … 256, so that the division is a shift
    part[:] = np.right_shift(part * (256 - weight) + fill * weight, 8)


def background(random: Random, fields: Bank, size: int) -> tuple[np.ndarray, Colour]:
    """Return an image (size, size, 3) of coloured clouds and its mean colour (r, g, b)."""
    hue, value = random.random(), random.uniform(0.15, 0.9)
    first = colour(hue, random.uniform(0.1, 0.55), value)
    spread = random.uniform(0.12, 0.4) * (1 if value < 0.5 else -1)
    second = colour(hue + random.uniform(-0.2, 0.2), random.uniform(0.1, 0.6), value + spread)
    image = cv2.applyColorMap(_crop(random, random.choice(fields.smooth), size), _palette("mottled", first, second))
    red, green, blue = ((a + b) / 2 for a, b in zip(first, second, strict=True))
    return image, (red, green, blue)


def texture(
    random: Random, fields: Bank, shape: Sequence[int], size: int, colours: tuple[Colour, Colour]
) -> np.ndarray:
    """Return a fill (h, w, 3) uint8 between two colours: plain, stripes, waves, dots or clouds, at a random angle."""
    height, width = shape
    kind = random.choice(tuple(_WAVES))
    cycles = (random.uniform(1.5, 4) if kind == "waves" else random.uniform(14, 26)) / size  # of the palette, a pixel
    if kind == "mottled":
        places = _crop(random, random.choice(fields.smooth[2:]), max(shape))[:height, :width]
    else:
        angle, phase = random.uniform(0, 2 * math.pi), random.randrange(256)
        across, down = 65536 * cycles * math.cos(angle), 65536 * cycles * math.sin(angle)
        columns, rows = np.arange(width), np.arange(height)
        places = _wrap(down * rows, across * columns) + np.uint8(phase)
    if kind == "dots":
        places = _COSINE[places] + _COSINE[_wrap(across * rows, -down * columns)]
    return cv2.applyColorMap(places, _palette(kind, *colours))


def contrasting(random: Random, ground: Colour) -> tuple[Colour, Colour]:
    """Return two colours of one object, (r, g, b) each, both at least CONTRAST away from the ground's."""
    for _ in range(12):
        hue, saturation, value = random.random(), random.uniform(0.35, 1), random.uniform(0.25, 1)
        first = colour(hue, saturation, value)
        if _distance(first, ground) < CONTRAST:
            continue
        value = value * random.uniform(0.5, 0.75) if value > 0.6 else value + random.uniform(0.2, 0.4)
        second = colour(hue + random.uniform(-0.06, 0.06), saturation, value)
        if _distance(second, ground) >= CONTRAST:
            return first, second
    pale = colour(hue, 0.3, 1)  # no luck: the lighter or the darker end, whichever is farther from the ground
    return (pale, pale) if _distance(pale, ground) >= CONTRAST else (colour(hue, 1, 0.1),) * 2


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour (r, g, b) of 0 … 255 for a hue (turns), saturation and value (clipped to 0 … 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0), 1))
    return 255 * red, 255 * green, 255 * blue


def develop(random: Random, fields: Bank, image: np.ndarray) -> np.ndarray:
    """Return the image as a camera gives it: sometimes blurred, always with grain."""
    size = image.shape[0]
    if random.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 0.8) * size / 160)
    strength = random.uniform(2, 11) / 32
    return cv2.addWeighted(image, 1.0, _crop(random, fields.grain, size), strength, -128 * strength)


def _distance(first: Colour, second: Colour) -> float:
    """Return how far two colours look apart, 0 … 255, weighing green most and blue least (as luma does)."""
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return math.sqrt(0.3 * red * red + 0.5 * green * green + 0.2 * blue * blue)


def _palette(kind: str, first: Colour, second: Colour) -> np.ndarray:
    start, stop = np.array([first, second], dtype=np.float32)
    share = _WAVES[kind].astype(np.float32).reshape(256, 1, 1)
    return (start + share * (stop - start)).astype(np.uint8)  # (256, 1, 3)


def _wrap(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:  # (h, w): sums of 256ths of a step, as bytes
    return (np.add.outer(rows.astype(np.int32), columns.astype(np.int32)) >> 8).astype(np.uint8)


def _crop(random: Random, field: np.ndarray, size: int) -> np.ndarray:
    x, y = random.randrange(field.shape[1] - size + 1), random.randrange(field.shape[0] - size + 1)
    return field[y : y + size, x : x + size]


def polar(radii: np.ndarray | float, angles: np.ndarray) -> np.ndarray:
    """Return the corners (n, 2) at those radii and angles."""
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _star(points: int, detail: float) -> np.ndarray:
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, 0.42 + 0.08 * detail + 0.03 * (points - 5))
    return polar(radii, np.arange(2 * points) * math.pi / points)


def _cross(detail: float, long_arm: float) -> list[tuple[float, float]]:
    half = 0.26 + 0.1 * detail  # half the width of an arm
    right, below = [(half, -half), (1, -half), (1, half), (half, half)], [(half, long_arm), (-half, long_arm)]
    return [*right, *below, (-half, half), (-1, half), (-1, -half), (-half, -half), (-half, -1), (half, -1)]


def _contours(detail: float) -> dict[str, list[Any]]:
    """Return the contours of every shape, the outside first, then the hole, for a detail of 0 … 1."""
    whole, inner = polar(1, np.linspace(0, 2 * math.pi, 40)), 0.62 - 0.14 * detail
    half_gap = 0.14 + 0.07 * detail  # half the width of the ring's gap, in radii: the gap has parallel sides
    first, second = math.asin(half_gap), math.asin(half_gap / inner)
    outside = polar(1, np.linspace(first, 2 * math.pi - first, 40))
    inside = polar(inner, np.linspace(2 * math.pi - second, second, 32))
    half, depth, neck = 0.2 + 0.1 * detail, 0.45 + 0.2 * detail, 0.05 + 0.15 * detail
    notch = [(-half, -1), (-half, depth - 1), (half, depth - 1), (half, -1)]
    return {
        "disc": [whole],
        "ring": [whole, polar(inner, np.linspace(0, 2 * math.pi, 32))],
        "open ring": [np.concatenate([outside, inside])],
        "square": [[(-1, -1), (1, -1), (1, 1), (-1, 1)]],
        "notched square": [[(-1, -1), *notch, (1, -1), (1, 1), (-1, 1)]],
        "five-pointed star": [_star(5, detail)],
        "six-pointed star": [_star(6, detail)],
        "plus": [_cross(detail, 1.0)],
        "dagger": [_cross(detail, 1.75 + 0.3 * detail)],  # one arm is too long
        "arrow": [[(1, 0), (neck, 0.75), (neck, half), (-1, half), (-1, -half), (neck, -half), (neck, -0.75)]],
    }


NAMES = tuple(_contours(0))

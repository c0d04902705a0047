"""Which shapes does a scene hold, and what do they look like?

Ten classes. Most come in pairs that only a fine detail tells apart (a thin gap, a small notch, a sixth point, an arm
that is too long), because such details are what a network of 3 or 4 bits loses first.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np

NAMES = (
    "disc",
    "ring",
    "open ring",  # a ring with a thin gap
    "square",
    "notched square",  # a square with a small notch in one side
    "five-pointed star",
    "six-pointed star",
    "plus",
    "dagger",  # a plus with one arm too long
    "arrow",
)
LEVELS = 8  # how many sizes of its fine detail each class has


@cache
def outline(name, level):
    """The contours of a shape, a tuple of float32 (n, 2) arrays, centred, with longest radius 1.

    The first contour is the outside, a second one is a hole. `level` in 0 … LEVELS - 1 sets the size of the fine
    detail: how thin the ring, how wide the gap, how deep the notch, how sharp the star.
    """
    if name not in NAMES:
        raise ValueError(f"unknown shape {name!r}; shapes are {', '.join(NAMES)}")
    detail = level / (LEVELS - 1)
    contours = [np.asarray(contour, dtype=np.float64) for contour in _DRAW[name](detail)]
    centre = (contours[0].min(axis=0) + contours[0].max(axis=0)) / 2
    radius = np.linalg.norm(contours[0] - centre, axis=1).max()
    return tuple(((contour - centre) / radius).astype(np.float32) for contour in contours)


@cache
def area(name, level):
    """The area that outline(name, level) encloses, less its hole: at most pi, a disc's."""
    outside, *holes = [cv2.contourArea(contour) for contour in outline(name, level)]
    return outside - sum(holes)


def _arc(radius, start, stop, count):
    angles = np.linspace(start, stop, count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)  # (count, 2)


def _disc(_detail):
    return [_arc(1, 0, 2 * math.pi, 40)]


def _ring(detail):
    return [_arc(1, 0, 2 * math.pi, 40), _arc(0.62 - 0.14 * detail, 0, 2 * math.pi, 32)]


def _open_ring(detail):
    inner = 0.62 - 0.14 * detail
    half_gap = 0.14 + 0.07 * detail  # half the width of the gap, in radii: the gap has parallel sides
    outer_angle, inner_angle = math.asin(half_gap), math.asin(half_gap / inner)
    outside = _arc(1, outer_angle, 2 * math.pi - outer_angle, 40)
    inside = _arc(inner, 2 * math.pi - inner_angle, inner_angle, 32)
    return [np.concatenate([outside, inside])]


def _square(_detail):
    return [[(-1, -1), (1, -1), (1, 1), (-1, 1)]]


def _notched_square(detail):
    half, depth = 0.2 + 0.1 * detail, 0.45 + 0.2 * detail
    return [[(-1, -1), (-half, -1), (-half, depth - 1), (half, depth - 1), (half, -1), (1, -1), (1, 1), (-1, 1)]]


def _star(points, detail):
    inner = 0.42 + 0.08 * detail + 0.03 * (points - 5)
    angles = np.arange(2 * points) * math.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return [np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)]


def _cross(detail, long_arm):
    half = 0.26 + 0.1 * detail  # half the width of an arm
    right = [(half, -half), (1, -half), (1, half), (half, half)]
    below = [(half, long_arm), (-half, long_arm), (-half, half)]
    left = [(-1, half), (-1, -half), (-half, -half)]
    return [[*right, *below, *left, (-half, -1), (half, -1)]]


def _arrow(detail):
    half, neck = 0.2 + 0.1 * detail, 0.05 + 0.15 * detail
    return [[(1, 0), (neck, 0.75), (neck, half), (-1, half), (-1, -half), (neck, -half), (neck, -0.75)]]


_DRAW = {
    "disc": _disc,
    "ring": _ring,
    "open ring": _open_ring,
    "square": _square,
    "notched square": _notched_square,
    "five-pointed star": lambda detail: _star(5, detail),
    "six-pointed star": lambda detail: _star(6, detail),
    "plus": lambda detail: _cross(detail, 1.0),
    "dagger": lambda detail: _cross(detail, 1.75 + 0.3 * detail),
    "arrow": _arrow,
}

"""How is a scene painted: its background, the fill of a shape, the clutter, the noise?

Everything is drawn by OpenCV on bytes, because a scene must cost little beside the training step that reads it. Random
numbers come from a `random.Random` that the caller made; the fields of noise are drawn once and then only cropped.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

CONTRAST = 60  # how far the colours of a shape keep from the background's, of 255
_TURN = np.arange(256) / 256
_WAVES = {  # how much of the second colour, over one period of 256 steps: (256, 1, 1)
    "plain": np.zeros(256),
    "stripes": np.clip(0.5 + 2.5 * np.cos(2 * np.pi * _TURN), 0, 1),
    "waves": 0.5 + 0.5 * np.cos(2 * np.pi * _TURN),
    "dots": np.clip((_TURN - 0.66) * 12, 0, 1),
    "mottled": _TURN,
}
_WAVES = {name: wave.astype(np.float32).reshape(256, 1, 1) for name, wave in _WAVES.items()}
_COSINE = np.round(63.5 + 63.5 * np.cos(2 * np.pi * _TURN)).astype(np.uint8)


class Bank(NamedTuple):
    """Fields of noise to crop from, each twice as wide as a picture."""

    smooth: list  # of (2 * size, 2 * size) uint8, clouds of different roughness
    grain: np.ndarray  # (2 * size, 2 * size, 3) uint8, white noise around 128, standard deviation 32


@lru_cache(maxsize=4)
def bank(seed, size):
    """The Bank of a seed and a picture size, the same in every process."""
    generator = np.random.default_rng((seed, 20231105))
    smooth = [_clouds(generator, 2 * size, roughness) for roughness in (0.35, 0.45, 0.55, 0.65, 0.75, 0.85)]
    grain = generator.normal(128, 32, size=(2 * size, 2 * size, 3))
    return Bank(smooth, np.clip(np.round(grain), 0, 255).astype(np.uint8))


def blend(image, fill, alpha, x, y):
    """None; lays fill (h, w, 3) over the image at pixel (x, y), in place, by alpha (h, w) of 0 … 255."""
    height, width = alpha.shape
    part = image[y : y + height, x : x + width]
    weight = alpha.astype(np.uint16)
    weight = (weight + (weight >> 7))[..., None]  # 0 … 256, so that the division is a shift
    part[:] = (part * (256 - weight) + fill * weight) >> 8


def background(random, fields, size):
    """A picture (size, size, 3) of coloured clouds and its mean colour (r, g, b)."""
    hue, value = random.random(), random.uniform(0.15, 0.9)
    first = colour(hue, random.uniform(0.1, 0.55), value)
    spread = random.uniform(0.12, 0.4) * (1 if value < 0.5 else -1)
    second = colour(hue + random.uniform(-0.2, 0.2), random.uniform(0.1, 0.6), value + spread)
    field = _crop(random, random.choice(fields.smooth), size)
    image = cv2.applyColorMap(field, _palette("mottled", first, second))
    return image, tuple((a + b) / 2 for a, b in zip(first, second, strict=True))


def texture(random, fields, shape, size, colours):
    """A fill (h, w, 3) uint8 between two colours: plain, stripes, waves, dots or clouds, at a random angle."""
    kind = random.choice(tuple(_WAVES))
    cycles = random.uniform(1.5, 4) if kind == "waves" else random.uniform(14, 26)  # across the picture
    return cv2.applyColorMap(_pattern(random, fields, shape, cycles / size, kind), _palette(kind, *colours))


def contrasting(random, ground):
    """Two colours of one object, (r, g, b) each, both at least CONTRAST away from the ground's."""
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


def colour(hue, saturation, value):
    """The colour (r, g, b) of 0 … 255 for a hue (turns), saturation and value (clipped to 0 … 1)."""
    return tuple(255 * part for part in colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0), 1)))


def clutter(random, size):
    """The contours (pixels) of a thing that is no class: a bar, a splinter or a blob with a wavy edge."""
    centre = random.uniform(0, size), random.uniform(0, size)
    kind, angle = random.choice(("bar", "bar", "splinter", "blob")), random.uniform(0, 2 * math.pi)
    reach = size * random.uniform(0.08, 0.28)
    if kind == "blob":
        return (_blob(random, reach * 0.4) + centre,)
    half = size * random.uniform(0.003, 0.009)
    ends = [(-reach, -half), (reach, -half), (reach, half), (-reach, half)]
    if kind == "splinter":
        ends = [(-reach, 0), (reach * 0.6, -4 * half), (reach * 0.8, 2 * half)]
    cosine, sine = math.cos(angle), math.sin(angle)
    return (np.array([(x * cosine - y * sine, x * sine + y * cosine) for x, y in ends]) + centre,)


def develop(random, fields, image):
    """The image as a camera gives it: sometimes blurred, always with grain."""
    size = image.shape[0]
    if random.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 0.8) * size / 160)
    strength = random.uniform(2, 11) / 32
    return cv2.addWeighted(image, 1.0, _crop(random, fields.grain, size), strength, -128 * strength)


def _distance(first, second):
    """How far two colours look apart, 0 … 255, weighing green most and blue least (as luma does)."""
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return math.sqrt(0.3 * red * red + 0.5 * green * green + 0.2 * blue * blue)


def _palette(kind, first, second):
    first, second = np.array(first, dtype=np.float32), np.array(second, dtype=np.float32)
    return (first + _WAVES[kind] * (second - first)).astype(np.uint8)  # (256, 1, 3)


def _pattern(random, fields, shape, cycles, kind):
    """Places (h, w) uint8 in a palette's period; cycles are periods a pixel."""
    height, width = shape
    if kind == "mottled":
        return _crop(random, random.choice(fields.smooth[2:]), max(shape))[:height, :width]
    angle, phase = random.uniform(0, 2 * math.pi), random.randrange(256)
    across, down = 65536 * cycles * math.cos(angle), 65536 * cycles * math.sin(angle)
    columns, rows = np.arange(width), np.arange(height)
    along = _wrap(down * rows, across * columns) + np.uint8(phase)
    if kind != "dots":
        return along
    return _COSINE[along] + _COSINE[_wrap(across * rows, -down * columns)]


def _wrap(rows, columns):
    """The outer sum of two lists of 256ths of a step, wrapped to a byte: (h, w)."""
    return (np.add.outer(rows.astype(np.int32), columns.astype(np.int32)) >> 8).astype(np.uint8)


def _blob(random, reach):
    angles = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    radii = np.ones(28)
    for wave in (2, 3, 5):
        radii += random.uniform(0.1, 0.35) * np.cos(wave * angles + random.uniform(0, 2 * math.pi))
    return reach * np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _crop(random, field, size):
    x, y = random.randrange(field.shape[1] - size + 1), random.randrange(field.shape[0] - size + 1)
    return field[y : y + size, x : x + size]


def _clouds(generator, side, roughness):
    """Noise (side, side) uint8: octaves from 4 cells a side on, each `roughness` times as strong as the one before."""
    total, strength = np.zeros((side, side), dtype=np.float32), 1.0
    for octave in range(6):
        cells = 4 * 2**octave
        noise = generator.standard_normal((cells, cells)).astype(np.float32)
        total += strength * cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        strength *= roughness
    return np.clip(128 + 52 * total / total.std(), 0, 255).astype(np.uint8)

"""How scenes are painted, against blends worked out by hand and what the settings promise."""

import math
from random import Random

import numpy as np
import pytest

from oscillab.data import paint
from oscillab.data.paint import LEVELS, NAMES, area, coverage, outline
from oscillab.data.scenes import clutter


def test_blend_by_hand():
    """Oracle: by hand; alpha 0 keeps, 255 replaces, 128 is half within a grey value."""
    image = np.full((4, 5, 3), 40, np.uint8)
    paint.blend(image, np.full((1, 3, 3), 200, np.uint8), np.array([[0, 128, 255]], np.uint8), 1, 2)
    assert image[2, :, 0].tolist() == [40, 40, pytest.approx(120, abs=1), 200, 40]
    assert np.all(np.delete(image, 2, axis=0) == 40)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_colours_keep_from_the_ground(level):
    """Invariant: both colours of a shape are at least CONTRAST away from the background's."""
    ground = np.array([level, level * 0.8, level * 0.5])
    weights = np.array([0.3, 0.5, 0.2])
    for seed in range(50):
        for colour in paint.contrasting(Random(seed), tuple(ground)):
            assert np.sqrt((weights * (np.array(colour) - ground) ** 2).sum()) >= paint.CONTRAST


def test_the_bank_is_centred_noise_of_its_seed():
    """Invariant: fields follow from seed and size alone. Oracle: the normal distribution's mean 128 and deviation 32 of
    128 * 128 * 3 draws, five standard errors."""
    first = paint.bank(3, 64)
    paint.bank.cache_clear()
    again, other = paint.bank(3, 64), paint.bank(4, 64)
    assert np.array_equal(first.grain, again.grain) and not np.array_equal(again.grain, other.grain)
    assert all(np.array_equal(a, b) for a, b in zip(first.smooth, again.smooth, strict=True))
    grain = other.grain.astype(float)
    assert grain.mean() == pytest.approx(128, abs=5 * 32 / np.sqrt(grain.size))
    assert grain.std() == pytest.approx(32, rel=0.02)


def test_coverage_of_a_rectangle_that_ends_within_pixels():
    """Oracle: by hand; x from 1.5 to 3 covers half of column 1 and all of column 2, in sixteenths of a pixel."""
    corners = np.array([(1.5, 1), (3, 1), (3, 4), (1.5, 4)])
    alpha, x, y = coverage([corners], 10, 10)
    assert (x, y, alpha.shape) == (1, 1, (3, 2))
    assert np.all(alpha[:, 1] == 255)
    assert np.all(np.abs(alpha[:, 0].astype(int) - 128) <= 64)  # an edge through a point counts the point as inside
    assert coverage([corners - 20], 10, 10) is None


def test_clutter_stays_slender_or_small():
    """Invariant: no clutter covers more than a twentieth of the picture, so that it cannot hide the shapes."""
    random = Random(0)
    for _ in range(200):
        covered = coverage(clutter(random, 160), 160, 160)
        assert covered is None or covered[0].sum() / 255 < 0.05 * 160 * 160


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0, LEVELS - 1])
def test_outlines_are_centred_with_longest_radius_one(name, level):
    """Invariant: the bounding box of a centred outline is symmetric, its farthest corner lies on the unit circle."""
    outside = outline(name, level)[0]
    assert np.allclose(outside.min(axis=0), -outside.max(axis=0), atol=1e-6)
    assert np.linalg.norm(outside, axis=1).max() == pytest.approx(1, abs=1e-6)


def test_areas_equal_the_closed_forms():
    """Oracle: polygon areas by hand; a circle of 40 corners has 40 / 2 * sin(2 pi / 40) instead of pi."""
    assert area("square", 0) == pytest.approx(2, abs=1e-6)
    assert area("disc", 0) == pytest.approx(math.pi, rel=0.01)
    assert area("ring", 0) == pytest.approx(math.pi * (1 - 0.62**2), rel=0.02)
    assert area("six-pointed star", 0) == pytest.approx(6 * 0.45 * math.sin(math.pi / 6), rel=1e-5)
    half = 0.26  # a plus: its square of side 2, less four corners, over the squared radius of its farthest corner
    assert area("plus", 0) == pytest.approx((4 - 4 * (1 - half) ** 2) / (1 + half**2), rel=1e-5)


@pytest.mark.parametrize("level", range(LEVELS))
def test_the_fine_detail_is_there_and_small(level):
    """Invariant: a gap, a notch or a hole takes area away; a gap and a notch take less than a fifth."""
    for detailed, plain in (("open ring", "ring"), ("notched square", "square")):
        assert 0.8 < area(detailed, level) / area(plain, level) < 0.97
    assert len(outline("ring", level)) == 2 and len(outline("open ring", level)) == 1


def test_an_unknown_shape_is_refused():
    """Oracle: the sentence with all names."""
    with pytest.raises(ValueError, match="unknown shape 'blob'; shapes are disc"):
        outline("blob", 0)

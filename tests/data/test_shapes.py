"""The outlines of the shapes, against areas in closed form and against what the names promise."""

import math

import numpy as np
import pytest

from oscillab.data.shapes import LEVELS, NAMES, area, outline


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
    gap, notch = area("open ring", level) / area("ring", level), area("notched square", level) / area("square", level)
    assert 0.8 < gap < 0.97
    assert 0.8 < notch < 0.97
    assert len(outline("ring", level)) == 2
    assert len(outline("open ring", level)) == 1


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="unknown shape 'blob'; shapes are disc"):
        outline("blob", 0)

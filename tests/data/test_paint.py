"""How scenes are painted, against blends worked out by hand and what the settings promise."""

from random import Random

import numpy as np
import pytest

from oscillab.data import paint
from oscillab.data.sample import coverage


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


def test_the_bank_is_the_same_for_the_same_seed_only():
    """Invariant: noise fields follow from seed and size alone."""
    first = paint.bank(3, 64)
    paint.bank.cache_clear()
    again, other = paint.bank(3, 64), paint.bank(4, 64)
    assert np.array_equal(first.grain, again.grain)
    assert all(np.array_equal(a, b) for a, b in zip(first.smooth, again.smooth, strict=True))
    assert not np.array_equal(again.grain, other.grain)


def test_grain_is_centred_noise():
    """Oracle: the normal distribution's mean 128 and deviation 32; 128 * 128 * 3 draws, five standard errors."""
    grain = paint.bank(0, 64).grain.astype(float)
    assert grain.mean() == pytest.approx(128, abs=5 * 32 / np.sqrt(grain.size))
    assert grain.std() == pytest.approx(32, rel=0.02)


def test_clutter_stays_slender_or_small():
    """Invariant: no clutter covers more than a twentieth of the picture, so that it cannot hide the shapes."""
    random = Random(0)
    for _ in range(200):
        covered = coverage(paint.clutter(random, 160), 160, 160)
        assert covered is None or covered[0].sum() / 255 < 0.05 * 160 * 160

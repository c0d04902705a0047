"""Is each latent weight counted at its place between the edges?"""

import numpy as np
import torch

from oscillab.recording.positions import CELLS_PER_BIN, cell_count, limits_of, position_histogram
from oscillab.recording.watched import WatchedLayers


def test_equals_numpys_histogram(fakes):
    """Oracle: numpy.histogram over the same cells, on random weights away from the cells' edges."""
    generator = torch.Generator().manual_seed(0)
    net = fakes.Net([[0.0] * 5000], step_size=0.5)
    cells = cell_count(-4, 3)
    place = (torch.randint(0, cells, (1, 5000), generator=generator) + 0.5) / CELLS_PER_BIN - 5
    net.stem.weight.data = place * 0.5
    histogram = position_histogram(WatchedLayers(net).layers[0], -4, 3)
    expected, _ = np.histogram(place.numpy(), bins=cells, range=(-5, 4))
    np.testing.assert_array_equal(histogram, expected)


def test_what_lies_beyond_or_nowhere(fakes):
    """Oracle: by hand: -100 in the first cell, +100 in the last, NaN and infinity in none."""
    net = fakes.Net([[0.0] * 4], step_size=0.5)
    net.stem.weight.data = torch.tensor([[-50.0, 50.0, float("nan"), float("inf")]])
    histogram = position_histogram(WatchedLayers(net).layers[0], -4, 3)
    assert histogram[0] == histogram[-1] == 1 and histogram.sum() == 2


def test_limits():
    """Oracle: by hand: unsigned only where a state is too large for signed; unknown bits take the fewest that fit."""
    states = torch.tensor([-1, 0, 3], dtype=torch.int8)
    assert limits_of(8, states) == (-128, 127)
    assert limits_of(None, states) == (-4, 3)
    assert limits_of(None, torch.tensor([-128, 127], dtype=torch.int8)) == (-128, 127)
    assert limits_of(2, states) == (0, 3)

"""Are shares, entropy and distances to the edges those of the weights?"""

import doctest

import numpy as np
import pytest

from oscillab.recording import states
from oscillab.recording.states import edge_distances, occupancy, positions, state_summary


@pytest.fixture
def spread(fakes):
    """`spread(latent positions)`: a recording of a 3-bit layer that ends with its weights at these positions."""
    return lambda places: fakes.run(np.array([np.zeros(len(places)), places]))[1]


def test_occupancy_by_hand(spread):
    """Oracle: eight weights counted by hand; all states of 3 bits have a row."""
    table = occupancy(spread([0, 0, 0, 1, -4, -9, 3, 7]), "stem")
    assert table["state"].tolist() == list(range(-4, 4))
    assert table["weight_count"].tolist() == [2, 0, 0, 0, 3, 1, 0, 2]
    assert table["share"].sum() == 1


def test_summary_by_hand(spread):
    """Oracle: eight weights by hand: three at rest in 0, two at each end; entropy of 2/8, 3/8, 1/8, 2/8."""
    summary = state_summary(spread([0, 0, 0, 1, -4, -9, 3, 7]), "stem")
    assert summary["zero_share"] == summary["dead_share"] == summary["still_share"] == 3 / 8
    assert summary["saturated_share"] == 4 / 8 and summary["used_state_count"] == 4
    assert summary["entropy"] == pytest.approx(
        -(2 * 0.25 * np.log2(0.25) + 0.375 * np.log2(0.375) + 0.125 * np.log2(0.125))
    )


def test_distances_equal_numpy(spread):
    """Oracle: the distance to the nearest of the edges -3.5 ... 2.5, worked out in numpy for 2,000 weights inside -5..4."""
    cells = np.random.default_rng(0).integers(0, 9 * 40, 2000)
    places = -5 + (cells + 0.5) / 40  # in the middle of cells
    near = np.abs(places[:, None] - np.arange(-3.5, 3)).min(1).clip(max=0.4999)
    expected, _ = np.histogram(near, bins=20, range=(0, 0.5))
    recording = spread(places)
    table = edge_distances(recording, "stem")
    np.testing.assert_array_equal(table["weight_count"], expected)
    assert table["distance"].iloc[[0, -1]].tolist() == [0.0125, 0.4875]
    summary = state_summary(recording, "stem")
    assert summary["near_edge_share"] == pytest.approx((near < 0.05).mean())
    assert summary["edge_distance"] == pytest.approx(near.mean(), abs=0.0125)


def test_positions_of_start_and_end(spread):
    """Oracle: by hand; the density integrates to 1, and the first histogram holds where the weights began."""
    recording = spread([-1.49, 2.01])
    table = positions(recording, "stem")
    at = table.loc[table["weight_count"] > 0, "position"].tolist()
    assert at == [pytest.approx(-1.4875), pytest.approx(2.0125)]
    assert table["density"].sum() / 40 == pytest.approx(1)
    first = positions(recording, "stem", first=True)
    assert first.loc[first["weight_count"] > 0, "position"].tolist() == [pytest.approx(0.0125)]
    assert edge_distances(recording, "stem", first=True)["weight_count"].iloc[-1] == 2


def test_each_layer_has_its_own_cells(fakes):
    """Oracle: by hand: the 8-bit layer behind the 3-bit one rests at 0, half a bin from an edge."""
    _, recording = fakes.run([[0, 0], [1, 1]])
    table = positions(recording, "block.1")
    assert len(table) == (127 + 128 + 2) * 40
    assert table.loc[table["weight_count"] > 0, "position"].tolist() == [pytest.approx(0.0125)]


def test_examples_run():
    """Oracle: the docstring's own numbers."""
    assert doctest.testmod(states).failed == 0

"""The figure of states, against the recording's arrays."""

import numpy as np
import pytest

from oscillab.plot.states import draw_states, still_and_moved
from oscillab.recording.tables import layers


def test_bars_are_shares_of_the_states(live, average):
    """Oracle: numpy's bincount of the states at the end, of all weights and of those that never flipped."""
    figure = draw_states({"lsq": live, "ema": average}, "middle")
    heights = [[bar.get_height() for bar in group] for group in figure.axes[0].containers]
    for recording, still, moved in ((live, *heights[:2]), (average, *heights[2:])):
        place = recording.weights_of("middle")
        states, never = recording["integer_state"][place].astype(int) + 4, recording["flip_count"][place] == 0
        np.testing.assert_allclose(still, 100 * np.bincount(states[never], minlength=8) / len(states))
        np.testing.assert_allclose(np.add(still, moved), 100 * np.bincount(states, minlength=8) / len(states))


def test_the_title_gives_the_tables_numbers(live):
    """Oracle: the row of `layers`."""
    about = layers(live).set_index("layer").loc["middle"]
    title = " ".join(draw_states({"lsq": live}, "middle").get_suptitle().split())
    assert f"dead {100 * about['dead_share']:.1f} %, saturated {100 * about['saturated_share']:.1f} %" in title
    assert f"entropy {about['entropy']:.2f} bits" in title


def test_shares_add_up(live):
    """Oracle: all weights of the layer make 1."""
    table = still_and_moved(live, "first")
    assert table["still"].sum() + table["moved"].sum() == pytest.approx(1) and len(table) == 256

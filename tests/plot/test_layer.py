"""Figures of one layer, against the recording's arrays."""

import numpy as np
import pytest

from oscillab.plot.layer import (
    draw_autocorrelation,
    draw_boundary_distance,
    draw_layer_map,
    draw_states,
    draw_trajectories,
    near_edge,
    still_and_moved,
)
from oscillab.plot.network import draw_ranges, draw_step_sizes
from oscillab.recording.recording import Recording
from oscillab.recording.tables import layers


def test_trajectories_take_the_weights_that_flip_most(live, average):
    """Oracle: flips of the sampled states of the layer, counted here; a column per method."""
    figure = draw_trajectories({"lsq": live, "ema": average}, "middle", last=50, count=2)
    columns = slice(4, 8)  # the sample holds four weights a layer
    flips = (np.diff(live["sample_state"][-50:, columns].astype(int), axis=0) != 0).sum(0)
    shown = [int(axes.texts[0].get_text().split()[0]) for axes in figure.axes[::2]]
    assert shown == sorted(flips, reverse=True)[:2]
    assert len(figure.axes) == 4 and figure.axes[0].get_title(loc="left") == "LSQ"


def test_trajectories_draw_position_and_edges(live):
    """Oracle: latent weight / step size over the last steps; edges are half integers."""
    figure = draw_trajectories({"lsq": live}, "middle", last=30, count=1)
    _, position, *edges = figure.axes[0].lines
    courses = (live["latent_weight"] / live["sample_step_size"])[-30:, 4:8].T
    assert any(np.allclose(position.get_ydata(), course) for course in courses)
    heights = [edge.get_ydata()[0] for edge in edges]
    assert heights and all(height % 1 == 0.5 for height in heights)


def test_near_edge_counts_what_lies_in_the_outer_cells(live, make_recording):
    """Oracle: distances computed from the latent weights themselves (all weights of a layer are drawn in the conftest).

    The tolerance is one weight: a float32 position on a cell's border may fall on either side.
    """
    recording = make_recording(sampled=10_000)
    place = recording.weights_of("middle")
    columns = (recording["sample_index"] >= place.start) & (recording["sample_index"] < place.stop)
    position = recording["latent_weight"][-1, columns]
    inside = position[(position >= -4) & (position <= 3)]
    near = np.abs(inside - np.clip(np.floor(inside) + 0.5, -3.5, 2.5)) < 0.05
    assert near_edge(recording, "middle") == pytest.approx(near.mean(), abs=1.01 / len(inside))


def test_oscillating_weights_gather_at_the_edges(live):
    """Oracle: the toy itself: its weights end on edges, however they began."""
    assert near_edge(live, first=True) < 0.2 < 0.5 < near_edge(live)


def test_boundary_figure_of_a_layer_has_its_edges(live):
    """Oracle: 3 bit has seven edges, at -3.5 to 2.5."""
    axes = draw_boundary_distance(live, "middle").axes[0]
    edges = axes.collections[-1].get_segments()
    assert all(start[0] == end[0] for start, end in edges)
    assert sorted(start[0] for start, _ in edges) == [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5]


def test_boundary_shares_add_up(live):
    """Oracle: all weights within the grid make 100 %."""
    axes = draw_boundary_distance(live).axes[0]
    assert axes.lines[0].get_ydata().sum() == pytest.approx(100) == axes.lines[1].get_ydata().sum()


def test_map_is_the_flip_count_by_output_channel(live):
    """Oracle: flip_count / 120 steps in percent, reshaped (6, 4 * 3 * 3)."""
    cells = draw_layer_map(live, "middle").axes[0].collections[0].get_array()
    expected = 100 * live["flip_count"][live.weights_of("middle")].reshape(6, 36) / 120
    np.testing.assert_allclose(np.reshape(cells, (6, 36)), expected)


def test_step_sizes_of_each_method(live, average):
    """Oracle: the arrays; `last` keeps the last rows."""
    axes = draw_step_sizes({"lsq": live, "ema": average}, "last", last=40).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), live["step_size"][-40:, 2])
    assert [line.get_label() for line in axes.lines] == ["LSQ", "EMA"]


def test_ranges_show_clipping_and_inputs(live):
    """Oracle: the recording clips to -1..1, and a quarter of the inputs is clipped."""
    figure = draw_ranges(live, "middle")
    low, high = (line.get_ydata() for line in figure.axes[0].lines)
    assert set(low) == {-1} and set(high) == {1}
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 25)
    assert "25 %" in figure.get_suptitle()


def test_bars_are_shares_of_the_states(live, average):
    """Oracle: numpy's bincount of the states at the end, of all weights and of those that never flipped; the row of `layers`."""
    figure = draw_states({"lsq": live, "ema": average}, "middle")
    heights = [[bar.get_height() for bar in group] for group in figure.axes[0].containers]
    for recording, still, moved in ((live, *heights[:2]), (average, *heights[2:])):
        place = recording.weights_of("middle")
        states, never = recording["integer_state"][place].astype(int) + 4, recording["flip_count"][place] == 0
        np.testing.assert_allclose(still, 100 * np.bincount(states[never], minlength=8) / len(states))
        np.testing.assert_allclose(np.add(still, moved), 100 * np.bincount(states, minlength=8) / len(states))
    about, title = layers(live).set_index("layer").loc["middle"], " ".join(figure.get_suptitle().split())
    assert f"dead {100 * about['dead_share']:.1f} %, saturated {100 * about['saturated_share']:.1f} %" in title
    assert f"entropy {about['entropy']:.2f} bits" in title


def test_a_regular_oscillation_comes_back(live):
    """Oracle: by hand: a state that changes every second step has a cycle of four: 1, 0, -1, 0, 1 up to the ends."""
    states = np.zeros_like(live["sample_state"])
    states[:, 4] = np.arange(len(states)) // 2 % 2
    recording = Recording(live.meta, live.arrays | {"sample_state": states})
    axes = draw_autocorrelation(recording, "middle", last=100, count=1, lag_count=8).axes[0]
    curve = axes.lines[0].get_ydata()
    np.testing.assert_allclose(curve, [1, 0, -1, 0, 1, 0, -1, 0, 1], atol=0.09)  # a lag leaves out as many of 100 steps
    assert axes.lines[0].get_label() == "weight 0: a cycle takes 4.0 steps"


def test_what_was_not_recorded_is_refused(live, make_recording):
    """Oracle: the documented errors; the layer `last` has no input quantizer."""
    still = Recording(live.meta, live.arrays | {"sample_state": np.zeros_like(live["sample_state"])})
    bare = make_recording(sampled=0)
    for draw, what, layer, words in (
        (draw_autocorrelation, still, "middle", "no sampled weight of layer 'middle' flips in the last 250 steps"),
        (draw_autocorrelation, bare, "middle", "no weight of layer 'middle' has a recorded trajectory"),
        (draw_trajectories, {"lsq": bare}, "middle", "no weight of layer 'middle' has a recorded trajectory"),
        (draw_ranges, live, "last", "no input range of layer 'last'"),
        (draw_boundary_distance, make_recording(positions=False), None, "no latent weights"),
        *((draw, live, "middel", "unknown layer 'middel'.*middle") for draw in (draw_autocorrelation, draw_layer_map)),
    ):
        with pytest.raises(ValueError, match=words):
            draw(what, layer)


def test_states_of_8_bits_are_counted(live):
    """Oracle: numpy's bincount in whole numbers; the layer `first` has weights at its lowest state, -128."""
    place = live.weights_of("first")
    states = live["integer_state"].copy()
    states[place.start] = -128
    recording = Recording(live.meta, live.arrays | {"integer_state": states})
    assert live["flip_count"].dtype == np.uint32 and draw_states({"lsq": recording}, "first")
    table = still_and_moved(recording, "first")
    never = states[place][live["flip_count"][place] == 0].astype(int) + 128
    np.testing.assert_allclose(table["still"], np.bincount(never, minlength=256) / (place.stop - place.start))

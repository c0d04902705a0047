"""Figures on one layer, against the recording's arrays."""

import numpy as np
import pytest

from oscillab.plot.layer import draw_boundary_distance, draw_layer_map, draw_trajectories, near_edge
from oscillab.plot.ranges import draw_ranges, draw_step_sizes


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
    figure = draw_trajectories(live, "middle", last=30, count=1)
    _, position, *edges = figure.axes[0].lines
    courses = (live["latent_weight"] / live["sample_step_size"])[-30:, 4:8].T
    assert any(np.allclose(position.get_ydata(), course) for course in courses)
    heights = [edge.get_ydata()[0] for edge in edges]
    assert heights and all(height % 1 == 0.5 for height in heights)


def test_a_layer_without_trajectories_is_refused(make_recording):
    """Oracle: the documented error."""
    with pytest.raises(ValueError, match="no weight of layer 'middle'"):
        draw_trajectories(make_recording(sampled=0), "middle")


def test_an_unknown_layer_is_named(live):
    """Oracle: the recording's error lists layers that exist."""
    for draw in (draw_trajectories, draw_layer_map, draw_ranges, draw_boundary_distance):
        with pytest.raises(ValueError, match="unknown layer 'middel'.*middle"):
            draw(live, "middel")


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


def test_a_recording_without_latent_weights_is_refused(make_recording):
    """Oracle: the documented error."""
    with pytest.raises(ValueError, match="no latent weights"):
        draw_boundary_distance(make_recording(positions=False))


def test_map_is_the_flip_count_by_output_channel(live):
    """Oracle: flip_count / 120 steps in percent, reshaped (6, 4 * 3 * 3)."""
    image = draw_layer_map(live, "middle").axes[0].images[0].get_array()
    expected = 100 * live["flip_count"][live.weights_of("middle")].reshape(6, 36) / 120
    np.testing.assert_allclose(image, expected)


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


def test_a_layer_without_input_quantizer_is_refused(live):
    """Oracle: the documented error; the layer `last` has none."""
    with pytest.raises(ValueError, match="no input range of layer 'last'"):
        draw_ranges(live, "last")

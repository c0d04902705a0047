"""Whole-network figures: what their artists hold, against numbers worked out from the recordings' arrays."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from oscillab.plot import plots
from oscillab.recording import tables


def line(figure, text, axes=0):
    """The line of that label."""
    return next(one for one in figure.axes[axes].lines if one.get_label() == text)


def test_show_needs_no_torch():
    """Oracle: sys.modules of a fresh interpreter."""
    code = "import sys, oscillab.plot.plots, oscillab.study.report, oscillab.plot.widgets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_flips_are_the_share_of_low_bit_weights(live, average):
    """Oracle: flips of the two 3-bit layers over their 216 + 30 weights, counted from the states; not the 8-bit one."""
    figure = plots.draw_flips({"lsq": live, "ema": average})
    share = 100 * live["layer_flip_count"][1:, 1:].sum(1) / 246
    width = 120 // 50
    expected = [share[max(0, i + 1 - width) : i + 1].mean() for i in range(120)]
    np.testing.assert_allclose(line(figure, "LSQ").get_ydata(), expected)
    assert "%" in figure.axes[0].get_ylabel()


def test_flips_title_compares_the_last_quarter(live, average):
    """Oracle: the table's own flip rates."""
    rates = [tables.flip_rate(one) for one in (live, average)]
    title = plots.draw_flips({"lsq": live, "ema": average}).get_suptitle()
    assert f"LSQ {100 * rates[0]:.2g} %" in title and f"{rates[0] / rates[1]:.1f} times fewer" in title


def test_an_average_that_never_flips_divides_by_nothing(live, make_recording):
    """Oracle: no ratio where the average has no flips."""
    still = make_recording(speed=0.0)
    title = plots.draw_flips({"lsq": live, "ema": still}).get_suptitle()
    assert "times" not in title and "EMA 0 %" in title


def test_layers_show_the_share_per_layer(live, average):
    """Oracle: the mean of `frequency > threshold` over each layer's weights, in the network's order."""
    figure = plots.draw_layers({"lsq": live, "ema": average})
    expected = [100 * (live["frequency"][live.weights_of(n)] > 0.005).mean() for n in live.layer_names]
    np.testing.assert_allclose(line(figure, "LSQ").get_ydata(), expected)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["first (8 bit)", "middle", "last"]


def test_recordings_of_two_networks_are_refused(live, make_recording):
    """Oracle: the documented error names both methods."""
    with pytest.raises(ValueError, match="lsq and ema cannot be compared"):
        plots.draw_layers({"lsq": live, "ema": make_recording(names=("first", "last"))})


@pytest.mark.parametrize("given", [{}, None, {"sgd": None}])
def test_what_is_no_mapping_of_methods_is_refused(given):
    """Oracle: the documented error lists what is allowed."""
    with pytest.raises(ValueError, match="lsq"):
        plots.draw_flips(given)


def test_every_figure_is_pure(live, average):
    """Oracle: figures are matplotlib's, pyplot is never imported, drawing twice gives the same bytes, inputs stay."""
    before = {name: array.copy() for name, array in live.arrays.items()}
    both = {"lsq": live, "ema": average}
    for draw in (
        lambda: plots.draw_flips(both),
        lambda: plots.draw_layers(both),
        lambda: plots.draw_trajectories(both, "middle"),
        lambda: plots.draw_boundary_distance(live),
        lambda: plots.draw_step_sizes(both, "middle"),
        lambda: plots.draw_ranges(live, "middle"),
        lambda: plots.draw_layer_map(live, "middle"),
    ):
        figure = draw()
        assert isinstance(figure, Figure)
        assert figure.png() == draw().png()
    assert all(np.array_equal(before[name], array) for name, array in live.arrays.items())

"""Figures of whole networks: what their artists hold, against numbers worked out from the recordings' arrays."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from oscillab.plot import draw
from oscillab.plot.network import draw_flips, draw_layers
from oscillab.recording import tables
from oscillab.recording.recording import Recording


def pixels(figure):
    """The figure's pixels, few and without a layout, which takes most of the time."""
    figure.set_layout_engine("none")
    file = BytesIO()
    figure.savefig(file, format="raw", dpi=20)
    return file.getvalue()


def line(figure, text, axes=0):
    """The line of that label."""
    return next(one for one in figure.axes[axes].lines if one.get_label() == text)


def test_plot_needs_no_torch():
    """Oracle: sys.modules of a fresh interpreter."""
    code = "import sys, oscillab.plot.figures, oscillab.study.report, oscillab.plot.explorer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_flips_are_the_share_of_low_bit_weights(live, average):
    """Oracle: flips of the two 3-bit layers over their 216 + 30 weights, counted from the states; not the 8-bit one."""
    figure = draw_flips({"lsq": live, "ema": average})
    share = 100 * live["layer_flip_count"][1:, 1:].sum(1) / 246
    width = 120 // 50
    expected = [share[max(0, i + 1 - width) : i + 1].mean() for i in range(120)]
    np.testing.assert_allclose(line(figure, "LSQ").get_ydata(), expected)
    assert "%" in figure.axes[0].get_ylabel()


def test_flips_title_compares_the_last_quarter(live, average, make_recording):
    """Oracle: the table's own flip rates; no ratio where the average never flips."""
    rates = [tables.flip_rate(one) for one in (live, average)]
    title = draw_flips({"lsq": live, "ema": average}).get_suptitle()
    assert f"LSQ {100 * rates[0]:.2g} %" in title and f"{rates[0] / rates[1]:.1f} times fewer" in title
    title = draw_flips({"lsq": live, "ema": make_recording(speed=0.0)}).get_suptitle()
    assert "times" not in title and "EMA 0 %" in title


def test_layers_show_the_share_per_layer(live, average):
    """Oracle: the mean of `frequency > threshold` over each layer's weights, in the network's order."""
    figure = draw_layers({"lsq": live, "ema": average})
    expected = [100 * (live["frequency"][live.weights_of(n)] > 0.005).mean() for n in live.layer_names]
    np.testing.assert_allclose(line(figure, "LSQ").get_ydata(), expected)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["first (8 bit)", "middle", "last"]


@pytest.mark.parametrize(
    ("given", "words"), [({}, "got none"), (None, "got None"), ({"sgd": None}, "must map names .* got {'sgd': None}")]
)
def test_what_is_no_mapping_of_names_is_refused(given, words):
    """Oracle: the documented error says what is given and what is allowed."""
    with pytest.raises(ValueError, match=words):
        draw_flips(given)


def test_every_figure_is_pure(live, average):
    """Oracle: figures are matplotlib's, drawing twice gives the same pixels, inputs stay."""
    before = {name: array.copy() for name, array in live.arrays.items()}
    both = {"lsq": live, "ema": average}
    ways = [(both, "flips"), (both, "layers")]  # those of test_baseline.py are compared there
    ways += [(both, figure, "middle") for figure in ("step size", "states")]
    ways += [(live, figure, "middle") for figure in ("inputs", "layer map", "rhythm")]
    for what in ways:
        once, again = draw(*what), draw(*what)
        assert isinstance(once, Figure) and pixels(once) == pixels(again), what[1]
    assert all(np.array_equal(before[name], array) for name, array in live.arrays.items())


def test_what_a_recording_did_not_see_stands_in_the_headline(live, average):
    """Oracle: the number in its `meta`, word for word; of several runs, whose it is; nothing where all was seen."""
    partial = Recording(live.meta | {"unseen_flip_count": 340}, live.arrays)
    for what in ((partial, "flips"), (partial, "states", "middle"), (partial, "layer map", "middle")):
        title = " ".join(draw(*what).get_suptitle().split())
        assert "Not seen: 340 flips were made outside of the optimizer's steps" in title, what
    both = " ".join(draw_layers({"lsq": average, "mine": partial}).get_suptitle().split())
    assert "Not seen: mine: 340 flips" in both and "Not seen" not in draw(live, "flips").get_suptitle()


def test_names_of_ones_own_are_labels_with_colours_of_their_own(live, average):
    """Oracle: the labels given, two colours; the ratio says which way it goes."""
    figure = draw_flips({"slow": average, "fast": live})
    assert len({line(figure, name).get_color() for name in ("slow", "fast")}) == 2
    assert "times more)" in figure.get_suptitle()

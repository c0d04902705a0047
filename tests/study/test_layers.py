"""Figures of convolutions one by one: what is drawn is what the rows say."""

from types import SimpleNamespace as Row

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures.layers import draw_bytes, draw_factors, draw_kinds, draw_layer_errors

LAYERS = [Row(bits=bits, bytes=256 * bits, float_bytes=8192) for bits in (8, 4, 4)]


def test_bars_are_their_rows():
    """Oracle: by hand: KB of 1024 bytes; 4096 of 24576 and 1 of 8 in the title; factors moved by 0.2 in the mean."""
    figure = draw_bytes(LAYERS, file_bytes=1, float_file_bytes=8)
    float_bars, four, eight = figure.axes[0].containers
    assert [bar.get_height() for bar in float_bars] == [8, 8, 8]
    assert [bar.get_height() for bar in four] == [1, 1] and [bar.get_height() for bar in eight] == [2]
    assert "16.7%" in figure.get_suptitle() and "12.5%" in figure.get_suptitle()
    kinds = [Row(kind="convolution", operations=2, numbers=3e6), Row(kind="shortcut", operations=1, numbers=1e6)]
    bars = draw_kinds(kinds).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1, 3]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()
    figure = draw_factors([0.9, 1.3], [-0.1, 0.3])
    assert "γ moved by 0.200 and β by 0.200" in figure.get_suptitle().replace("\n", " ")
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 2


def table(noise):
    """Three layers' errors."""
    return pd.DataFrame({"layer": ["a", "b", "c"], "signal_to_noise": noise, "mean_share": [0.1, 0.2, 0.3]})


def test_each_layer_is_a_point():
    """Oracle: the table's own columns, its medians by hand in the title; the documented errors."""
    figure = draw_layer_errors({"ema": table([1.0, 2, 9]), "ema+qc": table([2.0, 3, 9])})
    above, below = figure.axes
    assert [line.get_ydata().tolist() for line in above.lines[:2]] == [[1, 2, 9], [2, 3, 9]]
    np.testing.assert_allclose(below.lines[0].get_ydata(), [10, 20, 30])
    assert "EMA 2.0 dB, EMA+QC 3.0 dB" in figure.get_suptitle()
    with pytest.raises(ValueError, match="ema and ema\\+qc cannot be compared"):
        draw_layer_errors({"ema": table([1.0, 2, 3]), "ema+qc": table([1.0, 2, 3]).iloc[:2]})
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_layer_errors({})

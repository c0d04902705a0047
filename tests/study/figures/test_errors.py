"""Do the figures of layer errors and of QC's factors hold the numbers that they were given?"""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures.errors import draw_factors, draw_layer_errors


def table(noise):
    """Three layers' errors."""
    return pd.DataFrame({"layer": ["a", "b", "c"], "signal_to_noise": noise, "mean_share": [0.1, 0.2, 0.3]})


def test_each_layer_is_a_point():
    """Oracle: the table's own columns; the medians by hand in the title."""
    figure = draw_layer_errors({"ema": table([1.0, 2, 9]), "ema+qc": table([2.0, 3, 9])})
    above, below = figure.axes
    assert [line.get_ydata().tolist() for line in above.lines[:2]] == [[1, 2, 9], [2, 3, 9]]
    np.testing.assert_allclose(below.lines[0].get_ydata(), [10, 20, 30])
    assert "EMA 2.0 dB, EMA+QC 3.0 dB" in figure.get_suptitle()


def test_unlike_layers_are_refused():
    """Oracle: the documented errors."""
    with pytest.raises(ValueError, match="ema and ema\\+qc cannot be compared"):
        draw_layer_errors({"ema": table([1.0, 2, 3]), "ema+qc": table([1.0, 2, 3]).iloc[:2]})
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_layer_errors({})


def test_factors_are_counted_from_where_they_started():
    """Oracle: by hand: scales 0.9 and 1.3 are 0.2 from 1 on average, shifts -0.1 and 0.3 as much from 0."""
    figure = draw_factors([0.9, 1.3], [-0.1, 0.3])
    assert "γ moved by 0.200 and β by 0.200" in figure.get_suptitle().replace("\n", " ")
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 2

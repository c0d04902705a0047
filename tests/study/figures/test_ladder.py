"""The ladder: bars, points and the float line, against a table whose numbers are known."""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures.ladder import draw_ladder, panels


def test_bars_are_means_and_points_are_seeds(table):
    """Oracle: LSQ is 0.30 and 0.31 in the table: a bar of 0.305, two points."""
    axes = draw_ladder(table).axes[0]
    assert axes.patches[1].get_height() == pytest.approx(0.305)
    np.testing.assert_allclose(sorted(axes.lines[1].get_ydata()), [0.30, 0.31])


def test_float_is_a_labelled_line_and_no_bar(table):
    """Oracle: FP32 is 0.6 in the table; five quantized methods."""
    for axes in draw_ladder(table).axes:
        assert len(axes.patches) == 5
        assert any(list(line.get_ydata()) == [0.6, 0.6] for line in axes.lines)
        assert any(text.get_text() == "FP32 0.600" for text in axes.texts)


def test_title_states_the_gain(table):
    """Oracle: 0.505 - 0.305 over two seeds."""
    title = " ".join(draw_ladder(table).get_suptitle().split())
    assert "EMA+QC +0.200 mAP on LSQ at 4 bit" in title and "2 seeds" in title


def test_one_panel_per_bit_width_most_bits_first(table):
    """Oracle: the table holds 4 and 3 bit."""
    assert panels(table) == [("yolov5n", "detect", 4, 8), ("yolov5n", "detect", 3, 8)]
    assert [axes.get_title(loc="left") for axes in draw_ladder(table).axes] == ["yolov5n, 4 bit", "yolov5n, 3 bit"]


def test_methods_keep_their_order_and_gaps_close(table):
    """Oracle: the ladder's order, without what the table lacks."""
    axes = draw_ladder(table[table["method"] != "ema"]).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["PTQ", "LSQ", "LSQ+QC", "EMA+QC"]


def test_a_table_without_float_draws(table):
    """Oracle: no line is drawn at a value that is not there."""
    axes = draw_ladder(table[table["method"] != "fp32"]).axes[0]
    assert not axes.texts or all("FP32" not in text.get_text() for text in axes.texts)


def test_tables_that_cannot_be_drawn_are_refused(table, make_table):
    """Oracle: the documented errors."""
    with pytest.raises(ValueError, match="lacks the columns map50"):
        draw_ladder(table.drop(columns="map50"))
    with pytest.raises(ValueError, match="no row of a quantized method"):
        draw_ladder(make_table(bits=()))


def test_networks_stand_below_each_other_and_the_title_stays_short(make_table):
    """Oracle: three networks of two widths, a row each; EMA+QC is 0.2 above LSQ in all six panels."""
    figure = draw_ladder(pd.concat([make_table(network=name) for name in ("a", "b", "c")]))
    rows = [axes.get_subplotspec().rowspan.start for axes in figure.axes]
    assert rows == [0, 0, 1, 1, 2, 2]
    assert "gains +0.200 to +0.200 mAP on LSQ in 6 panels; 2 seeds" in " ".join(figure.get_suptitle().split())

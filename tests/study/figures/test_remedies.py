"""The figure of ways to train, without and with QC: where its marks lie, on a table whose numbers are known."""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures.remedies import draw_remedies


def marks(axes, size):
    """(x, y) of every mark of a size, rounded."""
    lines = [line for line in axes.lines if line.get_markersize() == size and line.get_marker() not in ("", "None")]
    return {(round(float(x), 3), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_marks_are_means_and_seeds(table):
    """Oracle: rows PTQ, LSQ, EMA from the top; LSQ is 0.305 and with QC 0.455, EMA 0.405 and 0.505, in the mean."""
    axes = draw_remedies(table).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["PTQ", "LSQ", "EMA"]
    assert marks(axes, 7) == {(0.105, 0.0), (0.305, 1.0), (0.455, 1.0), (0.405, 2.0), (0.505, 2.0)}
    assert {(0.3, 1.0), (0.31, 1.0)} <= marks(axes, 3)


def test_a_panel_for_each_network_and_width(make_table):
    """Oracle: two networks, of two widths and of one; the title counts three panels."""
    table = pd.concat([make_table(), make_table(network="yolov7-tiny", bits=(4,))])
    figure = draw_remedies(table)
    assert sum(axes.axison for axes in figure.axes) == 3
    assert "EMA above LSQ in 3 of 3 panels" in " ".join(figure.get_suptitle().split())


def test_a_method_that_a_width_lacks_leaves_its_row_empty(table):
    """Oracle: EMA taken out at 4 bit; its row is there, without marks."""
    axes = draw_remedies(table[(table["method"] != "ema") | (table["bits"] == 3)]).axes[0]
    assert (0.405, 2.0) not in marks(axes, 7) and (0.505, 2.0) in marks(axes, 7)


def test_masks_and_their_absence(table):
    """Oracle: mask mAP of half the boxes' lies at half their place; without any there is no row to draw."""
    masks = draw_remedies(table.assign(mask_map=table["map"] / 2), score="mask_map").axes[0]
    assert (0.152, 1.0) in marks(masks, 7) or (0.153, 1.0) in marks(masks, 7)
    with pytest.raises(ValueError, match="no row of a quantized method"):
        draw_remedies(table.assign(mask_map=np.nan), score="mask_map")

"""mAP by method: bars, points and lines, on a table whose numbers are known."""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures import map_by_method as by
from oscillab.study.table import Group, groups


def title_of(figure):
    return " ".join(figure.get_suptitle().split())


def test_bars_points_and_float(table, make_table):
    """Oracle: LSQ 0.30, 0.31, EMA+QC 0.2 above, FP32 a line at 0.6; no gap without EMA; a row for each network."""
    figure = by.draw_map_by_method(table)
    assert groups(table) == [("yolov5n", "detect", bits, 8, "constant", 500) for bits in (4, 3)]
    titles = [f"yolov5n, {bits} bit\nconstant rate, 500 steps" for bits in (4, 3)]
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    for axes in figure.axes:
        assert len(axes.patches) == 5 and axes.patches[1].get_height() == pytest.approx(0.305)
        np.testing.assert_allclose(sorted(axes.lines[1].get_ydata()), [0.30, 0.31])
        assert any(list(line.get_ydata()) == [0.6, 0.6] for line in axes.lines)
        assert any(text.get_text() == "FP32 0.600" for text in axes.texts)
    assert "EMA+QC +0.200 mAP on LSQ at 4 bit, constant rate" in title_of(figure) and "2 seeds" in title_of(figure)
    axes = by.draw_map_by_method(table[~table["method"].isin(["ema", "fp32"])]).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["PTQ", "LSQ", "LSQ+QC", "EMA+QC"]
    assert not any("FP32" in text.get_text() for text in axes.texts)
    figure = by.draw_map_by_method(pd.concat([make_table(network=name) for name in ("a", "b", "c")]))
    assert [axes.get_subplotspec().rowspan.start for axes in figure.axes] == [0, 0, 1, 1, 2, 2]
    assert "gains +0.200 to +0.200 mAP on LSQ in 6 panels; 2 seeds" in title_of(figure)


@pytest.mark.parametrize("draw, words", [
    (lambda table: by.draw_map_by_method(table.drop(columns="map50")), "lacks the columns map50"),
    (lambda table: by.draw_map_by_method(table[table.method == "fp32"]), "no row of a quantized method"),
    (lambda table: by.draw_remedies(table.assign(mask_map=np.nan), score="mask_map"), "no row of a quantized method"),
    (lambda table: by.draw_map_vs_oscillation(table.assign(oscillating_share=np.nan)), "no oscillating share"),
    (lambda table: by.draw_before_after(table, None, None), "one network at one bit width, got 2"),
])  # fmt: skip
def test_tables_that_cannot_be_drawn_are_refused(table, draw, words):
    """Oracle: the documented errors."""
    with pytest.raises(ValueError, match=words):
        draw(table)


def marks(axes, size):
    lines = [line for line in axes.lines if line.get_markersize() == size and line.get_marker() not in ("", "None")]
    return {(round(float(x), 3), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_marks_are_means_and_seeds(table, make_table):
    """Oracle: means 0.305, with QC 0.455, EMA 0.405, 0.505; without 4 bit EMA's row stays; half for half masks."""
    axes = by.draw_remedies(table).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["PTQ", "LSQ", "EMA"]
    assert marks(axes, 7) == {(0.105, 0.0), (0.305, 1.0), (0.455, 1.0), (0.405, 2.0), (0.505, 2.0)}
    assert {(0.3, 1.0), (0.31, 1.0)} <= marks(axes, 3)
    axes = by.draw_remedies(table[(table["method"] != "ema") | (table["bits"] == 3)]).axes[0]
    assert (0.405, 2.0) not in marks(axes, 7) and (0.505, 2.0) in marks(axes, 7)
    masks = by.draw_remedies(table.assign(mask_map=table["map"] / 2), score="mask_map").axes[0]
    assert {(0.152, 1.0), (0.153, 1.0)} & marks(masks, 7)
    figure = by.draw_remedies(pd.concat([make_table(), make_table(network="yolov7-tiny", bits=(4,))]))
    assert sum(axes.axison for axes in figure.axes) == 3
    assert "EMA above LSQ in 3 of 3 panels" in title_of(figure)
    for bits, share in ((4, 0.02), (3, 0.5)):
        table.loc[(table.method == "ema") & (table.bits == bits), "oscillating_share"] = share
    figure = by.draw_map_vs_oscillation(table)
    assert "in 1 of 2 panels" in figure.get_suptitle()
    points = {tuple(point) for point in figure.axes[0].collections[0].get_offsets().round(6)}
    assert points == {(25.0, 0.30), (25.0, 0.31), (2.0, 0.40), (2.0, 0.41)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LSQ", "EMA"]


@pytest.mark.mpl_image_compare(style="default", tolerance=4, savefig_kwargs={"dpi": 60})
def test_before_after(make_table, live, average):
    """Oracle: the stored image; in it two lines of flips, and the means of the table's methods over two seeds."""
    figure = by.draw_before_after(make_table(bits=(3,)), live, average)
    assert {"LSQ", "EMA"} <= {one.get_label() for one in figure.axes[0].lines}
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, [0.105, 0.305, 0.405, 0.455, 0.505])
    return figure


def test_the_grid_of_panels():
    """Oracle: three places of a 2 x 2 grid, numbers below the last of each column; 4, 4*, 3: most bits first."""
    places = [("n", "4"), ("n", "3"), ("tiny", "4")]
    figure, found = by.panel_grid(places, panel=(2, 2), sharex=True)
    assert [one.axison for one in figure.axes] == [True, True, True, False]
    specs = [found[place].get_subplotspec() for place in places]
    assert [(spec.rowspan.start, spec.colspan.start) for spec in specs] == [(0, 0), (0, 1), (1, 0)]
    assert [by.outer_sides(found[place], found) for place in places] == [(True, False), (False, True), (True, True)]
    shown = [found[place].xaxis.get_tick_params()["labelbottom"] for place in places]
    assert shown == [False, True, True]
    groups_of = (("a", "detect", 4, 8), ("a", "detect", 3, 8), ("b", "detect", 4, 4))
    found = [Group(*one, "constant", 500) for one in groups_of]
    assert [width for _, width in by.places_of(found)] == ["4", "4*", "3"]

"""mAP by method: bars, points and lines, on a table whose numbers are known."""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.figures.map_by_method import (
    draw_before_after,
    draw_map_by_method,
    draw_map_vs_oscillation,
    draw_remedies,
    outer_sides,
    panel_grid,
    places_of,
)
from oscillab.study.table import Group, groups


def test_bars_are_means_and_points_are_seeds(table):
    """Oracle: LSQ is 0.30 and 0.31 in the table: a bar of 0.305, two points."""
    axes = draw_map_by_method(table).axes[0]
    assert axes.patches[1].get_height() == pytest.approx(0.305)
    np.testing.assert_allclose(sorted(axes.lines[1].get_ydata()), [0.30, 0.31])


def test_float_is_a_labelled_line_and_no_bar(table):
    """Oracle: FP32 is 0.6 in the table; five quantized methods."""
    for axes in draw_map_by_method(table).axes:
        assert len(axes.patches) == 5
        assert any(list(line.get_ydata()) == [0.6, 0.6] for line in axes.lines)
        assert any(text.get_text() == "FP32 0.600" for text in axes.texts)


def test_title_states_the_gain(table):
    """Oracle: 0.505 - 0.305 over two seeds."""
    title = " ".join(draw_map_by_method(table).get_suptitle().split())
    assert "EMA+QC +0.200 mAP on LSQ at 4 bit" in title and "2 seeds" in title


def test_one_panel_per_bit_width_most_bits_first(table):
    """Oracle: the table holds 4 and 3 bit."""
    assert groups(table) == [("yolov5n", "detect", 4, 8), ("yolov5n", "detect", 3, 8)]
    assert [axes.get_title(loc="left") for axes in draw_map_by_method(table).axes] == [
        "yolov5n, 4 bit",
        "yolov5n, 3 bit",
    ]


def test_methods_keep_their_order_and_gaps_close(table):
    """Oracle: the table's order, without what the table lacks."""
    axes = draw_map_by_method(table[table["method"] != "ema"]).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["PTQ", "LSQ", "LSQ+QC", "EMA+QC"]


def test_a_table_without_float_draws(table):
    """Oracle: no line is drawn at a value that is not there."""
    axes = draw_map_by_method(table[table["method"] != "fp32"]).axes[0]
    assert not axes.texts or all("FP32" not in text.get_text() for text in axes.texts)


def test_tables_that_cannot_be_drawn_are_refused(table, make_table):
    """Oracle: the documented errors."""
    with pytest.raises(ValueError, match="lacks the columns map50"):
        draw_map_by_method(table.drop(columns="map50"))
    with pytest.raises(ValueError, match="no row of a quantized method"):
        draw_map_by_method(make_table(bits=()))


def test_networks_stand_below_each_other_and_the_title_stays_short(make_table):
    """Oracle: three networks of two widths, a row each; EMA+QC is 0.2 above LSQ in all six panels."""
    figure = draw_map_by_method(pd.concat([make_table(network=name) for name in ("a", "b", "c")]))
    rows = [axes.get_subplotspec().rowspan.start for axes in figure.axes]
    assert rows == [0, 0, 1, 1, 2, 2]
    assert "gains +0.200 to +0.200 mAP on LSQ in 6 panels; 2 seeds" in " ".join(figure.get_suptitle().split())


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


def test_a_mark_for_each_seed_and_the_count(table):
    """Oracle: EMA set by hand to the smallest share at 4 bit, where it is the best of the two, and to the largest at 3."""
    table = table.copy()
    for bits, share in ((4, 0.02), (3, 0.5)):
        table.loc[(table.method == "ema") & (table.bits == bits), "oscillating_share"] = share
    figure = draw_map_vs_oscillation(table)
    assert "in 1 of 2 panels" in figure.get_suptitle()
    points = {tuple(point) for point in figure.axes[0].collections[0].get_offsets().round(6)}
    assert points == {(25.0, 0.30), (25.0, 0.31), (2.0, 0.40), (2.0, 0.41)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LSQ", "EMA"]


def test_without_shares(table):
    """Oracle: the sentence of the docstring."""
    with pytest.raises(ValueError, match="no oscillating share"):
        draw_map_vs_oscillation(table.assign(oscillating_share=float("nan")))


def test_before_after_holds_both_halves(live, average, make_table):
    """Oracle: the two lines of flips, and the means of the table's methods over two seeds."""
    figure = draw_before_after(make_table(bits=(3,)), live, average)
    assert {"LSQ", "EMA"} <= {one.get_label() for one in figure.axes[0].lines}
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, [0.105, 0.305, 0.405, 0.455, 0.505])


def test_before_after_takes_one_bit_width(table, live, average):
    """Oracle: the documented error."""
    with pytest.raises(ValueError, match="one network at one bit width"):
        draw_before_after(table, live, average)


@pytest.mark.mpl_image_compare(style="default", tolerance=4, savefig_kwargs={"dpi": 60})
def test_before_after(make_table, live, average):
    """Oracle: the stored image."""
    return draw_before_after(make_table(bits=(3,)), live, average)


def test_the_grid_of_panels():
    """Oracle: three places of a 2 x 2 grid; no axes in its corner, above which a panel is the last and keeps its numbers."""
    places = [("n", "4"), ("n", "3"), ("tiny", "4")]
    figure, found = panel_grid(places, panel=(2, 2), sharex=True)
    assert [one.axison for one in figure.axes] == [True, True, True, False]
    specs = {place: one.get_subplotspec() for place, one in found.items()}
    at = {place: (spec.rowspan.start, spec.colspan.start) for place, spec in specs.items()}
    assert at == {("n", "4"): (0, 0), ("n", "3"): (0, 1), ("tiny", "4"): (1, 0)}
    outer = {place: outer_sides(one, found) for place, one in found.items()}
    assert outer == {("n", "4"): (True, False), ("n", "3"): (False, True), ("tiny", "4"): (True, True)}
    shown = [found[place].xaxis.get_tick_params()["labelbottom"] for place in places]
    assert shown == [False, True, True]


def test_widths_stand_from_most_bits_to_fewest():
    """Oracle: 4, 4*, 3, although the first network has no 4*."""
    found = [Group("a", "detect", 4, 8), Group("a", "detect", 3, 8), Group("b", "detect", 4, 4)]
    assert [width for _, width in places_of(found)] == ["4", "4*", "3"]

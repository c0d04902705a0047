"""Differences between methods and shares of FP32's mAP: what dots, bars and labels say."""

import pandas as pd
import pytest

from oscillab.study.figures.gains import draw_claims, draw_gains, draw_share_of_fp32
from oscillab.study.figures.regimes import draw_regimes
from oscillab.study.table import compare_with_paper

PAIRS = (("ema", "lsq"), ("freezing", "lsq"), ("ema+qc", "ema"))


def dots(axes):
    """Label of each row -> x of its dots, rounded to a tenth of a point."""
    labels = [text.get_text() for text in axes.get_yticklabels()]
    points = [point for one in axes.collections for point in one.get_offsets()]
    return {label: sorted(round(float(x), 1) for x, y in points if y == row) for row, label in enumerate(labels)}


def test_gains_are_the_differences_of_each_seed_in_points(make_table):
    """Oracle: EMA 10, QC 15 and 10; EMA set to 10 and 20: 15 ± 10 / sqrt(2); set to -30.5: text at the edge."""
    at_three_bits = make_table(bits=(3,))
    figure = draw_gains(at_three_bits)
    averages, after_lsq, after_ema = figure.axes
    assert dots(averages) == {"EMA": [10, 10]} and dots(after_lsq) == {"LSQ+QC": [15, 15]}
    assert dots(after_ema) == {"EMA+QC": [10, 10]} and after_ema.patches[0].get_width() == pytest.approx(10)
    assert "2 seeds" in figure.get_suptitle() and "LSQ+QC's, +15.0 points" in figure.get_suptitle()
    table = at_three_bits.copy()
    table.loc[(table.method == "ema") & (table.seed == 1), "map"] += 0.1
    interval = draw_gains(table).axes[0].lines[0].get_xdata()
    assert list(interval) == pytest.approx([15 - 10 / 2**0.5, 15 + 10 / 2**0.5])
    table = at_three_bits.copy()
    table.loc[table.method == "ema", "map"] = 0.0
    axes = draw_gains(table).axes[0]
    assert axes.get_xlim()[0] == -20
    assert [text.get_text() for text in axes.texts] == [" ‹ -30.5 in the mean"]


@pytest.mark.parametrize("draw, words", [
    (draw_gains, "one network at one bit width, got 2"),
    (lambda table: draw_gains(table[table.method.eq("lsq") & table.bits.eq(3)]), "no method beside LSQ or EMA"),
    (lambda table: draw_claims(table, pairs=PAIRS[1:2]), "no two methods of the pairs"),
    (lambda table: draw_share_of_fp32(compare_with_paper(table[table.method != "fp32"])), "nothing to compare with"),
    (lambda table: draw_regimes(pd.concat([table, table.assign(network="b")])), "of one network: select the rows"),
])  # fmt: skip
def test_tables_that_cannot_be_drawn_are_refused(table, draw, words):
    """Oracle: the sentences of the docstrings."""
    with pytest.raises(ValueError, match=words):
        draw(table)


def test_claims_are_rows(table):
    """Oracle: gains of 10 points; a mean beyond the edge as text; t = 3 gives p = 1 - 2 / pi * arctan(3) = 0.205."""
    figure = draw_claims(table, pairs=PAIRS)
    assert dots(figure.axes[0]) == {"EMA − LSQ": [10, 10], "EMA+QC − EMA": [10, 10]}
    title = " ".join(figure.get_suptitle().split())
    assert title == "4 differences: every seed gains in 4, every seed loses in 0", "no word about a rest that is none"
    axes = draw_claims(table, pairs=PAIRS[:1], most=5).axes[0]
    assert axes.get_xlim() == (-5, 5) and "10.0 in the mean" in axes.texts[0].get_text()
    table.loc[(table.method == "ema") & (table.seed == 1) & (table.bits == 4), "map"] += 0.1
    texts = [text.get_text() for text in draw_claims(table, pairs=PAIRS[:1]).axes[0].texts]
    assert texts == ["p 0.205"]


def test_marks_are_shares_of_each_ones_float(table):
    """Oracle: by hand. Ours at 4 bit: EMA 40.5 of 60 points; the paper's yolov5n: 22.1 of 28.0."""
    axes = draw_share_of_fp32(compare_with_paper(table)).axes[0]
    row = [text.get_text() for text in axes.get_yticklabels()].index("EMA")
    at = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [row]}
    assert at["s"] == pytest.approx(100 * 40.5 / 60) and at["|"] == pytest.approx(100 * 22.1 / 28.0)


def test_gains_by_length_and_schedule(make_table):
    """Oracle: the table's numbers: EMA +10, LSQ+QC +15 points at every length, a curve per schedule."""
    first = make_table(bits=(3,))
    trained = first[first["steps"] > 0]
    longer = trained.assign(steps=2000, map=trained["map"] + 0.1 * (trained["method"] == "ema"))
    table = pd.concat([first, longer, trained.assign(schedule="official")])
    ema, qc = (axes.lines for axes in draw_regimes(table).axes)
    curves = {line.get_label(): line.get_xydata().tolist() for line in (*ema,) if "rate" in line.get_label()}
    short = [500, pytest.approx(10)]
    assert curves == {"official rate": [short], "constant rate": [short, [2000, pytest.approx(20)]]}
    (line,) = (line for line in qc if line.get_label() == "constant rate")
    assert line.get_ydata().tolist() == pytest.approx([15, 15])

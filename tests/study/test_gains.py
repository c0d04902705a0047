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


@pytest.fixture
def at_three_bits(table):
    """The rows of one width."""
    return table[table.bits.isin([3, 32])]


def test_dots_are_the_differences_of_each_seed_in_points(at_three_bits):
    """Oracle: the table's EMA lies 10 points above LSQ, QC 15 above LSQ and 10 above EMA, in both seeds."""
    figure = draw_gains(at_three_bits)
    averages, after_lsq, after_ema = figure.axes
    assert dots(averages) == {"EMA": [10, 10]} and dots(after_lsq) == {"LSQ+QC": [15, 15]}
    assert dots(after_ema) == {"EMA+QC": [10, 10]} and after_ema.patches[0].get_width() == pytest.approx(10)
    assert "2 seeds" in figure.get_suptitle() and "LSQ+QC's, +15.0 points" in figure.get_suptitle()


def test_the_interval_is_the_standard_deviation_over_seeds(at_three_bits):
    """Oracle: EMA's gains set by hand to 10 and 20 points: 15 with a standard deviation of 10 / sqrt(2) = 7.07."""
    table = at_three_bits.copy()
    table.loc[(table.method == "ema") & (table.seed == 1), "map"] += 0.1
    interval = draw_gains(table).axes[0].lines[0].get_xdata()
    assert list(interval) == pytest.approx([15 - 10 / 2**0.5, 15 + 10 / 2**0.5])


def test_a_ruin_is_written_at_the_edge(at_three_bits):
    """Oracle: EMA set by hand to 30 points below LSQ: the axis ends at -20 and the mean stands there as text."""
    table = at_three_bits.copy()
    table.loc[table.method == "ema", "map"] = 0.0
    axes = draw_gains(table).axes[0]
    assert axes.get_xlim()[0] == -20
    assert [text.get_text() for text in axes.texts] == [" ‹ -30.5 in the mean"]


@pytest.mark.parametrize(
    "draw, words",
    [
        (draw_gains, "one network at one bit width, got 2"),
        (lambda table: draw_gains(table[table.method.eq("lsq") & table.bits.eq(3)]), "no method beside LSQ or EMA"),
        (lambda table: draw_claims(table, pairs=PAIRS[1:2]), "no two methods of the pairs"),
        (
            lambda table: draw_share_of_fp32(compare_with_paper(table[table.method != "fp32"])),
            "nothing to compare with",
        ),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(table, draw, words):
    """Oracle: the sentences of the docstrings."""
    with pytest.raises(ValueError, match=words):
        draw(table)


def test_rows_are_the_pairs_that_the_table_knows(table):
    """Oracle: the table has no freezing; EMA lies 10 points above LSQ in both seeds, QC 10 above EMA."""
    figure = draw_claims(table, pairs=PAIRS)
    assert dots(figure.axes[0]) == {"EMA − LSQ": [10, 10], "EMA+QC − EMA": [10, 10]}
    title = " ".join(figure.get_suptitle().split())
    assert title == "4 differences: every seed gains in 4, every seed loses in 0", "no word about a rest that is none"


def test_p_stands_beside_its_row(table):
    """Oracle: gains of 10 and 20 points: t = 15 / 5 = 3, p of one degree of freedom is 1 - 2 / pi * arctan(3) = 0.205."""
    table.loc[(table.method == "ema") & (table.seed == 1) & (table.bits == 4), "map"] += 0.1
    texts = [text.get_text() for text in draw_claims(table, pairs=PAIRS[:1]).axes[0].texts]
    assert texts == ["p 0.205"]


def test_what_lies_beyond_the_edge_is_written_there(table):
    """Oracle: the axis ends at 5 points on both sides, the mean of 10 stands at its end."""
    axes = draw_claims(table, pairs=PAIRS[:1], most=5).axes[0]
    assert axes.get_xlim() == (-5, 5) and "10.0 in the mean" in axes.texts[0].get_text()


def test_marks_are_shares_of_each_ones_float(table):
    """Oracle: by hand. Ours at 4 bit: EMA 40.5 of 60 points; the paper's yolov5n: 22.1 of 28.0."""
    axes = draw_share_of_fp32(compare_with_paper(table)).axes[0]
    row = [text.get_text() for text in axes.get_yticklabels()].index("EMA")
    at = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [row]}
    assert at["s"] == pytest.approx(100 * 40.5 / 60) and at["|"] == pytest.approx(100 * 22.1 / 28.0)


def test_gains_by_length_and_schedule(make_table):
    """Oracle: the table's numbers: EMA +10, LSQ+QC +15 points at every length, a curve per schedule; a table of two networks
    is refused."""
    first = make_table(bits=(3,))
    trained = first[first["steps"] > 0]
    longer = trained.assign(steps=2000, map=trained["map"] + 0.1 * (trained["method"] == "ema"))
    table = pd.concat([first, longer, trained.assign(schedule="official")])
    ema, qc = (axes.lines for axes in draw_regimes(table).axes)
    curves = {line.get_label(): line.get_xydata().tolist() for line in (*ema,) if "rate" in line.get_label()}
    assert curves == {
        "official rate": [[500, pytest.approx(10)]],
        "constant rate": [[500, pytest.approx(10)], [2000, pytest.approx(20)]],
    }
    assert [line.get_ydata().tolist() for line in qc if line.get_label() == "constant rate"] == [
        [pytest.approx(15)] * 2
    ]
    with pytest.raises(ValueError, match="beside lsq, of one network: select the rows first"):
        draw_regimes(pd.concat([first, make_table(network="yolov7-tiny")]))

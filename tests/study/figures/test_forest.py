"""The figure of claims: its rows, its p, and what lies beyond its edge."""

import pytest

from oscillab.study.figures.forest import draw_claims

PAIRS = (("ema", "lsq"), ("freezing", "lsq"), ("ema+qc", "ema"))


def dots(axes):
    """Row -> x of its dots, rounded to a tenth of a point."""
    return {
        int(line.get_ydata()[0]): sorted(line.get_xdata().round(1)) for line in axes.lines if line.get_marker() == "o"
    }


def test_rows_are_the_pairs_that_the_table_knows(table):
    """Oracle: the table has no freezing; EMA lies 10 points above LSQ in both seeds, QC 10 above EMA."""
    figure = draw_claims(table, pairs=PAIRS)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["EMA − LSQ", "EMA+QC − EMA"]
    assert dots(figure.axes[0]) == {0: [10, 10], 1: [10, 10]}
    title = " ".join(figure.get_suptitle().split())
    assert title == "4 differences: every seed gains in 4, every seed loses in 0", "no word about a rest that is none"


def test_p_stands_beside_its_row(table):
    """Oracle: gains of 10 and 20 points: t = 15 / 5 = 3, p of one degree of freedom is 1 - 2 / pi * arctan(3) = 0.205."""
    table = table.copy()
    table.loc[(table.method == "ema") & (table.seed == 1) & (table.bits == 4), "map"] += 0.1
    texts = [text.get_text() for text in draw_claims(table, pairs=PAIRS[:1]).axes[0].texts]
    assert texts == ["p 0.205"]


def test_what_lies_beyond_the_edge_is_written_there(table):
    """Oracle: the axis ends at 5 points on both sides, the mean of 10 stands at its end."""
    axes = draw_claims(table, pairs=PAIRS[:1], most=5).axes[0]
    assert axes.get_xlim() == (-5, 5) and "10.0 in the mean" in axes.texts[0].get_text()


def test_nothing_to_compare(table):
    """Oracle: the sentence of the docstring."""
    with pytest.raises(ValueError, match="no two methods of the pairs"):
        draw_claims(table, pairs=PAIRS[1:2])

"""The figure of paired differences: what its dots and labels say."""

import pytest

from oscillab.study.figures.gains import draw_gains


@pytest.fixture
def at_three_bits(table):
    """The rows of one width."""
    return table[table.bits.isin([3, 32])]


def test_dots_are_the_differences_of_each_seed_in_points(at_three_bits):
    """Oracle: the table's EMA lies 10 points above LSQ, QC 15 above LSQ and 10 above EMA, in both seeds."""
    figure = draw_gains(at_three_bits)
    dots = {
        (axes.get_title(loc="left"), label.get_text()): list(line.get_xdata())
        for axes in figure.axes
        for label, line in zip(axes.get_yticklabels(), axes.lines, strict=False)
    }
    assert dots["Averages, against LSQ", "EMA"] == pytest.approx([10, 10])
    assert dots["After LSQ, against it", "LSQ+QC"] == pytest.approx([15, 15])
    assert dots["After EMA, against it", "EMA+QC"] == pytest.approx([10, 10])
    assert "2 seeds" in figure.get_suptitle() and "LSQ+QC's, +15.0 points" in figure.get_suptitle()


def test_a_ruin_is_written_at_the_edge(at_three_bits):
    """Oracle: EMA set by hand to 30 points below LSQ: the axis ends at -20 and the mean stands there as text."""
    table = at_three_bits.copy()
    table.loc[table.method == "ema", "map"] = 0.0
    axes = draw_gains(table).axes[0]
    assert axes.get_xlim()[0] == -20
    assert [text.get_text() for text in axes.texts] == [" ‹ -30.5 in the mean"]


def test_one_network_at_one_width(table, at_three_bits):
    """Oracle: the sentence of the docstring, for two widths and for a table with nothing to compare."""
    with pytest.raises(ValueError, match="one network at one bit width, got 2"):
        draw_gains(table)
    with pytest.raises(ValueError, match="no method beside LSQ or EMA"):
        draw_gains(at_three_bits[at_three_bits.method == "lsq"])

"""mAP over oscillation: marks and the count in the title."""

import pytest

from oscillab.study.figures.stillness import draw_stillness


def test_a_mark_for_each_seed_and_the_count(table):
    """Oracle: EMA set by hand to the smallest share at 4 bit, where it is the best of the two, and to the largest at 3."""
    table = table.copy()
    for bits, share in ((4, 0.02), (3, 0.5)):
        table.loc[(table.method == "ema") & (table.bits == bits), "oscillating_share"] = share
    figure = draw_stillness(table)
    assert "in 1 of 2 panels" in figure.get_suptitle()
    first = [line for line in figure.axes[0].lines if line.get_marker() == "s"][0]
    assert list(first.get_xdata()) == [2.0, 2.0] and list(first.get_ydata()) == pytest.approx([0.40, 0.41])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LSQ", "EMA"]


def test_without_shares(table):
    """Oracle: the sentence of the docstring."""
    with pytest.raises(ValueError, match="no oscillating share"):
        draw_stillness(table.assign(oscillating_share=float("nan")))

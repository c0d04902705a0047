"""What is kept of FP32's mAP, ours and the paper's, as marks."""

import pytest

from oscillab.study.beside import beside
from oscillab.study.figures.kept import draw_kept


def test_marks_are_shares_of_each_ones_float(table):
    """Oracle: by hand. Ours at 4 bit: EMA 40.5 of 60 points; the paper's yolov5n: 22.1 of 28.0."""
    axes = draw_kept(beside(table)).axes[0]
    row = [text.get_text() for text in axes.get_yticklabels()].index("EMA")
    at = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [row]}
    assert at["s"] == pytest.approx(100 * 40.5 / 60) and at["|"] == pytest.approx(100 * 22.1 / 28.0)


def test_without_float_there_is_nothing_to_draw(table):
    """Oracle: the sentence of the docstring."""
    with pytest.raises(ValueError, match="nothing to lay beside the paper"):
        draw_kept(beside(table[table.method != "fp32"]))

"""The figures of bytes and remaining floats: what is drawn is what the rows say."""

from types import SimpleNamespace as Row

import pytest

from oscillab.study.figures.costs import draw_bytes, draw_kinds

LAYERS = [
    Row(bits=8, bytes=2048, float_bytes=8192),
    Row(bits=4, bytes=1024, float_bytes=8192),
    Row(bits=4, bytes=1024, float_bytes=8192),
]


def test_bars_are_the_layers_bytes():
    """Oracle: the rows, in KB of 1024 bytes; a title that states 4096 of 24576 bytes, and 1 of 8 for the files."""
    figure = draw_bytes(LAYERS, file_bytes=1, float_file_bytes=8)
    float_bars, four, eight = figure.axes[0].containers
    assert [bar.get_height() for bar in float_bars] == [8, 8, 8]
    assert [bar.get_height() for bar in four] == [1, 1] and [bar.get_height() for bar in eight] == [2]
    assert "16.7%" in figure.get_suptitle() and "12.5%" in figure.get_suptitle()


def test_kinds_are_sorted_and_convolutions_stand_out():
    """Oracle: the rows, largest on top; one colour for the convolutions alone."""
    kinds = [Row(kind="convolution", operations=2, numbers=3e6), Row(kind="shortcut", operations=1, numbers=1e6)]
    bars = draw_kinds(kinds).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1, 3]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()


@pytest.mark.parametrize(
    "draw, rows", [(draw_bytes, LAYERS), (draw_kinds, [Row(kind="convolution", operations=1, numbers=1)])]
)
def test_drawing_gives_a_picture(draw, rows):
    """Oracle: the first bytes of a PNG."""
    assert draw(rows).png().startswith(b"\x89PNG")

"""Pictures with boxes: what is in the artists is what was given."""

import numpy as np
import pytest

from oscillab.plot.pictures import draw_pictures

IMAGE = np.zeros((20, 30, 3), np.uint8)


def test_every_box_and_name_is_drawn():
    """Oracle: the boxes and words that were given, read back from the artists."""
    boxes = np.array([[1, 2, 11, 12], [5, 5, 25, 15]], float)
    figure = draw_pictures([(IMAGE, boxes, ["ring", "disc"], [0.9, 0.25]), (IMAGE, np.zeros((0, 4)), [], None)])
    first, second = figure.axes
    assert [patch.get_bbox().extents.tolist() for patch in first.patches] == boxes.tolist()
    assert [text.get_text() for text in first.texts] == ["ring 0.90", "disc 0.25"]
    assert not second.patches and len(second.images) == 1


@pytest.mark.parametrize("x", [(-3, 12), (0, 30), (80, 110), (130, 160), (140, 170)])
def test_a_name_stays_within_its_picture(x):
    """Oracle: the text's own extent beside that of the axes, both in pixels, for boxes at and beyond both sides."""
    boxes = np.array([[x[0], 30, x[1], 60]], float)
    picture = np.zeros((160, 160, 3), np.uint8), boxes, ["six-pointed star"], [0.53]
    figure = draw_pictures([picture] * 4)
    figure.png()
    for axes in figure.axes:
        text, frame = axes.texts[0].get_window_extent(), axes.get_window_extent()
        assert frame.x0 - 1 <= text.x0 and text.x1 <= frame.x1 + 1


def test_one_colour_a_name_and_a_grid_that_fits():
    """Oracle: an invariant; equal names share a colour, others do not; five pictures in rows of two leave one place empty."""
    boxes = np.array([[0, 0, 5, 5]] * 3, float)
    figure = draw_pictures([(IMAGE, boxes, ["a", "b", "a"], None)] * 5, columns=2, titles=list("vwxyz"))
    colors = [patch.get_edgecolor() for patch in figure.axes[0].patches]
    assert colors[0] == colors[2] != colors[1]
    assert len(figure.axes) == 6 and sum(bool(axes.images) for axes in figure.axes) == 5
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*"vwxyz", ""]


def test_nothing_to_draw():
    """Oracle: the sentence a user reads."""
    with pytest.raises(ValueError, match="no picture to draw"):
        draw_pictures([])

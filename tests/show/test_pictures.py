"""Pictures with boxes: what is in the artists is what was given."""

import numpy as np
import pytest

from oscillab.show.pictures import draw_pictures

IMAGE = np.zeros((20, 30, 3), np.uint8)


def test_every_box_and_name_is_drawn():
    """Oracle: the boxes and words that were given, read back from the artists."""
    boxes = np.array([[1, 2, 11, 12], [5, 5, 25, 15]], float)
    figure = draw_pictures([(IMAGE, boxes, ["ring", "disc"], [0.9, 0.25]), (IMAGE, np.zeros((0, 4)), [], None)])
    first, second = figure.axes
    assert [patch.get_bbox().extents.tolist() for patch in first.patches] == boxes.tolist()
    assert [text.get_text() for text in first.texts] == ["ring 0.90", "disc 0.25"]
    assert not second.patches and len(second.images) == 1


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

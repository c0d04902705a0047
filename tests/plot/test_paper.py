"""Are the parts of a figure that are drawn one by one the figure?"""

import io

import numpy as np
import pytest
from PIL import Image

from oscillab.plot.paper import Paper
from oscillab.plot.style import new_figure


@pytest.fixture
def figure():
    """Two panels, one of which has a line that moves."""
    figure, axes = new_figure(4, 2, columns=2)
    figure.set_layout_engine(None)
    return figure, axes[0, 0], axes[0, 1], axes[0, 1].plot([0, 1], [0, 1], animated=True)[0]


@pytest.fixture
def paper(figure):
    """The left and the right half of it."""
    picture, left, right, _ = figure
    return Paper(picture, {"left": (left, (0, 0, 0.51, 1)), "right": (right, (0.51, 0, 1, 1))})


def pixels(png):
    """The picture as numbers."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def canvas(paper):
    """The pixels themselves: a PNG's 128 colours are chosen anew for each picture."""
    return np.asarray(paper.canvas.buffer_rgba()).astype(int)


def test_the_parts_together_are_the_figure(figure, paper):
    """Oracle: matplotlib's own drawing of the whole figure, without its moving line, pixel by pixel."""
    paper.lay([])
    file = io.BytesIO()
    figure[3].set_visible(False)
    figure[0].savefig(file, format="png", dpi=figure[0].dpi)
    assert (np.abs(pixels(paper.png()) - pixels(file.getvalue())).max(2) > 24).sum() == 0


def test_only_what_changed_is_drawn_again(figure, paper):
    """Oracle: the count of drawn parts: both at first, none where nothing changed, then the one that did."""
    counts = []
    for change in ([], [], ["right"], []):
        for name in change:
            paper.changed(name)
        paper.lay([figure[3]])
        counts.append(paper.draw_count)
    assert counts == [2, 2, 3, 3]


def test_a_part_that_changed_shows_what_it_is_now(figure, paper):
    """Oracle: the other half stays pixel by pixel, the changed half does not; no line of before is left over."""
    moving = [figure[3]]
    paper.lay(moving)
    before = canvas(paper)
    figure[1].set_ylim(0, 40)
    paper.changed("left")
    paper.lay(moving)
    after, half = canvas(paper), before.shape[1] * 51 // 100
    assert (before[:, :half] != after[:, :half]).any()
    np.testing.assert_array_equal(before[:, half + 1 :], after[:, half + 1 :])
    figure[3].set_data([0, 1], [1, 0])
    paper.lay(moving)
    turned = canvas(paper)
    figure[3].set_data([0, 1], [0, 1])
    paper.lay(moving)
    assert (turned != after).any()
    np.testing.assert_array_equal(canvas(paper), after)

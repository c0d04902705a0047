"""Is the picture that is drawn quickly the one that matplotlib draws?"""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from oscillab.plot.moving_picture import MovingPicture


@pytest.fixture
def curves():
    """The curves of eight steps."""
    steps = list(range(9))
    spread = [[0.9, 1.0, 1.1 + 0.01 * s] for s in steps]
    flips, sizes = {"lsq": (steps, [0.01 * s for s in steps])}, {"lsq": (steps, spread)}
    return SimpleNamespace(
        recorders={"lsq": None}, loss=(steps[1:], [2 - 0.1 * s for s in steps[1:]]), flips=flips, step_sizes=sizes
    )


def pixels(png):
    """The picture as numbers."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_the_quick_picture_is_matplotlibs(curves):
    """Oracle: the whole figure saved by matplotlib with the same lines, pixel by pixel."""
    moving = MovingPicture(["lsq"])
    moving.expect(8)
    moving.update(curves)
    quick = pixels(moving.png())
    for line in moving.lines.values():
        line.set_animated(False)
    file = io.BytesIO()
    moving.figure.savefig(file, format="png", dpi=moving.figure.dpi)
    different = (np.abs(quick - pixels(file.getvalue())).max(2) > 40).mean()
    assert different < 0.002, "lines lie above the axes' frame in one and below it in the other"


def test_a_line_that_leaves_its_panel_widens_it(curves):
    """Oracle: the limits hold the new points, and the old picture is not kept."""
    moving = MovingPicture(["lsq"])
    moving.update(curves)
    before = moving.png()
    curves.loss[0].append(400)
    curves.loss[1].append(50.0)
    moving.update(curves)
    assert moving.axes["loss"].get_xlim()[1] >= 400 and moving.axes["loss"].get_ylim()[1] >= 50
    assert moving.png() != before


def test_the_last_picture_does_not_depend_on_those_before_it(curves):
    """Oracle: the picture of a run that was drawn once, byte for byte; and a panel as wide as the run was long."""
    once, often = MovingPicture(["lsq"]), MovingPicture(["lsq"])
    often.expect(20)
    for share in (0.4, 3.0):
        early = SimpleNamespace(**vars(curves))
        early.loss = curves.loss[0][:4], [share * value for value in curves.loss[1][:4]]
        often.update(early)
        often.png()
    for moving in (once, often):
        moving.update(curves, last=True)
    assert once.png() == often.png()
    assert often.axes["loss"].get_xlim()[1] == max(curves.loss[0])


def test_the_first_row_is_no_step(curves):
    """Oracle: row 0 is the model before the first step: flips are drawn from step 1 on, in percent."""
    moving = MovingPicture(["lsq"])
    moving.update(curves)
    line = moving.lines["flips", "lsq", 0]
    np.testing.assert_allclose(line.get_xdata(), range(1, 9))
    np.testing.assert_allclose(line.get_ydata(), range(1, 9))

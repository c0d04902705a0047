"""Do three key figures look as they were last looked at?

pytest compares them with tests/plot/baseline, pixel by pixel; what is in them is tested beside each drawing. After
a change that is meant: look at the new ones, then `pytest tests/plot/test_baseline.py --mpl-generate-path=tests/plot/baseline`.
"""

import pytest

from oscillab.plot.layer import draw_boundary_distance, draw_trajectories
from oscillab.plot.layer_view import draw_layer_view

compared = pytest.mark.mpl_image_compare(style="default", tolerance=4, savefig_kwargs={"dpi": 60})


@compared
def test_boundary_distance(live):
    """Oracle: the stored picture."""
    return draw_boundary_distance(live, "middle")


@compared
def test_trajectories(live, average):
    """Oracle: the stored picture."""
    return draw_trajectories({"lsq": live, "ema": average}, "middle")


@compared
def test_layer_view(live):
    """Oracle: the stored picture."""
    return draw_layer_view({"run": ("lsq", live)}, "middle", step=60)

"""Are the recorded detections those of the networks and images that they name?"""

import json

import numpy as np
import pytest

from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.study.fixtures import box_rows, found_rows
from oscillab.yolo import checkpoint


@pytest.fixture(scope="module")
def shipped(root):
    """The shipped file."""
    return json.loads((root / "data" / "detections" / "quick-3bit.json").read_text())


def test_the_truth_is_the_scenes(shipped):
    """Oracle: the annotations of the drawn pictures."""
    scenes = Scenes(12, **shipped["scenes"])
    for number, rows in shipped["truth"].items():
        sample = scenes.sample(int(number))
        assert rows == box_rows(sample.boxes, sample.labels)
    assert shipped["names"] == list(scenes.names)


def test_the_float_networks_rows_are_what_it_sees(shipped):
    """Oracle: the shipped detector run on the picture: its confident rows to a pixel's tenth and a hundredth in score."""
    sample = Scenes(12, split="val").sample(0)
    wanted = [row for row in shipped["methods"]["fp32"]["0"] if row[4] > 0.5]
    given = [row for row in found_rows(checkpoint.load(SHIPPED), sample.image) if row[4] > 0.5]
    assert len(wanted) >= 3
    np.testing.assert_allclose(given, wanted, atol=0.11)

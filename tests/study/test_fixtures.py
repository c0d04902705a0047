"""Are the recorded detections those of the networks and images that they name?"""

import json

import numpy as np

from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.study.fixtures import box_rows, found_rows
from oscillab.yolo import checkpoint


def test_rows_are_the_scenes_and_what_the_detector_sees(root):
    """Oracle: the scenes' annotations; the shipped detector's confident rows on one, to 0.1 pixel and 0.01 in score."""
    shipped = json.loads((root / "data" / "detections" / "quick-3bit.json").read_text())
    scenes = Scenes(12, **shipped["scenes"])
    for number, rows in shipped["truth"].items():
        sample = scenes.sample(int(number))
        assert rows == box_rows(sample.boxes, sample.labels)
    assert shipped["names"] == list(scenes.names)
    sample = Scenes(12, split="val").sample(0)
    wanted = [row for row in shipped["methods"]["fp32"]["0"] if row[4] > 0.5]
    given = [row for row in found_rows(checkpoint.load(SHIPPED), sample.image) if row[4] > 0.5]
    assert len(wanted) >= 3
    np.testing.assert_allclose(given, wanted, atol=0.11)

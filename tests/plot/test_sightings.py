"""Which recorded detections count as found?"""

import json

import numpy as np
import pytest

from oscillab.plot.sightings import FORMAT, Sightings, draw_sightings, matches, overlap


@pytest.fixture
def sightings():
    """Two objects; the float network finds both, LSQ one of them and a ghost."""
    left, right = [0.0, 0, 10, 10], [20.0, 20, 40, 40]
    content = {
        "format": FORMAT,
        "network": "yolov5n",
        "layers": ["first", "middle", "last"],
        "names": ["disc", "ring"],
        "truth": {"3": [[*left, 0], [*right, 1]]},
        "methods": {
            "lsq": {"3": [[*right, 0.9, 1], [5.0, 5, 15, 15, 0.4, 0]]},
            "fp32": {"3": [[*left, 0.8, 0], [*right, 0.7, 1]]},
            "ema": {"3": []},
            "ema+qc": {"3": [[*left, 0.8, 1]]},
        },
    }
    return Sightings(content)


def test_methods_come_in_the_order_of_the_ladder(sightings):
    """Oracle: the order of METHODS, not that of the file."""
    assert sightings.methods == ["fp32", "lsq", "ema", "ema+qc"]


def test_overlap_of_two_squares():
    """Oracle: by hand, squares of 4 that share 2 x 4: 8 / (16 + 16 - 8); themselves 1; apart 0."""
    a = np.array([[0.0, 0, 4, 4]])
    assert overlap(a, np.array([[2.0, 0, 6, 4], [0, 0, 4, 4], [9, 9, 10, 10]])).tolist() == [[8 / 24, 1, 0]]


def test_a_class_must_fit(sightings):
    """Oracle: the same box with another class finds nothing."""
    assert matches(*(sightings.seen(3, "ema+qc")[i] for i in (0, 2)), *sightings.truth(3)) == [-1]


def test_the_figure_counts(sightings):
    """Oracle: the counts of the fixture by hand, in the panels' titles; the chosen one's frame."""
    figure = draw_sightings(sightings, 3, np.zeros((48, 48, 3), np.uint8), chosen="lsq")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "FP32: 2 found, 0 wrong",
        "LSQ: 1 found, 1 wrong",
        "EMA: 0 found, 0 wrong",
        "EMA+QC: 0 found, 1 wrong",
    ]
    assert [axes.spines["left"].get_visible() for axes in figure.axes] == [False, True, False, False]


def test_what_is_no_file_of_detections(sightings, tmp_path):
    """Oracle: the documented errors."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(ValueError, match="not a file of recorded detections"):
        Sightings.open(path)
    with pytest.raises(ValueError, match="cannot be read as recorded detections"):
        Sightings.open(tmp_path / "none.json")
    with pytest.raises(ValueError, match="picture must be one of 3, got 4"):
        sightings.truth(4)
    with pytest.raises(ValueError, match="method must be one of fp32, .*, got 'qc'"):
        sightings.seen(3, "qc")


def test_the_shipped_file_is_of_the_shipped_recordings(root):
    """Oracle: the recordings' own layers; twelve pictures of five networks."""
    from oscillab.recording.recording import Recording

    shipped = Sightings.open(root / "data" / "detections" / "quick-3bit.json")
    recording = Recording.open(root / "data" / "recordings" / "quick-3bit-lsq.npz")
    assert set(recording.layer_names) <= set(shipped.layers)
    assert len(shipped.pictures) == 12 and len(shipped.methods) == 5

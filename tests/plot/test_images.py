"""Images with boxes and masks: what is in the artists and pixels is what was given; which detections count as found."""

import json

import numpy as np
import pytest

from oscillab.plot.images import (
    BOX_COLORS,
    FORMAT,
    RecordedDetections,
    draw_detections,
    draw_images,
    matches,
    overlap,
    paint_detections,
)
from oscillab.recording.recording import Recording


def color(label):
    """Red, green, blue of a class."""
    return tuple(int(BOX_COLORS[label][i : i + 2], 16) for i in (1, 3, 5))


IMAGE = np.zeros((20, 30, 3), np.uint8)


def test_every_box_and_name_is_drawn():
    """Oracle: the boxes and words that were given, read back from the artists."""
    boxes = np.array([[1, 2, 11, 12], [5, 5, 25, 15]], float)
    figure = draw_images([(IMAGE, boxes, ["ring", "disc"], [0.9, 0.25]), (IMAGE, np.zeros((0, 4)), [], None)])
    first, second = figure.axes
    assert [patch.get_bbox().extents.tolist() for patch in first.patches] == boxes.tolist()
    assert [text.get_text() for text in first.texts] == ["ring 0.90", "disc 0.25"]
    assert not second.patches and len(second.images) == 1


def test_a_name_stays_within_its_picture():
    """Oracle: the text's own extent beside that of the axes, both in pixels, for boxes at and beyond both sides."""
    boxes = np.array([[x1, 30, x2, 60] for x1, x2 in ((-3, 12), (0, 30), (80, 110), (130, 160), (140, 170))], float)
    picture = np.zeros((160, 160, 3), np.uint8), boxes, ["six-pointed star"] * 5, [0.53] * 5
    figure = draw_images([picture] * 4)
    figure.png()
    for axes in figure.axes:
        frame = axes.get_window_extent()
        for text in (one.get_window_extent() for one in axes.texts):
            assert frame.x0 - 1 <= text.x0 and text.x1 <= frame.x1 + 1


def test_one_colour_a_name_and_a_grid_that_fits():
    """Oracle: an invariant; equal names share a colour, others do not; five pictures in rows of two leave one place empty."""
    boxes = np.array([[0, 0, 5, 5]] * 3, float)
    figure = draw_images([(IMAGE, boxes, ["a", "b", "a"], None)] * 5, columns=2, titles=list("vwxyz"))
    colors = [patch.get_edgecolor() for patch in figure.axes[0].patches]
    assert colors[0] == colors[2] != colors[1]
    assert len(figure.axes) == 6 and sum(bool(axes.images) for axes in figure.axes) == 5
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*"vwxyz", ""]


GREY = np.full((64, 80, 3), 100, np.uint8)


def test_a_box_is_painted_on_its_edge_and_the_picture_stays():
    """Oracle: pixels on the edge have the class's colour, pixels inside and far away are as they were."""
    painted = paint_detections(GREY, np.array([[20.0, 30, 60, 50]]), [1], ["a", "b"], [0.9])
    assert (GREY == 100).all()
    assert tuple(painted[50, 40]) == tuple(painted[40, 20]) == color(1)
    assert (painted[40, 40] == 100).all() and (painted[5, 5] == 100).all()


def test_a_mask_tints_its_pixels_alone():
    """Oracle: 0.55 · 100 + 0.45 · colour, rounded, inside the mask; the best score lies on top."""
    masks = np.zeros((2, 64, 80), np.uint8)
    masks[:, 35:45, 30:50] = 1
    boxes = np.array([[28.0, 33, 52, 47], [28, 33, 52, 47]])
    painted = paint_detections(GREY, boxes, [0, 1], ["a", "b"], [0.9, 0.2], masks)
    first = np.round(0.55 * 100 + 0.45 * np.array(color(1)))
    assert np.array_equal(painted[40, 40], np.round(0.55 * first + 0.45 * np.array(color(0))))
    assert tuple(painted[47, 40]) == color(0) and (painted[60, 70] == 100).all()


def test_nothing_found_changes_nothing():
    """Oracle: the picture; with no picture at all, the sentence a user reads."""
    none = np.zeros((0, 4)), np.zeros(0, int), ["a"], np.zeros(0)
    assert np.array_equal(paint_detections(GREY, *none, np.zeros((0, 64, 80), np.uint8)), GREY)
    with pytest.raises(ValueError, match="no image to draw"):
        draw_images([])


@pytest.fixture
def detections():
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
    return RecordedDetections(content)


def test_overlap_of_two_squares():
    """Oracle: by hand, squares of 4 that share 2 x 4: 8 / (16 + 16 - 8); themselves 1; apart 0."""
    a = np.array([[0.0, 0, 4, 4]])
    assert overlap(a, np.array([[2.0, 0, 6, 4], [0, 0, 4, 4], [9, 9, 10, 10]])).tolist() == [[8 / 24, 1, 0]]


def test_an_object_is_found_once_and_by_its_class(detections):
    """Oracle: the same box with another class finds nothing; of two equal boxes the first finds it."""
    assert matches(*(detections.seen(3, "ema+qc")[i] for i in (0, 2)), *detections.truth(3)) == [-1]
    box = np.array([[0.0, 0, 4, 4]])
    assert matches(np.vstack([box, box]), [1, 1], box, [1]) == [0, -1]


def test_the_figure_counts(detections):
    """Oracle: the fixture's counts by hand in the titles, in the order of METHODS; the chosen one's frame."""
    figure = draw_detections(detections, 3, np.zeros((48, 48, 3), np.uint8), chosen="lsq")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    counts = {"FP32": (2, 0), "LSQ": (1, 1), "EMA": (0, 0), "EMA+QC": (0, 1)}
    assert titles == [f"{label}: {found} found, {wrong} wrong" for label, (found, wrong) in counts.items()]
    assert detections.methods == ["fp32", "lsq", "ema", "ema+qc"]
    assert [axes.spines["left"].get_visible() for axes in figure.axes] == [False, True, False, False]


def test_what_is_no_file_of_detections(detections, tmp_path):
    """Oracle: the documented errors."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(ValueError, match="not a file of recorded detections"):
        RecordedDetections.open(path)
    with pytest.raises(ValueError, match="cannot be read as recorded detections"):
        RecordedDetections.open(tmp_path / "none.json")
    with pytest.raises(ValueError, match="image must be one of 3, got 4"):
        detections.truth(4)
    with pytest.raises(ValueError, match="method must be one of fp32, .*, got 'qc'"):
        detections.seen(3, "qc")


def test_the_shipped_file_is_of_the_shipped_recordings(root):
    """Oracle: the recordings' own layers; twelve pictures of five networks."""
    shipped = RecordedDetections.open(root / "data" / "detections" / "quick-3bit.json")
    recording = Recording.open(root / "data" / "recordings" / "quick-3bit-lsq.npz")
    assert set(recording.layer_names) <= set(shipped.layers)
    assert len(shipped.images) == 12 and len(shipped.methods) == 5

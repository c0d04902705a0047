"""Boxes and masks in a picture: where they are, and that nothing else changes."""

import numpy as np

from oscillab.plot.detections import color_of, paint_detections

GREY = np.full((64, 80, 3), 100, np.uint8)


def test_a_box_is_painted_on_its_edge_and_the_picture_stays():
    """Oracle: pixels on the edge have the class's colour, pixels inside and far away are as they were."""
    painted = paint_detections(GREY, np.array([[20.0, 30, 60, 50]]), [1], ["a", "b"], [0.9])
    assert (GREY == 100).all()
    assert tuple(painted[50, 40]) == tuple(painted[40, 20]) == color_of(1)
    assert (painted[40, 40] == 100).all() and (painted[5, 5] == 100).all()


def test_a_mask_tints_its_pixels_alone():
    """Oracle: 0.55 · 100 + 0.45 · colour, rounded, inside the mask; the best score lies on top."""
    masks = np.zeros((2, 64, 80), np.uint8)
    masks[:, 35:45, 30:50] = 1
    boxes = np.array([[28.0, 33, 52, 47], [28, 33, 52, 47]])
    painted = paint_detections(GREY, boxes, [0, 1], ["a", "b"], [0.9, 0.2], masks)
    first = np.round(0.55 * 100 + 0.45 * np.array(color_of(1)))
    assert np.array_equal(painted[40, 40], np.round(0.55 * first + 0.45 * np.array(color_of(0))))
    assert tuple(painted[47, 40]) == color_of(0) and (painted[60, 70] == 100).all()


def test_nothing_found_changes_nothing():
    """Oracle: the picture."""
    none = np.zeros((0, 4)), np.zeros(0, int), ["a"], np.zeros(0)
    assert np.array_equal(paint_detections(GREY, *none, np.zeros((0, 64, 80), np.uint8)), GREY)

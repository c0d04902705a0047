"""Letterboxes, against hand-worked geometry, OpenCV's own resize, and a square that the official code made."""

import cv2
import numpy as np
import pytest

from oscillab.data.letterbox import letterbox, letterbox_sample
from oscillab.data.sample import Sample


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "size", "resized", "pads", "above_and_left"),
    [
        ((277, 416), 320, (213, 320), (0, 53.5), (53, 0)),  # round(53.5 - 0.1) above, round(53.5 + 0.1) below
        ((416, 300), 416, (416, 300), (58, 0), (0, 58)),
        ((100, 100), 160, (160, 160), (0, 0), (0, 0)),
        ((20, 51), 64, (25, 64), (0, 19.5), (19, 0)),  # 20 * 64 / 51 = 25.1, cut
    ],
)
def test_geometry_by_hand(shape, size, resized, pads, above_and_left):
    """Oracle: the official rule worked out by hand; grey 114 around the picture."""
    square, ratio, (pad_x, pad_y) = letterbox(picture(*shape), size)
    assert square.shape == (size, size, 3)
    assert (pad_x, pad_y) == pads
    assert ratio == resized[0] / shape[0]
    top, left = above_and_left
    inside = np.zeros((size, size), bool)
    inside[top : top + resized[0], left : left + resized[1]] = True
    assert np.all(square[~inside] == 114)


def test_pixels_are_opencvs():
    """Oracle: cv2.resize with the interpolation that the official code chooses; equal to the bit."""
    image = picture(300, 400)
    area, linear = (cv2.resize(image, (160, 120), interpolation=way) for way in (cv2.INTER_AREA, cv2.INTER_LINEAR))
    assert np.array_equal(letterbox(image, 160)[0][20:140], area)
    assert np.array_equal(letterbox(image, 160, smooth=False)[0][20:140], linear)
    larger = cv2.resize(image, (480, 360), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(letterbox(image, 480)[0][60:420], larger)


def test_the_official_square_of_a_real_picture(shared):
    """Oracle: the official code's letterbox of COCO 139, made from the unshrunk picture (640 x 426, here 416 x 277).

    The grey rows agree to the bit; the pixels within the loss of shrinking twice and a JPEG (2.1 grey values on
    average; the next picture of the folder differs by 32).
    """
    pixels = np.load(shared / "oracle" / "real-yolov5n-seg.npz")["pixels"][0].transpose(1, 2, 0)
    image = cv2.imread(str(shared / "coco" / "images" / "val2017" / "000000000139.jpg"))
    square, _, _ = letterbox(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 320)
    assert np.array_equal(np.all(square == 114, axis=(1, 2)), np.all(pixels == 114, axis=(1, 2)))
    assert np.abs(square.astype(int) - pixels).mean() < 3


def test_boxes_and_masks_go_along():
    """Invariant: the letterboxed box still lies tight around the letterboxed object, within a pixel of rounding."""
    image, mask = np.zeros((60, 90, 3), np.uint8), np.zeros((1, 60, 90), np.uint8)
    image[20:40, 30:75], mask[0, 20:40, 30:75] = 255, 1
    sample = Sample(image, np.float32([[30, 20, 75, 40]]), np.array([0]), mask, 5)
    moved = letterbox_sample(sample, 128)
    assert moved.image_id == 5
    for plane in (moved.image[..., 0] > 127, moved.masks[0] > 0):
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved.boxes[0] == pytest.approx(tight, abs=1)


def test_a_picture_of_the_right_size_is_untouched():
    sample = Sample(picture(64, 64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, 0)
    assert letterbox_sample(sample, 64) is sample

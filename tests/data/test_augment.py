"""The augmentations, against OpenCV's own operations, hand-worked boxes, and pictures whose objects are found again."""

import cv2
import numpy as np
import pytest

from oscillab.data.augment import Augment, box_candidates, mirror, mosaic, shift_colours, transform
from oscillab.data.images import Sample
from oscillab.data.scenes import Scenes

STILL = {"mosaic": 0, "translate": 0, "scale": 0, "hsv": (0, 0, 0), "flip": 0}


def generator(seed=0):
    return np.random.default_rng(seed)


def white_on_black(height=96, width=96, box=(20, 30, 60, 50)):
    x1, y1, x2, y2 = box
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, y1:y2, x1:x2] = 1
    image = np.repeat(mask[0][..., None] * np.uint8(255), 3, axis=2)
    return Sample(image, np.float32([box]), np.array([3]), mask, 11)


class One:
    fresh = False

    def __init__(self, sample):
        self.only = sample

    def __len__(self):
        return 5

    def sample(self, _index):
        return self.only


def found(plane):
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_nothing_and_a_mosaic():
    """Invariant: switched off, the identity. Oracle: by hand: four colours meet in the middle half; a pool of one."""
    sample = Scenes().sample(4)
    still = Augment(**STILL)(One(sample), 0, 160, generator())
    assert all(np.array_equal(a, b) for a, b in zip(still, sample, strict=True))
    empty = Sample(np.zeros((50, 80, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, 0)
    for probability in (0, 1):
        varied = Augment(mosaic=probability)(One(empty), 0, 64, generator())
        assert varied.boxes.shape == (0, 4) and varied.image.shape == (64, 64, 3)
    box, levels = np.float32([[4, 6, 44, 60]]), (10, 60, 180, 250)
    samples = [Sample(np.full((64, 48, 3), n, np.uint8), box, np.array([n]), None, n) for n in levels]
    for seed in range(10):
        canvas, boxes, labels, _, _ = mosaic(samples, 64, generator(seed))
        assert canvas.shape == (128, 128, 3) and labels.tolist() == [10, 60, 180, 250]
        for box, label in zip(boxes.astype(int), labels, strict=True):
            assert np.all(canvas[box[1] : box[3], box[0] : box[2]] == label)
        right, below = found(canvas[..., 0] == 10)[2:]
        assert 32 <= right <= 96 and 32 <= below <= 96
        assert found(canvas[..., 0] == 250)[:2] == [right, below]
    data = One(white_on_black())
    data.sample = lambda index: data.only._replace(labels=np.array([index]))
    varied = Augment(**(STILL | {"mosaic": 1}))(data, 7, 96, generator(), pool=range(40, 41))
    assert set(varied.labels.tolist()) <= {7, 40} and varied.image_id == 11


def test_draws_of_matrix_and_colours():
    """Oracle: cv2.getRotationMatrix2D around the centre; HSV's grey; by hand: (12, -7), 96 - x, the official limits."""
    augment = Augment(degrees=30, translate=0, scale=0.5)
    matrix, gain = augment.draw_matrix((200, 300), 100, generator(1))
    draws = generator(1)
    angle, scale = draws.uniform(-30, 30), draws.uniform(0.5, 1.5)
    expected = cv2.getRotationMatrix2D((150, 100), angle, scale)
    expected[:, 2] += (50 - 150, 50 - 100)
    assert gain == scale
    assert np.allclose(matrix, expected)
    grey = np.full((4, 4, 3), 100, np.uint8)
    levels = [shift_colours(grey, (0.015, 0.7, 0.4), generator(seed)) for seed in range(200)]
    assert all(np.ptp(level) == 0 for level in levels)
    values = np.array([level[0, 0, 0] for level in levels])
    assert 59 <= values.min() < 65 and 135 < values.max() <= 140
    assert shift_colours(grey, (0, 0, 0), generator()) is grey
    sample = white_on_black()._replace(masks=None)
    moved = transform(sample, np.array([[1, 0, 12.0], [0, 1, -7.0]]), 96, gain=1.0)
    assert moved.boxes.tolist() == [[32, 23, 72, 43]]
    assert found(moved.image[:, :, 0] == 255) == [32, 23, 72, 43]
    assert np.all(moved.image[:, :12] == 114)
    sample = white_on_black()
    once = mirror(sample)
    assert once.boxes.tolist() == [[36, 30, 76, 50]]
    assert found(once.image[..., 0]) == found(once.masks[0]) == [36, 30, 76, 50]
    assert all(np.array_equal(a, b) for a, b in zip(mirror(once), sample, strict=True))
    before = np.float32([[0, 0, 20, 20]] * 4 + [[0, 0, 500, 3]])
    after = np.float32([[0, 0, 20, 20], [0, 0, 2, 20], [0, 0, 6, 6], [0, 0, 7, 7], [0, 0, 500, 3]])
    assert box_candidates(before, after).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_stay_on_their_objects(masks):
    """Oracle: the white pixels after mosaic, scale, shift and flip; an object cut by nothing is found at its box."""
    sample = white_on_black(box=(38, 42, 58, 52))
    augment = Augment(hsv=(0, 0, 0), mosaic=0.5)
    data, checked = One(sample if masks else sample._replace(masks=None)), 0
    for seed in range(60):
        varied = augment(data, 0, 96, generator(seed))
        assert varied.image.shape == (96, 96, 3)
        for number, box in enumerate(varied.boxes):
            x1, y1, x2, y2 = (int(round(float(edge))) for edge in box)
            inside = varied.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
            assert not inside.size or inside.min() > 250  # white all over
            if min(x1, y1) > 4 and max(x2, y2) < 92:  # cut by nothing
                around = varied.image[y1 - 4 : y2 + 4, x1 - 4 : x2 + 4, 0] > 185
                assert found(around) == pytest.approx([4, 4, 4 + x2 - x1, 4 + y2 - y1], abs=2)
                checked += 1
            if masks:
                assert found(varied.masks[number]) == box.tolist()
    assert checked > 40


@pytest.mark.parametrize("settings, message", [
    ({"mosaic": 1.5}, "mosaic must be 0..1, got 1.5"),
    ({"hsv": (0.1, 0.2)}, "hsv must be three gains of 0..1"),
    ({"shear": 90}, "degrees must be 0..180 and shear 0..90, got 0.0 and 90"),
])  # fmt: skip
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment(**settings)

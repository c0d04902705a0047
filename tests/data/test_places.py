"""Oracles: the letterbox that the training data goes through, the official shapes worked out by hand."""

import numpy as np
import pytest

from oscillab.data.letterbox import letterbox
from oscillab.data.places import Place, batches, pictures, rectangle
from oscillab.data.sample import Sample


class Noise:
    """Pictures of random pixels of given (width, height)."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def sample(self, index):
        width, height = self.sizes[index]
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, 10 + index)


def test_squares_are_the_letterbox():
    """Oracle: `letterbox`, pixel by pixel, and what it says of ratio and pads; shrunk, enlarged, as it is, odd."""
    data = Noise((128, 64), (40, 33), (64, 64), (63, 64))
    images, places = pictures(data, range(4), 64, (64, 64))
    assert images.shape == (4, 3, 64, 64)
    for index, place in enumerate(places):
        square, ratio, pad = letterbox(data.sample(index).image, 64)
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), square)
        assert (place.ratio, place.pad, place.image_id) == (ratio, pad, 10 + index)
        assert (place.width, place.height) == data.sizes[index]


def test_rectangles_have_the_official_shapes():
    """Oracle: ceil(ratio * size / 32 + 0.5) * 32 by hand: a square of 416 is run at 448, of 640 at 672."""
    assert rectangle(np.array([1.0]), 416, 32) == (448, 448)
    assert rectangle(np.array([0.75]), 640, 32) == (512, 672)
    assert rectangle(np.array([0.5, 0.7]), 640, 32) == (480, 672)
    assert rectangle(np.array([1.5, 2.0]), 640, 32) == (672, 448)
    assert rectangle(np.array([0.5, 2.0]), 640, 32) == (672, 672)


def test_rectangular_batches_hold_pictures_of_like_shape():
    """Oracle: the order of height / width by hand; every picture fits into its batch's rectangle, once."""
    sizes = [(100, 100), (200, 100), (100, 200), (150, 100), (100, 150)]
    images = [{"width": w, "height": h} for w, h in sizes]
    found = batches(images, 96, 2, rectangular=True)
    assert [part.tolist() for part, _ in found] == [[1, 3], [0, 4], [2]]
    assert [shape for _, shape in found] == [(96, 128), (128, 128), (128, 64)]
    for part, shape in found:
        tensor, places = pictures(Noise(*sizes), part, 96, shape)
        assert tensor.shape == (len(part), 3, *shape)
        assert all(place.shape == shape and min(place.pad) >= 0 for place in places)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (4, 2), (3, 8), (1, 1)])
def test_square_batches_keep_the_order(count, size):
    """Oracle: Python's slices."""
    found = batches([{"width": 10, "height": 5 + k} for k in range(count)], 64, size)
    assert [part.tolist() for part, _ in found] == [list(range(count))[k : k + size] for k in range(0, count, size)]
    assert {shape for _, shape in found} == {(64, 64)}


def test_boxes_come_back_clipped():
    """Oracle: (x - pad) / ratio by hand, cut off at the picture's edges, without mask coefficients."""
    place = Place(1, 128, 64, 0.5, (0.0, 16.0), (64, 64))
    rows = np.float32([[10, 21, 30, 41, 0.9, 2, 7, 7], [-5, 10, 70, 60, 0.8, 1, 7, 7]])
    expected = [[20, 10, 60, 50, 0.9, 2], [0, 0, 128, 64, 0.8, 1]]
    np.testing.assert_allclose(place.boxes(rows), expected, rtol=1e-6)
    assert rows[0, 0] == 10

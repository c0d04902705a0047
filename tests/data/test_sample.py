"""Masks, boxes, run lengths and polygons, against hand-worked masks and pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as reference

from oscillab.data.sample import Sample, annotations_of, coverage, decode_runs, draw_polygons, encode_runs, tight_box


def random_masks():
    generator = np.random.default_rng(0)
    noise = [(generator.random((9, 14)) < share).astype(np.uint8) for share in (0.1, 0.5, 0.9)]
    return [*noise, np.zeros((3, 5), np.uint8), np.ones((3, 5), np.uint8)]


def test_the_box_of_one_pixel():
    """Oracle: by hand; boxes are measured on pixel edges."""
    mask = np.zeros((6, 8), np.uint8)
    mask[3, 5] = 1
    assert tight_box(mask) == (5, 3, 6, 4)
    assert tight_box(np.zeros((6, 8), np.uint8)) == (0, 0, 0, 0)


def test_run_lengths_by_hand():
    """Oracle: COCO's rule, columns first and zeros first, worked out by hand."""
    mask = np.array([[1, 0, 0], [1, 1, 0]], np.uint8)
    assert encode_runs(mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}


@pytest.mark.parametrize("mask", random_masks())
def test_run_lengths_agree_with_pycocotools(mask):
    """Oracle: pycocotools reads what is written here, and what it writes is read here."""
    runs = encode_runs(mask)
    assert np.array_equal(reference.decode(reference.frPyObjects(runs, *mask.shape)), mask)
    assert np.array_equal(decode_runs(runs), mask)
    assert np.array_equal(decode_runs(reference.encode(np.asfortranarray(mask))), mask)


def test_broken_run_lengths_are_refused():
    with pytest.raises(ValueError, match="must add up to 6 pixels, got 5"):
        decode_runs({"size": [2, 3], "counts": [5]})
    with pytest.raises(ValueError, match="end within a number"):
        decode_runs({"size": [2, 3], "counts": "o"})


def test_coverage_of_a_rectangle_that_ends_within_pixels():
    """Oracle: by hand; x from 1.5 to 3 covers half of column 1 and all of column 2, in sixteenths of a pixel."""
    corners = np.array([(1.5, 1), (3, 1), (3, 4), (1.5, 4)])
    alpha, x, y = coverage([corners], 10, 10)
    assert (x, y, alpha.shape) == (1, 1, (3, 2))
    assert np.all(alpha[:, 1] == 255)
    assert np.all(np.abs(alpha[:, 0].astype(int) - 128) <= 64)  # an edge through a point counts the point as inside
    assert coverage([corners - 20], 10, 10) is None


def test_polygons_agree_with_pycocotools():
    """Oracle: pycocotools' own rasters of random triangles; both are within half a pixel of the outline."""
    generator = np.random.default_rng(1)
    for _ in range(50):
        polygon = generator.uniform(0, 60, size=6).tolist()
        mask = reference.decode(reference.merge(reference.frPyObjects([polygon], 60, 60)))
        corners = np.reshape(polygon, (3, 2))
        length = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum()
        assert np.count_nonzero(draw_polygons([polygon], 60, 60) != mask) <= 0.5 * length + 2


def test_annotations_of_a_sample():
    """Oracle: by hand; x, y, width and height, the area counted in the mask, or the box's without masks."""
    mask = np.zeros((1, 6, 8), np.uint8)
    mask[0, 1:3, 2:6] = 1
    mask[0, 1, 2] = 0
    sample = Sample(np.zeros((6, 8, 3), np.uint8), np.float32([[2, 1, 6, 3]]), np.array([1]), mask, 7)
    (row,) = annotations_of(sample, [10, 20], 5)
    assert (row["id"], row["image_id"], row["category_id"], row["iscrowd"]) == (5, 7, 20, 0)
    assert row["bbox"] == [2, 1, 4, 2]
    assert row["area"] == 7
    assert annotations_of(sample._replace(masks=None), [10, 20], 5)[0]["area"] == 8

"""Laws of segmentations: any legal one is read as pycocotools' very mask, any other is refused when its file is opened."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from oscillab.data.annotations import faults
from oscillab.data.images import decode_mask, encode_runs

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
MASKS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1)))
SIDE = st.floats(-30, 60, width=32)
POLYGON = st.integers(3, 6).flatmap(lambda corners: st.lists(SIDE, min_size=2 * corners, max_size=2 * corners))


def told(segmentation, shape):
    """What is wrong with a file whose only object has that segmentation."""
    image = {"id": 1, "file_name": "a.png", "height": shape[0], "width": shape[1]}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": segmentation}
    return faults({"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "cat"}]})


def compressed(mask):
    return {"size": [*mask.shape], "counts": reference.encode(np.asfortranarray(mask))["counts"].decode()}


@given(MASKS)
@settings(deadline=None, max_examples=200)
def test_runs_are_the_mask_that_was_encoded(mask):
    """Oracle: the mask itself, by its own runs, and by those that pycocotools compresses."""
    for runs in (encode_runs(mask), compressed(mask)):
        assert told(runs, mask.shape) == [] and np.array_equal(decode_mask(runs, *mask.shape), mask)


@given(SHAPES, st.lists(POLYGON, min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_polygons_are_pycocotools(shape, polygons):
    """Oracle: pycocotools' mask of the same polygons, whatever lies outside."""
    assert told(polygons, shape) == []
    expected = reference.decode(reference.merge(reference.frPyObjects(polygons, *shape)))
    assert np.array_equal(decode_mask(polygons, *shape), expected)


@given(MASKS, st.data())
@settings(deadline=None, max_examples=200)
def test_runs_of_another_sum_are_refused(mask, data):
    """Oracle: the pixels that runs must add up to; any run is made longer or shorter, plain and compressed."""
    counts = encode_runs(mask)["counts"]
    place = data.draw(st.integers(0, len(counts) - 1))
    counts[place] += data.draw(st.integers(-3, 3).filter(bool))
    assert len(told({"size": [*mask.shape], "counts": counts}, mask.shape)) == 1
    assume(counts[place] >= 0)
    text = reference.frPyObjects({"size": [99, 99], "counts": counts}, 99, 99)["counts"].decode()
    assert len(told({"size": [*mask.shape], "counts": text}, mask.shape)) == 1


@given(POLYGON, st.sampled_from([None, "1", True, float("nan"), 10**6, [], {}]), st.data())
@settings(deadline=None, max_examples=100)
def test_polygons_of_anything_else_are_refused(polygon, odd, data):
    """Oracle: one fault for one coordinate too few, and for one that is no number within reach."""
    place = data.draw(st.integers(0, len(polygon) - 1))
    for wrong in (polygon[:place] + polygon[place + 1 :], polygon[:place] + [odd] + polygon[place + 1 :]):
        assert len(told([wrong], (9, 9))) == 1

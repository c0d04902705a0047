"""Letterboxes and masks: geometry by hand, OpenCV's resize, an official square, pycocotools; laws of segmentations."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as reference

from oscillab.data.annotations import faults
from oscillab.data.images import (
    Sample,
    decode_mask,
    encode_runs,
    evaluation_batches,
    letterbox,
    letterbox_batch,
    letterbox_sample,
    read_image,
    tight_box,
)


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape, size, resized, pads, above_and_left", [
    ((277, 416), 320, (213, 320), (0, 53.5), (53, 0)),  # round(53.5 - 0.1) above, round(53.5 + 0.1) below
    ((416, 300), 416, (416, 300), (58, 0), (0, 58)),
    ((100, 100), 160, (160, 160), (0, 0), (0, 0)),
    ((20, 51), 64, (25, 64), (0, 19.5), (19, 0)),  # 20 * 64 / 51 = 25.1, cut
])  # fmt: skip
def test_geometry_by_hand(shape, size, resized, pads, above_and_left):
    """Oracle: the official rule worked out by hand; grey 114 around the picture."""
    square, place = letterbox(picture(*shape), size)
    assert square.shape == (size, size, 3)
    assert place == (0, shape[1], shape[0], resized[0] / shape[0], pads, (size, size))
    top, left = above_and_left
    inside = np.zeros((size, size), bool)
    inside[top : top + resized[0], left : left + resized[1]] = True
    assert np.all(square[~inside] == 114)


def test_pixels_boxes_and_masks():
    """Oracle: cv2.resize as the official code chooses, to the bit; the box still tight around its object."""
    image = picture(300, 400)
    area, linear = (cv2.resize(image, (160, 120), interpolation=way) for way in (cv2.INTER_AREA, cv2.INTER_LINEAR))
    sample = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, 0)
    assert np.array_equal(letterbox(image, 160)[0][20:140], area)
    assert np.array_equal(letterbox_sample(sample, 160, smooth=False).image[20:140], linear)
    larger = cv2.resize(image, (480, 360), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(letterbox(image, 480)[0][60:420], larger)
    image, mask = np.zeros((60, 90, 3), np.uint8), np.zeros((1, 60, 90), np.uint8)
    image[20:40, 30:75], mask[0, 20:40, 30:75] = 255, 1
    sample = Sample(image, np.float32([[30, 20, 75, 40]]), np.array([0]), mask, 5)
    moved = letterbox_sample(sample, 128)
    assert moved.image_id == 5
    for plane in (moved.image[..., 0] > 127, moved.masks[0] > 0):
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved.boxes[0] == pytest.approx(tight, abs=1)


def test_the_official_square_of_a_real_picture(shared):
    """Oracle: the official letterbox of COCO 139: grey rows to the bit, pixels but for two shrinkings and a JPEG."""
    pixels = np.load(shared / "oracle" / "real-yolov5n-seg.npz")["pixels"][0].transpose(1, 2, 0)
    image = cv2.imread(str(shared / "coco" / "images" / "val2017" / "000000000139.jpg"))
    square, _ = letterbox(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 320)
    assert np.array_equal(np.all(square == 114, axis=(1, 2)), np.all(pixels == 114, axis=(1, 2)))
    assert np.abs(square.astype(int) - pixels).mean() < 3


GREY, FOUR = np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8)


@pytest.mark.parametrize("image", ["a.png", GREY, GREY / 1.0, FOUR, np.zeros((9, 9, 3)), torch.rand(3, 9, 9)])
def test_what_is_no_image(image):
    """Oracle: the sentence: floats would be divided by 255 once more, and four channels would shift the colours."""
    with pytest.raises(ValueError, match=r"must be an array of uint8 \(H, W, 3\), RGB, got a (str|ndarray|Tensor)"):
        letterbox(image, 32)


class Noise:
    def __init__(self, *sizes):
        self.sizes = sizes

    def sample(self, index):
        image = picture(*self.sizes[index][::-1])
        return Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, 10 + index)


def test_rectangles_hold_pictures_of_like_shape():
    """Oracle: the order of height / width by hand, each picture once; ceil(ratio * size / 32 + 0.5) * 32."""
    sizes = [(100, 100), (200, 100), (100, 200), (150, 100), (100, 150)]
    images = [{"width": w, "height": h} for w, h in sizes]
    found = evaluation_batches(images, 96, 2, rectangular=True)
    assert [part.tolist() for part, _ in found] == [[1, 3], [0, 4], [2]]
    assert [shape for _, shape in found] == [(96, 128), (128, 128), (128, 64)]
    for part, shape in found:
        tensor, places = letterbox_batch(Noise(*sizes), part, 96, shape)
        assert tensor.shape == (len(part), 3, *shape)
        assert all(place.shape == shape and min(place.pad) >= 0 for place in places)
    for size, expected in ((2, [[0, 1], [2, 3], [4]]), (5, [[0, 1, 2, 3, 4]]), (8, [[0, 1, 2, 3, 4]])):
        squares = evaluation_batches(images, 64, size)
        assert [part.tolist() for part, _ in squares] == expected and {shape for _, shape in squares} == {(64, 64)}
    cases = (([100], 416, (448, 448)), ([75], 640, (512, 672)), ([50, 70], 640, (480, 672)))
    for heights, size, shape in (*cases, ([150, 200], 640, (672, 448)), ([50, 200], 640, (672, 672))):
        images = [{"width": 100, "height": height} for height in heights]
        assert [found for _, found in evaluation_batches(images, size, 2, rectangular=True)] == [shape]


def exif(turn):
    """The bytes of a JPEG of 20 rows and 30 columns whose EXIF tag says how it is turned."""
    data = cv2.imencode(".jpg", picture(20, 30))[1].tobytes()
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, turn, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def test_turns_boxes_runs_and_polygons_by_hand(tmp_path):
    """Oracle: EXIF's table: 6 and 8 turn by a quarter; boxes on pixel edges; runs by columns from zeros; rectangles."""
    for turn, shape in ((1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))):
        (tmp_path / "a.jpg").write_bytes(exif(turn))
        assert read_image(tmp_path / "a.jpg").shape[:2] == shape
    mask = np.zeros((6, 8), np.uint8)
    assert tight_box(mask) == (0, 0, 0, 0)
    mask[3, 5] = 1
    assert tight_box(mask) == (5, 3, 6, 4)
    assert encode_runs(np.array([[1, 0, 0], [1, 1, 0]], np.uint8)) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 2:6], expected[4:, 6:] = 1, 1
    assert np.array_equal(decode_mask([[2, 1, 6, 1, 6, 3, 2, 3], [6, 4, 11, 4, 11, 9, 6, 9]], 6, 8), expected)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
HUGE = b"\x89PNG\r\n\x1a\n" + HEADER + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name, data, words", [
    ("a.jpg", exif(1)[:-40], "the file is cut short"),
    ("a.jpg", exif(1)[:150], "the file is cut short"),
    ("a.png", cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()[:-20], "the file is cut short"),
    ("a.bmp", cv2.imencode(".bmp", picture(9, 9))[1].tobytes()[:-20], "it is no JPEG, PNG or other image, or damaged"),
    ("a.webp", cv2.imencode(".webp", picture(9, 9))[1].tobytes()[:-20], "it is no JPEG, PNG or other image, or damaged"),
    ("a.png", HUGE, "it is too large"),
    ("a.png", b"", "it is no JPEG, PNG or other image"),
    ("a.txt", b"hello", "it is no JPEG, PNG or other image"),
])  # fmt: skip
def test_what_cannot_be_read_is_one_line(tmp_path, name, data, words):
    """Oracle: the cause, whatever the version of OpenCV makes of it."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} cannot be read as an image: {words}") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


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

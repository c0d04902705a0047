"""The boxes and masks that a detector reports, held to the official code's recorded output, to NMS written as its
definition reads, to the official formula of masks written with PyTorch, and to examples worked out by hand."""

import multiprocessing

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from oscillab.data import nms
from oscillab.data.images import Place, decode_mask
from oscillab.data.nms import detections, mask_runs


def rows(*boxes, width=7):
    """Decoded output (1, n, width) from (x1, y1, x2, y2, objectness, probabilities …)."""
    decoded = torch.zeros(1, len(boxes), width)
    for row, (x1, y1, x2, y2, *rest) in zip(decoded[0], boxes, strict=True):
        row[:4] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        row[4:] = torch.tensor(rest)
    return decoded


HALF = rows((0, 0, 2, 1, 1, 0.75, 0), (0, 0, 1, 1, 1, 0.5, 0))


def test_official_boxes_of_a_real_picture(shared):
    """Oracle: what the official code reports of the real yolov5n's output, after its own NMS."""
    recorded = np.load(shared / "oracle" / "real-yolov5n.npz")
    (found,) = detections(recorded["decoded"], conf=0.25, iou=0.45)
    np.testing.assert_array_equal(found, recorded["detections"])


def greedy(decoded, conf, iou, max_boxes):
    """NMS as its definition reads: per class, the best box suppresses those that overlap it by more than `iou`."""
    found = []
    for label in range(decoded.shape[1] - 5):
        left = [row for row in decoded if row[4] > conf and row[4] * row[5 + label] > conf]
        left.sort(key=lambda row: -row[4] * row[5 + label])
        while left:
            best = left.pop(0)
            found.append([*corners(best), best[4] * best[5 + label], label])
            left = [row for row in left if overlap(corners(best), corners(row)) <= iou]
    return np.array(sorted(found, key=lambda row: -row[4])[:max_boxes])


def corners(row):
    return row[0] - row[2] / 2, row[1] - row[3] / 2, row[0] + row[2] / 2, row[1] + row[3] / 2


def overlap(a, b):
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


@pytest.mark.parametrize("max_boxes", [40, 300])
def test_definition_of_nms(max_boxes):
    """Oracle: a double loop in float64 over 120 crowded random boxes of 3 classes, for both images of a batch."""
    random = np.random.default_rng(0)
    parts = [random.uniform(*limits) for limits in ((20, 60, (2, 120, 2)), (10, 40, (2, 120, 2)), (0, 1, (2, 120, 4)))]
    decoded = np.concatenate(parts, axis=2)
    for found, image in zip(detections(decoded, conf=0.05, iou=0.5, max_boxes=max_boxes), decoded, strict=True):
        expected = greedy(image, 0.05, 0.5, max_boxes)
        assert found.shape == expected.shape and len(found) > 39
        np.testing.assert_allclose(found, expected, atol=1e-4)  # float32 against float64, at 60 pixels


@pytest.mark.parametrize("decoded, settings, expected", [
    # above the threshold in both classes: reported twice, neither suppresses the other
    (rows((10, 20, 30, 60, 0.8, 0.5, 0.25)), {"conf": 0.1}, [[10, 20, 30, 60, 0.4, 0], [10, 20, 30, 60, 0.2, 1]]),
    # the better box carries its own mask coefficients, the suppressed one's are gone
    (rows((0, 0, 10, 10, 0.5, 1, -1, -2), (0, 0, 10, 11, 0.9, 1, 3, 4), width=8), {"classes": 1}, [[0, 0, 10, 11, 0.9, 0, 3, 4]]),
    # IoU 1/2 is more than 0.49, and not more than 1/2; a score, or an objectness, of 1/4 does not exceed 1/4
    (HALF, {"iou": 0.49}, [[0, 0, 2, 1, 0.75, 0]]),
    (HALF, {"iou": 0.5}, [[0, 0, 2, 1, 0.75, 0], [0, 0, 1, 1, 0.5, 0]]),
    (rows((0, 0, 2, 1, 0.5, 0.5, 0.75)), {"conf": 0.25}, [[0, 0, 2, 1, 0.375, 1]]),
    (rows((0, 0, 2, 1, 0.25, 1, 1)), {"conf": 0.25}, np.zeros((0, 6))),
])  # fmt: skip
def test_boxes_by_hand(decoded, settings, expected):
    """Oracle: by hand, for the reason above each."""
    np.testing.assert_allclose(detections(decoded, **settings)[0], expected, rtol=1e-6)


def test_few_many_and_broken_boxes(monkeypatch):
    """Oracle: no rows of the same width; NaN is an error; 300 equal boxes; the three best where three have room."""
    decoded = torch.cat([rows((0, 0, 2, 2, 0, 1, 1)), rows((0, 0, 2, 2, 1, 1, 0))])
    empty, one = detections(decoded)
    assert empty.shape == (0, 6) and empty.dtype == np.float32 and one.shape == (1, 6)
    assert detections(torch.zeros(1, 4, 39), classes=2)[0].shape == (0, 38)
    for column in (0, 4, 5):
        broken = HALF.clone()
        broken[0, 1, column] = float("nan")
        with pytest.raises(ValueError, match="NaN or infinity"):
            detections(broken)
    decoded = torch.full((1, 8000, 9), 0.5)
    decoded[0, :, 0] = torch.arange(8000) * 2.0  # far apart: nothing is suppressed
    assert len(detections(decoded)[0]) == 300
    apart = rows((0, 0, 9, 9, 1, 0.9, 0.2), (20, 0, 29, 9, 1, 0.3, 0.8), (40, 0, 49, 9, 1, 0.7, 0.1))
    assert len(detections(apart)[0]) == 6
    monkeypatch.setattr(nms, "CANDIDATE_LIMIT", 3)
    np.testing.assert_allclose(detections(apart)[0][:, 4:], [[0.9, 0], [0.8, 1], [0.7, 0]], rtol=1e-6)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_forked_process():
    """Oracle: the parent's own answer, which a child forked after it must give too, and not hang."""
    (expected,) = detections(HALF)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        (found,) = pool.apply_async(_in_child, [HALF.numpy()]).get(timeout=60)
    np.testing.assert_array_equal(found, expected)


def _in_child(decoded):
    torch.set_num_threads(1)
    return detections(decoded)


@pytest.mark.parametrize("shape, arguments, says", [
    ((1, 4, 7), {"conf": 1.5}, "conf and iou must be 0..1, max_boxes 1 or more, got 1.5, 0.65 and 300"),
    ((1, 4, 7), {"iou": -0.1, "max_boxes": 0}, "got 0.001, -0.1 and 0"),
    ((1, 4, 7), {"classes": 3}, r"classes must be 1\.\.2 for rows of 7, got 3"),
    ((1, 3, 8, 8, 85), {}, r"\(images, boxes, 5 \+ classes\), got \(1, 3, 8, 8, 85\)"),
])  # fmt: skip
def test_arguments_out_of_range(shape, arguments, says):
    """Oracle: each error says what is allowed and what was given."""
    with pytest.raises(ValueError, match=says):
        detections(torch.zeros(shape), **arguments)


SHAPE = (64, 96)
WHOLE = Place(1, 96, 64, 1.0, (0.0, 0.0), SHAPE)


def random_rows(seed, count=40):
    """Rows (count, 38) with boxes inside, across and beyond an image of SHAPE, and prototypes (32, 16, 24)."""
    random = np.random.default_rng(seed)
    centre, half = random.uniform(0, SHAPE[::-1], (count, 2)), random.uniform(0.2, 30, (count, 2))
    rest = np.stack([random.uniform(0, 1, count), random.integers(0, 5, count)], 1)
    rows = [centre - half, centre + half, rest, random.normal(0, 1, (count, 32))]
    smooth = [cv2.resize(random.normal(0, 1, (4, 6)), (24, 16)) for _ in range(32)]
    return np.concatenate(rows, 1, dtype=np.float32), np.stack(smooth).astype(np.float32)


def decoded(rows, prototypes):
    return np.stack([decode_mask(runs, *SHAPE) for runs in mask_runs(rows, prototypes, WHOLE)])


def test_masks_are_the_official_formula():
    """Oracle: PyTorch's interpolation cut to the box, but within 1e-5 of the threshold; OpenCV's resize; the error."""
    rows, prototypes = random_rows(0)
    masks = decoded(rows, prototypes)
    logits = torch.einsum("km,mhw->khw", torch.from_numpy(rows[:, 6:]), torch.from_numpy(prototypes))
    large = interpolate(logits.sigmoid()[None], SHAPE, mode="bilinear")[0].numpy()
    x1, y1, x2, y2 = (rows[:, k, None, None] for k in range(4))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside, clear = (x >= x1) & (x < x2) & (y >= y1) & (y < y2), np.abs(large - 0.5) > 1e-5
    assert masks.dtype == np.uint8 and 0.05 < masks.mean() < 0.5 and clear.mean() > 0.999
    np.testing.assert_array_equal(masks[clear], (inside & (large > 0.5))[clear])
    rows, prototypes = random_rows(0)
    assert mask_runs(rows[:0], prototypes, WHOLE) == []
    for arguments in ((rows[:, :-1], prototypes, WHOLE), (rows, prototypes, WHOLE._replace(shape=(64, 100)))):
        with pytest.raises(ValueError, match=r"do not fit an image of .*: rows must be 6 \+ M"):
            mask_runs(*arguments)
    rows, prototypes = random_rows(2)
    whole = decoded(rows, prototypes)
    for about in ((75, 64, 1.0, (10.5, 0.0)), (40, 32, 2.0, (8.0, 0.0)), (192, 103, 0.5, (0.0, 6.25))):
        place = Place(1, *about, SHAPE)
        left, top = int(place.pad[0]), int(place.pad[1])
        bottom, right = int(64 - place.pad[1]), int(96 - place.pad[0])
        for runs, mask in zip(mask_runs(rows, prototypes, place), whole, strict=True):
            expected = cv2.resize(mask[top:bottom, left:right], (place.width, place.height))
            assert runs["size"] == [place.height, place.width]
            assert np.array_equal(decode_mask(runs, place.height, place.width), expected)

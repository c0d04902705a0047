"""The drawn data set: purity, tight boxes, annotations that COCO reads, and how it is painted, by hand."""

import hashlib
import itertools
import math
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from pycocotools.coco import COCO

from oscillab.data import paint
from oscillab.data.paint import LEVELS, NAMES, area, coverage, outline
from oscillab.data.scenes import LEAST_SIDE, Scenes, clutter


def digest(sample):
    return hashlib.sha256(b"".join(part.tobytes() for part in sample[:4])).hexdigest()


def test_a_sample_is_a_pure_function(root):
    """Invariant: another process and order draw the same bytes; another seed, split or index others; masks none."""
    code = (
        "from oscillab.data.scenes import Scenes; import hashlib; scenes = Scenes(5, seed=2)\n"
        "parts = [[part.tobytes() for part in scenes.sample(index)[:4]] for index in (9, 4, 0)]\n"
        "print(*(hashlib.sha256(b''.join(part)).hexdigest() for part in parts))"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    scenes = Scenes(500, seed=2)
    assert [digest(scenes.sample(index)) for index in (9, 4, 0)] == other.stdout.split()
    places = [(split, seed, i) for split in ("train", "val") for seed in (0, 1) for i in (0, 1)]
    assert len({digest(Scenes(split=split, seed=seed).sample(i)) for split, seed, i in places}) == 8
    given, without = Scenes().sample(3), Scenes(masks=False).sample(3)
    assert without.masks is None and digest(given[:3]) == digest(without[:3])


@pytest.mark.parametrize("size", [64, 160, 320])
def test_boxes_are_tight_and_masks_are_apart(size):
    """Oracle: the first and last row and column of each mask, found by numpy; a pixel belongs to one object at most."""
    scenes = Scenes(size=size)
    for index in range(40):
        image, boxes, labels, masks, _ = scenes.sample(index)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert 1 <= len(labels) == len(boxes) == len(masks) <= 8
        assert masks.sum(axis=0).max() == 1
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= LEAST_SIDE * size


def test_sizes_and_classes():
    """Invariant: size sets the sharpness alone, to 1.5 pixels. Oracle: multinomial distribution, five deviations."""
    small, large = Scenes(size=160, seed=1), Scenes(size=640, seed=1)
    agreeing = 0
    for index in range(12):
        first, second = small.sample(index), large.sample(index)
        if first.labels.tolist() == second.labels.tolist():  # a shape at the limit of being left out may differ
            agreeing += 1
            assert np.abs(first.boxes - second.boxes / 4).max() <= 1.5
    assert agreeing >= 10
    scenes = Scenes(split="train", masks=False)
    labels = np.concatenate([scenes.sample(index).labels for index in range(400)])
    counts = np.bincount(labels, minlength=len(scenes.names))
    mean = len(labels) / len(scenes.names)
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)


def test_the_ground_truth_reads_in_pycocotools(capsys):
    """Oracle: pycocotools decodes every annotation to the very mask and box of the sample."""
    scenes, coco = Scenes(6), COCO()
    coco.dataset = scenes.ground_truth()
    coco.createIndex()
    capsys.readouterr()
    assert coco.getImgIds() == list(range(6))
    for index in range(6):
        sample = scenes.sample(index)
        entries = coco.loadAnns(coco.getAnnIds(imgIds=index))
        for entry, mask, box in zip(entries, sample.masks, sample.boxes, strict=True):
            assert np.array_equal(coco.annToMask(entry), mask)
            assert entry["bbox"] == [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            assert entry["area"] == mask.sum()
        assert [scenes.category_ids.index(entry["category_id"]) for entry in entries] == sample.labels.tolist()


@pytest.mark.parametrize("call, message", [
    (lambda: Scenes(0), "count must be 1 or more, seed 0 or more, size 64..640 pixels, got 0, 0 and 160"),
    (lambda: Scenes(split="vall"), "split must be one of train, val, test, got 'vall'"),
    (lambda: Scenes(size=32, seed=-1), "got 500, -1 and 32"),
    (lambda: outline("blob", 0), "unknown shape 'blob'; shapes are disc"),
])  # fmt: skip
def test_bad_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_noise_blends_and_colours():
    """Oracle: mean 128, deviation 32; alpha 0 keeps, 128 is half. Invariant: colours CONTRAST apart, clutter small."""
    first = paint.bank(3, 64)
    paint.bank.cache_clear()
    again, other = paint.bank(3, 64), paint.bank(4, 64)
    assert np.array_equal(first.grain, again.grain) and not np.array_equal(again.grain, other.grain)
    assert all(np.array_equal(a, b) for a, b in zip(first.smooth, again.smooth, strict=True))
    grain = other.grain.astype(float)
    assert grain.mean() == pytest.approx(128, abs=5 * 32 / np.sqrt(grain.size))
    assert grain.std() == pytest.approx(32, rel=0.02)
    image = np.full((4, 5, 3), 40, np.uint8)
    paint.blend(image, np.full((1, 3, 3), 200, np.uint8), np.array([[0, 128, 255]], np.uint8), 1, 2)
    assert image[2, :, 0].tolist() == [40, 40, pytest.approx(120, abs=1), 200, 40]
    assert np.all(np.delete(image, 2, axis=0) == 40)
    corners = np.array([(1.5, 1), (3, 1), (3, 4), (1.5, 4)])
    alpha, x, y = coverage([corners], 10, 10)
    assert (x, y, alpha.shape) == (1, 1, (3, 2))
    assert np.all(alpha[:, 1] == 255)
    assert np.all(np.abs(alpha[:, 0].astype(int) - 128) <= 64)  # an edge through a point counts the point as inside
    assert coverage([corners - 20], 10, 10) is None
    weights = np.array([0.3, 0.5, 0.2])
    for level, seed in itertools.product((0, 90, 255), range(50)):
        ground = np.array([level, level * 0.8, level * 0.5])
        for colour in paint.contrasting(Random(seed), tuple(ground)):
            assert np.sqrt((weights * (np.array(colour) - ground) ** 2).sum()) >= paint.CONTRAST
    random = Random(0)
    for _ in range(200):
        covered = coverage(clutter(random, 160), 160, 160)
        assert covered is None or covered[0].sum() / 255 < 0.05 * 160 * 160


def test_outlines_and_areas():
    """Oracle: areas by hand, a circle as 40 corners. Invariant: centred, farthest corner on the unit circle."""
    assert area("square", 0) == pytest.approx(2, abs=1e-6)
    assert area("disc", 0) == pytest.approx(math.pi, rel=0.01)
    assert area("ring", 0) == pytest.approx(math.pi * (1 - 0.62**2), rel=0.02)
    assert area("six-pointed star", 0) == pytest.approx(6 * 0.45 * math.sin(math.pi / 6), rel=1e-5)
    half = 0.26  # a plus: its square of side 2, less four corners, over the squared radius of its farthest corner
    assert area("plus", 0) == pytest.approx((4 - 4 * (1 - half) ** 2) / (1 + half**2), rel=1e-5)
    for name, level in itertools.product(NAMES, (0, LEVELS - 1)):
        outside = outline(name, level)[0]
        assert np.allclose(outside.min(axis=0), -outside.max(axis=0), atol=1e-6), name
        assert np.linalg.norm(outside, axis=1).max() == pytest.approx(1, abs=1e-6), name
    for level in range(LEVELS):  # a gap and a notch take area away, less than a fifth
        for detailed, plain in (("open ring", "ring"), ("notched square", "square")):
            assert 0.8 < area(detailed, level) / area(plain, level) < 0.97
        assert len(outline("ring", level)) == 2 and len(outline("open ring", level)) == 1

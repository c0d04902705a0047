"""The drawn data set, held to its promises: purity, boxes tight around what is seen, annotations that COCO reads."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from oscillab.data.scenes import LEAST_SIDE, Scenes


def digest(sample):
    """One number for all that is in a sample."""
    return hashlib.sha256(b"".join(part.tobytes() for part in sample[:4])).hexdigest()


def test_a_sample_is_a_pure_function_of_its_index(root):
    """Invariant: another process, in another order, with other pictures drawn between, draws the same bytes."""
    code = (
        "from oscillab.data.scenes import Scenes; import hashlib; scenes = Scenes(5, seed=2)\n"
        "parts = [[part.tobytes() for part in scenes.sample(index)[:4]] for index in (9, 4, 0)]\n"
        "print(*(hashlib.sha256(b''.join(part)).hexdigest() for part in parts))"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    scenes = Scenes(500, seed=2)
    assert [digest(scenes.sample(index)) for index in (9, 4, 0)] == other.stdout.split()


def test_seed_split_and_index_each_change_the_picture_and_masks_do_not():
    """Invariant: eight different samples; the same picture and boxes without masks."""
    places = [(split, seed, i) for split in ("train", "val") for seed in (0, 1) for i in (0, 1)]
    assert len({digest(Scenes(split=split, seed=seed).sample(i)) for split, seed, i in places}) == 8
    given, without = Scenes().sample(3), Scenes(masks=False).sample(3)
    assert without.masks is None and digest(given._replace(masks=given.boxes)) == digest(
        without._replace(masks=without.boxes)
    )


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


def test_the_same_scene_at_every_size():
    """Invariant: size sets the sharpness, not the content; boxes agree to a pixel and a half of the smaller picture."""
    small, large = Scenes(size=160, seed=1), Scenes(size=640, seed=1)
    agreeing = 0
    for index in range(12):
        first, second = small.sample(index), large.sample(index)
        if first.labels.tolist() == second.labels.tolist():  # a shape at the limit of being left out may differ
            agreeing += 1
            assert np.abs(first.boxes - second.boxes / 4).max() <= 1.5
    assert agreeing >= 10


def test_classes_are_equally_frequent():
    """Oracle: the multinomial distribution; each of ten classes within five standard deviations of a tenth."""
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


@pytest.mark.parametrize("settings, message", [
    ({"count": 0}, "count must be 1 or more, seed 0 or more, size 64..640 pixels, got 0, 0 and 160"),
    ({"split": "vall"}, "split must be one of train, val, test, got 'vall'"),
    ({"size": 32, "seed": -1}, "got 500, -1 and 32"),
])  # fmt: skip
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Scenes(**settings)

"""Masks, held to the official formula written with PyTorch, to pycocotools' run lengths and polygons, to objects worked
out by hand, and to the official code's mask AP on real pictures."""

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as reference
from torch import nn
from torch.nn.functional import interpolate

from oscillab.data.dataset import CocoFolder
from oscillab.data.evaluate import evaluate
from oscillab.data.images import Place, Sample, decode_mask, encode_runs, tight_box
from oscillab.data.nms import mask_runs
from oscillab.yolo import checkpoint

SHAPE = (64, 96)
WHOLE = Place(1, 96, 64, 1.0, (0.0, 0.0), SHAPE)


def test_the_box_of_one_pixel():
    """Oracle: by hand; boxes are measured on pixel edges."""
    mask = np.zeros((6, 8), np.uint8)
    assert tight_box(mask) == (0, 0, 0, 0)
    mask[3, 5] = 1
    assert tight_box(mask) == (5, 3, 6, 4)


def test_run_lengths_by_hand():
    """Oracle: COCO's rule, columns first and zeros first, worked out by hand."""
    assert encode_runs(np.array([[1, 0, 0], [1, 1, 0]], np.uint8)) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1])
def test_run_lengths_agree_with_pycocotools(share):
    """Oracle: pycocotools reads what is written here, and what it writes is read here."""
    mask = (np.random.default_rng(0).random((9, 14)) < share).astype(np.uint8)
    runs = encode_runs(mask)
    assert np.array_equal(reference.decode(reference.frPyObjects(runs, 9, 14)), mask)
    for read in (runs, reference.encode(np.asfortranarray(mask))):
        assert np.array_equal(decode_mask(read, 9, 14), mask)


def test_polygons_by_hand():
    """Oracle: by hand: rectangles on pixel edges, one of them partly beyond the image; parts are joined."""
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 2:6], expected[4:, 6:] = 1, 1
    assert np.array_equal(decode_mask([[2, 1, 6, 1, 6, 3, 2, 3], [6, 4, 11, 4, 11, 9, 6, 9]], 6, 8), expected)


def random_rows(seed, count=40):
    """Rows (count, 38) with boxes inside, across and beyond an image of SHAPE, and prototypes (32, 16, 24)."""
    random = np.random.default_rng(seed)
    centre, half = random.uniform(0, SHAPE[::-1], (count, 2)), random.uniform(0.2, 30, (count, 2))
    rest = np.stack([random.uniform(0, 1, count), random.integers(0, 5, count)], 1)
    rows = [centre - half, centre + half, rest, random.normal(0, 1, (count, 32))]
    smooth = [cv2.resize(random.normal(0, 1, (4, 6)), (24, 16)) for _ in range(32)]
    return np.concatenate(rows, 1, dtype=np.float32), np.stack(smooth).astype(np.float32)


def decoded(rows, prototypes):
    """The masks (k, height, width) of rows in an image of SHAPE."""
    return np.stack([decode_mask(runs, *SHAPE) for runs in mask_runs(rows, prototypes, WHOLE)])


def by_formula(rows, prototypes, shape):
    """(probabilities at the image's size, inside the box?) of each row, both (k, height, width)."""
    logits = torch.einsum("km,mhw->khw", torch.from_numpy(rows[:, 6:]), torch.from_numpy(prototypes))
    large = interpolate(logits.sigmoid()[None], shape, mode="bilinear")[0].numpy()
    x1, y1, x2, y2 = (rows[:, k, None, None] for k in range(4))
    y, x = np.mgrid[: shape[0], : shape[1]]
    return large, (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def test_masks_are_the_official_formula():
    """Oracle: PyTorch's interpolation of the whole image, cut to the box by comparing every pixel's index.

    Points nearer than 1e-5 to the threshold are left out: the two interpolations add in another order.
    """
    rows, prototypes = random_rows(0)
    masks = decoded(rows, prototypes)
    large, inside = by_formula(rows, prototypes, SHAPE)
    clear = np.abs(large - 0.5) > 1e-5
    assert masks.dtype == np.uint8 and 0.05 < masks.mean() < 0.5 and clear.mean() > 0.999
    np.testing.assert_array_equal(masks[clear], (inside & (large > 0.5))[clear])


def test_masks_come_back_in_the_pictures_own_pixels():
    """Oracle: the whole masks, grey border cut off, resized by OpenCV: as it was (ratio 1), halved, and doubled."""
    rows, prototypes = random_rows(2)
    whole = decoded(rows, prototypes)
    for place in (
        Place(1, 75, 64, 1.0, (10.5, 0.0), SHAPE),
        Place(1, 40, 32, 2.0, (8.0, 0.0), SHAPE),
        Place(1, 192, 103, 0.5, (0.0, 6.25), SHAPE),
    ):
        left, top = int(place.pad[0]), int(place.pad[1])
        bottom, right = int(64 - place.pad[1]), int(96 - place.pad[0])
        for runs, mask in zip(mask_runs(rows, prototypes, place), whole, strict=True):
            expected = cv2.resize(mask[top:bottom, left:right], (place.width, place.height))
            assert runs["size"] == [place.height, place.width]
            assert np.array_equal(decode_mask(runs, place.height, place.width), expected)


def test_no_row_gives_no_mask():
    """Closed form."""
    rows, prototypes = random_rows(0)
    assert mask_runs(rows[:0], prototypes, WHOLE) == []


def test_what_does_not_fit_together_is_refused():
    """The error says what was given and what must hold."""
    rows, prototypes = random_rows(0)
    for arguments in ((rows[:, :-1], prototypes, WHOLE), (rows, prototypes, WHOLE._replace(shape=(64, 100)))):
        with pytest.raises(ValueError, match=r"do not fit an image of .*: rows must be 6 \+ M"):
            mask_runs(*arguments)


class Squares:
    """Two grey pictures of 64 x 64 with an object each: rows 8..24, columns 16..48; all but a corner of a square."""

    name, names, category_ids, fresh = "squares", ["plate", "angle"], [5, 2], False

    def __init__(self, masks=True):
        self.masks = np.zeros((2, 64, 64), np.uint8)
        self.masks[0, 8:24, 16:48] = 1
        self.masks[1, 0:32, 0:32] = 1
        self.masks[1, 16:32, 16:32] = 0
        self.boxes = np.float32([[16, 8, 48, 24], [0, 0, 32, 32]])
        self.with_masks = masks

    def __len__(self):
        return 2

    def sample(self, index):
        image = np.full((64, 64, 3), 90, np.uint8)
        return Sample(image, self.boxes[index, None], np.array([index]), self.masks[index, None], index)

    def ground_truth(self):
        rows = []
        for index, (x1, y1, x2, y2) in enumerate(self.boxes.tolist()):
            row = {"id": index, "image_id": index, "category_id": self.category_ids[index], "iscrowd": 0}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(self.masks[index].sum())}
            rows.append(row | ({"segmentation": encode_runs(self.masks[index])} if self.with_masks else {}))
        images = [{"id": index, "width": 64, "height": 64} for index in range(2)]
        categories = [{"id": number, "name": name} for number, name in zip([5, 2], self.names, strict=True)]
        return {"images": images, "annotations": rows, "categories": categories}


class Paints(nn.Module):
    """A network that reports each picture's box and fills the mask given for it, at a quarter of the size."""

    classes, strides = 2, (8, 16, 32)

    def __init__(self, dataset, masks):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)
        self.dataset, self.masks, self.seen = dataset, masks, 0

    def forward(self, images):
        decoded = torch.zeros(len(images), 1, 5 + 2 + 32)
        prototypes = torch.full((len(images), 32, *(side // 4 for side in images.shape[2:])), -20.0)
        border = (images.shape[2] - 64) // 2  # a rectangle leaves some grey on every side
        for number in range(len(images)):
            index = self.seen + number
            x1, y1, x2, y2 = (self.dataset.boxes[index] + border).tolist()
            decoded[number, 0, :4] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
            decoded[number, 0, 4], decoded[number, 0, 5 + index], decoded[number, 0, 7] = 1, 1, 1
            middle = slice(border // 4, border // 4 + 16)
            prototypes[number, 0, middle, middle] += 40.0 * torch.from_numpy(self.masks[index, ::4, ::4])
        self.seen += len(images)
        return decoded, prototypes


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("rectangular", [False, True])
def test_mask_precision_by_hand(batch_size, rectangular):
    """Worked by hand: both boxes are exact. Of the plate an eighth is left out: IoU 7/8 is a hit at 0.50, 0.55 …
    0.85, eight of the ten thresholds. The angle's mask is right but for the rounding of its inner corner."""
    dataset = Squares()
    painted = dataset.masks.copy()
    painted[0, :, 44:48] = 0
    found = evaluate(Paints(dataset, painted), dataset, size=64, batch_size=batch_size, rectangular=rectangular)
    assert found.per_class == pytest.approx({"plate": 1.0, "angle": 1.0})
    assert found.mask_per_class == pytest.approx({"plate": 0.8, "angle": 1.0})
    assert (found.mask_map, found.mask_map50, found.mask_map75) == pytest.approx((0.9, 1.0, 1.0))


def test_without_masks_in_the_ground_truth_there_is_no_mask_precision():
    """Oracle: the boxes' figures are there all the same."""
    dataset = Squares(masks=False)
    found = evaluate(Paints(dataset, dataset.masks), dataset, size=64)
    assert found.map == pytest.approx(1)
    assert (found.mask_map, found.mask_map50, found.mask_map75, found.mask_per_class) == (None,) * 4


@pytest.mark.slow
def test_official_numbers_on_real_pictures(shared):
    """Oracle: the official code's AP of boxes and masks, same 188 pictures, rectangular batches of 8, 416 pixels.

    The file's weights were rounded to half precision after they were folded, which the official run may have been
    spared: hence 0.002, the limit that the study sets itself; found are 0.0005 and 0.0001.
    """
    model = checkpoint.load(shared / "coco" / "yolov5n-seg-fused.pt")
    data = CocoFolder(shared / "coco", "val2017", masks=True)
    found = evaluate(model, data, size=416, batch_size=8, iou=0.6, rectangular=True)
    assert (found.map, found.map50, found.map75) == pytest.approx((0.26021, 0.40413, 0.26971), abs=0.002)
    masks = found.mask_map, found.mask_map50, found.mask_map75
    assert masks == pytest.approx((0.21298, 0.37362, 0.21287), abs=0.002)

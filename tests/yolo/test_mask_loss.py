"""Oracles: the definition written as plain loops; finite differences; invariants; by hand."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import interpolate

from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss
from oscillab.yolo.mask_loss import TILE, SegmentationLoss, mask_part, shrunk, tiles, true_masks, without_overlap


@pytest.fixture(scope="module")
def model():
    """A YOLOv5n-seg for 80 classes."""
    return zoo.build("yolov5n-seg")


@pytest.fixture
def example(rule):
    """Outputs that take a gradient, targets and masks of the recorded example: two images of 128 pixels."""
    raw = [torch.from_numpy(x).requires_grad_() for x in rule.predictions(3, 2, 117)]
    prototypes = torch.from_numpy(rule.prototypes(53, 2)).requires_grad_()
    return (
        (raw, prototypes),
        torch.from_numpy(rule.targets(103, 2, 11)),
        torch.from_numpy(rule.overlap_masks(203, 2, 6)),
    )


def separate(numbers, targets):
    """The list form of masks of instance numbers: for each image the masks (objects, H, W) of its targets."""
    counts = [int((targets[:, 0] == index).sum()) for index in range(len(numbers))]
    return [
        torch.stack([plane == number + 1 for number in range(count)]).byte()
        for plane, count in zip(numbers, counts, strict=True)
    ]


def test_the_form_of_masks_and_the_order_of_targets_do_not_matter(example, model):
    """Oracle: the loss with instance numbers; lists of masks, at the image's size too, and rows of images mixed."""
    outputs, targets, numbers = example
    expected, _ = SegmentationLoss(model)(outputs, targets, 128, masks=numbers)
    large = numbers.repeat_interleave(4, 1).repeat_interleave(4, 2)
    mixed = torch.cat((targets[targets[:, 0] == 1], targets[targets[:, 0] == 0]))
    for order in (targets, mixed):
        for masks in (numbers, separate(numbers, targets), large, separate(large, targets)):
            found, _ = SegmentationLoss(model)(outputs, order, 128, masks=masks)
            assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_masks_part_is_its_definition(example, model):
    """Oracle: loops over levels, images and matches, and over every pixel's index against the box."""
    (raw, prototypes), targets, numbers = example
    loss = SegmentationLoss(model)
    matches = loss.assign(raw, targets)
    expected = 0.0
    for x, level in zip(raw, matches, strict=True):
        for index in range(2):
            errors = []
            for place in (level.image == index).nonzero()[:, 0]:
                target = int(level.target[place])
                at = (index, level.anchor[place], level.row[place], level.column[place])
                logits = (x[at][85:, None, None] * prototypes[index]).sum(0)
                number = int((targets[:target, 0] == index).sum()) + 1
                wrong = bce(logits, (numbers[index] == number).float(), reduction="none")
                cx, cy, w, h = (targets[target, 2:6] * 32).tolist()
                rows, columns = torch.arange(32)[:, None], torch.arange(32)[None]
                inside = (columns >= cx - w / 2) & (columns < cx + w / 2) & (rows >= cy - h / 2) & (rows < cy + h / 2)
                errors.append((wrong * inside).mean() / (w * h / 32**2))
            expected += sum(errors) / len(errors) if errors else 0.0
    wanted = true_masks(numbers, targets, prototypes)
    coefficients = [x[..., 85:] for x in raw]
    found = mask_part(coefficients, prototypes, matches, targets[:, 2:6], wanted)
    assert found.item() == pytest.approx(expected.item() / 2, rel=1e-5)


def test_gradients_of_the_masks_part_agree_with_finite_differences():
    """Oracle: finite differences in float64 along random directions, with boxes of several tiles and one over the edge."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0, 0, 0.5, 0.5, 0.9, 0.8], [0, 1, 0.05, 0.2, 0.3, 0.3], [1, 0, 0.6, 0.4, 0.2, 0.5]])
    targets, model = boxes.double(), zoo.build("yolov5n-seg", 2)
    raw = [torch.randn(2, 3, 64 // s, 64 // s, 39, dtype=torch.float64, generator=generator) for s in (8, 16, 32)]
    prototypes = torch.randn(2, 32, 16, 16, dtype=torch.float64, generator=generator)
    wanted = torch.rand(3, 16, 16, generator=generator) > 0.5
    matches = SegmentationLoss(model).assign(raw, targets)
    assert len({int(t) for level in matches for t in level.target}) == 3

    def part(coefficients, prototypes):
        return mask_part(coefficients, prototypes, matches, targets[:, 2:6], wanted)

    leaves = [x[..., 7:].clone().requires_grad_() for x in raw] + [prototypes.clone().requires_grad_()]
    part(leaves[:-1], leaves[-1]).backward()
    for leaf in leaves:
        direction = torch.randn(leaf.shape, dtype=torch.float64, generator=generator)
        moved = [[x.detach() + (step * direction if x is leaf else 0) for x in leaves] for step in (1e-5, -1e-5)]
        values = [part(x[:-1], x[-1]).item() for x in moved]
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(
            (leaf.grad * direction).sum().item(), rel=1e-6, abs=1e-10
        )


def test_boxes_objectness_and_classes_are_those_of_the_detector(example, model):
    """Oracle: the detector's loss of the same outputs without coefficients."""
    (raw, prototypes), targets, numbers = example
    _, items = SegmentationLoss(model)((raw, prototypes), targets, 128, masks=numbers)
    _, plain = DetectionLoss(model)(raw, targets, 128)
    assert {name: items[name] for name in plain} == plain
    assert set(items) - set(plain) == {"mask"}


def test_pixels_inside_are_those_whose_index_is():
    """Oracle: every index compared with the box; boxes over the edge, thinner than a pixel, empty, of several tiles."""
    boxes = torch.tensor(
        [
            [0.51, 0.53, 0.3, 0.6],
            [0.0, 1.0, 0.5, 0.5],
            [0.52, 0.5, 0.01, 1.0],
            [0.5, 0.5, 0.0, 0.0],
            [0.5, 0.5, 1.0, 1.0],
        ]
    )
    owner, pixel, inside = tiles(boxes, 10, 20)
    for number, (cx, cy, w, h) in enumerate(boxes.tolist()):
        columns = [c for c in range(20) if (cx - w / 2) * 20 <= c < (cx + w / 2) * 20]
        rows = [r for r in range(10) if (cy - h / 2) * 10 <= r < (cy + h / 2) * 10]
        assert pixel[owner == number][inside[owner == number]].tolist() == [r * 20 + c for r in rows for c in columns]
    assert torch.bincount(owner, minlength=5).tolist() == [1, 1, 0, 0, -(-200 // TILE)]
    assert pixel.min() >= 0 and pixel.max() < 200 and pixel.shape == inside.shape == (len(owner), TILE)


def test_masks_shrink_as_linear_interpolation_rounds():
    """Oracle: PyTorch's bilinear interpolation, halves rounded up."""
    masks = (torch.rand(5, 32, 48, generator=torch.Generator().manual_seed(0)) > 0.5).byte()
    expected = interpolate(masks[None].float(), (8, 12), mode="bilinear")[0] >= 0.5
    assert torch.equal(shrunk(masks, 4), expected)
    assert torch.equal(shrunk(masks, 1), masks.bool())


def test_the_smaller_of_two_objects_lies_on_top():
    """Oracle: by hand: a small square in a large one of the same image takes its pixels, of another image none."""
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0], masks[1, 1:3, 1:3], masks[2, :2] = True, True, True
    found = without_overlap(masks, torch.tensor([0, 0, 1]))
    assert [int(mask.sum()) for mask in found] == [12, 4, 8]
    assert not (found[0] & found[1]).any()
    assert torch.equal(without_overlap(masks, torch.tensor([0, 1, 2])), masks)


def test_masks_that_are_missing_or_do_not_fit_are_refused(example, model):
    """Oracle: the one-line message says what is allowed and what was given."""
    outputs, targets, numbers = example
    listed = separate(numbers, targets)
    counts = [len(planes) for planes in listed]
    for masks, message in (
        (None, "needs masks to train: open the data with masks=True and pass masks"),
        (numbers[:1], r"masks must be \(images: 2, H, W\), got \(1, 32, 32\)"),
        (numbers[:, :31], r"as large as the image, 4 x \(32, 32\), got \(31, 32\)"),
        ([listed[0][:-1], listed[1]], rf"masks must be one a target, \[{counts[0]}, {counts[1]}\] by image, got"),
        ([planes[..., :16] for planes in listed], r"as large as the image, 4 x \(32, 32\), got \(32, 16\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentationLoss(model)(outputs, targets, 128, masks=masks)

"""Oracles: the assignment as plain loops; PyTorch's own entropy; by hand."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import one_hot

from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss
from oscillab.yolo.ota_loss import OtaLoss, Ragged, class_cost, transport


@pytest.fixture(scope="module")
def model():
    """A YOLOv7-tiny for 80 classes."""
    return zoo.build("yolov7-tiny")


def outputs_and_targets(rule, seed, count=9):
    """Raw outputs that take a gradient, for a batch of two images of 128 pixels, and `count` targets."""
    outputs = [torch.from_numpy(x).requires_grad_() for x in rule.predictions(seed, 2, 85, scale=0.7)]
    return outputs, torch.from_numpy(rule.targets(100 + seed, 2, count))


def by_loops(iou, classes):
    """{candidate: object} of one image, from IoU and class cost (objects, candidates): the rule, one step at a time."""
    cost = classes - 3 * (iou + 1e-8).log()
    wanted = {}
    for number, line in enumerate(iou):
        count = max(int(line.sort(descending=True).values[:10].sum()), 1)
        for candidate in cost[number].sort(stable=True).indices[:count].tolist():
            wanted.setdefault(candidate, []).append(number)
    return {c: n[0] if len(n) == 1 else int(cost[:, c].argmin()) for c, n in wanted.items()}


def test_transport_of_a_batch_is_that_of_its_images_one_by_one():
    """Oracle: the rule in plain loops, on images with different numbers of objects and candidates, one without any."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(3, 40), (7, 12), (1, 2), (0, 0), (5, 25)]
    shape = (len(sizes), 7, 40)
    iou, classes = torch.rand(shape, generator=generator) * 0.6, torch.rand(shape, generator=generator) * 5
    is_object = torch.stack([torch.arange(7) < objects for objects, _ in sizes])
    is_candidate = torch.stack([torch.arange(40) < candidates for _, candidates in sizes])
    chosen, row = transport(iou, classes, is_object, is_candidate)
    shared_count = 0
    for image, (objects, candidates) in enumerate(sizes):
        expected = by_loops(iou[image, :objects, :candidates], classes[image, :objects, :candidates])
        found = {c: int(row[image, c]) for c in chosen[image].nonzero()[:, 0].tolist()}
        assert found == expected
        shared_count += len(expected)
    assert shared_count > 20


def test_equal_candidates_are_taken_in_one_order():
    """Oracle: by hand: two objects that want one of two equal candidates mean the same one, and the cheaper gets it."""
    iou = torch.tensor([[[0.5, 0.5], [0.6, 0.6]]])
    chosen, row = transport(iou, torch.zeros(1, 2, 2), torch.ones(1, 2).bool(), torch.ones(1, 2).bool())
    assert (chosen.tolist(), row[0, 0].item()) == ([[True, False]], 1)


def test_the_cost_of_the_classes_is_the_cross_entropy():
    """Oracle: PyTorch's own, for each object against each candidate, summed over the classes."""
    logits = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 7, 0], [3, 3, 2]])
    wanted = one_hot(labels, 8).float()[:, :, None].expand(-1, -1, 5, -1)  # (N, objects, candidates, C)
    expected = bce(logits[:, None].expand_as(wanted), wanted, reduction="none").sum(-1)
    torch.testing.assert_close(class_cost(logits, labels), expected)


def test_the_matches_are_a_choice_among_those_by_anchor(rule, model):
    """Oracle: invariant: every choice is a candidate, and its image is that of its object."""
    outputs, targets = outputs_and_targets(rule, 4, 40)
    loss = OtaLoss(model)
    for raw, level, every in zip(
        outputs, loss.assign(outputs, targets), DetectionLoss.assign(loss, outputs, targets), strict=True
    ):
        cells = [set(zip(*(x.tolist() for x in each[:4]), strict=True)) for each in (level, every)]
        assert cells[0] <= cells[1] and len(cells[0]) < len(cells[1])
        assert torch.equal(targets[level.target, 0].long(), level.image)
        assert torch.equal(targets[level.target, 1].long(), level.label)
        centre = (level.box[:, :2] + torch.stack((level.column, level.row), 1)) / raw.shape[2]
        torch.testing.assert_close(centre, targets[level.target, 2:4])


def test_a_certain_network_has_finite_costs(rule, model):
    """Oracle: outputs of plus and minus infinity in all but name still match."""
    outputs, targets = outputs_and_targets(rule, 5)
    for factor in (1e3, -1e3):
        certain = [factor * raw.detach().abs() for raw in outputs]
        matches = OtaLoss(model).assign(certain, targets)
        assert sum(len(level.target) for level in matches) > 0


@pytest.mark.parametrize("image", [[2, 0, 2, 2, 3, 0], [0, 0, 1], [1], []])
def test_every_row_has_a_place_of_its_own(image):
    """Oracle: the rows collected in one list an image."""
    lists = [[row for row, own in enumerate(image) if own == number] for number in range(4)]
    places = Ragged(torch.tensor(image, dtype=torch.long), 4)
    assert places.counts.tolist() == [len(rows) for rows in lists]
    assert places.longest == max(map(len, lists))
    assert places.position.tolist() == [lists[own].index(row) for row, own in enumerate(image)]
    found = places.padded(torch.arange(len(image)), fill=-1)
    assert found.tolist() == [rows + [-1] * (places.longest - len(rows)) for rows in lists]
    assert places.filled.tolist() == [[entry >= 0 for entry in rows] for rows in found.tolist()]
    assert places.flat(found).tolist() == list(range(len(image)))


def test_rows_of_numbers_keep_their_gradient():
    """Oracle: the sum over the padded places has the gradient 1 for every number."""
    rows = torch.randn(3, 2, requires_grad=True)
    padded = Ragged(torch.tensor([1, 1, 0]), 2).padded(rows)
    assert padded.shape == (2, 2, 2)
    padded.sum().backward()
    assert torch.equal(rows.grad, torch.ones(3, 2))

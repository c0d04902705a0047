"""Oracles: boxes worked out by hand, round trips, and finite differences."""

import math

import pytest
import torch

from oscillab.yolo.boxes import ciou, cxcywh_from_xyxy, pairwise_iou, xyxy_from_cxcywh


def random_boxes(count, seed):
    """`cxcywh` boxes in float64, with sides of at least 0.1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4, generator=generator, dtype=torch.float64) + 0.1


def test_the_two_ways_of_writing_a_box_are_inverse():
    """Oracle: the round trip, and one box by hand."""
    boxes = random_boxes(50, 0)
    torch.testing.assert_close(cxcywh_from_xyxy(xyxy_from_cxcywh(boxes)), boxes)
    assert xyxy_from_cxcywh(torch.tensor([[2.0, 3.0, 2.0, 4.0]])).tolist() == [[1, 1, 3, 5]]


def test_pairwise_iou_by_hand():
    """Oracle: two 2x2 squares shifted by one share 2 of 6; a box equals itself; boxes apart share nothing."""
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0], [4.0, 4.0, 4.0, 4.0]])
    expected = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert pairwise_iou(boxes, boxes).flatten().tolist() == pytest.approx([x for row in expected for x in row])
    assert pairwise_iou(boxes[:0], boxes).shape == (0, 4)


def test_ciou_by_hand():
    """Oracle: unit squares one apart (no overlap, distance 1 over diagonal 5), and a wide box in a tall one."""
    apart = ciou(torch.tensor([[0.5, 0.5, 1.0, 1.0]]), torch.tensor([[1.5, 0.5, 1.0, 1.0]]))
    assert apart.tolist() == pytest.approx([-1 / 5])
    crossed = ciou(torch.tensor([[0.0, 0.0, 4.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 4.0]]))
    aspect = 4 / math.pi**2 * (math.atan(1 / 4) - math.atan(4)) ** 2
    iou = 1 / 7
    assert crossed.tolist() == pytest.approx([iou - aspect * aspect / (aspect - iou + 1)])


def test_ciou_of_equal_boxes_is_one_and_it_is_symmetric():
    """Oracle: the definition."""
    first, second = random_boxes(50, 1), random_boxes(50, 2)
    torch.testing.assert_close(ciou(first, first), torch.ones(50, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(ciou(first, second), ciou(second, first))


def test_ciou_gradient_holds_the_aspect_weight_fixed():
    """Oracle: finite differences where the aspect ratios agree, so that the weight is zero anyway."""
    first = random_boxes(20, 3)
    second = first.clone()
    second[:, :2] += 0.05
    assert torch.autograd.gradcheck(lambda b: ciou(b, second), (first.requires_grad_(),), atol=1e-6)

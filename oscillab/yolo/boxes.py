"""Convert boxes between their two notations, and measure how alike two boxes are.

Boxes are float tensors whose last axis is either (x1, y1, x2, y2), called `xyxy`, or (centre x, centre y, width,
height), called `cxcywh`, in any one unit.
"""

import math

import torch
from torch import Tensor


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Return the corners (…, 4) of boxes given by centre and size.

    >>> xyxy_from_cxcywh(torch.tensor([10.0, 20.0, 4.0, 6.0]))
    tensor([ 8., 17., 12., 23.])
    """
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), -1)


def cxcywh_from_xyxy(boxes: Tensor) -> Tensor:
    """Return the centre and size (…, 4) of boxes given by corners.

    >>> cxcywh_from_xyxy(torch.tensor([8.0, 17.0, 12.0, 23.0]))
    tensor([10., 20.,  4.,  6.])
    """
    low, high = boxes[..., :2], boxes[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), -1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU (…, n, m) of every `xyxy` box in `first` (…, n, 4) with all of `second` (…, m, 4).

    >>> pairwise_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]]))
    tensor([[0.3333, 0.0000]])
    """
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:4], second[..., None, :, 2:4])
    shared = (high - low).clamp(min=0).prod(-1)  # (…, n, m)
    union = area(first)[..., :, None] + area(second)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def area(boxes: Tensor) -> Tensor:
    """Return the area (…) of `xyxy` boxes."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def ciou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
    """Return the complete IoU (n,), -1.5..1, of `cxcywh` boxes `first` (n, 4) with their partners `second` (n, 4).

    IoU less the squared distance of the centres over the squared diagonal of the enclosing box, less a term for unlike
    aspect ratios whose weight passes no gradient (Zheng et al., 1911.08287, in YOLOv5's form).
    """
    a, b = xyxy_from_cxcywh(first), xyxy_from_cxcywh(second)
    (w1, h1), (w2, h2) = first[..., 2:4].unbind(-1), second[..., 2:4].unbind(-1)
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = shared / (w1 * h1 + w2 * h2 - shared + eps)
    enclosing = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    distance = (first[..., :2] - second[..., :2]).square().sum(-1) / (enclosing.square().sum(-1) + eps)
    aspect = (4 / math.pi**2) * (torch.atan(w2 / h2) - torch.atan(w1 / h1)).square()
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + eps))
    return iou - (distance + aspect * weight)

"""Assign predictions to objects by what the network itself predicts, and compute YOLOv7's loss.

Optimal transport assignment in YOLOv7's simplified form: what YOLOv5's rule matches is a candidate only. An object
takes as many candidates of its image as its best IoUs add up to, the cheapest first; a candidate that several objects
want goes to the one that it is cheapest for. All images of a batch are worked out side by side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .boxes import pairwise_iou, xyxy_from_cxcywh
from .loss import Assignment, DetectionLoss, predicted_boxes

BEST = 10  # candidates whose IoUs add up to the number that an object takes
IOU_WEIGHT = 3.0  # of the box's cost against the classes'


class Ragged:
    """The places of m rows, `image` (m,) of whole numbers below `count`, in a tensor (count, most rows of an image)."""

    def __init__(self, image: Tensor, count: int):
        self.image = image
        self.counts = torch.bincount(image, minlength=count)  # (count,) rows of each image
        self.starts = self.counts.cumsum(0) - self.counts  # (count,) rows of the images before
        order = image.argsort(stable=True)
        rows = torch.arange(len(image), device=image.device)
        self.position = torch.empty_like(image)  # (m,) rows of the same image before this one
        self.position[order] = rows - self.starts[image[order]]
        self.longest = int(self.counts.max())
        self.filled = torch.arange(self.longest, device=image.device) < self.counts[:, None]  # (count, longest) bool

    def padded(self, rows: Tensor, fill: float = 0) -> Tensor:
        """Return the rows (m, …) in their places, (count, longest, …), and `fill` in the places that are left.

        >>> Ragged(torch.tensor([1, 0, 1]), 3).padded(torch.tensor([5, 6, 7]), fill=-1)
        tensor([[ 6, -1],
                [ 5,  7],
                [-1, -1]])
        """
        spread = rows.new_full((len(self.counts), self.longest, *rows.shape[1:]), fill)
        return spread.index_put((self.image, self.position), rows)

    def flat(self, padded: Tensor) -> Tensor:
        """Return the rows (m, …) that stand in their places in `padded` (count, longest, …)."""
        return padded[self.image, self.position]


class OtaLoss(DetectionLoss):
    """YOLOv7's loss for the raw outputs of `model`: `DetectionLoss` on matches that the outputs themselves choose."""

    match_counts = None  # type: ignore[assignment]  # not known before the outputs are

    @torch.no_grad()
    def assign(self, outputs: Sequence[Tensor], targets: Tensor) -> list[Assignment]:
        """Return the `Assignment` of each level that optimal transport leaves of those by anchor and cell."""
        candidates = super().assign(outputs, targets)
        image = torch.cat([level.image for level in candidates])  # (candidates of all levels,)
        if not len(image):
            return candidates
        boxes, logits = zip(*map(self._read, outputs, candidates, self.anchors, self.strides), strict=True)
        columns = Ragged(image, len(outputs[0]))
        rows = Ragged(targets[:, 0].long(), len(outputs[0]))
        height, width = (side * self.strides[0] for side in outputs[0].shape[2:4])
        wanted = xyxy_from_cxcywh(targets[:, 2:6] * targets.new_tensor([width, height] * 2))
        iou = pairwise_iou(rows.padded(wanted), columns.padded(torch.cat(boxes)))  # (N, objects, candidates)
        classes = class_cost(columns.padded(torch.cat(logits)), rows.padded(targets[:, 1].long()))
        chosen, row = transport(iou, classes, rows.filled, columns.filled)
        number = rows.padded(torch.arange(len(targets), device=targets.device))
        target = torch.where(columns.flat(chosen), number[image, columns.flat(row)], -1)  # (candidates of all levels,)
        parts = target.split([len(level.image) for level in candidates])
        kept = []
        for raw, level, row in zip(outputs, candidates, parts, strict=True):
            stays = row >= 0
            cell, size = torch.stack((level.column, level.row), 1)[stays], targets.new_tensor(raw.shape[3:1:-1])
            kept.append(Assignment.of(level.anchor[stays], cell, targets, row[stays], size))
        return kept

    def _read(self, raw: Tensor, matches: Assignment, anchors: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """Return boxes (m, `xyxy` in pixels) and logits (m, C) of the root of objectness times class probability."""
        at = raw[matches[:4]]  # (m, 5 + C)
        boxes = predicted_boxes(at, anchors.to(raw)[matches.anchor])
        boxes[:, :2] += torch.stack((matches.column, matches.row), 1)
        small = torch.finfo(raw.dtype).tiny, 1 - torch.finfo(raw.dtype).eps  # a certain prediction has no logit
        probability = (at[:, 5 : 5 + self.classes].sigmoid() * at[:, 4:5].sigmoid()).sqrt().clamp(*small)
        return xyxy_from_cxcywh(boxes * stride), torch.log(probability / (1 - probability))


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy, summed over classes, (N, objects, candidates), of logits (N, candidates, C) for labels."""
    own = logits.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, logits.shape[1]))
    return softplus(logits).sum(-1)[:, None] - own


def transport(iou: Tensor, classes: Tensor, is_object: Tensor, is_candidate: Tensor) -> tuple[Tensor, Tensor]:
    """Return which candidates are chosen, bool (N, candidates), and the object that each goes to, (N, candidates).

    `iou` and `classes` (the classes' cost) are (N, objects, candidates), `is_object`, `is_candidate` the filled places.
    """
    iou = iou * is_candidate[:, None]
    cost = classes - IOU_WEIGHT * torch.log(iou + 1e-8)
    cost = cost.masked_fill(~(is_object[..., None] & is_candidate[:, None]), torch.inf)
    most = min(BEST, iou.shape[2])
    count = iou.topk(most, dim=2).values.sum(2).int().clamp(min=1)  # (N, objects)
    # Several objects may make one prediction a candidate several times: ties go by place, or two objects that want it
    # once each would count as two predictions.
    tie_break = 1e-10 * torch.arange(cost.shape[-1], dtype=torch.float64, device=cost.device)
    cheapest = (cost.double() + tie_break).topk(most, dim=2, largest=False).indices
    taken = torch.arange(most, device=iou.device) < count[..., None]
    claimed = torch.zeros_like(cost, dtype=torch.bool).scatter_(2, cheapest, taken)
    claimed &= is_object[..., None] & is_candidate[:, None]
    claims = claimed.sum(1)  # (N, candidates)
    row = torch.where(claims > 1, cost.argmin(1), claimed.int().argmax(1))
    return claims > 0, row

"""Which predictions answer for which object, where the network's own outputs decide (YOLOv7)?

Optimal transport assignment in YOLOv7's simplified form: what YOLOv5's rule matches is a candidate only. An object
takes as many candidates of its image as its best IoUs add up to, the cheapest first; a candidate that several objects
want goes to the one that it is cheapest for. All images of a batch are worked out side by side.
"""

import torch
from torch.nn.functional import softplus

from .boxes import pairwise_iou, xyxy_from_cxcywh
from .loss import DetectionLoss, answer, predicted_boxes
from .ragged import Ragged

BEST = 10  # candidates whose IoUs add up to the number that an object takes
IOU_WEIGHT = 3.0  # of the box's cost against the classes'


class OtaLoss(DetectionLoss):
    """YOLOv7's loss for the raw outputs of `model`: `DetectionLoss` on matches that the outputs themselves choose."""

    match_counts = None  # not known before the outputs are

    @torch.no_grad()
    def assign(self, outputs, targets):
        """The `Matches` of each level that optimal transport leaves of those by anchor and cell."""
        candidates = super().assign(outputs, targets)
        image = torch.cat([level.image for level in candidates])
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
        return [_keep(*level, targets) for level in zip(outputs, candidates, parts, strict=True)]

    def _read(self, raw, matches, anchors, stride):
        """The boxes (m, 4: x1, y1, x2, y2 in pixels) and class logits (m, C) that the matched predictions give.

        A logit is that of the square root of objectness times class probability.
        """
        at = raw[matches.image, matches.anchor, matches.row, matches.column]
        boxes = predicted_boxes(at, anchors.to(raw)[matches.anchor])
        boxes[:, :2] += torch.stack((matches.column, matches.row), 1)
        small = torch.finfo(raw.dtype).tiny, 1 - torch.finfo(raw.dtype).eps  # a certain prediction has no logit
        probability = (at[:, 5 : 5 + self.classes].sigmoid() * at[:, 4:5].sigmoid()).sqrt().clamp(*small)
        return xyxy_from_cxcywh(boxes * stride), torch.log(probability / (1 - probability))


def class_cost(logits, labels):
    """The cross entropy (N, objects, candidates) of candidates' logits (N, candidates, C) for objects' labels.

    Summed over the classes: what "none of them" costs, less the logit of the object's own class.
    """
    own = logits.transpose(1, 2).gather(1, labels[..., None].expand(-1, -1, logits.shape[1]))
    return softplus(logits).sum(-1)[:, None] - own


def transport(iou, classes, is_object, is_candidate):
    """Which candidates are chosen, bool (N, candidates), and the object that each goes to, (N, candidates).

    `iou` and `classes` (the classes' cost) are (N, objects, candidates), `is_object` and `is_candidate` tell the places
    that are filled.
    """
    iou = iou * is_candidate[:, None]
    cost = classes - IOU_WEIGHT * torch.log(iou + 1e-8)
    cost = cost.masked_fill(~(is_object[..., None] & is_candidate[:, None]), torch.inf)
    most = min(BEST, iou.shape[2])
    count = iou.topk(most, dim=2).values.sum(2).int().clamp(min=1)  # (N, objects)
    cheapest = (cost.double() + tie_break(cost)).topk(most, dim=2, largest=False).indices
    taken = torch.arange(most, device=iou.device) < count[..., None]
    claimed = torch.zeros_like(cost, dtype=torch.bool).scatter_(2, cheapest, taken)
    claimed &= is_object[..., None] & is_candidate[:, None]
    claims = claimed.sum(1)  # (N, candidates)
    row = torch.where(claims > 1, cost.argmin(1), claimed.int().argmax(1))
    return claims > 0, row


def tie_break(cost):
    """A number for each of the last axis' places, (candidates,), too small to matter but between equal costs.

    One prediction can be a candidate several times, by several objects. Every object must then mean the same one first,
    or two objects that want it once each would count as two predictions.
    """
    return 1e-10 * torch.arange(cost.shape[-1], dtype=torch.float64, device=cost.device)


def _keep(raw, matches, target, targets):
    """The `Matches` of one level with `target` (m,), the new row of `targets` for each, -1 where it goes."""
    kept = target >= 0
    cell = torch.stack((matches.column, matches.row), 1)[kept]
    height, width = raw.shape[2:4]
    return answer(matches.anchor[kept], cell, targets, target[kept], targets.new_tensor([width, height]))

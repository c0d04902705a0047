"""How wrong are the masks, by YOLOv5's measure?

A box's mask is its coefficients times the image's prototypes. It is compared with the object's true mask, at the
prototypes' resolution and inside the object's true box alone, for every prediction that answers for an object.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from .boxes import xyxy_from_cxcywh
from .loss import DetectionLoss, in_full_precision, match_counts, split
from .ragged import Ragged

PROTOTYPE_STRIDE = 4  # pixels of the image per pixel of a prototype


class SegmentationLoss(DetectionLoss):
    """YOLOv5-seg's loss for the outputs (raw maps, prototypes) of `model`; its masks have the boxes' gain."""

    def __init__(self, model, **options):
        super().__init__(model, **options)
        self.gains["mask"] = self.gains["box"]

    def __call__(self, outputs, targets, image_size, *, masks=None, portion=None):
        """The total (0-d, times the batch size) and its parts `box`, `objectness`, `classification` and `mask`.

        `outputs` are the raw maps [(N, A, H, W, 5 + C + 32)] and the prototypes (N, 32, h, w) of train mode; `targets`
        and `image_size` as for `DetectionLoss`. `masks` are the objects' true masks, either N tensors (objects, H, W)
        of 0 and 1, or one (N, H, W) of instance numbers: 0 is background, 1 the image's first target; H and W are the
        image's, or the prototypes'. Raises ValueError where they are missing or do not fit the targets.
        """
        raw, prototypes = outputs
        self._check(raw, targets)
        with torch.autocast(prototypes.device.type, enabled=False):
            raw, prototypes = [in_full_precision(x) for x in raw], in_full_precision(prototypes)
            targets = targets.to(prototypes)
            wanted = true_masks(masks, targets, prototypes)
            matches, fields = self.assign(raw, targets), [split(x, self.classes) for x in raw]
            parts = self.parts(fields, matches, match_counts(matches, portion))
            parts["mask"] = mask_part([x.coefficients for x in fields], prototypes, matches, targets[:, 2:6], wanted)
            return self.total(parts, image_size, len(prototypes))


def mask_part(coefficients, prototypes, matches, boxes, wanted):
    """The masks' part of the loss (0-d): the mean error of each level's and image's matches, summed, over the batch.

    A mask's error is its cross entropy inside the object's box, averaged over the image, over the box's share of it.
    `coefficients` are the raw maps [(N, A, H, W, 32)], `prototypes` (N, 32, h, w), `matches` those of each level, and
    of each object `boxes` (n, 4: centre and size as fractions) and `wanted` (n, h, w: 0 or 1).
    """
    batch, (height, width) = len(prototypes), prototypes.shape[-2:]
    image, target = (torch.cat([getattr(level, name) for level in matches]) for name in ("image", "target"))
    group = torch.cat([level.image + number * batch for number, level in enumerate(matches)])
    share = 1 / torch.bincount(group, minlength=batch * len(matches))[group]  # (m,)
    chosen = [x[m.image, m.anchor, m.row, m.column] for x, m in zip(coefficients, matches, strict=True)]
    places = Ragged(image, batch)
    masks = places.padded(torch.cat(chosen)) @ prototypes.flatten(2)  # (N, most matches of an image, h · w)
    boxes = boxes[target]
    pixel, count = pixels_inside(boxes, height, width)
    plane = image * places.longest + places.position  # of each match among `masks`
    found = masks.view(-1)[pixel + (plane * height * width).repeat_interleave(count)]  # (pixels of all boxes,)
    true = wanted.view(-1)[pixel + (target * height * width).repeat_interleave(count)]
    weight = (share / (height * width * boxes[:, 2] * boxes[:, 3])).repeat_interleave(count)
    return bce(found, true.to(found), weight, reduction="sum") / batch


def pixels_inside(boxes, height, width):
    """The numbers (row · width + column) of the pixels inside each of m boxes, one box after another, and their counts.

    `boxes` (m, 4) are centre and size as fractions of (height, width) pixels. A pixel is inside where its index is: low
    <= index < high. Boxes are counted through, which takes less than to compare every pixel with every box.

    >>> pixels_inside(torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.0, 0.5, 0.4, 0.2]]), 5, 5)
    (tensor([12, 13, 17, 18, 10]), tensor([4, 1]))
    """
    size = boxes.new_tensor([width, height])
    corners = (xyxy_from_cxcywh(boxes) * size.repeat(2)).ceil().clamp(min=0)
    low, high = (torch.minimum(corner, size).long() for corner in corners.split(2, 1))  # (m, 2) of column, row
    across, down = (high - low).clamp(min=0).unbind(1)
    count = across * down
    before = (count.cumsum(0) - count).repeat_interleave(count)
    number = torch.arange(len(before), device=boxes.device) - before  # of the pixel in its box
    across, first = (each.repeat_interleave(count) for each in (across, low[:, 1] * width + low[:, 0]))
    row = number // across
    return first + row * width + (number - row * across), count


def true_masks(masks, targets, prototypes):
    """The mask of each target at the prototypes' size, (n, h, w) of 0 and 1, none covering another.

    Where objects overlap, the pixel belongs to the smaller. Raises ValueError for masks that do not fit the targets.
    """
    if masks is None:
        raise ValueError("a network that segments needs masks to train: open the data with masks=True and pass masks")
    size = tuple(prototypes.shape[-2:])
    places = Ragged(targets[:, 0].long(), len(prototypes))
    counts = places.counts.tolist()
    given = [len(planes) for planes in masks]
    if isinstance(masks, torch.Tensor):
        if len(masks) != len(prototypes):
            raise ValueError(f"masks must be (images: {len(prototypes)}, H, W), got {tuple(masks.shape)}")
        factor = shrinking(masks, size)
        numbers = masks[:, ::factor, ::factor].to(targets.device)
        return numbers[places.image] == places.position[:, None, None] + 1
    if given != counts:
        raise ValueError(f"masks must be one a target, {counts} by image, got {given}")
    if not len(targets):
        return prototypes.new_zeros(0, *size)
    rows = places.starts[places.image] + places.position  # the targets' order may mix the images
    small = torch.cat([shrunk(planes.to(targets.device), size) for planes in masks])[rows]
    return without_overlap(small, places.image)


def shrinking(masks, size):
    """How many of the masks' pixels (…, H, W) lie along one of `size` (h, w): 4, or 1; else raises ValueError."""
    for factor in (1, PROTOTYPE_STRIDE):
        if tuple(masks.shape[-2:]) == (factor * size[0], factor * size[1]):
            return factor
    raise ValueError(f"masks must be as large as the image, {PROTOTYPE_STRIDE} x {size}, got {tuple(masks.shape[-2:])}")


def shrunk(masks, size):
    """The masks (n, H, W) of 0 and 1 at `size` (h, w), bool: the rounded mean of the four pixels in each middle.

    That is what linear interpolation gives, which the official code uses.
    """
    factor = shrinking(masks, size)
    if factor == 1:
        return masks > 0
    above, below = masks[:, 1::factor], masks[:, 2::factor]
    left, right = slice(1, None, factor), slice(2, None, factor)
    return above[..., left] + above[..., right] + below[..., left] + below[..., right] >= 2


def without_overlap(masks, image):
    """The masks (n, h, w), bool, less what a smaller mask of the same image covers."""
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)  # the smallest mask has the highest
    ranked = masks * rank[:, None, None]  # (n, h, w)
    top = ranked.new_zeros(int(image.max()) + 1, *masks.shape[1:])
    top.scatter_reduce_(0, image[:, None, None].expand_as(ranked), ranked, "amax")
    return masks & (ranked == top[image])

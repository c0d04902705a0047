"""Compute YOLOv5-seg's loss, which compares masks besides boxes.

A box's mask is its coefficients times the image's prototypes, compared with the object's true mask at the prototypes'
resolution, inside the object's true box alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from .boxes import xyxy_from_cxcywh
from .graph import Detector
from .loss import Assignment, DetectionLoss, Fields
from .ota_loss import Ragged

PROTOTYPE_STRIDE = 4  # pixels of the image per pixel of a prototype
TILE = 64  # pixels of a box that are worked out together


class SegmentationLoss(DetectionLoss):
    """YOLOv5-seg's loss for the outputs (raw maps, prototypes) of `model`; its masks have the boxes' gain."""

    def __init__(self, model: Detector, **options: Any):
        super().__init__(model, **options)
        self.gains["mask"] = self.gains["box"]

    def parts(
        self, fields: Sequence[Fields], matches: Sequence[Assignment], counts: Sequence[float], **given: Any
    ) -> dict[str, Tensor]:
        """Return the parts, `mask` besides; `given`: `prototypes` [(N, 32, h, w)], `targets` and `masks`.

        `masks` are N tensors (objects, H, W) of 0 and 1, or one (N, H, W) of instance numbers: 0 is background, 1 the image's
        first target; H and W are the image's, or the prototypes'. Raises ValueError where they do not fit the targets.
        """
        (prototypes,), targets = given["prototypes"], given["targets"]
        wanted = true_masks(given["masks"], targets, prototypes)
        mask = mask_part([x.coefficients for x in fields], prototypes, matches, targets[:, 2:6], wanted)
        return super().parts(fields, matches, counts) | {"mask": mask}


def mask_part(
    coefficients: Sequence[Tensor], prototypes: Tensor, matches: Sequence[Assignment], boxes: Tensor, wanted: Tensor
) -> Tensor:
    """Return the masks' part of the loss (0-d): the mean error of each level's and image's matches, summed, over the batch.

    A mask's error is its cross entropy inside the object's box, averaged over the image, over the box's share of it.
    `coefficients` are [(N, A, H, W, 32)], `prototypes` (N, 32, h, w), `boxes` (n, 4: centre and size as fractions),
    `wanted` (n, h, w: 0 or 1). Masks are worked out inside the boxes alone, tile by tile: a tenth of the image's pixels.
    """
    batch, (height, width) = len(prototypes), prototypes.shape[-2:]
    image, target = (torch.cat([getattr(level, name) for level in matches]) for name in ("image", "target"))
    if not len(target):
        return prototypes.sum() * 0
    chosen = [x[m[:4]] for x, m in zip(coefficients, matches, strict=True)]  # (m, 32)
    places = Ragged(target, len(boxes))
    owner, pixel, inside = tiles(boxes, height, width)  # (t,), (t, TILE), (t, TILE)
    image_of = torch.zeros_like(places.counts).scatter_(0, target, image)[owner]  # an object without a match: any
    rows = prototypes.permute(0, 2, 3, 1).reshape(-1, prototypes.shape[1])  # (N · h · w, 32)
    found = rows.index_select(0, (image_of[:, None] * height * width + pixel).flatten()).view(*pixel.shape, -1)
    logits = places.padded(torch.cat(chosen))[owner] @ found.mT  # (t, most matches of an object, TILE)
    true = wanted.view(-1)[owner[:, None] * height * width + pixel].to(logits)[:, None]
    weight = places.padded(match_weights(matches, boxes, batch))[owner] / (height * width)  # 0 where there is no match
    return bce(logits, true.expand_as(logits), weight[..., None] * inside[:, None], reduction="sum") / batch


def match_weights(matches: Sequence[Assignment], boxes: Tensor, batch: int) -> Tensor:
    """Return what each match's error counts (m,): its part of the mean of its level and image, over its box's share."""
    group = torch.cat([level.image + number * batch for number, level in enumerate(matches)])
    part = 1 / torch.bincount(group, minlength=batch * len(matches))[group]
    return part / boxes[torch.cat([level.target for level in matches]), 2:].prod(1)


def tiles(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut each of n boxes into tiles of TILE pixels: whose tile it is (t,), pixels (t, TILE), and which are inside.

    `boxes` (n, 4) are centre and size as fractions of (height, width) pixels; a pixel's number is row · width + column.
    A pixel is inside where its index is: low <= index < high. A box's last tile is filled up with its first pixel.
    """
    size = boxes.new_tensor([width, height])
    corners = (xyxy_from_cxcywh(boxes) * size.repeat(2)).ceil().clamp(min=0)
    low, high = (torch.minimum(corner, size).long() for corner in corners.split(2, 1))  # (n, 2) of column, row
    across, down = (high - low).clamp(min=0).unbind(1)
    count = across * down
    parts = (count + TILE - 1) // TILE
    owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(parts)
    first = (parts.cumsum(0) - parts)[owner]  # of the object's own tiles
    number = (torch.arange(len(owner), device=boxes.device) - first)[:, None] * TILE
    number = number + torch.arange(TILE, device=boxes.device)  # (t, TILE), of the pixel in its box
    inside = number < count[owner][:, None]
    number = number * inside
    row, column = number // across[owner][:, None], number % across[owner][:, None]
    return owner, low[owner, 1, None] * width + low[owner, 0, None] + row * width + column, inside


def true_masks(masks: Any, targets: Tensor, prototypes: Tensor) -> Tensor:
    """Return the mask of each target at the prototypes' size, (n, h, w) of 0 and 1, none covering another.

    Where objects overlap, the pixel belongs to the smaller. Raises ValueError for masks that do not fit the targets.
    """
    if masks is None:
        raise ValueError("a network that segments needs masks to train: open the data with masks=True and pass masks")
    size = tuple(prototypes.shape[-2:])
    places = Ragged(targets[:, 0].long(), len(prototypes))
    if isinstance(masks, Tensor):
        if len(masks) != len(prototypes):
            raise ValueError(f"masks must be (images: {len(prototypes)}, H, W), got {tuple(masks.shape)}")
        factor = shrinking(masks, size)
        numbers = masks[:, ::factor, ::factor].to(targets.device)
        return numbers[places.image] == places.position[:, None, None] + 1
    given, counts = [len(planes) for planes in masks], places.counts.tolist()
    if given != counts:
        raise ValueError(f"masks must be one a target, {counts} by image, got {given}")
    if not len(targets):
        return prototypes.new_zeros(0, *size)
    sizes = {tuple(planes.shape[1:]): shrinking(planes, size) for planes in masks}
    if len(sizes) > 1:
        raise ValueError(f"masks must have one size in a batch, got {', '.join(map(str, sizes))}")
    rows = places.starts[places.image] + places.position  # the targets' order may mix the images
    small = shrunk(torch.cat(list(masks)).to(targets.device), *sizes.values())[rows]
    return without_overlap(small, places.image)


def shrinking(masks: Tensor, size: Sequence[int]) -> int:
    """Return how many of the masks' pixels (…, H, W) lie along one of `size` (h, w): 4, or 1; else raises ValueError."""
    for factor in (1, PROTOTYPE_STRIDE):
        if tuple(masks.shape[-2:]) == (factor * size[0], factor * size[1]):
            return factor
    raise ValueError(f"masks must be as large as the image, {PROTOTYPE_STRIDE} x {size}, got {tuple(masks.shape[-2:])}")


def shrunk(masks: Tensor, factor: int) -> Tensor:
    """Return the masks (n, H, W) of 0 and 1 at a `factor`-th of the size, bool: the rounded mean of the middle four."""
    if factor == 1:
        return masks > 0
    middle = (masks[:, row::factor, column::factor] for row in (1, 2) for column in (1, 2))  # of linear interpolation
    return sum(middle, masks.new_zeros(())) >= 2


def without_overlap(masks: Tensor, image: Tensor) -> Tensor:
    """Return the masks (n, h, w), bool, less what a smaller mask of the same image covers."""
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)  # the smallest mask has the highest
    ranked = masks * rank[:, None, None]  # (n, h, w)
    top = ranked.new_zeros(int(image.max()) + 1, *masks.shape[1:])
    top.scatter_reduce_(0, image[:, None, None].expand_as(ranked), ranked, "amax")
    return masks & (ranked == top[image])

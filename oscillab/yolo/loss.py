"""Compute YOLOv5's loss of a detector's raw outputs, and choose the loss that trains a network.

Written from the public description of YOLOv5 v7.0's loss, over the whole batch at once.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from .boxes import ciou
from .graph import Detector
from .heads import in_full_precision

# The gains of the official recipes: small networks are trained with the first, the others with the second.
SMALL = {"box": 0.05, "objectness": 1.0, "classification": 0.5}
LARGE = {"box": 0.05, "objectness": 0.7, "classification": 0.3}
SMALL_NAMES = ("yolov5n", "yolov5s", "yolov7-tiny")

# Finer levels have more cells, nearly all of them empty: their objectness counts for more.
OBJECTNESS_BALANCE = (4.0, 1.0, 0.4)

# The own cell, and its neighbours to the left, above, to the right, below.
NEIGHBOURS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))


def build_loss(model: Detector, **options: Any) -> "DetectionLoss":
    """Return the loss that officially trains `model`, called as `loss(outputs, targets, image_size, masks=masks)`.

    `masks` are needed where `model.task` is "segment" and ignored elsewhere. `options` are those of `DetectionLoss` and go
    before the official gains. For YOLOv7 without optimal transport take `DetectionLoss(model)`.
    """
    from .mask_loss import SegmentationLoss  # both build on this file
    from .ota_loss import OtaLoss

    if not hasattr(model, "task"):
        how = "give one, called as loss(outputs, targets, image_size)"
        raise ValueError(f"no loss is known for a {type(model).__name__}, which is none of the detectors: {how}")
    gains = SMALL if model.name.startswith(SMALL_NAMES) else LARGE
    plain = OtaLoss if model.name.startswith("yolov7") else DetectionLoss
    return (SegmentationLoss if model.task == "segment" else plain)(model, **gains | options)


class Assignment(NamedTuple):
    """The m predictions of one level that are assigned to an object (one object may have several)."""

    image: Tensor  # (m,) index in the batch
    anchor: Tensor  # (m,)
    row: Tensor  # (m,)
    column: Tensor  # (m,)
    box: Tensor  # (m, 4) centre relative to the cell's corner, width, height, in cells
    label: Tensor  # (m,) class index
    target: Tensor  # (m,) row of `targets` that is assigned

    @classmethod
    def of(cls, anchor: Tensor, cell: Tensor, targets: Tensor, target: Tensor, size: Tensor) -> "Assignment":
        """Assign predictions at `anchor` (m,), `cell` (m, 2: column, row) to rows `target` of `targets`; `size` (2: W, H)."""
        chosen = targets[target]  # (m, 6)
        box = torch.cat((chosen[:, 2:4] * size - cell, chosen[:, 4:6] * size), 1)  # (m, 4)
        return cls(chosen[:, 0].long(), anchor, cell[:, 1], cell[:, 0], box, chosen[:, 1].long(), target)


class Fields(NamedTuple):
    """What the raw outputs of one level say, each (N, A, H, W, numbers)."""

    box: Tensor  # 4 numbers
    objectness: Tensor  # 1
    logits: Tensor  # C
    coefficients: Tensor  # of masks: 32, or none


class DetectionLoss:
    """YOLOv5's loss for the raw outputs of `model`.

    `box`, `objectness`, `classification`: the gains; `scale_gains`: classes / 80 for the classification, (image_size / 640)²
    for the objectness, as officially. An anchor answers where neither side is over `anchor_threshold` times the object's.
    """

    def __init__(
        self,
        model: Detector,
        *,
        box: float = 0.05,
        objectness: float = 1.0,
        classification: float = 0.5,
        anchor_threshold: float = 4.0,
        scale_gains: bool = True,
    ):
        self.classes, self.strides = model.classes, model.strides
        self.anchors = model.anchors.detach() / model.anchors.new_tensor(model.strides).view(-1, 1, 1)  # in cells
        self.gains = {"box": box, "objectness": objectness, "classification": classification}
        self.anchor_threshold, self.scale_gains = anchor_threshold, scale_gains

    def __call__(
        self, outputs: Any, targets: Tensor, image_size: int, *, masks: Any = None, micro_batch: Any = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total (0-d, times the batch size) and its parts, a dict of detached 0-d tensors after their gains.

        `outputs` are the raw maps [(N, A, H, W, 5 + C)] of train mode, in a tuple with the prototypes where there are masks;
        `targets` (n, 6), n may be 0, holds [image index, class, centre x, centre y, width, height], boxes as fractions of the
        image; `image_size` is the longer side in pixels; `micro_batch` (see `oscillab.train.micro_batches`) says what this is a
        part of: the totals of all parts add up to the whole batch's. Raises ValueError for targets of another shape, class or
        image. Computes in float32 under autocast.
        """
        maps, *prototypes = outputs if isinstance(outputs, tuple) else (outputs,)
        self._check(targets, len(maps[0]))
        with torch.autocast(maps[0].device.type, enabled=False):
            maps, prototypes = ([in_full_precision(x) for x in some] for some in (maps, prototypes))
            targets = targets.to(maps[0])
            matches = self.assign(maps, targets)
            counts: list[float] = [len(level.target) for level in matches]
            counts = counts if micro_batch is None else micro_batch.matches(counts)
            fields = [split(raw, self.classes) for raw in maps]
            parts = self.parts(fields, matches, counts, prototypes=prototypes, targets=targets, masks=masks)
        gains = self.scaled_gains(image_size)
        items = {name: gains[name] * part for name, part in parts.items()}
        total = sum(items.values(), items["box"].new_zeros(())) * len(maps[0])
        return total, {name: item.detach() for name, item in items.items()}

    def assign(self, outputs: Sequence[Tensor], targets: Tensor) -> list[Assignment]:
        """Return the `Assignment` of each level: which predictions answer for which object."""
        return self._match(targets, [raw.shape[2:4] for raw in outputs])

    def match_counts(self, targets: Tensor, shape: Sequence[int]) -> list[int]:
        """Count the predictions of each level that will answer for `targets` (n, 6) in images of `shape` (H, W)."""
        grids = [[side // stride for side in shape] for stride in self.strides]
        return [len(level.target) for level in self._match(targets, grids)]

    def parts(
        self, fields: Sequence[Fields], matches: Sequence[Assignment], counts: Sequence[float], **_: Any
    ) -> dict[str, Tensor]:
        """Return the parts, 0-d tensors before the gains; `counts`: what each level's matched errors are averaged over."""
        levels = zip(fields, matches, counts, self.anchors, OBJECTNESS_BALANCE, strict=True)
        parts = [self.level(*level) for level in levels]
        zero = fields[0].box.new_zeros(())
        return {name: sum((part[name] for part in parts), zero) for name in parts[0]}

    def scaled_gains(self, image_size: int) -> dict[str, float]:
        """Return the gain of each part, a dict of floats, for an image of `image_size` pixels."""
        if not self.scale_gains:
            return self.gains
        per_level = 3 / len(self.anchors)
        scales = {"objectness": (image_size / 640) ** 2, "classification": self.classes / 80}
        return {name: gain * scales.get(name, 1.0) * per_level for name, gain in self.gains.items()}

    def level(
        self, fields: Fields, matches: Assignment, count: float, anchors: Tensor, balance: float
    ) -> dict[str, Tensor]:
        """Return the three parts of one level's loss, before the gains."""
        at, count = matches[:4], count or 1  # a level without any match adds an exact zero
        likeness = ciou(predicted_boxes(fields.box[at], anchors.to(fields.box)[matches.anchor]), matches.box)  # (m,)
        objectness = fields.objectness
        classification = objectness.new_zeros(())
        if self.classes > 1:  # (m, C)
            wanted = objectness.new_zeros(len(matches.target), self.classes).scatter_(1, matches.label[:, None], 1.0)
            classification = bce(fields.logits[at], wanted, reduction="sum") / (count * self.classes)
        return {
            "box": (1 - likeness).sum() / count,
            "objectness": bce(objectness[..., 0], objectness_target(objectness, matches, likeness)) * balance,
            "classification": classification,
        }

    def _match(self, targets: Tensor, grids: Iterable[Sequence[int]]) -> list[Assignment]:
        levels = zip(self.anchors.to(targets), grids, strict=True)
        return [match(targets, *level, threshold=self.anchor_threshold) for level in levels]

    def _check(self, targets: Tensor, images: int) -> None:
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ValueError(f"targets must be (n, 6), got {tuple(targets.shape)}")
        for column, what, limit in ((0, "image index", images), (1, "class", self.classes)) if len(targets) else ():
            low, high = (int(bound) for bound in targets[:, column].aminmax())
            if low < 0 or high >= limit:
                raise ValueError(f"the {what} of every target must be 0..{limit - 1}, got {low}..{high}")


def split(raw: Tensor, classes: int) -> Fields:
    """Return the `Fields` of raw outputs (N, A, H, W, 5 + C [+ 32])."""
    # Before anything is chosen from them: the gradient is then put together once, not added up from full-sized zeros.
    return Fields(*raw.split((4, 1, classes, raw.shape[-1] - 5 - classes), -1))


def predicted_boxes(chosen: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (m, 4), centre relative to the cell's corner and size in cells, of raw outputs (m, 4)."""
    return torch.cat((2 * chosen[:, :2].sigmoid() - 0.5, (2 * chosen[:, 2:4].sigmoid()) ** 2 * anchors), 1)


def objectness_target(raw: Tensor, matches: Assignment, likeness: Tensor) -> Tensor:
    """Return the objectness wanted of every prediction, (N, A, H, W): the CIoU where it answers for an object, else 0."""
    # Of several objects that want one prediction the last counts; by plain indexing chance would decide on a GPU.
    batch, anchors, height, width, _ = raw.shape
    cell = ((matches.image * anchors + matches.anchor) * height + matches.row) * width + matches.column  # (m,)
    last = torch.full((batch * anchors * height * width,), -1, device=raw.device)
    last.scatter_reduce_(0, cell, torch.arange(len(cell), device=raw.device), "amax")
    padded = torch.cat((likeness.detach().clamp(min=0), raw.new_zeros(1)))  # index -1 is the zero
    return padded[last].view(batch, anchors, height, width)  # (N, A, H, W)


def match(targets: Tensor, anchors: Tensor, grid_size: Sequence[int], *, threshold: float = 4.0) -> Assignment:
    """Return the `Assignment` of one level with `anchors` (A, 2) in cells and a grid of `grid_size` (H, W) cells.

    Every anchor of like size answers, in the object's own cell and in the nearest neighbour in the grid along each axis.
    """
    height, width = grid_size
    size = targets.new_tensor([width, height])
    centre, wh = targets[:, 2:4] * size, targets[:, 4:6] * size  # (n, 2) each, in cells
    ratio = wh[None] / anchors[:, None]  # (A, n, 2)
    anchor, target = (torch.maximum(ratio, 1 / ratio).amax(-1) < threshold).nonzero(as_tuple=True)
    from_far = size - (near := centre[target])
    (left, above), (right, below) = (((x % 1 < 0.5) & (x > 1)).T for x in (near, from_far))
    neighbour, pair = torch.stack((torch.ones_like(left), left, above, right, below)).nonzero(as_tuple=True)  # (m,)
    anchor, target = anchor[pair], target[pair]
    offset = 0.5 * centre.new_tensor(NEIGHBOURS)[neighbour]
    cell = torch.minimum((centre[target] - offset).long().clamp(min=0), size.long() - 1)  # (m, 2) column, row
    return Assignment.of(anchor, cell, targets, target, size)

"""Convert boxes, measure how alike two boxes are, and fit anchors to a data set's (YOLOv5's AutoAnchor).

Boxes are float tensors whose last axis is either (x1, y1, x2, y2), called `xyxy`, or (centre x, centre y, width,
height), called `cxcywh`, in any one unit. Anchors are judged by sizes alone: one can answer for an object where neither
side is more than `threshold` times the other's (`loss.match`). Where the given ones reach nearly all objects (`recall`
above `ENOUGH`), better keep them: weights trained before know them. Otherwise `fit_anchors` finds others.
"""

import logging
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .graph import Detector

logger = logging.getLogger(__name__)

ENOUGH = 0.98  # recall above which the official code keeps the anchors it has
LEAST_SIDE = 2.0  # pixels; boxes with neither side as long are left out of a fit
RESTARTS, ROUNDS = 5, 30  # of k-means
MUTATION_SHARE, MUTATION_SPREAD = 0.9, 0.1  # of the sides that a mutation changes, and how much


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Return the corners (…, 4) of boxes given by centre and size.

    >>> xyxy_from_cxcywh(torch.tensor([10.0, 20.0, 4.0, 6.0]))
    tensor([ 8., 17., 12., 23.])
    """
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat((centre - half, centre + half), -1)


def cxcywh_from_xyxy(boxes: Tensor) -> Tensor:
    """Return the centre and size (…, 4) of boxes given by corners."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return torch.cat(((low + high) / 2, high - low), -1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the IoU (…, n, m) of every `xyxy` box in `first` (…, n, 4) with all of `second` (…, m, 4)."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:4], second[..., None, :, 2:4])
    shared = (high - low).clamp(min=0).prod(-1)  # (…, n, m)
    one, other = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (first, second))
    union = one[..., :, None] + other[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def ciou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
    """Return the complete IoU (n,), -1.5..1, of `cxcywh` boxes `first` (n, 4) with their partners `second` (n, 4).

    IoU less the centres' squared distance over the enclosing box's squared diagonal, less a term for unlike aspect ratios
    whose weight passes no gradient (Zheng et al., 1911.08287, in YOLOv5's form).
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


class Suitability(NamedTuple):
    """How well anchors suit the boxes of a data set."""

    recall: float  # share of the boxes that an anchor can answer for, in 0..1 (the official "best possible recall")
    fitness: float  # mean of the best anchor's likeness, counted 0 beyond the threshold, in 0..1
    anchors_per_box: float  # that can answer for a box, on the average


def auto_anchor(model: Detector, dataset: Any, size: int, *, choice: str = "keep", seed: int = 0) -> float:
    """Return the best possible recall (0..1) of the anchors that `model` has now, on boxes of `dataset` at `size` pixels.

    Where they reach too few boxes, others that reach more take their place ("auto"), or a warning names that option ("keep").
    """
    if choice not in ("keep", "auto"):
        raise ValueError(f"anchors must be keep or auto, got {choice}")
    sizes = box_sizes(dataset.ground_truth(), size)
    recall = suitability(sizes, model.anchors.cpu().numpy()).recall
    if recall > ENOUGH:
        logger.info("anchors: kept, they can answer for %.1f %% of the boxes at %d pixels", 100 * recall, size)
        return recall
    said = "--anchors auto fits others to this data"
    if choice == "auto":
        others = fit_anchors(sizes, seed=seed)
        better = suitability(sizes, others).recall
        said = f"kept, as those fitted to this data reach no more ({100 * better:.1f} %)"
        if better > recall:
            model.head.set_anchors(others)
            said = f"others, fitted to this data, took their place and reach {100 * better:.1f} %"
    words = "anchors: at %d pixels they can answer for %.1f %% of the boxes, %g %% are enough; %s"
    logger.warning(words, size, 100 * recall, 100 * ENOUGH, said)
    return max(recall, better) if choice == "auto" else recall


def box_sizes(ground_truth: dict[str, Any], size: int) -> np.ndarray:
    """Return width and height (n, 2) in pixels of a data set's boxes, its images' longer sides being `size` pixels.

    `ground_truth` is in COCO's format; crowds do not count. Raises ValueError where it holds no box.
    """
    scales = {image["id"]: size / max(image["width"], image["height"]) for image in ground_truth["images"]}
    rows = [entry for entry in ground_truth["annotations"] if not entry.get("iscrowd")]
    sizes = np.array([np.multiply(entry["bbox"][2:], scales[entry["image_id"]]) for entry in rows], np.float64)
    return checked(sizes)


def suitability(sizes: Any, anchors: Any, *, threshold: float = 4.0) -> Suitability:
    """Return the `Suitability` of anchors (…, 2) for boxes of `sizes` (n, 2), width and height in one unit."""
    likeness = likenesses(checked(sizes), np.reshape(anchors, (-1, 2)))
    best, near = likeness.max(1), likeness > 1 / threshold
    return Suitability(float(near.any(1).mean()), fitness_of(best, threshold), float(near.sum(1).mean()))


def fit_anchors(
    sizes: Any, *, levels: int = 3, per_level: int = 3, threshold: float = 4.0, generations: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return anchors (levels, per_level, 2) in the unit of `sizes` (n, 2, pixels), from small to large, for `set_anchors`.

    k-means in units of each side's spread, then `generations` of mutations of which those stay that raise the official
    fitness. Raises ValueError for fewer boxes than anchors.
    """
    sizes = checked(sizes)
    sizes = sizes[(sizes >= LEAST_SIDE).any(1)]
    count = levels * per_level
    if len(np.unique(sizes, axis=0)) < count:
        raise ValueError(f"{count} anchors need as many boxes of different size, got {len(np.unique(sizes, axis=0))}")
    generator = np.random.default_rng(seed)
    spread = np.maximum(sizes.std(0), 1e-9)
    anchors = evolve(sizes, cluster(sizes / spread, count, generator) * spread, generations, threshold, generator)
    anchors = anchors[anchors.prod(1).argsort()].astype(np.float16)
    return anchors.astype(np.float32).reshape(levels, per_level, 2)


def likenesses(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return how alike boxes (n, 2) and anchors (k, 2) are, (n, k) in 0..1: the smaller of the sides' ratios (1 is equal)."""
    ratio = sizes[:, None] / anchors[None]
    return np.minimum(ratio, 1 / ratio).min(2)


def fitness_of(best: np.ndarray, threshold: float) -> float:
    """Return the mean of each box's best likeness (n,), 0 for a box that no anchor can answer for."""
    return float((best * (best > 1 / threshold)).mean())


def cluster(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return the best of several k-means of points (n, 2): `count` centres (count, 2) of the least squared distance."""
    found = [k_means(points, count, generator) for _ in range(RESTARTS)]
    return min(found, key=lambda centres: distances(points, centres).min(1).sum())


def k_means(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return centres (count, 2), each at first a point drawn in proportion to its distance from those before."""
    centres = points[generator.integers(len(points), size=1)]
    while len(centres) < count:
        far = distances(points, centres).min(1)
        centres = np.concatenate((centres, points[[generator.choice(len(points), p=far / far.sum())]]))
    for _ in range(ROUNDS):  # every point joins its nearest centre, every centre moves to the mean of its points
        nearest = distances(points, centres).argmin(1)
        counts = np.bincount(nearest, minlength=count)[:, None]
        sums = np.stack([np.bincount(nearest, axis, count) for axis in points.T], 1)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return centres


def distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distance (n, k) of every point (n, 2) from every centre (k, 2)."""
    return np.square(points[:, None] - centres[None]).sum(2)


def evolve(
    sizes: np.ndarray, anchors: np.ndarray, generations: int, threshold: float, generator: np.random.Generator
) -> np.ndarray:
    """Return anchors (k, 2) at least as fit as those given: of each generation's mutations the better one lives on."""
    fitness = fitness_of(likenesses(sizes, anchors).max(1), threshold)
    for _ in range(generations):
        changed = generator.random(anchors.shape) < MUTATION_SHARE
        factor = 1 + changed * generator.random() * generator.normal(0, MUTATION_SPREAD, anchors.shape)
        mutant = np.maximum(anchors * factor.clip(0.3, 3.0), LEAST_SIDE)
        better = fitness_of(likenesses(sizes, mutant).max(1), threshold)
        anchors, fitness = (mutant, better) if better > fitness else (anchors, fitness)
    return anchors


def checked(sizes: Any) -> np.ndarray:
    """Return `sizes` as an array (n, 2) of float64; raises ValueError unless they are finite, above 0, and one or more."""
    sizes = np.asarray(sizes, np.float64)
    if not sizes.size:
        raise ValueError("anchors need boxes to suit: the data set holds none")
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not np.isfinite(sizes).all() or sizes.min() <= 0:
        raise ValueError(f"sizes must be finite widths and heights above 0, (n, 2), got {sizes.shape}")
    return sizes

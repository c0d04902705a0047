"""Measure how well a detector finds the objects of a data set: COCO's mean average precision of the model it is given.

As the official YOLO code works it out: square letterbox (or the official validation's rectangles), boxes above confidence
0.001 after class-wise NMS at IoU 0.65, at most 300 of them an image, scaled back to the image as it was; and their masks.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from tqdm.auto import tqdm

from oscillab.data.images import Dataset, check_dataset, evaluation_batches, letterbox_batch
from oscillab.data.nms import detections, mask_runs
from oscillab.data.options import class_order
from oscillab.quant.calibrate import eval_mode

log = logging.getLogger(__name__)

BOXES_COUNTED = 100  # pycocotools looks at the best 100 boxes of a class in an image, COCO's rule
IOU_50, IOU_75 = 0, 5  # places in COCO's thresholds 0.50, 0.55 … 0.95
# Of a process: for each index the image's id, rows (k, 6) in its own pixels, k masks as COCO's run lengths or None; and the
# network's seconds.
Found = tuple[dict[int, tuple[int, np.ndarray, list[dict[str, Any]] | None]], float]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; average precisions in 0..1, of boxes unless their name says of masks."""

    map: float  # mean over the classes and the IoU thresholds 0.50, 0.55 … 0.95
    map50: float  # at IoU 0.50
    map75: float  # at IoU 0.75
    per_class: dict[str, float]  # name -> AP over the ten thresholds, of the classes that occur in the data set
    image_count: int
    seconds: float  # all of it: images read, network, NMS, pycocotools
    network_seconds: float  # the share of it that the network took
    # One array (k, 6) for each index of the data set: x1, y1, x2, y2 in the image's own pixels, score, the data set's class.
    detections: list[np.ndarray] = field(repr=False, compare=False)
    # None unless the network segments and the data set's ground truth has the objects' masks.
    mask_map: float | None = None
    mask_map50: float | None = None
    mask_map75: float | None = None
    mask_per_class: dict[str, float] | None = None

    def summary(self) -> dict[str, float]:
        """Return mAP, AP50 and AP75 of boxes, and of masks where there are any, and how many images that took."""
        names = ("map", "map50", "map75", "mask_map", "mask_map50", "mask_map75")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return found | {"images": self.image_count}


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    size: int | None = None,
    batch_size: int = 16,
    conf: float = 0.001,
    iou: float = 0.65,
    max_boxes: int = 300,
    rectangular: bool = False,
    progress: bool | str = False,
    world: Any = None,
) -> Evaluation:
    """Return the `Evaluation` of a detector, as it is given, on every image of a data set, on the model's device.

    Classes are joined by name where the model has names, in whatever order. A quantized network's figure depends in its
    last digits on batch size, threads and program; `exact(model)` gives the one that an exported file has too. `size`: side
    in pixels of the letterbox, by default the data set's own `size`, else the model's, else 640. `rectangular`: images of
    like shape are batched in rectangles, as in the official validation. `progress`: whether to show a bar, or its name.
    `world`: the processes that share the work and all call this; each takes every n-th batch, all get the same result. The
    model is left in the modes that it came in. Raises ValueError for what is no network or no data set, an empty one, other
    classes than the model's, a size that is no multiple of its coarsest stride, and outputs that are not finite.
    """
    begin = time.perf_counter()
    check_dataset(dataset)
    size = size or getattr(dataset, "size", None) or getattr(model, "size", None) or 640
    stride = _check(model, dataset, size, batch_size)
    truth = dataset.ground_truth()
    images = truth["images"][: len(dataset)]
    parts = evaluation_batches(images, size, batch_size, stride=stride, rectangular=rectangular)
    parts = parts if world is None else parts[world.rank :: world.size]
    mine = tqdm(parts, desc=progress if isinstance(progress, str) else "evaluate", unit="batch", disable=not progress)
    lacking = sum(not entry.get("segmentation") for entry in truth["annotations"])
    if 0 < lacking < len(truth["annotations"]):
        log.warning("%d of %d objects have no mask: masks are not measured", lacking, len(truth["annotations"]))
    suppress = partial(detections, classes=len(dataset.names), conf=conf, iou=iou, max_boxes=max_boxes)
    found = _detect(model, dataset, size, mine, suppress, with_masks=not lacking)
    every = [found] if world is None else world.gather(found)
    measured: Any = _summary(every, truth, dataset, begin) if world is None or world.is_main else None
    return measured if world is None else world.broadcast(measured)


def _check(model: nn.Module, dataset: Dataset, size: int, batch_size: int) -> int:
    """Return the model's coarsest stride; raise the ValueError that says which argument of `evaluate` does not fit."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"a network is needed, got a {type(model).__name__}: `oscillab.load(path)` opens a checkpoint")
    if not len(dataset):
        raise ValueError(f"the data set {dataset.name!r} holds no image; at least one is needed to evaluate")
    given, classes = len(dataset.names), getattr(model, "classes", len(dataset.names))
    if classes != given:
        raise ValueError(f"the model knows {classes} classes, the data set {dataset.name!r} has {given}")
    stride = max(getattr(model, "strides", (32,)))
    if size < stride or size % stride or batch_size < 1:
        allowed = f"size must be a multiple of the model's stride {stride}, batch_size 1 or more"
        raise ValueError(f"{allowed}, got {size} and {batch_size}")
    return stride


def in_order(reports: list[dict[int, Any]], count: int) -> list[Any]:
    """Return a list of `count` reports out of several processes' mappings from index to report, each image's once.

    >>> in_order([{0: "a", 2: "c"}, {1: "b"}], 3)
    ['a', 'b', 'c']
    """
    pairs = sorted((pair for each in reports for pair in each.items()), key=lambda pair: pair[0])
    if [index for index, _ in pairs] != list(range(count)):
        raise ValueError(f"each of {count} images must be reported once, got {len(pairs)} reports")
    return [report for _, report in pairs]


@torch.no_grad()
def _detect(model: Any, dataset: Dataset, size: int, parts: Iterable, suppress: Any, *, with_masks: bool) -> Found:
    reports, network_seconds = {}, 0.0
    parameter, classes = next(model.parameters()), len(dataset.names)
    # Wait for the work queued on a GPU, so that the clock tells the truth.
    wait = torch.cuda.synchronize if parameter.is_cuda else lambda: None
    order = np.array(class_order(model, dataset))
    with eval_mode(model):
        for indices, shape in parts:
            images, places = letterbox_batch(dataset, indices, size, shape)
            images = images.to(parameter.device).to(parameter.dtype).div_(255)
            wait()
            begin = time.perf_counter()
            outputs = model(images)
            wait()
            network_seconds += time.perf_counter() - begin
            decoded, prototypes = outputs if isinstance(outputs, tuple) else (outputs, None)
            if prototypes is None and decoded.shape[-1] != 5 + classes:
                raise ValueError(f"{classes} classes need rows of {5 + classes}, the model gave {decoded.shape[-1]}")
            rows = suppress(decoded)
            planes = [None] * len(rows) if prototypes is None or not with_masks else prototypes.float().cpu().numpy()
            for index, found, place, plane in zip(indices, rows, places, planes, strict=True):
                runs = None if plane is None else mask_runs(found, plane, place)
                boxes = place.boxes(found)
                boxes[:, 5] = order[boxes[:, 5].astype(int)]
                reports[int(index)] = place.image_id, boxes, runs
    return reports, network_seconds


def _results(reports: list[Any], dataset: Dataset) -> list[dict[str, Any]]:
    """Return COCO's entries of every image's boxes; corners rounded to 3 places, scores to 5, as published."""
    results = []
    for image_id, rows, runs in reports:
        rows = rows.astype(np.float64)
        boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1).round(3).tolist()
        for k, (box, score, label) in enumerate(zip(boxes, rows[:, 4].round(5).tolist(), rows[:, 5], strict=True)):
            about = {"image_id": image_id, "category_id": dataset.category_ids[int(label)], "bbox": box, "score": score}
            results.append(about if runs is None else about | {"segmentation": runs[k]})
    return results


def average_precision(
    ground_truth: dict[str, Any], results: list[dict[str, Any]], image_ids: Iterable[int], *, iou_type: str = "bbox"
) -> np.ndarray:
    """Return pycocotools' AP (10 IoU thresholds, classes in the order of their category ids); NaN where a class is absent.

    `ground_truth` and `results` are COCO's; only `image_ids` count. `iou_type` "segm" is for entries with a "segmentation".
    """
    truth, found = (_index(ground_truth, entries) for entries in (ground_truth["annotations"], results))
    with redirect_stdout(io.StringIO()):  # pycocotools speaks to the terminal at every step
        measured = COCOeval(truth, found, iou_type)
        measured.params.imgIds = list(image_ids)
        # All sizes of object at once: the three bands of size would take three times as long again.
        measured.params.areaRng, measured.params.areaRngLbl = [[0, 1e10]], ["all"]
        measured.params.maxDets = [BOXES_COUNTED]
        measured.evaluate()
        measured.accumulate()
    precision = measured.eval["precision"][..., 0, 0].mean(1)  # (thresholds, recalls, classes) -> (thresholds, classes)
    return np.where(precision < 0, np.nan, precision)  # pycocotools writes -1


def _index(ground_truth: dict[str, Any], entries: list[dict[str, Any]]) -> Any:
    """Return an index of `entries`, annotations or results, over the images and categories of the ground truth."""
    index = COCO()
    # Numbered afresh from 1: to pycocotools a match with entry number 0 is no match. Copies, for it writes into them.
    usual = ({"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in entries)
    numbered = [one | entry | {"id": k} for k, (one, entry) in enumerate(zip(usual, entries, strict=True), start=1)]
    index.dataset = {**ground_truth, "annotations": numbered}
    with redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def _summary(found: list[Found], truth: dict[str, Any], dataset: Dataset, begin: float) -> Evaluation:
    """Return the `Evaluation` of what each process found."""
    reports = in_order([reports for reports, _ in found], len(dataset))
    image_ids, rows, runs = zip(*reports, strict=True)
    results = _results(reports, dataset)
    order = np.argsort(dataset.category_ids)
    measured: dict[str, Any] = {}
    for prefix, iou_type in (("", "bbox"), ("mask_", "segm"))[: 1 if None in runs else 2]:
        precision = average_precision(truth, results, image_ids, iou_type=iou_type)  # classes in the order of their ids
        present = ~np.isnan(precision[0])
        per_class = {dataset.names[order[k]]: float(precision[:, k].mean()) for k in np.flatnonzero(present)}
        precision = precision[:, present] if present.any() else np.zeros((len(precision), 1))  # nothing to find: 0
        values = {"map": precision, "map50": precision[IOU_50], "map75": precision[IOU_75]}
        measured |= {f"{prefix}{name}": float(value.mean()) for name, value in values.items()}
        measured[f"{prefix}per_class"] = per_class
    measured |= {"image_count": len(dataset), "detections": list(rows)}
    network_seconds = sum(seconds for _, seconds in found)
    return Evaluation(**measured, seconds=time.perf_counter() - begin, network_seconds=network_seconds)

"""How well does a detector find the objects of a data set?

COCO's mean average precision, as the official YOLO code has it worked out: square letterbox (or the official
validation's rectangles), boxes above confidence 0.001 after class-wise NMS at IoU 0.65, at most 300 of them an image,
scaled back to the image as it was, judged by pycocotools; and the same of the masks of a network that segments. This
file is the only one that knows pycocotools, and faster-coco-eval, which may be put in its place.
"""

import io
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm.auto import tqdm

from oscillab.data.masks import mask_runs
from oscillab.data.places import batches, pictures
from oscillab.data.postprocess import detections

BOXES_JUDGED = 100  # pycocotools looks at the best 100 boxes of a class in an image, COCO's rule
IOU_50, IOU_75 = 0, 5  # places in COCO's thresholds 0.50, 0.55 … 0.95


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; average precisions in 0..1, of boxes unless their name says of masks."""

    map: float  # mean over the classes and the IoU thresholds 0.50, 0.55 … 0.95
    map50: float  # at IoU 0.50
    map75: float  # at IoU 0.75
    per_class: dict[str, float]  # name -> AP over the ten thresholds, of the classes that occur in the data set
    image_count: int
    seconds: float  # all of it: pictures read, network, NMS, pycocotools
    network_seconds: float  # the share of it that the network took
    # One array (k, 6) for each index of the data set: x1, y1, x2, y2 in the image's own pixels, score, class index.
    detections: list[np.ndarray] = field(repr=False, compare=False)
    # None unless the network segments and the data set's ground truth has the objects' masks.
    mask_map: float | None = None
    mask_map50: float | None = None
    mask_map75: float | None = None
    mask_per_class: dict[str, float] | None = None


def evaluate(
    model,
    dataset,
    *,
    size=None,
    batch_size=16,
    conf=0.001,
    iou=0.65,
    max_boxes=300,
    rectangular=False,
    progress=False,
    members=None,
    judge="pycocotools",
):
    """The `Evaluation` of a detector on every image of a data set, on the device and in the precision of the model.

    `size` is the side in pixels of the square that images are fitted into; without it, the data set's own `size`, else
    640. `rectangular`: images of like shape are batched in rectangles, as in the official validation, whose published
    figures are so measured. `members`: the `oscillab.train.distributed.Group` of processes that share the work and all call
    this; each takes every n-th batch, and all get the same result. `judge`: "pycocotools", which every published number is
    of, or "faster", its counterpart in C++ (`pip install faster-coco-eval`) with the same results. The model is left in the
    modes (train or eval, module by module) that it came in.

    Raises ValueError for an empty data set, a model of another class count than the data set's, a size that is no
    multiple of the model's coarsest stride, and outputs that are not finite.
    """
    begin = time.perf_counter()
    size = getattr(dataset, "size", 640) if size is None else size
    stride = _check(model, dataset, size, batch_size)
    limits = {"conf": conf, "iou": iou, "max_boxes": max_boxes}
    truth = dataset.ground_truth()
    parts = batches(truth["images"][: len(dataset)], size, batch_size, stride=stride, rectangular=rectangular)
    with_masks = all(entry.get("segmentation") for entry in truth["annotations"])
    mine = parts if members is None else parts[members.rank :: members.count]
    reports, network_seconds = {}, 0.0
    with _eval_mode(model), torch.no_grad():
        for indices, shape in tqdm(mine, desc="evaluate", unit="batch", disable=not progress):
            images, places = pictures(dataset, indices, size, shape)
            decoded, prototypes, seconds = _forward(model, images, len(dataset.names))
            rows = detections(decoded, classes=len(dataset.names), **limits)
            planes = [None] * len(rows) if prototypes is None or not with_masks else prototypes.float().cpu().numpy()
            for index, *report in zip(indices, rows, places, planes, strict=True):
                reports[int(index)] = _Report.of(*report)
            network_seconds += seconds
    if members is None:
        return _summary(in_order([reports], len(dataset)), truth, dataset, begin, network_seconds, judge)
    found, evaluation = members.gathered((reports, network_seconds)), None
    if members.leader:
        every, seconds = zip(*found, strict=True)
        evaluation = _summary(in_order(every, len(dataset)), truth, dataset, begin, sum(seconds), judge)
    return members.from_leader(evaluation)


def in_order(reports, count):
    """A list of `count` reports out of several processes' mappings from index to report, each image's exactly once.

    >>> in_order([{0: "a", 2: "c"}, {1: "b"}], 3)
    ['a', 'b', 'c']
    """
    pairs = sorted((index, report) for each in reports for index, report in each.items())
    if [index for index, _ in pairs] != list(range(count)):
        raise ValueError(f"each of {count} images must be reported once, got {len(pairs)} reports")
    return [report for _, report in pairs]


@dataclass(frozen=True)
class _Report:
    """What was found in one image, in its own pixels."""

    image_id: int
    rows: np.ndarray  # (k, 6)
    runs: list | None  # k masks as COCO's run lengths; None without masks

    @classmethod
    def of(cls, rows, place, prototypes):
        """The report of rows (k, 6 + M) in a letterbox."""
        runs = None if prototypes is None else mask_runs(rows, prototypes, place)
        return cls(place.image_id, place.boxes(rows), runs)


def _check(model, dataset, size, batch_size):
    """The model's coarsest stride; raises the ValueError that says which argument of `evaluate` does not fit."""
    if not len(dataset):
        raise ValueError(f"the data set {dataset.name!r} holds no image; at least one is needed to evaluate")
    classes = getattr(model, "classes", len(dataset.names))
    if classes != len(dataset.names):
        raise ValueError(
            f"the model knows {classes} classes, the data set {dataset.name!r} has {len(dataset.names)}; "
            "they must be the same"
        )
    stride = max(getattr(model, "strides", (32,)))
    if size < stride or size % stride:
        raise ValueError(f"size must be a multiple of the model's stride {stride}, got {size}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    return stride


@contextmanager
def _eval_mode(model):
    """`model` in eval mode within the block; afterwards every module is in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _forward(model, images, classes):
    """Decoded output (N, boxes, 5 + classes [+ 32]) of uint8 images, prototypes or None, the network's seconds."""
    parameter = next(model.parameters())
    images = images.to(parameter.device).to(parameter.dtype).div_(255)
    _wait(parameter.device)
    begin = time.perf_counter()
    outputs = model(images)
    _wait(parameter.device)
    seconds = time.perf_counter() - begin
    decoded, prototypes = outputs if isinstance(outputs, tuple) else (outputs, None)
    if prototypes is None and decoded.shape[-1] != 5 + classes:
        raise ValueError(f"{classes} classes need rows of {5 + classes}, the model gave {decoded.shape[-1]}")
    return decoded, prototypes, seconds


def _wait(device):
    """Waits for the work queued on a GPU, so that a clock beside it tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _results(reports, dataset):
    """COCO's result entries of every image's boxes; box corners rounded to 3 places, scores to 5, as published."""
    results = []
    for report in reports:
        rows = report.rows.astype(np.float64)
        boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1).round(3).tolist()
        labels = rows[:, 5].astype(int).tolist()
        for k, (box, score, label) in enumerate(zip(boxes, rows[:, 4].round(5).tolist(), labels, strict=True)):
            category = dataset.category_ids[label]
            result = {"image_id": report.image_id, "category_id": category, "bbox": box, "score": score}
            results.append(result if report.runs is None else result | {"segmentation": report.runs[k]})
    return results


def average_precision(ground_truth, results, image_ids, *, iou_type="bbox", judge="pycocotools"):
    """AP (10 IoU thresholds, classes in the order of their category ids) by pycocotools; NaN where a class is absent.

    `ground_truth` is a COCO dictionary, `results` its list of result entries; only `image_ids` count. `iou_type` is
    "bbox", or "segm" for entries that hold a "segmentation".
    """
    index_class, judge_class = _judging(judge)
    truth, found = (_index(index_class, ground_truth, entries) for entries in (ground_truth["annotations"], results))
    # pycocotools speaks to the terminal at every step.
    with redirect_stdout(io.StringIO()):
        judging = judge_class(truth, found, iou_type)
        judging.params.imgIds = image_ids
        # All sizes of object at once: the three bands of size would take three times as long again.
        judging.params.areaRng, judging.params.areaRngLbl = [[0, 1e10]], ["all"]
        judging.params.maxDets = [BOXES_JUDGED]
        judging.evaluate()
        judging.accumulate()
    precision = judging.eval["precision"][..., 0, 0].mean(1)  # (thresholds, recalls, classes) -> (thresholds, classes)
    return np.where(precision < 0, np.nan, precision)  # pycocotools writes -1


def _judging(judge):
    """The classes of an index and of its judgement; raises ValueError for another word, or where it is not installed."""
    if judge == "pycocotools":
        return COCO, COCOeval
    if judge != "faster":
        raise ValueError(f"judge must be 'pycocotools' or 'faster', got {judge!r}")
    try:
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise ValueError("judge 'faster' needs a library that is not here: pip install faster-coco-eval") from error
    return FasterCOCO, COCOeval_faster


def _index(index_class, ground_truth, entries):
    """An index of `entries`, annotations or results, over the images and categories of the ground truth."""
    index = index_class()
    # Numbered afresh from 1: to pycocotools a match with entry number 0 is no match. Copies, for it writes into them.
    numbered = [
        {"iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]} | entry | {"id": number}
        for number, entry in enumerate(entries, start=1)
    ]
    index.dataset = {**ground_truth, "annotations": numbered}
    with redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def _summary(reports, truth, dataset, begin, network_seconds, judge):
    """The `Evaluation` of what was found in each image."""
    image_ids = [report.image_id for report in reports]
    results = _results(reports, dataset)
    measured = _averages(average_precision(truth, results, image_ids, judge=judge), dataset)
    if all(report.runs is not None for report in reports):
        masks = _averages(average_precision(truth, results, image_ids, iou_type="segm", judge=judge), dataset)
        measured |= {f"mask_{name}": value for name, value in masks.items()}
    return Evaluation(
        **measured,
        image_count=len(dataset),
        seconds=time.perf_counter() - begin,
        network_seconds=network_seconds,
        detections=[report.rows for report in reports],
    )


def _averages(precision, dataset):
    """The fields of an `Evaluation` that AP (thresholds, classes in the order of category ids) gives."""
    order = np.argsort(dataset.category_ids)
    present = ~np.isnan(precision[0])
    per_class = {dataset.names[order[k]]: float(precision[:, k].mean()) for k in np.flatnonzero(present)}
    precision = precision[:, present] if present.any() else np.zeros((len(precision), 1))  # nothing to find: 0
    values = {"map": precision, "map50": precision[IOU_50], "map75": precision[IOU_75]}
    return {name: float(value.mean()) for name, value in values.items()} | {"per_class": per_class}

"""Decode a detector's output: the boxes that survive non-maximum suppression (NMS), and their masks.

Decoded output holds one row per anchor and cell: box, objectness, one probability per class. Most rows say "nothing here",
and an object is found by many neighbours at once; the network reports what a score threshold and NMS, class by class, leave.

NMS runs in onnxruntime, whose `NonMaxSuppression` treats every class apart in one call. The usual trick of moving each
class's boxes far away and suppressing them all together rounds the coordinates, and then keeps a different box now and
again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from oscillab.data.batches import to_pixels
from oscillab.data.images import Place, letterbox
from oscillab.data.sample import decode_runs
from oscillab.yolo.boxes import xyxy_from_cxcywh

# As in the official evaluation: of one image, at most so many (box, class) pairs enter NMS, the best first.
CANDIDATE_LIMIT = 30_000
OPSET, IR_VERSION = 11, 8  # NonMaxSuppression has meant the same since operator set 11
MASK_THRESHOLD = 0.5  # probability above which a pixel is the object's


def detections(
    decoded: torch.Tensor | np.ndarray,
    *,
    conf: float = 0.001,
    iou: float = 0.65,
    max_boxes: int = 300,
    classes: int | None = None,
) -> list[np.ndarray]:
    """Return the boxes that each image's rows report: float32 arrays (k, 6 [+ M]), best score first.

    `decoded` is (N, boxes, 5 + classes [+ M]): centre x, centre y, width, height in pixels, objectness, one probability
    per class and, where the network segments, M mask coefficients, which travel with their box. Without `classes` every
    column after the fifth is a class. A result row is x1, y1, x2, y2 in pixels, objectness times class probability, and
    the class index. A box is reported once for every class whose score exceeds `conf`; it is suppressed by a better box
    of its own class when their IoU exceeds `iou`.

    Raises ValueError for a shape that is no detector's, thresholds outside 0..1, and NaN or infinity in the output.
    """
    decoded = torch.as_tensor(decoded).detach()
    classes = _checked_classes(decoded, classes, conf, iou, max_boxes)
    # Not `> conf`: a NaN exceeds nothing, and a broken network would pass for an empty image.
    found = ~(decoded[..., 4] <= conf)  # (N, boxes)
    rows = decoded[found].float()  # (rows of all images, 5 + C + M), a copy
    rows[:, :4] = xyxy_from_cxcywh(rows[:, :4])
    table = rows.cpu().numpy()
    if not np.isfinite(table).all():
        raise ValueError("the network's output holds NaN or infinity; a detector's boxes and probabilities are finite")
    ends = found.sum(1).cpu().numpy().cumsum()
    return [_suppressed(image, classes, conf, iou, max_boxes) for image in np.split(table, ends[:-1])]


def _checked_classes(decoded: torch.Tensor, classes: int | None, conf: float, iou: float, max_boxes: int) -> int:
    """Return the number of classes in `decoded`; raise ValueError where an argument is out of range."""
    if decoded.ndim != 3 or decoded.shape[0] < 1 or decoded.shape[2] < 6:
        raise ValueError(f"decoded must be (images, boxes, 5 + classes), got {tuple(decoded.shape)}")
    classes = decoded.shape[2] - 5 if classes is None else classes
    if not 1 <= classes <= decoded.shape[2] - 5:
        raise ValueError(f"classes must be 1..{decoded.shape[2] - 5} for rows of {decoded.shape[2]}, got {classes}")
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be 0..1, got {value}")
    if max_boxes < 1:
        raise ValueError(f"max_boxes must be 1 or more, got {max_boxes}")
    return classes


def _suppressed(rows: np.ndarray, classes: int, conf: float, iou: float, max_boxes: int) -> np.ndarray:
    """Return one image's reported boxes (k, 6 + M) from its rows (n, 5 + C + M) whose objectness exceeds `conf`."""
    scores = rows[:, 5 : 5 + classes] * rows[:, 4:5]  # (n, C)
    useful = scores.max(1, initial=0) > conf
    rows, scores = rows[useful], _best(scores[useful], conf)
    which_class, which_box = _nms(rows[:, :4], np.ascontiguousarray(scores.T), conf, iou, max_boxes)
    score = scores[which_box, which_class]
    best = np.argsort(-score, kind="stable")[:max_boxes]
    which_class, which_box = which_class[best], which_box[best]
    parts = rows[which_box, :4], score[best, None], which_class[:, None], rows[which_box, 5 + classes :]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _best(scores: np.ndarray, conf: float) -> np.ndarray:
    """Return `scores` with all but the `CANDIDATE_LIMIT` greatest set to 0, where more than that exceed `conf`."""
    surplus = np.count_nonzero(scores > conf) - CANDIDATE_LIMIT
    if surplus > 0:
        np.put(scores, np.argpartition(scores, -CANDIDATE_LIMIT, axis=None)[:-CANDIDATE_LIMIT], 0)
    return scores


def _nms(boxes: np.ndarray, scores: np.ndarray, conf: float, iou: float, max_boxes: int) -> np.ndarray:
    """Return indices (classes, boxes) of what NMS keeps of boxes (n, 4) with scores (C, n), every class by itself."""
    if not len(boxes):
        return np.zeros((2, 0), np.int64)
    inputs = {
        "boxes": np.ascontiguousarray(boxes[None]),
        "scores": scores[None],
        "most": np.array([max_boxes], np.int64),  # of one class; the caller cuts over all classes
        "iou": np.array([iou], np.float32),
        "conf": np.array([conf], np.float32),
    }
    return _session(os.getpid()).run(None, inputs)[0].T[1:]  # (image, class, box) x kept -> (class, box)


@lru_cache(maxsize=1)
def _session(process: int) -> Any:
    """Return the onnxruntime session of this process; a forked worker asks with its own number, and so makes its own."""
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = dict.fromkeys(("boxes", "scores", "iou", "conf"), TensorProto.FLOAT) | {"most": TensorProto.INT64}
    names = ("boxes", "scores", "most", "iou", "conf")
    values = [helper.make_tensor_value_info(name, kinds[name], None) for name in names]
    kept = helper.make_tensor_value_info("kept", TensorProto.INT64, None)
    graph = helper.make_graph([helper.make_node("NonMaxSuppression", names, ["kept"])], "nms", values, [kept])
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would contend with torch's threads for the same cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def decode_masks(rows: np.ndarray, prototypes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the masks (k, height, width) of 0 and 1, uint8, of rows (k, 6 + M) in an image of `shape` (height, width).

    A row's coefficients weigh the image's `prototypes` (M, h, w), a quarter of its size. Their sum of products, squashed to
    0..1, enlarged by linear interpolation, cut to the box and compared with 0.5 is the mask. Only the pixels of the box are
    worked out, which gives the same. Raises ValueError where rows and prototypes do not fit together.
    """
    masks = np.zeros((len(rows), *shape), np.uint8)
    for mask, (cut, top, left) in zip(masks, cut_masks(rows, prototypes, shape), strict=True):
        mask[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return masks


def mask_runs(rows: np.ndarray, prototypes: np.ndarray, place: Place) -> list[dict[str, Any]]:
    """Return COCO's run lengths, one dictionary a row, of the masks of rows (k, 6 + M) in the image as it was.

    `place` says where the image lies in the letterbox that the rows are of. Where it was resized, masks are resized back by
    linear interpolation and rounding, as the official code has it.
    """
    left, top = (int(side) for side in place.pad)
    bottom, right = (int(side - pad) for side, pad in zip(place.shape, place.pad[::-1], strict=True))
    own = place.height, place.width
    runs = []
    for cut, y, x in cut_masks(rows, prototypes, place.shape):
        if own == (bottom - top, right - left):
            cut = cut[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)]
            runs.append(encode_cut(cut, max(y - top, 0), max(x - left, 0), own))
        else:
            whole = np.zeros(place.shape, np.uint8)
            whole[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
            runs.append(encode_cut(cv2.resize(whole[top:bottom, left:right], own[::-1]), 0, 0, own))
    return runs


def cut_masks(
    rows: np.ndarray, prototypes: np.ndarray, shape: tuple[int, int]
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield for each row its mask inside its box and where that lies in the image: (uint8 (h, w), top, left)."""
    count, *size = prototypes.shape
    factor = shape[0] // size[0]
    if rows.shape[1] != 6 + count or (size[0] * factor, size[1] * factor) != tuple(shape):
        raise ValueError(
            f"rows of {rows.shape[1]} and prototypes of {prototypes.shape} do not fit an image of {tuple(shape)}: "
            "rows must be 6 + M, prototypes (M, height / n, width / n)"
        )
    logits = (rows[:, 6:] @ prototypes.reshape(count, -1)).reshape(-1, *size)  # (k, h, w)
    limits = np.ceil(rows[:, :4]).clip(0, [shape[1], shape[0]] * 2).astype(int)
    for plane, (x1, y1, x2, y2) in zip(logits, limits.tolist(), strict=True):
        if x1 < x2 and y1 < y2:
            yield cut_mask(plane, slice(y1, y2), slice(x1, x2), factor), y1, x1
        else:
            yield np.zeros((0, 0), np.uint8), 0, 0


def cut_mask(logits: np.ndarray, rows: slice, columns: slice, factor: int) -> np.ndarray:
    """Return the mask, uint8, of the pixels `rows`, `columns` of an image `factor` times as large as `logits` (h, w)."""
    # One more of the small pixels on every side: what interpolation makes up beyond the edge is cut off again.
    first = [max(part.start // factor - 1, 0) for part in (rows, columns)]
    small = logits[first[0] : (rows.stop - 1) // factor + 2, first[1] : (columns.stop - 1) // factor + 2]
    probabilities = 1 / (1 + np.exp(-small.clip(-60, 60)))  # beyond 60 nothing changes but that exp overflows
    large = cv2.resize(probabilities, (factor * small.shape[1], factor * small.shape[0]))
    inside = [slice(p.start - factor * f, p.stop - factor * f) for p, f in zip((rows, columns), first, strict=True)]
    return (large[inside[0], inside[1]] > MASK_THRESHOLD).astype(np.uint8)


def encode_cut(cut: np.ndarray, top: int, left: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Return COCO's run lengths of a mask of `shape` (height, width) that is 0 but for `cut` (h, w) at top, left.

    >>> encode_cut(np.array([[1, 1]]), 1, 0, (2, 3))
    {'size': [2, 3], 'counts': [1, 1, 1, 1, 2]}
    """
    height, width = shape
    pixels = np.zeros(cut.shape[1] * height + 2, bool)  # column after column, as run lengths count, between two zeros
    pixels[1:-1].reshape(-1, height)[:, top : top + cut.shape[0]] = cut.T
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + left * height
    ends = np.concatenate(([0], changes, [width * height]))
    return {"size": [int(height), int(width)], "counts": (ends[1:] - ends[:-1]).tolist()}


class Found(NamedTuple):
    """What a detector reports of one image, best score first."""

    boxes: np.ndarray  # (n, 4) x1 y1 x2 y2 in pixels of the image
    scores: np.ndarray  # (n,) in 0..1
    labels: np.ndarray  # (n,) index into the detector's names
    masks: np.ndarray | None  # (n, H, W) of 0 and 1, in the image's size; None where the detector does not segment


@torch.no_grad()
def detect(model: Any, image: np.ndarray, *, size: int = 640, conf: float = 0.25, iou: float = 0.45) -> Found:
    """Return the `Found` objects in an image, uint8 RGB (H, W, 3), by a detector in eval mode, torch's or an ONNX file's.

    `size` is the side of the square letterbox in pixels, a multiple of the detector's largest stride.
    """
    square, ratio, pad = letterbox(image, size)
    pixels = to_pixels(torch.tensor(square).permute(2, 0, 1)[None], next(model.parameters()).device)
    output = model(pixels)
    decoded, prototypes = output if isinstance(output, tuple) else (output, None)
    rows = detections(decoded, conf=conf, iou=iou, classes=model.classes)[0]
    height, width = image.shape[:2]
    place = Place(0, width, height, ratio, pad, (size, size))
    masks = None
    if prototypes is not None:
        planes = [decode_runs(runs) for runs in mask_runs(rows, prototypes[0].float().cpu().numpy(), place)]
        masks = np.stack(planes) if planes else np.zeros((0, height, width), np.uint8)
    return Found(place.boxes(rows)[:, :4], rows[:, 4], rows[:, 5].astype(int), masks)

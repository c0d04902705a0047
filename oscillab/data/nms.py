"""Decode a detector's output: the boxes that survive non-maximum suppression (NMS), and their masks.

NMS runs in onnxruntime, whose `NonMaxSuppression` treats every class apart in one call. The usual trick of moving each
class's boxes far away and suppressing them all together rounds the coordinates, and keeps a different box now and again.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from oscillab.data.batches import to_pixels
from oscillab.data.images import Place, decode_mask, encode_runs, letterbox
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

    `decoded` is (N, boxes, 5 + classes [+ M]): centre x, centre y, width, height in pixels, objectness, one probability per
    class and M mask coefficients where the network segments; without `classes` all columns after the fifth are classes. A
    result row is x1, y1, x2, y2 in pixels, objectness times class probability, class index, coefficients. A box is reported
    for every class whose score exceeds `conf`, unless its IoU with a better one exceeds `iou`.

    Raises ValueError for a shape that is no detector's, thresholds outside 0..1, and NaN or infinity in the output.
    """
    decoded = torch.as_tensor(decoded).detach()
    if decoded.ndim != 3 or decoded.shape[0] < 1 or decoded.shape[2] < 6:
        raise ValueError(f"decoded must be (images, boxes, 5 + classes), got {tuple(decoded.shape)}")
    classes = decoded.shape[2] - 5 if classes is None else classes
    if not 1 <= classes <= decoded.shape[2] - 5:
        raise ValueError(f"classes must be 1..{decoded.shape[2] - 5} for rows of {decoded.shape[2]}, got {classes}")
    if not (0 <= conf <= 1 and 0 <= iou <= 1 and max_boxes >= 1):
        raise ValueError(f"conf and iou must be 0..1, max_boxes 1 or more, got {conf}, {iou} and {max_boxes}")
    # Not `> conf`: a NaN exceeds nothing, and a broken network would pass for an empty image.
    found = ~(decoded[..., 4] <= conf)  # (N, boxes)
    rows = decoded[found].float()  # (rows of all images, 5 + C + M), a copy
    rows[:, :4] = xyxy_from_cxcywh(rows[:, :4])
    table = rows.cpu().numpy()
    if not np.isfinite(table).all():
        raise ValueError("the network's output holds NaN or infinity; a detector's boxes and probabilities are finite")
    ends = found.sum(1).cpu().numpy().cumsum()
    return [_suppressed(image, classes, conf, iou, max_boxes) for image in np.split(table, ends[:-1])]


def _suppressed(rows: np.ndarray, classes: int, conf: float, iou: float, max_boxes: int) -> np.ndarray:
    """Return one image's reported boxes (k, 6 + M) from its rows (n, 5 + C + M) whose objectness exceeds `conf`."""
    scores = rows[:, 5 : 5 + classes] * rows[:, 4:5]  # (n, C)
    useful = scores.max(1, initial=0) > conf
    rows, scores = rows[useful], scores[useful]
    if not len(rows):
        return np.zeros((0, 1 + rows.shape[1] - classes), np.float32)
    if np.count_nonzero(scores > conf) > CANDIDATE_LIMIT:
        np.put(scores, np.argpartition(scores, -CANDIDATE_LIMIT, axis=None)[:-CANDIDATE_LIMIT], 0)
    limits = {"most": np.array([max_boxes], np.int64)}  # of one class; all classes are cut below
    limits |= {"iou": np.array([iou], np.float32), "conf": np.array([conf], np.float32)}
    inputs = {"boxes": np.ascontiguousarray(rows[None, :, :4]), "scores": np.ascontiguousarray(scores.T)[None]}
    which_class, which_box = _session(os.getpid()).run(None, inputs | limits)[0].T[1:]  # from (image, class, box)
    score = scores[which_box, which_class]
    best = np.argsort(-score, kind="stable")[:max_boxes]
    label, row = which_class[best], rows[which_box[best]]
    return np.concatenate([row[:, :4], score[best, None], label[:, None], row[:, 5 + classes :]], 1, dtype=np.float32)


@lru_cache(maxsize=1)
def _session(process: int) -> Any:
    """Return the onnxruntime session of this process; a forked worker asks with its own number, and so makes its own."""
    import onnxruntime
    from onnx import parser

    model = parser.parse_model(
        f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]> nms (float[N,B,4] boxes, float[N,C,B] scores, '
        "int64[1] most, float[1] iou, float[1] conf) => (int64[K,3] kept) "
        "{ kept = NonMaxSuppression(boxes, scores, most, iou, conf) }"
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would contend with torch's threads for the same cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def mask_runs(rows: np.ndarray, prototypes: np.ndarray, place: Place) -> list[dict[str, Any]]:
    """Return COCO's run lengths, one dictionary a row, of the masks of rows (k, 6 + M) in the image as it was.

    A row's coefficients weigh the image's `prototypes` (M, h, w), a quarter of its size. Their sum of products, squashed to
    0..1, enlarged by linear interpolation, cut to the box and compared with 0.5 is the mask in the letterbox that `place`
    tells of. Where the image was resized, masks are resized back by linear interpolation and rounding, as the official code
    has it. Raises ValueError where rows and prototypes do not fit together.
    """
    count, *small = prototypes.shape
    factor = place.shape[0] // small[0]
    if rows.shape[1] != 6 + count or (small[0] * factor, small[1] * factor) != place.shape:
        given = f"rows of {rows.shape[1]} and prototypes of {prototypes.shape} do not fit an image of {place.shape}"
        raise ValueError(f"{given}: rows must be 6 + M, prototypes (M, height / n, width / n)")
    logits = (rows[:, 6:] @ prototypes.reshape(count, -1)).reshape(-1, *small)  # (k, h, w)
    limits = np.ceil(rows[:, :4]).clip(0, place.shape[::-1] * 2).astype(int)
    left, top = (int(side) for side in place.pad)
    bottom, right = (int(side - pad) for side, pad in zip(place.shape, place.pad[::-1], strict=True))
    runs = []
    for plane, (x1, y1, x2, y2) in zip(logits, limits.tolist(), strict=True):
        probabilities = 1 / (1 + np.exp(-plane.clip(-60, 60)))  # beyond 60 nothing changes but that exp overflows
        mask = np.zeros(place.shape, np.uint8)
        mask[y1:y2, x1:x2] = cv2.resize(probabilities, place.shape[::-1])[y1:y2, x1:x2] > MASK_THRESHOLD
        mask = mask[top:bottom, left:right]
        if mask.shape != (place.height, place.width):
            mask = cv2.resize(mask, (place.width, place.height))
        runs.append(encode_runs(mask))
    return runs


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
    square, place = letterbox(image, size)
    pixels = to_pixels(torch.from_numpy(square.copy()).permute(2, 0, 1)[None], next(model.parameters()).device)
    output = model(pixels)
    decoded, prototypes = output if isinstance(output, tuple) else (output, None)
    rows = detections(decoded, conf=conf, iou=iou, classes=model.classes)[0]
    masks = None
    if prototypes is not None:
        shape = image.shape[:2]
        planes = [decode_mask(runs, *shape) for runs in mask_runs(rows, prototypes[0].float().cpu().numpy(), place)]
        masks = np.array(planes, np.uint8).reshape(-1, *shape)
    return Found(place.boxes(rows)[:, :4], rows[:, 4], rows[:, 5].astype(int), masks)

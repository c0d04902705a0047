"""Which boxes does a detector report?

A detector's decoded output holds one row per anchor and cell: box, objectness, one probability per class. Most rows say
"nothing here", and an object is found by many neighbours at once. What is left after a score threshold and non-maximum
suppression (NMS), class by class, is what the network reports.

NMS runs in onnxruntime, whose `NonMaxSuppression` treats every class apart in one call. The usual trick of moving each
class's boxes far away and suppressing them all together rounds the coordinates, and then keeps a different box now and
again.
"""

import os
from functools import lru_cache

import numpy as np
import onnxruntime
import torch

from oscillab.yolo.boxes import xyxy_from_cxcywh

# As in the official evaluation: of one image, at most so many (box, class) pairs enter NMS, the best first.
CANDIDATE_LIMIT = 30_000

FLOAT, INT64 = 1, 7  # onnx's numbers of the element types
OPSET, IR_VERSION = 11, 8  # NonMaxSuppression has meant the same since operator set 11


def detections(decoded, *, conf=0.001, iou=0.65, max_boxes=300, classes=None):
    """The boxes that each image's rows report: a list of float32 arrays (k, 6 [+ M]), best score first.

    `decoded` is (N, boxes, 5 + classes [+ M]): centre x, centre y, width, height in pixels, objectness, one probability
    per class and, where the network segments, M mask coefficients, which travel with their box. Without `classes` every
    column after the fifth is a class. A result row is x1, y1, x2, y2 in pixels, objectness times class probability, and
    the class index. A box is reported once for every class whose score exceeds `conf`; it is suppressed by a better box
    of its own class when their IoU exceeds `iou`.

    Raises ValueError for a shape that is no detector's, thresholds outside 0..1, and NaN or infinity in the output.
    """
    decoded = torch.as_tensor(decoded).detach()
    classes = _checked_classes(decoded, classes, conf, iou, max_boxes)
    # Not `> conf`: a NaN exceeds nothing, and a broken network would pass for an empty picture.
    found = ~(decoded[..., 4] <= conf)  # (N, boxes)
    rows = decoded[found].float()  # (rows of all images, 5 + C + M), a copy
    rows[:, :4] = xyxy_from_cxcywh(rows[:, :4])
    rows = rows.cpu().numpy()
    if not np.isfinite(rows).all():
        raise ValueError("the network's output holds NaN or infinity; a detector's boxes and probabilities are finite")
    ends = found.sum(1).cpu().numpy().cumsum()
    return [_report(image, classes, conf, iou, max_boxes) for image in np.split(rows, ends[:-1])]


def _checked_classes(decoded, classes, conf, iou, max_boxes):
    """The number of classes in `decoded`; raises ValueError where an argument of `detections` is out of range."""
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


def _report(rows, classes, conf, iou, max_boxes):
    """One image's reported boxes (k, 6 + M) from its rows (n, 5 + C + M) whose objectness exceeds `conf`."""
    scores = rows[:, 5 : 5 + classes] * rows[:, 4:5]  # (n, C)
    useful = scores.max(1, initial=0) > conf
    rows, scores = rows[useful], _best(scores[useful], conf)
    which_class, which_box = _suppress(rows[:, :4], np.ascontiguousarray(scores.T), conf, iou, max_boxes)
    score = scores[which_box, which_class]
    best = np.argsort(-score, kind="stable")[:max_boxes]
    which_class, which_box = which_class[best], which_box[best]
    parts = rows[which_box, :4], score[best, None], which_class[:, None], rows[which_box, 5 + classes :]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _best(scores, conf):
    """`scores` with all but the `CANDIDATE_LIMIT` greatest set to 0, where more than that exceed `conf`."""
    surplus = np.count_nonzero(scores > conf) - CANDIDATE_LIMIT
    if surplus > 0:
        np.put(scores, np.argpartition(scores, -CANDIDATE_LIMIT, axis=None)[:-CANDIDATE_LIMIT], 0)
    return scores


def _suppress(boxes, scores, conf, iou, max_boxes):
    """Indices (classes, boxes) of what NMS keeps of boxes (n, 4) with scores (C, n), every class by itself."""
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
def _session(process):
    """The onnxruntime session of this process; a forked worker asks with its own number, and so makes its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would contend with torch's threads for the same cores
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_nms_model(), options, providers=["CPUExecutionProvider"])


def _nms_model():
    """Bytes of an ONNX model of one node, NonMaxSuppression, in protobuf's wire format (field numbers: onnx.proto).

    Written by hand, so that to evaluate needs no `onnx` package beside onnxruntime.
    """
    inputs = {"boxes": FLOAT, "scores": FLOAT, "most": INT64, "iou": FLOAT, "conf": FLOAT}
    node = _message(*((1, name) for name in inputs), (2, "kept"), (4, "NonMaxSuppression"))
    values = [(11, _value(name, element)) for name, element in inputs.items()]
    graph = _message((1, node), (2, "nms"), *values, (12, _value("kept", INT64)))
    return _message((1, IR_VERSION), (7, graph), (8, _message((2, OPSET))))


def _value(name, element):
    """A ValueInfoProto: a tensor's name and element type, its shape left open."""
    return _message((1, name), (2, _message((1, _message((1, element))))))


def _message(*fields):
    """Bytes of a protobuf message of (number, value) fields: a whole number, or text or a message with its length."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            data += _varint(number << 3 | 2) + _varint(len(value)) + value
    return data


def _varint(value):
    """Bytes of a whole number, seven bits at a time, the lowest first; a set top bit says that more follow.

    >>> _varint(300).hex()
    'ac02'
    """
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)

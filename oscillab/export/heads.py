"""How do maps become boxes in pixels, in ONNX?

The decoding of `yolo.heads.decode_level`, operation by operation. A cell's column and row are worked out from the size of the
map, so that one file serves every size, and a runtime that knows the size works them out once.
"""

import numpy as np

from oscillab.quant.channels import double

from .convolution import emit_convolution
from .layers import emit_layer


def emit_head(graph, way, name, head, maps):
    """The names of the decoded boxes (N, A·ΣHW, 5 + C [+ 32]) and, where it segments, of the prototypes."""
    levels = [emit_level(graph, way, name, head, level, x) for level, x in enumerate(maps)]
    outputs = [graph.add("Concat", levels, axis=1, output="decoded")]
    if head.task == "segment":
        outputs.append(
            graph.add("Identity", [emit_layer(graph, way, f"{name}.proto", head.proto, maps[0])], output="prototypes")
        )
    return outputs


def emit_level(graph, way, name, head, level, x):
    """The name of one level's decoded boxes (N, A·H·W, 5 + C [+ 32])."""
    raw = predict(graph, way, name, head, level, x)
    anchors = double(head.anchors_in_pixels()[level])  # (A, 2)
    shape = graph.constant(f"{name}.rows", np.int64([0, len(anchors), head.outputs, -1]))
    rows = graph.add("Transpose", [graph.add("Reshape", [raw, shape])], perm=[0, 1, 3, 2])  # (N, A, H·W, 5 + C [+ 32])
    parts = [2, 2, 1 + head.classes, *[head.coefficients] * (head.coefficients > 0)]
    split = graph.add("Split", [rows, graph.constant(f"{name}.parts", np.int64(parts))], axis=-1, outputs=len(parts))
    xy, wh, scores = (graph.add("Sigmoid", [part]) for part in split[:3])
    two = graph.constant("two", np.float32(2))
    moved = graph.add("Sub", [graph.add("Mul", [xy, two]), graph.constant("half", np.float32(0.5))])
    moved = graph.add("Add", [moved, cells(graph, raw)])
    centre = graph.add("Mul", [moved, graph.constant(f"{name}.stride.{level}", np.float32(head.strides[level]))])
    square = graph.add("Pow", [graph.add("Mul", [wh, two]), two])
    size = graph.add("Mul", [square, graph.constant(f"{name}.anchors.{level}", anchors[:, None])])
    joined = graph.add("Concat", [centre, size, scores, *split[3:]], axis=-1)
    return graph.add("Reshape", [joined, graph.constant(f"{name}.boxes", np.int64([0, -1, head.outputs]))])


def predict(graph, way, name, head, level, x):
    """The name, `raw.<level>`, of the predictions (N, A·(5 + C [+ 32]), H, W) of one level's map, as `head.predict` has it."""
    offsets, factors = getattr(head, "ia", None), getattr(head, "im", None)
    if offsets is not None:
        offset = double(offsets[level].implicit)[0]  # (C, 1, 1)
        x = graph.add("Add", [x, graph.constant(f"{name}.ia.{level}", offset)])
    used = factors is not None and head.coefficients == 0  # ImplicitSegment's factors are idle
    factor = double(factors[level].implicit).ravel() if used else None
    layer = f"{name}.m.{level}"
    return emit_convolution(graph, way, layer, head.m[level], x, factor=factor, output=f"raw.{level}")


def cells(graph, raw):
    """The name of the column and row (H·W, 2) of every cell of a map, as floats, row after row."""
    height, width = (graph.add("Shape", [raw], start=axis, end=axis + 1) for axis in (2, 3))
    count = graph.add("Squeeze", [graph.add("Mul", [height, width])])
    zero, one = (graph.constant(f"int.{i}", np.int64(i)) for i in (0, 1))
    numbers = graph.add("Range", [zero, count, one])
    places = [graph.add(kind, [numbers, width]) for kind in ("Mod", "Div")]
    last = graph.constant("last", np.int64([1]))
    columns = [graph.add("Unsqueeze", [place, last]) for place in places]
    return graph.add("Cast", [graph.add("Concat", columns, axis=1)], to=1)

"""Write the blocks and the head of a network as ONNX operations.

Blocks are traced by torch.fx down to the modules and functions of the two tables below; what is in neither is refused by
name. The head's decoding is `yolo.heads.decode_level`; cells are worked out from the map's size, so that one file serves
every size.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import fx, nn

from oscillab.quant import QuantConv2d
from oscillab.quant.exact import ExactSiLU, double
from oscillab.yolo.blocks import Pool, Upsample
from oscillab.yolo.heads import ImplicitDetect, ImplicitSegment

from .graph import Graph, batch_norm, emit_convolution


def max_pool(graph: Graph, layer: nn.MaxPool2d, x: str) -> str:
    """Add a MaxPool; beyond the edges of a map nothing is the largest, in both."""
    sides = layer.kernel_size, layer.stride, layer.padding
    kernel, stride, padding = [(side, side) if isinstance(side, int) else side for side in sides]
    if layer.dilation not in (1, (1, 1)) or layer.ceil_mode:
        raise ValueError(f"a MaxPool2d must have neither dilation nor ceil_mode, got {layer}")
    return graph.add("MaxPool", [x], kernel_shape=kernel, strides=stride, pads=[*padding, *padding])


def enlarge(graph: Graph, layer: Any, x: str) -> str:
    """Add an enlargement: output pixel i reads input pixel floor(i / factor), as torch's nearest has it."""
    if layer.mode != "nearest" or layer.scale_factor != int(layer.scale_factor):
        raise ValueError(f"an Upsample must be nearest, by a whole factor, got {layer}")
    factor = int(layer.scale_factor)
    scales = graph.constant(f"scales.{factor}", np.array([1, 1, factor, factor], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", [x, "", scales], **how)


def exact_silu(graph: Graph, layer: nn.Module, x: str) -> str:
    """Add x / (1 + e^-x), e^-x in double precision."""
    power = graph.add("Cast", [graph.add("Neg", [x])], to=TensorProto.DOUBLE)
    power = graph.add("Cast", [graph.add("Exp", [power])], to=TensorProto.FLOAT)
    return graph.add("Div", [x, graph.add("Add", [power, graph.constant("unit", np.float32(1))])])


MODULES: dict[type[nn.Module], Callable[..., str]] = {
    nn.SiLU: lambda graph, layer, x: graph.add("Mul", [x, graph.add("Sigmoid", [x])]),
    ExactSiLU: exact_silu,
    nn.LeakyReLU: lambda graph, layer, x: graph.add("LeakyRelu", [x], alpha=layer.negative_slope),
    nn.ReLU: lambda graph, layer, x: graph.add("Relu", [x]),
    nn.Sigmoid: lambda graph, layer, x: graph.add("Sigmoid", [x]),
    nn.Identity: lambda graph, layer, x: x,
    nn.MaxPool2d: max_pool,
    Pool: max_pool,
    nn.Upsample: enlarge,
    Upsample: enlarge,
}
FUNCTIONS: dict[Any, Callable[..., str]] = {
    torch.cat: lambda graph, values, dim=0: graph.add("Concat", values, axis=dim),
    operator.add: lambda graph, a, b: graph.add("Add", [a, b]),
    operator.mul: lambda graph, a, b: graph.add("Mul", [a, b]),
}
CONVOLUTIONS = (nn.Conv2d, QuantConv2d)


class _Tracer(fx.Tracer):
    """Stops at what the table knows, and at what nothing is inside of."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        known = type(module) in MODULES or isinstance(module, (*CONVOLUTIONS, nn.BatchNorm2d))
        return known or not list(module.children())


def emit_layer(graph: Graph, name: str, layer: nn.Module, value: Any) -> str:
    """Add a layer to what is called `value`, a name or a list of names, and return the name of what it gives."""
    if type(layer) in MODULES:
        return MODULES[type(layer)](graph, layer, value)
    values: dict[fx.Node, Any] = {}
    absorbed: dict[fx.Node, fx.Node] = {}
    try:
        trace = _Tracer().trace(layer)
    except (fx.proxy.TraceError, TypeError) as error:  # its code branches on values
        reason = str(error).splitlines()[0]
        raise ValueError(f"layer {name!r} ({type(layer).__name__}) cannot be exported: {reason}") from error
    for node in trace.nodes:
        if node.op == "placeholder":
            values[node] = value
        elif node.op == "output":
            return values[node.args[0]]
        elif node in absorbed:
            values[node] = values[absorbed[node]]
        else:
            inputs = fx.node.map_arg(node.args, values.__getitem__)
            values[node] = _emit_node(graph, name, layer, node, inputs, absorbed)
    raise AssertionError("a traced layer has an output")


def _emit_node(
    graph: Graph, name: str, layer: nn.Module, node: Any, inputs: Any, absorbed: dict[fx.Node, fx.Node]
) -> str:
    """Add one node of a trace; a BatchNorm that a convolution takes in goes to `absorbed`."""
    if node.op == "call_function" and node.target in FUNCTIONS:
        return FUNCTIONS[node.target](graph, *inputs, **node.kwargs)
    if node.op != "call_module":
        called = getattr(node.target, "__name__", node.target)
        raise ValueError(f"layer {name!r} ({type(layer).__name__}) cannot be exported: it calls {called}")
    module, full = layer.get_submodule(node.target), f"{name}.{node.target}"
    if isinstance(module, CONVOLUTIONS):
        after = [user for user in node.users if user.op == "call_module"] if len(node.users) == 1 else []
        bn = layer.get_submodule(after[0].target) if after else None
        bn = bn if isinstance(bn, nn.BatchNorm2d) else None
        if bn is not None:
            absorbed[after[0]] = node
        return emit_convolution(graph, full, module, *inputs, bn=bn)
    if isinstance(module, nn.BatchNorm2d):
        return batch_norm(graph, full, module, *inputs)
    if type(module) not in MODULES:
        known = ", ".join(sorted({kind.__name__ for kind in MODULES if kind is not ExactSiLU}))
        raise ValueError(f"layer {full!r} cannot be exported: {type(module).__name__} is none of {known}")
    return MODULES[type(module)](graph, module, *inputs)


def emit_head(graph: Graph, name: str, head: Any, maps: list[str]) -> list[str]:
    """Add the head and return the names of the decoded boxes (N, A·ΣHW, 5 + C [+ 32]) and, where it segments, of the prototypes."""
    levels = [emit_level(graph, name, head, level, x) for level, x in enumerate(maps)]
    outputs = [graph.add("Concat", levels, axis=1, output="decoded")]
    if head.task == "segment":
        prototypes = emit_layer(graph, f"{name}.proto", head.proto, maps[0])
        outputs.append(graph.add("Identity", [prototypes], output="prototypes"))
    return outputs


def emit_level(graph: Graph, name: str, head: Any, level: int, x: str) -> str:
    """Add one level's decoded boxes (N, A·H·W, 5 + C [+ 32])."""
    raw = predict(graph, name, head, level, x)
    anchors = double(head.anchors_in_pixels()[level])  # (A, 2)
    shape = graph.constant(f"{name}.rows", np.array([0, len(anchors), head.outputs, -1], np.int64))
    rows = graph.add("Transpose", [graph.add("Reshape", [raw, shape])], perm=[0, 1, 3, 2])  # (N, A, H·W, 5 + C [+ 32])
    parts = [2, 2, 1 + head.classes, *[head.coefficients] * (head.coefficients > 0)]
    split = graph.split(rows, graph.constant(f"{name}.parts", np.array(parts, np.int64)), len(parts))
    xy, wh, scores = (graph.add("Sigmoid", [part]) for part in split[:3])
    two = graph.constant("two", np.float32(2))
    moved = graph.add("Sub", [graph.add("Mul", [xy, two]), graph.constant("half", np.float32(0.5))])
    moved = graph.add("Add", [moved, cells(graph, raw)])
    centre = graph.add("Mul", [moved, graph.constant(f"{name}.stride.{level}", np.float32(head.strides[level]))])
    square = graph.add("Pow", [graph.add("Mul", [wh, two]), two])
    size = graph.add("Mul", [square, graph.constant(f"{name}.anchors.{level}", anchors[:, None])])
    joined = graph.add("Concat", [centre, size, scores, *split[3:]], axis=-1)
    return graph.add("Reshape", [joined, graph.constant(f"{name}.boxes", np.array([0, -1, head.outputs], np.int64))])


def predict(graph: Graph, name: str, head: Any, level: int, x: str) -> str:
    """Add `raw.<level>`, the predictions (N, A·(5 + C [+ 32]), H, W) of one level's map, as `head.predict` has it."""
    if isinstance(head, ImplicitDetect | ImplicitSegment):
        x = graph.add("Add", [x, graph.constant(f"{name}.ia.{level}", double(head.ia[level].implicit)[0])])  # (C, 1, 1)
    factor = double(head.im[level].implicit).ravel() if isinstance(head, ImplicitDetect) else None
    return emit_convolution(graph, f"{name}.m.{level}", head.m[level], x, factor=factor, output=f"raw.{level}")


def cells(graph: Graph, raw: str) -> str:
    """Add the column and row (H·W, 2) of every cell of a map, as floats, row after row."""
    height, width = (graph.add("Shape", [raw], start=axis, end=axis + 1) for axis in (2, 3))
    count = graph.add("Squeeze", [graph.add("Mul", [height, width])])
    zero, one = (graph.constant(f"int.{i}", np.int64(i)) for i in (0, 1))
    numbers = graph.add("Range", [zero, count, one])
    places = [graph.add(kind, [numbers, width]) for kind in ("Mod", "Div")]
    last = graph.constant("last", np.array([1], np.int64))
    columns = [graph.add("Unsqueeze", [place, last]) for place in places]
    return graph.add("Cast", [graph.add("Concat", columns, axis=1)], to=1)

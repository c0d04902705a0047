"""Count what a file holds, what it saves, and what is left in floats.

For one image; a multiplication of w by a bits is w · a bit operations (BOPs, as in 1804.10969), in floats 32 · 32.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from oscillab.yolo.zoo import GFLOPS_SIZE

from .graph import STORED_BITS, byte_count
from .reader import read

RUNTIME = """\
onnxruntime's CPU provider has no convolution of 4-bit numbers: it turns the states back into floats and convolves those.
There the file is smaller and not faster, in the exact form less so than in qdq (`python -m benchmarks.export` measures it).
Speed is for hardware, or a compiler, that multiplies the integers themselves; activation functions, shortcuts and decoding
stay in floats there too."""


ENDS_OF_SILU = {("Mul", "Sigmoid"), ("Add", "Cast")}  # x · σ(x), and x / (1 + e^-x), whose power was cast
ACTIVATIONS = ("Sigmoid", "LeakyRelu", "Relu", "Neg", "Exp", "Cast", "Div")
MOVES = ("Concat", "Resize", "MaxPool", "Transpose", "Reshape", "Split", "Identity")
KINDS = {
    "Conv": "convolution",
    "BatchNormalization": "batch norm",
    "Max": "limits of the grid",
    "Min": "limits of the grid",
}
KINDS |= dict.fromkeys(ACTIVATIONS, "activation function") | dict.fromkeys(MOVES, "pooling, joining, enlarging")


class LayerCost(NamedTuple):
    """One convolution: its bytes, and its operations for one image."""

    layer: str
    weights: int  # how many
    bits: int  # of weights and input; 32 for floats
    stored_bits: int  # that a weight takes in the file
    bytes: int  # of weights, scales and bias
    float_bytes: int  # that weights and a bias take in single precision
    macs: int  # multiplications with addition
    bops: int  # macs · bits · bits


class Kind(NamedTuple):
    """What one kind of operation works on, for one image."""

    kind: str
    operations: int  # nodes of the graph
    numbers: int  # that they give, all together


class Cost(NamedTuple):
    """What a file holds and what it takes to run."""

    layers: list[LayerCost]
    kinds: list[Kind]
    file_bytes: int
    other_bytes: int  # of the file that are no layer's: the graph, its constants and names, the metadata
    size: int  # pixels, the side of the square image


def cost(path: Path | str, *, size: int | None = None) -> Cost:
    """Return the `Cost` of the file at `path`, for an image of its own size or, where that is free, of `size` (640) pixels."""
    proto, facts = read(path)
    stride = max(facts.strides)
    if facts.size is not None and size not in (None, facts.size):
        raise ValueError(f"{path} was written for images of {facts.size} pixels, got size {size}")
    size = facts.size or size or GFLOPS_SIZE
    if size < stride or size % stride:
        raise ValueError(f"size must be a multiple of the largest stride {stride}, got {size}")
    shapes = shapes_of(proto, size)
    layers = [layer_cost(node, proto, shapes, facts.bits) for node in proto.graph.node if node.op_type == "Conv"]
    total = proto.ByteSize()
    return Cost(layers, kinds_of(proto, shapes), total, total - sum(layer.bytes for layer in layers), size)


def shapes_of(proto: onnx.ModelProto, size: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape (0 where it is not known) of every value, for one square image of `size` pixels."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for dim, side in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, size, size), strict=True):
        dim.dim_value = side
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    infos = [*graph.value_info, *graph.output, *graph.input]
    return {info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in infos}


def layer_cost(
    node: onnx.NodeProto, proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], bits: Mapping[str, int]
) -> LayerCost:
    """Return the `LayerCost` of a convolution."""
    own = {t.name: t for t in proto.graph.initializer if t.name.startswith(f"{node.name}.")}
    weight = own[f"{node.name}.weight"]
    _, channels, *places = shapes[node.output[0]]
    count, width = int(np.prod(weight.dims)), bits.get(node.name, 32)
    macs = count * int(np.prod(places))
    stored, size = STORED_BITS.get(weight.data_type, 32), sum(byte_count(tensor) for tensor in own.values())
    return LayerCost(node.name, count, width, stored, size, 4 * (count + channels), macs, macs * width**2)


def kinds_of(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[Kind]:
    """Return the `Kind`s of operation of a graph, as they first occur, without what works on shapes alone."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    makers: dict[str, onnx.NodeProto] = {}
    decoded: set[str] = set()
    operations, numbers = Counter[str](), Counter[str]()
    for node in proto.graph.node:
        makers.update(dict.fromkeys(node.output, node))
        if node.output[0] in decoded or any(name.startswith("raw.") or name in decoded for name in node.input):
            decoded.update(node.output)
        kind = "decoding" if node.output[0] in decoded else kind_of(node, makers, constants)
        if kind and not set(node.input) <= constants:
            operations[kind] += 1
            numbers[kind] += sum(int(np.prod(shapes.get(name, (0,)))) for name in node.output)
    return [Kind(kind, operations[kind], numbers[kind]) for kind in operations]


def kind_of(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], constants: set[str]) -> str | None:
    """Return what a node does, in words; None for what prepares weights."""
    given = [makers[name].op_type for name in node.input if name in makers]
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return None if set(node.input) <= constants else "floats to states and back"
    if (node.op_type, *given[-1:]) in ENDS_OF_SILU:
        return "activation function"
    if node.op_type in KINDS:
        return KINDS[node.op_type]
    if node.op_type == "Add" and not any(name in constants for name in node.input) and "DequantizeLinear" not in given:
        return "shortcut"
    return "scale and shift"

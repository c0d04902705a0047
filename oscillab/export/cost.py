"""What does a file hold, what does it save, and what is left in floats?

Bytes are counted from the file's own tensors, operations from its own shapes for one image. A multiplication of w by a
bits is w · a bit operations (BOPs, as in 1804.10969), in floats 32 · 32.
"""

from typing import NamedTuple

import numpy as np
import onnx

from oscillab.yolo.zoo import GFLOPS_SIZE

from .kinds import Kind, kinds_of
from .reading import facts_of, read
from .storage import STORED_BITS, byte_count

RUNTIME = """\
onnxruntime's CPU provider has no convolution of 4-bit numbers: it turns the states back into floats and convolves those.
There the file is smaller and not faster, in the exact form less so than in qdq (`python -m benchmarks.export` measures it).
Speed is for hardware, or a compiler, that multiplies the integers themselves; activation functions, shortcuts and decoding
stay in floats there too."""


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


class Cost(NamedTuple):
    """What a file holds and what it takes to run."""

    layers: list[LayerCost]
    kinds: list[Kind]
    file_bytes: int
    other_bytes: int  # of the file that are no layer's: the graph, its constants and names, the metadata
    size: int  # pixels, the side of the square image


def cost(path, *, size=None):
    """The `Cost` of the file at `path`, for an image of its own size or, where that is free, of `size` (640) pixels."""
    proto = read(path)
    facts = facts_of(proto, path)
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


def shapes_of(proto, size):
    """Name -> shape (0 where it is not known) of every value, for one square image of `size` pixels."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for dim, side in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, size, size), strict=True):
        dim.dim_value = side
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    infos = [*graph.value_info, *graph.output, *graph.input]
    return {info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in infos}


def layer_cost(node, proto, shapes, bits):
    """The `LayerCost` of a convolution."""
    own = {t.name: t for t in proto.graph.initializer if t.name.startswith(f"{node.name}.")}
    weight = own[f"{node.name}.weight"]
    _, channels, height, width = shapes[node.output[0]]
    count = int(np.prod(weight.dims))
    macs, width_in_bits = count * height * width, bits.get(node.name, 32)
    return LayerCost(
        layer=node.name,
        weights=count,
        bits=width_in_bits,
        stored_bits=STORED_BITS.get(weight.data_type, 32),
        bytes=sum(byte_count(tensor) for tensor in own.values()),
        float_bytes=4 * (count + channels),
        macs=macs,
        bops=macs * width_in_bits**2,
    )

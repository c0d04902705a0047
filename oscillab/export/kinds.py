"""Where in a graph is something computed that is no convolution?"""

from collections import Counter
from typing import NamedTuple

import numpy as np

ACTIVATIONS = {"Sigmoid", "LeakyRelu", "Relu", "Neg", "Exp", "Cast", "Div"}
ENDS_OF_SILU = {("Mul", "Sigmoid"), ("Add", "Cast")}  # x · σ(x), and x / (1 + e^-x), whose power was cast
MOVES = {"Concat", "Resize", "MaxPool", "Transpose", "Reshape", "Split", "Identity"}


class Kind(NamedTuple):
    """What one kind of operation works on, for one image."""

    kind: str
    operations: int  # nodes of the graph
    numbers: int  # that they give, all together


def kinds_of(proto, shapes):
    """The `Kind`s of operation of a graph, in the order in which they first occur; what works on shapes alone is left out."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    makers, decoded = {}, set()
    operations, numbers = Counter(), Counter()
    for node in proto.graph.node:
        makers.update(dict.fromkeys(node.output, node))
        if node.output[0] in decoded or any(name.startswith("raw.") or name in decoded for name in node.input):
            decoded.update(node.output)
        kind = "decoding" if node.output[0] in decoded else kind_of(node, makers, constants)
        if kind and not set(node.input) <= constants:
            operations[kind] += 1
            numbers[kind] += sum(int(np.prod(shapes.get(name, (0,)))) for name in node.output)
    return [Kind(kind, operations[kind], numbers[kind]) for kind in operations]


def kind_of(node, makers, constants):
    """In words, what a node does; None for what prepares weights."""
    given = [makers[name].op_type for name in node.input if name in makers]
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return None if set(node.input) <= constants else "floats to states and back"
    if node.op_type == "Conv":
        return "convolution"
    if node.op_type in ACTIVATIONS or (node.op_type, *given[-1:]) in ENDS_OF_SILU:
        return "activation function"
    if node.op_type in MOVES:
        return "pooling, joining, enlarging"
    if node.op_type == "BatchNormalization":
        return "batch norm"
    if node.op_type in ("Max", "Min"):
        return "limits of the grid"
    if node.op_type == "Add" and not any(name in constants for name in node.input) and "DequantizeLinear" not in given:
        return "shortcut"
    return "scale and shift"

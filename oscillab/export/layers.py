"""Which ONNX operations compute what a block of the network computes?

Blocks are traced by torch.fx down to the modules and functions of the two tables below, so that a new block of known
parts needs no line here. What is in neither table is refused by name.
"""

import operator

import numpy as np
import torch
from onnx import TensorProto
from torch import fx, nn

from oscillab.quant import QuantConv2d
from oscillab.quant.exact import ExactSiLU
from oscillab.yolo.blocks import Pool, Upsample

from .convolution import batch_norm, emit_convolution


def max_pool(graph, layer, x):
    """Beyond the edges of a map nothing is the largest, in both."""
    pair = [
        (side, side) if isinstance(side, int) else side for side in (layer.kernel_size, layer.stride, layer.padding)
    ]
    if layer.dilation not in (1, (1, 1)) or layer.ceil_mode:
        raise ValueError(f"a MaxPool2d must have neither dilation nor ceil_mode, got {layer}")
    return graph.add("MaxPool", [x], kernel_shape=pair[0], strides=pair[1], pads=[*pair[2], *pair[2]])


def enlarge(graph, layer, x):
    """Output pixel i reads input pixel floor(i / factor), as torch's nearest has it."""
    if layer.mode != "nearest" or layer.scale_factor != int(layer.scale_factor):
        raise ValueError(f"an Upsample must be nearest, by a whole factor, got {layer}")
    factor = int(layer.scale_factor)
    scales = graph.constant(f"scales.{factor}", np.float32([1, 1, factor, factor]))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", [x, "", scales], **how)


def silu(graph, layer, x):
    """x · σ(x)."""
    return graph.add("Mul", [x, graph.add("Sigmoid", [x])])


def exact_silu(graph, layer, x):
    """x / (1 + e^-x), e^-x in double precision."""
    power = graph.add("Cast", [graph.add("Neg", [x])], to=TensorProto.DOUBLE)
    power = graph.add("Cast", [graph.add("Exp", [power])], to=TensorProto.FLOAT)
    return graph.add("Div", [x, graph.add("Add", [power, graph.constant("unit", np.float32(1))])])


MODULES = {
    nn.SiLU: silu,
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
FUNCTIONS = {
    torch.cat: lambda graph, values, dim=0: graph.add("Concat", values, axis=dim),
    operator.add: lambda graph, a, b: graph.add("Add", [a, b]),
    operator.mul: lambda graph, a, b: graph.add("Mul", [a, b]),
}
CONVOLUTIONS = (nn.Conv2d, QuantConv2d)


class _Tracer(fx.Tracer):
    """Stops at what the table knows, and at what nothing is inside of."""

    def is_leaf_module(self, module, name):
        known = type(module) in MODULES or isinstance(module, (*CONVOLUTIONS, nn.BatchNorm2d))
        return known or not list(module.children())


def emit_layer(graph, way, name, layer, value):
    """The name of what a layer makes of `value`, a name or a list of names."""
    if type(layer) in MODULES:
        return MODULES[type(layer)](graph, layer, value)
    values, absorbed = {}, {}
    for node in trace(name, layer).nodes:
        if node.op == "placeholder":
            values[node] = value
        elif node.op == "output":
            return values[node.args[0]]
        elif node in absorbed:
            values[node] = values[absorbed[node]]
        else:
            inputs = fx.node.map_arg(node.args, values.__getitem__)
            values[node] = _emit_node(graph, way, name, layer, node, inputs, absorbed)
    raise AssertionError("a traced layer has an output")


def trace(name, layer):
    """The fx graph of a layer; raises ValueError where its code branches on values."""
    try:
        return _Tracer().trace(layer)
    except (fx.proxy.TraceError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"layer {name!r} ({type(layer).__name__}) cannot be exported: {reason}") from error


def _emit_node(graph, way, name, layer, node, inputs, absorbed):
    """The name of what one node of a trace gives; a BatchNorm that a convolution takes in goes to `absorbed`."""
    if node.op == "call_function" and node.target in FUNCTIONS:
        return FUNCTIONS[node.target](graph, *inputs, **node.kwargs)
    if node.op != "call_module":
        called = getattr(node.target, "__name__", node.target)
        raise ValueError(f"layer {name!r} ({type(layer).__name__}) cannot be exported: it calls {called}")
    module, full = layer.get_submodule(node.target), f"{name}.{node.target}"
    if isinstance(module, CONVOLUTIONS):
        after = next(iter(node.users), None) if len(node.users) == 1 else None
        bn = layer.get_submodule(after.target) if after is not None and after.op == "call_module" else None
        bn = bn if isinstance(bn, nn.BatchNorm2d) else None
        if bn is not None:
            absorbed[after] = node
        return emit_convolution(graph, way, full, module, *inputs, bn=bn)
    if isinstance(module, nn.BatchNorm2d):
        return batch_norm(graph, full, module, *inputs)
    if type(module) not in MODULES:
        known = ", ".join(sorted({kind.__name__ for kind in MODULES if kind is not ExactSiLU}))
        raise ValueError(f"layer {full!r} cannot be exported: {type(module).__name__} is none of {known}")
    return MODULES[type(module)](graph, module, *inputs)

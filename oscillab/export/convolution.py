"""Write a quantized convolution so that another program computes it from whole numbers.

QuantizeLinear turns the input into states of its own bit width, DequantizeLinear gives their values; the weights are
stored as states with a DequantizeLinear of their own; the convolution lies between. The two forms differ in where the
`ChannelMap` behind it goes: exact sums states and maps the sums, qdq folds the map into the weights' scale and the bias.
"""

from typing import Any

import numpy as np
from onnx import TensorProto
from torch import nn

from oscillab.quant import QuantConv2d
from oscillab.quant.channels import channel_map, double, folded_scale
from oscillab.quant.exact import ExactConv2d

from .graph import Graph, element_type, integer_tensor, limits


def emit_convolution(graph: Graph, layer: str, conv: Any, x: str, **after: Any) -> str:
    """Add a convolution, quantized or float, with what is folded into it, and return the name of what it gives.

    `after`: `bn`, a BatchNorm of fixed statistics behind it; `factor` (C_out,) behind that; `output`, the name to give.
    """
    if isinstance(conv, ExactConv2d):
        return exact_convolution(graph, layer, conv, x, **after)
    emit = quantized_convolution if isinstance(conv, QuantConv2d) else float_convolution
    return emit(graph, layer, conv, x, **after)


def exact_convolution(
    graph: Graph,
    layer: str,
    conv: ExactConv2d,
    x: str,
    *,
    bn: Any = None,
    factor: np.ndarray | None = None,
    output: str | None = None,
) -> str:
    """Convolve states as they are, in units of 1, and scale and shift the sums."""
    if bn is not None:
        raise ValueError(f"layer {layer!r}: an exact convolution has its BatchNorm in it, got another behind it")
    grid: Any = conv.states
    unit = graph.constant("unit", np.float32(1))
    states, zero = integer_input(graph, layer, grid, conv.bits, x, grid.step_size.numpy())
    given = graph.add("DequantizeLinear", [states, unit, zero], output=f"{layer}.input")
    weight = graph.add("DequantizeLinear", [stored_weight(graph, layer, conv, conv.weight.numpy()), unit])
    y = convolve(graph, layer, conv, given, weight)
    maps: Any = conv  # its buffers
    steps = [("Mul", "ratio", maps.ratio.numpy()), ("Add", "shift", maps.shift.numpy())]
    if factor is not None:
        steps.append(("Mul", "factor", factor.reshape(-1, 1, 1)))
    for operator, name, values in steps:
        constant = graph.constant(f"{layer}.{name}", values)  # (C_out, 1, 1)
        y = graph.add(operator, [y, constant], output=output if name == steps[-1][1] else None)
    return y


def quantized_convolution(
    graph: Graph,
    layer: str,
    conv: QuantConv2d,
    x: str,
    *,
    bn: Any = None,
    factor: np.ndarray | None = None,
    output: str | None = None,
) -> str:
    """Convolve values of states, each channel's ratio in its scale and its shift in the bias, where that is exact.

    Where a ratio is not positive, BatchNorm and factor stay operations; `graph.kept` has those layers' names.
    """
    channels = channel_map(conv, bn, factor)
    scale = folded_scale(conv.weight_step_size(), channels.ratio)
    values = quantized_input(graph, layer, conv.input_quantizer, x)
    if scale is not None:
        return convolve(graph, layer, conv, values, quantized_weight(graph, layer, conv, scale), channels.shift, output)
    graph.kept.append(layer)
    own = channel_map(conv)
    weight = quantized_weight(graph, layer, conv, folded_scale(conv.weight_step_size(), own.ratio))
    y = convolve(graph, layer, conv, values, weight, own.shift, output if bn is None and factor is None else None)
    if bn is not None:
        y = batch_norm(graph, f"{layer}.bn", bn, y, output=output if factor is None else None)
    if factor is not None:
        y = graph.add("Mul", [y, graph.constant(f"{layer}.factor", factor.reshape(-1, 1, 1))], output=output)
    return y


def float_convolution(
    graph: Graph,
    layer: str,
    conv: nn.Conv2d,
    x: str,
    *,
    bn: Any = None,
    factor: np.ndarray | None = None,
    output: str | None = None,
) -> str:
    """Convolve floats, BatchNorm and factor folded in."""
    channels = channel_map(conv, bn, factor)
    weight = double(conv.weight) * channels.ratio.reshape(-1, 1, 1, 1)
    return convolve(graph, layer, conv, x, graph.constant(f"{layer}.weight", weight), channels.shift, output)


def convolve(
    graph: Graph,
    layer: str,
    conv: nn.Conv2d,
    x: str,
    weight: str,
    bias: np.ndarray | None = None,
    output: str | None = None,
) -> str:
    """Add the convolution of `x`; a bias that is all zeros is left out."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"layer {layer!r}: padding must be zeros, a number on each side, got {conv.padding_mode}")
    inputs = [x, weight]
    if bias is not None and bias.any():
        inputs.append(graph.constant(f"{layer}.bias", bias))
    places = {"kernel_shape": conv.kernel_size, "strides": conv.stride, "dilations": conv.dilation}
    pads = [*conv.padding, *conv.padding]
    return graph.add("Conv", inputs, output=output, name=layer, pads=pads, group=conv.groups, **places)


def batch_norm(graph: Graph, layer: str, bn: Any, x: str, *, output: str | None = None) -> str:
    """Add a BatchNorm of fixed statistics."""
    values = {"weight": bn.weight, "bias": bn.bias, "mean": bn.running_mean, "var": bn.running_var}
    inputs = [graph.constant(f"{layer}.{name}", value.detach().cpu().numpy()) for name, value in values.items()]
    return graph.add("BatchNormalization", [x, *inputs], output=output, epsilon=bn.eps)


def quantized_input(graph: Graph, layer: str, grid: Any, x: str) -> str:
    """Add the quantized values of `x` on a `Quantizer`'s grid, called `<layer>.input`."""
    output, offset = f"{layer}.input", None
    if grid.offset is not None:
        offset = graph.constant(f"{layer}.input_offset", grid.offset.detach().cpu().numpy())
        x = graph.add("Sub", [x, offset])
    states, zero = integer_input(graph, layer, grid, grid.bits, x, grid.effective_step_size().cpu().numpy())
    inputs = [states, f"{layer}.input_scale", zero]
    values = graph.add("DequantizeLinear", inputs, output=None if offset else output)
    return graph.add("Add", [values, offset], output=output) if offset else values


def integer_input(graph: Graph, layer: str, grid: Any, bits: int, x: str, step_size: np.ndarray) -> tuple[str, str]:
    """Add the integer states of `x` on the grid, in their own type; return their name and that of the type's zero."""
    element = element_type(bits, signed=grid.low < 0)
    zero = f"zero.{TensorProto.DataType.Name(element)}"  # it tells QuantizeLinear which type to give
    graph.constant(zero, integer_tensor(zero, np.zeros((), np.int8), element))
    scale = graph.constant(f"{layer}.input_scale", step_size)
    for operator, end in needed_limits(graph, grid, element, x):
        x = graph.add(operator, [x, graph.constant(f"{layer}.input_{end}", step_size * getattr(grid, end))])
    return graph.add("QuantizeLinear", [x, scale, zero]), zero


def needed_limits(graph: Graph, grid: Any, element: int, x: str) -> list[tuple[str, str]]:
    """Return the operations that limit `x` to a grid before it is quantized, with the grid's end that each one needs.

    Where the type has more states than the grid; and once behind a MaxPool, for which 4-bit numbers are no input:
    onnxruntime 1.32's optimizer would move a QuantizeLinear to 4 bits in front of it, and then refuse the result. Not
    Clip, at which the same optimizer fails in front of 4 bits.
    """
    pooled = graph.operator_of(x) == "MaxPool" and element in (TensorProto.INT4, TensorProto.UINT4)
    ends = [("Max", "low"), ("Min", "high")]
    differ = [getattr(grid, end) != most for (_, end), most in zip(ends, limits(element), strict=True)]
    if pooled and not any(differ):
        return ends[:1]
    return [pair for pair, needed in zip(ends, differ, strict=True) if needed]


def quantized_weight(graph: Graph, layer: str, conv: QuantConv2d, scale: Any) -> str:
    """Add the values of a layer's weights, `scale` times the integer states that training ended with."""
    states = stored_weight(graph, layer, conv, conv.integer_state().cpu().numpy())
    axis: dict[str, Any] = {"axis": 0} if np.ndim(scale) else {}
    return graph.add("DequantizeLinear", [states, graph.constant(f"{layer}.weight_scale", scale)], **axis)


def stored_weight(graph: Graph, layer: str, conv: Any, states: np.ndarray) -> str:
    """Add the constant `<layer>.weight` that holds a layer's integer states in the smallest type."""
    name = f"{layer}.weight"
    return graph.constant(name, integer_tensor(name, states, element_type(conv.bits)))

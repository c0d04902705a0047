"""Collect the nodes and constants of an ONNX graph, and write quantized convolutions as whole numbers.

ONNX has whole numbers of 4, 8 and 16 bits. States of 2 to 4 bits lie in INT4 or UINT4, two in a byte, the lower half
first; states of 5 to 8 bits in INT8 or UINT8. A 3-bit weight thus takes 4 bits in a file, and the file says so.

QuantizeLinear turns a convolution's input into states of its own bit width, DequantizeLinear gives their values; the
weights are stored as states with a DequantizeLinear of their own. The two forms differ in where the `ChannelMap` behind
goes: exact sums states and maps the sums, qdq folds the map into the weights' scale and the bias.
"""

from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from oscillab.quant import QuantConv2d
from oscillab.quant.exact import ExactConv2d, channel_map, double, folded_scale

INTEGERS: dict[tuple[int, bool], int] = {(4, True): TensorProto.INT4, (4, False): TensorProto.UINT4}
INTEGERS |= {(8, True): TensorProto.INT8, (8, False): TensorProto.UINT8}
STORED_BITS: dict[int, int] = {element: bits for (bits, _), element in INTEGERS.items()}
PerChannel = np.ndarray | None  # (C_out,)


class Graph:
    """Nodes in the order in which they run, and constants by name; names of a layer's values are its own, others numbered."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.kept: list[str] = []  # layers whose BatchNorm or factor stays an operation of its own

    def add(
        self, operator: str, inputs: list[str], *, output: str | None = None, name: str | None = None, **attributes: Any
    ) -> str:
        """Add a node and return the name of its output."""
        given = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [given], name=name, **attributes))
        return given

    def split(self, x: str, parts: str, count: int) -> list[str]:
        """Split `x` along its last axis and return the names of the `count` parts."""
        names = [f"v{len(self.nodes)}.{part}" for part in range(count)]
        self.nodes.append(helper.make_node("Split", [x, parts], names, axis=-1))
        return names

    def constant(self, name: str, value: Any) -> str:
        """Add a TensorProto or an array, floats in single precision and finite, once for a name, and return `name`."""
        if not isinstance(value, TensorProto):
            array = np.asarray(value)
            with np.errstate(over="ignore"):  # what is too large is refused below
                array = array.astype(np.float32) if array.dtype == np.float64 else array
            if not np.isfinite(array).all():
                raise ValueError(f"{name!r} holds numbers that are not finite: such a network cannot be exported")
            value = numpy_helper.from_array(array, name)
        known = self.constants.setdefault(name, value)
        if known.SerializeToString() != value.SerializeToString():
            raise ValueError(f"two different constants of the graph are called {name!r}")
        return name

    def operator_of(self, name: str) -> str | None:
        """Return the operator whose node gives the value of that name; None for an input."""
        return next((node.op_type for node in reversed(self.nodes) if name in node.output), None)

    def finish(self, name: str, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> GraphProto:
        """Return the GraphProto with those inputs and outputs."""
        return helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))


def element_type(bits: int, *, signed: bool = True) -> int:
    """Return ONNX's number of the smallest type that holds states of `bits` (2..8) bits."""
    return INTEGERS[4 if bits <= 4 else 8, signed]


def limits(element: int) -> tuple[int, int]:
    """Return the lowest and the highest whole number of an integer type."""
    bits, signed = next(key for key, value in INTEGERS.items() if value == element)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def integer_tensor(name: str, states: np.ndarray, element: int) -> TensorProto:
    """Return the TensorProto of whole numbers, packed as ONNX has it; ValueError where one does not fit the type."""
    low, high = limits(element)
    if states.size and (states.min() < low or states.max() > high):
        kind = TensorProto.DataType.Name(element)
        raise ValueError(f"{name}: states {states.min()}..{states.max()} do not fit {kind}, which holds {low}..{high}")
    return numpy_helper.from_array(np.asarray(states).astype(helper.tensor_dtype_to_np_dtype(element)), name)


def states_of(tensor: TensorProto) -> np.ndarray:
    """Return the whole numbers of an integer TensorProto as int8 (uint8 for UINT8), in its shape."""
    return numpy_helper.to_array(tensor).astype(np.uint8 if tensor.data_type == TensorProto.UINT8 else np.int8)


def byte_count(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's values take in the file."""
    if tensor.data_type in STORED_BITS:
        return -(-int(np.prod(tensor.dims)) * STORED_BITS[tensor.data_type] // 8)
    return numpy_helper.to_array(tensor).nbytes


def emit_convolution(graph: Graph, layer: str, conv: Any, x: str, **after: Any) -> str:
    """Add a convolution, quantized or float, with what is folded into it, and return the name of what it gives.

    `after`: `bn`, a BatchNorm of fixed statistics behind it; `factor` (C_out,) behind that; `output`, the name to give.
    """
    if isinstance(conv, ExactConv2d):
        return exact_convolution(graph, layer, conv, x, **after)
    if isinstance(conv, QuantConv2d):
        return quantized_convolution(graph, layer, conv, x, **after)
    channels = channel_map(conv, after.get("bn"), after.get("factor"))
    weight = graph.constant(f"{layer}.weight", double(conv.weight) * channels.ratio.reshape(-1, 1, 1, 1))
    return convolve(graph, layer, conv, x, weight, channels.shift, after.get("output"))


def exact_convolution(
    graph: Graph,
    layer: str,
    conv: ExactConv2d,
    x: str,
    bn: Any = None,
    factor: PerChannel = None,
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
    bn: Any = None,
    factor: PerChannel = None,
    output: str | None = None,
) -> str:
    """Convolve values of states, each channel's ratio in its scale and its shift in the bias.

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


def convolve(
    graph: Graph, layer: str, conv: nn.Conv2d, x: str, weight: str, bias: PerChannel = None, output: str | None = None
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
    """Return the operations that limit `x` to a grid of fewer states than its type, with the grid's end that each needs."""
    # Once behind a MaxPool, too: onnxruntime 1.32's optimizer would move a QuantizeLinear to 4 bits in front of it and then
    # refuse the result. Not Clip, at which the same optimizer fails in front of 4 bits.
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

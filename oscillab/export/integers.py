"""How do numbers become whole numbers in a graph, and floats again?

QuantizeLinear turns a map into states of its layer's bit width, DequantizeLinear turns states into floats. Weights,
multipliers and biases are stored as whole numbers, each with a DequantizeLinear of its own.
"""

import numpy as np
from onnx import TensorProto, helper

from .storage import element_type, integer_tensor, limits


def quantized_input(graph, layer, grid, x):
    """The name, `<layer>.input`, of the quantized values of `x` on a `Quantizer`'s grid."""
    step_size = grid.positive_step_size().cpu().numpy()
    output, offset = f"{layer}.input", None
    if grid.offset is not None:
        offset = graph.constant(f"{layer}.input_offset", grid.offset.detach().cpu().numpy())
        x = graph.add("Sub", [x, offset])
    states, zero = integer_input(graph, layer, grid, grid.bits, x, step_size)
    inputs = [states, f"{layer}.input_scale", zero]
    values = graph.add("DequantizeLinear", inputs, output=None if offset else output)
    return graph.add("Add", [values, offset], output=output) if offset else values


def integer_input(graph, layer, grid, bits, x, step_size):
    """The names of the integer states of `x` in their own type, of the grid `low`..`high` of `grid`, and of that type's zero."""
    element = element_type(bits, signed=grid.low < 0)
    zero = zero_point(graph, element)
    scale = graph.constant(f"{layer}.input_scale", step_size)
    for operator, end in needed_limits(graph, grid, element, x):
        x = graph.add(operator, [x, graph.constant(f"{layer}.input_{end}", step_size * getattr(grid, end))])
    return graph.add("QuantizeLinear", [x, scale, zero]), zero


def needed_limits(graph, grid, element, x):
    """The operations that limit `x` to a grid before it is quantized, with the grid's end that each one needs.

    Where the type has more states than the grid; and once behind a MaxPool, for which 4-bit numbers are no input:
    onnxruntime 1.32's optimizer would move a QuantizeLinear to 4 bits in front of it, and then refuse the result. Not
    Clip, at which the same optimizer fails in front of 4 bits.
    """
    pooled = graph.operator_of(x) == "MaxPool" and element in (TensorProto.INT4, TensorProto.UINT4)
    ends = ("Max", "low"), ("Min", "high")
    differ = [getattr(grid, end) != most for (_, end), most in zip(ends, limits(element), strict=True)]
    if pooled and not any(differ):
        return ends[:1]
    return [pair for pair, needed in zip(ends, differ, strict=True) if needed]


def quantized_weight(graph, layer, conv, scale):
    """The name of the values of a layer's weights, `scale` times the integer states that training ended with."""
    states = stored_weight(graph, layer, conv, conv.integer_state().cpu().numpy())
    axis = {"axis": 0} if np.ndim(scale) else {}
    return graph.add("DequantizeLinear", [states, graph.constant(f"{layer}.weight_scale", scale)], **axis)


def stored_weight(graph, layer, conv, states):
    """The name, `<layer>.weight`, of the constant that holds a layer's integer states in the smallest type."""
    name = f"{layer}.weight"
    return graph.constant(name, integer_tensor(name, states, element_type(conv.bits)))


def whole_numbers(graph, name, values, scale):
    """The name of `scale` · `values`, stored as int16 or int32."""
    element = helper.np_dtype_to_tensor_dtype(values.dtype)
    assert element in (TensorProto.INT16, TensorProto.INT32)
    inputs = [graph.constant(name, values), graph.constant(f"{name}_scale", np.float32(scale))]
    return graph.add("DequantizeLinear", inputs)


def zero_point(graph, element):
    """The name of the zero of an integer type, one for the whole graph; it tells QuantizeLinear which type to give."""
    name = f"zero.{TensorProto.DataType.Name(element)}"
    return graph.constant(name, integer_tensor(name, np.zeros((), np.int8), element))

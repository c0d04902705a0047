"""How is a quantized convolution written so that another program computes it from whole numbers?

QuantizeLinear turns the input into states of its own bit width, DequantizeLinear gives their values; the weights are
stored as states and given their values by a DequantizeLinear of their own; the convolution lies between. All ways out
share that; they differ in where the `ChannelMap` after it goes (`exact_convolution`, `PerChannel`, `PerTensor`).
"""

import numpy as np

from oscillab.quant import QuantConv2d
from oscillab.quant.channels import channel_map, double, folded_scale
from oscillab.quant.exact import ExactConv2d

from .integers import integer_input, quantized_input, quantized_weight, stored_weight, whole_numbers
from .requantize import fixed_point


class PerChannel:
    """The first way out: the ratio of each channel goes into its scale, the shift into the bias, where that is exact.

    Where a ratio is not positive, the BatchNorm and the factor stay what they were; `kept` has those layers' names.
    """

    name = "per_channel"

    def __init__(self):
        self.kept = []

    def emit(self, graph, layer, conv, x, *, bn=None, factor=None, output=None):
        """The name of what a quantized convolution, and the BatchNorm and the factor behind it, make of `x`."""
        channels = channel_map(conv, bn, factor)
        scale = folded_scale(conv.weight_step_size(), channels.ratio)
        values = quantized_input(graph, layer, conv.input_quantizer, x)
        if scale is None:
            self.kept.append(layer)
            return self._emit_kept(graph, layer, conv, values, bn, factor, output)
        weight = quantized_weight(graph, layer, conv, scale)
        return convolve(graph, layer, conv, values, weight, channels.shift, output)

    def _emit_kept(self, graph, layer, conv, values, bn, factor, output):
        """As `emit`, with BatchNorm and factor as operations of their own."""
        own = channel_map(conv)
        weight = quantized_weight(graph, layer, conv, folded_scale(conv.weight_step_size(), own.ratio))
        last = [bn is not None, factor is not None].count(True)
        y = convolve(graph, layer, conv, values, weight, own.shift, output if last == 0 else None)
        if bn is not None:
            y = batch_norm(graph, f"{layer}.bn", bn, y, output=output if factor is None else None)
        if factor is not None:
            y = graph.add("Mul", [y, graph.constant(f"{layer}.factor", channel_shape(factor))], output=output)
        return y


class PerTensor:
    """The second way out: one scale per tensor; what differs by channel becomes a multiplier and a bias (`FixedPoint`)."""

    name = "per_tensor"

    def __init__(self, multiplier_bits=16):
        self.multiplier_bits = multiplier_bits
        self.kept, self.layers = [], []

    def emit(self, graph, layer, conv, x, *, bn=None, factor=None, output=None):
        """The name of what a quantized convolution, and the BatchNorm and the factor behind it, make of `x`."""
        grid = conv.input_quantizer
        if grid.offset is not None:
            raise ValueError(
                f"layer {layer!r}: an input with an offset (activation='affine') has no fixed-point form, as padding adds "
                "0 and not the offset; export it with scales='per_channel'"
            )
        states, input_scale = conv.integer_state().numpy(), float(grid.positive_step_size())
        whole = fixed_point(
            layer,
            channel_map(conv, bn, factor),
            states,
            double(conv.weight_step_size()),
            input_scale,
            max(-grid.low, grid.high),
            multiplier_bits=self.multiplier_bits,
        )
        self.layers.append(whole)
        values = quantized_input(graph, layer, grid, x)
        weight = quantized_weight(graph, layer, conv, np.float32(whole.weight_scale))
        return self._requantize(graph, whole, convolve(graph, layer, conv, values, weight), input_scale, output)

    def _requantize(self, graph, whole, sums, input_scale, output):
        """The name of M · sums + B, with M and B stored as the whole numbers that they are."""
        unit = 2.0**-whole.shift
        multiplier = whole_numbers(graph, f"{whole.layer}.multiplier", channel_shape(whole.multiplier), unit)
        scale = np.float32(whole.weight_scale) * np.float32(input_scale) * np.float32(unit)
        bias = whole_numbers(graph, f"{whole.layer}.bias", channel_shape(whole.bias), scale)
        return graph.add("Add", [graph.add("Mul", [sums, multiplier]), bias], output=output)


def float_convolution(graph, layer, conv, x, *, bn=None, factor=None, output=None):
    """The name of what a convolution of float weights, and the BatchNorm and the factor behind it, make of `x`."""
    channels = channel_map(conv, bn, factor)
    weight = double(conv.weight) * channels.ratio.reshape(-1, 1, 1, 1)
    return convolve(graph, layer, conv, x, graph.constant(f"{layer}.weight", weight), channels.shift, output)


def exact_convolution(graph, layer, conv, x, *, bn=None, factor=None, output=None):
    """The name of what an `ExactConv2d`, and the factor behind it, make of `x`: states are convolved as they are, in units of 1."""
    assert bn is None, "an ExactConv2d has its BatchNorm in it"
    grid, unit = conv.states, graph.constant("unit", np.float32(1))
    step_size = grid.step_size.numpy()
    states, zero = integer_input(graph, layer, grid, conv.bits, x, step_size)
    given = graph.add("DequantizeLinear", [states, unit, zero], output=f"{layer}.input")
    weight = graph.add("DequantizeLinear", [stored_weight(graph, layer, conv, conv.weight.numpy()), unit])
    sums = convolve(graph, layer, conv, given, weight)
    steps = [("Mul", "ratio", conv.ratio.numpy()), ("Add", "shift", conv.shift.numpy())]
    if factor is not None:
        steps.append(("Mul", "factor", channel_shape(factor)))
    y = sums
    for operator, name, values in steps:
        constant = graph.constant(f"{layer}.{name}", values)
        y = graph.add(operator, [y, constant], output=output if name == steps[-1][1] else None)
    return y


def convolve(graph, layer, conv, x, weight, bias=None, output=None):
    """The name of the convolution of `x`; a bias that is all zeros is left out."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise ValueError(f"layer {layer!r}: padding must be zeros, a number on each side, got {conv.padding_mode}")
    inputs = [x, weight]
    if bias is not None and bias.any():
        inputs.append(graph.constant(f"{layer}.bias", bias))
    return graph.add(
        "Conv",
        inputs,
        output=output,
        name=layer,
        kernel_shape=conv.kernel_size,
        strides=conv.stride,
        pads=[*conv.padding, *conv.padding],
        dilations=conv.dilation,
        group=conv.groups,
    )


def batch_norm(graph, layer, bn, x, *, output=None):
    """The name of a BatchNorm of fixed statistics of `x`."""
    values = {"weight": bn.weight, "bias": bn.bias, "mean": bn.running_mean, "var": bn.running_var}
    inputs = [graph.constant(f"{layer}.{name}", value.detach().cpu().numpy()) for name, value in values.items()]
    return graph.add("BatchNormalization", [x, *inputs], output=output, epsilon=bn.eps)


def channel_shape(values):
    """Values (C,) in the shape (C, 1, 1), which broadcasts over a map."""
    return np.asarray(values).reshape(-1, 1, 1)


def emit_convolution(graph, way, layer, conv, x, **after):
    """The name of what a convolution, quantized or float, and what is folded into it make of `x`."""
    if isinstance(conv, ExactConv2d):
        emit = exact_convolution
    else:
        emit = way.emit if isinstance(conv, QuantConv2d) else float_convolution
    return emit(graph, layer, conv, x, **after)

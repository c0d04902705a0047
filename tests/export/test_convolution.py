"""One quantized convolution in onnxruntime against torch's own forward pass, and in whole numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.export.graph import emit_convolution, quantized_input
from oscillab.quant import QuantConv2d, QuantSpec

CLOSE = {"rtol": 1e-5, "atol": 2e-6}  # sums of 27 products in single precision, in another order


def layer(bits=4, *, positive=False, seed=0, **spec):
    """A calibrated QuantConv2d of a padded, strided 3x3 kernel, and an input for it with values beyond its grid."""
    torch.manual_seed(seed)
    conv = QuantConv2d(3, 6, 3, stride=2, padding=1, bits=bits, spec=QuantSpec(bits=bits, **spec)).eval()
    x = torch.randn(2, 3, 9, 7)
    x = x.abs() if positive else x
    conv.weight_quantizer.calibrate(conv.weight.detach())
    conv.input_quantizer.calibrate(x)
    return conv, 1.5 * x


def batch_norm(gamma):
    bn = nn.BatchNorm2d(6).eval()
    bn.weight.data.copy_(torch.tensor(gamma)), bn.bias.data.normal_(), bn.running_mean.normal_()
    return bn


POSITIVE, MIXED = [1.5, 1.0, 0.5, 2.0, 0.1, 1.0], [1.5, -1.0, 0.0, 2.0, 0.1, 1.0]


SPECS = [{}, {"activation": "affine"}, {"weight_granularity": "per_channel"}, {"positive": True}]


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("gamma", [POSITIVE, MIXED])
def test_it_computes_what_torch_computes(bits, spec, gamma, run_graph):
    """Oracle: the torch layer and a torch BatchNorm; where a ratio is not positive, the BatchNorm stays."""
    conv, x = layer(bits, **spec)
    bn = batch_norm(gamma)
    y, operators = run_graph(lambda graph, name: emit_convolution(graph, "a", conv, name, bn=bn), x)
    with torch.no_grad():
        torch.testing.assert_close(y, bn(conv(x)), **CLOSE)
    assert ("BatchNormalization" in operators) == (gamma is MIXED)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("positive", [True, False])
def test_states_are_those_of_torch_ties_and_limits_included(bits, positive, run_graph):
    """Oracle: the torch quantizer on half-steps (ties go to the even state), on the grid's ends and far beyond them."""
    conv, _ = layer(bits, positive=positive)
    grid = conv.input_quantizer
    grid.step_size.data.fill_(0.25)  # a power of two: half-steps are exact
    x = 0.125 * torch.arange(-600, 601, dtype=torch.float32).view(1, 1, 1, -1)
    y, _ = run_graph(lambda graph, name: quantized_input(graph, "a", grid, name), x)
    with torch.no_grad():
        assert torch.equal(y, grid(x))


@pytest.mark.parametrize("step_size, factor", [(-1.0, np.ones(6)), (None, np.array(MIXED))])
def test_floors_and_negative_factors(step_size, factor, run_graph):
    """Oracle: the forward pass, which holds step sizes at a floor; a factor folded would turn the sign of states, it stays."""
    conv, x = layer()
    for grid in (conv.weight_quantizer, conv.input_quantizer):
        grid.step_size.data.fill_(step_size) if step_size else None
    y, operators = run_graph(lambda graph, name: emit_convolution(graph, "a", conv, name, factor=factor), x)
    with torch.no_grad():
        torch.testing.assert_close(y, conv(x) * torch.from_numpy(factor).float().view(-1, 1, 1), **CLOSE)
    assert operators.count("Mul") == (factor.min() <= 0)


@pytest.mark.parametrize("bits, needed", [(4, 1), (3, 2), (8, 0)])
def test_four_bits_behind_a_pooling_run(bits, needed, run_graph):
    """Oracle: torch; onnxruntime's optimizer breaks a plain 4-bit QuantizeLinear there (see `needed_limits`)."""
    conv, x = layer(bits)

    def emit(graph, name):
        pooled = graph.add("MaxPool", [name], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
        return emit_convolution(graph, "a", conv, pooled)

    y, operators = run_graph(emit, x)
    with torch.no_grad():
        torch.testing.assert_close(y, conv(nn.functional.max_pool2d(x, 3, 1, 1)), **CLOSE)
    assert sum(operators.count(kind) for kind in ("Max", "Min")) == needed

"""Does a convolution make again what it does not keep, and to the same bits?"""

import pytest
import torch
from torch import nn

from oscillab.quant import QuantConv2d, QuantSpec, quant_layers, quantize
from oscillab.quant.kernel import kernel_off, loaded
from oscillab.quant.lsq import lsq, recomputed

pytestmark = pytest.mark.skipif(loaded() is None, reason="no kernel: there is no C compiler, or OSCILLAB_KERNEL is 0")


def kept_bytes(model, x):
    """What the forward pass keeps for the backward pass, without parameters and buffers, each memory once."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # the tensor itself, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


def chain():
    """Convolutions, batch norms and activations as detectors stack them."""
    parts = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(4):
        parts += [nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*parts)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_quantized_network_keeps_what_the_float_one_keeps(layout):
    """Oracle: the float network's bytes, the five quantized weights, and a number for each of ten step sizes.

    By torch's operations it is the outputs of the quantizers more: a third and the weights.
    """
    model, x = chain().to(memory_format=layout), torch.rand(4, 3, 32, 32).contiguous(memory_format=layout)
    before = kept_bytes(model, x)
    quantize(model, QuantSpec(), [x])
    weights = sum(layer.weight.nbytes for layer in quant_layers(model).values())
    assert kept_bytes(model, x) <= before + weights + 10 * 4
    with kernel_off():
        assert kept_bytes(model, x) > 1.25 * before


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_equal_those_with_everything_kept(mode, autocast):
    """Oracle: an invariant, the same convolution outside `recomputed`, to the last bit."""
    torch.manual_seed(0)
    layer = QuantConv2d(8, 12, 3, padding=1, padding_mode=mode, bits=4)
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    layer.weight_quantizer.calibrate(layer.weight.detach())
    layer.input_quantizer.calibrate(x.detach())
    parameters = [x, *layer.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        remade = layer(x)
        inputs, weight = layer.input_quantizer(x), layer.weight_quantizer(layer.weight)
        kept = layer._conv_forward(inputs, weight, layer.bias)
    assert torch.equal(remade, kept)
    for mine, theirs in zip(*(torch.autograd.grad(y.sum(), parameters) for y in (remade, kept)), strict=True):
        assert torch.equal(mine, theirs)


def test_only_the_output_itself_is_made_again():
    """Oracle: d(y^2) = 2 y, whatever of y is kept: itself, a view of its beginning, or the same memory in another shape."""
    for view in (lambda y: y, lambda y: y[:2], lambda y: y.reshape(3, 4), lambda y: y.t()):
        x, step = torch.randn(4, 3, requires_grad=True), torch.tensor(1.0)
        y = lsq(x, step, -128, 127)
        with recomputed(y):
            z = view(y)
            squares = z * z
        (gradient,) = torch.autograd.grad(squares.sum(), y)
        expected = torch.zeros_like(y)
        view(expected).copy_(2 * view(y))
        assert torch.equal(gradient, expected)


def test_an_input_that_changed_is_noticed():
    """Oracle: autograd's own error for a kept tensor that was written to: no wrong gradient comes out."""
    x = torch.randn(4, 3)
    leaf, step = torch.randn(4, 3, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    inner = leaf * 1
    y = lsq(inner, step, -8, 7)
    with recomputed(y):
        z = y * y
    inner.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (z * x).sum().backward()


def test_without_gradients_nothing_is_hooked():
    """Oracle: an invariant: hooks for kept tensors are met by none under no_grad, and outputs are equal."""
    layer = QuantConv2d(3, 4, 3, bits=4)
    x = torch.randn(1, 3, 8, 8)
    layer.weight_quantizer.calibrate(layer.weight.detach())
    layer.input_quantizer.calibrate(x)
    with torch.no_grad():
        without = layer(x)
    assert torch.equal(without, layer(x).detach()) and not without.requires_grad

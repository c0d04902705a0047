"""Soft rounding: by hand, at its two ends, and gone when its block is left."""

import pytest
import torch

from oscillab.quant import Quantizer
from oscillab.train.remedies.controls import soft_rounded, soft_rounding

IMAGES = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(7))


def grid_of(*, bits=3, step_size=0.5, **options):
    quantizer = Quantizer(bits, **options)
    quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    with torch.no_grad():
        quantizer.step_size.fill_(step_size)
    return quantizer


def test_by_hand():
    """Oracle: by hand at k = 0.45, in bins: 0.3 and 1.4 are rounded, 0.46 and 1.52 are not, 9 and -9 are the limits."""
    x = 0.5 * torch.tensor([0.3, 1.4, 0.46, 1.52, 9.0, -9.0])
    expected = 0.5 * torch.tensor([0.0, 1.0, 0.46, 1.52, 3.0, -4.0])
    torch.testing.assert_close(soft_rounded(x, grid_of()), expected)


def test_with_an_offset():
    """Oracle: the same by hand on an affine grid, whose values are offset + s * state."""
    quantizer = grid_of(affine=True, per_sample=True)
    with torch.no_grad():
        quantizer.offset.fill_(-0.2)
    x = -0.2 + 0.5 * torch.tensor([0.3, 0.5, 9.0, -9.0])
    torch.testing.assert_close(soft_rounded(x, quantizer), -0.2 + 0.5 * torch.tensor([0.0, 0.5, 7.0, 0.0]))


@pytest.mark.parametrize("spec", [{}, {"weight_granularity": "per_channel", "activation": "affine"}])
def test_half_a_bin_is_hard_rounding(tiny, spec):
    """Oracle: the network as it is, bit for bit; nothing is farther than half a bin from a grid value."""
    model = tiny(**spec)
    with torch.no_grad():
        expected = model(IMAGES)
        with soft_rounding(model, k=0.5):
            assert torch.equal(model(IMAGES), expected)


def test_zero_only_clips(tiny):
    """Oracle: the float network on weights within the grid; with unrounded activations too where no limit is met."""
    model = tiny(bits=8)
    with torch.no_grad():
        for layer in (model[0], model[3], model[6]):
            layer.weight.clamp_(*layer.weight_quantizer.clipping_range())
            layer.input_quantizer.step_size.mul_(4)  # so that no input reaches the limits
            layer.weight_quantizer.enabled = layer.input_quantizer.enabled = False
        expected = model(IMAGES)
        for layer in (model[0], model[3], model[6]):
            layer.weight_quantizer.enabled = layer.input_quantizer.enabled = True
        with soft_rounding(model, k=0.0):
            torch.testing.assert_close(model(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_one_part_alone(tiny):
    """Oracle: with activations rounded as ever, the first layer's output is its convolution with softened weights."""
    model = tiny()
    layer = model[0]
    expected = torch.nn.functional.conv2d(
        layer.input_quantizer(IMAGES), soft_rounded(layer.weight, layer.weight_quantizer, 0.3), layer.bias
    )
    with torch.no_grad(), soft_rounding(model, k=0.3, parts=("weights",)):
        torch.testing.assert_close(layer(IMAGES), expected)


def test_a_switched_off_quantizer_stays_off(tiny):
    """Oracle: the float weights."""
    model = tiny()
    grid = model[0].weight_quantizer
    grid.enabled = False
    with soft_rounding(model):
        assert torch.equal(grid(model[0].weight), model[0].weight)


def test_the_block_leaves_nothing_behind(tiny):
    """Oracle: the output before, bit for bit, after a block that ended well and after one that ended in an error."""
    model = tiny()
    with torch.no_grad():
        before = model(IMAGES)
        with soft_rounding(model):
            assert not torch.equal(model(IMAGES), before)
        with pytest.raises(KeyError), soft_rounding(model):
            raise KeyError
        assert torch.equal(model(IMAGES), before)
    assert not any(module._forward_hooks for module in model.modules())

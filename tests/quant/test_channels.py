"""What follows a convolution as a ratio and a shift per channel, against torch's own modules and against hand-worked numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant.channels import channel_map, folded_scale


def test_hand_worked_batch_norm():
    """Oracle: gamma 2, var 3, eps 1: slope 2 / 2 = 1; bias 0.25, mean 0.5, beta 3: 3 + 1 · (0.25 − 0.5); times 4."""
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in ((conv.bias, 0.25), (bn.weight, 2), (bn.bias, 3), (bn.running_var, 3), (bn.running_mean, 0.5)):
        tensor.data.fill_(value)
    assert channel_map(conv, bn, np.array([4.0])) == (4.0, 4 * 2.75)


@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_the_modules_compute(bias):
    """Oracle: torch's convolution and BatchNorm in float64, negative and zero gammas included."""
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 5, 3, bias=bias).double(), nn.BatchNorm2d(5).double().eval()
    bn.weight.data.copy_(torch.tensor([1.5, -1, 0, 1e-3, 2]))
    bn.running_mean.normal_(), bn.running_var.uniform_(0.1, 2), bn.bias.data.normal_()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    ratio, shift = (torch.from_numpy(v).view(1, -1, 1, 1) for v in channel_map(conv, bn))
    plain = nn.functional.conv2d(x, conv.weight)
    torch.testing.assert_close(ratio * plain + shift, bn(conv(x)), rtol=1e-12, atol=1e-12)


def test_scale_takes_positive_ratios_alone():
    """Oracle: the product; a sign, a zero, and what single precision cannot hold have no scale."""
    step = torch.tensor(0.5)
    assert folded_scale(step, np.array([1.0, 2.0])).tolist() == [0.5, 1.0]
    assert folded_scale(step, np.array([2.0, 2.0])).shape == ()
    assert folded_scale(torch.tensor([0.5, 0.25]), np.array([1.0, 2.0])) == np.float32(0.5)
    for ratio in (-1.0, 0.0, 1e-42):
        assert folded_scale(step, np.array([1.0, ratio])) is None

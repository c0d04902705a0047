"""Oracles: closed forms of the blocks, worked out from their own convolutions, and PyTorch's poolings."""

import torch
from torch.nn.functional import max_pool2d, silu

from oscillab.yolo.blocks import BN_EPS, C3, SPPF, Bottleneck, Concat, Conv, Upsample


def test_conv_is_convolution_then_bn_with_the_official_constants_then_silu():
    """Oracle: the formula of BatchNorm in eval mode, with eps 1e-3, around PyTorch's convolution."""
    torch.manual_seed(0)
    block = Conv(3, 4, 3, 2).double().eval()
    block.bn.running_var.uniform_(0.001, 0.01)  # small enough that the eps shows
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    y = block.conv(x) / (block.bn.running_var + 1e-3).sqrt().view(-1, 1, 1)
    assert (BN_EPS, block.bn.momentum, block.conv.bias) == (1e-3, 0.03, None)
    assert block(x).shape == (2, 4, 4, 3)
    torch.testing.assert_close(block(x), silu(y))


def test_bottleneck_adds_its_input_only_with_a_shortcut():
    """Oracle: the difference between the two is the input itself."""
    torch.manual_seed(0)
    block = Bottleneck(8).eval()
    x = torch.randn(1, 8, 4, 4)
    with_shortcut = block(x)
    block.shortcut = False
    torch.testing.assert_close(with_shortcut - block(x), x)


def test_c3_joins_its_halves_in_the_official_order():
    """Oracle: swapping the halves of the joining weights is the same as swapping the order of the join."""
    torch.manual_seed(0)
    block = C3(8, 8, depth=2).eval()
    x = torch.randn(1, 8, 4, 4)
    deep, shallow = block.m(block.cv1(x)), block.cv2(x)
    weight = block.cv3.conv.weight
    joined = torch.nn.functional.conv2d(deep, weight[:, :4]) + torch.nn.functional.conv2d(shallow, weight[:, 4:])
    torch.testing.assert_close(block(x), silu(block.cv3.bn(joined)))


def test_sppf_sees_windows_of_5_9_and_13():
    """Oracle: poolings of those sizes side by side (the older SPP), which three poolings of 5 in a row must equal."""
    torch.manual_seed(0)
    block = SPPF(8, 6).eval()
    x = torch.randn(1, 8, 16, 16)
    hidden = block.cv1(x)
    side_by_side = [hidden, *(max_pool2d(hidden, size, 1, size // 2) for size in (5, 9, 13))]
    assert torch.equal(block(x), block.cv2(torch.cat(side_by_side, 1)))


def test_upsample_and_concat_keep_order_and_tell_their_channels():
    """Oracle: a map of four numbers by hand."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert Upsample(1)(x)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert Concat([1, 1])([x, -x])[0, :, 0, 0].tolist() == [1, -1]
    assert (Upsample(7).out_channels, Concat([2, 3]).out_channels) == (7, 5)

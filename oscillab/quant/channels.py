"""Describe what happens to each output channel of a convolution before the next layer, for its scale to hold.

A BatchNorm with fixed statistics, and YOLOv7's learned factor, are a ratio and a shift per channel:
y = ratio · (W x) + shift. A positive ratio belongs into the scale of the weights, per channel, with every integer state
as it is. A negative one would turn the states' signs, and a state of −8 has no opposite in 4 bits.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

SMALLEST = np.finfo(np.float32).tiny  # a scale below it would lose digits, or be 0


class ChannelMap(NamedTuple):
    """y = ratio · h + shift for h, a convolution's sum of products without its bias; both (C_out,) float64."""

    ratio: np.ndarray
    shift: np.ndarray


def channel_map(conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, factor: np.ndarray | None = None) -> ChannelMap:
    """Return the `ChannelMap` of a convolution's own bias, a BatchNorm in eval mode and a factor (C_out,) after it.

    ratio = f · gamma / sqrt(var + eps),  shift = f · (beta + gamma / sqrt(var + eps) · (bias − mean)).
    """
    ratio = np.ones(conv.out_channels)
    shift = np.zeros(conv.out_channels) if conv.bias is None else double(conv.bias)
    if bn is not None:
        ratio = double(bn.weight) / np.sqrt(double(bn.running_var) + bn.eps)
        shift = double(bn.bias) + ratio * (shift - double(bn.running_mean))
    return ChannelMap(ratio, shift) if factor is None else ChannelMap(ratio * factor, shift * factor)


def folded_scale(step_size: Tensor, ratio: np.ndarray) -> np.ndarray | None:
    """Return the weights' scale with the ratio in it, float32 () or (C_out,); None where it would not be positive and normal."""
    scale = (double(step_size) * ratio).astype(np.float32)
    if not (scale >= SMALLEST).all():
        return None
    return np.asarray(scale[0] if (scale == scale[0]).all() else scale)


def double(tensor: Tensor | None) -> np.ndarray:
    """Return a tensor's values as a float64 array."""
    assert tensor is not None  # of a BatchNorm with weights and statistics
    return tensor.detach().cpu().double().numpy()

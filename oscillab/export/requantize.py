"""What can hardware do that takes one scale per tensor, and no other?

There a convolution is a sum of products of whole numbers, and what follows it has to be whole numbers as well: one
multiplier M and one bias B per channel, and one shift k per layer,

    y = s_w · s_x · 2^−k · (M · Σ w_int x_int + B),

with s_w and s_x the per-tensor scales of weights and input. BatchNorm, folded QC and per-channel step sizes all go into
M and B; the integer states stay. Rounding M and B is the price, and `FixedPoint` tells it.
"""

import math
from typing import NamedTuple

import numpy as np

MULTIPLIER_BITS = range(4, 17)
BIAS_LIMIT = 2**31 - 1
SMALLEST = 1e-300  # for a layer whose ratios are all 0


class FixedPoint(NamedTuple):
    """The whole numbers of one layer, and what their rounding costs."""

    layer: str
    weight_scale: float  # s_w, one for the tensor
    multiplier: np.ndarray  # M (C_out,), int16
    bias: np.ndarray  # B (C_out,), int32
    shift: int  # k
    multiplier_error: float  # largest |ratio − M · 2^−k| over the channels, as a share of the largest |ratio|
    bias_error: float  # largest |shift − B · s_w · s_x · 2^−k| over the channels, in units of the layer's output
    sum_bits: int  # of the largest sum M · Σ w_int x_int + B that could occur, with its sign


def fixed_point(layer, channels, states, step_size, input_scale, input_peak, *, multiplier_bits=16):
    """The `FixedPoint` of a layer from its `ChannelMap`, its integer states (C_out, …) and its step size, () or (C_out,).

    `input_peak` is the largest |x_int|. A per-channel step size becomes the largest of them times a ratio. The shift
    gives the largest multiplier all of `multiplier_bits` bits, and is smaller only where B would not fit 32 bits; raises
    ValueError where that leaves no multiplier.
    """
    weight_scale = float(np.float32(step_size.max()))
    ratio = channels.ratio * step_size / weight_scale
    unit = weight_scale * input_scale
    shift = widest_shift(np.abs(ratio).max(), 2 ** (multiplier_bits - 1) - 1)
    shift = min(shift, widest_shift(np.abs(channels.shift).max() / unit, BIAS_LIMIT))
    multiplier, bias = np.rint(ratio * 2.0**shift), np.rint(channels.shift / unit * 2.0**shift)
    multiplier_error = float(np.abs(ratio - multiplier * 2.0**-shift).max() / max(np.abs(ratio).max(), SMALLEST))
    if multiplier_error > 0.5:
        raise ValueError(f"layer {layer!r}: its bias is too large, 32 bits hold it only beside multipliers of 0")
    sums = np.abs(states.reshape(len(states), -1).astype(np.int64)).sum(1) * input_peak
    peak = (np.abs(multiplier) * sums + np.abs(bias)).max()
    return FixedPoint(
        layer,
        weight_scale,
        multiplier.astype(np.int16),
        bias.astype(np.int32),
        shift,
        multiplier_error,
        float(np.abs(channels.shift - bias * unit * 2.0**-shift).max()),
        int(peak).bit_length() + 1,
    )


def widest_shift(value, limit):
    """The largest k, at most 30, for which round(value · 2^k) is no more than `limit`.

    >>> widest_shift(1.0, 127), widest_shift(0.9, 127), widest_shift(0.0, 127)
    (6, 7, 30)
    """
    if value <= 0:
        return 30
    shift = min(30, math.floor(math.log2((limit + 0.5) / value)))
    return shift if round(value * 2.0**shift) <= limit else shift - 1

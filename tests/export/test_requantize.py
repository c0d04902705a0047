"""Fixed-point multipliers: a hand-worked layer, the bound that the errors promise, and whole-number arithmetic."""

import numpy as np
import pytest

from oscillab.export.requantize import fixed_point, widest_shift
from oscillab.quant.channels import ChannelMap


def test_hand_worked_layer():
    """Oracle: by hand. 8 bits hold 127, so 1.0 becomes 64 · 2^−6, −0.5 becomes −32 · 2^−6; s_w s_x = 1/8, so a shift of 2 is
    16 units, 1024 of them at 2^−6. The sum of |states| is 3 and 2, inputs reach 8: 64 · 24 + 1024 = 2560 takes 13 bits."""
    channels = ChannelMap(np.array([1.0, -0.5]), np.array([2.0, 0.0]))
    states = np.array([[1, -2], [2, 0]]).reshape(2, 2, 1, 1)
    whole = fixed_point("a", channels, states, np.array(0.25), 0.5, 8, multiplier_bits=8)
    assert whole.shift == 6 and whole.multiplier.tolist() == [64, -32] and whole.bias.tolist() == [1024, 0]
    assert whole.multiplier_error == whole.bias_error == 0 and whole.sum_bits == 13


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_errors_bound_what_rounding_costs(bits):
    """Oracle: the exact ratio and shift in float64; per-channel step sizes go into the multipliers as well."""
    generator = np.random.default_rng(0)
    channels = ChannelMap(generator.normal(size=16), generator.normal(size=16))
    steps, states = generator.uniform(0.01, 0.02, 16).astype(np.float32), generator.integers(-8, 8, (16, 9))
    inputs = generator.integers(-8, 8, (9, 200))
    whole = fixed_point("a", channels, states, steps, 0.05, 8, multiplier_bits=bits)
    unit = whole.weight_scale * 0.05
    sums = states @ inputs
    exact = channels.ratio[:, None] * steps[:, None] * 0.05 * sums + channels.shift[:, None]
    total = whole.multiplier[:, None].astype(np.int64) * sums + whole.bias[:, None]
    largest_ratio = np.abs(channels.ratio * steps / whole.weight_scale).max()
    bound = whole.multiplier_error * largest_ratio * unit * np.abs(sums) + whole.bias_error
    assert (np.abs(total * unit * 2.0**-whole.shift - exact) <= bound + 1e-12).all()
    assert np.abs(total).max() < 2 ** (whole.sum_bits - 1)
    assert 0 < whole.multiplier_error <= 2.0 ** -(bits - 1)
    assert 2 ** (bits - 2) <= np.abs(whole.multiplier).max() < 2 ** (bits - 1)


def test_a_large_bias_takes_shift_from_the_multipliers():
    """Oracle: 32 bits hold B. A bias of 1e3 in units of 1/8192 is 2^13 · 1e3, which leaves a shift of 8, not of 14."""
    one = np.ones(1)
    whole = fixed_point("a", ChannelMap(one, 1e3 * one), np.ones((1, 1)), np.array(2.0**-6), 2.0**-7, 8)
    assert whole.shift == 8 and whole.multiplier.tolist() == [256] and whole.bias.tolist() == [1000 * 2**21]
    with pytest.raises(ValueError, match="layer 'a': its bias is too large"):
        fixed_point("a", ChannelMap(one, 1e7 * one), np.ones((1, 1)), np.array(2.0**-6), 2.0**-7, 8)


def test_widest_shift_is_the_widest():
    """Oracle: one more would exceed the limit."""
    for value in (0.3, 1.0, 127.4, 1e5):
        shift = widest_shift(value, 127)
        assert round(value * 2.0**shift) <= 127 < round(value * 2.0 ** (shift + 1))

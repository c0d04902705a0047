"""Compute a quantized network with integer states, so that every program gives the same bits (`exact`).

Programs add a convolution's products in different orders, and a last digit that differs can give a value another state,
a whole step. Sums of products of integer states need no rounding, though: single precision holds them up to 2^24. One
multiplication and one addition per value follow, and those every program rounds alike.
"""

import copy
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .fold import fold, following_bns, replace_modules
from .layers import QuantConv2d, check_finite, is_quantized
from .lsq import integer_state
from .quantizer import Quantizer

WHOLE = {torch.float32: 2**24, torch.float64: 2**53}  # up to here a type holds every whole number
SMALLEST = np.finfo(np.float32).tiny  # a scale below it would lose digits, or be 0


class ChannelMap(NamedTuple):
    """y = ratio · h + shift for h, a convolution's sum of products without its bias; both (C_out,) float64.

    A positive ratio belongs into the scale of the weights, per channel, with every integer state as it is. A negative one
    would turn the states' signs, and a state of −8 has no opposite in 4 bits.
    """

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
    return np.asarray(scale[0] if (scale == scale[0]).all() else scale) if (scale >= SMALLEST).all() else None


def double(tensor: Tensor | None) -> np.ndarray:
    """Return a tensor's values as a float64 array."""
    assert tensor is not None  # of a BatchNorm with weights and statistics
    return tensor.detach().cpu().double().numpy()


class States(nn.Module):
    """The integer states of a map on the grid of a `Quantizer` without offset, as floats."""

    step_size: Tensor

    def __init__(self, grid: Quantizer):
        super().__init__()
        self.low, self.high = grid.low, grid.high
        self.register_buffer("step_size", grid.effective_step_size().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the states of `x`."""
        return integer_state(x, self.step_size, self.low, self.high)


class ExactConv2d(nn.Conv2d):
    """ratio · (sum of products of integer states) + shift: a `QuantConv2d`, and the BatchNorm of fixed statistics behind it.

    `weight`: integer states as floats, (C_out, C_in / groups, k, k); `ratio` and `shift`: (C_out, 1, 1). Both step sizes and
    the BatchNorm's slope are in the ratio (over the next layer's step size: M of 1712.05877, Eq. 5), rounded once.
    """

    ratio: Tensor
    shift: Tensor

    def __init__(self, conv: QuantConv2d, bn: nn.BatchNorm2d | None = None):
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        same: dict[str, Any] = {name: getattr(conv, name) for name in names}
        super().__init__(**same, bias=False, device="meta")
        self.bits = conv.bits
        self.states = States(conv.input_quantizer)
        self.weight = nn.Parameter(conv.integer_state().to(conv.weight), requires_grad=False)
        channels = channel_map(conv, bn)
        ratio = channels.ratio * double(conv.weight_step_size()) * double(self.states.step_size)
        for name, values in (("ratio", ratio), ("shift", channels.shift)):
            self.register_buffer(name, torch.from_numpy(values).to(conv.weight).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, (N, C_out, H, W)."""
        sums = self._conv_forward(self.states(x), self.weight, None)
        y: Tensor = sums.mul_(self.ratio).add_(self.shift)
        return y

    def extra_repr(self) -> str:
        """Return the convolution's own words and the bits."""
        return f"{super().extra_repr()}, bits={self.bits}"


class ExactSiLU(nn.Module):
    """x / (1 + e^-x), e^-x worked out in double precision and rounded once: programs agree on it where they do not on σ(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of `x`."""
        return x / x.neg().double().exp_().to(x.dtype).add_(1)


@torch.no_grad()
def exact(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that computes with integer states: the same bits in every program, batch and thread count.

    QC is folded where it can be. Every `QuantConv2d`, and the BatchNorm behind it, becomes an `ExactConv2d`, every SiLU an
    `ExactSiLU`; what has no exact form (`has_exact_form`) and what is not quantized stays. Outputs are those of `model` but
    for rounding, which next to a bin edge can be a step. Holds on the CPU; on a GPU a library may choose transforms
    (Winograd) that round. Raises ValueError for a float network, a value that is not finite, and hooks that would be lost.
    """
    if not is_quantized(model):
        given = type(model).__name__
        raise ValueError(f"only a quantized network has an exact form, got a float {given}: quantize it first")
    check_finite(model)
    network = copy.deepcopy(model).eval()
    with suppress(ValueError):  # a factor that has no BatchNorm to go to is not positive: QC stays where it is
        network = fold(network)
    made: dict[nn.Module, nn.Module] = {}
    bns = following_bns(network)
    for one in network.modules():
        if isinstance(one, QuantConv2d) and has_exact_form(one):
            made[one] = ExactConv2d(one, bns.get(one)).eval()
            made |= {bns[one]: nn.Identity()} if one in bns else {}
        elif type(one) is nn.SiLU:
            made[one] = ExactSiLU().eval()
    replace_modules(network, made)
    hooked, kept = (
        [name for name, module in net.named_modules() if module._forward_hooks or module._forward_pre_hooks]
        for net in (model, network)
    )
    if lost := [name for name in hooked if name not in kept]:
        raise ValueError(f"the exact form would lose the forward hook of module {lost[0]!r}: remove it first")
    return network


def exact_or_float(model: nn.Module) -> nn.Module:
    """Return what published figures are measured on: the exact form of a quantized network, a float network itself."""
    return exact(model) if is_quantized(model) else model


def has_exact_form(conv: QuantConv2d) -> bool:
    """Return whether the sums of a quantized convolution are whole numbers that its type holds, in whatever order.

    Not so with an offset, a quantizer that is off or not calibrated, half precision, or so many inputs that a sum could pass.
    """
    weight, given = conv.weight_quantizer, conv.input_quantizer
    plain = conv.padding_mode == "zeros" and conv.weight.dtype in WHOLE and given.offset is None
    if not plain or not all(grid.enabled and grid.calibrated for grid in (weight, given)):
        return False
    largest = conv.integer_state().int().abs().flatten(1).sum(1).max() * max(-given.low, given.high)
    return int(largest) <= WHOLE[conv.weight.dtype]

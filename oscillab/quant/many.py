"""How are all layers of a network read at once?

What `QuantConv2d` answers for itself, for a list of layers: the same values, in a twentieth of the time. A recorder finds
it as the class attribute `read_many` of a layer's own class.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oscillab.quant.kernel.many import Stack, gathered

from .weights import state_bytes


class ReadMany:
    """The protocol of `oscillab.recording.watched` over a list of layers, which stay what they are.

    `strides`: how each layer's part of the flat buffer of integer states lies in memory.
    """

    def __init__(self, layers: Sequence, strides: Sequence[tuple[int, ...]]):
        self.layers, self._stack, self._limits = list(layers), Stack(strides), None

    def step_places(self) -> list[tuple[int, torch.device]]:
        """How many step sizes each layer has, and where."""
        steps = [layer._modules["weight_quantizer"]._parameters["step_size"] for layer in self.layers]
        return [(step.numel(), step.device) for step in steps]

    @torch.no_grad()
    def read(self, outs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each layer a number that is finite where all its weights are, (layers,), and the step sizes of all.

        The latter are `weight_step_size()` of each, one after the other (step sizes,). Writes `integer_state()` of each into its
        tensor of `outs` (int8, of the weight's shape).
        """
        grids, weights = self._grids(), [layer._parameters["weight"] for layer in self.layers]
        limits = [(grid.low, grid.high) for grid in grids]
        found = self._stack.states(weights, outs, *_step_sizes_and_floors(grids), limits)
        if found is not None:
            return found
        steps = _in_use(grids)
        for weight, out, step, ends in zip(weights, outs, steps, limits, strict=True):
            out.copy_(state_bytes(weight, step, *ends))
        return torch.stack(torch._foreach_norm(weights)), _flat(steps)

    @torch.no_grad()
    def activation_ranges(self) -> tuple[Tensor, Tensor]:
        """Both ends of `activation_range()` of each layer, (layers,)."""
        grids = _calibrated([layer._modules["input_quantizer"] for layer in self.layers])
        steps, floors = _step_sizes_and_floors(grids)
        steps = torch.maximum(*_scalars(steps + floors).chunk(2))
        low, high = steps * self._limits_of(grids, steps)
        offsets = [(i, offset) for i, grid in enumerate(grids) if (offset := grid._parameters["offset"]) is not None]
        if offsets:
            shift = torch.zeros_like(low)
            shift[[i for i, _ in offsets]] = torch.stack([offset for _, offset in offsets])
            low, high = low + shift, high + shift
        return low, high

    def _limits_of(self, grids: list, like: Tensor) -> Tensor:
        limits = [grid.low for grid in grids], [grid.high for grid in grids]
        if self._limits is None or self._limits[0] != limits:
            self._limits = limits, like.new_tensor(limits)
        return self._limits[1]

    def _grids(self):
        return _calibrated([layer._modules["weight_quantizer"] for layer in self.layers])


def _calibrated(quantizers: list) -> list:
    for quantizer in quantizers:
        if quantizer.high <= 0:
            quantizer._require_calibrated()
    return quantizers


def _step_sizes_and_floors(quantizers: list) -> tuple[list[Tensor], list[Tensor]]:
    return [q._parameters["step_size"] for q in quantizers], [q._buffers["floor"] for q in quantizers]


@torch.no_grad()
def _in_use(quantizers: list) -> list[Tensor]:
    """`positive_step_size()` of each."""
    return torch._foreach_maximum(*_step_sizes_and_floors(quantizers))


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _scalars(tensors: list[Tensor]) -> Tensor:
    """The 0-d tensors as one."""
    found = gathered(tensors, np.arange(len(tensors)), np.zeros(len(tensors), np.int64))
    return torch.stack(tensors) if found is None else found

"""How are all layers of a network read at once?

What `QuantConv2d` answers for itself, for a list of layers: the same values, in a tenth of the calls. A recorder finds it
as the class attribute `read_many` of a layer's own class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .kernel import kernel_for
from .weights import state_bytes


def step_sizes_in_use(quantizers: Sequence) -> list[Tensor]:
    """`positive_step_size()` of each."""
    for quantizer in quantizers:
        quantizer._require_calibrated()
    step_sizes = [quantizer._parameters["step_size"].detach() for quantizer in quantizers]
    return torch._foreach_maximum(step_sizes, [quantizer._buffers["floor"] for quantizer in quantizers])


class ReadMany:
    """The protocol of `oscillab.record.watched` over lists of layers."""

    @staticmethod
    @torch.no_grad()
    def weight_step_sizes(layers: Sequence) -> list[Tensor]:
        """`weight_step_size()` of each."""
        return step_sizes_in_use([layer._modules["weight_quantizer"] for layer in layers])

    @staticmethod
    @torch.no_grad()
    def integer_states(layers: Sequence, outs: Sequence[Tensor]) -> Tensor:
        """For each layer a number that is finite where all its weights are, (layers,).

        Writes `integer_state()` of each into its tensor of `outs` (int8, of the weight's shape).
        """
        grids = [layer._modules["weight_quantizer"] for layer in layers]
        weights = [layer._parameters["weight"] for layer in layers]
        steps, limits = step_sizes_in_use(grids), [(grid.low, grid.high) for grid in grids]
        alike = all(out.stride() == weight.stride() for out, weight in zip(outs, weights, strict=True))
        kernels = [
            kernel_for(weight, step, types=(torch.float32,)) for weight, step in zip(weights, steps, strict=True)
        ]
        if alike and all(kernels):
            return kernels[0].states_of_many(weights, outs, steps, limits)
        for weight, out, step, ends in zip(weights, outs, steps, limits, strict=True):
            out.copy_(state_bytes(weight, step, *ends))
        return torch.stack(torch._foreach_norm(weights))

    @staticmethod
    @torch.no_grad()
    def activation_ranges(layers: Sequence) -> tuple[Tensor, Tensor]:
        """Both ends of `activation_range()` of each, (layers,)."""
        grids = [layer._modules["input_quantizer"] for layer in layers]
        step_sizes = torch.stack(step_sizes_in_use(grids))
        low, high = (
            step_sizes * step_sizes.new_tensor(ends) for ends in zip(*((g.low, g.high) for g in grids), strict=True)
        )
        offsets = [(i, grid.offset.detach()) for i, grid in enumerate(grids) if grid._parameters["offset"] is not None]
        if offsets:
            shift = torch.zeros_like(low)
            shift[[i for i, _ in offsets]] = torch.stack([offset for _, offset in offsets])
            low, high = low + shift, high + shift
        return low, high

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
    def integer_states(layers: Sequence, outs: Sequence[Tensor]) -> None:
        """Nothing; writes `integer_state()` of each into its tensor of `outs` (int8, of the weight's shape)."""
        grids = [layer._modules["weight_quantizer"] for layer in layers]
        weights = [layer._parameters["weight"] for layer in layers]
        for weight, out, grid, step in zip(weights, outs, grids, step_sizes_in_use(grids), strict=True):
            kernel = kernel_for(weight, step, types=(torch.float32,)) if out.stride() == weight.stride() else None
            if kernel is None:
                out.copy_(state_bytes(weight, step, grid.low, grid.high))
            else:
                kernel.of_weights("states", step, grid.low, grid.high, weight, out, step)

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

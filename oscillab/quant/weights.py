"""What do a recorder and the remedies ask of the latent weights at every step?

Each question is one pass over memory where the kernel takes it, and else a few of torch's operations with the same result.
`weight` is (C, ...), `step_size` 0-d or (C,) for one per slice weight[c]; nothing here has a gradient.
"""

import torch
from torch import Tensor

from oscillab.quant.kernel import kernel_for

from .lsq import along_channels, integer_state


@torch.no_grad()
def state_bytes(weight: Tensor, step_size: Tensor, low: int, high: int) -> Tensor:
    """`integer_state` of every weight, int8, in the weight's memory format."""
    kernel = kernel_for(weight, step_size, types=(torch.float32,))
    if kernel is None:
        return integer_state(weight, step_size, low, high).to(torch.int8)
    states = torch.empty_like(weight, dtype=torch.int8)
    kernel.of_weights("states", step_size, low, high, weight, states, step_size, weight.new_empty(()))
    return states


@torch.no_grad()
def bin_distances(weight: Tensor, step_size: Tensor, low: int, high: int) -> Tensor:
    """How far each weight, clipped to the grid, lies above its bin's centre, in the units of the weight."""
    kernel = kernel_for(weight, step_size, types=(torch.float32,))
    if kernel is None:
        step = along_channels(step_size, weight)
        centres = integer_state(weight, step_size, low, high).mul_(step)
        return weight.clamp(low * step, high * step).sub_(centres)
    distances = torch.empty_like(weight)
    kernel.of_weights("distances", step_size, low, high, weight, distances, step_size)
    return distances


@torch.no_grad()
def place_frozen(weight: Tensor, frozen: Tensor, state: Tensor, step_size: Tensor) -> None:
    """Nothing; each weight where `frozen` (bool) to s * state, the middle of the bin of its `state` (int8), in place."""
    kernel = _kernel_of(weight, frozen, state, step_size)
    if kernel is None:
        weight.copy_(torch.where(frozen, state * along_channels(step_size, weight), weight))
    else:
        kernel.of_weights("place", step_size, 0, 0, weight, frozen, state, step_size)


@torch.no_grad()
def release_frozen(gradient: Tensor, frozen: Tensor, state: Tensor, step_size: Tensor) -> Tensor:
    """The sum of gradient * state for each step size, `state` (int8) being 0 where not `frozen` (bool).

    In place, gradients become 0 where frozen.
    """
    kernel = _kernel_of(gradient, frozen, state, step_size)
    if kernel is None:
        each = gradient * state
        gradient.masked_fill_(frozen, 0)
        return each.sum() if step_size.ndim == 0 else each.flatten(1).sum(1)
    sums = torch.empty_like(step_size)
    kernel.of_weights("release", step_size, 0, 0, gradient, frozen, state, sums)
    return sums


def _kernel_of(values: Tensor, frozen: Tensor, state: Tensor, step_size: Tensor):
    """The kernel where all three lie in memory alike."""
    alike = values.stride() == frozen.stride() == state.stride()
    return kernel_for(values, step_size, types=(torch.float32,)) if alike else None

"""Choose the step size that a quantizer starts from.

`mse` searches the smallest squared error on a grid (as Nagel et al., 2203.11086, do); `lsq` is LSQ's formula (1902.08153).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .lsq import along_channels, integer_state

INITS = ("mse", "lsq")
COARSE = 0.01 ** (torch.arange(80) / 79)  # 1 ... 0.01 of the widest range, each 6 % below the one before
FINE = torch.linspace(0.94, 1.06, 21)  # between the neighbours of the best coarse candidate
LOWER = torch.linspace(0, 0.6, 13)  # where an affine grid may begin: from the lowest value towards the mean
LOWER_FINE = torch.linspace(-0.05, 0.05, 11)
RANGE_SAMPLE_COUNT = 2**12  # values of the search over both ends


def sample(x: Tensor, count: int) -> Tensor:
    """Return at most `count` entries of the last dimension of `x`, drawn by a generator of their own."""
    size = x.shape[-1]
    if size <= count:
        return x
    return x[..., torch.randint(size, (count,), generator=torch.Generator().manual_seed(0)).to(x.device)]


def squared_error(x: Tensor, step_size: Tensor, low: int, high: int, offset: Tensor | float = 0.0) -> Tensor:
    """Return the summed squared error of quantizing `x` (n,) or each row of `x` (C, n): shape () or (C,)."""
    states = integer_state(x - offset, step_size, low, high)
    return states.mul_(along_channels(step_size, x)).add_(offset).sub_(x).square_().sum(-1)


def lsq_step_size(x: Tensor, high: int) -> Tensor:
    """Return LSQ's 2 <|x|> / sqrt(Qp) over the last dimension of `x`: shape () or (C,) (1902.08153, section 2.1)."""
    return x.abs().mean(-1) * (2 / math.sqrt(high))


def mse_step_size(x: Tensor, low: int, high: int) -> Tensor:
    """Return the step size of the smallest squared error for `x` (n,), or for each row of `x` (C, n): shape () or (C,).

    A geometric grid of 80 candidates below the step size that clips nothing, then 21 around the best of them.
    """
    widest = x.amax(-1) / high
    if low < 0:
        widest = torch.maximum(widest, x.amin(-1) / low)
    best = widest.clamp(min=0)
    for ratios in (COARSE, FINE):
        best = _best(_candidates(best, ratios), lambda s: squared_error(x, s, low, high))
    return best


def mse_range(x: Tensor, high: int) -> tuple[Tensor, Tensor]:
    """Return the step size and the offset, both 0-d, of a small squared error for `x` (n,) on the grid offset + s * (0..high).

    Both ends together on a coarse grid and a part of `x`, since the error has many valleys; then one end after the other.
    The aim is that of LSQ+ (2004.09576), whose own search is unknown.
    """
    part, (lowest, top) = sample(x, RANGE_SAMPLE_COUNT), x.aminmax()
    reach = x.mean() - lowest
    pairs = []
    for start in lowest + _candidates(reach, LOWER):
        ends = start + _candidates(top - start, COARSE)
        pairs.append(torch.stack([start, _best(ends, partial(_range_error, part, high, start))]))
    lower, upper = min(pairs, key=lambda pair: float(_range_error(part, high, *pair)))
    lower = _best(lower + _candidates(reach, LOWER_FINE), lambda end: _range_error(x, high, end, upper))
    upper = _best(lower + _candidates(upper - lower, FINE), partial(_range_error, x, high, lower))
    return (upper - lower) / high, lower


def _range_error(x: Tensor, high: int, lower: Tensor, upper: Tensor) -> Tensor:
    return squared_error(x, (upper - lower) / high, 0, high, lower)


def _candidates(value: Tensor, ratios: Tensor) -> Tensor:
    """Return `value` times each of the K ratios: from () to (K,), from (C,) to (K, C)."""
    return ratios.to(value).view(-1, *[1] * value.ndim) * value


def _best(candidates: Tensor, error: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the candidate of the smallest error, per channel: from (K,) to (), from (K, C) to (C,)."""
    errors = torch.stack([error(candidate) for candidate in candidates])
    return candidates.gather(0, errors.argmin(0, keepdim=True)).squeeze(0)

"""Which integer does a value get, and how does the rounded value pass its gradient on?

LSQ (Eq. 1 of 2311.05109; gradients of 1902.08153; the offset of LSQ+, 2004.09576). The integer state stands apart from
de-quantizing: forward, recorder, dampening and export call the one expression here, so that none of them can disagree
about a bin edge. Forward and backward stand together in one autograd.Function without host synchronisation. They are
written in torch's operations here, for every device; on the CPU `fused.py` has them in one pass over memory each.
"""

from functools import lru_cache

import torch
from torch import Tensor

from oscillab.quant.kernel import kernel_for

from .fused import FusedLsq

BITS = range(2, 9)
GRADIENT_MASKS = ("unrounded", "rounded")


def check_bits(bits: int, name: str = "bits") -> int:
    """`bits` itself where it is an integer in 2..8; raises ValueError otherwise."""
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in BITS:
        raise ValueError(f"{name} must be {BITS[0]}..{BITS[-1]}, got {bits!r}")
    return bits


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """`value` itself where it is one of `allowed`; raises ValueError otherwise."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def bin_limits(bits: int, signed: bool = True) -> tuple[int, int]:
    """The lowest and the highest integer state (u, v in Eq. 1 of 2311.05109) of a grid of 2**bits levels.

    >>> bin_limits(4), bin_limits(3), bin_limits(4, signed=False)
    ((-8, 7), (-4, 3), (0, 15))
    """
    check_bits(bits)
    if signed:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def along_channels(step_size: Tensor, x: Tensor) -> Tensor:
    """`step_size` (0-d, or (C,) for one per slice x[c]) in a shape that broadcasts over `x` (C, ...)."""
    if step_size.ndim != 1:
        return step_size
    return step_size.view(-1, *[1] * (x.ndim - 1))  # (C, 1, ..., 1)


@torch.no_grad()
def integer_state(x: Tensor, step_size: Tensor, low: int, high: int) -> Tensor:
    """The integer states clip(round(x / s), u, v) of `x`, as floats without gradient (Eq. 1 of 2311.05109).

    `step_size` is 0-d or (C,) for one per slice x[c]; ties round to the even integer, as torch.round does.

    >>> integer_state(torch.tensor([-0.9, -0.26, 0.3, 0.8]), torch.tensor(0.2), -2, 1)
    tensor([-2., -1.,  1.,  1.])
    """
    return (x / along_channels(step_size, x)).round_().clamp_(low, high)  # in place: the quotient is ours


@lru_cache
def _mask_limits(low: int, high: int, rounded: bool, dtype: torch.dtype) -> tuple[float, float]:
    """Two numbers a, b such that a < v < b says whether v = x / s lies inside the grid.

    Unrounded: low <= v <= high. Rounded: low <= round(v) <= high, whose edges are half a bin further out and belong to
    the grid where the limit is even (ties go to the even integer). A closed edge moves out by one representable number.
    """
    edges = []
    for limit, side in ((low, -1), (high, 1)):
        edge = torch.tensor(limit + 0.5 * side * rounded, dtype=dtype)
        closed = not rounded or limit % 2 == 0
        edge = torch.nextafter(edge, edge + side) if closed else edge
        subnormal = 0 < edge.abs() < torch.finfo(dtype).tiny  # would count as 0 where subnormal numbers are flushed
        edges.append(side * torch.finfo(dtype).tiny if subnormal else edge.item())
    return tuple(edges)


def _total(grad: Tensor, factor: Tensor, like: Tensor) -> Tensor:
    """The sum of grad * factor in the shape of `like`, 0-d or (C, 1, ...); `factor` is dense in any memory format."""
    if like.ndim == 0 and grad.stride() == factor.stride():
        flat = (factor.numel(),), (1,)  # one pass over the memory as it lies
        return torch.dot(grad.as_strided(*flat), factor.as_strided(*flat))
    return (grad * factor).sum_to_size(like.shape)


# hardtanh_backward(a, v, l, u) is a where l < v < u and 0 elsewhere, in one pass: three times as fast as a bool mask
_where_inside = torch.ops.aten.hardtanh_backward.default


class _Lsq(torch.autograd.Function):
    """s * clip(round((x - offset) / s), low, high) + offset, and its gradients.

    Saves its input and its output; the output is kept by the convolution behind it anyway. Saving x / s or the slope
    in place of x was no faster, and <grad, y> - <grad_x, x> for the step's gradient cancels digits.
    """

    @staticmethod
    def forward(ctx, x, step_size, offset, floor, held, low, high, rounded, gradient_scale):
        work = x if x.dtype in (torch.float32, torch.float64) else x.float()
        step = step_size if floor is None else torch.maximum(step_size, floor)
        if held is not None:
            held.add_(step_size < floor)
        step = along_channels(step, x)
        if step.dtype != work.dtype:
            step = step.to(work.dtype)
        if offset is None:
            shift, y = None, integer_state(work, step, low, high).mul_(step)
        else:
            shift = offset.to(work.dtype)
            y = integer_state(work - shift, step, low, high).mul_(step).add_(shift)
        output = y if work is x else y.to(x.dtype)
        ctx.save_for_backward(x, step, shift, output if work is x else None)
        ctx.low, ctx.high, ctx.gradient_scale = low, high, gradient_scale
        ctx.limits = _mask_limits(low, high, rounded, work.dtype)
        ctx.step_shape, ctx.step_dtype = step_size.shape, step_size.dtype
        return output

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a rounding has no second derivative: use create_graph=False")
        x, step, shift, y = ctx.saved_tensors
        work = x
        if work.dtype != step.dtype:
            work, grad = x.to(step.dtype), grad.to(step.dtype)
        if shift is not None:
            work = work - shift
        quotient = work / step
        # to x: straight through inside the grid, nothing outside
        grad_x = _where_inside(grad, quotient, *ctx.limits)
        # to s: round(x / s) - x / s inside, the limit outside; here both times s, which the sum is divided by
        inside = _where_inside(work, quotient, *ctx.limits)
        if y is None:  # the output was rounded to half precision
            y = quotient.round_().clamp_(ctx.low, ctx.high).mul_(step)
        elif shift is not None:
            y = y - shift
        grad_step = _total(grad, torch.sub(y, inside, out=inside), step).div_(step).mul_(ctx.gradient_scale)
        if grad_step.shape != ctx.step_shape or grad_step.dtype != ctx.step_dtype:
            grad_step = grad_step.view(ctx.step_shape).to(ctx.step_dtype)
        grad_offset = None
        if shift is not None:  # to the offset: 0 inside, 1 outside
            grad_offset = (grad.sum() - grad_x.sum()).mul_(ctx.gradient_scale).to(ctx.step_dtype)
        if grad_x.dtype != x.dtype:
            grad_x = grad_x.to(x.dtype)
        return grad_x, grad_step, grad_offset, None, None, None, None, None, None


def lsq(
    x: Tensor,
    step_size: Tensor,
    low: int,
    high: int,
    *,
    gradient_mask: str = "unrounded",
    gradient_scale: float = 1.0,
    offset: Tensor | None = None,
    floor: Tensor | None = None,
    held: Tensor | None = None,
) -> Tensor:
    """The values of `x` on the grid s * (low..high) + offset, with LSQ's gradients (Eq. 1 of 2311.05109; 1902.08153).

    `step_size` is 0-d, or (C,) for one per slice x[c]. To `x` the gradient passes unchanged inside the grid and not at
    all outside; `gradient_mask` says whether x / s is compared with the limits before it is rounded ("unrounded", as in
    LSQ's paper) or after ("rounded", as in most libraries). To the step size it is round(x / s) - x / s inside and the
    limit outside, to the 0-d `offset` 0 inside and 1 outside, both times `gradient_scale`. Half-precision `x` is
    computed in float32. A step size below `floor` acts as `floor`, keeps its gradient, and adds one to `held`.
    """
    check_choice("gradient_mask", gradient_mask, GRADIENT_MASKS)
    if step_size.ndim > 1 or (step_size.ndim == 1 and step_size.numel() not in (1, x.shape[0])):
        raise ValueError(f"step_size must be 0-d or ({x.shape[0]},) for this x, got shape {tuple(step_size.shape)}")
    rounded = gradient_mask == "rounded"
    kernel = kernel_for(x, step_size, offset, floor)
    if kernel:
        limits = _mask_limits(low, high, rounded, torch.float32)
        return FusedLsq.apply(kernel, x, step_size, offset, floor, held, low, high, limits, gradient_scale)
    return _Lsq.apply(x, step_size, offset, floor, held, low, high, rounded, gradient_scale)

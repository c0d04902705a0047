"""Quantize values to integer states (LSQ, Eq. 1 of 2311.05109) and pass gradients on (1902.08153; offset: 2004.09576).

Forward, recorder, dampening and export call the one `integer_state`, so that none can disagree about a bin edge. `lsq`
calls the operator `oscillab::lsq`: `kernel.c` where it takes the tensors, else operations that torch.compile fuses.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .kernel import kernel_for

BITS = range(2, 9)
GRADIENT_MASKS = ("unrounded", "rounded")


def check_bits(bits: int, name: str = "bits") -> int:
    """Return `bits` where it is an integer in 2..8; raise ValueError otherwise."""
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in BITS:
        raise ValueError(f"{name} must be {BITS[0]}..{BITS[-1]}, got {bits!r}")
    return bits


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value` where it is one of `allowed`; raise ValueError otherwise."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def bin_limits(bits: int, signed: bool = True) -> tuple[int, int]:
    """Return the lowest and the highest integer state (u, v in Eq. 1 of 2311.05109) of a grid of 2**bits levels.

    >>> bin_limits(4), bin_limits(3), bin_limits(4, signed=False)
    ((-8, 7), (-4, 3), (0, 15))
    """
    check_bits(bits)
    lowest = -(2 ** (bits - 1)) if signed else 0
    return lowest, lowest + 2**bits - 1


def along_channels(step_size: Tensor, x: Tensor) -> Tensor:
    """Return `step_size`, 0-d or (C,) for one per slice x[c], in a shape that broadcasts over `x` (C, ...)."""
    return step_size.view(-1, *[1] * (x.ndim - 1)) if step_size.ndim == 1 else step_size


@torch.no_grad()
def integer_state(x: Tensor, step_size: Tensor, low: int, high: int) -> Tensor:
    """Return the integer states clip(round(x / s), u, v) of `x`, as floats without gradient (Eq. 1 of 2311.05109).

    `step_size` is 0-d or (C,) for one per slice x[c]; ties round to the even integer, as torch.round does.

    >>> integer_state(torch.tensor([-0.9, -0.26, 0.3, 0.8]), torch.tensor(0.2), -2, 1)
    tensor([-2., -1.,  1.,  1.])
    """
    return (x / along_channels(step_size, x)).round_().clamp_(low, high)  # in place: the quotient is ours


@lru_cache
def _mask_limits(low: int, high: int, rounded: bool, dtype: torch.dtype) -> tuple[float, float]:
    """Return two numbers a, b such that a < v < b says whether v = x / s lies inside the grid.

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
    return edges[0], edges[1]


# hardtanh_backward(a, v, l, u) is a where l < v < u and 0 elsewhere, in one pass: three times as fast as a bool mask
_where_inside = torch.ops.aten.hardtanh_backward.default


def _forward_by_torch(
    x: Tensor, step_size: Tensor, offset: Tensor | None, floor: Tensor | None, held: Tensor | None, low: int, high: int
) -> tuple[Tensor, Tensor]:
    """Return s * clip(round((x - offset) / s), low, high) + offset, and the step sizes in use."""
    used = step_size if floor is None else torch.maximum(step_size, floor)
    if floor is not None and held is not None:
        held.add_(step_size < floor)
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    step = along_channels(used, x).to(work.dtype)
    if offset is None:
        return integer_state(work, step, low, high).mul_(step).to(x.dtype), used
    shift = offset.to(work.dtype)
    return integer_state(work - shift, step, low, high).mul_(step).add_(shift).to(x.dtype), used


def _backward_by_torch(
    grad: Tensor, x: Tensor, y: Tensor | None, step_size: Tensor, offset: Tensor | None, *rest: Any
) -> list[Tensor]:
    """Return the gradients to x, to the step size and, where there is one, to the offset; `rest` as in `Kernel.backward`."""
    low, high, lower, upper, scale = rest
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    grad, step = grad.to(work.dtype), along_channels(step_size, x).to(work.dtype)
    shift = None if offset is None else offset.to(work.dtype)
    if shift is not None:
        work = work - shift
    quotient = work / step
    # to x: straight through inside the grid, nothing outside
    grad_x = _where_inside(grad, quotient, lower, upper)
    # to s: round(x / s) - x / s inside, the limit outside; here both times s, which the sum is divided by
    inside = _where_inside(work, quotient, lower, upper)
    if y is None:
        y = quotient.round_().clamp_(low, high).mul_(step)
    elif shift is not None:
        y = y - shift
    slope = torch.sub(y, inside, out=inside)
    if step.ndim == 0 and grad.stride() == slope.stride():  # dense: one pass over the memory as it lies
        total = torch.dot(*(tensor.as_strided((tensor.numel(),), (1,)) for tensor in (grad, slope)))
    else:
        total = (grad * slope).sum_to_size(step.shape)
    grad_step = total.div_(step).mul_(scale).view(step_size.shape)
    found = [grad_x.to(x.dtype), grad_step.to(step_size.dtype)]
    if shift is not None:  # to the offset: 0 inside, 1 outside
        found.append((grad.sum() - grad_x.sum()).mul_(scale).to(step_size.dtype))
    return found


class _Lsq(torch.autograd.Function):
    """The quantized values and LSQ's gradients; keeps its input, and its output where torch's operations made it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step_size: Tensor, offset: Tensor | None, *rest: Any) -> Tensor:
        floor, held, low, high, rounded, gradient_scale = rest
        ctx.kernel = kernel_for(x, step_size, offset, floor)
        forward = ctx.kernel.forward if ctx.kernel else _forward_by_torch
        y: Tensor
        y, step = forward(x, step_size, offset, floor, held, low, high)
        single = x.dtype in (torch.float32, torch.float64)  # an output rounded to half precision is of no use
        ctx.save_for_backward(x, step, offset, y if single and not ctx.kernel else None)
        limits = _mask_limits(low, high, rounded, torch.float64 if x.dtype == torch.float64 else torch.float32)
        ctx.grid, ctx.rest, ctx.shape = (low, high), (*limits, gradient_scale), x.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a rounding has no second derivative: use create_graph=False")
        x, step, offset, y = ctx.saved_tensors
        if ctx.kernel:
            found = ctx.kernel.backward(x, grad, step, offset, *ctx.grid, *ctx.rest)
        else:
            found = _backward_by_torch(grad, x, y, step, offset, *ctx.grid, *ctx.rest)
        return (*found, *[None] * (9 - len(found)))


_library = torch.library.Library("oscillab", "FRAGMENT")  # `custom_op` adds 60 µs a call, this 10
_library.define(
    "lsq(Tensor x, Tensor step_size, Tensor? offset, Tensor? floor, Tensor(a!)? held, int low, int high, bool rounded, "
    "float gradient_scale) -> Tensor"
)
for _key in ("Autograd", "CompositeExplicitAutograd"):  # the second where no gradients are: torch.inference_mode
    _library.impl("lsq", _Lsq.apply, _key)
_operator: Callable[..., Tensor] = torch.ops.oscillab.lsq.default


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
    """Return the values of `x` on the grid s * (low..high) + offset, with LSQ's gradients (Eq. 1 of 2311.05109; 1902.08153).

    `step_size` is 0-d, or (C,) for one per slice x[c]. To `x` the gradient passes unchanged inside the grid and not at
    all outside; `gradient_mask` says whether x / s is compared with the limits before it is rounded ("unrounded", as in
    LSQ's paper) or after ("rounded", as in most libraries). To the step size it is round(x / s) - x / s inside and the
    limit outside, to the 0-d `offset` 0 inside and 1 outside, both times `gradient_scale`. Half-precision `x` is
    computed in float32. A step size below `floor` acts as `floor`, keeps its gradient, and adds one to `held`.
    """
    check_choice("gradient_mask", gradient_mask, GRADIENT_MASKS)
    if step_size.ndim > 1 or (step_size.ndim == 1 and step_size.numel() not in (1, x.shape[0])):
        raise ValueError(f"step_size must be 0-d or ({x.shape[0]},) for this x, got shape {tuple(step_size.shape)}")
    return _operator(x, step_size, offset, floor, held, low, high, gradient_mask == "rounded", gradient_scale)


def recomputed(*outputs: Tensor) -> AbstractContextManager[Any]:
    """Let the operation in the block keep none of `outputs` for its backward pass, and make them again there.

    This goes for what `lsq` made on the kernel; others are kept. The network then stores little more than the float one.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return nullcontext()
    graph = ((y.data_ptr(), y.grad_fn) for y in outputs)
    makers = {at: maker for at, maker in graph if isinstance(maker, _Lsq._backward_cls) and maker.kernel}
    if not makers:
        return nullcontext()

    def pack(kept: Tensor) -> Any:
        maker = makers.get(kept.data_ptr())
        return kept if maker is None or kept.shape != maker.shape else maker  # a view of it is kept

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        x, step, offset, _ = kept.saved_tensors
        y: Tensor = kept.kernel.forward(x, step, offset, None, None, *kept.grid)[0]
        return y

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

"""How does a quantizer keep nothing that can be made again?

`FusedLsq` is `lsq` on the kernel (kernel.py). It keeps its input, which is kept for other reasons too, and no output: the
convolution behind it makes its input again in the backward pass, in one pass over memory. A quantized network then
stores little more than the float one, where half as much again went to the quantizers' outputs.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class FusedLsq(torch.autograd.Function):
    """The values and gradients of `lsq`, by `kernel`; `limits`: between them x / s lies inside the grid."""

    @staticmethod
    def forward(ctx, kernel, x, step_size, offset, floor, held, low, high, limits, gradient_scale):
        y, step = kernel.forward(x, step_size, floor, held, offset, low, high)
        ctx.save_for_backward(x, step, offset)
        ctx.kernel, ctx.low, ctx.high, ctx.limits = kernel, low, high, limits
        ctx.gradient_scale, ctx.shape = gradient_scale, x.shape
        return y

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of a rounding has no second derivative: use create_graph=False")
        x, step, offset = ctx.saved_tensors
        gradients = ctx.kernel.backward(x, grad, step, offset, ctx.low, ctx.high, ctx.limits, ctx.gradient_scale)
        return None, *gradients, None, None, None, None, None, None

    @staticmethod
    def output(ctx) -> Tensor:
        """The output once more, to the same bits."""
        x, step, offset = ctx.saved_tensors
        return ctx.kernel.forward(x, step, None, None, offset, ctx.low, ctx.high)[0]


def recomputed(*outputs: Tensor) -> AbstractContextManager:
    """Nothing; an operation within the block keeps none of `outputs`, and makes them again in its backward pass.

    This goes for what `FusedLsq` made; other tensors are kept as they always are.
    """
    if not torch.is_grad_enabled():
        return nullcontext()
    makers = {y.data_ptr(): y.grad_fn for y in outputs if isinstance(y.grad_fn, FusedLsq._backward_cls)}
    if not makers:
        return nullcontext()

    def pack(kept: Tensor):
        maker = makers.get(kept.data_ptr())
        return kept if maker is None or kept.shape != maker.shape else maker  # a view of it is kept

    return torch.autograd.graph.saved_tensors_hooks(pack, _unpack)


def _unpack(kept) -> Tensor:
    return kept if isinstance(kept, Tensor) else FusedLsq.output(kept)

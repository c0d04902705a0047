"""Dampen oscillations by a loss that pulls weights to the middle of their bins (2203.11086).

Does a weight that is pulled there stop flipping? The pull rises from 0, so that weights may change their bins early on.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.quant.lsq import along_channels, integer_state
from oscillab.recording.tracker import in_storage_order
from oscillab.train.remedies import Remedy, check_share, cosine_between


class Dampening(Remedy):
    """A growing loss lambda * || w^ - clip(w, s n, s p) ||^2 over all quantized weights.

    `weight`: the last lambda, reached by half a cosine that leaves 0 at `begin` of the run. The paper's best are 1e-2
    before and 1e-3 after BN re-estimation, for a cross-entropy; a detection loss is larger and wants more.
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, total_steps: int, *, weight: float = 1e-2, begin: float = 0.25
    ):
        if not weight > 0:
            raise ValueError(f"weight must be above 0, got {weight}")
        self.last_weight, self.begin = weight, check_share("begin", begin)
        super().__init__(model, optimizer, total_steps)

    def weight(self) -> float:
        """Return lambda at this point of the run."""
        return cosine_between(0.0, self.last_weight, self.share, begin=self.begin)

    def penalty(self) -> Tensor:
        """Return the sum of (w^ - clip(w, s n, s p))^2 over all weights, 0-d (the damping loss of 2203.11086).

        w^ and s are constants: the gradient to w is 2 (w - w^) within the grid, 0 at bin centres and beyond the grid.
        """
        pairs = [(layer.weight, layer.weight_quantizer) for layer in self.layers]
        each = [_SquaredDistance.apply(w, grid.effective_step_size(), grid.low, grid.high) for w, grid in pairs]
        return torch.stack(each).sum()

    def loss(self, loss: Callable[..., Any]) -> "Dampened":
        """Return `loss` with the penalty added: call it as `loss` is called, for (total, items)."""
        return Dampened(loss, self)


class Dampened:
    """A loss and the dampening added to it; `items` gain "dampening", the part that it adds."""

    def __init__(self, loss: Callable[..., Any], dampening: Dampening):
        self.task_loss, self.dampening = loss, dampening
        self.match_counts = getattr(loss, "match_counts", None)  # see `oscillab.train.ddp.micro_batches`

    def __call__(self, *arguments: Any, micro_batch: Any = None, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and its items, as the task's loss does."""
        options |= {} if micro_batch is None else {"micro_batch": micro_batch}
        total, items = self.task_loss(*arguments, **options)
        weight = self.dampening.weight()
        added = weight * self.dampening.penalty() if weight else total.new_zeros(())  # nothing to compute early on
        share = 1.0 if micro_batch is None else micro_batch.share  # the penalty counts once a step
        return total + added * share, items | {"dampening": added.detach()}


class _SquaredDistance(torch.autograd.Function):
    """The sum of the squared distances of a layer's weights from their bin centres, which are half of its gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step_size: Tensor, low: int, high: int) -> Tensor:
        step = along_channels(step_size, weight)
        centres = integer_state(weight, step_size, low, high).mul_(step)
        distances = weight.clamp(low * step, high * step).sub_(centres)
        ctx.save_for_backward(distances)
        flat = in_storage_order(distances)
        return torch.dot(flat, flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (distances,) = ctx.saved_tensors
        return distances * (2 * grad), None, None, None

"""Freeze the weights that oscillate most where they mostly are (Algorithm 1 of 2203.11086).

Does it help to stop them? A weight whose oscillation frequency exceeds a threshold stays for ever at the integer nearest to
the average of its integer states; the step size still learns, and a frozen weight moves with it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.quant.lsq import along_channels
from oscillab.recording.layers import WatchedLayers
from oscillab.recording.tracker import Tracker, where_true
from oscillab.train.remedies import Remedy, check_share, cosine_between

FORGET_EVERY = 250  # updates between two clearings of the tracker's counts, which hold 255


class Freezing(Remedy):
    """Freezes, for ever, weights that oscillate more often than a falling threshold.

    `thresholds`: the first and the last, along half a cosine from `begin` of the run on; nothing is frozen before it.
    (0.04, 0.01) is the paper's best. `momentum`: of the frequency and of the average of the states; frequencies take
    some 1 / momentum steps to build up. `states`: the `FrozenStates` of all weights, each where it lies in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        total_steps: int,
        *,
        thresholds: Sequence[float] = (0.04, 0.01),
        begin: float = 0.25,
        momentum: float = 0.01,
    ):
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}")
        if len(thresholds) != 2 or min(thresholds) < 0:
            raise ValueError(f"thresholds must be two frequencies of 0 or more, first and last, got {thresholds}")
        self.thresholds, self.begin, self.momentum = thresholds, check_share("begin", begin), momentum
        super().__init__(model, optimizer, total_steps)
        self._watched = WatchedLayers(model)
        self._now = torch.empty(self._watched.weight_count, dtype=torch.int8, device=self._watched.device)
        self.states = FrozenStates(self._watched.integer_states(self._now), momentum=momentum)
        self._any = False

    def threshold(self) -> float:
        """Return the frequency above which a weight is frozen at this point of the run; infinite before `begin`."""
        if self.share < self.begin:
            return math.inf
        first, last = self.thresholds
        return cosine_between(first, last, self.share, begin=self.begin)

    def frozen(self) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Yield each layer, which of its weights are frozen and their states (0 where free), in its weight's shape."""
        for layer in self._watched.layers:
            yield layer.module, layer.view(self.states.frozen), layer.view(self.states.frozen_state)

    def before_step(self) -> None:
        """Give frozen latent weights no gradient, and the step size that of s * k for a constant k (LSQ's is 0 in mid-bin)."""
        for layer, frozen, state in self.frozen() if self._any else ():
            grid, gradient = layer.weight_quantizer, layer.weight.grad
            if gradient is None:
                continue
            each = gradient * state  # 0 where the weight is free, as `state` is
            gradient.masked_fill_(frozen, 0)
            if grid.step_size.grad is not None:
                total = each.sum() if grid.step_size.ndim == 0 else each.flatten(1).sum(1)
                grid.step_size.grad.add_(total * grid._gradient_scale(layer.weight))

    def after_step(self) -> None:
        """Count, then put each frozen weight back in its bin's middle, s * k, from where decay and a moving s took it."""
        self._any |= self.states.update(self._watched.integer_states(self._now), self.threshold()) > 0
        for layer, frozen, state in self.frozen() if self._any else ():
            centres = state * along_channels(layer.weight_step_size(), state)
            layer.weight.copy_(torch.where(frozen, centres, layer.weight))

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and what is known of the weights, each at its flat index."""
        return super().state_dict() | {"states": _each(self.states.state_dict(), self._watched.in_order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        super().load_state_dict(state)
        self.states.load_state_dict(_each(state["states"], self._watched.as_in_memory))
        self._any = bool(self.states.frozen.any())


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, dict):
        return {name: _each(value, change) for name, value in state.items()}
    return change(state) if isinstance(state, Tensor) else state


class FrozenStates:
    """Which weights are frozen in which state, over the integer states of all layers (weights,) int8.

    `frozen`: (weights,) bool; `frozen_state`: (weights,) int8, 0 where not frozen; `average`: (weights,) float32, the
    average of the integer states with the same `momentum` as the frequency.
    """

    def __init__(self, state: Tensor, *, momentum: float = 0.01):
        self.tracker = Tracker(state, momentum=momentum)
        self.average, self.update_count = state.float(), 0
        self.frozen, self.frozen_state = torch.zeros_like(state, dtype=torch.bool), torch.zeros_like(state)

    def hold(self, state: Tensor) -> Tensor:
        """Return `state` with the frozen weights in their frozen states."""
        # a product is ten times faster on the CPU than `where` and `masked_fill_` are (torch 2.13, one thread)
        return self.frozen.logical_not().to(state.dtype).mul_(state).add_(self.frozen_state)

    def update(self, state: Tensor, threshold: float) -> int:
        """Count the step to `state`, freeze what oscillates more often than `threshold`, and return how many that were.

        A weight is frozen in its average before this step, as in the published code.
        """
        state = self.hold(state)
        self.tracker.update(state)
        new = where_true(torch.gt(self.tracker.frequency, threshold))
        new = new[~self.frozen[new]]
        self.frozen_state[new] = self.average[new].round().to(torch.int8)
        self.frozen[new] = True
        momentum = self.tracker.momentum
        self.average.mul_(1 - momentum).add_(state.float().mul_(momentum))
        self.update_count += 1
        if self.update_count % FORGET_EVERY == 0:
            self.tracker.take_counts()
        return len(new)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all tensors on the CPU."""
        own = {name: getattr(self, name).cpu().clone() for name in ("average", "frozen", "frozen_state")}
        return own | {"tracker": self.tracker.state_dict(), "update_count": self.update_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        for name in ("average", "frozen", "frozen_state"):
            getattr(self, name).copy_(state[name])
        self.tracker.load_state_dict(state["tracker"])
        self.update_count = int(state["update_count"])

"""Does it help to stop the weights that flip most, where they mostly are?

Iterative freezing (Algorithm 1 of 2203.11086): a weight whose oscillation frequency exceeds a threshold stays for ever
at the integer nearest to the average of its integer states. Freezing is in the integer domain: the step size still
learns, and a frozen weight moves with it.
"""

import math

import torch

from oscillab.qat.remedy import Remedy
from oscillab.qat.schedule import check_share, cosine_between
from oscillab.quant.many import ReadMany
from oscillab.quant.weights import place_frozen, release_frozen
from oscillab.record.tracker import Tracker, where_true
from oscillab.record.watched import dense_stride

FORGET_EVERY = 250  # updates between two clearings of the tracker's counts, which hold 255


class FrozenStates:
    """Which weights are frozen in which state, over the integer states of all layers (weights,) int8.

    `frozen`: (weights,) bool; `frozen_state`: (weights,) int8, 0 where not frozen; `average`: (weights,) float32, the
    average of the integer states with the same `momentum` as the frequency.
    """

    def __init__(self, state, *, momentum=0.01):
        self.tracker = Tracker(state, momentum=momentum)
        self.average = state.float()
        self.frozen = torch.zeros_like(state, dtype=torch.bool)
        self.frozen_state = torch.zeros_like(state)
        self.update_count = 0

    def hold(self, state):
        """`state` with the frozen weights in their frozen states."""
        return free_of(self.frozen, state).mul_(state).add_(self.frozen_state)

    def update(self, state, threshold):
        """Count the step to `state` and freeze what oscillates more often than `threshold`: how many were frozen.

        The order is the published code's: the state that a weight is frozen in is the average before this step.
        """
        state = self.hold(state)
        self.tracker.update(state)
        new = where_true(torch.gt(self.tracker.frequency, threshold))
        new = new[~self.frozen[new]]
        self.frozen_state[new] = self.average[new].round().to(torch.int8)
        self.frozen[new] = True
        self.average.lerp_(state.float(), self.tracker.momentum)
        self.update_count += 1
        if self.update_count % FORGET_EVERY == 0:
            self.tracker.take_counts()
        return len(new)

    def state_dict(self):
        """Copies of all tensors on the CPU."""
        own = {name: getattr(self, name).cpu().clone() for name in ("average", "frozen", "frozen_state")}
        return own | {"tracker": self.tracker.state_dict(), "update_count": self.update_count}

    def load_state_dict(self, state):
        """Continue from `state`, made by `state_dict`."""
        for name in ("average", "frozen", "frozen_state"):
            getattr(self, name).copy_(state[name])
        self.tracker.load_state_dict(state["tracker"])
        self.update_count = int(state["update_count"])


class Freezing(Remedy):
    """Freezes, for ever, weights that oscillate more often than a falling threshold.

    `thresholds`: the first and the last, along half a cosine from `begin` of the run on; nothing is frozen before it.
    (0.04, 0.01) is the paper's best. `momentum`: of the frequency and of the average of the states; frequencies take
    some 1 / momentum steps to build up, so that a run should be many times as long.
    `frozen_share`: the share of all weights that is frozen by now.
    """

    def __init__(self, model, optimizer, total_steps, *, thresholds=(0.04, 0.01), begin=0.25, momentum=0.01):
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}")
        if len(thresholds) != 2 or min(thresholds) < 0:
            raise ValueError(f"thresholds must be two frequencies of 0 or more, first and last, got {thresholds}")
        self.thresholds, self.begin, self.momentum = tuple(thresholds), check_share("begin", begin), momentum
        super().__init__(model, optimizer, total_steps)
        self.states = FrozenStates(self._read(), momentum=momentum)
        self._any, self._viewed = False, None

    @property
    def frozen_share(self):
        """The share of all weights that is frozen."""
        return float(self.states.frozen.float().mean())

    def threshold(self):
        """The frequency above which a weight is frozen at this point of the run; infinite before `begin`."""
        if self.share < self.begin:
            return math.inf
        return cosine_between(*self.thresholds, self.share, begin=self.begin)

    def before_step(self):
        """No gradient to frozen latent weights; to the step size that of s * k, its derivative for a constant k.

        LSQ's own gradient round(w / s) - w / s, which the backward pass gave, is 0 in a bin's middle.
        """
        if not self._any:
            return
        for layer, frozen, state in self._parts():
            weight, grid = layer.weight, layer.weight_quantizer
            if weight.grad is None:
                continue
            total = release_frozen(weight.grad, frozen, state, grid.step_size)
            if grid.step_size.grad is not None:
                grid.step_size.grad.add_(total, alpha=grid._gradient_scale(weight))

    def after_step(self):
        """The count, then every frozen weight back to its state (decay and a moving step size took it away)."""
        self._any |= self.states.update(self._read(), self.threshold()) > 0
        self._place()

    def state_dict(self):
        """The step count and all that is known of the weights, each at its flat index."""
        return super().state_dict() | {"states": self._each(self.states.state_dict(), self._in_order)}

    def load_state_dict(self, state):
        """Continue from `state`, made by `state_dict`."""
        super().load_state_dict(state)
        self.states.load_state_dict(self._each(state["states"], self._as_in_memory))
        self._any = bool(self.states.frozen.any())

    def _read(self):
        """The integer states of all weights (weights,) int8, a layer's in the order in which they lie in memory."""
        count = sum(layer.weight.numel() for layer in self.layers)
        states = torch.empty(count, dtype=torch.int8, device=self.layers[0].weight.device)
        ReadMany.integer_states(self.layers, self._views(states))
        return states

    def _place(self):
        """Each frozen latent weight to the middle of its bin, s * k, which every reader rounds to k."""
        if not self._any:
            return
        step_sizes = ReadMany.weight_step_sizes(self.layers)
        for (layer, frozen, state), step_size in zip(self._parts(), step_sizes, strict=True):
            place_frozen(layer.weight, frozen, state, step_size)

    def _parts(self):
        """(layer, its frozen mask, its frozen states), both in its weight's shape."""
        if self._viewed is None:  # the buffers stay where they are
            views = self._views(self.states.frozen), self._views(self.states.frozen_state)
            self._viewed = list(zip(self.layers, *views, strict=True))
        return self._viewed

    def _views(self, flat):
        """The layers' parts of a buffer over all weights, views of their weights' shapes and memory formats."""
        views, start = [], 0
        for layer in self.layers:
            weight = layer.weight
            views.append(flat.as_strided(weight.shape, dense_stride(weight), start))
            start += weight.numel()
        return views

    def _in_order(self, flat):
        """A copy of a buffer over all weights with each weight at its flat index, whatever the memory format."""
        return torch.cat([view.reshape(-1) for view in self._views(flat)])

    def _as_in_memory(self, flat):
        """The inverse of `_in_order`."""
        out, parts = torch.empty_like(flat), flat.split([layer.weight.numel() for layer in self.layers])
        for view, part in zip(self._views(out), parts, strict=True):
            view.copy_(part.view(view.shape))
        return out

    def _each(self, state, change):
        """`state` with every buffer over all weights changed."""
        if isinstance(state, dict):
            return {name: self._each(value, change) for name, value in state.items()}
        return change(state) if isinstance(state, torch.Tensor) else state


def free_of(frozen, like):
    """1 where a weight is free and 0 where it is frozen, in the type of `like`.

    Products with it are ten times faster on the CPU than `where` and `masked_fill_` are (torch 2.13, one thread).
    """
    return frozen.logical_not().to(like.dtype)

"""Does it help to stop the weights that flip most, where they mostly are?

Iterative freezing (Algorithm 1 of 2203.11086): a weight whose oscillation frequency exceeds a threshold stays for ever
at the integer nearest to the average of its integer states. Freezing is in the integer domain: the step size still
learns, and a frozen weight moves with it.
"""

import math

import torch

from oscillab.quant.lsq import along_channels
from oscillab.recording.watched import dense_stride
from oscillab.train.frozen import FrozenStates
from oscillab.train.remedy import Remedy
from oscillab.train.schedule import check_share, cosine_between


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
        whole = torch.empty(sum(layer.weight.numel() for layer in self.layers), dtype=torch.int8)
        self._now = whole.to(self.layers[0].weight.device)
        self._now_views = self._views(self._now)
        self.states = FrozenStates(self._read(), momentum=momentum)
        self._frozen_views, self._state_views = self._views(self.states.frozen), self._views(self.states.frozen_state)
        self._any = False

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
            self._release(layer, frozen, state)

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
        for layer, view in zip(self.layers, self._now_views, strict=True):
            view.copy_(layer.integer_state())
        return self._now

    def _release(self, layer, frozen, state):
        grid = layer.weight_quantizer
        if layer.weight.grad is None:
            return
        each = layer.weight.grad * state  # 0 where the weight is free, as `state` is
        layer.weight.grad.masked_fill_(frozen, 0)
        total = each.sum() if grid.step_size.ndim == 0 else each.flatten(1).sum(1)
        if grid.step_size.grad is not None:
            grid.step_size.grad.add_(total * grid._gradient_scale(layer.weight))

    def _place(self):
        """Each frozen latent weight to the middle of its bin, s * k, which every reader rounds to k."""
        if not self._any:
            return
        for layer, frozen, state in self._parts():
            centres = state * along_channels(layer.weight_step_size(), state)
            layer.weight.copy_(torch.where(frozen, centres, layer.weight))

    def _parts(self):
        """(layer, its frozen mask, its frozen states), both in its weight's shape."""
        return zip(self.layers, self._frozen_views, self._state_views, strict=True)

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

"""Which weights are frozen, and in which state?"""

import torch

from oscillab.recording.tracker import Tracker, where_true

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
        momentum = self.tracker.momentum
        self.average.mul_(1 - momentum).add_(state.float().mul_(momentum))
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


def free_of(frozen, like):
    """1 where a weight is free and 0 where it is frozen, in the type of `like`.

    Products with it are ten times faster on the CPU than `where` and `masked_fill_` are (torch 2.13, one thread).
    """
    return frozen.logical_not().to(like.dtype)

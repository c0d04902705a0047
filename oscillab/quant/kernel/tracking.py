"""How are the integer states of all weights followed in one pass?"""

import ctypes

import torch
from torch import Tensor

from .calls import kernel_in_use

KEPT = ("state", "direction", "flips", "oscillations", "frequency")  # of a tracker, in the order of tracking.c


class Tracking(ctypes.Structure):
    """`tracking` of tracking.c."""

    _fields_ = [
        ("count", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("keep", "add", "threshold")),
        *((name, ctypes.c_int64) for name in ("flipped", "turned", "frozen")),
    ]


class Indices:
    """Room for the indices of all weights, twice; pages that no index is written to take no memory."""

    def __init__(self, count: int):
        self.flipped, self.turned = (torch.empty(count, dtype=torch.int64) for _ in range(2))


def follow(now: Tensor, tracker, room: Indices) -> tuple[Tensor, Tensor] | None:
    """The indices of the weights that flipped to the states `now` and of those that oscillated; see `record.tracker`."""
    kernel = kernel_in_use() if _takes(now, tracker) else None
    if kernel is None:
        return None
    about = _about(now, tracker.momentum)
    kernel.call("track_states", now, *[getattr(tracker, name) for name in KEPT], room.flipped, room.turned, about)
    return room.flipped[: about.flipped].clone(), room.turned[: about.turned].clone()


def freeze(now: Tensor, frozen_states, threshold: float, room: Indices) -> int | None:
    """How many weights were frozen by the step to the states `now`; see `qat.freeze`."""
    states, tracker = frozen_states, frozen_states.tracker
    kernel = kernel_in_use() if _takes(now, tracker) else None
    if kernel is None:
        return None
    about = _about(now, tracker.momentum, threshold)
    kept = [getattr(tracker, name) for name in KEPT]
    own = states.average, states.frozen, states.frozen_state
    kernel.call("freeze_states", now, *kept, room.flipped, room.turned, *own, about)
    return about.frozen


def _about(now: Tensor, momentum: float, threshold: float = 0.0) -> Tracking:
    return Tracking(now.numel(), 1 - momentum, momentum, threshold)


def _takes(now: Tensor, tracker) -> bool:
    return now.is_cpu and now.dtype == torch.int8 and now.is_contiguous() and tracker.state.is_contiguous()

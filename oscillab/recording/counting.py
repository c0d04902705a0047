"""What counts as an oscillation?

The recorder's update as a pure function, with the two points where the published tracker and its paper can be read
differently as options.
"""

from typing import NamedTuple

import numpy as np

FIRST_FLIP = ("ignored", "counted")
JUMPS = ("once", "ignored")


class Oscillations(NamedTuple):
    """`frequency` (weights,) float32 after the last step; `totals` (weights,) int32; `per_step` (steps,) int32."""

    frequency: np.ndarray
    totals: np.ndarray
    per_step: np.ndarray


def count_oscillations(integer_states, momentum=0.01, *, first_flip="ignored", jumps="once"):
    """Frequency, totals and counts per step of the oscillations in `integer_states` (steps, weights): `Oscillations`.

    A flip is a change of state; an oscillation is a flip against the direction of the weight's flip before, however
    long ago. The frequency per step starts at 0 and moves by f = m * o + (1 - m) * f with momentum m; a full cycle, up
    and down, is two oscillations. The first row is where counting starts, so `per_step[0]` is 0.

    `first_flip`: a weight's first flip has no flip before it. "ignored" is the published code (the last direction
    starts at 0 and 0 is no opposite), "counted" is Algorithm 1 of the paper as printed (sign(D) != 0 holds).
    `jumps`: flips over more than one bin. "once" is both the paper and the published code, which take the sign;
    "ignored" leaves them out, and the next flip after one, as the code would without the sign (its comment expects
    differences of -1, 0 and 1 only).
    Raises ValueError for anything but a 2-d array of integers, a momentum outside 0..1 or an unknown choice.
    Source: Nagel et al., ICML 2022, arXiv 2203.11086, section 3, and its code.

    >>> states = np.array([[0, 0], [1, 0], [0, 1], [0, 1], [1, 2]])
    >>> frequency, totals, per_step = count_oscillations(states, momentum=0.5)
    >>> frequency, totals, per_step
    (array([0.625, 0.   ], dtype=float32), array([2, 0], dtype=int32), array([0, 0, 1, 0, 1], dtype=int32))
    """
    states = checked(integer_states, momentum, first_flip, jumps)
    keep, step = np.float32(1 - momentum), np.float32(momentum)
    last = np.zeros(states.shape[1], np.int32)
    frequency, totals = np.zeros(len(last), np.float32), np.zeros(len(last), np.int32)
    per_step = np.zeros(len(states), np.int32)
    for t in range(1, len(states)):
        change = states[t].astype(np.int32) - states[t - 1]
        direction = np.sign(change) if jumps == "once" else change
        oscillated = last * direction == -1
        if first_flip == "counted":
            oscillated |= (last == 0) & (np.abs(direction) == 1)
        last = np.where(change != 0, direction, last)
        frequency = step * oscillated + keep * frequency
        totals += oscillated
        per_step[t] = oscillated.sum()
    return Oscillations(frequency, totals, per_step)


def checked(integer_states, momentum, first_flip, jumps):
    """`integer_states` as an array, when all arguments of `count_oscillations` are allowed."""
    states = np.asarray(integer_states)
    if states.ndim != 2 or len(states) == 0:
        raise ValueError(f"integer_states must have shape (steps, weights) with a step or more, got {states.shape}")
    if not np.issubdtype(states.dtype, np.integer):
        raise ValueError(f"integer_states must be integers, got {states.dtype}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be 0..1, got {momentum}")
    for name, value, allowed in (("first_flip", first_flip, FIRST_FLIP), ("jumps", jumps, JUMPS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return states

"""Simulate one weight, and three, that are trained through rounding.

Two toys, small enough to follow by hand. `one_weight` is the regression of Nagel et al. (2203.11086, section 2): one
latent weight, one step size that does not move. `three_weights` is the paper's (2311.05109, section 3): three weights
and their input at 1 bit, with step sizes that are learned. Both are free of noise, so that what moves, moves because of
rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from oscillab.quant.lsq import bin_limits, integer_state, lsq

__all__ = ["one_weight", "three_weights"]


@dataclass(frozen=True)
class Trajectory:
    """What one weight did: its latent value (steps,) and integer state (steps,), and the grid it was rounded to."""

    latent_weight: np.ndarray
    integer_state: np.ndarray
    step_size: float
    low: int
    high: int
    target: float

    def edges(self) -> np.ndarray:
        """Return the latent values (high - low,) at which the integer state changes."""
        return self.step_size * (np.arange(self.low, self.high) + 0.5)

    def frequency(self) -> float:
        """Return the measured oscillations per step, there and back again counted as one, from the first flip that turns back."""
        changes = np.diff(self.integer_state)
        flips = np.flatnonzero(changes)
        ups = flips[1:][changes[flips[1:]] * changes[flips[:-1]] < 0][::2]  # every second turn goes the same way
        return (len(ups) - 1) / (ups[-1] - ups[0]) if len(ups) > 1 else 0.0


def one_weight(
    target: Any, *, learning_rate: float = 0.01, step_size: float = 1.0, bits: int = 3, steps: int = 2000,
    variance: float = 1.0, start: float = 0.0,
) -> Any:  # fmt: skip
    """Return the `Trajectory` of one weight that is trained towards `target`; for a sequence of targets, a list of them.

    Minimizes E[(x w* - x q(w))^2] / 2 by gradient descent with the straight-through gradient variance * (q(w) - w*),
    which is zero where the latent weight lies beyond the grid. Raises ValueError for a rate outside 0 < rate < 1.
    """
    if not 0 < learning_rate * variance < 1:
        raise ValueError(f"learning_rate * variance must lie between 0 and 1, got {learning_rate * variance:g}")
    low, high = bin_limits(bits)
    goal = torch.atleast_1d(torch.as_tensor(target, dtype=torch.float64))
    step = torch.tensor(step_size, dtype=torch.float64)
    latent, path = torch.full_like(goal, start), []
    for _ in range(steps):
        states = integer_state(latent, step, low, high)
        path.append((latent, states))
        inside = (latent >= low * step) & (latent <= high * step)
        latent = latent - learning_rate * variance * (states * step - goal) * inside
    latents, integers = (torch.stack(series, 1).numpy() for series in zip(*path, strict=True))  # (targets, steps)
    runs = [
        Trajectory(w, q.astype(np.int8), step_size, low, high, float(t))
        for w, q, t in zip(latents, integers, goal, strict=True)
    ]
    return runs if np.ndim(target) else runs[0]


def three_weights(
    target: Sequence[float] = (0.2, 0.5, 0.8), *, learning_rate: float = 0.02, steps: int = 1500,
    start: Sequence[float] = (0.3, 0.5, 0.7), step_sizes: Sequence[float] = (1.0, 0.8), learn_step_sizes: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Return the paper's toy as a frame of one row per step: w_0.., state_0.., weight_step_size, input_step_size and loss.

    Minimizes E[|x w* - q(x; s_x) q(w; s_w)|^2] over w, s_w and s_x by plain gradient descent, with x on 256 even points
    of [0, 1) in place of random draws. Both quantizers have 1 bit (states 0 and 1), so the one bin edge lies at s / 2.
    The paper gives neither target, rate, start nor the two states: these are this project's choice.
    """
    w, s_w, s_x = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (start, *step_sizes))
    learned = (w, s_w, s_x) if learn_step_sizes else (w,)
    rows = []
    for _ in range(steps):
        loss = three_weight_loss(w, s_w, s_x, target=target)
        rows.append([*w.tolist(), *integer_state(w, s_w, 0, 1).int().tolist(), s_w.item(), s_x.item(), loss.item()])
        for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            parameter.data -= learning_rate * gradient
    names = [f"{kind}_{i}" for kind in ("w", "state") for i in range(len(target))]
    return pd.DataFrame(rows, columns=[*names, "weight_step_size", "input_step_size", "loss"])


def three_weight_loss(
    weights: Tensor, weight_step_size: Tensor, input_step_size: Tensor, *, target: Sequence[float] = (0.2, 0.5, 0.8)
) -> Tensor:
    """Return the 0-d loss E[|x w* - q(x; s_x) q(w; s_w)|^2] of the three-weight toy, with LSQ's gradients."""
    inputs = (torch.arange(256, dtype=torch.float64)[:, None] + 0.5) / 256  # (256, 1)
    output = lsq(inputs, input_step_size, 0, 1) * lsq(weights, weight_step_size, 0, 1)  # (256, 3)
    return (inputs * torch.tensor(target, dtype=torch.float64) - output).square().sum(1).mean()

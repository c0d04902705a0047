"""Draw an oscillating weight step by step: the toys' trajectories (`oscillab.toy`) as figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from oscillab.methods import METHODS

from .style import INK, QUIET, InlineFigure, new_figure, set_headline, set_labels

if TYPE_CHECKING:  # toys are computed with torch, which is not needed to draw them
    from oscillab.toy import Trajectory

LATENT, STATE, GOAL = (METHODS[name].color for name in ("lsq", "ema+qc", "lsq+qc"))


def draw_one_weight(trajectory: "Trajectory", *, last: int = 80) -> InlineFigure:
    """Return a figure of the last steps of one weight: latent value, its quantized value, the bin edges and the target.

    The title states the measured frequency beside the closed form |q(w*) - w*| / s.
    """
    latent, states = trajectory.latent_weight[-last:], trajectory.integer_state[-last:]
    steps, size = np.arange(len(trajectory.latent_weight))[-last:], trajectory.step_size
    figure, axes = new_figure(7.6, 3.7)
    panel, goal, edges = axes[0, 0], f"target w* = {trajectory.target:g}", trajectory.edges()
    near = edges[(edges >= latent.min() - size) & (edges <= latent.max() + size)]
    for place, edge in enumerate(near if len(near) else edges[[np.abs(edges - latent.mean()).argmin()]]):
        panel.axhline(edge, color=QUIET, linewidth=0.8, linestyle=":", label=None if place else "bin edge")
    panel.axhline(trajectory.target, color=GOAL, linewidth=1.2, linestyle="--", label=goal)
    panel.step(steps, states * size, where="post", color=STATE, linewidth=1.0, label="quantized q(w)")
    panel.plot(steps, latent, color=LATENT, linewidth=1.6, marker="o", markersize=2.5, label="latent weight w")
    set_labels(panel, x="optimizer step", y="weight")
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    low, high = trajectory.low * size, trajectory.high * size
    if not low <= trajectory.target <= high:
        text = f"The target lies beyond the grid ({low:g} to {high:g}): the weight runs off and rests"
        return set_headline(figure, text)
    expected = np.abs(np.arange(low, high + 1, size) - trajectory.target).min() / size
    bits, measured = int(trajectory.high - trajectory.low).bit_length(), trajectory.frequency()
    return set_headline(figure, f"{bits} bit: {measured:.3f} oscillations a step; |q(w*) - w*| / s = {expected:.3f}")


def draw_frequencies(
    targets: Sequence[float], expected: Sequence[float], measured: Mapping[float, Sequence[float]]
) -> InlineFigure:
    """Return a figure of frequency by target: the closed form as a line, `measured` (rate -> frequencies) as points."""
    figure, axes = new_figure(6.6, 3.6)
    panel = axes[0, 0]
    panel.plot(targets, expected, color=QUIET, linewidth=1.0, label="|q(w*) - w*| / s")
    for (rate, values), name in zip(measured.items(), ("lsq", "ema", "lsq+qc", "ema+qc"), strict=False):
        points = METHODS[name].points(markersize=7, markerfacecolor="none", label=f"measured, learning rate {rate:g}")
        panel.plot(targets, values, **points)
    set_labels(panel, x="target w*, in step sizes", y="oscillations per step")
    panel.legend(frameon=False, fontsize=9)
    return set_headline(figure, "The frequency is the distance to the grid, whatever the learning rate")


def draw_three_weights(frame: pd.DataFrame, *, last: int = 60) -> InlineFigure:
    """Return a figure of the last steps of the three-weight toy: each latent weight and its bin edge, and the input's."""
    rows = frame.tail(last)
    figure, axes = new_figure(9.2, 5.0, rows=2, columns=2, sharex=True)
    edge: dict[str, Any] = {"color": INK, "linestyle": ":", "linewidth": 1.3, "label": "bin edge s_w / 2 or s_x / 2"}
    for index, panel in enumerate(axes.flat[:3]):
        latent, states = rows[f"w_{index}"], rows[f"state_{index}"]
        panel.plot(rows.index, latent, color=LATENT, linewidth=1.3, label="latent weight")
        panel.plot(rows.index[states == 1], latent[states == 1], "o", color=STATE, markersize=3.5, label="in state 1")
        panel.plot(rows.index, rows["weight_step_size"] / 2, **edge)
        flips = int(states.diff().iloc[1:].abs().sum())
        set_labels(panel, x="", y="weight", title=f"w_{index}: {flips} flips in {len(rows)} steps")
    axes[1, 1].plot(rows.index, rows["input_step_size"] / 2, **edge)
    set_labels(axes[1, 1], x="", y="input", title="the bin edge of the input, s_x / 2")
    for panel in axes[1]:
        panel.set_xlabel("optimizer step", color=INK)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return set_headline(figure, "Latent weights oscillate, and so do the bin edges that they cross")

"""Draw whether the learned ranges come to rest and fit what comes in, and whether an oscillation is regular."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from oscillab.methods import METHODS, method
from oscillab.recording import tables
from oscillab.recording.recording import Recording
from oscillab.recording.tables import autocorrelation, cycle_lengths

from .layer import last_steps, most_flipping
from .network import Runs, by_name, set_headline_of
from .style import ABOVE, INK, QUIET, InlineFigure, new_figure, set_labels

DASHES = ("solid", "dashed", "dotted", "dashdot")


def draw_step_sizes(recordings: Runs, layer: str, *, last: int | None = None) -> InlineFigure:
    """Return a figure of the layer's weight step size over time or over the last steps, a line per run.

    `recordings`: name -> Recording. A band spans all channels where there is a step size for each.
    """
    figure, axes = new_figure(7.6, 3.4)
    panel, spreads = axes[0, 0], []
    runs = by_name(recordings)
    for name, recording in runs.items():
        style, at, rows = method(name), recording.index(layer), slice(-last if last else None, None)
        steps, sizes = recording.steps[rows], recording["step_size"][rows, at]
        panel.plot(steps, sizes, **style.line())
        if recording.layers[at]["step_count"] > 1 and "step_size_min" in recording:
            ends = (recording[name][rows, at] for name in ("step_size_min", "step_size_max"))
            panel.fill_between(steps, *ends, color=style.color, alpha=0.15, linewidth=0)
        spread = tables.layers(recording).set_index("layer").loc[layer, "step_size_spread"]
        spreads.append(f"{style.label} {100 * spread:.2g} %")
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="optimizer step", y="weight step size s")
    text = f"{layer}: spread of s over the last quarter, {', '.join(spreads)} of its mean"
    return set_headline_of(figure, text, runs)


def draw_ranges(recording: Recording, layer: str) -> InlineFigure:
    """Return a figure over time: what the layer's input quantizer clips to, what comes in, and the share that is clipped.

    Raises ValueError for a layer without an input quantizer, or a recording without observed ranges.
    """
    table = observed(recording, layer)
    if table.empty:
        raise ValueError(
            f"no input range of layer '{layer}' was observed; record a model that trains, with ranges_every=10"
        )
    figure, axes = new_figure(7.6, 4.8, rows=2, sharex=True, height_ratios=(2, 1))
    panel, below = axes[:, 0]
    add_range(panel, table)
    panel.legend(frameon=False, fontsize=9, **ABOVE)
    set_labels(panel, x="", y="input of the layer")
    below.plot(table["step"], 100 * table["clipped_share"], color=INK, linewidth=1.0)
    below.set_ylim(bottom=0)
    set_labels(below, x="optimizer step", y="clipped (%)")
    late = 100 * np.mean(table["clipped_share"].tail(max(1, len(table) // 4)))
    text = f"{layer}: {late:.2g} % of the inputs are clipped (last quarter)"
    return set_headline_of(figure, text, {"": recording})


def observed(recording: Recording, layer: str) -> pd.DataFrame:
    """Return the rows of the table of ranges of a layer whose inputs were observed; raises ValueError for an unknown layer."""
    recording.index(layer)
    table = tables.ranges(recording)
    return table[(table["layer"] == layer) & table["observed_low"].notna()]


def add_range(axes: Axes, table: pd.DataFrame) -> Axes:
    """Add what a layer's input quantizer clips to and what came in, from the rows of `observed`; return the axes."""
    band: dict[str, Any] = {
        "color": METHODS["ema"].color,
        "alpha": 0.3,
        "linewidth": 0,
        "label": "inputs, lowest to highest",
    }
    axes.fill_between(table["step"], table["observed_low"], table["observed_high"], **band)
    style = METHODS["lsq"].line(label="clipping range")
    axes.plot(table["step"], table["clip_low"], **style)
    axes.plot(table["step"], table["clip_high"], **style | {"label": None})
    return axes


def draw_autocorrelation(
    recording: Recording, layer: str, *, last: int = 250, count: int = 3, lag_count: int = 60
) -> InlineFigure:
    """Return a figure of the autocorrelation of the states of the layer's sampled weights that flip most, over the last steps.

    A regular oscillation comes back at every multiple of its cycle; a random walk decays and does not come back. Raises
    ValueError where the layer has no recorded trajectory or no sampled weight flips.
    """
    rows = last_steps(recording, layer, last)
    table = rows.pivot(index="step", columns="weight", values="integer_state")
    table = table[[weight for weight in most_flipping(rows, count) if table[weight].nunique() > 1]]
    if table.empty:
        raise ValueError(f"no sampled weight of layer '{layer}' flips in the last {last} steps")
    curves, cycles = autocorrelation(table.to_numpy(), lag_count), cycle_lengths(table.to_numpy())
    figure, axes = new_figure(7.6, 3.6)
    panel = axes[0, 0]
    for curve, cycle, weight, dash in zip(curves.T, cycles, table.columns, DASHES, strict=False):
        text = f"a cycle takes {cycle:.1f} steps" if np.isfinite(cycle) else "less than a cycle"
        line = METHODS["lsq"].line(linestyle=dash, label=f"weight {weight}: {text}")
        panel.plot(curve, **line)
    chance = 1.96 / np.sqrt(len(table))  # of independent states; those of a walk depend on each other
    panel.axhspan(-chance, chance, color=QUIET, alpha=0.15, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.8)
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="lag (steps)", y="autocorrelation of the state")
    text = f"{layer}: how much a state says about the state some steps later (grey: nothing)"
    return set_headline_of(figure, text, {"": recording})

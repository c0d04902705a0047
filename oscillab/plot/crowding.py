"""Draw whether latent weights crowd at bin edges as training goes on."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from oscillab.recording import tables
from oscillab.recording.recording import Recording

from .network import set_headline_of
from .style import QUIET, InlineFigure, new_figure, set_labels

LEAST_WEIGHTS = 1000  # of a layer whose share near an edge is more than chance's noise
TIMES = (0.0, 0.25, 0.5, 1.0)  # shares of the run at which the histogram is drawn


def draw_crowding(recording: Recording, layer: str | None = None) -> InlineFigure:
    """Return a figure of where latent weights lie in their bins: a histogram at four times, and the share near an edge.

    `layer`: one layer's; None takes all of 4 bits and fewer with 1,000 weights and more: their weights together at the left,
    median, middle 80 % and largest layer at the right. 1 (left) and 10 % (right) is what weights spread evenly would
    have; the last cell at the left also has the weights that lie beyond the outermost edges.
    Raises ValueError where the recording has no such layer, or no counts over time (those of the first edition).
    """
    table, counts = tables.crowding(recording), recording["edge_distance_count"].astype(float)
    large = [
        one
        for one in tables.chosen_layers(recording, tables.LOW_BITS)
        if recording.weight_counts[recording.index(one)] >= LEAST_WEIGHTS
    ]
    chosen = large if layer is None else [recording.layer_names[recording.index(layer)]]
    if not chosen or not counts[:, :, [recording.index(one) for one in chosen]].any():
        raise ValueError(
            f"there are no latent weights of a layer of {LEAST_WEIGHTS:,} weights and {tables.LOW_BITS} bits or fewer"
        )
    figure, axes = new_figure(10.5, 3.8, columns=2)
    steps = recording["edge_distance_step"]
    _add_histograms(axes[0, 0], steps, counts[:, :, [recording.index(one) for one in chosen]].sum(2))
    wide = 100 * table[table["layer"].isin(chosen)].pivot_table(index="step", columns="layer", values="near_edge_share")
    worst = str(wide.iloc[-1].idxmax())
    _add_shares(axes[0, 1], wide, worst)
    first, last = wide.median(axis=1).iloc[[0, -1]]
    ends = f"{first:.1f} % of weights before and {last:.1f} % after {steps[-1]:,} steps (median of layers; even: 10 %)"
    text = f"Near a bin edge lie {ends}; most in {worst}, {wide[worst].iloc[-1]:.1f} %"
    return set_headline_of(figure, text, {"lsq": recording})


def _add_histograms(axes: Axes, steps: np.ndarray, counts: np.ndarray) -> None:
    density = counts / counts.sum(1, keepdims=True) * counts.shape[1]
    middle = (np.arange(counts.shape[1]) + 0.5) / counts.shape[1] / 2
    for row in dict.fromkeys(round(share * (len(steps) - 1)) for share in TIMES):
        shade = str(0.75 - 0.75 * row / max(1, len(steps) - 1))
        axes.plot(middle, density[row], color=shade, label=f"step {steps[row]:,}")
    axes.axhline(1, color=QUIET, linewidth=0.9, linestyle="dotted")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    set_labels(axes, x="distance to the nearest bin edge (bins)", y="weights, against an even spread")


def _add_shares(axes: Axes, wide: pd.DataFrame, worst: str) -> None:
    if wide.shape[1] > 1:
        low, high = wide.quantile(0.1, axis=1), wide.quantile(0.9, axis=1)
        axes.fill_between(wide.index, low, high, color="#0173b2", alpha=0.2, linewidth=0)
        axes.plot(wide.index, wide.median(axis=1), color="#0173b2", label="median of layers, and their middle 80 %")
    axes.plot(wide.index, wide[worst], color="#d55e00", linestyle="dashed", label=worst)
    axes.axhline(10, color=QUIET, linewidth=0.9, linestyle="dotted", label="weights spread evenly")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    set_labels(axes, x="optimizer step", y="nearer than 0.05 bins to an edge (%)")

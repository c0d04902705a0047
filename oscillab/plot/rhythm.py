"""Is an oscillation regular?"""

import numpy as np

from oscillab.recording.tables import autocorrelation, cycle_lengths

from .layer import last_steps, most_flipping
from .style import INK, METHODS, QUIET, new_figure, set_headline, set_labels

DASHES = ("solid", "dashed", "dotted", "dashdot")


def draw_autocorrelation(recording, layer, *, last=250, count=3, lag_count=60):
    """A figure of the autocorrelation of the states of the layer's sampled weights that flip most, over the last steps.

    A regular oscillation comes back at every multiple of its cycle; a random walk decays and does not come back. Raises
    ValueError where the layer has no recorded trajectory or no sampled weight flips.
    """
    course = last_steps(recording, layer, last)
    table = course.pivot(index="step", columns="weight", values="integer_state")
    table = table[[weight for weight in most_flipping(course, count) if table[weight].nunique() > 1]]
    if table.empty:
        raise ValueError(f"no sampled weight of layer '{layer}' flips in the last {last} steps")
    curves, cycles = autocorrelation(table.to_numpy(), lag_count), cycle_lengths(table.to_numpy())
    figure, axes = new_figure(7.6, 3.6)
    panel = axes[0, 0]
    for curve, cycle, weight, dash in zip(curves.T, cycles, table.columns, DASHES, strict=False):
        name = f"weight {weight}: " + (
            f"a cycle takes {cycle:.1f} steps" if np.isfinite(cycle) else "less than a cycle"
        )
        panel.plot(curve, color=METHODS["lsq"].color, linestyle=dash, linewidth=1.6, label=name)
    chance = 1.96 / np.sqrt(len(table))  # of independent states; those of a walk depend on each other
    panel.axhspan(-chance, chance, color=QUIET, alpha=0.15, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.8)
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="lag (steps)", y="autocorrelation of the state")
    return set_headline(figure, f"{layer}: how much a state says about the state some steps later (grey: nothing)")

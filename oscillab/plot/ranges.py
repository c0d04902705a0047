"""Do the ranges that were learned come to rest, and do they fit what comes in?"""

import numpy as np

from oscillab.recording import tables

from .style import ABOVE, INK, METHODS, method_style, new_figure, set_headline, set_labels


def draw_step_sizes(recordings, layer, *, last=None):
    """A figure of the layer's weight step size over time or over the last steps, a line per method.

    `recordings`: method -> Recording. A band spans all channels where there is a step size for each.
    """
    figure, axes = new_figure(7.6, 3.4)
    panel, spreads = axes[0, 0], []
    for method, recording in recordings.items():
        at, rows = recording.index(layer), slice(-last if last else None, None)
        steps, sizes = recording.steps[rows], recording["step_size"][rows, at]
        panel.plot(steps, sizes, **method_style(method).line())
        if recording.layers[at]["step_count"] > 1 and "step_size_min" in recording:
            ends = (recording[name][rows, at] for name in ("step_size_min", "step_size_max"))
            panel.fill_between(steps, *ends, color=method_style(method).color, alpha=0.15, linewidth=0)
        spreads.append(f"{method_style(method).label} {100 * late_spread(recording, layer):.2g} %")
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="optimizer step", y="weight step size s")
    return set_headline(figure, f"{layer}: spread of s over the last quarter, {', '.join(spreads)} of its mean")


def late_spread(recording, layer):
    """The standard deviation of the layer's step size over the last quarter, as a share of its mean."""
    table = tables.layers(recording).set_index("layer")
    return table.loc[layer, "step_size_spread"]


def draw_ranges(recording, layer):
    """A figure over time: what the layer's input quantizer clips to, what comes in, and the share that is clipped.

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
    return set_headline(figure, f"{layer}: {late:.2g} % of the inputs are clipped (last quarter)")


def observed(recording, layer):
    """The rows of `tables.ranges` of a layer whose inputs were observed; raises ValueError for an unknown layer."""
    recording.index(layer)
    table = tables.ranges(recording)
    return table[(table["layer"] == layer) & table["observed_low"].notna()]


def add_range(axes, table):
    """The same axes with what a layer's input quantizer clips to and what came in, from the rows of `observed`."""
    band = {"color": METHODS["ema"].color, "alpha": 0.3, "linewidth": 0, "label": "inputs, lowest to highest"}
    axes.fill_between(table["step"], table["observed_low"], table["observed_high"], **band)
    style = METHODS["lsq"].line(label="clipping range")
    axes.plot(table["step"], table["clip_low"], **style)
    axes.plot(table["step"], table["clip_high"], **style | {"label": None})
    return axes

"""Draw how much the weights of a whole network flip and oscillate, and where a layer's learned ranges go, run by run.

Totals are over the layers of at most 4 bits, as in a study's table: 8-bit ends would only dilute them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from oscillab.methods import METHODS, method
from oscillab.recording import tables
from oscillab.recording.recording import Recording, gaps

from .style import ABOVE, INK, InlineFigure, new_figure, set_headline, set_labels

Runs = Mapping[str, Recording]


def draw_flips(recordings: Runs) -> InlineFigure:
    """Return a figure of the share of weights that flip in a step, over time, a line per run.

    `recordings`: name (of a method, or any other) -> Recording. The title compares the last quarter of the steps.
    """
    recordings = by_name(recordings)
    figure, axes = new_figure(7.6, 3.6)
    add_flips(axes[0, 0], recordings)
    return set_headline_of(figure, flips_sentence(recordings), recordings)


def draw_layers(recordings: Runs) -> InlineFigure:
    """Return a figure of the share of oscillating weights of each layer, in the network's order, a marker per run.

    `recordings`: name -> Recording, all of the same network.
    """
    recordings = by_name(recordings)
    names, low = same_layers(recordings), tables.LOW_BITS
    figure, axes = new_figure(max(6.0, 1.5 + 0.17 * len(names)), 4.8)
    panel, shares, totals = axes[0, 0], [], []
    for name, recording in recordings.items():
        style = method(name)
        shares.append([100 * tables.oscillating(recording, layer).mean() for layer in names])
        panel.plot(shares[-1], **style.points(markersize=5, markerfacecolor="none", clip_on=False, label=style.label))
        totals.append(f"{style.label} {100 * tables.oscillating_share(recording):.1f} %")
    panel.vlines(range(len(names)), np.min(shares, 0), np.max(shares, 0), color="#cccccc", linewidth=1, zorder=0)
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False, fontsize=9)
    bits = [one["bits"] for one in recording.layers]
    ticks = [f"{name} ({b} bit)" if b and b > low else name for name, b in zip(names, bits, strict=True)]
    panel.set_xticks(range(len(names)), ticks, rotation=90, fontsize=7)
    set_labels(panel, x="", y="oscillating weights (%)")
    text = f"Share of weights that oscillate at the end (layers of {low} bits and fewer): {', '.join(totals)}"
    return set_headline_of(figure, text, recordings)


def by_name(recordings: Runs) -> dict[str, Recording]:
    """Return the recordings as a dictionary; raises ValueError where they are no mapping of names, or empty."""
    is_mapping = isinstance(recordings, Mapping)
    if not is_mapping or not recordings or not all(isinstance(one, Recording) for one in recordings.values()):
        given = "none" if is_mapping and not recordings else repr(recordings)
        raise ValueError(f'recordings must map names to recordings, as {{"lsq": recording}}, got {given}')
    return dict(recordings)


def set_headline_of(figure: InlineFigure, text: str, recordings: Runs) -> InlineFigure:
    """Put a headline above the figure that ends with what its recordings say that they did not see; return it."""
    whose = {name: f"{method(name).label}: " if len(recordings) > 1 else "" for name in recordings}
    notes = [whose[name] + gap for name, recording in recordings.items() for gap in gaps(recording.meta)]
    return set_headline(figure, ". Not seen: ".join([text, "; ".join(notes)]) if notes else text)


def same_layers(recordings: Runs) -> list[str]:
    """Return the layers' names; raises ValueError when two recordings are of different networks."""
    (first, names), *others = [(name, recording.layer_names) for name, recording in recordings.items()]
    for name, other in others:
        if other != names:
            count = f"{len(names)} and {len(other)} unlike layers"
            raise ValueError(f"{first} and {name} cannot be compared: they record {count}")
    return names


def add_flips(axes: Axes, recordings: Runs) -> Axes:
    """Add a line per run: faint as recorded, bold as the running mean over a fiftieth of the run.

    The height is that of the means after the first tenth: the rush of the first steps runs out of the figure.
    """
    top = 0.0
    for name, recording in recordings.items():
        chosen = [recording.index(layer) for layer in tables.chosen_layers(recording, tables.LOW_BITS)]
        if not chosen or len(recording.steps) < 2:
            raise ValueError(f"nothing to draw: no layer of at most {tables.LOW_BITS} bits, or no step, was recorded")
        steps, flips = recording.steps[1:], recording["layer_flip_count"][1:, chosen].sum(1)
        share = flips / recording.weight_counts[chosen].sum() / np.diff(recording.steps)
        style = method(name)
        axes.plot(steps, 100 * share, color=style.color, linewidth=0.5, alpha=0.35)
        mean = 100 * pd.Series(share).rolling(max(1, len(steps) // 50), min_periods=1).mean().to_numpy()
        axes.plot(steps, mean, **style.line(linewidth=2.0))
        top = max(top, mean[len(steps) // 10 :].max())
    axes.set_ylim(0, 1.4 * top or 1)
    axes.legend(frameon=False, fontsize=9)
    return set_labels(axes, x="optimizer step", y="weights that flip in a step (%)")


def flips_sentence(recordings: Runs) -> str:
    """Return one sentence on the flips of the last quarter: each run's share of weights a step, and the ratio of two."""
    late = {name: tables.flip_rate(recording) for name, recording in recordings.items()}
    text = ", ".join(f"{method(name).label} {100 * rate:.2g} %" for name, rate in late.items())
    first, last = list(late.values())[0], list(late.values())[-1]
    if len(late) > 1 and min(first, last) > 0:
        text += f" ({max(first, last) / min(first, last):.1f} times {'fewer' if last <= first else 'more'})"
    return f"Flips a step, last quarter: {text}"


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
            ends = (recording[end][rows, at] for end in ("step_size_min", "step_size_max"))
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
        hint = "record a model that trains, with ranges_every=10"
        raise ValueError(f"no input range of layer '{layer}' was observed; {hint}")
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
    band: dict[str, Any] = {"color": METHODS["ema"].color, "alpha": 0.3, "linewidth": 0}
    low, high = table["observed_low"], table["observed_high"]
    axes.fill_between(table["step"], low, high, label="inputs, lowest to highest", **band)
    style = METHODS["lsq"].line(label="clipping range")
    axes.plot(table["step"], table["clip_low"], **style)
    axes.plot(table["step"], table["clip_high"], **style | {"label": None})
    return axes

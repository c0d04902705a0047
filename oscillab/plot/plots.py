"""How much do the weights of a network oscillate, where, and what do the remedies change?

Every `draw_*` takes tables or recordings and returns a `Figure`; nothing outside the figure changes, torch is not used.
This file holds the figures on whole networks, and names those on one layer and on the toys as well. Totals are over the
layers of at most 4 bits, as in a study's table: 8-bit ends would only dilute them.
"""

from collections.abc import Mapping

import numpy as np

from oscillab.recording import tables

from .layer import draw_boundary_distance, draw_layer_map, draw_trajectories
from .ranges import draw_ranges, draw_step_sizes
from .rhythm import draw_autocorrelation
from .states import draw_states
from .style import METHODS, method_style, new_figure, set_headline, set_labels
from .toys import draw_frequencies, draw_one_weight, draw_three_weights

__all__ = [
    "METHODS",
    "draw_autocorrelation",
    "draw_boundary_distance",
    "draw_flips",
    "draw_frequencies",
    "draw_layer_map",
    "draw_layers",
    "draw_one_weight",
    "draw_ranges",
    "draw_states",
    "draw_step_sizes",
    "draw_three_weights",
    "draw_trajectories",
]
LOW_BITS = tables.LOW_BITS


def draw_flips(recordings):
    """A figure of the share of weights that flip in a step, over time, a line per method.

    `recordings`: method -> Recording. The title compares the methods over the last quarter of the steps.
    """
    figure, axes = new_figure(7.6, 3.6)
    add_flips(axes[0, 0], by_method(recordings))
    return set_headline(figure, flips_sentence(recordings))


def draw_layers(recordings):
    """A figure of the share of oscillating weights of each layer, in the network's order, a marker per method.

    `recordings`: method -> Recording, all of the same network.
    """
    names = same_layers(by_method(recordings))
    figure, axes = new_figure(max(6.0, 1.5 + 0.17 * len(names)), 4.8)
    panel = add_layers(axes[0, 0], recordings)
    bits = [one["bits"] for one in next(iter(recordings.values())).layers]
    ticks = [f"{name} ({b} bit)" if b and b > LOW_BITS else name for name, b in zip(names, bits, strict=True)]
    panel.set_xticks(range(len(names)), ticks, rotation=90, fontsize=7)
    shares = ", ".join(
        f"{method_style(m).label} {100 * tables.oscillating_share(r):.1f} %" for m, r in recordings.items()
    )
    return set_headline(figure, f"Share of weights that oscillate at the end (layers of 4 bits and fewer): {shares}")


def by_method(recordings):
    """The mapping itself; raises ValueError where it is empty, no mapping, or names an unknown method."""
    if not isinstance(recordings, Mapping) or not recordings:
        raise ValueError(f"recordings must map methods ({', '.join(METHODS)}) to recordings, got {recordings!r}")
    for method in recordings:
        method_style(method)
    return recordings


def same_layers(recordings):
    """The layers' names; raises ValueError when two recordings are of different networks."""
    (first, names), *others = ((method, recording.layer_names) for method, recording in recordings.items())
    for method, other in others:
        if other != names:
            raise ValueError(
                f"{first} and {method} cannot be compared: they record {len(names)} and {len(other)} unlike layers"
            )
    return names


def flips_over_time(recording):
    """Steps (T - 1,) and the share of the low-bit weights that flipped, per step since the row before (T - 1,)."""
    chosen = [recording.index(name) for name in tables.chosen_layers(recording, LOW_BITS)]
    if not chosen or len(recording.steps) < 2:
        raise ValueError(f"nothing to draw: no layer of at most {LOW_BITS} bits, or no step, was recorded")
    flips = recording["layer_flip_count"][1:, chosen].sum(1)
    return recording.steps[1:], flips / recording.weight_counts[chosen].sum() / np.diff(recording.steps)


def smooth(values, width):
    """The mean of each value and the `width` - 1 before it, of fewer at the start, in the shape of `values`.

    >>> smooth(np.array([4.0, 0.0, 2.0]), 2)
    array([4., 2., 1.])
    """
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def add_flips(axes, recordings):
    """The same axes with a line per method: faint as recorded, bold as the running mean over a fiftieth of the run.

    The height is that of the means after the first tenth: the rush of the first steps runs out of the picture.
    """
    top = 0
    for method, recording in recordings.items():
        steps, share = flips_over_time(recording)
        style = method_style(method)
        axes.plot(steps, 100 * share, color=style.color, linewidth=0.5, alpha=0.35)
        mean = 100 * smooth(share, max(1, len(steps) // 50))
        axes.plot(steps, mean, **style.line(linewidth=2.0))
        top = max(top, mean[len(steps) // 10 :].max())
    axes.set_ylim(0, 1.4 * top or 1)
    axes.legend(frameon=False, fontsize=9)
    return set_labels(axes, x="optimizer step", y="weights that flip in a step (%)")


def flips_sentence(recordings):
    """One sentence on the flips of the last quarter: each method's share of weights a step, and the ratio of two."""
    late = {method: tables.flip_rate(recording) for method, recording in recordings.items()}
    text = ", ".join(f"{method_style(method).label} {100 * rate:.2g} %" for method, rate in late.items())
    first, *others = late.values()
    ratio = f" ({first / others[-1]:.1f} times fewer)" if others and others[-1] > 0 else ""
    return f"Flips a step, last quarter: {text}{ratio}"


def oscillating_shares(recording):
    """The share of oscillating weights of each layer, (L,)."""
    return np.array([tables.oscillating(recording, name).mean() for name in recording.layer_names])


def add_layers(axes, recordings):
    """The same axes with the share of oscillating weights per layer, a marker per method, joined layer by layer."""
    shares = {method: 100 * oscillating_shares(recording) for method, recording in recordings.items()}
    for method, share in shares.items():
        style = method_style(method)
        axes.plot(share, **style.points(markersize=5, markerfacecolor="none", label=style.label, clip_on=False))
    columns = np.stack(list(shares.values()))
    axes.vlines(range(columns.shape[1]), columns.min(0), columns.max(0), color="#cccccc", linewidth=1, zorder=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return set_labels(axes, x="", y="oscillating weights (%)")

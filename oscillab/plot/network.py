"""Draw how much the weights of a whole network flip and oscillate, and what remedies change.

Totals are over the layers of at most 4 bits, as in a study's table: 8-bit ends would only dilute them.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from oscillab.methods import method
from oscillab.recording import tables
from oscillab.recording.recording import Recording, gaps

from .style import InlineFigure, new_figure, set_headline, set_labels

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
    names = same_layers(recordings)
    figure, axes = new_figure(max(6.0, 1.5 + 0.17 * len(names)), 4.8)
    add_layers(axes[0, 0], recordings)
    bits = [one["bits"] for one in next(iter(recordings.values())).layers]
    low = tables.LOW_BITS
    ticks = [f"{name} ({b} bit)" if b and b > low else name for name, b in zip(names, bits, strict=True)]
    axes[0, 0].set_xticks(range(len(names)), ticks, rotation=90, fontsize=7)
    shares = {method(name).label: 100 * tables.oscillating_share(one) for name, one in recordings.items()}
    text = ", ".join(f"{label} {share:.1f} %" for label, share in shares.items())
    text = f"Share of weights that oscillate at the end (layers of 4 bits and fewer): {text}"
    return set_headline_of(figure, text, recordings)


def by_name(recordings: Runs) -> dict[str, Recording]:
    """Return the recordings as a dictionary; raises ValueError where they are no mapping of names, or empty."""
    if not isinstance(recordings, Mapping) or not all(isinstance(one, Recording) for one in recordings.values()):
        raise ValueError(f'recordings must map names to recordings, as {{"lsq": recording}}, got {recordings!r}')
    if not recordings:
        raise ValueError('nothing to draw: recordings must map names to recordings, as {"lsq": recording}, got none')
    return dict(recordings)


def set_headline_of(figure: InlineFigure, text: str, recordings: Runs) -> InlineFigure:
    """Put a headline above the figure, and below it what its recordings say that they did not see; return it."""
    named = len(recordings) > 1
    notes = [
        (f"{method(name).label}: " if named else "") + gap for name, one in recordings.items() for gap in gaps(one.meta)
    ]
    return set_headline(figure, ". Not seen: ".join([text, "; ".join(notes)]) if notes else text)


def same_layers(recordings: Runs) -> list[str]:
    """Return the layers' names; raises ValueError when two recordings are of different networks."""
    found: list[tuple[str, list[str]]] = [(name, recording.layer_names) for name, recording in recordings.items()]
    first, names = found[0]
    for name, other in found[1:]:
        if other != names:
            raise ValueError(
                f"{first} and {name} cannot be compared: they record {len(names)} and {len(other)} unlike layers"
            )
    return names


def flips_over_time(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Return steps (T - 1,) and the share of the low-bit weights that flipped, per step since the row before (T - 1,)."""
    chosen = [recording.index(name) for name in tables.chosen_layers(recording, tables.LOW_BITS)]
    if not chosen or len(recording.steps) < 2:
        low = tables.LOW_BITS
        raise ValueError(f"nothing to draw: no layer of at most {low} bits, or no step, was recorded")
    flips = recording["layer_flip_count"][1:, chosen].sum(1)
    return recording.steps[1:], flips / recording.weight_counts[chosen].sum() / np.diff(recording.steps)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value and the `width` - 1 before it, of fewer at the start, in the shape of `values`.

    >>> running_mean(np.array([4.0, 0.0, 2.0]), 2)
    array([4., 2., 1.])
    """
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def add_flips(axes: Axes, recordings: Runs) -> Axes:
    """Add a line per run: faint as recorded, bold as the running mean over a fiftieth of the run.

    The height is that of the means after the first tenth: the rush of the first steps runs out of the figure.
    """
    top = 0.0
    for name, recording in recordings.items():
        steps, share = flips_over_time(recording)
        style = method(name)
        axes.plot(steps, 100 * share, color=style.color, linewidth=0.5, alpha=0.35)
        mean = 100 * running_mean(share, max(1, len(steps) // 50))
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


def add_layers(axes: Axes, recordings: Runs) -> Axes:
    """Add the share of oscillating weights per layer, a marker per run, joined layer by layer."""
    shares = []
    for name, recording in recordings.items():
        share = [100 * tables.oscillating(recording, layer).mean() for layer in recording.layer_names]
        style = method(name)
        axes.plot(share, **style.points(markersize=5, markerfacecolor="none", clip_on=False, label=style.label))
        shares.append(share)
    axes.vlines(range(len(shares[0])), np.min(shares, 0), np.max(shares, 0), color="#cccccc", linewidth=1, zorder=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return set_labels(axes, x="", y="oscillating weights (%)")

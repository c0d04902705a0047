"""Draw what happens inside one layer: latent weights between the edges of their bins, states, and which weights flip.

Positions are latent weight over step size, so that bin centres are the integers and the edges lie half-way between them.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from oscillab.methods import Method, method
from oscillab.recording import tables
from oscillab.recording.recording import Recording

from .network import Runs, by_name, set_headline_of
from .style import INK, MAP, QUIET, InlineFigure, new_figure, set_labels

NEUTRAL = method("lsq")
BEFORE = {"color": QUIET, "linewidth": 1.0, "label": "before the first step"}
DASHES = ("solid", "dashed", "dotted", "dashdot")


def draw_trajectories(recordings: Runs, layer: str, *, last: int = 150, count: int = 3) -> InlineFigure:
    """Return a figure of the last steps of the layer's sampled weights that flip most: a row per weight, a column per run.

    `recordings`: name -> Recording with the same sample. Raises ValueError where the layer has no recorded trajectory.
    """
    runs = by_name(recordings)
    rows = [last_steps(recording, layer, last) for recording in runs.values()]
    weights = most_flipping(rows[0], count)
    size = 3.6 * len(runs) + 1.0, 1.1 + 1.35 * len(weights)
    figure, axes = new_figure(*size, rows=len(weights), columns=len(runs), sharex=True, sharey="row")
    for column, (name, table) in enumerate(zip(runs, rows, strict=True)):
        style = method(name)
        for place, weight in enumerate(weights):
            add_trajectory(axes[place, column], table[table["weight"] == weight], style.color)
            axes[place, 0].set_ylabel(f"weight {weight}\nw / s", fontsize=9, color=INK)
        set_labels(axes[0, column], x="", y=axes[0, column].get_ylabel(), title=style.label)
        axes[-1, column].set_xlabel("optimizer step", color=INK)
    figure.align_ylabels(axes[:, 0])
    text = f"{layer}: latent weights (bold), their states (grey), bin edges (dotted)"
    return set_headline_of(figure, text, runs)


def last_steps(recording: Recording, layer: str, last: int) -> pd.DataFrame:
    """Return the trajectories of a layer's sampled weights over the last steps; raises ValueError where there is none."""
    table = tables.trajectories(recording, layer)
    if table.empty:
        raise ValueError(f"no weight of layer '{layer}' has a recorded trajectory; record with trajectories=8 or more")
    return table[table["step"] > table["step"].max() - last]


def most_flipping(table: pd.DataFrame, count: int) -> list[int]:
    """Return the `count` weights of a table of trajectories that flip most, most first."""
    flips = table.groupby("weight")["integer_state"].agg(flip_count)
    return list(flips.sort_values(ascending=False, kind="stable").index[:count])


def flip_count(states: Iterable[int]) -> int:
    """Return how often a sequence of integer states changes."""
    return int(np.count_nonzero(np.diff(np.asarray(states, int))))


def flips_in_words(count: int) -> str:
    """Return a number of flips in words."""
    return f"{count} flip{'s' if count != 1 else ''}"


def add_trajectory(axes: Axes, table: pd.DataFrame, color: str) -> Axes:
    """Add one weight's position and state over time, and the bin edges in sight."""
    step, position = table["step"], table["position"]
    axes.step(step, table["integer_state"], where="post", color=QUIET, linewidth=0.7)
    axes.plot(step, position, color=color, linewidth=1.5)
    for edge in np.arange(np.floor(position.min()) - 1, np.ceil(position.max()) + 1) + 0.5:
        if position.min() - 0.5 <= edge <= position.max() + 0.5:
            axes.axhline(edge, color=INK, linewidth=0.8, linestyle=":")
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "bottom"}
    axes.annotate(flips_in_words(flip_count(table["integer_state"])), (1, 1), (0, 1), fontsize=8.5, color=INK, **place)
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
    curves, cycles = tables.autocorrelation(table.to_numpy(), lag_count), tables.cycle_lengths(table.to_numpy())
    figure, axes = new_figure(7.6, 3.6)
    panel = axes[0, 0]
    for curve, cycle, weight, dash in zip(curves.T, cycles, table.columns, DASHES, strict=False):
        text = f"a cycle takes {cycle:.1f} steps" if np.isfinite(cycle) else "less than a cycle"
        panel.plot(curve, **NEUTRAL.line(linestyle=dash, label=f"weight {weight}: {text}"))
    chance = 1.96 / np.sqrt(len(table))  # of independent states; those of a walk depend on each other
    panel.axhspan(-chance, chance, color=QUIET, alpha=0.15, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.8)
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="lag (steps)", y="autocorrelation of the state")
    text = f"{layer}: how much a state says about the state some steps later (grey: nothing)"
    return set_headline_of(figure, text, {"": recording})


def draw_boundary_distance(recording: Recording, layer: str | None = None) -> InlineFigure:
    """Return a figure of where latent weights lie: over a layer's whole grid, or all layers by distance to the nearest edge.

    Bold at the end of recording, grey before the first step. Fig. 2a of 2311.05109 shows a layer of a long training
    whose weights peak at the edges. Raises ValueError for a recording that holds no latent weights.
    """
    if not recording["position_count"].any():
        raise ValueError("the recording holds no latent weights, so their distance to the edges is unknown")
    figure, axes = new_figure(7.6, 3.6)
    panel = axes[0, 0]
    if layer:
        add_positions(panel, recording, layer)
    else:
        for first, style in ((True, BEFORE), (False, NEUTRAL.line(label="at the end"))):
            distance, share = edge_distances(recording, first=first)
            panel.step(distance, 100 * share, where="mid", **style)
        panel.axhline(100 / len(share), color=INK, linewidth=0.8, linestyle=":", label="spread evenly")
        unit = f"weights (% in each 1/{2 * len(share)} bin)"
        set_labels(panel, x="distance to the nearest bin edge (bins)", y=unit)
    panel.set_ylim(0, 1.3 * max(np.max(line.get_ydata()) for line in panel.lines[:2]))
    panel.legend(framealpha=0.9, edgecolor="none", fontsize=9, ncols=3, loc="upper left")
    start, end = (near_edge(recording, layer, first=first) for first in (True, False))
    text = f"within s/20 of a bin edge: {100 * start:.0f} % of weights before, {100 * end:.0f} % at the end"
    return set_headline_of(figure, f"{layer or 'All layers'}, {text}", {"": recording})


def add_positions(axes: Axes, recording: Recording, layer: str, style: Method = NEUTRAL) -> Axes:
    """Add the histogram of one layer's positions, first and last, and its bin edges."""
    for first, drawn in ((True, BEFORE), (False, style.line(label="at the end"))):
        table = tables.positions(recording, layer, first=first)
        cells = 1 if table["weight_count"].mean() > 200 else 4  # so that a cell holds enough weights to have a shape
        table = table.iloc[cells:-cells]  # the outermost cells hold all that lies beyond
        places, density = (table[name].to_numpy().reshape(-1, cells).mean(1) for name in ("position", "density"))
        axes.step(places, density, where="mid", **drawn)
    about = recording.layers[recording.index(layer)]
    edges, width = np.arange(about["low"], about["high"]) + 0.5, 0.8 if about["high"] < 16 else 0.1
    axes.vlines(edges, 0, 1, transform=axes.get_xaxis_transform(), color=INK, linewidth=width, linestyle=":")
    return set_labels(axes, x="latent weight / step size (dotted: bin edges)", y="density of weights (1 per bin)")


def edge_distances(
    recording: Recording, layer: str | None = None, *, first: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances to the nearest edge in bins (cells,) and shares (cells,) of a layer's (all low-bit layers') weights.

    Only weights within the grid count.
    """
    counts = []
    for name in [layer] if layer else tables.chosen_layers(recording, tables.LOW_BITS) or recording.layer_names:
        table = tables.edge_distances(recording, name, first=first)
        about, places = recording.layers[recording.index(name)], tables.positions(recording, name, first=first)
        beyond = ~places["position"].between(about["low"], about["high"])
        counts.append(table["weight_count"].to_numpy().copy())
        counts[-1][-1] -= places.loc[beyond, "weight_count"].sum()  # the last cell holds them too
    total = np.sum(counts, axis=0)
    return table["distance"].to_numpy(), total / max(total.sum(), 1)


def near_edge(recording: Recording, layer: str | None = None, *, first: bool = False) -> float:
    """Return the share of a layer's (of all low-bit layers') weights within 1/20 bin of an edge; 0.1 where even."""
    distance, share = edge_distances(recording, layer, first=first)
    return float(share[distance < 0.05].sum())


def flip_map(recording: Recording, layer: str) -> np.ndarray:
    """Return how often each weight of the layer flips, in % of the steps: a row per output channel."""
    channels = recording.layers[recording.index(layer)]["shape"][0]
    flips = tables.weights(recording, layer)["flip_count"].to_numpy()
    rates: np.ndarray = 100 * flips.reshape(channels, -1) / max(1, recording.meta["tick_count"])
    return rates


def draw_layer_map(recording: Recording, layer: str) -> InlineFigure:
    """Return a figure of how often each weight of the layer flips, a row per output channel."""
    rates = flip_map(recording, layer)
    figure, axes = new_figure(8.0, 4.0)
    every = {f"{axis}ticklabels": -(-count // 16) for axis, count in zip("yx", rates.shape, strict=True)}
    panel = sns.heatmap(rates, ax=axes[0, 0], cmap=MAP, vmin=0, cbar_kws={"label": "flips (% of steps)"}, **every)
    panel.tick_params(rotation=0)
    set_labels(panel, x="input channel and kernel place", y="output channel")
    text = f"{100 * (rates == 0).mean():.0f} % of its weights never flip, one flips in {rates.max():.0f} % of the steps"
    return set_headline_of(figure, f"{layer}: {text}", {"": recording})


def draw_states(recordings: Runs, layer: str) -> InlineFigure:
    """Return a figure of the share of the layer's weights in each state at the end, a bar per run, what never flipped full.

    `recordings`: name -> Recording. The title gives dead and saturated shares and the entropy.
    """
    figure, axes = new_figure(7.6, 3.6)
    panel, notes, runs = axes[0, 0], [], by_name(recordings)
    width = 0.8 / len(runs)
    for number, (name, recording) in enumerate(runs.items()):
        style, table = method(name), still_and_moved(recording, layer)
        place = table["state"] + (number - (len(runs) - 1) / 2) * width
        bar = {"width": 0.92 * width, "edgecolor": style.color, "linewidth": 0.8}
        panel.bar(place, 100 * table["still"], color=style.color, label=f"{style.label}, never flipped", **bar)
        panel.bar(place, 100 * table["moved"], bottom=100 * table["still"], color="none", label="flipped", **bar)
        about = tables.layers(recording).set_index("layer").loc[layer]
        shares = f"dead {100 * about['dead_share']:.1f} %, saturated {100 * about['saturated_share']:.1f} %"
        notes.append(f"{style.label}: {shares}, entropy {about['entropy']:.2f} bits")
    if len(table) <= 16:
        panel.set_xticks(table["state"])
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="integer state", y="weights (%)")
    return set_headline_of(figure, f"{layer}. {'; '.join(notes)}", runs)


def still_and_moved(recording: Recording, layer: str) -> pd.DataFrame:
    """Return the shares of a layer's weights in each state (`state`) that never flipped (`still`), and that did (`moved`)."""
    table, weights = tables.occupancy(recording, layer), tables.weights(recording, layer)
    never = weights.loc[weights["flip_count"] == 0, "integer_state"].astype(int) - table["state"].min()
    still = np.bincount(never, minlength=len(table)) / len(weights)
    return table[["state"]].assign(still=still, moved=table["share"] - still)

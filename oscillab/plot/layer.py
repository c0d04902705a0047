"""What happens inside one layer?

Latent weights between the edges of their bins, step sizes and input ranges over time, and which weights flip. Positions
are latent weight over step size, so that bin centres are the integers and the edges lie half-way between them.
"""

from collections.abc import Mapping

import numpy as np

from oscillab.recording import tables

from .style import INK, MAP, METHODS, QUIET, method_style, new_figure, set_headline, set_labels

NEUTRAL = METHODS["lsq"]
BEFORE = {"color": QUIET, "linewidth": 1.0, "label": "before the first step"}


def draw_trajectories(recordings, layer, *, last=150, count=3):
    """A figure of the last steps of the layer's sampled weights that flip most: a row per weight, a column per method.

    `recordings`: a Recording, or method -> Recording with the same sample. Raises ValueError where the layer has no
    recorded trajectory.
    """
    recordings = recordings if isinstance(recordings, Mapping) else {None: recordings}
    courses = [last_steps(recording, layer, last) for recording in recordings.values()]
    weights = most_flipping(courses[0], count)
    size = 3.6 * len(recordings) + 1.0, 1.1 + 1.35 * len(weights)
    figure, axes = new_figure(*size, rows=len(weights), columns=len(recordings), sharex=True, sharey="row")
    for column, (method, course) in enumerate(zip(recordings, courses, strict=True)):
        style = method_style(method) if method else NEUTRAL
        for row, weight in enumerate(weights):
            add_trajectory(axes[row, column], course[course["weight"] == weight], style.color)
            axes[row, 0].set_ylabel(f"weight {weight}\nw / s", fontsize=9, color=INK)
        set_labels(axes[0, column], x="", y=axes[0, column].get_ylabel(), title=style.label if method else None)
        axes[-1, column].set_xlabel("optimizer step", color=INK)
    figure.align_ylabels(axes[:, 0])
    return set_headline(figure, f"{layer}: latent weights (bold), their states (grey), bin edges (dotted)")


def last_steps(recording, layer, last):
    """The trajectories of a layer's sampled weights over the last steps; raises ValueError where there is none."""
    course = tables.trajectories(recording, layer)
    if course.empty:
        raise ValueError(f"no weight of layer '{layer}' has a recorded trajectory; record with trajectories=8 or more")
    return course[course["step"] > course["step"].max() - last]


def most_flipping(course, count):
    """The `count` weights of a table of trajectories that flip most, most first."""
    flips = course.groupby("weight")["integer_state"].agg(flip_count)
    return list(flips.sort_values(ascending=False, kind="stable").index[:count])


def flip_count(states):
    """How often a sequence of integer states changes.

    >>> flip_count([0, 1, 1, 0])
    2
    """
    return int(np.count_nonzero(np.diff(np.asarray(states, int))))


def add_trajectory(axes, course, color):
    """The same axes with one weight's position and state over time, and the bin edges in sight."""
    step, position = course["step"], course["position"]
    axes.step(step, course["integer_state"], where="post", color=QUIET, linewidth=0.7)
    axes.plot(step, position, color=color, linewidth=1.5)
    for edge in np.arange(np.floor(position.min()) - 1, np.ceil(position.max()) + 1) + 0.5:
        if position.min() - 0.5 <= edge <= position.max() + 0.5:
            axes.axhline(edge, color=INK, linewidth=0.8, linestyle=":")
    place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "bottom"}
    flips = flip_count(course["integer_state"])
    axes.annotate(f"{flips} flip{'s' if flips != 1 else ''}", (1, 1), (0, 1), fontsize=8.5, color=INK, **place)
    return axes


def draw_boundary_distance(recording, layer=None):
    """A figure of where latent weights lie: over a layer's whole grid, or all layers by distance to the nearest edge.

    Bold at the end of recording, grey before the first step. Fig. 2a of 2311.05109 shows a layer of a long training
    whose weights peak at the edges. Raises ValueError for a recording that holds no latent weights.
    """
    if not recording["position_count"].any():
        raise ValueError("the recording holds no latent weights, so their distance to the edges is unknown")
    figure, axes = new_figure(7.6, 3.6)
    panel = axes[0, 0]
    add_positions(panel, recording, layer) if layer else add_distances(panel, recording)
    panel.set_ylim(0, 1.3 * max(line.get_ydata().max() for line in panel.lines[:2]))
    panel.legend(framealpha=0.9, edgecolor="none", fontsize=9, ncols=3, loc="upper left")
    start, end = (near_edge(recording, layer, first=first) for first in (True, False))
    text = f"within s/20 of a bin edge: {100 * start:.0f} % of weights before, {100 * end:.0f} % at the end"
    return set_headline(figure, f"{layer or 'All layers'}, {text}")


def add_positions(axes, recording, layer, style=NEUTRAL):
    """The same axes with the histogram of one layer's positions, first and last, and its bin edges."""
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


def add_distances(axes, recording):
    """The same axes with the share of all weights by distance to the nearest edge, first, last and spread evenly."""
    for first, style in ((True, BEFORE), (False, NEUTRAL.line(label="at the end"))):
        distance, share = all_distances(recording, first=first)
        axes.step(distance, 100 * share, where="mid", **style)
    axes.axhline(100 / len(share), color=INK, linewidth=0.8, linestyle=":", label="spread evenly")
    return set_labels(
        axes, x="distance to the nearest bin edge (bins)", y=f"weights (% in each 1/{2 * len(share)} bin)"
    )


def distances(recording, layer, *, first=False):
    """Distances to the nearest edge in bins (cells,) and counts (cells,) of a layer's weights within its grid."""
    table = tables.edge_distances(recording, layer, first=first)
    about, places = recording.layers[recording.index(layer)], tables.positions(recording, layer, first=first)
    beyond = ~places["position"].between(about["low"], about["high"])
    counts = table["weight_count"].to_numpy().copy()
    counts[-1] -= places.loc[beyond, "weight_count"].sum()  # the last cell holds them too
    return table["distance"].to_numpy(), counts


def all_distances(recording, layers=None, *, first=False):
    """Distances (cells,) and shares (cells,) of the weights within the grids of all low-bit layers, or of `layers`."""
    names = layers or tables.chosen_layers(recording, tables.LOW_BITS)
    pairs = [distances(recording, name, first=first) for name in names]
    counts = sum(counts for _, counts in pairs)
    return pairs[0][0], counts / max(counts.sum(), 1)


def near_edge(recording, layer=None, *, first=False, within=0.05):
    """The share of a layer's weights (of all low-bit layers') nearer than `within` bins to an edge; 0.1 where even."""
    distance, share = all_distances(recording, [layer] if layer else None, first=first)
    return share[distance < within].sum()


def draw_layer_map(recording, layer):
    """A figure of how often each weight of the layer flips, a row per output channel."""
    channels = recording.layers[recording.index(layer)]["shape"][0]
    flips = tables.weights(recording, layer)["flip_count"].to_numpy()
    rate = 100 * flips.reshape(channels, -1) / max(1, recording.meta["tick_count"])
    figure, axes = new_figure(8.0, 4.0)
    panel = axes[0, 0]
    panel.grid(False)
    image = panel.imshow(rate, cmap=MAP, aspect="auto", interpolation="nearest", vmin=0)
    figure.colorbar(image, ax=panel, label="flips (% of steps)")
    set_labels(panel, x="input channel and kernel place", y="output channel")
    never = 100 * (rate == 0).mean()
    return set_headline(
        figure, f"{layer}: {never:.0f} % of its weights never flip, one flips in {rate.max():.0f} % of the steps"
    )

"""What is known of one weight and of its layer, at one step of a run?

Five panels: the layer's map of flips with the sampled weights, the course of the picked one between its bin edges, the
histogram of latent weights, the step size and the range of the inputs over time. A line marks the step.
"""

import numpy as np

from oscillab.recording import tables

from .layer import add_positions, add_trajectory
from .plots import same_layers
from .ranges import add_range, observed
from .style import ABOVE, MAP, METHODS, QUIET, method_style, new_mosaic, set_headline, set_labels

AROUND = 75  # steps before and after the marked one that a trajectory shows
PANELS = ("map", "course", "positions", "sizes", "range")
SMALL = {"frameon": False, "fontsize": 7.5, "handlelength": 1.3, "columnspacing": 1.0} | ABOVE  # a legend
PICKED = METHODS["ema+qc"].color


def draw_layer_view(runs, layer, *, weight=None, step=None):
    """A figure of one layer in one run, or in two side by side.

    `runs`: name -> (method, Recording). `weight`: flat index of a sampled weight, None for the one that flips most.
    `step`: None is the last one. Raises ValueError for an unknown layer, a weight without a recorded course, a layer
    whose latent weights were not recorded, or two recordings of unlike layers.
    """
    same_layers({name: recording for name, (_, recording) in runs.items()})
    recordings = [recording for _, recording in runs.values()]
    weight = sampled_weights(recordings[0], layer)[0] if weight is None else weight
    step = int(recordings[0].steps[-1]) if step is None else step
    figure, panels = paper(len(runs))
    for column, (name, (method, recording)) in enumerate(runs.items()):
        own = {panel: panels[f"{panel}{column}"] for panel in PANELS}
        add_all(own, recording, method_style(method), layer, weight, min(step, int(recording.steps[-1])))
        own["map"].set_title(
            f"{name}, {method_style(method).label}" if len(runs) > 1 else method_style(method).label,
            loc="left",
            fontsize=10,
        )
    return set_headline(figure, f"{layer}, weight {weight}, step {step}: {course_sentence(runs, layer, weight)}")


def paper(count):
    """A figure and its axes by name: one run in two rows, two runs in two columns."""
    if count == 1:
        return new_mosaic(9.6, 5.2, [["map0", "course0", "course0"], ["positions0", "sizes0", "range0"]])
    return new_mosaic(9.6, 8.6, [[f"{panel}{column}" for column in range(count)] for panel in PANELS])


def add_all(panels, recording, style, layer, weight, step):
    """Fill the five panels of one recording."""
    add_map(panels["map"], recording, layer, weight)
    add_course(panels["course"], recording, style, layer, weight, step)
    if not recording["position_count"].any():
        raise ValueError(f"the latent weights of layer '{layer}' were not recorded")
    add_positions(panels["positions"], recording, layer, style)
    set_labels(panels["positions"], x="latent weight / step size (dotted: bin edges)", y="density")
    panels["positions"].legend(**SMALL)
    sizes = panels["sizes"]
    sizes.plot(recording.steps, recording["step_size"][:, recording.index(layer)], **style.line(label=None))
    set_labels(sizes, x="optimizer step", y="step size s")
    for name in ("course", "sizes"):
        panels[name].axvline(step, color=PICKED, linewidth=1.0)
    add_inputs(panels["range"], recording, layer, step)


def add_inputs(axes, recording, layer, step):
    """The same axes with the range of the layer's inputs over time, or a word where none was observed."""
    table = observed(recording, layer)
    if table.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no inputs were observed:\nno training forward came by", ha="center", color=QUIET)
        return axes
    add_range(axes, table)
    axes.legend(**SMALL)
    axes.axvline(step, color=PICKED, linewidth=1.0)
    return set_labels(axes, x="optimizer step", y="input")


def add_map(axes, recording, layer, weight):
    """The same axes with how often the weights flip (a cell may hold several), the sampled ones ringed, the picked red."""
    channels = recording.layers[recording.index(layer)]["shape"][0]
    flips = tables.weights(recording, layer)["flip_count"].to_numpy().reshape(channels, -1)
    axes.grid(False)
    rate = 100 * flips / max(1, recording.meta["tick_count"])
    place = {"extent": (-0.5, rate.shape[1] - 0.5, rate.shape[0] - 0.5, -0.5), "aspect": "auto"}
    image = axes.imshow(coarse(rate), cmap=MAP, interpolation="nearest", vmin=0, **place)
    axes.figure.colorbar(image, ax=axes, label="flips (% of steps)")
    for one in sampled_weights(recording, layer):
        row, column = divmod(one, flips.shape[1])
        look_of = {"markeredgecolor": PICKED if one == weight else "white", "markersize": 11 if one == weight else 6}
        axes.plot(column, row, "o", markerfacecolor="none", markeredgewidth=1.6, clip_on=False, **look_of)
    return set_labels(axes, x="input channel and kernel place", y="output channel")


def coarse(values, most=48):
    """A map (rows, columns) of at most `most` cells a side, each the mean of as many neighbours as that takes.

    >>> coarse(np.array([[1.0, 3.0, 5.0]]), most=2)
    array([[2., 5.]])
    """
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], -(-values.shape[axis] // most))
        counts = np.diff([*starts, values.shape[axis]])
        values = np.add.reduceat(values, starts, axis) / np.expand_dims(counts, 1 - axis)
    return values


def sampled_weights(recording, layer):
    """The flat indices of a layer's weights with a recorded course, those that flip most first.

    Raises ValueError where there is none.
    """
    where, index = recording.weights_of(layer), recording.arrays.get("sample_index", np.zeros(0, int))
    picked = index[(index >= where.start) & (index < where.stop)]
    if not len(picked):
        raise ValueError(f"no weight of layer '{layer}' has a recorded course; record with trajectories=8 or more")
    order = np.argsort(-recording["flip_count"][picked].astype(int), kind="stable")
    return [int(one) for one in picked[order] - where.start]


def add_course(axes, recording, style, layer, weight, step):
    """The same axes with the course of a weight around a step: its position, its state, the bin edges."""
    course = tables.trajectories(recording, layer)
    course = course[(course["weight"] == weight) & course["step"].between(step - AROUND, step + AROUND)]
    if course.empty:
        raise ValueError(
            f"weight {weight} of layer '{layer}' has no recorded course; those that have are ringed in the map"
        )
    add_trajectory(axes, course, style.color)
    return set_labels(axes, x="optimizer step", y="w / s")


def course_sentence(runs, layer, weight):
    """How often the weight flips in each run, in words."""
    parts = []
    for name, (method, recording) in runs.items():
        flips = int(recording["flip_count"][recording.weights_of(layer)][weight])
        whose = f"{name} ({method_style(method).label})" if len(runs) > 1 else method_style(method).label
        parts.append(f"{flips} flips in {recording.meta['tick_count']} steps with {whose}")
    return ", ".join(parts)


def flip_rates_at(recording, step, *, width=50):
    """Each layer's flips per weight and step over the `width` steps up to `step` (the first ones where it is early)."""
    last = int(np.searchsorted(recording.steps, step, side="right"))
    rows = slice(max(1, last - width), max(2, last))
    passed = recording.steps[rows][-1] - recording.steps[rows.start - 1]
    rates = recording["layer_flip_count"][rows].sum(0) / recording.weight_counts / max(1, passed)
    return dict(zip(recording.layer_names, rates.tolist(), strict=True))

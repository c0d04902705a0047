"""Draw what is known of one weight and of its layer at one step of a run, or of two runs side by side.

Five panels: the layer's map of flips with the sampled weights, the trajectory of the picked one between its bin edges, the
histogram of latent weights, the step size and the range of the inputs over time. A line marks the step.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from oscillab.methods import METHODS, Method, method
from oscillab.recording import tables
from oscillab.recording.recording import Recording

from .layer import add_positions, add_trajectory, flip_map
from .network import add_range, observed, same_layers, set_headline_of
from .style import ABOVE, MAP, QUIET, InlineFigure, new_mosaic, set_labels

AROUND = 75  # steps before and after the marked one that a trajectory shows
PANELS = ("map", "trajectory", "positions", "sizes", "range")
LEGEND = {"frameon": False, "fontsize": 7.5, "handlelength": 1.3, "columnspacing": 1.0} | ABOVE
PICKED = METHODS["ema+qc"].color


def draw_layer_view(
    runs: Mapping[str, tuple[str, Recording]], layer: str, *, weight: int | None = None, step: int | None = None
) -> InlineFigure:
    """Return a figure of one layer in one run, or in two side by side.

    `runs`: name -> (method, Recording). `weight`: flat index of a sampled weight, None for the one that flips most.
    `step`: None is the last one. Raises ValueError for an unknown layer, a weight without a recorded trajectory, a layer
    whose latent weights were not recorded, or two recordings of unlike layers.
    """
    recordings = {name: recording for name, (_, recording) in runs.items()}
    same_layers(recordings)
    first = next(iter(recordings.values()))
    weight = sampled_weights(first, layer)[0] if weight is None else weight
    step = int(first.steps[-1]) if step is None else step
    rows = [[f"{panel}{column}" for column in range(len(runs))] for panel in PANELS]
    wide = [["map0", "trajectory0", "trajectory0"], ["positions0", "sizes0", "range0"]]
    figure, panels = new_mosaic(9.6, 5.2, wide) if len(runs) == 1 else new_mosaic(9.6, 8.6, rows)
    parts = []
    for column, (name, (kind, recording)) in enumerate(runs.items()):
        own, style = {panel: panels[f"{panel}{column}"] for panel in PANELS}, method(kind)
        _fill(own, recording, style, layer, weight, min(step, int(recording.steps[-1])))
        alone, label = len(runs) == 1 or name == style.label, style.label
        own["map"].set_title(label if alone else f"{name}, {label}", loc="left", fontsize=10)
        flips = int(recording["flip_count"][recording.weights_of(layer)][weight])
        whose = label if alone else f"{name} ({label})"
        parts.append(f"{flips} flips in {recording.meta['tick_count']} steps with {whose}")
    _share_scales([[panels[name] for name in row] for row in rows])
    return set_headline_of(figure, f"{layer}, weight {weight}, step {step}: {', '.join(parts)}", recordings)


def _share_scales(rows: list[list[Axes]]) -> None:
    """Give panels of one kind the same colours and axes, so that a calm run looks calm beside a restless one."""
    maps = [axes.images[0] for axes in rows[0]]
    top = max(image.get_clim()[1] or 0 for image in maps)
    for image in maps:
        image.set_clim(0, top)
    for row in rows[1:]:
        drawn = [axes for axes in row if axes.axison]
        for axes in drawn[1:]:
            drawn[0].sharex(axes)
            drawn[0].sharey(axes)
            drawn[0].autoscale_view()


def _fill(panels: dict[str, Axes], recording: Recording, style: Method, layer: str, weight: int, step: int) -> None:
    add_map(panels["map"], recording, layer, weight)
    table = tables.trajectories(recording, layer)
    table = table[(table["weight"] == weight) & table["step"].between(step - AROUND, step + AROUND)]
    if table.empty:
        hint = "those that have are ringed in the map"
        raise ValueError(f"weight {weight} of layer '{layer}' has no recorded trajectory; {hint}")
    add_trajectory(panels["trajectory"], table, style.color)
    set_labels(panels["trajectory"], x="optimizer step", y="w / s")
    if not recording["position_count"].any():
        raise ValueError(f"the latent weights of layer '{layer}' were not recorded")
    add_positions(panels["positions"], recording, layer, style)
    set_labels(panels["positions"], x="latent weight / step size (dotted: bin edges)", y="density")
    panels["positions"].legend(**LEGEND)
    sizes = recording["step_size"][:, recording.index(layer)]
    panels["sizes"].plot(recording.steps, sizes, **style.line(label=None))
    set_labels(panels["sizes"], x="optimizer step", y="step size s")
    inputs, below = observed(recording, layer), panels["range"]
    if inputs.empty:
        below.set_axis_off()
        below.text(0.5, 0.5, "no inputs were observed:\nno training forward came by", ha="center", color=QUIET)
    else:
        add_range(below, inputs)
        below.legend(**LEGEND)
        set_labels(below, x="optimizer step", y="input")
    for axes in (panels["trajectory"], panels["sizes"], *([] if inputs.empty else [below])):
        axes.axvline(step, color=PICKED, linewidth=1.0)


def add_map(axes: Axes, recording: Recording, layer: str, weight: int) -> Axes:
    """Add how often the weights flip (a cell may hold several), the sampled ones ringed, the picked one in red."""
    rates = flip_map(recording, layer)
    axes.grid(False)
    extent = (-0.5, rates.shape[1] - 0.5, rates.shape[0] - 0.5, -0.5)
    image = axes.imshow(coarse(rates), cmap=MAP, interpolation="nearest", vmin=0, extent=extent, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="flips (% of steps)")
    for one in sampled_weights(recording, layer):
        row, column = divmod(one, rates.shape[1])
        color, size = (PICKED, 11) if one == weight else ("white", 6)
        ring = axes.plot(column, row, "o", clip_on=False, markersize=size)[0]
        ring.set(markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.6)
    return set_labels(axes, x="input channel and kernel place", y="output channel")


def coarse(values: np.ndarray, most: int = 48) -> np.ndarray:
    """Return a map (rows, columns) of at most `most` cells a side, each the mean of as many neighbours as that takes."""
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], -(-values.shape[axis] // most))
        counts = np.diff([*starts, values.shape[axis]])
        values = np.add.reduceat(values, starts, axis) / np.expand_dims(counts, 1 - axis)
    return values


def sampled_weights(recording: Recording, layer: str) -> list[int]:
    """Return the flat indices of a layer's weights with a recorded trajectory, those that flip most first.

    Raises ValueError where there is none.
    """
    where, index = recording.weights_of(layer), recording.arrays.get("sample_index", np.zeros(0, int))
    picked = index[(index >= where.start) & (index < where.stop)]
    if not len(picked):
        raise ValueError(f"no weight of layer '{layer}' has a recorded trajectory; record with trajectories=8 or more")
    order = np.argsort(-recording["flip_count"][picked].astype(int), kind="stable")
    return [int(one) for one in picked[order] - where.start]


def flip_rates_at(recording: Recording, step: int, *, width: int = 50) -> dict[str, float]:
    """Return each layer's flips per weight and step over the `width` steps up to `step` (the first ones where it is early)."""
    last = int(np.searchsorted(recording.steps, step, side="right"))
    rows = slice(max(1, last - width), max(2, last))
    passed = recording.steps[rows][-1] - recording.steps[rows.start - 1]
    rates = recording["layer_flip_count"][rows].sum(0) / recording.weight_counts / max(1, passed)
    return dict(zip(recording.layer_names, rates.tolist(), strict=True))

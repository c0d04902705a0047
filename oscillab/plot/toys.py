"""What does an oscillating weight look like, step by step?

Drawings of the toys' trajectories (`oscillab.toy`): plain arrays and frames in, `Figure` out.
"""

import numpy as np

from .style import INK, METHODS, QUIET, new_figure, set_headline, set_labels

LATENT, STATE, GOAL = (
    METHODS["lsq"].color,
    METHODS["ema+qc"].color,
    METHODS["lsq+qc"].color,
)


def draw_edges(axes, edges):
    """The same axes with the bin edges as dotted lines."""
    for place, edge in enumerate(np.atleast_1d(edges)):
        axes.axhline(edge, color=QUIET, linewidth=0.8, linestyle=":", label="bin edge" if place == 0 else None)
    return axes


def draw_one_weight(trajectory, *, last=80):
    """A figure of the last steps of one weight: latent value, its quantized value, the bin edges and the target.

    The title states the measured frequency beside the closed form |q(w*) - w*| / s.
    """
    latent, states = trajectory.latent_weight[-last:], trajectory.integer_state[-last:]
    steps = np.arange(len(trajectory.latent_weight))[-last:]
    figure, axes = new_figure(7.6, 3.7)
    panel = axes[0, 0]
    draw_edges(panel, near(trajectory.edges(), latent, trajectory.step_size))
    panel.axhline(
        trajectory.target, color=GOAL, linewidth=1.2, linestyle="--", label=f"target w* = {trajectory.target:g}"
    )
    panel.step(steps, states * trajectory.step_size, where="post", color=STATE, linewidth=1.0, label="quantized q(w)")
    panel.plot(steps, latent, color=LATENT, linewidth=1.6, marker="o", markersize=2.5, label="latent weight w")
    set_labels(panel, x="optimizer step", y="weight")
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    return set_headline(figure, frequency_sentence(trajectory))


def near(edges, latent, margin):
    """The edges within `margin` of the latent values, or the nearest one."""
    inside = edges[(edges >= latent.min() - margin) & (edges <= latent.max() + margin)]
    return inside if len(inside) else edges[[np.abs(edges - latent.mean()).argmin()]]


def frequency_sentence(trajectory):
    """One sentence: how often the weight oscillates, and how often it should."""
    low, high = trajectory.low * trajectory.step_size, trajectory.high * trajectory.step_size
    if not low <= trajectory.target <= high:
        return f"The target lies beyond the grid ({low:g} to {high:g}): the weight runs off and rests"
    expected = np.abs(np.arange(low, high + 1, trajectory.step_size) - trajectory.target).min() / trajectory.step_size
    measured = trajectory.frequency()
    return f"{trajectory_bits(trajectory)} bit: {measured:.3f} oscillations a step; |q(w*) - w*| / s = {expected:.3f}"


def trajectory_bits(trajectory):
    """The bit width of the trajectory's grid."""
    return int(trajectory.high - trajectory.low).bit_length()


def draw_frequencies(targets, expected, measured):
    """A figure of frequency by target: the closed form as a line, `measured` (rate -> frequencies) as points."""
    figure, axes = new_figure(6.6, 3.6)
    panel = axes[0, 0]
    panel.plot(targets, expected, color=QUIET, linewidth=1.0, label="|q(w*) - w*| / s")
    for (rate, values), method in zip(measured.items(), ("lsq", "ema", "lsq+qc", "ema+qc"), strict=False):
        style = METHODS[method]
        panel.plot(
            targets,
            values,
            marker=style.marker,
            color=style.color,
            linestyle="none",
            markersize=7,
            markerfacecolor="none",
            label=f"measured, learning rate {rate:g}",
        )
    set_labels(panel, x="target w*, in step sizes", y="oscillations per step")
    panel.legend(frameon=False, fontsize=9)
    return set_headline(figure, "The frequency is the distance to the grid, whatever the learning rate")


def draw_three_weights(frame, *, last=60):
    """A figure of the last steps of the three-weight toy: each latent weight and its bin edge, and the input's."""
    rows = frame.tail(last)
    figure, axes = new_figure(9.2, 5.0, rows=2, columns=2, sharex=True)
    for index, panel in enumerate(axes.flat[:3]):
        add_weight(panel, rows, index)
    axes[1, 1].plot(rows.index, rows["input_step_size"] / 2, color=INK, linestyle=":", linewidth=1.3)
    set_labels(axes[1, 1], x="", y="input", title="the bin edge of the input, s_x / 2")
    for panel in axes[1]:
        panel.set_xlabel("optimizer step", color=INK)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return set_headline(figure, "Latent weights oscillate, and so do the bin edges that they cross")


def add_weight(axes, rows, index):
    """The same axes with one latent weight of the three, where it is in state 1, and the bin edge that moves."""
    latent, states = rows[f"w_{index}"], rows[f"state_{index}"]
    axes.plot(rows.index, latent, color=LATENT, linewidth=1.3, label="latent weight")
    axes.plot(rows.index[states == 1], latent[states == 1], "o", color=STATE, markersize=3.5, label="in state 1")
    edge = rows["weight_step_size"] / 2
    axes.plot(rows.index, edge, color=INK, linestyle=":", linewidth=1.3, label="bin edge s_w / 2 or s_x / 2")
    flips = int(states.diff().iloc[1:].abs().sum())
    return set_labels(axes, x="", y="weight", title=f"w_{index}: {flips} flips in {len(rows)} steps")

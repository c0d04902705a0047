"""Which remedy and which control is worth how much, seed by seed?"""

import numpy as np

from oscillab.plot.style import INK, METHODS, QUIET, label_of, new_figure, set_headline, set_labels
from oscillab.study.paired import differences

from .ladder import panels

LOWEST = -20.0  # points; what loses more is written at the edge, so that the others can be told apart
FAMILIES = (  # what stands together: (heading, methods laid against LSQ, or against EMA where the heading says so)
    ("Averages, against LSQ", "lsq", ("ema", "ema_weights", "ema_step_sizes", "ema_buffers")),
    (
        "Other training, against LSQ",
        "lsq",
        (
            *("dampening", "freezing", "scale_freezing", "q_ema", "slow_step_sizes"),
            *("rounded_mask", "per_channel", "lsq_plus"),
        ),
    ),
    (
        "The same, averaged, against EMA",
        "ema",
        (
            *("dampening+ema", "freezing+ema", "scale_freezing+ema", "q_ema+ema", "slow_step_sizes+ema"),
            *("rounded_mask+ema", "per_channel+ema", "lsq_plus+ema"),
        ),
    ),
    (
        "After LSQ, against it",
        "lsq",
        ("lsq+qc", "lsq+bn_affine", "lsq+bn_reestimation", "lsq+bias_correction", "lsq+soft_rounding"),
    ),
    (
        "After EMA, against it",
        "ema",
        (
            *(
                "ema+qc",
                "ema+qc_scale",
                "ema+qc_shift",
                "ema+qc_per_tensor",
                "ema+bn_affine",
                "ema+bn_affine_and_biases",
            ),
            *("ema+bn_reestimation", "ema+bias_correction", "ema+soft_rounding"),
        ),
    ),
)


def families(table, group):
    """(heading, [(method, its paired differences (n,))]) of each family that the table has something of."""
    found = []
    for heading, reference, methods in FAMILIES:
        gains = [(method, 100 * differences(table, group, method, reference)) for method in methods]
        gains = [(method, values) for method, values in gains if len(values)]
        if gains:
            found.append((heading, gains))
    return found


def draw_gains(table):
    """A figure of every method's paired difference in mAP points, a dot per seed and a bar for the mean, by family.

    `table`: a study's rows of one network at one bit width (FP32 may stand with them); raises ValueError for more, or
    when there is nothing to compare.
    """
    groups = panels(table)
    if len(groups) != 1:
        raise ValueError(f"the table must hold one network at one bit width, got {len(groups)} of them")
    found = families(table, groups[0])
    if not found:
        raise ValueError("the table has no method beside LSQ or EMA to compare with them")
    heights = [len(gains) for _, gains in found]
    figure, axes = new_figure(
        8.6, 0.9 + 0.27 * sum(heights) + 0.55 * len(found), rows=len(found), height_ratios=heights, sharex=True
    )
    for panel, (heading, gains) in zip(axes[:, 0], found, strict=True):
        draw_family(panel, heading, gains, least=LOWEST)
    low = min(values.min() for _, gains in found for _, values in gains)
    axes[-1, 0].set_xlim(left=LOWEST if low < LOWEST else None)
    set_labels(axes[-1, 0], x="difference in mAP (points, 0..100)", y="")
    best, values = max((pair for _, gains in found for pair in gains), key=lambda pair: pair[1].mean())
    where = f"{groups[0].network} at {groups[0].width} bit"
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    return set_headline(
        figure, f"{where}, {seeds}: the largest gain is {label_of(best)}'s, {values.mean():+.1f} points"
    )


def draw_family(axes, heading, gains, *, least=-np.inf, most=np.inf):
    """The same axes with one row for each (method, differences (n,)), empty where there are none.

    A mean below `least` or above `most` is written there.
    """
    for place, (method, values) in enumerate(gains):
        if not len(values):
            continue
        color = METHODS[method].color if method in METHODS else INK
        axes.barh(place, np.clip(values.mean(), least, most), height=0.6, color=color, alpha=0.25)
        axes.plot(values, [place] * len(values), "o", color=color, markersize=5, markerfacecolor="none")
        text = {"va": "center", "fontsize": 8.5, "color": INK}
        if values.mean() < least:
            axes.text(least, place, f" ‹ {values.mean():.1f} in the mean", ha="left", **text)
        if values.mean() > most:
            axes.text(most, place, f"{values.mean():.1f} in the mean › ", ha="right", **text)
    axes.axvline(0.0, color=QUIET, linewidth=0.9)
    axes.set_yticks(range(len(gains)), [label_of(method) for method, _ in gains])
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.grid(axis="y", visible=False)
    axes.set_title(heading, loc="left", fontsize=10, color=INK)
    return axes

"""Draw differences between methods, seed by seed, and the share of FP32's mAP that each method keeps, ours and the paper's."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes

from oscillab.methods import METHODS, method, names
from oscillab.plot.style import INK, QUIET, InlineFigure, new_figure, set_headline, set_labels
from oscillab.study.figures.map_by_method import name_rows, only_group, outer_sides, panel_grid, places_of
from oscillab.study.table import Pairs, differences, groups, paired_p, pairs_of

LOWEST = -20.0  # points; what loses more is written at the edge, so that the others can be told apart
Gains = list[tuple[str, np.ndarray]]


def draw_gains(table: pd.DataFrame) -> InlineFigure:
    """Draw every method's paired difference in mAP points, a dot per seed, a bar for the mean, by family.

    `table`: a study's rows of one network at one bit width (FP32 may be among them); raises ValueError for more, or when
    there is nothing to compare.
    """
    group, found = only_group(table), list[tuple[str, Gains]]()
    trained, after = names("training")[1:], names("control")
    for heading, reference, members in (
        ("Averages, against LSQ", "lsq", names("average")),
        ("Other training, against LSQ", "lsq", trained),
        ("The same, averaged, against EMA", "ema", tuple(f"{name}+ema" for name in trained)),
        ("After LSQ, against it", "lsq", tuple(f"lsq+{name}" for name in after)),
        ("After EMA, against it", "ema", tuple(f"ema+{name}" for name in after)),
    ):
        gains = [(name, 100 * differences(table, group, name, reference)) for name in members]
        if gains := [(name, values) for name, values in gains if len(values)]:
            found.append((heading, gains))
    if not found:
        raise ValueError("the table has no method beside LSQ or EMA to compare with them")
    counts = [len(gains) for _, gains in found]
    height = 0.9 + 0.27 * sum(counts) + 0.55 * len(found)
    figure, axes = new_figure(8.6, height, rows=len(found), height_ratios=counts, sharex=True)
    for panel, (heading, gains) in zip(axes[:, 0], found, strict=True):
        add_gains(panel, heading, gains, least=LOWEST)
    low = min(values.min() for _, gains in found for _, values in gains)
    axes[-1, 0].set_xlim(left=LOWEST if low < LOWEST else None)
    set_labels(axes[-1, 0], x="difference in mAP (points, 0..100)", y="")
    best, values = max((pair for _, gains in found for pair in gains), key=lambda pair: pair[1].mean())
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}: the largest gain is {method(best).label}'s"
    return set_headline(
        figure, f"{group.network} at {group.width} bit, {group.schedule} rate, {seeds}, {values.mean():+.1f} points"
    )


def add_gains(axes: Axes, heading: str, gains: Gains, *, least: float = -np.inf, most: float = np.inf) -> Axes:
    """Draw a row for each (method, differences (n,)), empty where there are none: seeds, their mean, its standard deviation.

    A mean below `least` or above `most` is written there.
    """
    every = [(row, value) for row, (_, values) in enumerate(gains) for value in values]
    rows = pd.DataFrame(every, columns=["row", "gain"])
    colors = {row: method(name).color for row, (name, _) in enumerate(gains)}
    same = {"data": rows, "x": "gain", "y": "row", "hue": "row", "palette": colors, "orient": "h", "ax": axes}
    same |= {"order": list(colors), "hue_order": list(colors), "legend": False}
    seaborn.barplot(**same, width=0.6, alpha=0.25, errorbar="sd", err_kws={"linewidth": 1.2, "color": QUIET})
    seaborn.stripplot(**same, jitter=False, size=5, linewidth=1)
    for row, (_, values) in enumerate(gains):
        text: dict[str, Any] = {"va": "center", "fontsize": 8.5, "color": INK}
        if len(values) and values.mean() < least:
            axes.text(least, row, f" ‹ {values.mean():.1f} in the mean", ha="left", **text)
        if len(values) and values.mean() > most:
            axes.text(most, row, f"{values.mean():.1f} in the mean › ", ha="right", **text)
    axes.axvline(0.0, color=QUIET, linewidth=0.9)
    name_rows(axes, [method(name).label for name, _ in gains]).grid(axis="y", visible=False)
    axes.set_title(heading, loc="left", fontsize=10, color=INK)
    return set_labels(axes, x="", y="")


def draw_claims(table: pd.DataFrame, *, pairs: Pairs = "all", most: float = np.inf) -> InlineFigure:
    """Draw the paired differences of `pairs` (see `claims`), a panel per network and bit width.

    Dots are seeds, bars their mean, in points of mAP; the p of `paired_p` stands at the right. `most`: points where the
    axis ends on both sides, so that one ruin does not hide the rest; a mean beyond is written at the edge. Raises
    ValueError where the table has none of the pairs.
    """
    pairs, places = pairs_of(pairs), places_of(groups(table))
    gains = {place: {pair: 100 * differences(table, group, *pair) for pair in pairs} for place, group in places.items()}
    known = [pair for pair in pairs if any(len(of[pair]) for of in gains.values())]
    if not known:
        raise ValueError("the table has no two methods of the pairs that were asked for")
    panel = 2.7 if len(places) > 1 else 5.0, 0.6 + 0.21 * len(known)
    figure, found = panel_grid(places, panel=panel, margin=1.9, sharex=True)
    for place, axes in found.items():
        rows = [(pair[0], gains[place][pair]) for pair in known]
        add_gains(axes, places[place].title, rows, least=-most, most=most)
        texts = [f"{method(one).label} − {method(reference).label}" for one, reference in known]
        axes.set_yticks(range(len(known)), texts, fontsize=8.5)
        for row, pair in enumerate(known):
            if not np.isnan(p := paired_p(gains[place][pair])):
                text = "p < 0.001" if p < 0.001 else f"p {p:.3f}"
                at: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
                axes.text(1.01, row, text, **at, fontsize=7, color="#555555")
        set_labels(axes, x="difference in mAP (points)" * outer_sides(axes, found)[1], y="")
    if most < np.inf:
        next(iter(found.values())).set_xlim(-most, most)
    signs = [np.sign(one) for of in gains.values() for one in of.values() if len(one)]
    up, down = (sum((one == sign).all() for one in signs) for sign in (1, -1))
    rest = ", seeds disagree in the rest" * bool(up + down < len(signs))
    return set_headline(figure, f"{len(signs)} differences: every seed gains in {up}, every seed loses in {down}{rest}")


def draw_share_of_fp32(compared: pd.DataFrame) -> InlineFigure:
    """Draw the share of FP32's mAP that each method keeps, ours as a coloured mark, the paper's as a black stroke.

    `compared`: rows of `oscillab.study.table.compare_with_paper`; a panel for each network, metric (boxes or masks) and bit
    width. Raises ValueError where FP32 is known of neither.
    """
    rows = compared.dropna(subset=["our_share", "paper_share"])
    if rows.empty:
        raise ValueError("there is nothing to compare with the paper: no method and FP32 of one network are in both")
    rows = rows.assign(row=list(zip(rows["network"], rows["metric"], strict=True)))
    methods = [name for name in METHODS if name in set(rows["method"])]
    methods += sorted(set(rows["method"]) - set(methods))
    places = dict(list(rows.groupby(["row", "width"], sort=False)))
    figure, found = panel_grid(places, panel=(2.8, 0.7 + 0.22 * len(methods)), margin=1.1, sharex=True)
    for place, axes in found.items():
        for row in places[place].itertuples():
            height, ours, theirs = methods.index(str(row.method)), 100 * row.our_share, 100 * row.paper_share
            axes.plot([ours, theirs], [height] * 2, color="#cccccc", linewidth=2, zorder=1)
            axes.plot([theirs], [height], marker="|", color="black", markersize=12, markeredgewidth=2)
            axes.plot([ours], [height], **method(str(row.method)).points(markersize=6, markerfacecolor="none"))
        name_rows(axes, [method(name).label for name in methods]).set_xlim(0, 100)
        network, metric = place[0]
        title = f"{network}{' masks' if metric == 'mask' else ''}, {place[1]} bit"
        set_labels(axes, x="share of FP32's mAP (%)" * outer_sides(axes, found)[1], y="", title=title)
    gap = 100 * (rows["our_share"] - rows["paper_share"]).abs().median()
    text = f"The middle one of {len(rows)} pairs is {gap:.0f} % of FP32's mAP apart"
    return set_headline(figure, f"Coloured: ours; black stroke: the paper's. {text}")

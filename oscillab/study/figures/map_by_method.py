"""Draw mAP by method: as trained, with what QC adds, over the share of weights that oscillate, and before and after EMA.

Each figure has a row of panels for each network and a column for each bit width, the same axes in all of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn
from matplotlib.axes import Axes

from oscillab.methods import METHODS, method
from oscillab.plot.network import add_flips, flips_sentence
from oscillab.plot.style import INK, QUIET, InlineFigure, new_figure, set_headline, set_labels
from oscillab.recording.recording import Recording
from oscillab.study.table import QUANTIZED, Group, groups

TRAINED = tuple(name for name in QUANTIZED if "+" not in name)  # the rows of `draw_remedies`
WITH_STATES = TRAINED[1:]  # without PTQ; QC leaves integer states alone, and has no share of its own
SCORES = {"map": "mAP (0.50:0.95)", "map50": "AP50", "mask_map": "mask mAP (0.50:0.95)"}
Place = tuple[Any, Any]  # what names a row and a column


def places_of(found: Iterable[Group]) -> dict[Place, Group]:
    """Return (what was trained how, width) -> `Group`, as `panel_grid` takes them, columns from most bits to fewest: 4, 4*, 3."""
    ordered = sorted(found, key=lambda group: (-group.bits, -group.ends_bits))
    return {((group.network, group.task, group.schedule, group.steps), group.width): group for group in ordered}


def panel_grid(
    places: Iterable[Place], *, panel: tuple[float, float], margin: float = 1.0, sharex: bool = False
) -> tuple[InlineFigure, dict[Place, Axes]]:
    """Return a figure with a panel for each of `places`, pairs (row, column) of anything, and the axes by place.

    Rows and columns stand in the order of their first appearance. `panel`: inches of one panel; `margin`: inches left of
    the first column, for names. A corner of the grid that no place asks for stays empty.
    """
    places = list(places)
    rows, columns = (list(dict.fromkeys(place[side] for place in places)) for side in (0, 1))
    size = margin + panel[0] * len(columns), 0.7 + panel[1] * len(rows)
    figure, axes = new_figure(*size, rows=len(rows), columns=len(columns), sharex=sharex, sharey=True)
    panels = {(row, column): axes[i, j] for i, row in enumerate(rows) for j, column in enumerate(columns)}
    for place in set(panels) - set(places):
        panels.pop(place).set_axis_off()
    for one in panels.values():
        one.tick_params(labelbottom=not sharex or outer_sides(one, panels)[1])
    return figure, panels


def outer_sides(axes: Axes, panels: Mapping[Any, Axes]) -> tuple[bool, bool]:
    """Return whether the axes stand in the first column, and whether no other panel stands below them."""
    places: list[Any] = [one.get_subplotspec() for one in (axes, *panels.values())]
    last = max(one.rowspan.start for one in places if one.colspan == places[0].colspan)
    return places[0].is_first_col(), places[0].rowspan.start == last


def only_group(table: pd.DataFrame) -> Group:
    """Return the one group of a table; raises ValueError where it holds more than one network and bit width."""
    if len(found := groups(table)) > 1:
        text = f"the table must hold one network at one bit width, got {len(found)} of them: select the rows first"
        raise ValueError(text)
    return found[0]


def draw_map_by_method(table: pd.DataFrame) -> InlineFigure:
    """Draw mAP by method: a point per seed, a bar for the mean.

    FP32 is a grey line in every panel of its network. Raises ValueError for a table without a study's columns or without a
    quantized row.
    """
    places, known = places_of(groups(table)), set(table["method"])
    figure, found = panel_grid(places, panel=(0.68 * sum(name in known for name in QUANTIZED), 3.1))
    for place, axes in found.items():
        add_map_by_method(axes, table, places[place])
        if not outer_sides(axes, found)[0]:
            axes.set_ylabel("")
    return set_headline(figure, gain_sentence(table, list(places.values())))


def draw_before_after(table: pd.DataFrame, live: Recording, average: Recording) -> InlineFigure:
    """Draw the headline: flips over time before (`live`) and after EMA (`average`), and the mAP of every method of one group."""
    group, recordings = only_group(table), {"lsq": live, "ema": average}
    figure, axes = new_figure(11.0, 4.0, columns=2, width_ratios=(1.1, 1))
    add_flips(axes[0, 0], recordings)
    axes[0, 0].set_title(flips_sentence(recordings), loc="left", fontsize=10)
    add_map_by_method(axes[0, 1], table, group)
    axes[0, 1].set_title(gain_sentence(table, [group]), loc="left", fontsize=10)
    text = "oscillation before and after EMA, and what each remedy is worth"
    return set_headline(figure, f"{group.network} at {group.width} bit, {group.schedule} rate: {text}")


def add_map_by_method(axes: Axes, table: pd.DataFrame, group: Group) -> Axes:
    """Draw one network's mAP by method at one bit width."""
    rows, at_bits = table[(table["network"] == group.network) & (table["task"] == group.task)], group.rows(table)
    shown = [name for name in QUANTIZED if name in set(at_bits["method"])]
    for place, name in enumerate(shown):
        values, style = at_bits.loc[at_bits["method"] == name, "map"], METHODS[name]
        axes.bar(place, values.mean(), width=0.62, color=style.color, alpha=0.25)
        axes.plot([place] * len(values), values, **style.points(markersize=6, markerfacecolor="none", clip_on=False))
        text: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "color": INK}
        axes.annotate(f"{values.mean():.3f}", (place, values.max()), (0, 7), **text)
    floats = rows.loc[rows["method"] == "fp32", "map"].mean()
    if pd.notna(floats):  # a table without FP32 has nan
        axes.axhline(floats, color=QUIET, linewidth=0.9)
        axes.text(-0.4, floats, f"FP32 {floats:.3f}", va="bottom", fontsize=9, color=QUIET)
        axes.set_ylim(top=max(axes.get_ylim()[1], floats * 1.12))
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_xticks(range(len(shown)), [METHODS[name].label for name in shown])
    axes.set_ylim(bottom=0)
    return set_labels(axes, x="", y=SCORES["map"], title=group.title)


def gain_sentence(table: pd.DataFrame, every: list[Group]) -> str:
    """Say what EMA+QC (else the best method) gains on LSQ in each group, and over how many seeds.

    Of more than four groups it says the least and the largest gain.
    """
    parts, gains, several = [], [], len({one.network for one in every}) > 1
    for group in every:
        means = group.rows(table).groupby("method")["map"].mean()
        if "lsq" in means and len(means) > 1:
            best = "ema+qc" if "ema+qc" in means else means[means.index.isin(QUANTIZED)].drop("lsq").idxmax()
            gains.append(means[best] - means["lsq"])
            where = f"{group.network} " * several + f"{group.width} bit, {group.schedule} rate"
            parts.append(f"{method(str(best)).label} {gains[-1]:+.3f} mAP on LSQ at {where}")
    if len(parts) > 4:
        span = f"{min(gains):+.3f} to {max(gains):+.3f} mAP on LSQ in {len(parts)} panels"
        parts = [f"EMA+QC (else the best) gains {span}"]
    seeds = table.loc[table["method"].isin(QUANTIZED), "seed"].nunique()
    return "; ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])


def draw_remedies(table: pd.DataFrame, *, score: str = "map") -> InlineFigure:
    """Draw a score by way of training, with what QC adds as a second mark.

    `score`: "map", "map50" or "mask_map". Small marks are seeds, large ones their mean, open as trained and filled with QC;
    FP32 is a grey line. Raises ValueError where no row has the score.
    """
    table = table[table[score].notna()]
    places = places_of(groups(table))
    figure, found = panel_grid(places, panel=(3.0 if len(places) > 1 else 5.0, 2.1), margin=0.7, sharex=True)
    rows = [name for name in TRAINED if name in set(table["method"])]
    for place, group in places.items():
        axes, at_bits = found[place], group.rows(table)
        for height, name in enumerate(rows):
            _add_pair(axes, at_bits, name, height, score)
        floats = table[(table["network"] == group.network) & (table["method"] == "fp32")][score]
        if len(floats):
            axes.axvline(floats.mean(), color=QUIET, linewidth=0.9)
            axes.text(floats.mean(), -0.55, "FP32 ", ha="right", va="center", fontsize=8, color=QUIET)
        name_rows(axes, [METHODS[name].label for name in rows], top=-0.9)
        axes.set_xlim(left=0)
        x = SCORES[score] * outer_sides(axes, found)[1]
        set_labels(axes, x=x, y="", title=group.title)
    return set_headline(figure, f"Open: as trained; filled: with QC. {_order_sentence(table, places.values(), score)}")


def _add_pair(axes: Axes, rows: pd.DataFrame, name: str, height: int, score: str) -> None:
    """Draw a method's seeds and mean at one height, as trained (open) and with QC (filled)."""
    trained, corrected = (rows.loc[rows["method"] == one, score] for one in (name, f"{name}+qc"))
    if len(trained) and len(corrected):
        axes.plot([trained.mean(), corrected.mean()], [height] * 2, color="#cccccc", linewidth=4, zorder=1)
    for values, one in ((trained, name), (corrected, f"{name}+qc")):
        style = METHODS.get(one, METHODS[name])
        face = {"markerfacecolor": "white"} if one == name and style.marker != "x" else {}
        if len(values):
            axes.plot(values, [height] * len(values), **style.points(markersize=3, alpha=0.6, clip_on=False))
            axes.plot([values.mean()], [height], **style.points(markersize=7, clip_on=False) | face)


def name_rows(axes: Axes, labels: list[str], *, top: float = -0.5) -> Axes:
    """Name the rows of a horizontal figure from the top down."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, top)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.tick_params(axis="y", colors=INK)
    return axes


def _order_sentence(table: pd.DataFrame, every: Iterable[Group], score: str) -> str:
    """Say in how many panels EMA lies above LSQ in the mean, and EMA+QC above EMA; empty where neither can be said."""
    means, parts = [group.rows(table).groupby("method")[score].mean() for group in every], []
    for high, low in (("ema", "lsq"), ("ema+qc", "ema")):
        gains = [one[high] - one[low] for one in means if high in one and low in one]
        if gains:
            count = f"{sum(gain > 0 for gain in gains)} of {len(gains)} panel{'s' if len(gains) > 1 else ''}"
            parts.append(f"{METHODS[high].label} above {METHODS[low].label} in {count}")
    return ", ".join(parts)


def draw_map_vs_oscillation(table: pd.DataFrame) -> InlineFigure:
    """Draw mAP over the share of oscillating weights, a mark per seed.

    Does the network whose weights oscillate least detect best? Raises ValueError where no method has a share.
    """
    rows = table[table["method"].isin(WITH_STATES) & table["oscillating_share"].notna()]
    if rows.empty:
        raise ValueError(f"the table has no oscillating share of {', '.join(WITH_STATES)}")
    rows = rows.assign(percent=100 * rows["oscillating_share"], label=[method(one).label for one in rows["method"]])
    places, best = places_of(groups(rows)), []
    figure, found = panel_grid(places, panel=(2.9 if len(places) > 1 else 5.0, 2.4), margin=0.6, sharex=True)
    for place, axes in found.items():
        of_group = places[place].rows(rows)
        means = of_group.groupby("method")[["oscillating_share", "map"]].mean()
        best.append(means["oscillating_share"].idxmin() == means["map"].idxmax())
        looks = {METHODS[name].label: METHODS[name] for name in WITH_STATES if name in set(of_group["method"])}
        kinds: dict[str, Any] = {"hue": "label", "style": "label", "hue_order": list(looks), "style_order": list(looks)}
        kinds |= {"palette": {name: one.color for name, one in looks.items()}, "s": 45, "linewidth": 0.3}
        kinds |= {"markers": {name: one.marker for name, one in looks.items()}}
        seaborn.scatterplot(
            of_group, x="percent", y="map", **kinds, ax=axes
        ).get_legend().remove()  # one stands below all
        axes.set(xscale="log", xlim=(0.1, 100))
        axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axes.margins(y=0.25)
        first, last = outer_sides(axes, found)
        set_labels(axes, x="oscillating weights (%)" * last, y="mAP" * first, title=places[place].title)
    handles = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in found.values()]
    marks = {text: mark for of_panel in handles for mark, text in of_panel}
    figure.legend(marks.values(), marks, loc="outside lower center", ncols=len(WITH_STATES), frameon=False)
    where = f"{sum(best)} of {len(best)} panel{'s' if len(best) > 1 else ''}"
    return set_headline(figure, f"The calmest weights belong to the best detector in {where}")

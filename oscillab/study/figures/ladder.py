"""Which remedy gives how much mAP?

The table of a study has one row per network, task, bit width (of the inner layers and of the ends), method and
seed, with the columns of `COLUMNS`.
"""

from typing import NamedTuple

from oscillab.plot.multiples import outer_sides, panel_grid, places_of
from oscillab.plot.style import INK, QUIET, method_style, set_headline, set_labels
from oscillab.plot.text import width

COLUMNS = (
    *("network", "task", "bits", "ends_bits", "method", "seed"),
    *("map", "map50", "mask_map", "oscillating_share", "flip_rate", "seconds"),
)
RUNGS = ("ptq", "lsq", "dampening", "freezing", "ema", "lsq+qc", "ema+qc")


def draw_ladder(table):
    """A figure of mAP by method, a row per network, a panel per bit width: a point per seed, a bar for the mean.

    FP32, which has no bit width of its own, is a grey line in every panel of its network. Raises ValueError for a table
    without the columns of `COLUMNS` or without a quantized row.
    """
    places = places_of(panels(table))
    known = set(table["method"])
    figure, found = panel_grid(places, panel=(0.68 * sum(method in known for method in RUNGS), 3.1))
    for place, axes in found.items():
        draw_rungs(axes, table, places[place])
        if not outer_sides(axes, found)[0]:
            axes.set_ylabel("")
    return set_headline(figure, gain_sentence(table, list(places.values())))


def panels(table):
    """The `Group` of every panel, by network and task, most bits first."""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the table lacks the columns {', '.join(missing)}; a study's table.csv has them")
    rows = table[table["method"].isin(RUNGS)]
    if rows.empty:
        raise ValueError(f"the table has no row of a quantized method; allowed are {', '.join(RUNGS)}")
    found = rows[list(Group._fields)].drop_duplicates().itertuples(index=False)
    groups = [Group(g.network, g.task, int(g.bits), int(g.ends_bits)) for g in found]
    return sorted(groups, key=lambda group: (group.network, group.task, -group.bits, -group.ends_bits))


class Group(NamedTuple):
    """One network at one bit width."""

    network: str
    task: str
    bits: int
    ends_bits: int

    @property
    def width(self):
        """Its bits as the paper writes them, such as 4*."""
        return width(self.bits, self.ends_bits)

    def rows(self, table):
        """Its rows of a study's table."""
        keep = (table["network"] == self.network) & (table["task"] == self.task)
        return table[keep & (table["bits"] == self.bits) & (table["ends_bits"] == self.ends_bits)]


def draw_rungs(axes, table, group):
    """The same axes with one network's mAP by method at one bit width."""
    rows = table[(table["network"] == group.network) & (table["task"] == group.task)]
    at_bits = group.rows(table)
    methods = [method for method in RUNGS if method in set(at_bits["method"])]
    for place, method in enumerate(methods):
        values = at_bits.loc[at_bits["method"] == method, "map"]
        style = method_style(method)
        axes.bar(place, values.mean(), width=0.62, color=style.color, alpha=0.25)
        axes.plot([place] * len(values), values, **style.points(markersize=6, markerfacecolor="none", clip_on=False))
        text = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "color": INK}
        axes.annotate(f"{values.mean():.3f}", (place, values.max()), (0, 7), **text)
    draw_float_line(axes, rows.loc[rows["method"] == "fp32", "map"], len(methods))
    axes.set_xticks(range(len(methods)), [method_style(method).label for method in methods])
    axes.set_ylim(bottom=0)
    return set_labels(axes, x="", y="mAP (0.50:0.95)", title=f"{group.network}, {group.width} bit")


def draw_float_line(axes, values, width):
    """The same axes with the mean of the float network's mAP as a thin grey line, labelled on the line."""
    if len(values):
        axes.axhline(values.mean(), color=QUIET, linewidth=0.9)
        axes.text(-0.4, values.mean(), f"FP32 {values.mean():.3f}", va="bottom", fontsize=9, color=QUIET)
        axes.set_ylim(top=max(axes.get_ylim()[1], values.mean() * 1.12))
    axes.set_xlim(-0.5, width - 0.5)
    return axes


def gain_sentence(table, groups):
    """One sentence: what EMA+QC (else the best rung) gains on LSQ in each panel, and over how many seeds.

    Of more than four panels it says the least and the largest gain.
    """
    parts, gains = [], []
    for group in groups:
        means = group.rows(table).groupby("method")["map"].mean()
        if "lsq" in means and len(means) > 1:
            shown = means[[method for method in means.index if method in RUNGS]]
            best = "ema+qc" if "ema+qc" in means else shown.drop("lsq").idxmax()
            name = f"{group.network} " if len({group.network for group in groups}) > 1 else ""
            gains.append(means[best] - means["lsq"])
            parts.append(f"{method_style(best).label} {gains[-1]:+.3f} mAP on LSQ at {name}{group.width} bit")
    if len(parts) > 4:
        parts = [
            f"EMA+QC (else the best) gains {min(gains):+.3f} to {max(gains):+.3f} mAP on LSQ in {len(parts)} panels"
        ]
    seeds = table.loc[table["method"].isin(RUNGS), "seed"].nunique()
    return "; ".join([*parts, f"{seeds} seed{'s' if seeds > 1 else ''}"])

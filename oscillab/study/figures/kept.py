"""How much of the float network's mAP does each method keep, in our study and in the paper?"""

from oscillab.plot.multiples import outer_sides, panel_grid
from oscillab.plot.style import INK, METHODS, label_of, set_headline, set_labels


def draw_kept(compared):
    """A figure of the share of FP32's mAP that each method keeps, ours as a coloured mark, the paper's as a black stroke.

    `compared`: rows of `oscillab.study.beside.beside`; a panel for each network, metric (boxes or masks) and bit width.
    Raises ValueError where FP32 is known of neither.
    """
    rows = compared.dropna(subset=["our_kept", "paper_kept"])
    if rows.empty:
        raise ValueError("there is nothing to lay beside the paper: no method and FP32 of one network are in both")
    rows = rows.assign(row=list(zip(rows["network"], rows["metric"], strict=True)))
    methods = [method for method in METHODS if method in set(rows["method"])]
    methods += sorted(set(rows["method"]) - set(methods))
    places = dict(list(rows.groupby(["row", "width"], sort=False)))
    figure, found = panel_grid(places, panel=(2.8, 0.7 + 0.22 * len(methods)), margin=1.1, sharex=True)
    for place, axes in found.items():
        add_methods(axes, places[place], methods)
        network, metric = place[0]
        title = f"{network}{' masks' if metric == 'mask' else ''}, {place[1]} bit"
        set_labels(axes, x="kept of FP32's mAP (%)" * outer_sides(axes, found)[1], y="", title=title)
    gap = 100 * (rows["our_kept"] - rows["paper_kept"]).abs().median()
    return set_headline(figure, f"Coloured: ours; black stroke: the paper's. The middle one of {len(rows)} pairs is {gap:.0f} % of "
                           "FP32's mAP apart")  # fmt: skip


def add_methods(axes, rows, methods):
    """The same axes with a row for each method, ours and the paper's, joined."""
    for row in rows.itertuples():
        height = methods.index(row.method)
        ours, theirs = 100 * row.our_kept, 100 * row.paper_kept
        look = METHODS.get(row.method)
        dots = {"color": look.color, "marker": look.marker} if look else {"color": INK, "marker": "o"}
        axes.plot([ours, theirs], [height] * 2, color="#cccccc", linewidth=2, zorder=1)
        axes.plot([theirs], [height], marker="|", color="black", markersize=12, markeredgewidth=2)
        axes.plot([ours], [height], linestyle="none", markersize=6, markerfacecolor="none", **dots)
    axes.set_yticks(range(len(methods)), [label_of(method) for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    return axes

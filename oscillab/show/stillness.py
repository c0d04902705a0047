"""Is the network whose weights oscillate least the one that detects best?"""

from .ladder import panels
from .multiples import multiples, outer, places_of
from .style import finding, label, look

SHOWN = {  # where a mark's name stands; QC leaves integer states alone, so it has no share of its own
    "lsq": (8, 0, "left"),
    "dampening": (-8, 0, "right"),
    "freezing": (8, 0, "left"),
    "ema": (3, 7, "right"),
}


def draw_stillness(table):
    """A figure of mAP over the share of oscillating weights, a panel per network and bit width, a mark per seed.

    `table`: a study's rows. Raises ValueError where none of LSQ, dampening, freezing and EMA has a share.
    """
    rows = table[table["method"].isin(SHOWN) & table["oscillating_share"].notna()]
    if rows.empty:
        raise ValueError(f"the table has no oscillating share of {', '.join(SHOWN)}")
    places = places_of(panels(rows))
    figure, found = multiples(places, panel=(2.9 if len(places) > 1 else 5.0, 2.4), margin=0.6, sharex=True)
    best = []
    for place, axes in found.items():
        group = places[place]
        means = group.rows(rows).groupby("method")[["oscillating_share", "map"]].mean()
        best.append(means["oscillating_share"].idxmin() == means["map"].idxmax())
        add_methods(axes, group.rows(rows))
        first, last = outer(axes, found)
        title = f"{group.network}, {group.width} bit"
        label(axes, x="oscillating weights (%)" * last, y="COCO mAP" * first, title=title)
    where = f"{sum(best)} of {len(best)} panel{'s' if len(best) > 1 else ''}"
    return finding(figure, f"The calmest weights belong to the best detector in {where}")


def add_methods(axes, rows):
    """The same axes with a mark for each seed of each method, on a logarithmic scale of shares, the mean named."""
    axes.set_xscale("log")
    for method in SHOWN:
        values = rows[rows["method"] == method]
        if len(values):
            style = look(method)
            axes.plot(100 * values["oscillating_share"], values["map"], **style.points(markerfacecolor="none"))
            *offset, side = SHOWN[method]
            at = 100 * values["oscillating_share"].mean(), values["map"].max()
            text = {"textcoords": "offset points", "ha": side, "fontsize": 8, "color": style.color}
            axes.annotate(style.label, at, offset, **text)
    axes.set_xlim(0.1, 100)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.margins(y=0.25)
    return axes

"""Is the network whose weights oscillate least the one that detects best?"""

from oscillab.plot.multiples import outer_sides, panel_grid, places_of
from oscillab.plot.style import method_style, set_headline, set_labels

from .ladder import panels

SHOWN = ("lsq", "dampening", "freezing", "ema")  # QC leaves integer states alone, so it has no share of its own


def draw_stillness(table):
    """A figure of mAP over the share of oscillating weights, a panel per network and bit width, a mark per seed.

    `table`: a study's rows. Raises ValueError where none of LSQ, dampening, freezing and EMA has a share.
    """
    rows = table[table["method"].isin(SHOWN) & table["oscillating_share"].notna()]
    if rows.empty:
        raise ValueError(f"the table has no oscillating share of {', '.join(SHOWN)}")
    places = places_of(panels(rows))
    figure, found = panel_grid(places, panel=(2.9 if len(places) > 1 else 5.0, 2.4), margin=0.6, sharex=True)
    best = []
    for place, axes in found.items():
        group = places[place]
        means = group.rows(rows).groupby("method")[["oscillating_share", "map"]].mean()
        best.append(means["oscillating_share"].idxmin() == means["map"].idxmax())
        add_methods(axes, group.rows(rows))
        first, last = outer_sides(axes, found)
        title = f"{group.network}, {group.width} bit"
        set_labels(axes, x="oscillating weights (%)" * last, y="mAP" * first, title=title)
    marks = {mark.get_label(): mark for axes in found.values() for mark in axes.lines}
    figure.legend(marks.values(), marks, loc="outside lower center", ncols=len(SHOWN), frameon=False)
    where = f"{sum(best)} of {len(best)} panel{'s' if len(best) > 1 else ''}"
    return set_headline(figure, f"The calmest weights belong to the best detector in {where}")


def add_methods(axes, rows):
    """The same axes with a mark for each seed of each method, on a logarithmic scale of shares."""
    axes.set_xscale("log")
    for method in SHOWN:
        values = rows[rows["method"] == method]
        if len(values):
            drawn = method_style(method).points(markerfacecolor="none", label=method_style(method).label)
            axes.plot(100 * values["oscillating_share"], values["map"], **drawn)
    axes.set_xlim(0.1, 100)
    axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.margins(y=0.25)
    return axes

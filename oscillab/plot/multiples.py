"""How do many networks at many bit widths stand in one figure that can still be read?

A row for each network, a column for each bit width, the same axes in all of them.
"""

from .style import new_figure


def panel_grid(places, *, panel=(3.2, 2.6), margin=1.0, sharex=False, sharey=True):
    """A figure with a panel for each of `places`, pairs (row, column) of anything, and the axes by place.

    Rows and columns stand in the order of their first appearance. `panel`: inches of one panel; `margin`: inches left of
    the first column, for names. A corner of the grid that no place asks for stays empty.
    """
    places = list(places)
    rows = list(dict.fromkeys(row for row, _ in places))
    columns = list(dict.fromkeys(column for _, column in places))
    size = margin + panel[0] * len(columns), 0.7 + panel[1] * len(rows)
    figure, axes = new_figure(*size, rows=len(rows), columns=len(columns), sharex=sharex, sharey=sharey)
    found = {(row, column): axes[i, j] for i, row in enumerate(rows) for j, column in enumerate(columns)}
    for place in set(found) - set(places):
        found.pop(place).set_axis_off()
    for one in found.values():
        one.tick_params(labelbottom=not sharex or outer_sides(one, found)[1])
    return figure, found


def places_of(groups):
    """(network, bit width) -> `Group`, as `multiples` takes them, columns from most bits to fewest: 4, 4*, 3."""
    ordered = sorted(groups, key=lambda group: (-group.bits, -group.ends_bits))
    return {((group.network, group.task), group.width): group for group in ordered}


def outer_sides(axes, found):
    """Whether the axes stand in the first column, and whether nothing of the figure stands below them."""
    place = axes.get_subplotspec()
    below = [one for one in found.values() if one.get_subplotspec().colspan == place.colspan]
    return place.is_first_col(), place.rowspan.start == max(one.get_subplotspec().rowspan.start for one in below)

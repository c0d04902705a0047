"""Lay out a figure with a row for each network and a column for each bit width, the same axes in all of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes

from oscillab.plot.style import InlineFigure, new_figure
from oscillab.study.table import Group


def places_of(found: Iterable[Group]) -> dict[tuple[Any, Any], Group]:
    """Return (network and task, width) -> `Group`, as `panel_grid` takes them, columns from most bits to fewest: 4, 4*, 3."""
    ordered = sorted(found, key=lambda group: (-group.bits, -group.ends_bits))
    return {((group.network, group.task), group.width): group for group in ordered}


def panel_grid(
    places: Iterable[tuple[Any, Any]],
    *,
    panel: tuple[float, float] = (3.2, 2.6),
    margin: float = 1.0,
    sharex: bool = False,
    sharey: bool = True,
) -> tuple[InlineFigure, dict[tuple[Any, Any], Axes]]:
    """Return a figure with a panel for each of `places`, pairs (row, column) of anything, and the axes by place.

    Rows and columns stand in the order of their first appearance. `panel`: inches of one panel; `margin`: inches left of
    the first column, for names. A corner of the grid that no place asks for stays empty.
    """
    places = list(places)
    rows, columns = (list(dict.fromkeys(place[side] for place in places)) for side in (0, 1))
    size = margin + panel[0] * len(columns), 0.7 + panel[1] * len(rows)
    figure, axes = new_figure(*size, rows=len(rows), columns=len(columns), sharex=sharex, sharey=sharey)
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

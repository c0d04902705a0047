"""The grid of panels: who stands where, and what stays empty."""

from oscillab.study.figures.panels import outer_sides, panel_grid, places_of
from oscillab.study.table import Group


def test_rows_and_columns_in_order_and_an_empty_corner():
    """Oracle: three places of a 2 x 2 grid; the fourth is drawn without axes."""
    places = [("n", "4"), ("n", "3"), ("tiny", "4")]
    figure, found = panel_grid(places)
    assert set(found) == set(places) and len(figure.axes) == 4
    assert [one.axison for one in figure.axes] == [True, True, True, False]
    at = {
        place: (one.get_subplotspec().rowspan.start, one.get_subplotspec().colspan.start)
        for place, one in found.items()
    }
    assert at == {("n", "4"): (0, 0), ("n", "3"): (0, 1), ("tiny", "4"): (1, 0)}


def test_outer_panels_carry_the_labels():
    """Oracle: a panel above an empty corner is the last of its column, and keeps its numbers although x is shared."""
    _, found = panel_grid([("n", "4"), ("n", "3"), ("tiny", "4")], sharex=True)
    assert {place: outer_sides(one, found) for place, one in found.items()} == {
        ("n", "4"): (True, False),
        ("n", "3"): (False, True),
        ("tiny", "4"): (True, True),
    }
    shown = {place: one.xaxis.get_tick_params()["labelbottom"] for place, one in found.items()}
    assert shown == {("n", "4"): False, ("n", "3"): True, ("tiny", "4"): True}


def test_widths_stand_from_most_bits_to_fewest():
    """Oracle: 4, 4*, 3, although the first network has no 4*."""
    found = [Group("a", "detect", 4, 8), Group("a", "detect", 3, 8), Group("b", "detect", 4, 4)]
    assert [width for _, width in places_of(found)] == ["4", "4*", "3"]

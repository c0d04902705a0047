"""Is what is clicked what is chosen, and do colours say what they should?"""

import pytest

from oscillab.plot.button_map import SHADES, ButtonMap, shades


@pytest.fixture
def chart():
    """A map of two groups."""
    chart = ButtonMap("of weights flip")
    chart.lay_out({"model.0": {"model.0.conv": "conv"}, "model.2": {"model.2.cv1": "cv1", "model.2.cv2": "cv2"}})
    return chart


def test_a_click_chooses(chart):
    """Oracle: the observed value, and the layout of the clicked button alone."""
    seen = []
    chart.observe(lambda change: seen.append(change["new"]), "value")
    chart.buttons["model.2.cv1"].click()
    assert seen == ["model.2.cv1"]
    assert [key for key, button in chart.buttons.items() if button.layout is chart.chosen] == ["model.2.cv1"]


def test_colours_go_from_nothing_to_the_largest(chart):
    """Oracle: 0, the half and the whole of the largest rate by hand: first, middle and last shade; grey where unknown."""
    chart.paint({"model.0.conv": 0.0, "model.2.cv1": 0.02, "model.2.cv2": 0.01})
    place = {key: chart.styles.index(button.style) for key, button in chart.buttons.items()}
    assert place == {"model.0.conv": 0, "model.2.cv1": SHADES - 1, "model.2.cv2": 4}
    assert chart.buttons["model.2.cv1"].style.button_color == shades()[-1]
    chart.paint({"model.0.conv": 0.5, "model.2.cv1": 0.02, "model.2.cv2": 0.01}, top=0.02)
    assert [chart.styles.index(button.style) for button in chart.buttons.values()] == [SHADES - 1, SHADES - 1, 4]
    chart.paint({"model.0.conv": None, "model.2.cv1": 0.02})
    assert chart.buttons["model.0.conv"].style is chart.unknown
    assert chart.buttons["model.2.cv1"].tooltip == "model.2.cv1: 2 % of weights flip"


def test_another_layout_forgets_what_is_gone(chart):
    """Oracle: the choice stays where its key stays, and is None where it went."""
    chart.choose("model.2.cv1")
    chart.lay_out({"model.2": {"model.2.cv1": "cv1"}})
    assert chart.value == "model.2.cv1"
    chart.lay_out({"model.0": {"model.0.conv": "conv"}})
    assert chart.value is None
    with pytest.raises(ValueError, match="the map has no 'model.2.cv1'; it has model.0.conv"):
        chart.choose("model.2.cv1")

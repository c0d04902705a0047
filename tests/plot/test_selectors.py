"""Maps of buttons: what is clicked is chosen, colours and tooltips say what they should."""

import numpy as np
import pytest

from oscillab.plot.selectors import SHADES, ButtonMap, LayerSelector, WeightSelector


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
    """Oracle: 0, the half and the whole of the largest rate by hand: first, middle and last shade."""
    chart.paint({"model.0.conv": 0.0, "model.2.cv1": 0.02, "model.2.cv2": 0.01})
    place = {key: chart.styles.index(button.style) for key, button in chart.buttons.items()}
    assert place == {"model.0.conv": 0, "model.2.cv1": len(SHADES) - 1, "model.2.cv2": 4}
    assert chart.buttons["model.2.cv1"].style.button_color == SHADES[-1]
    chart.paint({"model.0.conv": 0.5, "model.2.cv1": 0.02, "model.2.cv2": 0.01}, top=0.02)
    assert [chart.styles.index(button.style) for button in chart.buttons.values()] == [
        len(SHADES) - 1,
        len(SHADES) - 1,
        4,
    ]
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


def test_the_low_bit_layer_that_flips_most_is_chosen_first(live):
    """Oracle: the recorded counts of steps 71 to 120; at another step a click's choice stays, the tooltips change."""
    layers = LayerSelector()
    layers.fill(live, 120)
    rates = live["layer_flip_count"][71:121].sum(0) / live.weight_counts
    low = {name: rates[live.index(name)] for name in ("middle", "last")}
    assert set(layers.buttons) == {"first", "middle", "last"} and layers.value == max(low, key=low.get)
    layers.buttons["first"].click()
    before = [button.tooltip for button in layers.buttons.values()]
    layers.fill(live, 10)
    assert layers.value == "first" and [button.tooltip for button in layers.buttons.values()] != before


def test_a_weight_tells_its_flips(live):
    """Oracle: the recording's own counts and sampled places of each layer; the first chosen is the one with most."""
    weights = WeightSelector()
    for layer in ("middle", "last"):
        weights.fill(live, layer)
        where, sampled = live.weights_of(layer), live["sample_index"]
        own = sampled[(sampled >= where.start) & (sampled < where.stop)] - where.start
        np.testing.assert_array_equal(sorted(map(int, weights.buttons)), np.sort(own))
        flips = live["flip_count"][where]
        assert all(b.description.split()[0] == str(flips[int(key)]) for key, b in weights.buttons.items())
        assert weights.value in weights.buttons
    weights.value = None
    weights.fill(live, "last")
    assert flips[int(weights.value)] == max(flips[int(key)] for key in weights.buttons)
    weights.fill(live.thinned(trajectories=False), "middle")
    assert not weights.buttons
    assert weights.legend.value == "No weight of middle can be picked: none has a recorded trajectory."

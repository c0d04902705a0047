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
    """Oracle: 0, the half and the whole of the largest rate by hand: first, middle and last shade; grey where unknown."""
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


@pytest.fixture
def layers(live):
    """The map of the recording's layers at its last step."""
    layers = LayerSelector()
    layers.fill(live, 120)
    return layers


@pytest.fixture
def weights(live):
    """The map of the weights of the layer `middle`."""
    weights = WeightSelector()
    weights.fill(live, "middle")
    return weights


def test_the_low_bit_layer_that_flips_most_is_chosen_first(layers, live):
    """Oracle: the recorded counts of steps 71 to 120 over the weights, of the two 3-bit layers."""
    rates = live["layer_flip_count"][71:121].sum(0) / live.weight_counts
    low = {name: rates[live.index(name)] for name in ("middle", "last")}
    assert set(layers.buttons) == {"first", "middle", "last"} and layers.value == max(low, key=low.get)


def test_another_step_leaves_the_choice(layers, live):
    """Oracle: what was clicked, while the tooltips tell other rates."""
    layers.buttons["first"].click()
    before = [button.tooltip for button in layers.buttons.values()]
    layers.fill(live, 10)
    assert layers.value == "first" and [button.tooltip for button in layers.buttons.values()] != before


def test_a_weight_tells_its_flips(weights, live):
    """Oracle: the recording's own count of the weight that the button's key names; the first is the one with most."""
    flips = live["flip_count"][live.weights_of("middle")]
    assert len(weights.buttons) == 4
    for key, button in weights.buttons.items():
        assert button.description.split()[0] == str(flips[int(key)])
    assert flips[int(weights.value)] == max(flips[int(key)] for key in weights.buttons)


def test_another_layer_has_other_weights(weights, live):
    """Oracle: the sampled places of that layer alone; the choice, which it may lack, is one of them."""
    weights.fill(live, "last")
    where, sampled = live.weights_of("last"), live["sample_index"]
    own = sampled[(sampled >= where.start) & (sampled < where.stop)] - where.start
    np.testing.assert_array_equal(sorted(map(int, weights.buttons)), np.sort(own))
    assert weights.value in weights.buttons


def test_a_layer_without_a_trajectory_has_a_sentence(weights, live):
    """Oracle: the sentence, and no button."""
    weights.fill(live.thinned(trajectories=False), "middle")
    assert not weights.buttons
    assert weights.legend.value == "No weight of middle can be picked: none has a recorded trajectory."

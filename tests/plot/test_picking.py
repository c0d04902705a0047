"""The two maps over a recording: what can be picked, what is chosen at first, and what the buttons tell."""

import numpy as np
import pytest

from oscillab.plot.picking import LayerMap, WeightMap


@pytest.fixture
def layers(live):
    """The map of the recording's layers at its last step."""
    layers = LayerMap()
    layers.fill(live, 120)
    return layers


@pytest.fixture
def weights(live):
    """The map of the weights of the layer `middle`."""
    weights = WeightMap()
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


def test_a_layer_without_a_course_has_a_sentence(weights, live):
    """Oracle: the sentence, and no button."""
    weights.fill(live.thinned(trajectories=False), "middle")
    assert not weights.buttons
    assert weights.legend.value == "No weight of middle can be picked: none has a recorded course."

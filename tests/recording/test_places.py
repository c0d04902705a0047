"""Is a module found where it hung, and only there?"""

import pytest
from torch import nn

from oscillab.recording.places import Places, kind
from oscillab.recording.watched import find_layers


def test_blocks_above_a_layer_are_looked_at(fakes):
    """Oracle: by hand: the block above the second layer is replaced by one that holds the same layer."""
    net = fakes.Net([[0.0]])
    places = Places(net, find_layers(net))
    places.check()
    net.block = nn.Sequential(nn.Identity(), net.block[1])
    with pytest.raises(
        ValueError, match="^layer 'block' was replaced during recording .Sequential became Sequential.$"
    ):
        places.check()


def test_a_layer_that_is_gone(fakes):
    """Oracle: by hand."""
    net = fakes.Net([[0.0]])
    places = Places(net, find_layers(net))
    del net.stem
    with pytest.raises(ValueError, match="^layer 'stem' was replaced during recording .FakeLayer became nothing.$"):
        places.check()


def test_a_model_that_is_itself_a_layer(fakes):
    """Oracle: there is no place above it that could change."""
    layer = fakes.Layer([[0.0]])
    Places(layer, find_layers(layer)).check()
    assert kind(layer) == "FakeLayer" and kind(None) == "nothing"

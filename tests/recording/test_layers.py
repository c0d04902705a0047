"""Is anything that follows the protocol recorded, nothing else, and as long as it stays the same?"""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant import QuantConv2d
from oscillab.recording.layers import WatchedLayers, describe, find_layers
from oscillab.recording.recorder import record


class Foreign(nn.Module):
    """A layer of another library: no parameter `weight`, no bits; its latent weight is a method or not there at all."""

    def __init__(self, shows_latent):
        super().__init__()
        self.hidden = nn.Parameter(torch.tensor([[0.1, -0.6]]))
        if shows_latent:
            self.latent_weight = lambda: self.hidden

    def integer_state(self):
        return (self.hidden / 0.5).round()  # float, with a graph

    def weight_step_size(self):
        return torch.tensor([0.5], requires_grad=True)

    def activation_range(self):
        return None


def test_a_layer_used_twice_is_recorded_once(fakes):
    """Oracle: torch's own named_modules, which names a shared module once."""
    layer = fakes.Layer([[0.0, 0.0]])
    assert [found.name for found in find_layers(nn.Sequential(layer, layer))] == ["0"]


@pytest.mark.parametrize("shows_latent", [True, False])
def test_a_foreign_layer(fakes, shows_latent):
    """Oracle: by hand: 0.1 and -0.6 at step 0.5 are states 0 and -1, then 1 and -1."""
    net = Foreign(shows_latent)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with record(nn.Sequential(net), optimizer, trajectories=2) as recorder:
        fakes.step_to(optimizer, net.hidden, [0.4, -0.6])
    recording = recorder.recording()
    assert recording["sample_state"].tolist() == [[0, -1], [1, -1]]
    assert recording.layers[0]["bits"] is None and recording.layers[0]["low"] == -2
    latent = recording["latent_weight"]
    np.testing.assert_allclose(latent[1], [0.4, -0.6], rtol=1e-6) if shows_latent else np.testing.assert_array_equal(
        np.isnan(latent), True
    )
    assert recording["position_count"].sum() == (2 if shows_latent else 0)


def test_buffers_lie_as_the_weights_do(fakes):
    """Oracle: torch's own channels-last order: the buffer is the weights' memory, in_order their flat index, and back."""
    net = fakes.Net(np.arange(24).reshape(2, 3, 2, 2) - 12, [[5, 6]], bits=8).to(memory_format=torch.channels_last)
    layers = WatchedLayers(net)
    flat = layers.integer_states(torch.zeros(26, dtype=torch.int8))
    states = torch.arange(24).reshape(2, 3, 2, 2) - 12
    assert flat.tolist() == [*states.permute(0, 2, 3, 1).flatten().tolist(), 5, 6]
    assert layers.in_order(flat).tolist() == [*states.flatten().tolist(), 5, 6]
    assert layers.as_in_memory(layers.in_order(flat)).tolist() == flat.tolist()
    assert flat[layers.layers[0].places(np.array([0, 1, 4, 23]))].tolist() == [-12, -11, -8, 11]
    assert layers.layers[1].places(np.array([1])).tolist() == [25]


def test_huge_finite_weights_are_no_error(fakes):
    """Oracle: their float32 sum overflows, yet every one is finite."""
    net = fakes.Net([[0.0, 0.0, 0.0]])
    net.stem.weight.data.fill_(3e38)
    assert WatchedLayers(net).checked_step_sizes().tolist() == [0.5, 0.5]


def test_positions_are_latent_weight_over_step_size(fakes):
    """Oracle: by hand, with one step size per row."""
    net = fakes.Net([[1, 2], [1, 2]], step_size=torch.tensor([0.5, 0.25]))
    net.stem.weight.data = torch.tensor([[0.5, 0.25], [0.5, 0.25]])
    assert find_layers(net)[0].position().tolist() == [1.0, 0.5, 2.0, 1.0]


def test_blocks_above_a_layer_are_looked_at(fakes):
    """Oracle: by hand: the block above the second layer is replaced by one that holds the same layer."""
    net = fakes.Net([[0.0]])
    places = WatchedLayers(net)
    places.check_identity()
    net.block = nn.Sequential(nn.Identity(), net.block[1])
    with pytest.raises(
        ValueError, match="^layer 'block' was replaced during recording .Sequential became Sequential.$"
    ):
        places.check_identity()
    del net.block
    with pytest.raises(ValueError, match="^layer 'block' was replaced during recording .Sequential became nothing.$"):
        places.check_identity()


def test_a_model_that_is_itself_a_layer(fakes):
    """Oracle: there is no place above it that could change."""
    layer = fakes.Layer([[0.0]])
    WatchedLayers(layer).check_identity()


@pytest.mark.parametrize("bits", [4.0, "4", 0, 32, torch.tensor(4)])
def test_bits_that_are_no_number_of_bits_are_refused_at_the_start(fakes, bits):
    """Oracle: one line that names the layer, before the first step and not when the recording is written."""
    net = fakes.Net([[0.0]])
    net.stem.bits = bits
    with pytest.raises(
        ValueError, match="^layer 'stem' says that it has .* bits; the recorder takes whole numbers, 1 to 8"
    ):
        record(net, fakes.Average())


def test_a_subclass_has_states_of_its_own():
    """Oracle: what its `integer_state` says, on the class and on one object; a plain layer is read without a second check."""

    class Ones(QuantConv2d):
        def integer_state(self):
            return torch.ones_like(self.weight, dtype=torch.int8)

    def layer(kind):
        one = kind(1, 2, 1, bits=3)
        one.weight_quantizer.calibrate(one.weight.detach())
        one.input_quantizer.calibrate(torch.rand(4))
        return one

    plain, own, patched = layer(QuantConv2d), layer(Ones), layer(QuantConv2d)
    patched.integer_state = lambda: torch.full_like(patched.weight, -1, dtype=torch.int8)
    for one, expected in (
        (plain, plain.integer_state()),
        (own, own.integer_state()),
        (patched, patched.integer_state()),
    ):
        found = WatchedLayers(one)
        assert found.integer_states(torch.empty(2, dtype=torch.int8)).tolist() == expected.flatten().tolist()
    assert describe("", plain, 0).state_method == plain.unchecked_integer_state

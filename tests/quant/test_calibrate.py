"""Do the ranges come from the float network, and does calibrating leave everything else as it was?"""

import copy
import logging

import pytest
import torch
from torch import nn

from oscillab.quant import QuantSpec, calibrate, quant_layers, quantize, quantizers, quantizers_off
from oscillab.quant.step_size_init import mse_step_size, squared_error


def inputs_of(model, name, batches):
    """Every value that the named layer of the float network reads from the batches, in eval mode."""
    seen, model = [], copy.deepcopy(model).eval()
    model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten()))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return torch.cat(seen)


def test_every_range_comes_from_the_float_network(network, batches):
    """Oracle: the inputs of each layer in the float network, searched directly (all values: they fit the sample)."""
    expected = {
        name: inputs_of(network, name, batches) for name in dict(network.named_modules()) if name in ("3", "6.one", "8")
    }
    model = quantize(network, QuantSpec(), batches)
    for name, values in expected.items():
        grid = quant_layers(model)[name].input_quantizer
        assert values.numel() < 2**14 and values.min() < 0 and grid.low < 0
        assert torch.equal(grid.step_size, mse_step_size(values, grid.low, grid.high))
    same = model[6].one.input_quantizer, model[6].two.input_quantizer  # they read one tensor
    assert torch.equal(same[0].step_size, same[1].step_size)


def test_a_sample_of_a_large_input_finds_nearly_the_best_step_size(network):
    """Oracle: the search on all 131,072 values of each layer's input; a sample of 32,768 costs less than 1 % of error."""
    batches = list(torch.rand(2, 4, 3, 128, 128, generator=torch.Generator().manual_seed(2)))
    values = inputs_of(network, "3", batches)
    grid = quant_layers(quantize(network, QuantSpec(), batches))["3"].input_quantizer
    best = squared_error(values, mse_step_size(values, grid.low, grid.high), grid.low, grid.high)
    assert values.numel() == 2 * 4 * 8 * 64 * 64
    assert squared_error(values, grid.step_size.detach(), grid.low, grid.high) < 1.01 * best


def test_statistics_modes_gradients_hooks_and_random_state_stay(network, batches):
    """Oracle: everything before against everything after."""
    network[1].eval()  # a frozen batch norm in a network that trains
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    quantize(network, QuantSpec(), batches)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    kept = [module for name, module in network.named_modules() if "quantizer" not in name]
    assert [module.training for module in kept] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_the_structure_can_be_calibrated_later(network, fresh, batches):
    """Oracle: quantize with batches in one go; then again with other images, on the same Parameters."""
    with pytest.raises(ValueError, match="no quantized layer to calibrate: call quantize"):
        calibrate(network, batches)
    at_once = quantize(copy.deepcopy(network), QuantSpec(), batches)
    later = quantize(network, QuantSpec(), None)
    assert not any(grid.calibrated for grid in quantizers(later).values())
    with pytest.raises(ValueError, match="not calibrated"):
        later(batches[0])
    parameters = list(later.parameters())
    calibrate(later, batches)
    for name, value in at_once.state_dict().items():
        assert torch.equal(value, later.state_dict()[name])
    calibrate(later, [3 * batches[0]])
    assert all(a is b for a, b in zip(parameters, later.parameters(), strict=True))
    assert later[0].input_quantizer.step_size > 2 * at_once[0].input_quantizer.step_size


def test_quantizers_off_is_the_float_network(network, batches):
    """Oracle: the float network's own output, to the bit; the quantized one differs and comes back."""
    expected = copy.deepcopy(network).eval()(batches[0])
    model = quantize(network, QuantSpec(), batches).eval()
    quantized = model(batches[0])
    with quantizers_off(model):
        assert torch.equal(model(batches[0]), expected)
    assert not torch.equal(quantized, expected) and torch.equal(model(batches[0]), quantized)


def test_a_layer_that_is_not_reached_is_named(batches, caplog):
    """Oracle: the warning, and the error on its use."""

    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.used(x)

    with caplog.at_level(logging.WARNING):
        model = quantize(Spare(), QuantSpec(), batches)
    assert "'spare' was not reached" in caplog.text
    assert torch.isfinite(model(batches[0])).all()
    with pytest.raises(ValueError, match="not calibrated"):
        model.spare(batches[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "batches is empty"),
        (torch.rand(2, 3, 8, 8), r"got torch.float32 \(3, 8, 8\)"),
        ([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], r"float tensors .* got torch.uint8 \(2, 3, 8, 8\)"),
        ([(torch.rand(2, 3, 8, 8), None)], "got tuple"),
        ([torch.rand(0, 3, 8, 8)], r"got torch.float32 \(0, 3, 8, 8\)"),
        ([torch.full((2, 3, 8, 8), float("nan"))], "layer '0': its input holds nan or inf"),
    ],
)
def test_bad_batches_leave_the_float_network(network, given, message):
    """Oracle: the message; the module tree and the state are those of before."""
    before, tree = copy.deepcopy(network.state_dict()), repr(network)
    with pytest.raises(ValueError, match=message):
        quantize(network, QuantSpec(), given)
    assert repr(network) == tree and network.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in network.modules())
    quantize(network, QuantSpec(), [torch.rand(2, 3, 8, 8)])  # and it can still be quantized


def test_values_that_are_not_finite_are_named_where_they_arise(network, batches):
    """Oracle: the message names the layer whose weight is bad, or the first one that reads a bad value."""
    with torch.no_grad():
        network[4].bias[0] = float("inf")
    with pytest.raises(ValueError, match="layer '6.one': its input holds nan or inf"):
        quantize(network, QuantSpec(), batches)
    with torch.no_grad():
        network[3].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer '3': weight: calibration needs finite values, got nan or inf"):
        quantize(network, QuantSpec(), batches)


def test_an_interruption_leaves_the_float_network(network, batches):
    """Oracle: the module tree of before, after Ctrl-C in the second batch."""

    def interrupted():
        yield batches[0]
        raise KeyboardInterrupt

    tree = repr(network)
    with pytest.raises(KeyboardInterrupt):
        quantize(network, QuantSpec(), interrupted())
    assert repr(network) == tree


@pytest.mark.parametrize(("factor", "said"), [(255, True), (1, False)])
def test_images_in_0_to_255_are_warned_of(network, batches, caplog, factor, said):
    """Oracle: the documented range 0..1."""
    quantize(network, QuantSpec(), [batch * factor for batch in batches])
    assert ("images in 0..1 are expected" in caplog.text) == said

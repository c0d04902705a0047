"""Dampening: its gradient worked out by hand, its schedule, and a weight that stops where the closed form says."""

import pytest
import torch

from oscillab.quant import QuantConv2d
from oscillab.train.remedies.dampening import Dampening


def layer_of(weights, *, step_size=0.2, bits=2):
    """A quantized 1x1 convolution of these weights, on the grid step_size * (-2..1) for 2 bits."""
    layer = QuantConv2d(len(weights), 1, 1, bits=bits, bias=False)
    layer.weight_quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).view(1, -1, 1, 1))
        layer.weight_quantizer.step_size.fill_(step_size)
    return layer


def test_four_weights_by_hand():
    """Oracle: by hand; states 0, -1, 1, -2 of 0.05, -0.25, 0.3, -0.9 at step 0.2 on -2..1; the last two lie beyond the
    grid (0.2 and -0.4 are its ends), so that they cost nothing. Gradient 2 (w - w^): 0.1, -0.1, 0, 0."""
    layer = layer_of([0.05, -0.25, 0.3, -0.9])
    total = Dampening(layer, torch.optim.SGD([layer.weight], lr=0.1), 4).penalty()
    torch.testing.assert_close(total, torch.tensor(0.005))
    total.backward()
    torch.testing.assert_close(layer.weight.grad.flatten(), torch.tensor([0.1, -0.1, 0.0, 0.0]))
    assert layer.weight_quantizer.step_size.grad is None


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_summed_over_all_layers(tiny, granularity):
    """Oracle: the squares of grid(w) - clip(w) themselves, summed; no gradient at bin centres, where w = w^, and none to
    step sizes, which are constants of the penalty."""
    model = tiny(weight_granularity=granularity)
    dampening, total = Dampening(model, torch.optim.SGD(model.parameters(), lr=0.1), 4), 0.0
    for layer in dampening.layers:
        weight, grid = layer.weight.detach(), layer.weight_quantizer
        low, high = (torch.as_tensor(limit).view(-1, 1, 1, 1) for limit in grid.clipping_range())
        total = total + (grid(weight) - weight.clamp(low, high)).square().sum()
    torch.testing.assert_close(dampening.penalty(), total)
    for layer in dampening.layers:
        with torch.no_grad():
            layer.weight.copy_(layer.weight_quantizer(layer.weight))
    dampening.penalty().backward()
    for layer in dampening.layers:
        assert layer.weight.grad.abs().max() == 0
        assert layer.weight_quantizer.step_size.grad is None and layer.input_quantizer.step_size.grad is None


def test_added_to_the_loss_after_the_first_quarter(tiny, train_tiny):
    """Oracle: total - task = weight x penalty; nothing in the first quarter, the whole weight at the end."""
    model, seen = tiny(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    dampening, task = Dampening(model, optimizer, 8, weight=5.0).attach(), torch.tensor(2.0)
    wrapped = dampening.loss(lambda outputs: (task, {"error": task}))
    for _ in range(9):
        total, items = wrapped(None)
        torch.testing.assert_close(items["dampening"], total - task, rtol=1e-4, atol=1e-6)
        seen.append((items["dampening"] / dampening.penalty().detach()).item())
        train_tiny(model, optimizer, 1)
    assert seen[:3] == [0.0, 0.0, 0.0] and seen[8] == pytest.approx(5.0)
    assert seen[3:] == sorted(seen[3:]) and seen[3] > 0


@pytest.mark.parametrize("weight, flips_at_the_end", [(0.5, False), (0.01, True)])
def test_a_weight_comes_to_rest_where_the_closed_form_says(weight, flips_at_the_end):
    """Oracle: the toy of 2203.11086, one weight, target 0.2, step 1: the task pulls by 0.2 towards the edge
    at 0.5, the penalty back by 2 * weight * w. With 2 * weight * 0.5 > 0.2 it rests at w = 0.2 / (2 * weight)."""
    layer, states = layer_of([0.4], step_size=1.0, bits=3), []
    layer.input_quantizer.calibrate(torch.tensor([0.0, 1.0]))
    optimizer = torch.optim.SGD([layer.weight], lr=0.05)
    dampening = Dampening(layer, optimizer, 400, weight=weight, begin=0.0).attach()
    for _ in range(500):  # the weight of the penalty is whole after 400
        optimizer.zero_grad()
        task = 0.5 * (layer.weight_quantizer(layer.weight) - 0.2).square().sum()
        (task + dampening.weight() * dampening.penalty()).backward()
        optimizer.step()
        states.append(int(layer.integer_state()))
    assert (len(set(states[-50:])) > 1) == flips_at_the_end
    assert flips_at_the_end or layer.weight.item() == pytest.approx(0.2 / (2 * weight), abs=1e-3)

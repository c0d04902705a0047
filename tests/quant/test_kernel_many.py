"""Do the calls over many layers give what each layer's own call gives?"""

import numpy as np
import pytest
import torch

from oscillab.quant.kernel import kernel_off, loaded
from oscillab.quant.kernel.many import Stack, gathered
from oscillab.quant.weights import place_frozen, release_frozen

pytestmark = pytest.mark.skipif(loaded() is None, reason="no kernel: there is no C compiler, or OSCILLAB_KERNEL is 0")

SHAPES = [(3, 4, 1, 1), (5, 2, 3, 3), (2, 8, 5, 5)]


@pytest.fixture
def layers():
    """Weights, masks, states and step sizes of three layers: per tensor, per channel, channels-last."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    weights[2] = weights[2].contiguous(memory_format=torch.channels_last)
    frozen = [weight > 0.5 for weight in weights]
    states = [(3 * weight).to(torch.int8) * mask for weight, mask in zip(weights, frozen, strict=True)]
    return weights, frozen, states, [torch.tensor(0.2), torch.rand(5, generator=generator) + 0.1, torch.tensor(0.3)]


def test_frozen_weights_of_many_layers(layers):
    """Oracle: `place_frozen` and `release_frozen` in torch's operations, layer by layer; sums to float32's rounding."""
    weights, frozen, states, steps = layers
    stack, used = Stack([weight.stride() for weight in weights]), torch.cat([step.reshape(-1) for step in steps])
    placed, gradients = [weight.clone() for weight in weights], [weight.cos() for weight in weights]
    expected, others = [weight.clone() for weight in weights], [gradient.clone() for gradient in gradients]
    assert stack.place(placed, frozen, states, steps, used)
    to_steps = [torch.ones_like(step) for step in steps]
    assert stack.release(gradients, frozen, states, to_steps, [0.5, 2.0, 1.0])
    with kernel_off():
        for each in zip(expected, frozen, states, steps, strict=True):
            place_frozen(*each)
        sums = [release_frozen(*each) for each in zip(others, frozen, states, steps, strict=True)]
    assert all(map(torch.equal, placed, expected)) and all(map(torch.equal, gradients, others))
    torch.testing.assert_close(to_steps, [1 + 0.5 * sums[0], 1 + 2 * sums[1], 1 + sums[2]])


def test_weights_that_came_to_lie_otherwise_are_left_to_torch(layers):
    """Oracle: False, and nothing changed, for another memory format, another type, or the kernel off."""
    weights, frozen, states, steps = layers
    stack, before = Stack([weight.stride() for weight in weights]), [weight.clone() for weight in weights]
    moved = [*weights[:2], weights[2].contiguous()]
    assert not stack.place(moved, frozen, states, steps, torch.ones(7))
    assert not stack.release([weight.double() for weight in weights], frozen, states, steps, [1.0] * 3)
    with kernel_off():
        assert not stack.release(weights, frozen, states, steps, [1.0] * 3)
    assert all(map(torch.equal, weights, before))


def test_gathered_values():
    """Oracle: torch's indexing; None for a tensor that the kernel does not read."""
    tensors = [torch.arange(5.0), torch.tensor(-3.0), torch.randn(4, 6)]
    index, place = np.array([2, 0, 1, 2]), np.array([23, 4, 0, 7])
    expected = torch.stack([tensors[2].view(-1)[23], tensors[0][4], tensors[1], tensors[2].view(-1)[7]])
    assert torch.equal(gathered(tensors, index, place), expected)
    assert gathered([tensors[0].double(), *tensors[1:]], index, place) is None

"""Are the turns of a step size's gradient those that the gradients themselves make?"""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant import QuantSpec, quantize
from oscillab.recording.gradients import GradientSigns
from oscillab.recording.recorder import record
from oscillab.recording.tables import layers
from oscillab.recording.watched import WatchedLayers


def small_net(**spec):
    """A real quantized network of two convolutions."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    return quantize(net, QuantSpec(bits=3, **spec), [torch.rand(2, 3, 12, 12)]).train()


def signs_of(net):
    """The signs of the gradients of all step sizes, weights' first."""
    sizes = [getattr(net[i], side).step_size for side in ("weight_quantizer", "input_quantizer") for i in (0, 2)]
    return torch.cat([size.grad.reshape(-1).sign() for size in sizes]).numpy()


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_equal_to_the_gradients_of_a_real_training(granularity):
    """Oracle: numpy on the gradients that the test reads before each step; they are cleared right after it."""
    net = small_net(weight_granularity=granularity)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    generator, signs = torch.Generator().manual_seed(1), []
    with record(net, optimizer) as recorder:
        for _ in range(40):
            images, target = torch.rand(2, 3, 12, 12, generator=generator), torch.rand(1, generator=generator)
            (net(images) - target).square().mean().backward()
            signs.append(signs_of(net))
            optimizer.step()
            optimizer.zero_grad()
    turned = np.array(signs)[1:] * np.array(signs)[:-1] == -1
    weights, inputs = turned[:, :-2], turned[:, -2:]
    recording, per_layer = recorder.recording(), [1, 1] if granularity == "per_tensor" else [4, 2]
    counts = np.stack([part.sum(1) for part in np.split(weights, np.cumsum(per_layer)[:-1], axis=1)], axis=1)
    assert turned.sum() > 20
    np.testing.assert_array_equal(recording["gradient_turn_count"][2:], counts)
    np.testing.assert_array_equal(recording["input_gradient_turn_count"][2:], inputs)
    assert not recording["gradient_turn_count"][:2].any()  # nothing to compare the first gradient with
    table = layers(recording)
    np.testing.assert_allclose(table["gradient_turn_rate"], counts.sum(0) / np.array(per_layer) / 40)
    np.testing.assert_allclose(table["input_gradient_turn_rate"], inputs.sum(0) / 40)


def test_no_sign_changes_nothing():
    """Oracle: by hand: zero, NaN and a missing gradient lie between two of one sign, then between two of different signs."""
    net = small_net()
    watched = GradientSigns(WatchedLayers(net))
    size, turns = net[0].weight_quantizer.step_size, []
    for gradient in (1.0, 0.0, 2.0, float("nan"), 1.0, None, -1.0, 0.0, 3.0):
        size.grad = None if gradient is None else torch.tensor(gradient)
        turns.append(watched.turns()[0, 0].item())
    assert turns == [0, 0, 0, 0, 0, 0, 1, 0, 1]


def test_what_is_not_trained_has_no_column(fakes):
    """Oracle: an average and a layer without step size parameters; the tables say NaN."""
    _, recording = fakes.run([[0], [1]])
    assert "gradient_turn_count" not in recording and layers(recording)["gradient_turn_rate"].isna().all()
    average = small_net().requires_grad_(False)
    with record(average, fakes.Average()) as recorder:
        pass
    assert "input_gradient_turn_count" not in recorder.recording()


def test_one_of_two_layers_is_trained():
    """Oracle: the layer whose step size is fixed has NaN and not 0."""
    net = small_net()
    net[2].weight_quantizer.step_size.requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with record(net, optimizer) as recorder:
        net(torch.rand(2, 3, 12, 12)).sum().backward()
        optimizer.step()
    assert layers(recorder.recording())["gradient_turn_rate"].isna().tolist() == [False, True]

"""Do the curves of a run that goes on hold what its recorder saw?"""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.plot.curves import Curves, thinned
from oscillab.quant import QuantSpec, quantize
from oscillab.recording.recorder import record


@pytest.fixture
def run():
    """A 3-bit network of three convolutions, its optimizer, and a function that makes a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3))
    model = quantize(model, QuantSpec(bits=3, first_last_bits=3), [torch.rand(2, 3, 12, 12)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def step():
        optimizer.zero_grad()
        model(torch.rand(2, 3, 12, 12)).square().mean().backward()
        optimizer.step()

    return model, optimizer, step


def test_reading_twice_takes_each_row_once(run):
    """Oracle: the recording itself, whose flips over all weights and step sizes over their first are the curves."""
    model, optimizer, step = run
    with record(model, optimizer) as recorder:
        curves = Curves({"lsq": recorder})
        for number in range(1, 8):
            step()
            curves.add_loss(number, float(number))
            if number % 3 == 0:
                curves.read()
        curves.read()
    recording = recorder.recording()
    steps, shares = curves.flips["lsq"]
    assert steps == recording.steps.tolist() == list(range(8))
    np.testing.assert_allclose(shares, recording["layer_flip_count"].sum(1) / recording.weight_count)
    ratio = recording["step_size"] / recording["step_size"][0]
    np.testing.assert_allclose(np.array(curves.step_sizes["lsq"][1])[:, 1], np.median(ratio, 1), rtol=1e-6)
    assert curves.loss == ([1, 2, 3, 4, 5, 6, 7], [1.0, 2, 3, 4, 5, 6, 7])


def test_a_recorder_that_was_not_entered_is_refused(run):
    """Oracle: the documented error, before anything is shown."""
    model, optimizer, _ = run
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        Curves({"lsq": record(model, optimizer)})
    with pytest.raises(ValueError, match="method must be one of"):
        Curves({"adam": record(model, optimizer)})


def test_thinning_keeps_the_mean():
    """Oracle: the mean of a line is the mean of its blocks' means; few points stay as they are."""
    steps, values = thinned(range(1000), np.arange(1000.0), most=100)
    assert len(steps) == 100 and values.mean() == pytest.approx(499.5)
    assert thinned([1, 2], [3.0, 4.0])[1].tolist() == [3, 4]

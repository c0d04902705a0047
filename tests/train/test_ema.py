"""The average against its own equations, and against what peers got wrong: scales left out, buffers left live."""

import copy
import math

import pytest
import torch

from oscillab.quant import step_sizes
from oscillab.train.ema import Ema, decay_for, ramp_for


def nudge(model, generator):
    """Move every floating tensor of the model, as a training step would."""
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator))


def test_equations_6_to_8_by_hand():
    """Oracle: Eq. 6 worked out for one weight: 1 -> 2 -> 4 under decay 0.5 without ramp gives 1.5 and 2.75."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = Ema(model, decay=0.5, ramp=0)
    for value, expected in ((2.0, 1.5), (4.0, 2.75)):
        model.weight.data.fill_(value)
        ema.update()
        assert ema.model.weight.item() == expected


def test_the_ramp_is_yolov5s():
    """Oracle: d(n) = decay * (1 - exp(-n / 2000)), 0 at the start (section 2 of the paper's facts)."""
    ema = Ema(torch.nn.Linear(2, 2), decay=0.9999, ramp=2000)
    assert ema.current_decay() == 0
    for _ in range(3):
        ema.update()
    assert ema.current_decay() == pytest.approx(0.9999 * (1 - math.exp(-3 / 2000)))


def test_decay_zero_is_no_average(quantized):
    """Oracle: an invariant; with decay 0 the average is the live model, bit for bit."""
    ema = Ema(quantized, decay=0.0, ramp=0)
    nudge(quantized, torch.Generator().manual_seed(1))
    ema.update()
    average = ema.model.state_dict()
    assert all(torch.equal(average[name], tensor) for name, tensor in quantized.state_dict().items())


def test_covers_every_step_size_and_bn_statistic(quantized):
    """Oracle: set equality of names; peers' averages, built before quantization, hold no step size at all."""
    names = Ema(quantized).names()
    assert len(step_sizes(quantized)) == 2 * 60
    assert set(step_sizes(quantized)) <= names
    assert {n for n in quantized.state_dict() if n.endswith(("running_mean", "running_var", ".bias"))} <= names
    assert not any(name.endswith("num_batches_tracked") for name in names)


def test_follows_a_model_that_was_moved(quantized):
    """Oracle: an invariant; converting the live model in place must not leave the average at stale tensors."""
    ema = Ema(quantized, decay=0.5, ramp=0)
    quantized.to(memory_format=torch.channels_last)
    quantized._apply(lambda t: t.clone())
    before = {name: tensor.clone() for name, tensor in ema.model.state_dict().items()}
    nudge(quantized, torch.Generator().manual_seed(2))
    ema.update()
    average, live = ema.model.state_dict(), quantized.state_dict()
    for name in ema.names():
        torch.testing.assert_close(average[name], (before[name] + live[name]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["weights", "step_sizes", "buffers"])
def test_parts_not_averaged_are_copied(quantized, part):
    """Oracle: an invariant; outside the chosen part the average is the live model, inside it is half-way."""
    ema = Ema(quantized, decay=0.5, ramp=0, parts=(part,))
    nudge(quantized, torch.Generator().manual_seed(3))
    ema.update()
    average, live = ema.model.state_dict(), quantized.state_dict()
    same = {name for name in live if torch.equal(average[name], live[name])}
    moved = set(live) - same
    assert moved and moved <= ema.names()
    assert all(("quantizer." in name) == (part == "step_sizes") for name in moved)


def test_resumes_to_the_same_average(quantized):
    """Oracle: save then load is the same; two updates equal one update, a round trip, and another."""
    straight = Ema(quantized, decay=0.9, ramp=5)
    other = copy.deepcopy(quantized)
    generator = torch.Generator().manual_seed(4)
    nudge(quantized, generator)
    straight.update()
    resumed = Ema(other, decay=0.9, ramp=5)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    other.load_state_dict(quantized.state_dict())
    state = generator.get_state()
    nudge(quantized, generator)
    nudge(other, generator.set_state(state))
    straight.update(), resumed.update()
    again = resumed.model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in straight.model.state_dict().items())


def test_horizon_is_a_quarter_of_a_short_run_and_the_papers_of_a_long_one():
    """Oracle: arithmetic; 1 / (1 - decay) = steps / 4, never beyond 0.9999, whose ramp is YOLOv5's 2,000 updates."""
    assert 1 / (1 - decay_for(400)) == pytest.approx(100)
    assert decay_for(184_900) == decay_for(10**7) == 0.9999
    assert ramp_for(184_900) == pytest.approx(2000) and ramp_for(400) == pytest.approx(20)
    assert decay_for(1) == 0


def test_quantizing_after_building_is_noticed(detector, batches):
    """Oracle: the trap peers fell into, an average that lacks the step sizes, is an error here."""
    from oscillab.quant import QuantSpec, quantize

    ema = Ema(detector)
    quantize(detector, QuantSpec(), [torch.rand(1, 3, 64, 64)])
    with pytest.raises(ValueError, match="build Ema after quantize"):
        ema.update()

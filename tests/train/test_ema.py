"""The average against its own equations, and against what peers got wrong: scales left out, buffers left live."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oscillab.quant import QuantSpec, quantize, step_sizes
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


def test_decay_and_ramp():
    """Oracle: YOLOv5's d(n) = decay * (1 - exp(-n / 2000)), 0 at the start; arithmetic: 1 / (1 - decay) = steps / 4, never
    beyond 0.9999, whose ramp is YOLOv5's 2,000 updates; `for_steps` takes them unless another value is given."""
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, decay=0.9999, ramp=2000)
    assert ema.current_decay() == 0
    for _ in range(3):
        ema.update()
    assert ema.current_decay() == pytest.approx(0.9999 * (1 - math.exp(-3 / 2000)))
    assert 1 / (1 - decay_for(400)) == pytest.approx(100) and decay_for(500) == 0.992 and decay_for(1) == 0
    assert decay_for(184_900) == decay_for(10**7) == 0.9999
    assert decay_for(184_900, 1 / 18.49) == 0.9999 and 1 / (1 - decay_for(500, 0.05)) == pytest.approx(25)
    with pytest.raises(ValueError, match="horizon must be in 0 < horizon <= 1"):
        decay_for(500, 1.5)
    assert ramp_for(184_900) == pytest.approx(2000) and ramp_for(400) == pytest.approx(20)
    ema, own = Ema.for_steps(model, 400), Ema.for_steps(model, 400, decay=0.5, ramp=0, parts=("weights",))
    assert (ema.decay, ema.ramp) == (decay_for(400), ramp_for(400)) and (own.decay, own.ramp) == (0.5, 0)


def test_covers_every_step_size_and_bn_statistic(quantized):
    """Oracle: set equality of names; peers' averages, built before quantization, hold no step size at all."""
    names = Ema(quantized).names()
    assert len(step_sizes(quantized)) == 2 * 60
    assert set(step_sizes(quantized)) <= names
    assert {n for n in quantized.state_dict() if n.endswith(("running_mean", "running_var", ".bias"))} <= names
    assert not any(name.endswith("num_batches_tracked") for name in names)


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


def test_resumes_to_the_same_average(quantized, same):
    """Oracle: save then load is the same; two updates equal one update, a round trip, and another."""
    straight, other = Ema(quantized, decay=0.9, ramp=5), copy.deepcopy(quantized)
    nudge(quantized, torch.Generator().manual_seed(4))
    straight.update()
    resumed = Ema(other, decay=0.9, ramp=5)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    other.load_state_dict(quantized.state_dict())
    for model, ema in ((quantized, straight), (other, resumed)):
        nudge(model, torch.Generator().manual_seed(5))
        ema.update()
    assert same(straight.model, resumed.model)


def test_quantizing_after_building_is_noticed(detector):
    """Oracle: the trap peers fell into, an average that lacks the step sizes, is an error here."""
    ema = Ema(detector)
    quantize(detector, QuantSpec(), [torch.rand(1, 3, 64, 64)])
    with pytest.raises(ValueError, match="build Ema after quantize"):
        ema.update()


class Sharing(torch.nn.Module):
    """Names for a few tensors: `parameters[i]` and `buffers[i]` say which of three each name stands for."""

    def __init__(self, parameters, buffers):
        super().__init__()
        weights = [torch.nn.Parameter(torch.full((2, 3), float(k))) for k in range(3)]
        statistics = [torch.full((2,), float(k)) for k in range(3)]
        for i, k in enumerate(parameters):
            self.add_module(f"layer{i}", torch.nn.Linear(3, 2, bias=False))
            getattr(self, f"layer{i}").weight = weights[k]
        for i, k in enumerate(buffers):
            self.register_buffer(f"statistic{i}", statistics[k])


NAMES = st.lists(st.integers(0, 2), min_size=1, max_size=5)


@given(NAMES, NAMES, st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_sharing_of_tensors_is_averaged_once(parameters, buffers, decay, moves, moved):
    """Oracle: d * average + (1 - d) * tensor by hand, a name at a time, whatever the number of names of a tensor."""
    model = Sharing(parameters, buffers)
    ema = Ema(model, decay=decay, ramp=0)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if moved:
        model._apply(lambda tensor: tensor.clone())  # new buffers, as `model.to` makes them
    for _ in range(moves):
        with torch.no_grad():
            for tensor in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values():
                tensor += 1.0
        ema.update()
        expected = {name: decay * expected[name] + (1 - decay) * t for name, t in model.state_dict().items()}
    torch.testing.assert_close(dict(ema.model.state_dict()), expected)


def linear():
    return torch.nn.Linear(2, 2)


@pytest.mark.parametrize("change, name", [
    (lambda model: setattr(model[0], "weight", torch.nn.Parameter(model[0].weight.detach().clone())), "0.weight"),
    (lambda model: setattr(model[0], "bias", torch.nn.Parameter(torch.zeros(2))), "0.bias"),
    (lambda model: setattr(model, "1", linear()), "1"),
    (lambda model: model[1].register_buffer("seen", torch.zeros(1)), "1.seen"),
])  # fmt: skip
def test_what_was_replaced_is_named(change, name):
    """Oracle: the sentence; an average that went on would follow tensors that nobody trains."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), linear())
    ema = Ema(model)
    ema.update()
    change(model)
    words = f"^{name} was added, removed or replaced since the average was built: build Ema"
    with pytest.raises(ValueError, match=words):
        ema.update()
    assert ema.update_count == 1

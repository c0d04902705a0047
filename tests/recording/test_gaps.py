"""What the recorder cannot see is said: skipped and half steps, other optimizers, wrappers, weights made anew."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from oscillab.quant import QuantSpec, quantize
from oscillab.recording.recorder import record
from oscillab.recording.tables import flip_rate, layers


class Accelerated(torch.optim.Optimizer):
    """As accelerate has it: an Optimizer by name that never ran Optimizer.__init__, around the one that steps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


class Plain:
    """A wrapper that is no optimizer at all."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step = optimizer.step


class HalfSteps(torch.optim.SGD):
    """A sharpness-aware optimizer whose halves are called by name; `step` never is."""

    @torch.no_grad()
    def halves(self):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.add_(0.1).sub_(0.1 + 0.6)


def small_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    return quantize(net, QuantSpec(bits=3), [torch.rand(2, 3, 12, 12)]).train()


def states_of(net):
    return torch.cat([m.integer_state().flatten() for m in net.modules() if hasattr(m, "integer_state")]).clone()


def flips(states):
    return int((np.diff(np.stack([one.numpy() for one in states]).astype(int), axis=0) != 0).sum())


def backward(net, scale=1.0):
    net.zero_grad()
    ((net(torch.rand(2, 3, 12, 12)) - torch.rand(1)).square().mean() * scale).backward()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_a_step_that_a_gradient_scaler_skips_is_none(optimizer):
    """Oracle: the states that the test reads after every step; a fused optimizer is called in skipped steps too."""
    net = small_net()
    stepping, scaler = optimizer(net.parameters(), 0.05, fused=True), torch.amp.GradScaler("cpu")
    seen = [states_of(net)]
    with record(net, stepping) as recorder:
        for step in range(20):
            net.zero_grad()
            loss = (net(torch.rand(2, 3, 12, 12)) - torch.rand(1)).square().mean()
            scaler.scale(loss * float("inf") if step % 2 else loss).backward()
            scaler.step(stepping)
            scaler.update()
            seen.append(states_of(net))
    recording = recorder.recording()
    assert recording.meta["step_count"] == recording.meta["tick_count"] == 10
    assert recording["layer_flip_count"].sum() == flips(seen) > 0 and recording.gaps == []
    assert flip_rate(recording, last=1, max_bits=None) == pytest.approx(flips(seen) / recording.weight_count / 10)


@pytest.mark.parametrize("wrap", [Accelerated, lambda one: Plain(Accelerated(one))])
def test_the_optimizer_in_a_wrapper_is_found(wrap):
    """Oracle: the states that the test reads; hooks are off afterwards."""
    net = small_net()
    inner = torch.optim.SGD(net.parameters(), lr=0.5)
    wrapper, seen = wrap(inner), [states_of(net)]
    with record(net, wrapper) as recorder:
        for _ in range(5):
            backward(net)
            wrapper.step()
            seen.append(states_of(net))
    assert recorder.recording()["layer_flip_count"].sum() == flips(seen) > 0
    assert not inner._optimizer_step_post_hooks and not inner._optimizer_step_pre_hooks


def test_another_optimizer_takes_over(caplog):
    """Oracle: by hand: what changed after the last recorded step is counted as unseen, said in the table and logged once."""
    net = small_net()
    one, other = torch.optim.SGD(net.parameters(), lr=0.5), torch.optim.SGD(net.parameters(), lr=0.5)
    with caplog.at_level(logging.WARNING), record(net, one) as recorder:
        for step in range(10):
            backward(net)
            (one if step < 5 else other).step()
            if step == 4:
                last = states_of(net)
        live = recorder.recording()
    recording, changed = recorder.recording(), int((states_of(net) != last).sum())
    assert live.meta["unseen_flip_count"] == recording.meta["unseen_flip_count"] == changed > 0
    assert (
        layers(recording).attrs["gaps"] == recording.gaps and f"{changed} flips were made outside" in recording.gaps[0]
    )
    assert [entry.getMessage() for entry in caplog.records] == [f"recording: {recording.gaps[0]}"]


def test_half_steps_that_never_call_step(caplog):
    """Oracle: no rate is read from no step; the states did change."""
    net = small_net()
    optimizer = HalfSteps(net.parameters(), lr=0.5)
    with caplog.at_level(logging.WARNING), record(net, optimizer) as recorder:
        optimizer.halves()
    recording = recorder.recording()
    assert "no optimizer step was seen" in caplog.text and recording.meta["unseen_flip_count"] > 0
    assert layers(recording)["flip_rate"].isna().all() and np.isnan(flip_rate(recording, max_bits=None))


def test_layers_of_another_optimizer_are_named(caplog):
    """Oracle: by hand: of two layers one is owned; a frozen one is not missed."""
    net = small_net()
    with caplog.at_level(logging.WARNING), record(net, torch.optim.SGD([net[0].weight], lr=0.5)) as recorder:
        torch.optim.SGD([net[0].weight], lr=0.5)
    assert recorder.recording().meta["unowned_layers"] == ["2"] and "1 layers, among them '2'" in caplog.text
    net[2].weight.requires_grad_(False)
    assert record(net, torch.optim.SGD([net[0].weight], lr=0.5)).unowned_layers == []


@pytest.mark.parametrize("per_layer", [False, True])
def test_an_optimizer_built_before_quantizing_is_said(per_layer, caplog):
    """Oracle: by hand: the step sizes of both layers never train; built afterwards, or with one of them left out, one or none."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    before = torch.optim.SGD(net.parameters(), lr=0.5)
    spec = QuantSpec(bits=3, weight_granularity="per_channel" if per_layer else "per_tensor")
    quantize(net, spec, [torch.rand(2, 3, 12, 12)])
    with caplog.at_level(logging.WARNING), record(net, before) as recorder:
        backward(net)
        before.step()
    said = "the optimizer does not own the step sizes of 2 layers, among them '0'"
    assert recorder.recording().gaps == [said] and said in caplog.text
    assert record(net, torch.optim.SGD(net.parameters(), lr=0.5)).unowned_step_sizes == []
    some = [p for name, p in net.named_parameters() if name != "1.input_quantizer.step_size"]
    assert record(net, torch.optim.SGD(some, lr=0.5)).unowned_step_sizes == ["1"]
    net[1].input_quantizer.step_size.requires_grad_(False)
    assert record(net, torch.optim.SGD(some, lr=0.5)).unowned_step_sizes == []


def test_a_state_of_another_model_is_said(fakes):
    """Oracle: by hand: a recorder that goes on with weights that its state does not come from."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with record(net, optimizer) as before:
        optimizer.step()
    state, other = before.state_dict(), fakes.Net([[1.0, 0.0]])
    optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    with record(other, optimizer) as after:
        after.load_state_dict(state)
        optimizer.step()
    assert after.recording().meta["unseen_flip_count"] == 1


def test_steps_in_between_are_no_gap(fakes, random_states):
    """Oracle: an invariant: `every` leaves steps out on purpose, wherever the block ends."""
    _, recording = fakes.run(random_states(12, 20, -4, 3), every=3)
    assert recording.meta["unseen_flip_count"] == 0 and recording.meta["step_count"] == 11


def test_a_weight_that_turns_nan_after_the_last_step(fakes, caplog):
    """Oracle: the layer is named at the end of the block, and what was recorded stays."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with caplog.at_level(logging.WARNING), record(net, optimizer) as recorder:
        optimizer.step()
        net.stem.weight.data[0, 1] = float("nan")
        assert recorder.recording().meta["stopped"] is None
    text = "1 of 2 weights of layer 'stem' are NaN or infinite, seen at the end of the block"
    assert recorder.recording().meta["stopped"] == text and text in caplog.text
    with pytest.raises(ValueError, match="^1 of 2 weights of layer 'stem' are NaN"), record(net, optimizer):
        pass


@pytest.mark.parametrize("change", [lambda one: prune.l1_unstructured(one, "weight", 0.5), weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_weights_made_anew_in_the_forward_are_refused(change):
    """Oracle: one line that names the layer and what to do."""
    net = small_net()
    change(net[2])
    with pytest.raises(
        ValueError, match="^layer '2' makes its weight anew in each forward pass .*prune.remove"
    ) as caught:
        record(net, torch.optim.SGD(net.parameters(), lr=0.5))
    assert "\n" not in str(caught.value)


def test_a_weight_norm_by_parametrization_is_recorded():
    """Oracle: the states that the test reads, and the latent weight that the layer computes."""
    net = small_net()
    parametrizations.weight_norm(net[2])
    optimizer, seen = torch.optim.SGD(net.parameters(), lr=0.5), [states_of(net)]
    with record(net, optimizer, trajectories=3) as recorder:
        for _ in range(5):
            backward(net)
            optimizer.step()
            seen.append(states_of(net))
    recording = recorder.recording()
    assert recording["layer_flip_count"].sum() == flips(seen) > 0
    index = recording["sample_index"][-3:] - net[0].weight.numel()
    np.testing.assert_array_equal(recording["latent_weight"][-1, -3:], net[2].weight.detach().flatten()[index])

"""Freezing against the published tracker, and its promise: a frozen weight never changes its state again."""

import copy
import math

import numpy as np
import pytest
import torch

from oscillab.quant.lsq import along_channels
from oscillab.train.remedies.freezing import Freezing, FrozenStates


def followed(integer_states, threshold, *, momentum=0.01):
    """A FrozenStates that went through the rows; the states that came out of it, and how many were frozen after each."""
    states = FrozenStates(integer_states[0], momentum=momentum)
    outputs, counts = [integer_states[0]], [0]
    for row in integer_states[1:]:
        outputs.append(states.hold(row))
        states.update(row, threshold)
        counts.append(int(states.frozen.sum()))
    return states, torch.stack(outputs), counts


def test_equals_the_published_tracker(shared):
    """Oracle: the published tracker's own record of 400 steps of 256 weights at 3 bits, to the bit."""
    oracle = np.load(shared / "oracle" / "tracker-3bit-freeze.npz")
    rows = torch.from_numpy(oracle["integer_states"])
    states, outputs, counts = followed(rows, float(oracle["freeze_threshold"]), momentum=float(oracle["momentum"]))
    np.testing.assert_array_equal(states.frozen.numpy(), oracle["frozen"])
    np.testing.assert_array_equal(states.frozen_state.numpy(), oracle["frozen_state"])
    np.testing.assert_array_equal(outputs.numpy(), oracle["output_states"])
    np.testing.assert_array_equal(counts, oracle["frozen_per_step"])
    np.testing.assert_array_equal(states.tracker.frequency.numpy(), oracle["frequency_last"])


def test_three_weights_by_hand():
    """Oracle: Algorithm 1 by hand, momentum 0.5, threshold 0.4. The first weight turns at steps 2 and 3: frequency 0.5 at
    step 2, so it is frozen there, at the average after steps 0 and 1, round(1.5) = 2; the second moves one way, the
    third rests."""
    rows = torch.tensor([[1, 0, 5], [2, 1, 5], [1, 2, 5], [2, 3, 5], [7, 3, 5]], dtype=torch.int8)
    states, outputs, counts = followed(rows, 0.4, momentum=0.5)
    assert counts == [0, 0, 1, 1, 1]
    assert states.frozen.tolist() == [True, False, False] and states.frozen_state.tolist() == [2, 0, 0]
    assert outputs[:, 0].tolist() == [1, 2, 1, 2, 2] and torch.equal(outputs[:, 1:], rows[:, 1:])


def freezing(model, steps, *, learning_rate=0.02, weight_decay=0.5, **options):
    """AdamW with a strong decay on everything, and freezing that begins at once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    settings = {"thresholds": (0.2, 0.15), "begin": 0.0, "momentum": 0.1} | options
    return optimizer, Freezing(model, optimizer, steps, **settings).attach()


def all_states(model):
    return torch.cat([layer.integer_state().flatten() for layer in model if hasattr(layer, "integer_state")])


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_frozen_states_stay_for_ever(tiny, train_tiny, granularity):
    """Oracle: the state at freezing; under weight decay, while step sizes move by more than a percent, at every step."""
    model, seen = tiny(weight_granularity=granularity), []
    optimizer, remedy = freezing(model, 150)
    first = {name: p.detach().clone() for name, p in model.named_parameters() if "weight_quantizer" in name}

    def look(step):
        states, frozen = all_states(model), remedy.states.frozen.clone()
        assert torch.equal(states[frozen], remedy.states.frozen_state[frozen])
        for earlier, then in seen[-1:]:
            assert torch.equal(states[earlier], then[earlier]) and frozen[earlier].all()
        seen.append((frozen, states))

    train_tiny(model, optimizer, 150, each=look)
    assert 0.05 < remedy.states.frozen.float().mean() < 0.95
    remaining = ~remedy.states.frozen
    assert any((a != b)[remaining].any() for (_, a), (_, b) in zip(seen[-30:], seen[-29:], strict=False))
    moved = [((dict(model.named_parameters())[n] - s) / s).abs().max().item() for n, s in first.items()]
    assert max(moved) > 0.01


def test_gradients_are_those_of_the_integer_domain(tiny, train_tiny):
    """Oracle: autograd of s * k (k constant) for frozen weights beside LSQ's own op for the others, scaled as LSQ's."""
    model = tiny()
    optimizer, remedy = freezing(model, 60)
    train_tiny(model, optimizer, 60)
    layer, frozen, state = list(remedy.frozen())[1]
    grid = layer.weight_quantizer
    assert 0 < frozen.sum() < frozen.numel()
    upstream = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    scale = 1 / math.sqrt(layer.weight.numel() * grid.high)
    optimizer.zero_grad()
    (grid(layer.weight) * upstream * ~frozen).sum().backward()
    expected_weight = layer.weight.grad.clone()
    expected_step = grid.step_size.grad + scale * (upstream * state * frozen).sum()
    optimizer.zero_grad()
    (grid(layer.weight) * upstream).sum().backward()
    remedy.before_step()
    torch.testing.assert_close(layer.weight.grad, expected_weight)
    torch.testing.assert_close(grid.step_size.grad, expected_step, rtol=1e-4, atol=1e-6)


def test_a_model_in_which_nothing_is_frozen_trains_as_ever(tiny, train_tiny, same):
    """Oracle: the run without freezing, bit for bit, before freezing begins."""
    plain, model = tiny(), tiny()
    train_tiny(plain, torch.optim.AdamW(plain.parameters(), lr=0.02, weight_decay=0.5), 20)
    optimizer, remedy = freezing(model, 100, begin=0.25)
    train_tiny(model, optimizer, 20)
    assert remedy.states.frozen.float().mean() == 0 and remedy.threshold() == math.inf and same(plain, model)
    train_tiny(model, optimizer, 40)
    assert remedy.states.frozen.float().mean() > 0


def test_resumes_to_the_same_result(tiny, train_tiny, same):
    """Oracle: the uninterrupted run, bit for bit, from a state taken in its middle. Frozen latent weights are bin centres,
    w = s * k, which every other reader (recorder, average, export) rounds to k without knowing of freezing."""
    straight = tiny(weight_granularity="per_channel")
    optimizer, remedy = freezing(straight, 80)
    train_tiny(straight, optimizer, 40)
    resumed = copy.deepcopy(straight)
    second, other = freezing(resumed, 80)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(copy.deepcopy(remedy.state_dict()))
    assert other.states.frozen.float().mean() == remedy.states.frozen.float().mean() > 0
    train_tiny(straight, optimizer, 40)
    train_tiny(resumed, second, 40)
    assert torch.equal(remedy.states.frozen, other.states.frozen) and same(straight, resumed)
    for layer, frozen, state in remedy.frozen():
        centres = state * along_channels(layer.weight_step_size(), layer.weight)
        assert torch.equal(layer.weight[frozen], centres[frozen])

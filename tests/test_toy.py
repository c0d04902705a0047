"""The toys, held to what can be worked out by hand."""

import numpy as np
import pytest
import torch

from oscillab import toy

TARGETS = np.linspace(0.03, 0.49, 20)


@pytest.mark.parametrize("learning_rate", [0.001, 0.01, 0.1])
def test_frequency_is_the_closed_form_whatever_the_rate(learning_rate):
    """Oracle: |q(w*) - w*| / s (2203.11086, section 2), within 1 % for twenty targets.

    1 %: over n cycles the count is off by less than one, and the slowest target has 130 cycles or more in 8000 steps.
    """
    runs = toy.one_weight(TARGETS, learning_rate=learning_rate, steps=8000, start=0.45)
    measured = np.array([run.frequency() for run in runs])
    np.testing.assert_allclose(measured, TARGETS, rtol=0.01)  # q(w*) = 0 and s = 1 for all of them


def test_frequency_scales_with_the_step_size():
    """Oracle: the closed form at s = 0.25, q(0.3) = 0.25: (0.3 - 0.25) / 0.25 = 0.2."""
    run = toy.one_weight(0.3, step_size=0.25, learning_rate=0.02, steps=8000)
    assert run.frequency() == pytest.approx(0.2, rel=0.01)


def test_first_steps_by_hand():
    """Oracle: a hand-worked start. w = 0.4, w* = 0.25, rate 0.4, s = 1: gradients -0.25, -0.25, then 0.75."""
    run = toy.one_weight(0.25, learning_rate=0.4, steps=4, start=0.4)
    np.testing.assert_allclose(run.latent_weight, [0.4, 0.5, 0.6, 0.3], atol=1e-12)
    assert run.integer_state.tolist() == [0, 0, 1, 0]  # 0.5 rounds to the even integer


def test_a_target_on_the_grid_or_beyond_it_ends_without_oscillation():
    """Oracle: the gradient is zero on the grid value, and beyond the last one."""
    for target in (0.0, 1.0, 9.0):
        run = toy.one_weight(target, learning_rate=0.1, steps=3000)
        assert not np.diff(run.integer_state[-1000:]).any()


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0])
def test_a_rate_that_jumps_over_bins_is_refused(rate):
    """Oracle: the documented range."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        toy.one_weight(0.2, learning_rate=rate)


def test_three_weights_follow_their_gradient():
    """Oracle: the second row is the first minus rate times the gradient worked out from LSQ's formulas.

    All three start in range; dL/dq(w_i) = mean over x of 2 (q(x) q(w_i) - x w*_i) q(x), passed straight through.
    """
    rate, target, start = 0.02, np.array([0.2, 0.5, 0.8]), np.array([0.3, 0.5, 0.7])
    rows = toy.three_weights(tuple(target), learning_rate=rate, start=tuple(start), step_sizes=(0.9, 0.8), steps=2)
    x = (np.arange(256) + 0.5) / 256
    q_x, q_w = 0.8 * (x > 0.4), 0.9 * np.array([0, 1, 1])
    gradient = np.mean(2 * (q_x[:, None] * q_w - x[:, None] * target) * q_x[:, None], axis=0)
    np.testing.assert_allclose(rows.loc[1, ["w_0", "w_1", "w_2"]].astype(float), start - rate * gradient, atol=1e-12)
    slope = np.array([0, 1, 1]) - start / 0.9  # round(w / s) - w / s
    assert rows.loc[1, "weight_step_size"] == pytest.approx(0.9 - rate * (gradient * slope).sum(), abs=1e-12)


def test_three_weights_oscillate_as_the_paper_draws_it():
    """Oracle: the paper reads its figure so: a latent weight, the weights' scale and the input's oscillate."""
    rows = toy.three_weights(steps=800).tail(300)
    flips = rows[["state_0", "state_1", "state_2"]].diff().iloc[1:].abs().sum()
    assert flips["state_0"] > 30 and flips["state_1"] > 30
    for name in ("weight_step_size", "input_step_size"):
        moves = np.sign(np.diff(rows[name]))
        assert (moves[1:] * moves[:-1] < 0).sum() > 30, f"{name} does not turn back"


def test_fixed_step_sizes_stay():
    """Oracle: what is not learned does not move."""
    rows = toy.three_weights(steps=20, learn_step_sizes=False)
    assert rows["weight_step_size"].nunique() == rows["input_step_size"].nunique() == 1


def test_toys_leave_torch_as_it_was():
    """Oracle: no random number drawn, gradients stay enabled."""
    before = torch.random.get_rng_state()
    toy.one_weight(0.2, steps=5), toy.three_weights(steps=5)
    assert torch.equal(before, torch.random.get_rng_state()) and torch.is_grad_enabled()

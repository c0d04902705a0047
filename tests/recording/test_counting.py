"""Is an oscillation counted as the published tracker counts it?"""

import doctest

import numpy as np
import pytest

from oscillab.recording import counting
from oscillab.recording.counting import count_oscillations


@pytest.mark.parametrize(
    ("name", "states"), [("tracker-4bit", "integer_states"), ("tracker-3bit-freeze", "output_states")]
)
def test_equals_the_published_tracker(shared, name, states):
    """Oracle: totals, counts per step and frequencies that the published code gave on the same states, to the bit."""
    oracle = np.load(shared / "oracle" / f"{name}.npz")
    counted = count_oscillations(oracle[states], momentum=float(oracle["momentum"]))
    np.testing.assert_array_equal(counted.totals, oracle["total_oscillations"])
    np.testing.assert_array_equal(counted.per_step, oracle["oscillations_per_step"])
    np.testing.assert_array_equal(counted.frequency, oracle["frequency_last"])
    np.testing.assert_array_equal(count_oscillations(oracle[states][:101]).frequency, oracle["frequency_100"])


def test_frozen_weights_are_those_above_the_threshold(shared):
    """Oracle: the published tracker froze at a frequency above 0.03, and a frozen state does not change again."""
    oracle = np.load(shared / "oracle" / "tracker-3bit-freeze.npz")
    frozen, states = oracle["frozen"], oracle["output_states"]
    reached = np.max([count_oscillations(states[: t + 1]).frequency for t in range(len(states))], axis=0)
    np.testing.assert_array_equal(reached > oracle["freeze_threshold"], frozen)
    np.testing.assert_array_equal(states[-1, frozen], oracle["frozen_state"][frozen])


def test_hand_worked_example():
    """Oracle: five weights by hand. Up, stay, down: one. Up, up: none. Down, up, down: two. Jump and back: one."""
    states = np.array([[0, 0, 0, 0, 0], [1, 1, -1, 3, 0], [1, 1, 0, 3, 0], [0, 2, -1, 0, 0]])
    frequency, totals, per_step = count_oscillations(states, momentum=0.5)
    assert totals.tolist() == [1, 0, 2, 1, 0]
    assert per_step.tolist() == [0, 0, 1, 3]
    assert frequency.tolist() == [0.5, 0.0, 0.75, 0.5, 0.0]


def test_the_two_readings_can_be_chosen():
    """Oracle: by hand. A first flip is one more per weight that flips; a jump of 2 and the flip after it are left out."""
    states = np.array([[0, 0], [2, 1], [1, 0], [2, 0], [1, 0]])
    assert count_oscillations(states).totals.tolist() == [3, 1]
    assert count_oscillations(states, first_flip="counted").totals.tolist() == [4, 2]
    assert count_oscillations(states, jumps="ignored").totals.tolist() == [2, 1]
    assert count_oscillations(states, jumps="ignored", first_flip="counted").totals.tolist() == [2, 2]


@pytest.mark.parametrize("rate", [0.003, 0.01])
@pytest.mark.parametrize("target", [0.1, 0.21, 0.37, 0.5])
def test_toy_of_nagel_oscillates_at_the_closed_form_frequency(target, rate):
    """Oracle: the one-weight toy of 2203.11086 has |q(w*) - w*| / s cycles a step whatever the learning rate; 1 %.

    A cycle is two oscillations. The weight may be a cycle short at either end of the 20,000 steps.
    """
    latent, states = 0.5, np.zeros((20_000, 1), np.int8)
    for t in range(len(states)):
        states[t] = round(latent)
        latent -= rate * (states[t, 0] - target)  # straight-through gradient of (q(w) - w*)^2 / 2
    cycles = count_oscillations(states).totals[0] / 2 / len(states)
    assert cycles == pytest.approx(abs(round(target) - target), rel=0.01)


def test_extreme_states_do_not_overflow():
    """Oracle: from -128 to 127 is up and back is down, though the difference does not fit into int8."""
    states = np.array([[-128], [127], [-128], [127]], np.int8)
    assert count_oscillations(states).totals.tolist() == [2]


def test_a_constant_never_oscillates():
    """Oracle: an invariant."""
    frequency, totals, per_step = count_oscillations(np.full((50, 7), 3, np.int8))
    assert not frequency.any() and not totals.any() and not per_step.any()


@pytest.mark.parametrize(
    ("states", "options", "message"),
    [
        (np.zeros(3, np.int8), {}, r"shape \(steps, weights\)"),
        (np.zeros((0, 3), np.int8), {}, "a step or more"),
        (np.zeros((2, 2)), {}, "integers, got float64"),
        (np.zeros((2, 2), int), {"momentum": 1.5}, "0..1, got 1.5"),
        (np.zeros((2, 2), int), {"first_flip": "maybe"}, "ignored, counted, got 'maybe'"),
        (np.zeros((2, 2), int), {"jumps": "twice"}, "once, ignored, got 'twice'"),
    ],
)
def test_bad_input_says_what_is_allowed(states, options, message):
    """Oracle: the error names what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        count_oscillations(states, **options)


def test_examples_run():
    """Oracle: the docstring's own numbers."""
    assert doctest.testmod(counting).failed == 0

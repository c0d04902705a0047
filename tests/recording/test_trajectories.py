"""What happens over time: counting as the published tracker does, cycles, and what moved at a flip."""

from dataclasses import replace

import numpy as np
import pytest

from oscillab.recording.tables import (
    autocorrelation,
    count_oscillations,
    cycle_lengths,
    flip_attribution,
    periodicity,
    trajectories,
)


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


@pytest.mark.parametrize(("target", "rate"), [(0.1, 0.01), (0.37, 0.003), (0.5, 0.01)])
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


@pytest.mark.parametrize(
    ("states", "options", "message"),
    [
        (np.zeros(3, np.int8), {}, r"shape \(steps, weights\)"),
        (np.zeros((0, 3), np.int8), {}, "a step or more"),
        (np.zeros((2, 2)), {}, "integers, got float64"),
        (np.zeros((2, 2), int), {"momentum": 1.5}, "0..1, got 1.5"),
    ],
)
def test_bad_input_says_what_is_allowed(states, options, message):
    """Oracle: the error names what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        count_oscillations(states, **options)


def square_wave(steps, period, high):
    """States 0 and 1 of a weight that is up for `high` of every `period` steps."""
    return (np.arange(steps) % period < high).astype(np.int8)


def test_autocorrelation_peaks_at_the_period():
    """Oracle: a square wave of period 8 correlates with itself at lag 8 as 1 - 8 / 400, and least half-way."""
    states = square_wave(400, 8, 4)[:, None]
    found = autocorrelation(states, 12)[:, 0]
    assert found[0] == 1 and found[8] == pytest.approx(1 - 8 / 400) and found.argmin() == 4
    assert np.isnan(autocorrelation(np.ones((10, 1)), 3)).all()
    with pytest.raises(ValueError, match="below the 10 steps, got 10"):
        autocorrelation(np.ones((10, 1)), 10)


@pytest.mark.parametrize(("period", "high"), [(2, 1), (5, 1), (12, 7)])
def test_cycle_length_is_the_period(period, high):
    """Oracle: the period of a square wave; a weight that climbs once has none."""
    states = np.stack([square_wave(120, period, high), np.arange(120) > 60], axis=1)
    assert cycle_lengths(states).tolist() == [period, pytest.approx(np.nan, nan_ok=True)]


def test_periodicity_of_a_recording(fakes):
    """Oracle: by hand: the last half of 64 ticks of a wave of period 4 that is up 1 step of 4, and of a weight at rest."""
    states = np.stack([square_wave(65, 4, 1), np.zeros(65)], axis=1)
    _, recording = fakes.run(states, trajectories=2)
    table = periodicity(recording, last=32 / 65)
    wave, rest = table.iloc[0], table.iloc[1]
    assert (wave["layer"], wave["weight"], wave["cycle_length"]) == ("stem", 0, 4)
    assert wave["upper_share"] == 8 / 32 and wave["flip_count"] == wave["oscillation_count"] + 1
    assert rest["flip_count"] == 0 and np.isnan(rest["cycle_length"])
    assert table["layer"].tolist() == ["stem", "stem", "block.1", "block.1"]
    with pytest.raises(ValueError, match="last must be above 0"):
        periodicity(recording, last=2)


@pytest.fixture
def recording(fakes):
    """Five rows of two weights of 3 bit, whose courses each test makes itself."""
    return fakes.run(np.zeros((5, 2), int), trajectories={"stem": [0, 1]})[1]


def courses(recording, latent, step_size):
    """The recording with other courses, states computed by hand in the test's own words."""
    latent, step_size = np.array(latent, np.float32), np.array(step_size, np.float32)
    states = np.clip(np.rint(latent / step_size), -4, 3).astype(np.int8)
    return replace(
        recording,
        arrays=recording.arrays | {"latent_weight": latent, "sample_step_size": step_size, "sample_state": states},
    )


def test_a_moving_edge_and_a_moving_weight(recording):
    """Oracle: by hand. Weight 0 stands at 0.6 while s goes 1, 1.5, 1, 1, 1: states 1, 0, 1, 1, 1, two flips by the edge.
    Weight 1 goes 0.2, 0.2, 0.7, 0.7, 0.2 under the same s: 0, 0, 1, 1, 0; at s = 1.5 the 0.7 would still have been 0, so
    that the first of its flips is the edge's too, the second its own.
    """
    steps = np.array([1, 1.5, 1, 1, 1])[:, None].repeat(2, 1)
    made = courses(recording, [[0.6, 0.2], [0.6, 0.2], [0.6, 0.7], [0.6, 0.7], [0.6, 0.2]], steps)
    stem, rest = flip_attribution(made).to_dict("records")
    assert stem == {"layer": "stem", "sampled_count": 2, "flip_count": 4, "edge_flip_count": 3}
    assert rest == {"layer": "block.1", "sampled_count": 0, "flip_count": 0, "edge_flip_count": 0}


def test_a_fixed_step_size_is_never_the_cause(fakes, random_states):
    """Oracle: an invariant, on states that walk about; jumps and clipped states among them."""
    _, recording = fakes.run(random_states(300, 8, -4, 3), trajectories=8)
    table = flip_attribution(recording)
    moved = trajectories(recording, "stem").pivot(index="step", columns="weight", values="integer_state")
    assert table["flip_count"][0] == (moved.diff().iloc[1:] != 0).sum().sum() > 100
    assert table["edge_flip_count"].sum() == 0


def test_above_the_highest_state_an_edge_changes_nothing(recording):
    """Oracle: by hand: a weight at 5 steps and more is clipped to state 3 whatever the step size does."""
    made = courses(recording, np.full((5, 2), 5.0), np.array([1, 0.5, 1, 0.25, 1])[:, None].repeat(2, 1))
    assert flip_attribution(made)["flip_count"].sum() == 0

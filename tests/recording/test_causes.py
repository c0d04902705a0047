"""Is a flip laid at the right door?"""

from dataclasses import replace

import numpy as np
import pytest

from oscillab.recording.causes import flip_causes
from oscillab.recording.oscillation import trajectories


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
    stem, rest = flip_causes(made).to_dict("records")
    assert stem == {"layer": "stem", "sampled_count": 2, "flip_count": 4, "edge_flip_count": 3}
    assert rest == {"layer": "block.1", "sampled_count": 0, "flip_count": 0, "edge_flip_count": 0}


def test_a_fixed_step_size_is_never_the_cause(fakes, random_states):
    """Oracle: an invariant, on states that walk about; jumps and clipped states among them."""
    _, recording = fakes.run(random_states(300, 8, -4, 3), trajectories=8)
    table = flip_causes(recording)
    moved = trajectories(recording, "stem").pivot(index="step", columns="weight", values="integer_state")
    assert table["flip_count"][0] == (moved.diff().iloc[1:] != 0).sum().sum() > 100
    assert table["edge_flip_count"].sum() == 0


def test_above_the_highest_state_an_edge_changes_nothing(recording):
    """Oracle: by hand: a weight at 5 steps and more is clipped to state 3 whatever the step size does."""
    made = courses(recording, np.full((5, 2), 5.0), np.array([1, 0.5, 1, 0.25, 1])[:, None].repeat(2, 1))
    assert flip_causes(made)["flip_count"].sum() == 0

"""Does the recorder's update agree with the pure function, in 8 bytes a weight?"""

import numpy as np
import torch

from oscillab.recording.tables import count_oscillations
from oscillab.recording.tracker import Tracker, where_true


def followed(states, momentum=0.01):
    """A tracker that went through the rows of `states`, and its counts of flips and oscillations per update."""
    tracker = Tracker(torch.from_numpy(states[0]), momentum=momentum)
    counts = [[len(indices) for indices in tracker.update(torch.from_numpy(row))] for row in states[1:]]
    return tracker, np.array(counts)


def test_equals_the_pure_function(random_states):
    """Oracle: `count_oscillations`, itself held to the published tracker; frequencies equal to the bit."""
    states = random_states(250, 300, -8, 7)
    tracker, counts = followed(states)
    frequency, totals, per_step = count_oscillations(states)
    np.testing.assert_array_equal(tracker.frequency.numpy(), frequency)
    np.testing.assert_array_equal(tracker.oscillations.numpy(), totals)
    np.testing.assert_array_equal(counts[:, 1], per_step[1:])
    np.testing.assert_array_equal(tracker.state.numpy(), states[-1])
    np.testing.assert_array_equal(tracker.flips.numpy(), (np.diff(states.astype(int), axis=0) != 0).sum(0))


def test_direction_is_that_of_the_last_flip(random_states):
    """Oracle: the sign of each weight's last nonzero difference, looked up column by column."""
    states = random_states(60, 100, -4, 3)
    changes = np.diff(states.astype(int), axis=0)
    last = [next((np.sign(c) for c in column[::-1] if c), 0) for column in changes.T]
    np.testing.assert_array_equal(followed(states)[0].direction.numpy(), last)


def test_eight_bytes_a_weight():
    """Oracle: the sum over every tensor that the tracker holds between ticks, but the scratch mask."""
    tracker = Tracker(torch.zeros(1000, dtype=torch.int8), momentum=0.01)
    held = {k: v.nbytes for k, v in vars(tracker).items() if isinstance(v, torch.Tensor)}
    assert held.pop("_changed") == 1000
    assert sum(held.values()) == 8 * 1000 == tracker.bytes_per_weight * 1000


def test_flips_across_the_whole_of_int8():
    """Oracle: -128 to 127 is up, though the difference does not fit into int8."""
    tracker, _ = followed(np.array([[-128, 127], [127, -128]], np.int8))
    assert tracker.direction.tolist() == [1, -1]


def test_a_constant_never_flips():
    """Oracle: an invariant."""
    tracker, counts = followed(np.full((40, 9), -3, np.int8))
    assert not counts.any() and not tracker.frequency.any() and not tracker.direction.any()


def test_counts_begin_anew_and_old_frequencies_end():
    """Oracle: by hand; a frequency below 1e-30 becomes exactly 0 when counts are taken, before it is denormal."""
    tracker, _ = followed(np.array([[0, 0], [1, 0], [0, 0]], np.int8), momentum=0.5)
    tracker.frequency[1] = 1e-31
    flips, oscillations = tracker.take_counts()
    assert flips.tolist() == [2, 0] and oscillations.tolist() == [1, 0]
    assert tracker.flips.tolist() == [0, 0] and tracker.frequency.tolist() == [0.5, 0.0]
    assert flips.tolist() == [2, 0]  # a copy, not the buffer


def test_state_comes_back(random_states):
    """Oracle: half of the way, saved and loaded, then the rest, gives what the whole way gives."""
    states = random_states(80, 50, -8, 7)
    whole, half = followed(states)[0], followed(states[:40])[0]
    other = Tracker(torch.zeros(50, dtype=torch.int8), momentum=0.01)
    other.load_state_dict(half.state_dict())
    for row in states[40:]:
        other.update(torch.from_numpy(row))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_where_true_is_ascending():
    """Oracle: torch's own nonzero."""
    mask = torch.rand(5000, generator=torch.Generator().manual_seed(0)) < 0.01
    assert torch.equal(where_true(mask), mask.nonzero().view(-1))

"""Does the recorder's update agree with the pure function, in 8 bytes a weight, and are windows of time complete?"""

import numpy as np
import pytest
import torch

from oscillab.recording.tables import count_oscillations
from oscillab.recording.tracker import Tracker, Windows, pack, unpack


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


def filled(limit, rounds, weights=40, seed=0):
    """(windows, counts that went in (rounds, weights), oscillations): ten ticks a round."""
    generator = np.random.default_rng(seed)
    flips = generator.integers(0, 200, (rounds, weights)).astype(np.uint8)
    oscillations = (flips * generator.random((rounds, weights))).astype(np.uint8)
    held = Windows(limit=limit)
    for i in range(rounds):
        held.add(10 * i + 1, 10 * i + 10, flips[i], oscillations[i])
    return held, flips, oscillations


@pytest.mark.parametrize(("limit", "rounds"), [(1, 5), (4, 3), (4, 4), (4, 37), (16, 200)])
def test_nothing_is_lost_and_windows_stay_few(limit, rounds):
    """Oracle: sums over the counts that went in, window by window; windows join without a gap and none is tiny."""
    held, flips, oscillations = filled(limit, rounds)
    first, last, window_flips, window_oscillations = held.arrays()
    assert len(first) == min(limit, rounds)
    assert first[0] == 1 and last[-1] == 10 * rounds and (first[1:] == last[:-1] + 1).all()
    assert (last - first + 1).max() <= 4 * 10 * rounds / min(limit, rounds)  # joining the shortest neighbours
    for a, b, one, other in zip(first, last, window_flips, window_oscillations, strict=True):
        np.testing.assert_array_equal(one, flips[(a - 1) // 10 : b // 10].sum(0, dtype=int))
        np.testing.assert_array_equal(other, oscillations[(a - 1) // 10 : b // 10].sum(0, dtype=int))


def test_packing_takes_the_smallest_type():
    """Oracle: the limits of the types."""
    for most, dtype in ((255, "uint8"), (256, "uint16"), (65_536, "uint32")):
        packed = pack(np.array([0, most]))
        assert packed[1] == dtype and unpack(packed).tolist() == [0, most]


def test_quiet_weights_take_next_to_no_room():
    """Oracle: a million weights of which one in a hundred flips, a byte each, fit into a twentieth of that."""
    counts = np.zeros(1_000_000, np.uint8)
    counts[::100] = 7
    held = Windows(limit=2)
    held.add(1, 250, counts, counts)
    assert held.nbytes < 50_000


def test_windows_come_back():
    """Oracle: the same arrays, and the same again after one more round."""
    held, flips, oscillations = filled(4, 9)
    other = Windows(limit=1)
    other.load_state_dict(held.state_dict())
    for one in (held, other):
        one.add(91, 100, flips[0], oscillations[0])
    for a, b in zip(held.arrays(), other.arrays(), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))

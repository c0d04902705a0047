"""Are counts over windows of time complete, few, and in order?"""

import numpy as np
import pytest

from oscillab.recording.windows import Windows, pack, unpack


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
    for a, b, one, other in zip(first, last, window_flips, window_oscillations, strict=True):
        np.testing.assert_array_equal(one, flips[(a - 1) // 10 : b // 10].sum(0, dtype=int))
        np.testing.assert_array_equal(other, oscillations[(a - 1) // 10 : b // 10].sum(0, dtype=int))


def test_windows_stay_alike_in_length():
    """Oracle: joining the shortest neighbours keeps the longest window within four of the mean of 200 rounds in 16."""
    first, last, *_ = filled(16, 200)[0].arrays()
    assert (last - first + 1).max() <= 4 * 2000 / 16


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


def test_state_comes_back():
    """Oracle: the same arrays, and the same again after one more round."""
    held, flips, oscillations = filled(4, 9)
    other = Windows(limit=1)
    other.load_state_dict(held.state_dict())
    for one in (held, other):
        one.add(91, 100, flips[0], oscillations[0])
    for a, b in zip(held.arrays(), other.arrays(), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_no_windows_is_an_error():
    """Oracle: the error names the least."""
    with pytest.raises(ValueError, match="windows must be 1 or more, got 0"):
        Windows(limit=0)

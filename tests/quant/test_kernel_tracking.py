"""Do the passes over integer states give what torch's operations give, to the last bit?"""

import pytest
import torch

from oscillab.quant.kernel import kernel_off, loaded
from oscillab.recording.tracker import KEPT, Tracker
from oscillab.train.frozen import FrozenStates

pytestmark = pytest.mark.skipif(loaded() is None, reason="no kernel: there is no C compiler, or OSCILLAB_KERNEL is 0")

COUNTS = [1, 7, 8, 2048, 2049, 5003]  # beside words of 8 and blocks of 2048


def states_over_time(count, steps=60, low=-8, high=7):
    """Integer states (steps, count) int8: most weights rest, some wander, some jump to and fro."""
    generator = torch.Generator().manual_seed(count)
    moves = torch.randint(-1, 2, (steps, count), generator=generator) * (torch.rand(count, generator=generator) < 0.3)
    jumps = (torch.rand(count, generator=generator) < 0.05) * torch.randint(-8, 8, (steps, count), generator=generator)
    return (moves.cumsum(0) + jumps).clamp(low, high).to(torch.int8)


@pytest.mark.parametrize("count", COUNTS)
def test_a_tracker_by_the_kernel(count):
    """Oracle: the same updates in torch's operations, themselves held to `count_oscillations`."""
    rows = states_over_time(count)
    mine, theirs = (Tracker(rows[0], momentum=0.03) for _ in range(2))
    for row in rows[1:]:
        found = mine.update(row)
        with kernel_off():
            assert all(map(torch.equal, found, theirs.update(row)))
        assert all(torch.equal(getattr(mine, name), getattr(theirs, name)) for name in KEPT)


@pytest.mark.parametrize("count", COUNTS)
def test_freezing_by_the_kernel(count):
    """Oracle: the same updates in torch's operations, themselves held to the published tracker; the threshold falls."""
    rows = states_over_time(count)
    mine, theirs = (FrozenStates(rows[0], momentum=0.05) for _ in range(2))
    for number, row in enumerate(rows[1:]):
        threshold = 0.2 - 0.003 * number
        new = mine.update(row, threshold)
        with kernel_off():
            assert new == theirs.update(row, threshold)
        assert torch.equal(mine.frozen, theirs.frozen) and torch.equal(mine.frozen_state, theirs.frozen_state)
        assert torch.equal(mine.average, theirs.average)
        assert all(torch.equal(getattr(mine.tracker, name), getattr(theirs.tracker, name)) for name in KEPT)
    assert count < 8 or 0 < mine.frozen.sum() < count


def test_states_that_lie_apart():
    """Oracle: torch's operations take every second column, which the kernel does not."""
    rows = states_over_time(100)
    mine, theirs = (Tracker(rows[0, ::2].contiguous(), momentum=0.03) for _ in range(2))
    for row in rows[1:]:
        assert all(map(torch.equal, mine.update(row[::2]), theirs.update(row[::2].contiguous())))

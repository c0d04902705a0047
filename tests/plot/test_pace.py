"""Does drawing stay within its share of the time, whatever a picture costs?

The clock is made by hand: it moves where a step or a picture moves it, so that nothing depends on the machine.
"""

import pytest

from oscillab.plot.pace import SHARE, SHORTEST, Pace


class Clock:
    """Seconds that pass when `pass_by` is called."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        """Let the time pass."""
        self.now += seconds


def times_of(cost, *, seconds=60.0, step=0.1):
    """When each picture of a run was begun, with pictures of that cost (a function of the picture's number), and the Pace."""
    clock, begun = Clock(), []
    pace, start = Pace(clock), clock.now

    def picture():
        begun.append(clock.now - start)
        clock.pass_by(cost(pace.count))

    pace.start()
    while clock.now < start + seconds:
        clock.pass_by(step)
        pace.draw(picture)
    return begun, pace


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.06, 0.3])
def test_the_pause_is_the_cost_over_its_share(cost):
    """Oracle: the rule by hand: from one picture to the next max(0.5, cost / 0.01) s, seen only at the end of a step."""
    begun, _ = times_of(lambda number: cost, seconds=100.0)
    pause = max(SHORTEST, cost / SHARE)
    assert len(begun) >= 2
    for earlier, later in zip(begun[:-1], begun[1:], strict=True):
        assert pause - 1e-6 <= later - earlier <= pause + 0.1 + cost + 1e-6


def test_the_pause_grows_with_the_cost():
    """Oracle: pictures that cost ten times as much are a tenth as many, and never more than two a second."""
    counts = [times_of(lambda number, cost=cost: cost, step=0.01)[1].count for cost in (0.0, 0.02, 0.2)]
    assert counts[0] in (117, 118, 119), "59.5 s after the first pause at one in 0.5 or 0.51 s"
    assert counts[1] in (29, 30) and counts[2] == 3


def test_a_dear_picture_makes_a_long_pause_and_a_cheap_one_a_short_pause_again():
    """Oracle: by hand: 0.1 s at 1 % is a pause of 10 s; 0.002 s is one of the shortest, 0.5 s."""
    begun, _ = times_of(lambda number: 0.1 if number == 0 else 0.002, seconds=12.0, step=0.01)
    assert begun[1] - begun[0] == pytest.approx(10.0, abs=0.03)
    assert begun[2] - begun[1] == pytest.approx(0.5, abs=0.03)


def test_drawing_stays_within_its_share():
    """Oracle: the bound that the rule makes: a hundredth of the time, and the last picture's cost on top."""
    costs = [0.08, 0.004, 0.02, 0.3, 0.005, 0.07, 0.01]
    _, pace = times_of(lambda number: costs[number % len(costs)], seconds=300.0, step=0.03)
    assert pace.count > len(costs) and pace.seconds <= SHARE * 300.0 + max(costs)


def test_nothing_is_drawn_that_is_not_due():
    """Oracle: a picture that is not called for half a second after the start."""
    clock, calls = Clock(), []
    pace = Pace(clock)
    pace.start()
    assert not pace.draw(lambda: calls.append(1)) and not calls
    clock.pass_by(SHORTEST)
    assert pace.draw(lambda: calls.append(1)) and calls == [1]

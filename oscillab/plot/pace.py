"""How often may a picture be drawn beside the work that it shows?

After a picture that cost c seconds the next one waits until c / SHARE seconds have passed since it was begun: so whatever
a picture costs, on whatever machine, drawing takes at most that share of the time from one picture to the next.
"""

import time

SHORTEST = 0.5  # seconds between two pictures, at least: an eye needs no more
SHARE = 0.01  # of the time, at most, that drawing takes


class Pace:
    """When the next picture is due. `count` and `seconds`: pictures drawn so far, and what they cost together.

    `clock() -> float`: seconds that pass; another than the computer's is for tests and benchmarks.
    """

    def __init__(self, clock=time.perf_counter):
        self.clock, self.count, self.seconds = clock, 0, 0.0
        self._due = -float("inf")

    def start(self):
        """From now on time passes; the first picture comes after the shortest pause."""
        self._due = self.clock() + SHORTEST

    def draw(self, picture):
        """Call `picture()` if it is due; whether it was."""
        begin = self.clock()
        if begin < self._due:
            return False
        picture()
        cost = self.clock() - begin
        self.count, self.seconds = self.count + 1, self.seconds + cost
        self._due = begin + max(SHORTEST, cost / SHARE)
        return True

"""When did a weight flip, over a long run and in little memory?

Counts per weight over windows of time, compressed. There are never more than `limit` windows: the two neighbours that
span the fewest ticks become one when a window too many comes in.
"""

import zlib

import numpy as np

COUNTS = (np.uint8, np.uint16, np.uint32)


def pack(counts):
    """(bytes, dtype name) of an array of counts, in the smallest type that holds them, compressed.

    >>> unpack(pack(np.array([0, 3, 300])))
    array([  0,   3, 300], dtype=uint16)
    """
    most = int(counts.max(initial=0))
    dtype = next(np.dtype(t) for t in COUNTS if most <= np.iinfo(t).max)
    return zlib.compress(counts.astype(dtype, copy=False).tobytes(), 1), dtype.name


def unpack(packed):
    """The array of counts that was packed."""
    data, dtype = packed
    return np.frombuffer(zlib.decompress(data), dtype)


class Windows:
    """Flips and oscillations of each weight in consecutive windows of ticks, at most `limit` windows."""

    def __init__(self, *, limit):
        if limit < 1:
            raise ValueError(f"windows must be 1 or more, got {limit}")
        self.limit = limit
        self._entries = []  # (first tick, last tick, packed flips, packed flips that were no oscillation)

    @property
    def nbytes(self):
        """Compressed size of all windows."""
        return sum(len(flips[0]) + len(others[0]) for _, _, flips, others in self._entries)

    def add(self, first_tick, last_tick, flips, oscillations):
        """Take in the counts (weights,) uint8 of the ticks `first_tick` to `last_tick`, both included."""
        # most flips are oscillations: their difference is nearly all zeros and takes next to no room
        self._entries.append((first_tick, last_tick, pack(flips), pack(flips - oscillations)))
        while len(self._entries) > self.limit:
            self._merge()

    def arrays(self):
        """first_tick, last_tick (windows,) int64, flips and oscillations (windows, weights) of unsigned integers."""
        ticks = np.array([entry[:2] for entry in self._entries], np.int64).reshape(-1, 2)
        flips = [unpack(entry[2]) for entry in self._entries]
        oscillations = [f - unpack(entry[3]) for f, entry in zip(flips, self._entries, strict=True)]
        return ticks[:, 0], ticks[:, 1], flips, oscillations

    def state_dict(self):
        """Plain containers of integers and bytes."""
        return {"limit": self.limit, "entries": list(self._entries)}

    def load_state_dict(self, state):
        """Continue from `state`, made by `state_dict`."""
        self.limit = state["limit"]
        self._entries = [(first, last, tuple(flips), tuple(others)) for first, last, flips, others in state["entries"]]

    def _merge(self):
        spans = [b[1] - a[0] for a, b in zip(self._entries, self._entries[1:], strict=False)]
        at = int(np.argmin(spans))
        (first, _, *left), (_, last, *right) = self._entries[at : at + 2]
        both = [pack(unpack(a).astype(np.uint32) + unpack(b)) for a, b in zip(left, right, strict=True)]
        self._entries[at : at + 2] = [(first, last, *both)]

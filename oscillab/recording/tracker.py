"""Follow the integer states of all weights in flat buffers: flips and oscillations, now and in windows of time.

The update of `count_oscillations` on the weights of all layers at once, in 8 bytes a weight. A flip is rare (one weight
in a hundred and fewer), so the flipped ones are looked up once and everything else is done on them alone.
"""

import contextlib
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oscillab.recording.layers import WatchedLayers

KEPT = ("state", "direction", "flips", "oscillations", "frequency")  # what a tracker knows of each weight
TINY = 1e-30  # lower frequencies are set to 0: decaying on they would become denormal, which is a hundred times slower
COUNTS = (np.uint8, np.uint16, np.uint32)


class Tracker:
    """Per weight: integer state, direction of the last flip (-1, 0, 1), counts since `take_counts`, frequency.

    `state`: (weights,) int8, the states to begin with. Counts are uint8 and hold 255 updates.
    """

    def __init__(self, state: Tensor, *, momentum: float):
        self.momentum = momentum
        self.state = state.clone()
        self.direction = torch.zeros_like(state)
        self.flips = torch.zeros_like(state, dtype=torch.uint8)
        self.oscillations = torch.zeros_like(self.flips)
        self.frequency = torch.zeros_like(state, dtype=torch.float32)
        self._changed = torch.zeros_like(state, dtype=torch.bool)  # reused, as the caller reuses `state`

    @property
    def bytes_per_weight(self) -> float:
        """Memory that a weight takes from the start to the end of recording."""
        return float(sum(getattr(self, name).nbytes for name in KEPT) / self.state.numel())

    @torch.no_grad()
    def update(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices (int64, ascending) of the weights that flipped to `state`, and of those that oscillated."""
        flipped = self.changed(state)
        new = state.index_select(0, flipped)
        direction = torch.where(new > self.state.index_select(0, flipped), 1, -1).to(torch.int8)
        turned = direction * self.direction.index_select(0, flipped) == -1
        oscillated = flipped[turned]
        self.state.index_copy_(0, flipped, new)  # half the time of state[flipped] = new
        self.direction.index_copy_(0, flipped, direction)
        self.flips.index_add_(0, flipped, torch.ones_like(flipped, dtype=torch.uint8))
        self.oscillations.index_add_(0, flipped, turned.to(torch.uint8))
        self.frequency.mul_(1 - self.momentum)  # f = m * o + (1 - m) * f, section 3 of 2203.11086
        self.frequency.index_add_(0, flipped, turned.float(), alpha=self.momentum)
        return flipped, oscillated

    def changed(self, state: Tensor) -> Tensor:
        """Return the indices of the weights whose state is not the one of the last update."""
        return where_true(torch.ne(state, self.state, out=self._changed))

    def take_counts(self) -> tuple[Tensor, Tensor]:
        """Return flips and oscillations since the last call, uint8 on the CPU; counting begins anew."""
        counts = self.flips.cpu().clone(), self.oscillations.cpu().clone()
        self.flips.zero_()
        self.oscillations.zero_()
        torch.threshold_(self.frequency, TINY, 0.0)
        return counts

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the buffers on the CPU."""
        return {name: getattr(self, name).cpu().clone() for name in KEPT}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`."""
        for name in KEPT:
            getattr(self, name).copy_(state[name])


class Unseen:
    """Counts the flips that something else than the recorded optimizer's steps made."""

    def __init__(self, layers: WatchedLayers, tracker: Tracker):
        self.flip_count = self._found = 0
        self._layers, self._tracker = layers, tracker
        self._parameters = [p for module in layers.modules for p in module.parameters()]
        self.mark()

    def mark(self) -> None:
        """Remember the parameters as they are, which are now the tracker's, and count what `look` found before."""
        self.flip_count, self._found = self.flip_count + self._found, 0
        self._marked = self._stamps()

    def restore(self, flip_count: int) -> None:
        """Go on from an earlier count; the model may not be the one that it comes from."""
        self.flip_count, self._marked = flip_count, []

    @torch.no_grad()
    def look(self, scratch: Tensor) -> None:
        """Find what changed since `mark`; cheap where no parameter was written to (`p.data.add_` is the way unseen)."""
        self._found = 0
        if self._stamps() != self._marked:
            self._layers.read(scratch)
            self._found = len(self._tracker.changed(scratch))

    @torch.no_grad()
    def now(self, scratch: Tensor) -> int:
        """Return how many states differ from the tracker's; 0 where the layers cannot be read, which a step will say."""
        with contextlib.suppress(ValueError):
            self._layers.read(scratch)
            return len(self._tracker.changed(scratch))
        return 0

    @torch.no_grad()
    def finish(self, scratch: Tensor, *, every_step: bool) -> str | None:
        """Look for the last time, and count where every step so far was; return what keeps the layers from being read."""
        try:
            self._layers.read(scratch)
            self.flip_count += len(self._tracker.changed(scratch)) if every_step else 0
        except ValueError as error:
            return f"{error}, seen at the end of the block"
        return None

    def _stamps(self) -> list[tuple[int, int]]:
        return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self._parameters]


class Windows:
    """Flips and oscillations of each weight in at most `limit` consecutive windows of ticks, compressed.

    The two neighbours that span the fewest ticks become one when a window too many comes in.
    """

    def __init__(self, *, limit: int):
        self.limit = limit
        self._entries: list[tuple[int, int, Any, Any]] = []  # first and last tick, packed flips, packed other flips

    @property
    def nbytes(self) -> int:
        """Compressed size of all windows."""
        return sum(len(flips[0]) + len(others[0]) for _, _, flips, others in self._entries)

    def add(self, first_tick: int, last_tick: int, flips: np.ndarray, oscillations: np.ndarray) -> None:
        """Take in the counts (weights,) uint8 of the ticks `first_tick` to `last_tick`, both included."""
        # most flips are oscillations: their difference is nearly all zeros and takes next to no room
        self._entries.append((first_tick, last_tick, pack(flips), pack(flips - oscillations)))
        while len(self._entries) > self.limit:
            self._merge()

    def arrays(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Return first and last ticks (windows,) int64, and flips and oscillations, unsigned (weights,) per window."""
        ticks = np.array([entry[:2] for entry in self._entries], np.int64).reshape(-1, 2)
        flips = [unpack(entry[2]) for entry in self._entries]
        oscillations = [f - unpack(entry[3]) for f, entry in zip(flips, self._entries, strict=True)]
        return ticks[:, 0], ticks[:, 1], flips, oscillations

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers of integers and bytes."""
        return {"limit": self.limit, "entries": list(self._entries)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        self.limit = state["limit"]
        self._entries = [(first, last, tuple(flips), tuple(others)) for first, last, flips, others in state["entries"]]

    def _merge(self) -> None:
        spans = [b[1] - a[0] for a, b in zip(self._entries, self._entries[1:], strict=False)]
        at = int(np.argmin(spans))
        (first, _, *left), (_, last, *right) = self._entries[at : at + 2]
        flips, others = (pack(unpack(a).astype(np.uint32) + unpack(b)) for a, b in zip(left, right, strict=True))
        self._entries[at : at + 2] = [(first, last, flips, others)]


def pack(counts: np.ndarray) -> tuple[bytes, str]:
    """Return an array of counts in the smallest type that holds them, compressed, and the type's name."""
    most = int(counts.max(initial=0))
    dtype = next(np.dtype(t) for t in COUNTS if most <= np.iinfo(t).max)
    return zlib.compress(counts.astype(dtype, copy=False).tobytes(), 1), dtype.name


def unpack(packed: tuple[bytes, str]) -> np.ndarray:
    """Return the array of counts that was packed."""
    return np.frombuffer(zlib.decompress(packed[0]), packed[1])


def where_true(mask: Tensor) -> Tensor:
    """Return the indices of the true values of a flat mask, ascending; waits for the device."""
    # on the CPU numpy finds few among many three times faster than torch does (0.9 against 2.8 ms for 1.9 M, torch 2.13)
    return torch.from_numpy(mask.numpy().nonzero()[0]) if mask.device.type == "cpu" else mask.nonzero().view(-1)


def in_storage_order(x: Tensor) -> Tensor:
    """Return all values of `x` as a flat tensor in the order of memory: a view where it is dense, a copy elsewhere.

    A reduction over a channels-last tensor is ten times slower than one over its memory (torch 2.13, CPU).
    """
    dense = x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return x.as_strided((x.numel(),), (1,)) if dense else x.reshape(-1)

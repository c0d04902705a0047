"""Which weights oscillate while this model trains?

`with record(model, optimizer) as recorder:` around any training loop; then `recorder.recording()`. It ticks after
optimizer steps, never on a forward, and reads layers through three methods (see `watched.py`). Nothing is attached to
the model: it can be copied, pickled and saved while it is recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from oscillab.record.positions import limits_of, position_histogram
from oscillab.record.ranges import RangeObserver
from oscillab.record.recording import Recording
from oscillab.record.rows import Rows
from oscillab.record.sampling import Sample
from oscillab.record.settings import Settings
from oscillab.record.snapshot import snapshot
from oscillab.record.tracker import Tracker
from oscillab.record.watched import WatchedLayers
from oscillab.record.windows import Windows

WINDOW_TICKS = 250  # counts per weight are uint8, so 255 at most
STATE_VERSION = 1


def record(
    model: torch.nn.Module,
    optimizer,
    *,
    momentum: float = 0.01,
    threshold: float = 0.005,
    every: int = 1,
    ranges_every: int = 10,
    trajectories: int | Mapping[str, Sequence[int]] = 8,
    windows: int = 16,
    seed: int = 0,
) -> "Recorder":
    """A context manager that records the integer states of `model` at every step of `optimizer` while it is entered.

    `optimizer`: a torch optimizer, or anything with `register_step_post_hook` (an `Ema`, with its model).
    `momentum`, `threshold`: of the oscillation frequency per tick, and the frequency above which a weight oscillates.
    `every`: a tick looks at every k-th step; what a weight does in between is not seen.
    `ranges_every`: input ranges are observed at every k-th tick; 0 never.
    `trajectories`: weights per layer, drawn by `seed`, whose whole course is kept; or layer name -> flat indices.
    `windows`: how many windows of time the flips of each weight are kept in at most; 1 keeps totals only.
    Memory: 8 bytes a weight and 2 of scratch, compressed windows, and per tick 28 bytes a layer and 9 a trajectory.
    Raises ValueError when nothing is quantized or the optimizer does not own the weights; and, out of the optimizer's
    step, when a layer was replaced or a weight is NaN: recording then ends, and what was recorded stays readable.
    """
    settings = Settings(momentum, threshold, every, ranges_every, windows, seed)
    return Recorder(model, optimizer, settings=settings, trajectories=trajectories)


class Recorder:
    """Made by `record`. `step_count`: optimizer steps seen; `tick_count`: those that were recorded."""

    def __init__(self, model, optimizer, *, settings: Settings, trajectories):
        self.settings = settings
        self.layers = WatchedLayers(model)
        self.layers.check_owned_by(optimizer)
        if not callable(getattr(optimizer, "register_step_post_hook", None)):
            raise ValueError(f"optimizer must have register_step_post_hook(hook), {type(optimizer).__name__} has not")
        self.sample = Sample(self.layers, trajectories, seed=settings.seed)
        self.step_count = self.tick_count = 0
        self.stopped = None  # why recording ended before its block did
        self.tracker = None
        self._optimizer, self._handle, self._last_flip_count = optimizer, None, 0

    def __enter__(self) -> "Recorder":
        if self.tracker is not None:
            raise ValueError("a recorder records once; call record() again for another recording")
        self._begin()
        self._handle = self._optimizer.register_step_post_hook(self._after_step)
        self._arm_when_due()
        return self

    def __exit__(self, *exception) -> None:
        self._end()

    def last_flip_count(self) -> int:
        """How many weights changed their integer state at the last tick."""
        return self._last_flip_count

    def bytes_per_weight(self) -> float:
        """Memory a weight takes while recording, without the compressed windows and the rows over time."""
        self._check_begun()
        return self.tracker.bytes_per_weight

    def recording(self) -> Recording:
        """All that was recorded so far, as plain arrays; recording goes on."""
        self._check_begun()
        return snapshot(self)

    def histograms(self) -> list[np.ndarray]:
        """Counts of each layer's latent weights over their position, now or as they were when recording ended."""
        return self._last_histograms if self._handle is None else self._histograms()

    def state_dict(self) -> dict:
        """What a later run needs to go on, in tensors and plain containers; take it between two optimizer steps."""
        self._check_begun()
        return self._identity() | {
            "counts": [self.step_count, self.tick_count, self._last_flip_count],
            "limits": [list(pair) for pair in self.limits],
            "histograms": [torch.from_numpy(histogram) for histogram in self.first_histograms],
            "tracker": self.tracker.state_dict(),
            "windows": self.windows.state_dict(),
            "rows": self.rows.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`, made by `state_dict`; call it inside the block, before the first step.

        The recording is then the one of the uninterrupted run, value for value. Raises ValueError when `state` was made
        with another version, other layers, settings or trajectories.
        """
        self._check_begun()
        for what, mine in self._identity().items():
            if state.get(what) != mine:
                raise ValueError(f"the state comes from a recorder of other {what}: {differing(state.get(what), mine)}")
        self.step_count, self.tick_count, self._last_flip_count = state["counts"]
        self.limits = [tuple(pair) for pair in state["limits"]]
        self.first_histograms = [histogram.cpu().numpy() for histogram in state["histograms"]]
        self.tracker.load_state_dict(state["tracker"])
        self.windows.load_state_dict(state["windows"])
        self.rows.load_state_dict(state["rows"])
        self._arm_when_due()

    def _identity(self) -> dict:
        return {
            "version": STATE_VERSION,
            "settings": asdict(self.settings),
            "layers": {layer.name: list(layer.shape) for layer in self.layers.layers},
            "trajectories": dict(enumerate(self.sample.index.tolist())),
        }

    @torch.no_grad()
    def _begin(self) -> None:
        layers, step_sizes = self.layers, self.layers.checked_step_sizes()
        self._scratch = layers.integer_states(torch.empty(layers.weight_count, dtype=torch.int8, device=layers.device))
        self.tracker = Tracker(self._scratch, momentum=self.settings.momentum)
        self.windows = Windows(limit=self.settings.windows)
        self.rows = Rows(layers, self.sample)
        self.limits = [limits_of(layer.bits, self._scratch[layer.slice]) for layer in layers.layers]
        self.first_histograms = self._last_histograms = self._histograms()
        self._observer = RangeObserver([layers.modules[i] for i in layers.ranged], layers.device)
        none = torch.zeros(0, dtype=torch.int64, device=layers.device)
        self.rows.add_tick(0, none, none, step_sizes=step_sizes, state=self.tracker.state)
        self.rows.add_step_sizes(0, step_sizes)

    @torch.no_grad()
    def _after_step(self, *_) -> None:
        self.step_count += 1
        if self.step_count % self.settings.every == 0:
            self._tick()
        self._arm_when_due()

    def _tick(self) -> None:
        step_sizes = self._checked_step_sizes()
        self.tick_count += 1
        flipped, oscillated = self.tracker.update(self.layers.integer_states(self._scratch))
        self._last_flip_count = len(flipped)
        self.rows.add_tick(self.step_count, flipped, oscillated, step_sizes=step_sizes, state=self.tracker.state)
        if self._ranges_due(self.tick_count):
            self.rows.add_ranges(self.step_count, self._observer.row())
        if self.tick_count % WINDOW_TICKS == 0:
            counts = (count.numpy() for count in self.tracker.take_counts())
            self.windows.add(self.tick_count - WINDOW_TICKS + 1, self.tick_count, *counts)
            self.rows.add_step_sizes(self.step_count, step_sizes)

    def _checked_step_sizes(self) -> torch.Tensor:
        try:
            return self.layers.checked_step_sizes()
        except ValueError as error:
            self.stopped = f"{error}, seen after step {self.step_count}"
            self._end()
        raise ValueError(f"{self.stopped}; recording has ended, {self.tick_count} recorded steps stay readable")

    def _ranges_due(self, tick: int) -> bool:
        return bool(self.layers.ranged and self.settings.ranges_every and tick % self.settings.ranges_every == 0)

    def _arm_when_due(self) -> None:
        """Look at the coming forwards only where the step after them records ranges."""
        ticks_next = (self.step_count + 1) % self.settings.every == 0
        self._observer.arm() if ticks_next and self._ranges_due(self.tick_count + 1) else self._observer.disarm()

    def _histograms(self) -> list[np.ndarray]:
        pairs = zip(self.layers.layers, self.limits, strict=True)
        return [position_histogram(layer, *limits) for layer, limits in pairs]

    def _end(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._observer.disarm()
            self._handle = None
            self._last_histograms = self._histograms()

    def _check_begun(self) -> None:
        if self.tracker is None:
            raise ValueError("nothing is recorded yet: use `with record(model, optimizer) as recorder:`")


def differing(theirs, mine) -> str:
    """The first entry that differs between two dicts or values, in words."""
    if not (isinstance(theirs, dict) and isinstance(mine, dict)):
        return f"{theirs} and {mine}"
    key = next(key for key in [*theirs, *mine] if theirs.get(key) != mine.get(key))
    return f"{key} is {theirs.get(key)} there and {mine.get(key)} here"

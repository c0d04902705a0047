"""Which weights oscillate while this model trains?

`with record(model, optimizer) as recorder:` around any training loop; then `recorder.recording()`. It ticks after
optimizer steps, never on a forward, and reads layers through three methods (see `watched.py`). Nothing is attached to
the model: it can be copied, pickled and saved while it is recorded.
"""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
import torch

from oscillab.recording.gradients import GradientSigns
from oscillab.recording.positions import limits_of, position_histogram
from oscillab.recording.ranges import RangeObserver
from oscillab.recording.ranks import Ranks, without_wrapper
from oscillab.recording.recording import Recording
from oscillab.recording.resume import check_state, restore, state_of
from oscillab.recording.rows import Rows
from oscillab.recording.sampling import Sample
from oscillab.recording.settings import Settings
from oscillab.recording.snapshot import snapshot, window_arrays
from oscillab.recording.tracker import Tracker
from oscillab.recording.watched import WatchedLayers
from oscillab.recording.windows import Windows
from oscillab.recording.writer import Writer

WINDOW_TICKS = 250  # counts per weight are uint8, so 255 at most


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
    path: str | PathLike | None = None,
    ranks_every: int = 250,
) -> "Recorder":
    """A context manager that records the integer states of `model` at every step of `optimizer` while it is entered.

    `optimizer`: a torch optimizer, or anything with `register_step_post_hook` (an `Ema`, with its model).
    `momentum`, `threshold`: of the oscillation frequency per tick, and the frequency above which a weight oscillates.
    `every`: a tick looks at every k-th step; what a weight does in between is not seen.
    `ranges_every`: input ranges are observed at every k-th tick; 0 never.
    `trajectories`: weights per layer, drawn by `seed`, whose whole course is kept; or layer name -> flat indices.
    `windows`: how many windows of time the flips of each weight are kept in at most; 1 keeps totals only.
    `path`: a file that is written at every 250th tick and at the end; a crash leaves what it holds readable.
    `ranks_every`: in distributed training every rank calls `record`. Rank 0 records, and at every k-th tick all compare
    their integer states, which must not differ; 0 never, for a process that records alone.
    Memory: 8 bytes a weight and 2 of scratch, compressed windows, and per tick 36 bytes a layer and 9 a trajectory.
    Raises ValueError when nothing is quantized or the optimizer does not own the weights; and, out of the optimizer's
    step, when a layer was replaced, a weight is NaN or ranks differ: recording then ends, and what was recorded stays
    readable.
    """
    settings = Settings(momentum, threshold, every, ranges_every, windows, seed)
    ranks, writer = Ranks(ranks_every), Writer(path) if path else None
    return Recorder(model, optimizer, settings=settings, trajectories=trajectories, ranks=ranks, writer=writer)


class Recorder:
    """Made by `record`. `step_count`: optimizer steps seen; `tick_count`: those that were recorded."""

    def __init__(self, model, optimizer, *, settings: Settings, trajectories, ranks: Ranks, writer: Writer | None):
        self.settings, self.ranks = settings, ranks
        self.writer = writer if ranks.records else None
        self.layers = WatchedLayers(without_wrapper(model))
        self.layers.check_owned_by(optimizer)
        if not callable(getattr(optimizer, "register_step_post_hook", None)):
            raise ValueError(f"optimizer must have register_step_post_hook(hook), {type(optimizer).__name__} has not")
        self.sample = Sample(self.layers, trajectories, seed=settings.seed)
        self.step_count = self.tick_count = 0
        self.stopped = None  # why recording ended before its block did
        self._begun = False
        self._optimizer, self._handle, self._last_flip_count = optimizer, None, 0

    def __enter__(self) -> "Recorder":
        if self._begun:
            raise ValueError("a recorder records once; call record() again for another recording")
        self._begin()
        self._handle = self._optimizer.register_step_post_hook(self._after_step)
        self._arm_when_due()
        return self

    def __exit__(self, *exception) -> None:
        self._end()
        if self.writer:
            self.writer.finish(self)

    def last_flip_count(self) -> int:
        """How many weights changed their integer state at the last tick."""
        return self._last_flip_count

    def bytes_per_weight(self) -> float:
        """Memory a weight takes while recording, without the compressed windows and the rows over time."""
        self._check_records()
        return self.tracker.bytes_per_weight

    def recording(self) -> Recording:
        """All that was recorded so far, as plain arrays; recording goes on."""
        self._check_records()
        return snapshot(self)

    def histograms(self) -> list[np.ndarray]:
        """Counts of each layer's latent weights over their position, now or as they were when recording ended."""
        return self._last_histograms if self._handle is None else self._histograms()

    def state_dict(self) -> dict:
        """What a later run needs to go on, in tensors and plain containers; take it between two optimizer steps."""
        self._check_records()
        return state_of(self)

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`, made by `state_dict`; call it inside the block, before the first step.

        The recording is then the one of the uninterrupted run, value for value. Raises ValueError when `state` was made
        with another version, other layers, settings or trajectories.
        """
        self._check_begun()
        check_state(self, state)
        self.step_count, self.tick_count, self._last_flip_count = state["counts"]
        if self.ranks.records:
            restore(self, state)
        if self.writer:
            self.writer.restart()
        self._arm_when_due()

    @torch.no_grad()
    def _begin(self) -> None:
        layers, step_sizes = self.layers, self.layers.checked_step_sizes()
        self._scratch = layers.integer_states(torch.empty(layers.weight_count, dtype=torch.int8, device=layers.device))
        self._begun = True
        ranged = layers.ranged if self.ranks.records else []
        self._observer = RangeObserver([layers.modules[i] for i in ranged], layers.device)
        if self.ranks.due(0):
            self.ranks.compare(layers, self._scratch, 0)
        if self.ranks.records:
            self._begin_recording(step_sizes)

    def _begin_recording(self, step_sizes: torch.Tensor) -> None:
        layers = self.layers
        self.tracker = Tracker(self._scratch, momentum=self.settings.momentum)
        self.windows = Windows(limit=self.settings.windows)
        self.gradients = GradientSigns(layers)
        self.rows = Rows(layers, self.sample, self.gradients)
        self.limits = [limits_of(layer.bits, self._scratch[layer.slice]) for layer in layers.layers]
        self.first_histograms = self._last_histograms = self._histograms()
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
        step_sizes = self._or_stop(self.layers.read, self._scratch) if self.ranks.records else None
        self.tick_count += 1
        if self.ranks.records:
            self._record(step_sizes)
        if self.ranks.due(self.tick_count):
            states = self._scratch if self.ranks.records else self.layers.integer_states(self._scratch)
            self._or_stop(self.ranks.compare, self.layers, states, self.tick_count)

    def _record(self, step_sizes: torch.Tensor) -> None:
        flipped, oscillated = self.tracker.update(self._scratch)
        self._last_flip_count = len(flipped)
        self.rows.add_tick(self.step_count, flipped, oscillated, step_sizes=step_sizes, state=self.tracker.state)
        if self._ranges_due(self.tick_count):
            self.rows.add_ranges(self.step_count, self._observer.row())
        if self.tick_count % WINDOW_TICKS == 0:
            self.rows.add_step_sizes(self.step_count, step_sizes)
            self._end_window()

    def _end_window(self) -> None:
        counts = [self.layers.in_order(count).numpy() for count in self.tracker.take_counts()]
        ticks = self.tick_count - WINDOW_TICKS + 1, self.tick_count
        self.windows.add(*ticks, *counts)
        if self.writer:
            self.writer.add(self, window_arrays(*ticks, *counts))

    def _or_stop(self, check, *arguments):
        """What `check` returns; where it raises ValueError, recording ends and the error says that it did."""
        try:
            return check(*arguments)
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
            self._last_histograms = self._histograms() if self.ranks.records else []

    def _check_begun(self) -> None:
        if not self._begun:
            raise ValueError("nothing is recorded yet: use `with record(model, optimizer) as recorder:`")

    def _check_records(self) -> None:
        self._check_begun()
        if not self.ranks.records:
            raise ValueError(f"rank {self.ranks.rank} records nothing; rank 0 does")

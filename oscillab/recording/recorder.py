"""Record which weights oscillate while a model trains.

A recorder ticks after optimizer steps, never on a forward, and reads layers through three methods (see `layers.py`).
Nothing is attached to the model: it can be copied, pickled and saved while it is recorded.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from oscillab.recording.crowding import Crowding, position_histogram
from oscillab.recording.layers import WatchedLayers
from oscillab.recording.observers import GradientSigns, RangeObserver, Ranks, hooked, skipped, unowned, without_wrapper
from oscillab.recording.recording import Recording, gaps
from oscillab.recording.snapshot import (
    Writer,
    check_state,
    limits_of,
    meta,
    restore,
    snapshot,
    state_of,
)
from oscillab.recording.time_series import Rows, Sample
from oscillab.recording.tracker import Tracker, Unseen, Windows

WINDOW_TICKS = 250  # counts per weight are uint8, so 255 at most
T = TypeVar("T")
Trajectories = int | Mapping[str, Sequence[int]]

log = logging.getLogger(__name__)


def record(
    model: nn.Module,
    optimizer: Any,
    *,
    momentum: float = 0.01,
    threshold: float = 0.005,
    every: int = 1,
    ranges_every: int = 10,
    trajectories: Trajectories = 8,
    windows: int = 16,
    seed: int = 0,
    path: str | PathLike[str] | None = None,
    ranks_every: int = 250,
) -> "Recorder":
    """Return a context manager that records the integer states of `model` at every step of `optimizer` within it.

    `optimizer`: a torch optimizer, a wrapper around one, or anything with `register_step_post_hook` (an `Ema`).
    `momentum`, `threshold`: of the oscillation frequency per tick, and above which a weight oscillates (2203.11086's).
    `every`: a tick looks at every k-th step; what a weight does in between is not seen.
    `ranges_every`: input ranges are observed at every k-th tick; 0 never.
    `trajectories`: weights per layer, drawn by `seed`, whose full trajectory is kept; or layer name -> flat indices.
    `windows`: in how many windows of time at most the flips of each weight are kept.
    `path`: a file that is written at the end and, where that takes less than a twentieth of the time, at every 250th
    tick; a killed process leaves what it holds readable.
    `ranks_every`: in distributed training every rank calls `record`. Rank 0 records, and at every k-th tick all compare
    their integer states, which must not differ; 0 never, for a process that records alone.
    Memory: 8 bytes a weight and 2 of scratch, compressed windows, and per tick 36 bytes a layer and 9 a trajectory.
    Raises ValueError when nothing is quantized or the optimizer does not own the weights; and, out of its step, when a
    layer was replaced, a weight is NaN or ranks differ: recording then ends, and what was recorded stays readable.
    """
    settings = {"momentum": momentum, "threshold": threshold, "every": every, "ranges_every": ranges_every}
    settings |= {"windows": windows, "seed": seed}
    if not 0 < momentum <= 1:
        raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}")
    for name, least in (("threshold", 0), ("every", 1), ("ranges_every", 0), ("windows", 1), ("ranks_every", 0)):
        if (given := (settings | {"ranks_every": ranks_every})[name]) < least:
            raise ValueError(f"{name} must be {least} or more, got {given}")
    recorder = Recorder(model, optimizer, settings, trajectories=trajectories, ranks=Ranks(ranks_every))
    recorder.writer = Writer(path) if path and recorder.ranks.records else None
    return recorder


class Recorder:
    """Made by `record`. `step_count`: optimizer steps seen; `tick_count`: those that were recorded."""

    def __init__(
        self, model: nn.Module, optimizer: Any, settings: dict[str, Any], *, trajectories: Trajectories, ranks: Ranks
    ):
        self.settings, self.ranks, self.writer = settings, ranks, cast("Writer | None", None)
        self.layers = WatchedLayers(without_wrapper(model))
        self._optimizer = hooked(optimizer)
        self.unowned_layers, self.unowned_step_sizes = unowned(self._optimizer, self.layers)
        self.sample = Sample(self.layers, trajectories, seed=settings["seed"])
        self.step_count = self.tick_count = self._last_flip_count = 0
        self.stopped: str | None = None  # why recording ended before its block did
        self._begun = self._running = False

    def __enter__(self) -> "Recorder":
        if self._begun:
            raise ValueError("a recorder records once; call record() again for another recording")
        self._begin()
        self._hooks = [self._optimizer.register_step_post_hook(self._after_step)]
        if self.ranks.records and hasattr(self._optimizer, "register_step_pre_hook"):
            self._hooks.append(self._optimizer.register_step_pre_hook(self._before_step))
        self._running = True
        self._arm_when_due()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        for gap in gaps(meta(self)) if self.ranks.records else []:
            log.warning("recording: %s", gap)
        if self.writer:
            self.writer.finish(self)

    def last_flip_count(self) -> int:
        """Return how many weights flipped at the last tick."""
        return self._last_flip_count

    def unseen_flip_count(self) -> int:
        """Count the weights whose state had changed since the last tick when a step, or this call, looked at them."""
        look = self._running and self.step_count % self.settings["every"] == 0
        return self._unseen.flip_count + (self._unseen.now(self._scratch) if look else 0)

    def bytes_per_weight(self) -> float:
        """Return the memory that a weight takes while recording, without the compressed windows and the rows."""
        self._check()
        return self.tracker.bytes_per_weight

    def recording(self) -> Recording:
        """Return all that was recorded so far, as plain arrays; recording goes on."""
        self._check()
        return snapshot(self)

    def histograms(self) -> list[np.ndarray]:
        """Count each layer's latent weights over their position, now or as they were when recording ended."""
        return self._histograms() if self._running else self._last_histograms

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run needs to go on, in tensors and plain containers; take it between two steps."""
        self._check()
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, made by `state_dict`; call it inside the block, before the first step.

        The recording is then the one of the uninterrupted run, value for value. Raises ValueError when `state` was made
        with another version, other layers, settings or trajectories.
        """
        self._check(records=False)
        check_state(self, state)
        self.step_count, self.tick_count, self._last_flip_count = state["counts"]
        if self.ranks.records:
            restore(self, state)
            self._unseen.restore(state.get("unseen_flip_count", 0))
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
        if not self.ranks.records:
            return
        self.tracker = Tracker(self._scratch, momentum=self.settings["momentum"])
        self.windows = Windows(limit=self.settings["windows"])
        self.gradients, self._unseen = GradientSigns(layers), Unseen(layers, self.tracker)
        self.rows = Rows(layers, self.sample, self.gradients)
        self.limits = [limits_of(layer.bits, self._scratch[layer.slice]) for layer in layers.layers]
        self.first_histograms = self._last_histograms = self._histograms()
        self.crowding = Crowding(layers, self.limits)
        none = torch.zeros(0, dtype=torch.int64, device=layers.device)
        self.rows.add_tick(0, none, none, step_sizes=step_sizes, state=self.tracker.state)
        self.rows.add_step_sizes(0, step_sizes)

    def _before_step(self, *_: object) -> None:
        if self.step_count % self.settings["every"] == 0:
            self._or_stop(self._unseen.look, self._scratch)

    @torch.no_grad()
    def _after_step(self, optimizer: object, *_: object) -> None:
        if skipped(optimizer):
            return
        self.step_count += 1
        if self.step_count % self.settings["every"] == 0:
            self._tick()
        self._arm_when_due()

    def _tick(self) -> None:
        step_sizes = self._or_stop(self.layers.read, self._scratch) if self.ranks.records else None
        self.tick_count += 1
        if step_sizes is not None:
            self._record(step_sizes)
        if self.ranks.due(self.tick_count):
            states = self._scratch if self.ranks.records else self.layers.integer_states(self._scratch)
            self._or_stop(self.ranks.compare, self.layers, states, self.tick_count)

    def _record(self, step_sizes: Tensor) -> None:
        flipped, oscillated = self.tracker.update(self._scratch)
        self._last_flip_count = len(flipped)
        self._unseen.mark()
        self.rows.add_tick(self.step_count, flipped, oscillated, step_sizes=step_sizes, state=self.tracker.state)
        self.crowding.add_when_due(self.step_count)
        if self._ranges_due(self.tick_count):
            self.rows.add_ranges(self.step_count, self._observer.row())
        if self.tick_count % WINDOW_TICKS == 0:
            self.rows.add_step_sizes(self.step_count, step_sizes)
            flips, oscillations = (self.layers.in_order(count).numpy() for count in self.tracker.take_counts())
            self.windows.add(self.tick_count - WINDOW_TICKS + 1, self.tick_count, flips, oscillations)
            if self.writer:
                self.writer.update(self)

    def _or_stop(self, check: Callable[..., T], *arguments: object) -> T:
        """Return what `check` returns; where it raises ValueError, recording ends and the error says that it did."""
        try:
            return check(*arguments)
        except ValueError as error:
            self.stopped = f"{error}, seen after step {self.step_count}"
        self._end()
        raise ValueError(f"{self.stopped}; recording has ended, {self.tick_count} recorded steps stay readable")

    def _ranges_due(self, tick: int) -> bool:
        return bool(self.layers.ranged and (every := self.settings["ranges_every"]) and tick % every == 0)

    def _arm_when_due(self) -> None:
        """Look at the coming forwards only where the step after them records ranges."""
        due = (self.step_count + 1) % self.settings["every"] == 0 and self._ranges_due(self.tick_count + 1)
        self._observer.arm() if due else self._observer.disarm()

    def _histograms(self) -> list[np.ndarray]:
        return [position_histogram(one, *ends) for one, ends in zip(self.layers.layers, self.limits, strict=True)]

    def _end(self) -> None:
        if not self._running:
            return
        if self.ranks.records and self.stopped is None:
            self.stopped = self._unseen.finish(self._scratch, every_step=self.step_count % self.settings["every"] == 0)
        for handle in self._hooks:
            handle.remove()
        self._observer.disarm()
        self._running = False
        self._last_histograms = self._histograms() if self.ranks.records else []

    def _check(self, *, records: bool = True) -> None:
        if not self._begun:
            raise ValueError("nothing is recorded yet: use `with record(model, optimizer) as recorder:`")
        if records and not self.ranks.records:
            raise ValueError(f"rank {self.ranks.rank} records nothing; rank 0 does")

"""Watch a training run in a notebook while it goes on, and stop it from its own cell.

A kernel that is busy in a cell hears no button, one that awaits does. So the run goes into a thread of its own, and the
cell awaits its end, `await oscillab.plot.live(recorder).fit(trainer)`; the next cell waits as ever.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display

from oscillab.methods import method
from oscillab.recording.tables import LOW_BITS

from .style import INK, QUIET, new_figure, set_labels
from .widgets import ImageBox

PAUSE = 2.0  # seconds between two figures, at least
SHARE = 0.1  # of the time, at most, that drawing takes, in another thread than training
LISTENING = 1.0  # seconds after which an interrupted kernel is noticed, at the latest
SPREAD = (0.1, 0.5, 0.9)  # quantiles over layers
LABELS = ("training loss", "weights that flip in a step (%)", "step size / first step size")
EXPLAINED = "Step sizes: the median layer, and the middle 80 % of layers (thin)"


class Live(ImageBox):
    """Loss, flips and step sizes of a run while it goes on, and a Stop button. A callback of a `Trainer`.

    `recorders`: a Recorder, or name -> Recorder ("lsq" of the live model, "ema" of its average), already entered.
    For a loop of one's own: `await live.run(function)`; the function calls `live.note(step, loss)` after each step and
    returns once `live.stopping` is true. Interrupting the kernel stops a run as the button does, after the step that is
    under way. Raises ValueError for a recorder whose block was not entered, or without layers of at most 4 bits.
    """

    clock = staticmethod(time.perf_counter)  # another one is for tests and benchmarks

    def __init__(self, recorders: Any):
        super().__init__()
        runs = recorders if isinstance(recorders, Mapping) else {"lsq": recorders}
        self.curves = {name: FlipCurves(recorder) for name, recorder in runs.items()}
        self.losses: list[tuple[int, float]] = []
        self.stopping = self._fresh = False
        tooltip = "Stop after the step that is under way; what was trained so far stays"
        self.button = ipywidgets.Button(description="Stop", icon="stop", disabled=True, tooltip=tooltip)
        self.status = ipywidgets.HTML("not started")
        self.children = [ipywidgets.HBox([self.button, self.status]), self.image]
        self.button.on_click(lambda button: self.stop())
        self._trainer: Any = None
        self._display_handle: Any = None
        self._total = 0
        self._started = self._due = self.clock()
        self.draw()

    def __repr__(self) -> str:
        return f"Live({', '.join(self.curves)})"

    async def fit(self, trainer: Any) -> Any:
        """Return what `trainer.fit()` returns, once it has ended or was stopped; a stopped one goes on from there."""
        trainer.callbacks.append(self)
        try:
            return await self.run(trainer.fit)
        finally:
            trainer.callbacks.remove(self)

    async def run(self, train: Callable[[], Any]) -> Any:
        """Return what `train()` returns; it runs in a thread, so that the kernel hears the Stop button meanwhile."""
        self.stopping, self.button.disabled = False, False
        self._started = self.clock()
        self._display()
        work = asyncio.create_task(asyncio.to_thread(train))
        try:
            while not work.done():
                self._draw_if_due()
                self.status.value = self.sentence()
                try:
                    await asyncio.wait({work}, timeout=LISTENING)
                except asyncio.CancelledError:  # the kernel was interrupted
                    self.stop()
            return work.result()
        finally:
            self._finish()

    def stop(self) -> None:
        """End the run after the step that is under way."""
        self.stopping, self.button.disabled = True, True
        if self._trainer:
            self._trainer.stop()

    def start(self, trainer: Any) -> None:
        """Note the length of the run; a Trainer calls this before its first step."""
        self._trainer, self._total = trainer, trainer.total_steps
        self.stopping &= not _in_main_thread()
        if self.stopping:  # pressed before the first step
            trainer.stop()
        self._display()

    def step_end(self, trainer: Any) -> None:
        """Note a step; a Trainer calls this after every one."""
        self.note(trainer.step, trainer.last_loss)

    def end(self, trainer: Any) -> None:
        """Draw the last figure of a run that nobody awaits; a Trainer calls this when it has ended."""
        if _in_main_thread():
            self._finish()

    def note(self, step: int, loss: float) -> None:
        """Note the loss of a step; the figure follows where one is due."""
        self.losses.append((step, loss))
        if not self._fresh and self.clock() >= self._due:
            for curves in self.curves.values():
                curves.read()  # here, in the thread that records
            self._fresh = True
            if _in_main_thread():  # a run that nobody awaits
                self._draw_if_due()

    def sentence(self, *, clock: bool = True) -> str:
        """Return where the run is, in one line; without the clock it is the same in every such run."""
        if not self.losses:
            ended = self._trainer and self._trainer.step == self._total
            return f"all {self._total} steps were made before" if ended else "no step yet"
        step, loss = self.losses[-1]
        of, seconds = f" of {self._total}" * bool(self._total), f", {self.clock() - self._started:.0f} s" * clock
        flips = [f"{name} {100 * one.table['share'].iloc[-1]:.2g} %" for name, one in self.curves.items()]
        return f"step {step}{of}{seconds}, loss {loss:.3f}; flips in a step: {', '.join(flips)}"

    def draw(self, headline: str = "") -> None:
        """Draw loss, flips and step sizes so far into the image."""
        figure, axes = new_figure(9.6, 2.9, columns=len(LABELS))
        figure.set_layout_engine(None)  # places that are fixed are drawn three times as fast
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.17, top=0.87, wspace=0.38)
        figure.text(0.01, 0.98, f"{headline} {EXPLAINED}".strip(), ha="left", va="top", color=INK, fontsize=10)
        loss, flips, sizes = axes[0]
        rows = thinned(pd.DataFrame(self.losses[:], columns=["step", "loss"], dtype=float))
        loss.plot(rows["step"], rows["loss"], color=INK, linewidth=1.2)
        for name, curves in self.curves.items():
            rows, style = thinned(curves.table), method(name)
            flips.plot(rows["step"], 100 * rows["share"], **style.line(linewidth=1.4))
            lines = sizes.plot(rows["step"], rows[[*SPREAD]], **style.line(linewidth=0.7, alpha=0.6))
            lines[1].set(linewidth=1.4, alpha=1)
        sizes.axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
        flips.legend(frameon=False, fontsize=8, loc="upper right")
        for panel, text in zip(axes[0], LABELS, strict=True):
            set_labels(panel, x="optimizer step", y=text)
            panel.set_xlim(0, max(self._total, *(step for step, _ in self.losses[-1:]), 1))
            panel.set_ylim(bottom=None if panel is sizes else 0)
        self.image.value, self.status.value = figure.png(), self.sentence()

    def _draw_if_due(self) -> None:
        begin = self.clock()
        if self._fresh and begin >= self._due:
            self.draw()
            self._due = begin + max(PAUSE, (self.clock() - begin) / SHARE)
            self._fresh = False

    def _finish(self) -> None:
        self.button.disabled = True
        for curves in self.curves.values():
            curves.read()
        self.draw(f"{'Stopped after' if self.stopping else 'After'} {len(self.losses)} steps.")
        self.status.value = f"{'stopped' if self.stopping else 'done'}: {self.sentence(clock=False)}"
        if self._display_handle:
            self._display_handle.update(self)  # so that the notebook stores the last figure

    def _display(self) -> None:
        """Show the widget below the running cell, once; outside of a notebook nothing is shown."""
        if self._display_handle is None and get_ipython():
            self._display_handle = display(self, display_id=True)


class FlipCurves:
    """What a recorder has seen so far, read without a copy of what it holds per weight.

    `table`: a row per tick with `step`, `share` of the low-bit weights that flipped in the step (none in row 0), and the
    quantiles `SPREAD` over the low-bit layers of step size / first step size.
    """

    def __init__(self, recorder: Any):
        recorder.bytes_per_weight()  # raises where nothing is recorded yet
        layers = recorder.layers.layers
        self.recorder, self._seen = recorder, (0, 0, 0)
        self.chosen = [i for i, layer in enumerate(layers) if layer.bits is None or layer.bits <= LOW_BITS]
        if not self.chosen:
            raise ValueError(f"nothing to watch: none of the {len(layers)} recorded layers has at most {LOW_BITS} bits")
        self.weight_count = sum(int(np.prod(layers[i].shape)) for i in self.chosen)
        self.table, self._first = pd.DataFrame(), np.zeros(0)
        self.read()

    def read(self) -> None:
        """Add the rows that the recorder has made since the last call."""
        seen, self._seen = self._seen, self.recorder.rows.counts()
        rows = self.recorder.rows.arrays(seen)
        sizes = np.abs(rows["step_size"][:, self.chosen])
        self._first = self._first if len(self._first) else sizes[:1]
        shares = rows["layer_flip_count"][:, self.chosen].sum(1) / self.weight_count / self.recorder.settings["every"]
        spread = dict(zip(SPREAD, np.quantile(sizes / self._first, SPREAD, axis=1), strict=True))
        new = pd.DataFrame({"step": rows["step"], "share": np.where(rows["step"] > 0, shares, np.nan)} | spread)
        self.table = pd.concat([self.table, new], ignore_index=True) if len(self.table) else new


def thinned(table: pd.DataFrame, most: int = 300) -> pd.DataFrame:
    """Return a table of at most `most` rows, each the mean of as many neighbours."""
    return table.groupby(np.arange(len(table)) // max(1, -(-len(table) // most))).mean()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()

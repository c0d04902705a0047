"""What is a training run doing right now, and how is it stopped from its own cell?

A kernel that is busy in a cell hears no button: Jupyter hands a click to the thread that made the widget. A cell that
awaits hears them. So the run goes into a thread of its own, and the cell awaits its end:

    live = oscillab.plot.live(recorder)
    await live.fit(trainer)

The next cell waits as ever. Interrupting the kernel stops the run as the button does: after the step that is under way.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Mapping

import ipywidgets

from .curves import Curves
from .moving_picture import MovingPicture
from .pace import Pace
from .picture_box import PictureBox

LISTENING = 1.0  # seconds after which an interrupted kernel is noticed, at the latest


class Live(PictureBox):
    """Loss, flips and step sizes of a run while it goes on, and a Stop button. A callback of a `Trainer`.

    `recorders`: a Recorder, or method -> Recorder ("lsq" of the live model, "ema" of its average), already entered.
    For a loop of one's own: `await live.run(function)`; the function calls `live.note(step, loss)` after each step and
    returns once `live.stopping` is true. `pace`: how often the picture is drawn.
    """

    def __init__(self, recorders, *, pace=None):
        super().__init__()
        recorders = recorders if isinstance(recorders, Mapping) else {"lsq": recorders}
        self.curves = Curves(recorders)
        self.moving = MovingPicture(recorders)
        self.stopping, self.pace = False, pace or Pace()
        self.button = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.button.tooltip = "Stop after the step that is under way; what was trained so far stays"
        self.status = ipywidgets.HTML("not started")
        self.children = [ipywidgets.HBox([self.button, self.status]), self.picture]
        self.button.on_click(lambda button: self.stop())
        self._trainer, self._shown, self._total = None, None, None
        self._started = time.perf_counter()

    def __repr__(self):
        return f"Live({', '.join(self.curves.recorders)})"

    async def fit(self, trainer):
        """What `trainer.fit()` returns, once it has ended or was stopped; the picture follows it."""
        if self not in trainer.callbacks:
            trainer.callbacks.append(self)
        return await self.run(trainer.fit)

    async def run(self, train):
        """What `train()` returns; it runs in a thread, so that the kernel hears the Stop button meanwhile."""
        self.stopping, self._started = False, time.perf_counter()
        self.pace.start()
        self._display()
        self.button.disabled = False
        work = asyncio.create_task(asyncio.to_thread(train))
        try:
            while not work.done():
                try:
                    await asyncio.wait({work}, timeout=LISTENING)
                except asyncio.CancelledError:  # the kernel was interrupted
                    self.stop()
            return work.result()
        finally:
            self._finish()

    def stop(self):
        """End the run after the step that is under way."""
        self.stopping, self.button.disabled = True, True
        if self._trainer:
            self._trainer.stop()

    def start(self, trainer):
        """Called by a Trainer before its first step."""
        self._trainer, self._total = trainer, trainer.total_steps
        self.moving.expect(trainer.total_steps)
        self._started = time.perf_counter()
        self.pace.start()
        self.stopping &= not in_main_thread()
        if self.stopping:  # pressed before the first step
            trainer.stop()
        self._display()

    def step_end(self, trainer):
        """Called by a Trainer after every step."""
        self.note(trainer.step, trainer.last_loss)

    def end(self, trainer):
        """Called by a Trainer when it has ended."""
        if in_main_thread():  # a run that nobody awaits
            self._finish()

    def note(self, step, loss):
        """Note the loss of a step; the picture follows where one is due."""
        self.curves.add_loss(step, loss)
        self.pace.draw(self._refresh)

    def sentence(self, *, clock=True):
        """Where the run is, in one line; without the clock it is the same in every such run."""
        steps, losses = self.curves.loss
        if not steps:
            return "no step yet"
        of = f" of {self._total}" if self._total else ""
        flips = [f"{method} {100 * shares[-1]:.2g} %" for method, (_, shares) in self.curves.flips.items() if shares]
        seconds = f", {time.perf_counter() - self._started:.0f} s" if clock else ""
        return f"step {steps[-1]}{of}{seconds}, loss {losses[-1]:.3f}; flips in a step: {', '.join(flips)}"

    def _refresh(self, *, last=False):
        self.curves.read()
        self.moving.update(self.curves, last=last)
        self.picture.value = self.moving.png()
        self.status.value = self.sentence()

    def _finish(self):
        self.button.disabled = True
        self.moving.say(f"{'Stopped after' if self.stopping else 'After'} {len(self.curves.loss[0])} steps.")
        self._refresh(last=True)
        self.status.value = f"{'stopped' if self.stopping else 'done'}: {self.sentence(clock=False)}"
        if self._shown:
            self._shown.update(self)  # so that the notebook stores the last picture

    def _display(self):
        """Show the widget below the running cell, once; outside of a notebook nothing is shown."""
        if self._shown is None and "IPython" in sys.modules:
            from IPython import get_ipython
            from IPython.display import display

            if get_ipython():
                self._shown = display(self, display_id=True)


def in_main_thread():
    """Whether this is the kernel's own thread."""
    return threading.current_thread() is threading.main_thread()

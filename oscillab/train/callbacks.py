"""What happens beside a training step: the average moves, the bar counts flips, a checkpoint is kept."""

import math

from oscillab.train.trainer import Callback


class MoveEma(Callback):
    """Moves the average after every optimizer step."""

    def __init__(self, ema):
        self.ema = ema

    def step_end(self, trainer):
        """One update of the average."""
        self.ema.update()


class CountFlips(Callback):
    """Shows the flips of the last recorded step on the progress bar."""

    def __init__(self, recorder, *, every=10):
        self.recorder, self.every = recorder, every

    def step_end(self, trainer):
        """The count of weights whose integer state changed in this step."""
        if trainer.step % self.every == 0:
            trainer.notes["flips"] = self.recorder.last_flip_count()


class KeepCheckpoint(Callback):
    """Writes what a resumed run needs, every `every` steps, at the end of each pass and when the run is stopped.

    `write(trainer)` does the writing; it is not called while the loss is not finite or after an error in the middle of a
    step, so that the last good file stays.
    """

    def __init__(self, write, *, every=None):
        self.write, self.every, self.written_at = write, every, None

    def step_end(self, trainer):
        """A checkpoint every `every` steps."""
        if self.every and trainer.step % self.every == 0:
            self._write(trainer)

    def epoch_end(self, trainer):
        """A checkpoint after each pass."""
        self._write(trainer)

    def end(self, trainer):
        """A checkpoint of where the run was stopped."""
        self._write(trainer)

    def _write(self, trainer):
        if trainer.step != self.written_at and math.isfinite(trainer.last_loss) and not trainer.mid_step:
            self.write(trainer)
            self.written_at = trainer.step

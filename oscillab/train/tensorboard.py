"""How does a run look in TensorBoard while it goes on?

A callback beside the loop; the package comes with the extra `tensorboard` and is imported when a run begins.
"""

from pathlib import Path

from oscillab.train.trainer import Callback


class TensorBoard(Callback):
    """Writes scalars to `folder`, every `every` steps: loss and its parts, learning rate, what the bar notes, mean step times.

    Raises ValueError when it is made and the package `tensorboard` is absent. A resumed run goes on in the same folder:
    what an earlier run wrote past its last checkpoint is hidden.
    """

    def __init__(self, folder, *, every=20):
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.folder, self.every, self.writer = Path(folder), every, None
        self._kind = writer_kind()

    def start(self, trainer):
        """Open the folder's file of events."""
        self.writer = self._kind(str(self.folder), purge_step=trainer.step + 1)

    def step_end(self, trainer):
        """The scalars, every `every` steps."""
        if trainer.step % self.every:
            return
        values = {"loss/total": trainer.last_loss}
        values |= {f"loss/{name}": value for name, value in trainer.last_items.items()}
        values |= {f"rate/{group['name']}": group["lr"] for group in trainer.optimizer.param_groups}
        values |= {f"notes/{name}": value for name, value in trainer.notes.items()}
        values |= {f"seconds/{name}": value for name, value in trainer.clock.seconds().items()}
        for name, value in values.items():
            self.writer.add_scalar(name.replace(" ", "_"), value, trainer.step)

    def end(self, trainer):
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def writer_kind():
    """torch's SummaryWriter; raises ValueError, with the way out, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TensorBoard is not installed: pip install 'oscillab[tensorboard]', or leave the option out"
        ) from error
    return SummaryWriter

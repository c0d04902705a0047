"""How does a run that was stopped, by Ctrl-C or a crash, go on to the same result?"""

import csv
from pathlib import Path

import torch

from oscillab.atomic import replacing
from oscillab.qat.train import Callback
from oscillab.yolo import archive


def save_run(path, trainer, ema, recorders=None):
    """The path of the file that now holds all that a resumed run needs: model, average, optimizer, recorders."""
    state = {
        "model": trainer.model.state_dict(),
        "ema": ema.state_dict(),
        "trainer": trainer.state_dict(),
        "recorders": {name: recorder.state_dict() for name, recorder in (recorders or {}).items()},
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)
    return Path(path)


def continue_from(path, trainer, ema, recorders=None):
    """The step that the run goes on from, with everything set as it was when `save_run` wrote `path`."""
    if not Path(path).is_file():
        raise ValueError(f"nothing to resume: {path} is missing; start without resume")
    state = archive.read(path)
    if not isinstance(state, dict) or not {"model", "ema", "trainer"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of an interrupted run; start without resume")
    trainer.model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    trainer.load_state_dict(state["trainer"])
    for name, recorder in (recorders or {}).items():
        recorder.load_state_dict(state["recorders"][name])
    return trainer.step


class LossLog(Callback):
    """A CSV of the loss, its parts and the learning rate, a row every `every` steps."""

    def __init__(self, path, *, every=20, append=False):
        self.path, self.every, self.append = Path(path), every, append
        self.file = None

    def start(self, trainer):
        """Open the file; a resumed run appends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a" if self.append else "w", newline="")

    def step_end(self, trainer):
        """A row every `every` steps."""
        if trainer.step % self.every:
            return
        row = {"step": trainer.step, "rate": trainer.optimizer.param_groups[0]["lr"], "loss": trainer.last_loss}
        row |= trainer.last_items
        writer = csv.DictWriter(self.file, row)
        if self.file.tell() == 0:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
        self.file.flush()

    def end(self, trainer):
        """Close the file."""
        self.file.close()

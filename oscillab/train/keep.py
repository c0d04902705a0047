"""How does a run that was stopped, by Ctrl-C or a crash, go on to the same result?"""

import csv
from pathlib import Path

import torch

from oscillab.io import atomic_write
from oscillab.train.trainer import Callback
from oscillab.yolo import pt_file


def save_run(path, trainer, **parts):
    """The path of the file that now holds all that a resumed run needs: model, optimizer, and every one of `parts`.

    `parts`: mappings of name -> anything with a state_dict, such as averages=..., recorders=..., remedies=....
    """
    state = {"model": trainer.model.state_dict(), "trainer": trainer.state_dict()}
    state |= {kind: {name: one.state_dict() for name, one in each.items()} for kind, each in parts.items()}
    with atomic_write(path) as temporary:
        torch.save(state, temporary)
    return Path(path)


def continue_from(path, trainer, **parts):
    """The step that the run goes on from, with everything set as it was when `save_run` wrote `path`, in that order."""
    if not Path(path).is_file():
        raise ValueError(f"nothing to resume: {path} is missing; start without resume")
    state = pt_file.read(path)
    if not isinstance(state, dict) or not {"model", "trainer", *parts} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of an interrupted run; start without resume")
    _check_network(path, state["model"], trainer.model.state_dict())
    trainer.model.load_state_dict(state["model"])
    trainer.load_state_dict(state["trainer"])
    for kind, each in parts.items():
        for name, one in each.items():
            one.load_state_dict(state[kind][name])
    return trainer.step


def _check_network(path, given, wanted):
    """Nothing; raises ValueError, before anything is changed, where a state_dict is that of another network."""
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    shaped = [key for key in wanted.keys() & given.keys() if given[key].shape != wanted[key].shape]
    if missing or unknown or shaped:
        kinds = (missing, "lacks"), (unknown, "has besides"), (sorted(shaped), "has in another shape")
        found = "; ".join(f"{word} {len(keys)} tensors ({keys[0]})" for keys, word in kinds if keys)
        raise ValueError(
            f"{path} is of another network: it {found}; resume with the options of its run, or start without"
        )


class LossLog(Callback):
    """A CSV of the loss, its parts and the learning rate, a row every `every` steps.

    `append`: go on with the file of a run that is resumed; rows past the step that it goes on from are made again.
    """

    def __init__(self, path, *, every=20, append=False):
        self.path, self.every, self.append = Path(path), every, append
        self.file = None

    def start(self, trainer):
        """Open the file; a resumed run appends to the rows of the steps that it has behind it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._kept(trainer.step) if self.append and self.path.is_file() else ""
        self.file = open(self.path, "w", newline="")
        self.file.write(kept)

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

    def _kept(self, step):
        """The heading and the whole rows up to `step`, as text."""
        heading, *rows = self.path.read_text().splitlines(keepends=True) or [""]
        whole = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= step]
        return heading + "".join(whole)

    def end(self, trainer):
        """Close the file."""
        self.file.close()

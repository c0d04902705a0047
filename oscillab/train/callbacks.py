"""Act beside training: move the average, log the loss, save checkpoints and resume, stop in order.

A callback is any object with some of four methods, each of which is given the running `Trainer`: `start` is called before the
first step of a `fit`, `step_end` after every optimizer step, `epoch_end` after every pass over the data, and `end` when `fit`
ends, whatever ended it.
"""

import csv
import logging
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from oscillab.io import atomic_write
from oscillab.quant import quant_layers
from oscillab.train.ema import Ema
from oscillab.yolo import pt_file

if TYPE_CHECKING:
    from oscillab.train.trainer import Trainer

AGAIN = "resume with the options of its run, or start without"
log = logging.getLogger(__name__)


class MoveEma:
    """Move the average after every optimizer step."""

    def __init__(self, ema: Ema):
        self.ema = ema

    def step_end(self, trainer: "Trainer") -> None:
        """Update the average once."""
        self.ema.update()


class SaveCheckpoint:
    """Save what a resumed run needs, by `save(trainer)`: every `every` steps, after each pass and when the run is stopped.

    Not while the loss is not finite or after an error in the middle of a step, so that the last good file stays.
    """

    def __init__(self, save: Callable[["Trainer"], Any], *, every: int | None = None):
        self.save, self.every, self.saved_at = save, every, -1

    def step_end(self, trainer: "Trainer") -> None:
        """Save every `every` steps."""
        if self.every and trainer.step % self.every == 0:
            self.end(trainer)

    def end(self, trainer: "Trainer") -> None:
        """Save after each pass and where the run was stopped, a step once."""
        if trainer.step != self.saved_at and math.isfinite(trainer.last_loss) and not trainer.mid_step:
            self.save(trainer)
            self.saved_at = trainer.step

    epoch_end = end


class LossLog:
    """Write a CSV of the loss, its parts and the learning rate, a row every `every` steps.

    `append`: go on with the file of a run that is resumed; rows past the step that it goes on from are made again.
    """

    def __init__(self, path: Path | str, *, every: int = 20, append: bool = False):
        self.path, self.every, self.append = Path(path), every, append

    def start(self, trainer: "Trainer") -> None:
        """Begin the file; a resumed run keeps the rows of the steps that it has behind it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = self.path.read_text().splitlines(keepends=True) if self.append and self.path.is_file() else []
        whole = [row for row in rows[1:] if row.endswith("\n") and int(row.partition(",")[0]) <= trainer.step]
        self.path.write_text("".join(rows[:1] + whole), newline="")

    def step_end(self, trainer: "Trainer") -> None:
        """Write a row every `every` steps."""
        if trainer.step % self.every:
            return
        row = {"step": trainer.step, "rate": trainer.optimizer.param_groups[0]["lr"], "loss": trainer.last_loss}
        row |= trainer.last_items
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


def save_checkpoint(path: Path | str, trainer: "Trainer", **parts: Mapping[str, Any]) -> Path:
    """Save all that a resumed run needs to `path`: model, optimizer, and every one of `parts`; return the path.

    `parts`: mappings of name -> anything with a state_dict, such as averages=..., recorders=..., remedies=....
    """
    state = {"model": trainer.model.state_dict(), "trainer": trainer.state_dict(), "context": context_of(trainer)}
    state |= {kind: {name: one.state_dict() for name, one in each.items()} for kind, each in parts.items()}
    with atomic_write(path) as temporary:
        torch.save(state, temporary)
    return Path(path)


def resume_from(path: Path | str, trainer: "Trainer", **parts: Mapping[str, Any]) -> int:
    """Set everything as it was when `save_checkpoint` wrote `path`; return the step that the run goes on from.

    Raises ValueError, before anything is changed, where the run is not the one that the checkpoint is of.
    """
    if not Path(path).is_file():
        raise ValueError(f"nothing to resume: {path} is missing; start without resume")
    state = pt_file.read(path)
    if not isinstance(state, dict) or not {"model", "trainer", *parts} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of an interrupted run; start without resume")
    given, own = state.get("context", {}), context_of(trainer)  # an older checkpoint says nothing of some
    words = [
        f"{name} is {given[name]} there, {own[name]} here" for name in own if given.get(name, own[name]) != own[name]
    ]
    if words:
        raise ValueError(f"{path} is of another run: {'; '.join(words[:3])}; {AGAIN}")
    given, own = state["model"], trainer.model.state_dict()
    found = {"lacks": own.keys() - given.keys(), "has besides": given.keys() - own.keys()}
    found["has in another shape"] = {key for key in own.keys() & given.keys() if given[key].shape != own[key].shape}
    if words := [f"{word} {len(keys)} tensors ({min(keys)})" for word, keys in found.items() if keys]:
        raise ValueError(f"{path} is of another network: it {'; '.join(words)}; {AGAIN}")
    trainer.model.load_state_dict(state["model"])
    trainer.load_state_dict(state["trainer"])
    for kind, each in parts.items():
        for name, one in each.items():
            one.load_state_dict(state[kind][name])
    return trainer.step


def context_of(trainer: "Trainer") -> dict[str, Any]:
    """Return what the result of a run depends on beside its state, in plain values by name."""
    spec, batches, layers = asdict(trainer.spec), trainer.batches, quant_layers(trainer.model).values()
    without = {"compile", "sync_bn", "check_every"} | ({"epochs"} if trainer.spec.schedule == "constant" else set())
    context = {name: value for name, value in spec.items() if name not in without} | {"batches": len(batches)}
    context |= {name: getattr(batches, name, None) for name in ("batch_size", "size", "seed", "shuffle", "masks")}
    augment, data = getattr(batches, "augment", None), getattr(batches, "dataset", None)
    context["augment"] = repr(augment) if is_dataclass(augment) else getattr(augment, "__name__", str(type(augment)))
    context["data"] = None if data is None else f"{len(data)} images of {getattr(data, 'name', type(data).__name__)}"
    context["bits"] = ", ".join(f"{n} layers of {bits}" for bits, n in Counter(layer.bits for layer in layers).items())
    return context


@contextmanager
def stop_on_interrupt(trainer: "Trainer") -> Iterator[None]:
    """Let Ctrl-C end the step that is under way and then the run; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        log.warning("stopping after this step; press Ctrl-C again to stop at once")
        signal.signal(signal.SIGINT, previous)
        trainer.stop()

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)

"""Take out of a recorder what it holds: as plain arrays, as a state to go on from, and into a file.

The file is written anew at the ends of windows of time, whole or not at all, as often as that takes little of the
training's time: whenever the process dies, it is a recording up to the last of them. At the end it holds everything.
"""

import logging
import math
import platform
import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import oscillab
from oscillab.recording.recording import Recording
from oscillab.recording.schema import FORMAT, VERSION

if TYPE_CHECKING:
    from oscillab.recording.recorder import Recorder

STATES = {"state": "integer_state", "direction": "direction", "frequency": "frequency"}  # of the tracker: its array
STATE_VERSION = 1
WRITE_SHARE = 0.05  # of the time from one write to the next, the most that the former may have taken

log = logging.getLogger(__name__)


def snapshot(recorder: "Recorder") -> Recording:
    """Return all that the recorder has seen so far; nothing in it is shared with the recorder."""
    arrays = recorder.rows.arrays() | {"sample_index": recorder.sample.index.copy()} | weight_arrays(recorder)
    arrays["position_count_first"] = np.concatenate(recorder.first_histograms)
    arrays["position_count"] = np.concatenate(recorder.histograms())
    arrays |= recorder.crowding.arrays()
    return Recording(meta=meta(recorder), arrays=arrays)


def weight_arrays(recorder: "Recorder") -> dict[str, np.ndarray]:
    """Return every weight's state and its counts, in all and in windows of time; the last window may be a short one."""
    tracked = recorder.tracker.state_dict()
    now = {name: recorder.layers.in_order(values).numpy() for name, values in tracked.items()}
    first, last, flips, oscillations = recorder.windows.arrays()
    begun = int(last[-1]) if len(last) else 0
    if recorder.tick_count > begun:
        first, last = np.append(first, begun + 1), np.append(last, recorder.tick_count)
        flips, oscillations = [*flips, now["flips"]], [*oscillations, now["oscillations"]]
    none = np.zeros((0, len(now["state"])), np.uint8)
    stacked = [np.stack(counts) if counts else none for counts in (flips, oscillations)]
    arrays = {array: now[name] for name, array in STATES.items()}
    arrays |= {f"{name}_count": stacked[i].sum(0, dtype=np.uint32) for i, name in enumerate(("flip", "oscillation"))}
    arrays |= {"window_first_tick": first, "window_last_tick": last}
    return arrays | {"window_flip_count": stacked[0], "window_oscillation_count": stacked[1]}


def meta(recorder: "Recorder") -> dict[str, Any]:
    """Return what the arrays mean, in what JSON can hold."""
    layers, versions = recorder.layers, {"oscillab": oscillab.__version__, "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "python": platform.python_version()}
    settings = {name: value for name, value in recorder.settings.items() if name != "windows"}
    counts: dict[str, Any] = {name: getattr(recorder, name) for name in ("step_count", "tick_count", "stopped")}
    counts |= {"unseen_flip_count": recorder.unseen_flip_count(), "unowned_layers": recorder.unowned_layers}
    counts |= {"unowned_step_sizes": recorder.unowned_step_sizes}
    about: list[dict[str, Any]]
    about = [{"name": one.name, "shape": list(one.shape), "bits": one.bits} for one in layers.layers]
    for i, (layer, (low, high)) in enumerate(zip(layers.layers, recorder.limits, strict=True)):
        gradients = [(side, i) in recorder.gradients.trained for side in (0, 1)]
        about[i] |= {"low": low, "high": high, "step_count": layer.step_count}
        about[i] |= {"has_range": i in layers.ranged, "has_gradient": gradients}
    return {"format": FORMAT, "version": VERSION, **settings, **counts, "versions": versions, "layers": about}


def state_of(recorder: "Recorder") -> dict[str, Any]:
    """Return what a later run needs to go on, in tensors and plain containers, weights by flat index."""
    tracked = recorder.tracker.state_dict()
    return identity(recorder) | {
        "counts": [recorder.step_count, recorder.tick_count, recorder.last_flip_count()],
        "unseen_flip_count": recorder.unseen_flip_count(),
        "limits": [list(pair) for pair in recorder.limits],
        "histograms": [torch.from_numpy(histogram) for histogram in recorder.first_histograms],
        "tracker": {name: recorder.layers.in_order(values) for name, values in tracked.items()},
        "windows": recorder.windows.state_dict(),
        "rows": recorder.rows.state_dict(),
        "crowding": recorder.crowding.state_dict(),
        "gradient_signs": recorder.gradients.last.cpu().clone(),
    }


def restore(recorder: "Recorder", state: dict[str, Any]) -> None:
    """Fill a recorder with `state`, made by `state_of`."""
    recorder.limits = [tuple(pair) for pair in state["limits"]]
    recorder.first_histograms = [histogram.cpu().numpy() for histogram in state["histograms"]]
    tracked = {name: recorder.layers.as_in_memory(values) for name, values in state["tracker"].items()}
    recorder.tracker.load_state_dict(tracked)
    recorder.windows.load_state_dict(state["windows"])
    recorder.rows.load_state_dict(state["rows"])
    if "crowding" in state:
        recorder.crowding.load_state_dict(state["crowding"])
    if "gradient_signs" in state:  # the first version that was used did not look at gradients
        recorder.gradients.last.copy_(state["gradient_signs"])


def identity(recorder: "Recorder") -> dict[str, Any]:
    """Return what has to be the same in both recorders."""
    return {
        "version": STATE_VERSION,
        "settings": dict(recorder.settings),
        "layers": {layer.name: list(layer.shape) for layer in recorder.layers.layers},
        "trajectories": dict(enumerate(recorder.sample.index.tolist())),
    }


def check_state(recorder: "Recorder", state: dict[str, Any]) -> None:
    """Raise ValueError where `state` comes from another version, other layers, settings or trajectories."""
    for what, mine in identity(recorder).items():
        if (theirs := state.get(what)) != mine:
            difference = f"{theirs} and {mine}"
            if isinstance(theirs, dict):  # the first entry that differs
                key = next(key for key in [*theirs, *mine] if theirs.get(key) != mine.get(key))
                difference = f"{key} is {theirs.get(key)} there and {mine.get(key)} here"
            raise ValueError(f"the state comes from a recorder of other {what}: {difference}")


def limits_of(bits: int | None, states: Tensor) -> tuple[int, int]:
    """Return the lowest and highest state of a layer: of its bits, or of the fewest bits that hold its states.

    Signed unless a state is too large for that.
    """
    low, high = int(states.min()), int(states.max())
    if bits is None:
        bits = next(b for b in range(2, 33) if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1))
    return (0, 2**bits - 1) if high >= 2 ** (bits - 1) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


class Writer:
    """Keeps the file at `path` up to date with a recorder."""

    def __init__(self, path: str | PathLike[str]):
        self.path = Path(path)
        self._took, self._written = 0.0, -math.inf  # seconds of the last write, and when it ended

    def update(self, recorder: "Recorder") -> None:
        """Write the recording as it is at the end of a window, unless the last write is too short a time ago.

        A failure, of a full disk for instance, is logged and does not stop the training: the next window tries again.
        """
        begun = time.perf_counter()
        if self._took > WRITE_SHARE * (begun - self._written):
            return
        recording = snapshot(recorder)
        recording.meta["unfinished"] = True
        try:
            recording.save(self.path)
        except OSError as error:
            log.warning("the recording could not be written at step %d: %s", recorder.step_count, error)
        self._written = time.perf_counter()
        self._took = self._written - begun

    def finish(self, recorder: "Recorder") -> None:
        """Write the whole recording; raises OSError where that fails."""
        snapshot(recorder).save(self.path)

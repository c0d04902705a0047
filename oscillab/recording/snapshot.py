"""What does a recorder hold at this moment, as plain arrays?"""

import platform

import numpy as np
import torch

import oscillab
from oscillab.recording.recording import FORMAT, VERSION, Recording

STATES = {"state": "integer_state", "direction": "direction", "frequency": "frequency"}  # of the tracker: its array


def snapshot(recorder) -> Recording:
    """A `Recording` of all that the recorder has seen so far; nothing in it is shared with the recorder."""
    arrays = recorder.rows.arrays() | {"sample_index": recorder.sample.index.copy()} | weight_arrays(recorder)
    arrays["position_count_first"] = np.concatenate(recorder.first_histograms)
    arrays["position_count"] = np.concatenate(recorder.histograms())
    return Recording(meta=meta(recorder), arrays=arrays)


def chunk(recorder, since: tuple[int, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that changed since `recorder.rows.counts()` was `since`, and the names of those that only grew.

    For the end of a window of time, whose own arrays are not among them.
    """
    rows = recorder.rows.arrays(since)
    now = {name: getattr(recorder.tracker, name) for name in ("state", "direction", "frequency")}
    ordered = {STATES[name]: recorder.layers.in_order(values).cpu().numpy() for name, values in now.items()}
    return rows | ordered | {"position_count": np.concatenate(recorder.histograms())}, list(rows)


def window_arrays(first: int, last: int, flips: np.ndarray, oscillations: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of one window of time, as a recording has them."""
    ticks = {"window_first_tick": np.array([first]), "window_last_tick": np.array([last])}
    return ticks | {"window_flip_count": flips[None], "window_oscillation_count": oscillations[None]}


def weight_arrays(recorder) -> dict[str, np.ndarray]:
    """The state of every weight, its counts, and the counts in windows of time; the last window may be a short one."""
    tracked = recorder.tracker.state_dict()
    now = {name: recorder.layers.in_order(values).numpy() for name, values in tracked.items()}
    first, last, flips, oscillations = recorder.windows.arrays()
    begun = int(last[-1]) if len(last) else 0
    if recorder.tick_count > begun:
        first, last = np.append(first, begun + 1), np.append(last, recorder.tick_count)
        flips, oscillations = [*flips, now["flips"]], [*oscillations, now["oscillations"]]
    none = np.zeros((0, len(now["state"])), np.uint8)
    flips, oscillations = (np.stack(counts) if counts else none for counts in (flips, oscillations))
    return {
        **{array: now[name] for name, array in STATES.items()},
        "flip_count": flips.sum(0, dtype=np.uint32),
        "oscillation_count": oscillations.sum(0, dtype=np.uint32),
        "window_first_tick": first,
        "window_last_tick": last,
        "window_flip_count": flips,
        "window_oscillation_count": oscillations,
    }


def meta(recorder) -> dict:
    """What the arrays mean, in what JSON can hold."""
    settings, layers = recorder.settings, recorder.layers
    return {
        "format": FORMAT,
        "version": VERSION,
        "momentum": settings.momentum,
        "threshold": settings.threshold,
        "every": settings.every,
        "ranges_every": settings.ranges_every,
        "seed": settings.seed,
        "step_count": recorder.step_count,
        "tick_count": recorder.tick_count,
        "stopped": recorder.stopped,
        "versions": {
            "oscillab": oscillab.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "bits": layer.bits,
                "low": low,
                "high": high,
                "step_count": layer.step_count,
                "has_range": i in layers.ranged,
                "has_gradient": [(side, i) in recorder.gradients.trained for side in (0, 1)],
            }
            for i, (layer, (low, high)) in enumerate(zip(layers.layers, recorder.limits, strict=True))
        ],
    }

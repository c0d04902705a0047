"""How does a recording become small enough to be kept beside the code?

    python -m oscillab.study.thin lsq.npz small.npz --layers "model.[0-4].*" "model.24.*" --no-windows

keeps some of the layers, fewer rows over time, or no windows of time. What is kept is kept value for value.
"""

import argparse
import difflib
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from oscillab.recording.recording import SAMPLED, Recording

PER = {  # what the last axis of an array counts
    "layer": ("layer_flip_count", "layer_oscillation_count", "step_size", "step_size_min", "step_size_max",
              "gradient_turn_count", "input_gradient_turn_count"),
    "range": ("clip_low", "clip_high", "observed_low", "observed_high", "clipped_share"),
    "step size": ("step_sizes",),
    "sampled weight": (*SAMPLED, "sample_index"),
    "weight": ("integer_state", "direction", "frequency", "flip_count", "oscillation_count",
               "window_flip_count", "window_oscillation_count"),
    "cell": ("position_count_first", "position_count"),
}  # fmt: skip


def of_layers(recording, names):
    """A recording of the layers of those names alone, in the order of the network.

    Raises ValueError for a name that the recording does not know.
    """
    wanted = {recording.layers[recording.index(name)]["name"] for name in names}
    chosen = np.array([name in wanted for name in recording.layer_names])
    kept = {kind: np.repeat(chosen, count) for kind, count in axis_counts(recording).items()}
    arrays = dict(recording.arrays)
    for kind, members in PER.items():
        arrays |= {name: arrays[name][..., kept[kind]] for name in members if name in arrays}
    if "sample_index" in arrays:
        arrays["sample_index"] = np.cumsum(kept["weight"])[arrays["sample_index"]] - 1
    layers = [about for about, taken in zip(recording.layers, chosen, strict=True) if taken]
    return Recording(recording.meta | {"layers": layers}, arrays)


def axis_counts(recording):
    """For each kind of `PER`, how many entries of such an axis belong to each layer, (L,)."""
    weights, layers = recording.weight_counts, recording.layers
    bins = np.array([about["high"] - about["low"] + 2 for about in layers])
    sampled = recording.arrays.get("sample_index", np.zeros(0, int))
    cells = len(recording.arrays.get("position_count", ())) // bins.sum()
    return {
        "layer": np.ones(len(layers), int),
        "range": np.array([int(about["has_range"]) for about in layers]),
        "step size": np.array([about["step_count"] for about in layers]),
        "sampled weight": np.bincount(
            np.searchsorted(np.cumsum(weights), sampled, side="right"), minlength=len(layers)
        ),
        "weight": weights,
        "cell": bins * cells,
    }


def matching(recording, patterns):
    """The names of the layers that match one of the patterns; raises ValueError for a pattern that none matches."""
    found = []
    for pattern in patterns:
        matches = [name for name in recording.layer_names if fnmatchcase(name, pattern)]
        if not matches:
            near = difflib.get_close_matches(pattern, recording.layer_names, n=3) or recording.layer_names[:3]
            raise ValueError(f"no layer matches '{pattern}'; the recording has {', '.join(near)}, ...")
        found += matches
    return found


def thin(recording, *, layers=(), every=1, windows=True, trajectories=True):
    """A smaller recording: of the layers that match the patterns (all where none is given), then `Recording.thinned`."""
    part = of_layers(recording, matching(recording, layers)) if layers else recording
    return part.thinned(every=every, windows=windows, trajectories=trajectories)


def parser():
    """The command line's options."""
    options = argparse.ArgumentParser(prog="python -m oscillab.study.thin", description=__doc__.splitlines()[0])
    options.add_argument("recording", type=Path, help="the file to read")
    options.add_argument("out", type=Path, help="the file to write")
    options.add_argument("--layers", nargs="+", default=(), help="names of layers, or patterns such as 'model.4.*'")
    options.add_argument("--every", type=int, default=1, help="keep every k-th row over time, counts summed up")
    options.add_argument("--no-windows", action="store_true", help="without the counts in windows of time")
    options.add_argument("--no-trajectories", action="store_true", help="without the courses of sampled weights")
    return options


def main(arguments=None):
    """The exit status; an error is one line."""
    given = parser().parse_args(arguments)
    keep = {"windows": not given.no_windows, "trajectories": not given.no_trajectories}
    try:
        small = thin(Recording.open(given.recording), layers=given.layers, every=given.every, **keep)
        path = small.save(given.out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.2f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

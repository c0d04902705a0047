"""Choose some layers of a recording, value for value; `Recording.thinned` makes small recordings with it."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from oscillab.recording.recording import Recording

PER = {  # what the last axis of an array counts
    "layer": ("layer_flip_count", "layer_oscillation_count", "step_size", "step_size_min", "step_size_max",
              "gradient_turn_count", "input_gradient_turn_count"),
    "range": ("clip_low", "clip_high", "observed_low", "observed_high", "clipped_share"),
    "step size": ("step_sizes",),
    "sampled weight": ("latent_weight", "sample_step_size", "sample_state", "sample_index"),
    "weight": ("integer_state", "direction", "frequency", "flip_count", "oscillation_count",
               "window_flip_count", "window_oscillation_count"),
    "cell": ("position_count_first", "position_count"),
}  # fmt: skip


def of_layers(recording: "Recording", names: Iterable[str]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return the layers of those names, in the order of the network, and their arrays; ValueError for an unknown name."""
    wanted = {recording.layers[recording.index(name)]["name"] for name in names}
    chosen = np.array([name in wanted for name in recording.layer_names])
    kept = {kind: np.repeat(chosen, count) for kind, count in axis_counts(recording).items()}
    arrays = dict(recording.arrays)
    for kind, members in PER.items():
        arrays |= {name: arrays[name][..., kept[kind]] for name in members if name in arrays}
    if "sample_index" in arrays:
        arrays["sample_index"] = np.cumsum(kept["weight"])[arrays["sample_index"]] - 1
    layers = [about for about, taken in zip(recording.layers, chosen, strict=True) if taken]
    return layers, arrays


def axis_counts(recording: "Recording") -> dict[str, np.ndarray]:
    """Return for each kind of `PER` how many entries of such an axis belong to each layer, (L,)."""
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


def matching(recording: "Recording", patterns: Iterable[str]) -> list[str]:
    """Return the names of the layers that match one of the patterns; ValueError for a pattern that none matches."""
    found: list[str] = []
    for pattern in patterns:
        matches = [name for name in recording.layer_names if fnmatchcase(name, pattern)]
        if not matches:
            near = difflib.get_close_matches(pattern, recording.layer_names, n=3) or recording.layer_names[:3]
            raise ValueError(f"no layer matches '{pattern}'; the recording has {', '.join(near)}, ...")
        found += matches
    return found

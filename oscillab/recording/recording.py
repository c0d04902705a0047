"""Hold what was recorded as plain arrays, which need neither torch nor the model.

Arrays over time have a row per tick, and row 0 is the model before the first step (T = ticks + 1, L layers, Q layers
with an input quantizer, S sampled weights, R ticks with observed ranges, P ticks with all A step sizes, W weights of all
layers, K windows of time, C cells):

| array | shape | what |
| --- | --- | --- |
| step | (T,) | optimizer step of the row |
| layer_flip_count, layer_oscillation_count | (T, L) | weights that flipped or oscillated at this tick |
| gradient_turn_count, input_gradient_turn_count | (T, L) | step sizes of weights, input, whose gradient changed sign |
| step_size [step_size_min, step_size_max] | (T, L) | weight step size; mean, least, largest where per channel |
| clip_low, clip_high | (T, Q) | range of the input quantizer, in units of the input |
| range_step | (R,) | optimizer step of the rows below |
| observed_low, observed_high, clipped_share | (R, Q) | lowest and highest input, share outside (on a sample) |
| step_sizes_step, step_sizes | (P,), (P, A) | every weight step size now and then, where per channel |
| sample_index | (S,) | the sampled weights' places among all weights |
| latent_weight, sample_step_size, sample_state | (T, S) | their full trajectories |
| integer_state, direction, frequency, flip_count, oscillation_count | (W,) | every weight at the end |
| window_first_tick, window_last_tick | (K,) | windows of time, both ends included |
| window_flip_count, window_oscillation_count | (K, W) | what every weight did in them |
| position_count_first, position_count | (C,) | histograms of latent weight / step size, layer by layer |
| edge_distance_step | (E,) | optimizer step of the rows below, 21 to 40 equally spaced ones after 500 steps |
| edge_distance_count | (E, D, L) | weights at each distance from the nearest bin edge, D cells from 0 to half a bin |
"""

import difflib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from oscillab.io import atomic_write
from oscillab.recording import npz
from oscillab.recording.schema import ARRAYS, FORMAT, VERSION, check_arrays, check_meta


@dataclass(eq=False)
class Recording:
    """What a recorder saw. `meta`: settings, versions and layers, in what JSON holds; `arrays`: see the module."""

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> "Recording":
        """Return the recording in a file; of one cut short or not finished yet, its readable part, with a warning.

        Raises ValueError, in one line, where there is no such file, it is no recording, it comes from a newer version, or
        something in it is not what a recording holds: a type, a shape, a value, or counts that do not add up.
        """
        path = Path(path)
        try:
            meta, arrays, whole = npz.read(path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise ValueError(f"{path}: not a recording, or cut short before its first array")
        if isinstance(version := meta.get("version"), int) and version > VERSION:
            raise ValueError(f"{path}: written by a newer oscillab (version {version}, this one reads up to {VERSION})")
        try:
            check_meta(meta)
            listed = meta.pop("arrays", [])
            arrays = {name: array for name, array in arrays.items() if name in (*ARRAYS, *listed)}
            check_arrays(meta, arrays)
        except ValueError as error:
            raise ValueError(f"{path}: damaged, or no recording: {error}") from error
        missing = [name for name in listed if name not in arrays]
        if meta.pop("unfinished", False):
            warnings.warn(f"{path}: not finished, it goes up to step {meta['step_count']}", stacklevel=2)
        if missing or not whole:
            warnings.warn(f"{path}: damaged or cut short; missing {', '.join(missing) or 'nothing'}", stacklevel=2)
        return cls(meta, arrays)

    def save(self, path: Path | str) -> Path:
        """Write the recording to a file, whole or not at all, and return its path; numpy.load reads it too."""
        with atomic_write(path) as temporary:
            npz.write(temporary, self.meta | {"arrays": list(self.arrays)}, self.arrays)
        return Path(path)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the array of that name; raise ValueError where the recording does not hold it."""
        if name not in self.arrays:
            raise ValueError(f"the recording holds no '{name}'; it holds {', '.join(self.arrays) or 'nothing'}")
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __repr__(self) -> str:
        return f"Recording({len(self.layers)} layers, {self.weight_count} weights, {self.meta['tick_count']} ticks)"

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Each layer's name, shape, bits (None where unknown), low and high state, step_count, has_range.

        `has_gradient`: whether the gradients of its weights' step sizes and of its input's were looked at.
        """
        return list(self.meta["layers"])

    @property
    def layer_names(self) -> list[str]:
        """The layers' names, in the order of every axis of layers."""
        return [layer["name"] for layer in self.layers]

    @property
    def weight_counts(self) -> np.ndarray:
        """The number of weights of each layer, (L,)."""
        return np.array([int(np.prod(layer["shape"])) for layer in self.layers])

    @property
    def weight_count(self) -> int:
        """The number of weights of all layers."""
        return int(self.weight_counts.sum())

    @property
    def gaps(self) -> list[str]:
        """What the recording did not see, in sentences; none where it saw every step of every weight."""
        return gaps(self.meta)

    @property
    def steps(self) -> np.ndarray:
        """The optimizer step of each row over time, (T,); the first is 0."""
        return self["step"]

    def index(self, layer: str) -> int:
        """Return the place of a layer, given by name; raise ValueError for an unknown one."""
        if layer in self.layer_names:
            return self.layer_names.index(layer)
        near = difflib.get_close_matches(str(layer), self.layer_names, n=3) or self.layer_names[:3]
        raise ValueError(f"unknown layer '{layer}'; the recording has {len(self.layers)}, among them {', '.join(near)}")

    def weights_of(self, layer: str) -> slice:
        """Return the slice of a layer's weights among those of all layers."""
        at, counts = self.index(layer), self.weight_counts
        return slice(int(counts[:at].sum()), int(counts[: at + 1].sum()))

    def sampled_layers(self) -> np.ndarray:
        """Return the index of the layer of each sampled weight, (S,)."""
        sampled = self.arrays.get("sample_index", np.zeros(0, int))
        return np.searchsorted(np.cumsum(self.weight_counts), sampled, side="right")

    def thinned(self, *, layers: Iterable[str] = (), windows: bool = True, trajectories: bool = True) -> "Recording":
        """Return a smaller recording: of some layers, without windows or trajectories if False.

        `layers`: names, or patterns such as "model.[0-4].*", of the layers that stay; all where none is given. What is
        kept stays as it is, value for value. Raises ValueError for a pattern that none matches.
        """
        part = self._of_layers(layers) if layers else self
        gone = "S" * (not trajectories) + "K" * (not windows)
        kept = {k: v for k, v in part.arrays.items() if k not in ARRAYS or not set(ARRAYS[k][0]) & set(gone)}
        return Recording(part.meta, kept)

    def _of_layers(self, patterns: Iterable[str]) -> "Recording":
        wanted: set[str] = set()
        for pattern in patterns:
            matches = {name for name in self.layer_names if fnmatchcase(name, pattern)}
            if not matches:
                near = difflib.get_close_matches(pattern, self.layer_names, n=3) or self.layer_names[:3]
                raise ValueError(f"no layer matches '{pattern}'; the recording has {', '.join(near)}, ...")
            wanted |= matches
        bins = np.array([about["high"] - about["low"] + 2 for about in self.layers])
        counts = {  # for each axis, how many of its entries belong to each layer
            "L": np.ones(len(bins), int),
            "Q": np.array([int(about["has_range"]) for about in self.layers]),
            "A": np.array([about["step_count"] for about in self.layers]),
            "S": np.bincount(self.sampled_layers(), minlength=len(bins)),
            "W": self.weight_counts,
            "C": bins * (len(self.arrays.get("position_count", ())) // bins.sum()),
        }
        chosen = np.array([name in wanted for name in self.layer_names])
        kept, arrays = {axis: np.repeat(chosen, count) for axis, count in counts.items()}, dict(self.arrays)
        for name, array in self.arrays.items():
            if name in ARRAYS and (axis := ARRAYS[name][0][-1]) in kept:
                arrays[name] = array[..., kept[axis]]
        if "sample_index" in arrays:
            arrays["sample_index"] = np.cumsum(kept["W"])[arrays["sample_index"]] - 1
        return Recording(self.meta | {"layers": [about for about in self.layers if about["name"] in wanted]}, arrays)


def gaps(meta: dict[str, Any]) -> list[str]:
    """Return in sentences what a recording of that `meta` did not see."""
    unseen, found = meta.get("unseen_flip_count", 0), []
    if meta["step_count"] == 0:
        found.append("no optimizer step was seen: record() needs the optimizer whose step() is called")
    if unseen:
        found.append(f"{unseen} flips were made outside of the optimizer's steps and are not counted, or counted late")
    for what in ("weights", "step sizes"):
        if unowned := meta.get("unowned_layers" if what == "weights" else "unowned_step_sizes"):
            found.append(f"the optimizer does not own the {what} of {len(unowned)} layers, among them '{unowned[0]}'")
    return [*found, meta["stopped"]] if meta.get("stopped") else found

"""Tables of what happened over time, and the counting of oscillations and cycles along trajectories, without torch."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from oscillab.recording.recording import Recording

FIRST_FLIP = ("ignored", "counted")
JUMPS = ("once", "ignored")


class Oscillations(NamedTuple):
    """`frequency` (weights,) float32 after the last step; `totals` (weights,) int32; `per_step` (steps,) int32."""

    frequency: np.ndarray
    totals: np.ndarray
    per_step: np.ndarray


def count_oscillations(
    integer_states: ArrayLike, momentum: float = 0.01, *, first_flip: str = "ignored", jumps: str = "once"
) -> Oscillations:
    """Count the oscillations in `integer_states` (steps, weights): frequency, totals and counts per step.

    A flip is a change of state; an oscillation is a flip against the direction of the weight's flip before, however
    long ago. The frequency per step starts at 0 and moves by f = m * o + (1 - m) * f with momentum m; a full cycle, up
    and down, is two oscillations. The first row is where counting starts, so `per_step[0]` is 0.

    The published tracker and its paper differ in two points. `first_flip`: a weight's first flip has no flip before it.
    "ignored" is the published code (the last direction starts at 0 and 0 is no opposite), "counted" is Algorithm 1 of
    the paper as printed (sign(D) != 0 holds). `jumps`: flips over more than one bin. "once" is both the paper and the
    published code, which take the sign; "ignored" leaves them out, and the next flip after one, as the code would
    without the sign (its comment expects differences of -1, 0 and 1 only).
    Raises ValueError for anything but a 2-d array of integers, a momentum outside 0..1 or an unknown choice.
    Source: Nagel et al., ICML 2022, arXiv 2203.11086, section 3, and its code.

    >>> states = np.array([[0, 0], [1, 0], [0, 1], [0, 1], [1, 2]])
    >>> frequency, totals, per_step = count_oscillations(states, momentum=0.5)
    >>> frequency, totals, per_step
    (array([0.625, 0.   ], dtype=float32), array([2, 0], dtype=int32), array([0, 0, 1, 0, 1], dtype=int32))
    """
    states = _checked(integer_states, momentum, first_flip, jumps)
    keep, step = np.float32(1 - momentum), np.float32(momentum)
    last = np.zeros(states.shape[1], np.int32)
    frequency, totals = np.zeros(len(last), np.float32), np.zeros(len(last), np.int32)
    per_step = np.zeros(len(states), np.int32)
    for t in range(1, len(states)):
        change = states[t].astype(np.int32) - states[t - 1]
        direction = np.sign(change) if jumps == "once" else change
        oscillated = last * direction == -1
        if first_flip == "counted":
            oscillated |= (last == 0) & (np.abs(direction) == 1)
        last = np.where(change != 0, direction, last)
        frequency = step * oscillated + keep * frequency
        totals += oscillated
        per_step[t] = oscillated.sum()
    return Oscillations(frequency, totals, per_step)


def _checked(integer_states: ArrayLike, momentum: float, first_flip: str, jumps: str) -> np.ndarray:
    states = np.asarray(integer_states)
    if states.ndim != 2 or len(states) == 0:
        raise ValueError(f"integer_states must have shape (steps, weights) with a step or more, got {states.shape}")
    if not np.issubdtype(states.dtype, np.integer):
        raise ValueError(f"integer_states must be integers, got {states.dtype}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be 0..1, got {momentum}")
    for name, value, allowed in (("first_flip", first_flip, FIRST_FLIP), ("jumps", jumps, JUMPS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return states


def autocorrelation(integer_states: ArrayLike, lag_count: int) -> np.ndarray:
    """Return the autocorrelation (lag_count + 1, weights) of each weight's states (steps, weights) at lags 0, 1, ...

    Lag 0 is 1; a weight that never flips has NaN. Raises ValueError unless 0 < lag_count < steps.

    >>> autocorrelation(np.array([[0], [1]] * 50), 2)[:, 0].round(2).tolist()
    [1.0, -0.99, 0.98]
    """
    states = np.asarray(integer_states, float)
    if not 0 < lag_count < len(states):
        raise ValueError(f"lag_count must be above 0 and below the {len(states)} steps, got {lag_count}")
    centred = states - states.mean(0)
    power = (centred**2).sum(0)
    power = np.where(power > 0, power, np.nan)
    return np.stack([(centred[: len(states) - lag] * centred[lag:]).sum(0) / power for lag in range(lag_count + 1)])


def cycle_lengths(integer_states: ArrayLike) -> np.ndarray:
    """Return the mean steps between two upward flips of each weight's states (steps, weights); NaN with fewer than two.

    >>> cycle_lengths(np.array([[0], [1], [0], [0], [1], [0], [0], [1]]))
    array([3.])
    """
    upward = np.diff(np.asarray(integer_states, np.int32), axis=0) > 0
    counts, rows = upward.sum(0), np.arange(len(upward))[:, None]
    first = np.where(upward, rows, len(upward)).min(0, initial=len(upward))
    last = np.where(upward, rows, -1).max(0, initial=-1)
    return np.where(counts > 1, (last - first) / np.maximum(counts - 1, 1), np.nan)


def over_time(recording: Recording) -> pd.DataFrame:
    """Return one row per layer and recorded step, from the state before the first step (0) on.

    Columns: `step`, `layer`, `flip_count`, `oscillation_count`, `flip_rate` (per weight and step since the row before),
    `step_size` (mean, where it is per channel), `clip_low`, `clip_high` (range of the input quantizer, in units of the
    input; NaN for a layer without one).
    """
    rows, layer_count = recording["step_size"].shape
    passed = np.diff(recording.steps, prepend=recording.steps[0])[:, None]  # (T, 1)
    flips = recording["layer_flip_count"]
    columns = {
        "flip_count": flips,
        "oscillation_count": recording["layer_oscillation_count"],
        "flip_rate": flips / recording.weight_counts / np.maximum(passed, 1),
        "step_size": recording["step_size"],
        "clip_low": _for_all_layers(recording, "clip_low", rows),
        "clip_high": _for_all_layers(recording, "clip_high", rows),
    }
    keys = {"step": np.repeat(recording.steps, layer_count), "layer": np.tile(recording.layer_names, rows)}
    return pd.DataFrame(keys | {name: values.reshape(-1) for name, values in columns.items()})


def ranges(recording: Recording) -> pd.DataFrame:
    """Return one row per input quantizer and step with observed inputs: what came in, and what the quantizer lets pass.

    Columns: `step`, `layer`; `clip_low`, `clip_high` (the quantizer's range after the step); `observed_low`,
    `observed_high` (of all inputs in the training forwards before the step), all in units of the input;
    `clipped_share` (of a sample of these inputs, outside the range in force in that forward). Observed values are NaN
    where no training forward came before the step, as in an average that is never trained.
    """
    names = [about["name"] for about in recording.layers if about["has_range"]]
    seen = recording["range_step"] if names else np.zeros(0, np.int64)
    table = pd.DataFrame({"step": np.repeat(seen, len(names)), "layer": np.tile(np.array(names, object), len(seen))})
    row = np.searchsorted(recording.steps, seen, side="right") - 1
    for name in ("clip_low", "clip_high"):
        table[name] = recording[name][row].reshape(-1) if names else np.zeros(0, np.float32)
    for name in ("observed_low", "observed_high", "clipped_share"):
        table[name] = recording[name].reshape(-1) if names else np.zeros(0, np.float32)
    return table


def trajectories(recording: Recording, layer: str) -> pd.DataFrame:
    """Return one row per sampled weight of a layer and recorded step.

    Columns: `step`, `weight` (flat index), `latent_weight`, `step_size`, `integer_state`, `position` (latent weight /
    step size: in bins, edges at half integers), `edge_distance` (to the nearest edge between two states, in bins).
    """
    where, index = recording.weights_of(layer), recording["sample_index"]
    picked = (index >= where.start) & (index < where.stop)
    arrays = {"latent_weight": "latent_weight", "step_size": "sample_step_size", "integer_state": "sample_state"}
    step, weight = np.repeat(recording.steps, picked.sum()), np.tile(index[picked] - where.start, len(recording.steps))
    columns = {name: recording[array][:, picked].reshape(-1) for name, array in arrays.items()}
    position = columns["latent_weight"] / columns["step_size"]
    about = recording.layers[recording.index(layer)]
    edge = np.clip(np.floor(position) + 0.5, about["low"] + 0.5, about["high"] - 0.5)
    table = pd.DataFrame({"step": step, "weight": weight} | columns)
    return table.assign(position=position, edge_distance=np.abs(position - edge))


def flip_attribution(recording: Recording) -> pd.DataFrame:
    """Return one row per layer: the flips of its sampled weights, and whether the weight or the bin edge moved.

    A state round(w / s) changes when the latent weight w crosses an edge, and when the step size s moves the edge across
    a weight that stands still.
    Columns: `layer`, `sampled_count` (weights), `flip_count` (from one recorded row to the next), `edge_flip_count` (of
    these, how many the new latent weight would not have made with the step size of the row before).
    """
    states, layer = recording["sample_state"], _layer_of_sampled(recording)
    low, high = np.array([(about["low"], about["high"]) for about in recording.layers])[layer].T  # (sampled,) each
    with_old_step = np.round(recording["latent_weight"][1:] / recording["sample_step_size"][:-1])  # Eq. 1 of 2311.05109
    by_weight = np.clip(with_old_step, low, high) != states[:-1]
    flips = states[1:] != states[:-1]
    counts = {
        "sampled_count": np.ones(len(layer)),
        "flip_count": flips.sum(0),
        "edge_flip_count": (flips & ~by_weight).sum(0),
    }
    length = len(recording.layers)
    summed = {name: np.bincount(layer, weights=values, minlength=length).astype(int) for name, values in counts.items()}
    return pd.DataFrame({"layer": recording.layer_names} | summed)


def periodicity(recording: Recording, *, last: float = 0.25) -> pd.DataFrame:
    """Return one row per sampled weight: how regularly it oscillated over the last share of the recorded ticks.

    Columns: `layer`, `weight` (flat index), `flip_count`, `oscillation_count`, `cycle_length` (mean ticks from an
    upward flip to the next; NaN with fewer than two), `upper_share` (share of ticks above its lowest state there).
    """
    if not 0 < last <= 1:
        raise ValueError(f"last must be above 0 and at most 1, got {last}")
    states = recording["sample_state"]
    states = states[-max(2, round(len(states) * last)) :]
    layer, starts = _layer_of_sampled(recording), np.cumsum(recording.weight_counts) - recording.weight_counts
    return pd.DataFrame(
        {
            "layer": np.array(recording.layer_names, object)[layer],
            "weight": recording["sample_index"] - starts[layer],
            "flip_count": (np.diff(states.astype(np.int32), axis=0) != 0).sum(0),
            "oscillation_count": count_oscillations(states).totals,
            "cycle_length": cycle_lengths(states),
            "upper_share": (states > states.min(0)).mean(0),
        }
    )


def _layer_of_sampled(recording: Recording) -> np.ndarray:
    """Return the index of the layer of each sampled weight, (sampled,)."""
    return np.searchsorted(np.cumsum(recording.weight_counts), recording["sample_index"], side="right")


def _for_all_layers(recording: Recording, name: str, rows: int) -> np.ndarray:
    """Return an array over the layers with an input quantizer as one over all layers, NaN for those without."""
    has_range = [about["has_range"] for about in recording.layers]
    full = np.full((rows, len(has_range)), np.nan, np.float32)
    if any(has_range):
        full[:, has_range] = recording[name]
    return full

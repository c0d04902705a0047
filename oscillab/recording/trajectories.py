"""Tables of what happened over time, and the counting of oscillations and cycles along trajectories, without torch."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from oscillab.recording.recording import Recording


class Oscillations(NamedTuple):
    """`frequency` (weights,) float32 after the last step; `totals` (weights,) int32; `per_step` (steps,) int32."""

    frequency: np.ndarray
    totals: np.ndarray
    per_step: np.ndarray


def count_oscillations(integer_states: ArrayLike, momentum: float = 0.01) -> Oscillations:
    """Count the oscillations in `integer_states` (steps, weights): frequency, totals and counts per step.

    A flip is a change of state, over however many bins; an oscillation is a flip against the direction of the weight's
    flip before, however long ago. The frequency per step starts at 0 and moves by f = m * o + (1 - m) * f with momentum
    m; a full cycle, up and down, is two oscillations. The first row is where counting starts, so `per_step[0]` is 0. A
    weight's first flip is none, as in the published code; Algorithm 1 of the paper as printed would count it.
    Raises ValueError for anything but a 2-d array of integers or a momentum outside 0..1.
    Source: Nagel et al., ICML 2022, arXiv 2203.11086, section 3, and its code.

    >>> states = np.array([[0, 0], [1, 0], [0, 1], [0, 1], [1, 2]])
    >>> count_oscillations(states, momentum=0.5).totals
    array([2, 0], dtype=int32)
    """
    states = np.asarray(integer_states)
    if states.ndim != 2 or len(states) == 0:
        raise ValueError(f"integer_states must have shape (steps, weights) with a step or more, got {states.shape}")
    if not np.issubdtype(states.dtype, np.integer):
        raise ValueError(f"integer_states must be integers, got {states.dtype}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be 0..1, got {momentum}")
    keep, step = np.float32(1 - momentum), np.float32(momentum)
    last = np.zeros(states.shape[1], np.int32)
    frequency, totals = np.zeros(len(last), np.float32), np.zeros(len(last), np.int32)
    per_step = np.zeros(len(states), np.int32)
    for t in range(1, len(states)):
        direction = np.sign(states[t].astype(np.int32) - states[t - 1])
        oscillated = last * direction == -1
        last = np.where(direction != 0, direction, last)
        frequency = step * oscillated + keep * frequency
        totals += oscillated
        per_step[t] = oscillated.sum()
    return Oscillations(frequency, totals, per_step)


def autocorrelation(integer_states: ArrayLike, lag_count: int) -> np.ndarray:
    """Return the autocorrelation (lag_count + 1, weights) of each weight's states (steps, weights) at lags 0, 1, ...

    Lag 0 is 1; a weight that never flips has NaN. Raises ValueError unless 0 < lag_count < steps.
    """
    states = np.asarray(integer_states, float)
    if not 0 < lag_count < len(states):
        raise ValueError(f"lag_count must be above 0 and below the {len(states)} steps, got {lag_count}")
    centred = states - states.mean(0)
    power = (centred**2).sum(0)
    power = np.where(power > 0, power, np.nan)
    return np.stack([(centred[: len(states) - lag] * centred[lag:]).sum(0) / power for lag in range(lag_count + 1)])


def cycle_lengths(integer_states: ArrayLike) -> np.ndarray:
    """Return the mean steps between two upward flips of each weight's states (steps, weights); NaN with fewer than two."""
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
    flips, has_range = recording["layer_flip_count"], [about["has_range"] for about in recording.layers]
    clip = {name: np.full((rows, layer_count), np.nan, np.float32) for name in ("clip_low", "clip_high")}
    for name, values in clip.items() if any(has_range) else ():
        values[:, has_range] = recording[name]
    columns = {
        "flip_count": flips,
        "oscillation_count": recording["layer_oscillation_count"],
        "flip_rate": flips / recording.weight_counts / np.maximum(passed, 1),
        "step_size": recording["step_size"],
    }
    keys = {"step": np.repeat(recording.steps, layer_count), "layer": np.tile(recording.layer_names, rows)}
    return pd.DataFrame(keys | {name: values.reshape(-1) for name, values in (columns | clip).items()})


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
    for name in ("clip_low", "clip_high", "observed_low", "observed_high", "clipped_share"):
        values = recording[name] if names else np.zeros(0, np.float32)
        table[name] = values[row if name.startswith("clip_") else slice(None)].reshape(-1)
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
    states, layer = recording["sample_state"], recording.sampled_layers()
    low, high = np.array([(about["low"], about["high"]) for about in recording.layers])[layer].T  # (sampled,) each
    with_old_step = np.round(recording["latent_weight"][1:] / recording["sample_step_size"][:-1])  # Eq. 1 of 2311.05109
    by_weight = np.clip(with_old_step, low, high) != states[:-1]
    flips = states[1:] != states[:-1]
    counts = {"sampled_count": np.ones(len(layer)), "flip_count": flips.sum(0)}
    counts["edge_flip_count"] = (flips & ~by_weight).sum(0)
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
    layer, starts = recording.sampled_layers(), np.cumsum(recording.weight_counts) - recording.weight_counts
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

"""Turn a recording into tidy tables and numbers, without torch.

One observation a row, one variable a column. `step` is the optimizer step, `step_size` the size of a quantizer's step in
units of the weight. Rates are per weight and optimizer step.
"""

import numpy as np
import pandas as pd

from oscillab.recording.recording import Recording
from oscillab.recording.trajectories import (
    Oscillations,
    autocorrelation,
    count_oscillations,
    cycle_lengths,
    flip_attribution,
    over_time,
    periodicity,
    ranges,
    trajectories,
)

__all__ = [
    "LOW_BITS", "Oscillations", "autocorrelation", "chosen_layers", "compare", "count_oscillations", "crowding", "cycle_lengths",
    "edge_distances", "flip_attribution", "flip_rate", "fold_positions", "layers", "occupancy", "oscillating",
    "oscillating_share", "over_time", "periodicity", "positions", "ranges", "state_summary", "trajectories", "weights",
]  # fmt: skip
LOW_BITS = 4  # the published tracker looks at layers of 4 bits and fewer
LAST = 0.25  # the share of a recording at its end that says how it ended
NEAR = 0.05  # of a bin; weights spread evenly would have a tenth of them nearer than this to an edge


def layers(recording: Recording) -> pd.DataFrame:
    """Return one row per layer, as it was at the end.

    Columns: `layer`, `bits`, `weight_count`; `step_size_first`, `step_size_last`, `step_size_spread` (standard
    deviation over the last quarter, as a share of the mean); `flip_rate`, `oscillation_rate` (per weight and step,
    whole recording), `flip_rate_last` (last quarter); and as shares of the layer's weights `oscillating_share`
    (frequency above the threshold), `still_share` (never flipped), `zero_share` (state 0), `dead_share` (state 0 and
    never flipped), `saturated_share` (lowest or highest state); `used_state_count`; `entropy` of the states in bits;
    `gradient_turn_rate`, `input_gradient_turn_rate` (share of steps at which the gradient of the step size of the
    weights, of the input, changed its sign; NaN where it was not trained or not recorded);
    `edge_distance` (mean distance to the nearest bin edge, in bins, 0..0.5; 0.25 where spread evenly),
    `near_edge_share` (nearer than 0.05 bins; 0.1 where spread evenly). `.attrs["gaps"]` says what was not seen.
    """
    counts, steps = recording.weight_counts, int(recording.steps[-1]) or np.nan  # no step is no rate, and not 0
    late, sizes = _rows_of_last(recording, LAST), recording["step_size"].astype(float)
    late_steps = recording.steps[-1] - recording.steps[late.start - 1] if len(sizes) > 1 else np.nan
    table = pd.DataFrame({"layer": recording.layer_names, "bits": [about["bits"] for about in recording.layers]})
    table["weight_count"] = counts
    table["step_size_first"], table["step_size_last"] = sizes[0], sizes[-1]
    table["step_size_spread"] = sizes[late].std(0) / np.abs(sizes[late].mean(0))
    table["flip_rate"] = recording["layer_flip_count"].sum(0) / counts / steps
    table["oscillation_rate"] = recording["layer_oscillation_count"].sum(0) / counts / steps
    table["flip_rate_last"] = recording["layer_flip_count"][late].sum(0) / counts / late_steps
    table["gradient_turn_rate"] = _sign_change_rates(recording, "gradient_turn_count", 0)
    table["input_gradient_turn_rate"] = _sign_change_rates(recording, "input_gradient_turn_count", 1)
    table["oscillating_share"] = [oscillating(recording, layer).mean() for layer in recording.layer_names]
    shares = pd.DataFrame([state_summary(recording, layer) for layer in recording.layer_names])
    table = pd.concat([table, shares], axis=1)
    table.attrs["gaps"] = recording.gaps
    return table


def weights(recording: Recording, layer: str) -> pd.DataFrame:
    """Return one row per weight of a layer, as it was at the end.

    Columns: `weight` (flat index into the layer's weight), `integer_state`, `direction` of its last flip (-1, 1; 0
    before the first), `flip_count`, `oscillation_count`, `frequency` (oscillations per tick, exponential average),
    `oscillating` (frequency above the threshold).
    """
    where = recording.weights_of(layer)
    names = ("integer_state", "direction", "flip_count", "oscillation_count", "frequency")
    columns = {"weight": np.arange(where.stop - where.start)} | {name: recording[name][where] for name in names}
    return pd.DataFrame(columns).assign(oscillating=oscillating(recording, layer))


def compare(before: Recording, after: Recording) -> pd.DataFrame:
    """Return one row per layer and quantity of two recordings, over the layers that both have.

    Columns: `layer`, `quantity` (a column of `layers`, in its units), `before`, `after`, `change` (after - before).
    Raises ValueError where no layer has the same name in both.
    """
    tables = [layers(recording).drop(columns="bits").set_index("layer") for recording in (before, after)]
    shared = [name for name in tables[0].index if name in tables[1].index]
    if not shared:
        raise ValueError("the two recordings have no layer in common")
    old, new = (table.loc[shared].melt(ignore_index=False, var_name="quantity").reset_index() for table in tables)
    table = old.rename(columns={"value": "before"}).assign(after=new["value"])
    return table.assign(change=table["after"] - table["before"])


def oscillating_share(recording: Recording, *, max_bits: int | None = LOW_BITS) -> float:
    """Return the share of weights that oscillate at the end, in `chosen_layers`; NaN where there is none."""
    chosen = chosen_layers(recording, max_bits)
    return float(np.concatenate([oscillating(recording, name) for name in chosen]).mean()) if chosen else np.nan


def flip_rate(recording: Recording, *, last: float = LAST, max_bits: int | None = LOW_BITS) -> float:
    """Return the flips per weight and optimizer step over the last share of the recording, in `chosen_layers`.

    NaN where there is none or no step was recorded. Where not every step was recorded, the rate is a lower bound.
    """
    if not 0 < last <= 1:
        raise ValueError(f"last must be above 0 and at most 1, got {last}")
    chosen = [recording.index(name) for name in chosen_layers(recording, max_bits)]
    rows = _rows_of_last(recording, last)
    if not chosen or len(recording.steps) < 2:
        return np.nan
    steps = recording.steps[-1] - recording.steps[rows.start - 1]
    return float(recording["layer_flip_count"][rows][:, chosen].sum() / recording.weight_counts[chosen].sum() / steps)


def chosen_layers(recording: Recording, max_bits: int | None) -> list[str]:
    """Return the names of the layers that have at most `max_bits` or whose bits are not known; None takes all."""
    known = ((about["name"], about["bits"]) for about in recording.layers)
    return [name for name, bits in known if max_bits is None or bits is None or bits <= max_bits]


def occupancy(recording: Recording, layer: str) -> pd.DataFrame:
    """Count the weights of a layer in each integer state at the end.

    Columns: `state` (integer, from the layer's lowest to its highest), `weight_count`, `share` (of the weights).
    """
    about, states = recording.layers[recording.index(layer)], recording["integer_state"][recording.weights_of(layer)]
    levels = np.arange(min(about["low"], states.min()), max(about["high"], states.max()) + 1)
    counts = np.bincount(states.astype(int) - levels[0], minlength=len(levels))
    return pd.DataFrame({"state": levels, "weight_count": counts, "share": counts / len(states)})


def positions(recording: Recording, layer: str, *, first: bool = False) -> pd.DataFrame:
    """Return the histogram of a layer's latent weights over their position, at the end or before the first step.

    Columns: `position` (middle of the cell, latent weight / step size, so in bins; edges at half integers),
    `weight_count`, `density` (per bin; it integrates to 1 over the cells). The end cells hold what lies beyond.
    """
    low, counts, cells_per_bin = _cells(recording, layer, first)
    middle = low - 1 + (np.arange(len(counts)) + 0.5) / cells_per_bin
    density = counts / max(counts.sum(), 1) * cells_per_bin
    return pd.DataFrame({"position": middle, "weight_count": counts, "density": density})


def edge_distances(recording: Recording, layer: str, *, first: bool = False) -> pd.DataFrame:
    """Return the histogram of the distance of a layer's latent weights to the nearest edge between two states.

    Columns: `distance` (middle of the cell, in bins; 0 on an edge, 0.5 mid-bin), `weight_count`, `share`.
    Weights beyond the outermost edges by more than half a bin, which have no nearer edge, are in the last cell.
    """
    low, counts, cells_per_bin = _cells(recording, layer, first)
    folded = fold_positions(counts, low, low + len(counts) // cells_per_bin - 2)
    middle = (np.arange(len(folded)) + 0.5) / cells_per_bin
    return pd.DataFrame({"distance": middle, "weight_count": folded, "share": folded / max(folded.sum(), 1)})


def fold_positions(counts: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return how many weights of a histogram of positions lie at each distance from the nearest edge, int64.

    Cells from 0 (on an edge) to half a bin; weights beyond the outermost edges by more than half a bin are in the last cell.
    """
    cells_per_bin = len(counts) // (high - low + 2)
    position = low - 1 + (np.arange(len(counts)) + 0.5) / cells_per_bin
    nearest = np.clip(np.floor(position) + 0.5, low + 0.5, high - 0.5)
    cell = np.minimum((np.abs(position - nearest) * cells_per_bin).astype(int), cells_per_bin // 2 - 1)
    return np.bincount(cell, weights=counts, minlength=cells_per_bin // 2).astype(np.int64)


def crowding(recording: Recording) -> pd.DataFrame:
    """Return one row per layer at each of some 21 to 40 equally spaced steps, which says whether weights gather at edges.

    Columns: `step`, `layer`, `weight_count`; `near_edge_share` (of its latent weights, nearer than 0.05 bins to an edge;
    0.1 where spread evenly, NaN where the layer does not show them); `flip_rate` (per weight and step since the row
    before; NaN in the first); `step_size`. Raises ValueError for a recording of an earlier version, which has no such rows.
    """
    steps, counts = recording["edge_distance_step"], recording["edge_distance_count"].astype(float)
    near = counts[:, : round(NEAR * 2 * counts.shape[1])].sum(1)
    with np.errstate(invalid="ignore"):
        near = near / counts.sum(1)  # 0 / 0 is NaN
    rows = np.searchsorted(recording.steps, steps, side="right") - 1
    flips = recording["layer_flip_count"].cumsum(0)[rows] / recording.weight_counts
    rates = np.full_like(near, np.nan)
    rates[1:] = np.diff(flips, axis=0) / np.diff(steps)[:, None]
    wide = {"near_edge_share": near, "flip_rate": rates, "step_size": recording["step_size"][rows]}
    table = pd.DataFrame({"step": np.repeat(steps, len(recording.layers))})
    table["layer"] = np.tile(recording.layer_names, len(steps))
    table["weight_count"] = np.tile(recording.weight_counts, len(steps))
    return table.assign(**{name: values.reshape(-1) for name, values in wide.items()})


def state_summary(recording: Recording, layer: str) -> dict[str, float]:
    """Return shares of a layer's weights at the end; `layers` says what each is."""
    about, where = recording.layers[recording.index(layer)], recording.weights_of(layer)
    states, still = recording["integer_state"][where], recording["flip_count"][where] == 0
    table, near = occupancy(recording, layer), edge_distances(recording, layer)
    shares, shown = table["share"].to_numpy(), near["weight_count"].sum() > 0
    used = shares[shares > 0]
    return {
        "still_share": still.mean(),
        "zero_share": (states == 0).mean(),
        "dead_share": ((states == 0) & still).mean(),
        "saturated_share": ((states == about["low"]) | (states == about["high"])).mean(),
        "used_state_count": int((table["weight_count"] > 0).sum()),
        "entropy": abs(float((used * np.log2(used)).sum())),
        "edge_distance": (near["distance"] * near["share"]).sum() if shown else np.nan,
        "near_edge_share": near.loc[near["distance"] < NEAR, "share"].sum() if shown else np.nan,
    }


def _cells(recording: Recording, layer: str, first: bool) -> tuple[int, np.ndarray, int]:
    """Return the layer's lowest state, its part of a histogram of positions and the cells per bin of all."""
    counts = recording["position_count_first" if first else "position_count"]
    bins, at = [about["high"] - about["low"] + 2 for about in recording.layers], recording.index(layer)
    cells_per_bin = len(counts) // sum(bins)
    start = sum(bins[:at]) * cells_per_bin
    return recording.layers[at]["low"], counts[start : start + bins[at] * cells_per_bin], cells_per_bin


def _rows_of_last(recording: Recording, last: float) -> slice:
    """Return the rows over time of the last share of the recording: one at least, never row 0."""
    steps = recording.steps
    first = int(np.searchsorted(steps, steps[-1] * (1 - last), side="right"))
    return slice(max(1, min(first, len(steps) - 1)), None) if len(steps) > 1 else slice(0, None)


def oscillating(recording: Recording, layer: str) -> np.ndarray:
    """Return whether each weight of a layer oscillates: frequency above the recording's threshold."""
    above: np.ndarray = np.greater(recording["frequency"][recording.weights_of(layer)], recording.meta["threshold"])
    return above


def _sign_change_rates(recording: Recording, name: str, side: int) -> np.ndarray:
    """Return the share of steps at which the gradient of a step size changed its sign, per layer; NaN without one."""
    if name not in recording:
        return np.full(len(recording.layers), np.nan)
    looked_at = np.array([about["has_gradient"][side] for about in recording.layers])
    sizes = np.array([1 if side else about["step_count"] for about in recording.layers])
    rates = recording[name].sum(0) / sizes / max(int(recording.steps[-1]), 1)
    return np.where(looked_at, rates, np.nan)

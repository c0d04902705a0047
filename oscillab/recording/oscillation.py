"""Where and how much does it oscillate? Tables and numbers from a recording, without torch.

All tables are tidy: one observation a row, one variable a column. `step` is the optimizer step, `step_size` the size of
a quantizer's step in units of the weight. Rates are per weight and optimizer step.
"""

import numpy as np
import pandas as pd

from oscillab.recording.counting import Oscillations, count_oscillations
from oscillab.recording.states import edge_distances, entropy, occupancy, positions, state_summary

__all__ = [
    "Oscillations", "compare", "count_oscillations", "edge_distances", "entropy", "flip_rate", "layers", "occupancy",
    "oscillating_share", "over_time", "positions", "ranges", "trajectories", "weights",
]  # fmt: skip
LOW_BITS = 4  # the published tracker looks at layers of 4 bits and fewer
LAST = 0.25  # the share of a recording at its end that says how it ended


def layers(recording):
    """One row per layer, as it was at the end.

    Columns: `layer`, `bits`, `weight_count`; `step_size_first`, `step_size_last`, `step_size_spread` (standard
    deviation over the last quarter, as a share of the mean); `flip_rate`, `oscillation_rate` (per weight and step,
    whole recording), `flip_rate_last` (last quarter); and as shares of the layer's weights `oscillating_share`
    (frequency above the threshold), `still_share` (never flipped), `zero_share` (state 0), `dead_share` (state 0 and
    never flipped), `saturated_share` (lowest or highest state); `used_state_count`; `entropy` of the states in bits;
    `gradient_turn_rate`, `input_gradient_turn_rate` (share of steps at which the gradient of the step size of the
    weights, of the input, changed its sign; NaN where it was not trained or not recorded);
    `edge_distance` (mean distance to the nearest bin edge, in bins, 0..0.5; 0.25 where spread evenly),
    `near_edge_share` (nearer than 0.05 bins; 0.1 where spread evenly).
    """
    counts, steps = recording.weight_counts, max(int(recording.steps[-1]), 1)
    late, sizes = rows_of_last(recording, LAST), recording["step_size"].astype(float)
    late_steps = recording.steps[-1] - recording.steps[late.start - 1] if len(sizes) > 1 else 1
    table = pd.DataFrame({"layer": recording.layer_names, "bits": [about["bits"] for about in recording.layers]})
    table["weight_count"] = counts
    table["step_size_first"], table["step_size_last"] = sizes[0], sizes[-1]
    table["step_size_spread"] = sizes[late].std(0) / np.abs(sizes[late].mean(0))
    table["flip_rate"] = recording["layer_flip_count"].sum(0) / counts / steps
    table["oscillation_rate"] = recording["layer_oscillation_count"].sum(0) / counts / steps
    table["flip_rate_last"] = recording["layer_flip_count"][late].sum(0) / counts / late_steps
    table["gradient_turn_rate"] = turn_rates(recording, "gradient_turn_count", 0)
    table["input_gradient_turn_rate"] = turn_rates(recording, "input_gradient_turn_count", 1)
    table["oscillating_share"] = [oscillating(recording, layer).mean() for layer in recording.layer_names]
    shares = pd.DataFrame([state_summary(recording, layer) for layer in recording.layer_names])
    return pd.concat([table, shares], axis=1)


def weights(recording, layer):
    """One row per weight of a layer, as it was at the end.

    Columns: `weight` (flat index into the layer's weight), `integer_state`, `direction` of its last flip (-1, 1; 0
    before the first), `flip_count`, `oscillation_count`, `frequency` (oscillations per tick, exponential average),
    `oscillating` (frequency above the threshold).
    """
    where = recording.weights_of(layer)
    names = ("integer_state", "direction", "flip_count", "oscillation_count", "frequency")
    table = pd.DataFrame(
        {"weight": np.arange(where.stop - where.start)} | {name: recording[name][where] for name in names}
    )
    return table.assign(oscillating=oscillating(recording, layer))


def over_time(recording):
    """One row per layer and recorded step, from the state before the first step (0) on.

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
        "clip_low": for_all_layers(recording, "clip_low", rows),
        "clip_high": for_all_layers(recording, "clip_high", rows),
    }
    keys = {"step": np.repeat(recording.steps, layer_count), "layer": np.tile(recording.layer_names, rows)}
    return pd.DataFrame(keys | {name: values.reshape(-1) for name, values in columns.items()})


def ranges(recording):
    """One row per input quantizer and step with observed inputs: what came in, and what the quantizer lets pass.

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


def trajectories(recording, layer):
    """One row per sampled weight of a layer and recorded step.

    Columns: `step`, `weight` (flat index), `latent_weight`, `step_size`, `integer_state`, `position` (latent weight /
    step size: in bins, edges at half integers), `edge_distance` (to the nearest edge between two states, in bins).
    """
    where, index = recording.weights_of(layer), recording["sample_index"]
    picked = (index >= where.start) & (index < where.stop)
    names = {"latent_weight": "latent_weight", "step_size": "sample_step_size", "integer_state": "sample_state"}
    columns = {name: recording[array][:, picked].reshape(-1) for name, array in names.items()}
    keys = {
        "step": np.repeat(recording.steps, picked.sum()),
        "weight": np.tile(index[picked] - where.start, len(recording.steps)),
    }
    position = columns["latent_weight"] / columns["step_size"]
    about = recording.layers[recording.index(layer)]
    edge = np.clip(np.floor(position) + 0.5, about["low"] + 0.5, about["high"] - 0.5)
    return pd.DataFrame(keys | columns).assign(position=position, edge_distance=np.abs(position - edge))


def compare(before, after):
    """One row per layer and quantity of two recordings, over the layers that both have.

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


def oscillating_share(recording, *, max_bits=LOW_BITS):
    """The share of weights that oscillate at the end (frequency above the threshold), in layers of at most `max_bits`.

    Layers of unknown bits count; `max_bits=None` takes all. NaN where no layer is left.
    """
    chosen = chosen_layers(recording, max_bits)
    return float(np.concatenate([oscillating(recording, name) for name in chosen]).mean()) if chosen else np.nan


def flip_rate(recording, *, last=LAST, max_bits=LOW_BITS):
    """Flips per weight and optimizer step over the last share of the recording, in layers of at most `max_bits`.

    Layers of unknown bits count; `max_bits=None` takes all. NaN where no layer is left or no step was recorded. Where
    not every step was recorded, flips in between are not seen, and the rate is a lower bound.
    """
    if not 0 < last <= 1:
        raise ValueError(f"last must be above 0 and at most 1, got {last}")
    chosen, rows = [recording.index(name) for name in chosen_layers(recording, max_bits)], rows_of_last(recording, last)
    if not chosen or len(recording.steps) < 2:
        return np.nan
    steps = recording.steps[-1] - recording.steps[rows.start - 1]
    return float(recording["layer_flip_count"][rows][:, chosen].sum() / recording.weight_counts[chosen].sum() / steps)


def rows_of_last(recording, last):
    """The slice of rows over time that make up the last share of the recording: one row at least, never row 0."""
    steps = recording.steps
    first = int(np.searchsorted(steps, steps[-1] * (1 - last), side="right"))
    return slice(max(1, min(first, len(steps) - 1)), None) if len(steps) > 1 else slice(0, None)


def oscillating(recording, layer):
    """Whether each weight of a layer oscillates: frequency above the recording's threshold."""
    return recording["frequency"][recording.weights_of(layer)] > recording.meta["threshold"]


def chosen_layers(recording, max_bits):
    """The names of the layers that have at most `max_bits`, and of those whose bits are not known."""
    known = ((about["name"], about["bits"]) for about in recording.layers)
    return [name for name, bits in known if max_bits is None or bits is None or bits <= max_bits]


def turn_rates(recording, name, side):
    """The share of steps at which the gradient of a step size turned, per layer; NaN for layers without that gradient."""
    if name not in recording:
        return np.full(len(recording.layers), np.nan)
    looked_at = np.array([about["has_gradient"][side] for about in recording.layers])
    sizes = np.array([1 if side else about["step_count"] for about in recording.layers])
    rates = recording[name].sum(0) / sizes / max(int(recording.steps[-1]), 1)
    return np.where(looked_at, rates, np.nan)


def for_all_layers(recording, name, rows):
    """An array over the layers with an input quantizer as one over all layers, NaN for those without."""
    has_range = [about["has_range"] for about in recording.layers]
    full = np.full((rows, len(has_range)), np.nan, np.float32)
    if any(has_range):
        full[:, has_range] = recording[name]
    return full

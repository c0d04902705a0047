"""How regular is an oscillation, and how long is a cycle?"""

import numpy as np
import pandas as pd

from oscillab.recording.counting import count_oscillations


def autocorrelation(integer_states, lag_count):
    """The autocorrelation (lag_count + 1, weights) of each weight's states (steps, weights) at lags 0 to `lag_count`.

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


def cycle_lengths(integer_states):
    """The mean steps between two upward flips of each weight's states (steps, weights); NaN with fewer than two.

    >>> cycle_lengths(np.array([[0], [1], [0], [0], [1], [0], [0], [1]]))
    array([3.])
    """
    upward = np.diff(np.asarray(integer_states, np.int32), axis=0) > 0
    counts, rows = upward.sum(0), np.arange(len(upward))[:, None]
    first = np.where(upward, rows, len(upward)).min(0, initial=len(upward))
    last = np.where(upward, rows, -1).max(0, initial=-1)
    return np.where(counts > 1, (last - first) / np.maximum(counts - 1, 1), np.nan)


def rhythms(recording, *, last=0.25):
    """One row per sampled weight: how it oscillated over the last share of the recorded ticks.

    Columns: `layer`, `weight` (flat index), `flip_count`, `oscillation_count`, `cycle_length` (mean ticks from an
    upward flip to the next; NaN with fewer than two), `upper_share` (share of ticks above its lowest state there).
    """
    if not 0 < last <= 1:
        raise ValueError(f"last must be above 0 and at most 1, got {last}")
    states = recording["sample_state"]
    states = states[-max(2, round(len(states) * last)) :]
    index, ends = recording["sample_index"], np.cumsum(recording.weight_counts)
    layer = np.searchsorted(ends, index, side="right")
    return pd.DataFrame(
        {
            "layer": np.array(recording.layer_names, object)[layer],
            "weight": index - (ends - recording.weight_counts)[layer],
            "flip_count": (np.diff(states.astype(np.int32), axis=0) != 0).sum(0),
            "oscillation_count": count_oscillations(states).totals,
            "cycle_length": cycle_lengths(states),
            "upper_share": (states > states.min(0)).mean(0),
        }
    )

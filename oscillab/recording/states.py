"""How are the weights spread over the states, and how near to an edge do they lie?"""

import numpy as np
import pandas as pd

NEAR = 0.05  # of a bin; weights spread evenly would have a tenth of them nearer than this to an edge


def occupancy(recording, layer):
    """How many weights of a layer are in each integer state at the end.

    Columns: `state` (integer, from the layer's lowest to its highest), `weight_count`, `share` (of the weights).
    """
    about, states = recording.layers[recording.index(layer)], recording["integer_state"][recording.weights_of(layer)]
    levels = np.arange(min(about["low"], states.min()), max(about["high"], states.max()) + 1)
    counts = np.bincount(states.astype(int) - levels[0], minlength=len(levels))
    return pd.DataFrame({"state": levels, "weight_count": counts, "share": counts / len(states)})


def entropy(shares):
    """The entropy in bits of a distribution over states; `bits` of the layer where all states are used alike.

    >>> entropy(np.array([0.25, 0.25, 0.25, 0.25])), entropy(np.array([0.0, 1.0]))
    (2.0, 0.0)
    """
    used = shares[shares > 0]
    return abs(float((used * np.log2(used)).sum()))


def positions(recording, layer, *, first=False):
    """The histogram of a layer's latent weights over their position, at the end or (`first`) before the first step.

    Columns: `position` (middle of the cell, latent weight / step size, so in bins; edges at half integers),
    `weight_count`, `density` (per bin; it integrates to 1 over the cells). The end cells hold what lies beyond.
    """
    low, counts, cells_per_bin = cells(recording, layer, "position_count_first" if first else "position_count")
    middle = low - 1 + (np.arange(len(counts)) + 0.5) / cells_per_bin
    density = counts / max(counts.sum(), 1) * cells_per_bin
    return pd.DataFrame({"position": middle, "weight_count": counts, "density": density})


def edge_distances(recording, layer, *, first=False):
    """The histogram of the distance of a layer's latent weights to the nearest edge between two states.

    Columns: `distance` (middle of the cell, in bins; 0 on an edge, 0.5 mid-bin), `weight_count`, `share`.
    Weights beyond the outermost edges by more than half a bin, which have no nearer edge, are in the last cell.
    """
    table = positions(recording, layer, first=first)
    low, counts, cells_per_bin = cells(recording, layer, "position_count_first" if first else "position_count")
    high = low + len(counts) // cells_per_bin - 2
    nearest = np.clip(np.floor(table["position"]) + 0.5, low + 0.5, high - 0.5)
    cell = np.minimum((np.abs(table["position"] - nearest) * cells_per_bin).astype(int), cells_per_bin // 2 - 1)
    folded = np.bincount(cell, weights=counts, minlength=cells_per_bin // 2).astype(np.int64)
    middle = (np.arange(len(folded)) + 0.5) / cells_per_bin
    return pd.DataFrame({"distance": middle, "weight_count": folded, "share": folded / max(folded.sum(), 1)})


def cells(recording, layer, name):
    """(lowest state, counts of the layer's cells, cells per bin) of a histogram of positions."""
    bins = [about["high"] - about["low"] + 2 for about in recording.layers]
    cells_per_bin = len(recording[name]) // sum(bins)
    at = recording.index(layer)
    start = sum(bins[:at]) * cells_per_bin
    return recording.layers[at]["low"], recording[name][start : start + bins[at] * cells_per_bin], cells_per_bin


def state_summary(recording, layer):
    """Shares of a layer's weights at the end, as a dict; `oscillab.recording.oscillation.layers` says what each is."""
    about, weights = recording.layers[recording.index(layer)], recording.weights_of(layer)
    states, still = recording["integer_state"][weights], recording["flip_count"][weights] == 0
    table, near = occupancy(recording, layer), edge_distances(recording, layer)
    shown = near["weight_count"].sum() > 0
    return {
        "still_share": still.mean(),
        "zero_share": (states == 0).mean(),
        "dead_share": ((states == 0) & still).mean(),
        "saturated_share": ((states == about["low"]) | (states == about["high"])).mean(),
        "used_state_count": int((table["weight_count"] > 0).sum()),
        "entropy": entropy(table["share"].to_numpy()),
        "edge_distance": (near["distance"] * near["share"]).sum() if shown else np.nan,
        "near_edge_share": near.loc[near["distance"] < NEAR, "share"].sum() if shown else np.nan,
    }

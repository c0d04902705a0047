"""Who made a weight flip: the weight, or the edge that moved under it?

A state is round(w / s): it changes when the latent weight w crosses an edge, and also when the step size s moves the edge
across a weight that stands still.
"""

import numpy as np
import pandas as pd


def flip_causes(recording):
    """One row per layer: the flips of its sampled weights, and who made them.

    Columns: `layer`, `sampled_count` (weights), `flip_count` (from one recorded row to the next), `edge_flip_count` (of
    these, how many the new latent weight would not have made with the step size of the row before).
    """
    states = recording["sample_state"]
    low, high = limits_of_sampled(recording)
    with_old_step = np.round(recording["latent_weight"][1:] / recording["sample_step_size"][:-1])  # Eq. 1 of 2311.05109
    by_weight = np.clip(with_old_step, low, high) != states[:-1]
    flips = states[1:] != states[:-1]
    layer = layer_of_sampled(recording)
    counts = {
        "sampled_count": np.ones(len(layer)),
        "flip_count": flips.sum(0),
        "edge_flip_count": (flips & ~by_weight).sum(0),
    }
    length = len(recording.layers)
    summed = {name: np.bincount(layer, weights=values, minlength=length).astype(int) for name, values in counts.items()}
    return pd.DataFrame({"layer": recording.layer_names} | summed)


def layer_of_sampled(recording):
    """The place of the layer of each sampled weight, (sampled,)."""
    return np.searchsorted(np.cumsum(recording.weight_counts), recording["sample_index"], side="right")


def limits_of_sampled(recording):
    """The lowest and the highest state of the layer of each sampled weight, (sampled,) each."""
    limits = np.array([(about["low"], about["high"]) for about in recording.layers])[layer_of_sampled(recording)]
    return limits[:, 0], limits[:, 1]

"""Tables of recordings and of results: pandas DataFrames with one observation a row, and a few numbers, without torch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from oscillab.recording.tables import (
    compare,
    flip_attribution,
    flip_rate,
    layers,
    oscillating_share,
    over_time,
    periodicity,
    ranges,
    trajectories,
    weights,
)
from oscillab.study.table import claims, compare_with_paper, paired_p, summary
from oscillab.study.text import table_text

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "claims", "compare", "compare_with_paper", "flip_attribution", "flip_rate", "layer_errors", "layers",
    "oscillating_share", "over_time", "paired_p", "periodicity", "ranges", "summary", "table_text", "trajectories",
    "weights",
]  # fmt: skip


def layer_errors(float_model: "nn.Module | None", model: "nn.Module", images: "Iterable[Tensor]") -> pd.DataFrame:
    """Return how far each layer's output misses the float network's, one row per convolution.

    `images`: float tensors (N, 3, H, W), pixels in 0..1. `float_model`: None is `model` itself with its quantizers off.
    Columns: `layer`; `error_mean`, `error_variance` over all values of the layer; `mean_share` (of the squared error,
    what subtracting each channel's mean would remove); `signal_to_noise` (decibel, float variance over squared error).
    """
    from oscillab.train.layer_errors import layer_errors, output_errors

    return pd.DataFrame(layer_errors(output_errors(float_model, model, images)))

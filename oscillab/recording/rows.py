"""What is written down at a tick?"""

import numpy as np
import torch
from torch import Tensor

from oscillab.recording.gradients import GradientSigns
from oscillab.recording.sampling import Sample
from oscillab.recording.series import Series
from oscillab.recording.watched import WatchedLayers

f32, i32, i64 = torch.float32, torch.int32, torch.int64
TURNS = ("gradient_turn_count", "input_gradient_turn_count")


class Rows:
    """All that a recording has over time: a row a tick, a row where ranges are observed, all step sizes now and then.

    Row 0 is the model before the first step.
    """

    def __init__(self, layers: WatchedLayers, sample: Sample, gradients: GradientSigns):
        self._layers, self._sample, self._gradients = layers, sample, gradients
        starts = [layer.start for layer in layers.layers]
        self._bounds = torch.tensor([*starts, layers.weight_count], device=layers.device)
        ranged = (len(layers.ranged), f32)
        seen = {"range_step": (None, i64), "observed_low": ranged, "observed_high": ranged, "clipped_share": ranged}
        full = {"step_sizes_step": (None, i64), "step_sizes": (sum(layer.step_count for layer in layers.layers), f32)}
        self._ticks = Series(self._columns(), layers.device)
        self._ranges = Series(seen if layers.ranged else {}, layers.device)
        self._step_sizes = Series(full if layers.per_channel else {}, layers.device)

    def add_tick(self, step: int, flipped: Tensor, oscillated: Tensor, *, step_sizes: Tensor, state: Tensor) -> None:
        """A row on the weights that flipped and oscillated (indices, ascending), with all else at this tick."""
        row = self._layers.step_size_rows(step_sizes) | self._sample.rows(step_sizes, state)
        if self._layers.ranged:
            row |= self._layers.clipping_ranges()
        turns = self._gradients.turns()
        row |= {TURNS[side]: turns[side] for side in self._gradients.sides}
        counts = {"layer_flip_count": self._per_layer(flipped), "layer_oscillation_count": self._per_layer(oscillated)}
        self._ticks.append(step=step, **counts, **row)

    def add_ranges(self, step: int, observed: dict[str, Tensor]) -> None:
        """A row on what the inputs of the layers were in the forward before this step."""
        self._ranges.append(range_step=step, **observed)

    def add_step_sizes(self, step: int, step_sizes: Tensor) -> None:
        """A row of every step size, where a layer has several."""
        if self._layers.per_channel:
            self._step_sizes.append(step_sizes_step=step, step_sizes=step_sizes)

    def counts(self) -> tuple[int, ...]:
        """The number of rows over ticks, of observed ranges and of all step sizes."""
        return tuple(len(series) for series in self._all())

    def arrays(self, since: tuple[int, ...] = (0, 0, 0)) -> dict[str, np.ndarray]:
        """Every column so far, or from the rows on that came after `counts` were `since`."""
        each = [series.arrays(begin) for series, begin in zip(self._all(), since, strict=True)]
        return each[0] | each[1] | each[2]

    def state_dict(self) -> list[dict[str, Tensor]]:
        """All rows so far."""
        return [series.state_dict() for series in self._all()]

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here."""
        for series, rows in zip(self._all(), state, strict=True):
            series.load_state_dict(rows)

    def _all(self) -> tuple[Series, ...]:
        return self._ticks, self._ranges, self._step_sizes

    def _columns(self) -> dict[str, tuple[int | None, torch.dtype]]:
        layers, sampled = self._layers, len(self._sample.index)
        count, ranged = len(layers.layers), len(layers.ranged)
        columns = {"step": (None, i64), "layer_flip_count": (count, i32), "layer_oscillation_count": (count, i32)}
        columns |= dict.fromkeys(layers.step_size_rows(layers.checked_step_sizes()), (count, f32))
        columns |= {TURNS[side]: (count, i32) for side in self._gradients.sides}
        columns |= {"clip_low": (ranged, f32), "clip_high": (ranged, f32)} if ranged else {}
        return columns | {
            "latent_weight": (sampled, f32),
            "sample_step_size": (sampled, f32),
            "sample_state": (sampled, torch.int8),
        }

    def _per_layer(self, indices: Tensor) -> Tensor:
        return torch.searchsorted(indices, self._bounds).diff()

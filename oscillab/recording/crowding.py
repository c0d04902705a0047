"""Count now and then where latent weights lie in their bins, to see whether they crowd at bin edges."""

from typing import Any

import numpy as np
import torch

from oscillab.recording.layers import Layer, WatchedLayers
from oscillab.recording.tables import fold_positions

CELLS_PER_BIN = 40  # of a histogram; an even number, so that no cell reaches across an edge
FIRST_INTERVAL, MOST_ROWS = 25, 40  # a row every 25 steps at first, 50 from step 1,000 on, 100 from 2,000, ...


class Crowding:
    """Histograms of the distance of each layer's latent weights to the nearest edge, at equally spaced steps.

    How long a run will be is not known: a row too many halves them, and the next ones come half as often. So a run of 500,
    1,000, 2,000, ... steps ends with 21 rows, any longer one than 500 with 21 to 40.
    """

    def __init__(self, layers: WatchedLayers, limits: list[tuple[int, int]]):
        self._layers, self._limits, self.interval = layers, limits, FIRST_INTERVAL
        self._steps: list[int] = []
        self._rows: list[np.ndarray] = []  # (cells, layers) each
        self.add_when_due(0)

    def add_when_due(self, step: int) -> None:
        """Add a row where `step` is a multiple of the interval that holds now."""
        if step % self.interval:
            return
        pairs = zip(self._layers.layers, self._limits, strict=True)
        rows = [fold_positions(position_histogram(layer, *ends), *ends) for layer, ends in pairs]
        self._steps.append(step)
        self._rows.append(np.stack(rows, 1).astype(np.uint32))
        if len(self._steps) > MOST_ROWS:
            self._steps, self._rows, self.interval = self._steps[::2], self._rows[::2], 2 * self.interval

    def arrays(self) -> dict[str, np.ndarray]:
        """Return `edge_distance_step` (rows,) and `edge_distance_count` (rows, cells, layers)."""
        counts = np.stack(self._rows) if self._rows else np.zeros((0, CELLS_PER_BIN // 2, len(self._limits)), np.uint32)
        return {"edge_distance_step": np.array(self._steps, np.int64), "edge_distance_count": counts}

    def state_dict(self) -> dict[str, Any]:
        """Return all rows so far."""
        arrays = {name: torch.from_numpy(array.astype(np.int64)) for name, array in self.arrays().items()}
        return arrays | {"interval": self.interval}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here."""
        self.interval, self._steps = state["interval"], state["edge_distance_step"].tolist()
        self._rows = list(state["edge_distance_count"].cpu().numpy().astype(np.uint32))


@torch.no_grad()
def position_histogram(layer: Layer, low: int, high: int) -> np.ndarray:
    """Count the layer's positions in cells from low - 1 to high + 1; what lies beyond is in the end cells, int64.

    A position is latent weight over step size: bin centres are the integers, edges lie half-way. Zeros where the layer
    does not show its latent weights; NaN and infinite positions are left out.
    """
    position, cells = layer.position(), (high - low + 2) * CELLS_PER_BIN
    if position is None:
        return np.zeros(cells, np.int64)
    cell = ((position[position.isfinite()] - (low - 1)) * CELLS_PER_BIN).floor().clamp(0, cells - 1)
    return torch.bincount(cell.long(), minlength=cells).cpu().numpy()

"""Where do latent weights lie between the edges of their bins?

Position is latent weight over step size: bin centres are the integers, the edges lie half-way between them.
"""

import numpy as np
import torch
from torch import Tensor

from oscillab.recording.watched import Layer

CELLS_PER_BIN = 40  # an even number, so that no cell reaches across an edge


def limits_of(bits: int | None, states: Tensor) -> tuple[int, int]:
    """The lowest and highest state of a layer: of its bits, or of the fewest bits that hold its states.

    Signed unless a state is too large for that.

    >>> limits_of(4, torch.tensor([-8, 3])), limits_of(4, torch.tensor([0, 15])), limits_of(None, torch.tensor([-3, 2]))
    ((-8, 7), (0, 15), (-4, 3))
    """
    low, high = int(states.min()), int(states.max())
    if bits is None:
        bits = next(b for b in range(2, 33) if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1))
    if high >= 2 ** (bits - 1):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def cell_count(low: int, high: int) -> int:
    """The cells of a histogram of positions from low - 1 to high + 1."""
    return (high - low + 2) * CELLS_PER_BIN


@torch.no_grad()
def position_histogram(layer: Layer, low: int, high: int) -> np.ndarray:
    """Counts (cells,) int64 of the layer's positions from low - 1 to high + 1; what lies beyond is in the end cells.

    Zeros where the layer does not show its latent weights; NaN and infinite positions are left out.
    """
    position, cells = layer.position(), cell_count(low, high)
    if position is None:
        return np.zeros(cells, np.int64)
    cell = ((position[position.isfinite()] - (low - 1)) * CELLS_PER_BIN).floor().clamp(0, cells - 1)
    return torch.bincount(cell.long(), minlength=cells).cpu().numpy()

"""How are rows over time kept without waiting for the device at every step?"""

import numpy as np
import torch
from torch import Tensor

CHUNK_ROWS = 256


class Series:
    """Named columns over time. Rows are written on the device and fetched a chunk at a time.

    `columns`: name -> (width, dtype); width None is one number a row.
    """

    def __init__(self, columns: dict[str, tuple[int | None, torch.dtype]], device: torch.device):
        self._chunk = {
            name: torch.zeros((CHUNK_ROWS,) if width is None else (CHUNK_ROWS, width), dtype=dtype, device=device)
            for name, (width, dtype) in columns.items()
        }
        self._full = {name: [] for name in columns}  # numpy chunks
        self._filled = 0  # rows of the chunk in use

    def append(self, **row) -> None:
        """Add a row: a value for every column, a number or a tensor of the column's width."""
        for name, chunk in self._chunk.items():
            chunk[self._filled] = row[name]
        self._filled += 1
        if self._filled == CHUNK_ROWS:
            for name, chunk in self._chunk.items():
                self._full[name].append(chunk.cpu().numpy().copy())
            self._filled = 0

    def arrays(self) -> dict[str, np.ndarray]:
        """Every column as an array of all rows so far, (rows,) or (rows, width)."""
        return {
            name: np.concatenate([*self._full[name], chunk[: self._filled].cpu().numpy()])
            for name, chunk in self._chunk.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All rows so far, as tensors on the CPU."""
        return {name: torch.from_numpy(array) for name, array in self.arrays().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here."""
        for name, chunk in self._chunk.items():
            whole = len(state[name]) // CHUNK_ROWS * CHUNK_ROWS
            self._full[name] = [state[name][:whole].cpu().numpy().copy()]
            self._filled = len(state[name]) - whole
            chunk[: self._filled] = state[name][whole:].to(chunk.device)

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

    def __len__(self) -> int:
        """The number of rows so far."""
        return self._filled + CHUNK_ROWS * max((len(full) for full in self._full.values()), default=0)

    def arrays(self, since: int = 0) -> dict[str, np.ndarray]:
        """Every column as an array of all rows from `since` on, (rows,) or (rows, width)."""
        skipped = min(since, len(self) - self._filled) // CHUNK_ROWS
        parts = {
            name: [*self._full[name][skipped:], chunk[: self._filled].cpu().numpy()]
            for name, chunk in self._chunk.items()
        }
        return {name: np.concatenate(each)[since - skipped * CHUNK_ROWS :] for name, each in parts.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All rows so far, as tensors on the CPU."""
        return {name: torch.from_numpy(array) for name, array in self.arrays().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here; a column that it lacks holds zeros."""
        rows = max((len(column) for column in state.values()), default=0)
        whole, self._filled = rows - rows % CHUNK_ROWS, rows % CHUNK_ROWS
        for name, chunk in self._chunk.items():
            column = state[name] if name in state else chunk.new_zeros(rows, *chunk.shape[1:])
            self._full[name] = [column[at : at + CHUNK_ROWS].cpu().numpy().copy() for at in range(0, whole, CHUNK_ROWS)]
            chunk[: self._filled] = column[whole:].to(chunk.device)

"""Write down what happens at every tick: rows on the device, fetched a chunk at a time without waiting for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oscillab.recording.layers import WatchedLayers
from oscillab.recording.observers import GradientSigns

CHUNK_ROWS = 256
SIGN_CHANGES = ("gradient_turn_count", "input_gradient_turn_count")  # their names in files since the first edition
f32, i32, i64 = torch.float32, torch.int32, torch.int64
Columns = dict[str, tuple[int | None, torch.dtype]]


class Series:
    """Named columns over time; `columns`: name -> (width, dtype), width None being one number a row."""

    def __init__(self, columns: Columns, device: torch.device):
        self._chunk = {
            name: torch.zeros((CHUNK_ROWS,) if width is None else (CHUNK_ROWS, width), dtype=dtype, device=device)
            for name, (width, dtype) in columns.items()
        }
        self._full: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        self._filled = 0  # rows of the chunk in use

    def append(self, **row: Any) -> None:
        """Add a row: a value for every column, a number or a tensor of the column's width."""
        for name, chunk in self._chunk.items():
            chunk[self._filled] = row[name]
        self._filled += 1
        if self._filled == CHUNK_ROWS:
            for name, chunk in self._chunk.items():
                self._full[name].append(chunk.cpu().numpy().copy())
            self._filled = 0

    def __len__(self) -> int:
        """Return the number of rows so far."""
        return self._filled + CHUNK_ROWS * max((len(full) for full in self._full.values()), default=0)

    def arrays(self, since: int = 0) -> dict[str, np.ndarray]:
        """Return every column as an array of all rows from `since` on, (rows,) or (rows, width)."""
        skipped = min(since, len(self) - self._filled) // CHUNK_ROWS
        latest = {name: chunk[: self._filled].cpu().numpy() for name, chunk in self._chunk.items()}
        parts = {name: [*self._full[name][skipped:], rows] for name, rows in latest.items()}
        return {name: np.concatenate(each)[since - skipped * CHUNK_ROWS :] for name, each in parts.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return all rows so far, as tensors on the CPU."""
        return {name: torch.from_numpy(array) for name, array in self.arrays().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here; a column that it lacks holds zeros."""
        rows = max((len(column) for column in state.values()), default=0)
        whole, self._filled = rows - rows % CHUNK_ROWS, rows % CHUNK_ROWS
        for name, chunk in self._chunk.items():
            column = state[name] if name in state else chunk.new_zeros(rows, *chunk.shape[1:])
            self._full[name] = [column[at : at + CHUNK_ROWS].cpu().numpy().copy() for at in range(0, whole, CHUNK_ROWS)]
            chunk[: self._filled] = column[whole:].to(chunk.device)


class Sample:
    """The weights whose trajectory is recorded: their latent weight, step size and integer state at every tick.

    `trajectories`: a number of weights per layer, drawn with `seed`; or layer name -> flat indices into its weight.
    `index`: their places among the weights of all layers, (sampled,) int64, ascending layer by layer.
    Raises ValueError for an unknown layer, an index outside it, or a negative number.
    """

    def __init__(self, layers: WatchedLayers, trajectories: int | Mapping[str, Sequence[int]], *, seed: int):
        names = [layer.name for layer in layers.layers]
        if isinstance(trajectories, Mapping):
            if unknown := set(trajectories) - set(names):
                raise ValueError(f"trajectories name '{min(unknown)}', which is not a quantized layer of the model")
            chosen = [np.unique(np.asarray(trajectories.get(name, []), np.int64)) for name in names]
        elif trajectories < 0:
            raise ValueError(f"trajectories must be 0 or more weights per layer, got {trajectories}")
        else:  # each layer's draw is its own
            draws = [(np.random.default_rng([seed, i]), layer.count) for i, layer in enumerate(layers.layers)]
            chosen = [np.sort(one.choice(n, min(trajectories, n), replace=False)) for one, n in draws]
        pairs = list(zip(layers.layers, chosen, strict=True))
        for layer, picked in pairs:
            if len(picked) and not 0 <= picked[0] <= picked[-1] < layer.count:
                raise ValueError(
                    f"trajectories of layer '{layer.name}' must lie in 0..{layer.count - 1}, got {picked.tolist()}"
                )
        starts = np.cumsum([0, *(layer.step_count for layer in layers.layers)])
        step_index = [start + one.step_indices(picked) for start, (one, picked) in zip(starts, pairs, strict=False)]
        places = [layer.places(picked) for layer, picked in pairs]
        self.index = np.concatenate([layer.start + picked for layer, picked in pairs]).astype(np.int64)
        self._parts = [(layer, torch.from_numpy(picked).to(layers.device)) for layer, picked in pairs if len(picked)]
        self._state_place = torch.from_numpy(np.concatenate(places).astype(np.int64)).to(layers.device)
        self._step_index = torch.from_numpy(np.concatenate(step_index).astype(np.int64)).to(layers.device)

    def rows(self, step_sizes: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Return latent weights (NaN where a layer does not show them), step sizes and states of the sampled weights.

        `state` is that of all layers' weights as they lie in memory.
        """
        latents = [step_sizes[:0]]
        for layer, index in self._parts:
            latent = layer.latent_weight()
            none = torch.full(index.shape, torch.nan, device=index.device)
            latents.append(none if latent is None else torch.take(latent, index).float())
        return {
            "latent_weight": torch.cat(latents),
            "sample_step_size": step_sizes[self._step_index],
            "sample_state": state[self._state_place],
        }


class Rows:
    """All that a recording has over time: a row a tick, a row where ranges are observed, all step sizes now and then.

    Row 0 is the model before the first step.
    """

    def __init__(self, layers: WatchedLayers, sample: Sample, gradients: GradientSigns):
        self._layers, self._sample, self._gradients = layers, sample, gradients
        starts = [layer.start for layer in layers.layers]
        self._bounds = torch.tensor([*starts, layers.weight_count], device=layers.device)
        number, observed = (None, i64), ("observed_low", "observed_high", "clipped_share")
        seen: Columns = {"range_step": number, **dict.fromkeys(observed, (len(layers.ranged), f32))}
        full: Columns = {"step_sizes_step": number, "step_sizes": (sum(one.step_count for one in layers.layers), f32)}
        self._ticks = Series(self._columns(), layers.device)
        self._ranges = Series(seen if layers.ranged else {}, layers.device)
        self._step_sizes = Series(full if layers.per_channel else {}, layers.device)
        self._all = self._ticks, self._ranges, self._step_sizes

    def add_tick(self, step: int, flipped: Tensor, oscillated: Tensor, *, step_sizes: Tensor, state: Tensor) -> None:
        """Add a row on the weights that flipped and oscillated (indices, ascending), with all else at this tick."""
        row = self._layers.step_size_rows(step_sizes) | self._sample.rows(step_sizes, state)
        if self._layers.ranged:
            row |= self._layers.clipping_ranges()
        changes = self._gradients.sign_changes()
        row |= {SIGN_CHANGES[side]: changes[side] for side in self._gradients.sides}
        for name, indices in (("layer_flip_count", flipped), ("layer_oscillation_count", oscillated)):
            row[name] = torch.searchsorted(indices, self._bounds).diff()
        self._ticks.append(step=step, **row)

    def add_ranges(self, step: int, observed: dict[str, Tensor]) -> None:
        """Add a row on what the inputs of the layers were in the forward before this step."""
        self._ranges.append(range_step=step, **observed)

    def add_step_sizes(self, step: int, step_sizes: Tensor) -> None:
        """Add a row of every step size, where a layer has several."""
        if self._layers.per_channel:
            self._step_sizes.append(step_sizes_step=step, step_sizes=step_sizes)

    def counts(self) -> tuple[int, ...]:
        """Return the number of rows over ticks, of observed ranges and of all step sizes."""
        return tuple(len(series) for series in self._all)

    def arrays(self, since: Sequence[int] = (0, 0, 0)) -> dict[str, np.ndarray]:
        """Return every column so far, or from the rows on that came after `counts` were `since`."""
        ticks, ranges, sizes = (series.arrays(begin) for series, begin in zip(self._all, since, strict=True))
        return ticks | ranges | sizes

    def state_dict(self) -> list[dict[str, Tensor]]:
        """Return all rows so far."""
        return [series.state_dict() for series in self._all]

    def load_state_dict(self, state: list[dict[str, Tensor]]) -> None:
        """Hold the rows of `state`, made by `state_dict`, in place of those here."""
        for series, rows in zip(self._all, state, strict=True):
            series.load_state_dict(rows)

    def _columns(self) -> Columns:
        layers, sampled = self._layers, len(self._sample.index)
        count, ranged = len(layers.layers), len(layers.ranged)
        flips = dict.fromkeys(("layer_flip_count", "layer_oscillation_count"), (count, i32))
        columns: Columns = {"step": (None, i64), **flips}
        columns |= dict.fromkeys(layers.step_size_rows(layers.checked_step_sizes()), (count, f32))
        columns |= {SIGN_CHANGES[side]: (count, i32) for side in self._gradients.sides}
        columns |= {"clip_low": (ranged, f32), "clip_high": (ranged, f32)} if ranged else {}
        columns |= dict.fromkeys(("latent_weight", "sample_step_size"), (sampled, f32))
        return columns | {"sample_state": (sampled, torch.int8)}

"""Whose whole course is kept?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from oscillab.recording.watched import Layer, WatchedLayers


class Sample:
    """The weights whose latent weight, step size and integer state are written down at every tick.

    `trajectories`: a number of weights per layer, drawn with `seed`; or layer name -> flat indices into its weight.
    `index`: their places among the weights of all layers, (sampled,) int64, ascending layer by layer.
    Raises ValueError for an unknown layer, an index outside it, or a negative number.
    """

    def __init__(self, layers: WatchedLayers, trajectories: int | Mapping[str, Sequence[int]], *, seed: int):
        by_count = isinstance(trajectories, int)
        chosen = drawn(layers.layers, trajectories, seed) if by_count else named(layers.layers, trajectories)
        pairs = list(zip(layers.layers, chosen, strict=True))
        self.index = np.concatenate([layer.start + picked for layer, picked in pairs]).astype(np.int64)
        self._parts = [(layer, torch.from_numpy(picked).to(layers.device)) for layer, picked in pairs if len(picked)]
        places = [layer.places(picked) for layer, picked in pairs]
        self._state_place = torch.from_numpy(np.concatenate(places).astype(np.int64)).to(layers.device)
        self._step_index = torch.from_numpy(step_places(layers.layers, chosen)).to(layers.device)

    def rows(self, step_sizes: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Latent weights (NaN where a layer does not show them), step sizes and states of the sampled weights.

        `state` is that of all layers' weights as they lie in memory.
        """
        latents = [values_at(layer, index) for layer, index in self._parts]
        return {
            "latent_weight": torch.cat(latents) if latents else step_sizes[:0],
            "sample_step_size": step_sizes[self._step_index],
            "sample_state": state[self._state_place],
        }


def drawn(layers: list[Layer], count: int, seed: int) -> list[np.ndarray]:
    """`count` flat indices of each layer, or all where it has no more; a layer's draw does not depend on the others."""
    if count < 0:
        raise ValueError(f"trajectories must be 0 or more weights per layer, got {count}")
    picks = []
    for i, layer in enumerate(layers):
        generator = np.random.default_rng([seed, i])
        picks.append(np.sort(generator.choice(layer.count, min(count, layer.count), replace=False)))
    return picks


def named(layers: list[Layer], chosen: Mapping[str, Sequence[int]]) -> list[np.ndarray]:
    """The flat indices that `chosen` gives for each layer; none for a layer that it does not name."""
    if unknown := set(chosen) - {layer.name for layer in layers}:
        raise ValueError(f"trajectories name '{min(unknown)}', which is not a quantized layer of the model")
    picks = []
    for layer in layers:
        picks.append(np.unique(np.asarray(chosen.get(layer.name, []), np.int64)))
        if len(picks[-1]) and not 0 <= picks[-1][0] <= picks[-1][-1] < layer.count:
            raise ValueError(
                f"trajectories of layer '{layer.name}' must lie in 0..{layer.count - 1}, got {picks[-1].tolist()}"
            )
    return picks


def step_places(layers: list[Layer], chosen: list[np.ndarray]) -> np.ndarray:
    """The place of each sampled weight's step size among those of all layers; channels are the weight's first axis."""
    starts = np.cumsum([0, *(layer.step_count for layer in layers)])[:-1]
    channels = [index // (layer.count // layer.step_count) for layer, index in zip(layers, chosen, strict=True)]
    return np.concatenate([start + channel for start, channel in zip(starts, channels, strict=True)]).astype(np.int64)


def values_at(layer: Layer, index: Tensor) -> Tensor:
    """The latent weights of a layer at flat `index`, float32, wherever they lie in memory."""
    latent = layer.latent_weight()
    if latent is None:
        return torch.full(index.shape, torch.nan, device=index.device)
    return torch.take(latent, index).float()

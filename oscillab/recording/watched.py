"""Which layers are recorded, and are they still the ones that recording began with?

A layer is anything with the three methods of the protocol, from this project or from another library:
`integer_state()` (int8, the weight's shape), `weight_step_size()` (0-d, or one per output channel) and
`activation_range()` ((low, high) in the units of the input, or None). `bits` and `latent_weight()` are taken where
they exist; without `latent_weight()` the latent weight is the parameter `weight`. So are the trained step sizes
`weight_quantizer.step_size` and `input_quantizer.step_size`, whose gradients are looked at (see `gradients.py`).

All weights stand one after the other in flat buffers, a layer's in the order in which they lie in memory: reading
channels-last weights in another order would take as long as all else together. What leaves the recorder is `in_order`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from oscillab.recording.places import Places

PROTOCOL = ("integer_state", "weight_step_size", "activation_range")


@dataclass(frozen=True)
class Layer:
    """One layer as it was when recording began."""

    name: str
    module: nn.Module
    kind: type  # a module can be turned into another where it stands
    weight: nn.Parameter | None  # None where another library keeps the latent weight elsewhere
    latent_method: Callable[[], Tensor] | None
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # of a dense tensor whose axes lie in memory as the integer states' do
    start: int  # its first weight's place among the weights of all layers
    step_count: int  # 1, or one per output channel
    bits: int | None

    @property
    def slice(self) -> slice:
        """Its weights among those of all layers."""
        return slice(self.start, self.start + self.count)

    @property
    def count(self) -> int:
        """The number of its weights."""
        return math.prod(self.shape)

    def view(self, flat: Tensor) -> Tensor:
        """Its part of a flat buffer over the weights of all layers, as a view of its shape."""
        return flat.as_strided(self.shape, self.stride, flat.storage_offset() + self.start)

    def places(self, index: np.ndarray) -> np.ndarray:
        """Where its weights of flat `index` stand in such a buffer."""
        axes = np.unravel_index(index, self.shape)
        return self.start + sum(axis * stride for axis, stride in zip(axes, self.stride, strict=True))

    def latent_weight(self) -> Tensor | None:
        """The latent weight without its graph, or None where the layer does not show it."""
        weight = self.latent_method() if self.latent_method else self.weight
        return None if weight is None else weight.detach()

    def position(self) -> Tensor | None:
        """Latent weight over step size, flat float32: bin edges lie at half integers. None where there is none (more)."""
        latent = self.latent_weight() if type(self.module) is self.kind else None
        if latent is None:
            return None
        step = self.module.weight_step_size().detach()
        per_slice = step.reshape(-1, *[1] * (latent.ndim - 1)) if step.numel() > 1 else step  # (C, 1, ..., 1)
        return (latent / per_slice).float().reshape(-1)


class WatchedLayers:
    """The layers of a model that follow the protocol, in the order of `model.named_modules()`.

    Raises ValueError when there is none.
    """

    def __init__(self, model: nn.Module):
        self.layers = find_layers(model)
        self.modules = [layer.module for layer in self.layers]
        self.weight_count = sum(layer.count for layer in self.layers)
        self.device = self.modules[0].weight_step_size().device
        self._places = Places(model, self.layers)
        self.ranged = [i for i, module in enumerate(self.modules) if module.activation_range() is not None]
        self.per_channel = any(layer.step_count > 1 for layer in self.layers)
        self._step_layer = torch.cat([torch.full((layer.step_count,), i) for i, layer in enumerate(self.layers)])
        self._step_layer = self._step_layer.to(self.device)

    def check_owned_by(self, optimizer) -> None:
        """Raise ValueError when `optimizer` has parameter groups and none of them holds a recorded weight."""
        if not hasattr(optimizer, "param_groups"):
            return
        owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if any(id(p) in owned for layer in self.layers for p in weights_of(layer)):
            return
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) owns the weights of none of the {len(self.layers)} layers; "
            "give record() the optimizer that trains this model, built after quantizing"
        )

    def read(self, out: Tensor) -> Tensor:
        """The checked step sizes (see there); `out` (weights of all layers,) int8 is filled with the integer states."""
        step_sizes = self.checked_step_sizes()
        self.integer_states(out)
        return step_sizes

    def checked_step_sizes(self) -> Tensor:
        """The weight step sizes of all layers one after the other, float32 (sum of step counts,).

        Raises ValueError, in one line that names the layer, when a layer or weight was replaced or moved since
        recording began, or a latent weight or step size is NaN or infinite.
        """
        self._places.check()
        latents = [latent for layer in self.layers if (latent := layer.latent_weight()) is not None]
        sums = [latent.sum(dtype=torch.float32) for latent in latents]  # NaN and infinity stay what they are in a sum
        step_sizes = [module.weight_step_size().detach().reshape(-1) for module in self.modules]
        self._check_places([(step_size.numel(), step_size.device) for step_size in step_sizes])
        probes = torch.stack(sums) if sums else torch.zeros(0, device=self.device)
        return self._finite(torch.cat(step_sizes), probes)

    def _check_places(self, places: list[tuple[int, torch.device]]) -> None:
        for layer, (count, device) in zip(self.layers, places, strict=True):
            if count != layer.step_count or device != self.device:
                raise ValueError(
                    f"layer '{layer.name}' had {layer.step_count} step size(s) on {self.device}, "
                    f"has {count} step size(s) on {device}"
                )

    def integer_states(self, out: Tensor) -> Tensor:
        """`out` (weights of all layers,) int8, filled with their integer states, as they lie in memory."""
        for layer in self.layers:
            layer.view(out).copy_(layer.module.integer_state())
        return out

    def step_size_rows(self, step_sizes: Tensor) -> dict[str, Tensor]:
        """Mean, and for per-channel layers the least and the largest step size of each layer, float32 (layers,)."""
        if not self.per_channel:
            return {"step_size": step_sizes}
        empty, index = step_sizes.new_zeros(len(self.layers)), self._step_layer
        rows = {"step_size": "mean", "step_size_min": "amin", "step_size_max": "amax"}
        return {k: empty.scatter_reduce(0, index, step_sizes, how, include_self=False) for k, how in rows.items()}

    def clipping_ranges(self) -> dict[str, Tensor]:
        """Low and high end of each input quantizer in the units of the input, float32 (layers with one,)."""
        ends = [self.modules[i].activation_range() for i in self.ranged]
        low, high = (torch.stack([pair[side] for pair in ends]).detach() for side in (0, 1))
        return {"clip_low": low.float(), "clip_high": high.float()}

    def _finite(self, step_sizes: Tensor, probes: Tensor) -> Tensor:
        """`step_sizes` as float32; `probes` are numbers of which one is not finite where a weight is not."""
        step_sizes = step_sizes.float()
        if torch.isfinite(torch.cat([probes.float(), step_sizes])).all():
            return step_sizes
        for layer in self.layers:  # a sum of huge finite numbers can overflow: look again, number by number
            latent, step_size = layer.latent_weight(), layer.module.weight_step_size()
            bad_count = 0 if latent is None else int((~torch.isfinite(latent)).sum())
            if bad_count:
                raise ValueError(f"{bad_count} of {layer.count} weights of layer '{layer.name}' are NaN or infinite")
            if not torch.isfinite(step_size).all():
                raise ValueError(f"the weight step size of layer '{layer.name}' is NaN or infinite")
        return step_sizes

    def in_order(self, flat: Tensor) -> Tensor:
        """A copy of `flat` (weights of all layers,), given as they lie in memory, with each weight at its flat index."""
        return torch.cat([layer.view(flat).reshape(-1) for layer in self.layers])

    def as_in_memory(self, flat: Tensor) -> Tensor:
        """A copy of `flat`, the inverse of `in_order`."""
        out = torch.empty_like(flat)
        for layer in self.layers:
            layer.view(out).copy_(flat[layer.slice].view(layer.shape))
        return out


def find_layers(model: nn.Module) -> list[Layer]:
    """The layers of `model` that have the protocol's three methods; raises ValueError when there is none."""
    layers, start = [], 0
    for name, module in model.named_modules():
        if all(callable(getattr(module, method, None)) for method in PROTOCOL):
            layers.append(described(name, module, start))
            start += layers[-1].count
    if not layers:
        raise ValueError(
            f"nothing to record: no layer of this {type(model).__name__} has {', '.join(f'{m}()' for m in PROTOCOL)}; "
            "quantize the model first (oscillab.quantize)"
        )
    return layers


def described(name: str, module: nn.Module, start: int) -> Layer:
    """The `Layer` of a module that follows the protocol."""
    states, weight = module.integer_state(), module._parameters.get("weight")
    shape = tuple(states.shape)
    return Layer(
        name=name,
        module=module,
        kind=type(module),
        weight=weight if weight is not None and tuple(weight.shape) == shape else None,
        latent_method=getattr(module, "latent_weight", None),
        shape=shape,
        stride=dense_stride(states),
        start=start,
        step_count=module.weight_step_size().numel(),
        bits=getattr(module, "bits", None),
    )


def dense_stride(x: Tensor) -> tuple[int, ...]:
    """The stride of a dense tensor whose axes lie in memory in the order of those of `x`.

    >>> dense_stride(torch.zeros(2, 3, 4)), dense_stride(torch.zeros(9, 4, 3, 2).permute(3, 2, 1, 0)[:, :2])
    ((12, 4, 1), (1, 2, 4, 16))
    """
    stride, length = [0] * x.ndim, 1
    for axis in sorted(range(x.ndim), key=lambda axis: (x.stride(axis), -axis)):  # the fastest first
        stride[axis], length = length, length * x.shape[axis]
    return tuple(stride)


def weights_of(layer: Layer) -> list[nn.Parameter]:
    """The parameters whose training makes the layer's states move: its weight, or all it has where that is unknown."""
    return [layer.weight] if layer.weight is not None else list(layer.module.parameters())

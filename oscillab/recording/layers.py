"""Find the layers that are recorded, read all of them at once, and see that they stay the same.

A layer is anything with the three methods of the protocol, from this project or from another library:
`integer_state()` (int8, the weight's shape), `weight_step_size()` (0-d, one per output channel, or of a shape that is
broadcast over the weight) and `activation_range()` ((low, high) in the units of the input, or None). `bits` and
`latent_weight()` are taken where they exist; without `latent_weight()` the latent weight is the parameter `weight`. So
are the trained step sizes `weight_quantizer.step_size` and `input_quantizer.step_size`, whose gradients are looked at.

All weights stand one after the other in flat buffers, a layer's in the order in which they lie in memory: reading
channels-last weights in another order would take as long as all else together. What leaves the recorder is `in_order`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

STATES = ("integer_state", "unchecked_integer_state")
PROTOCOL = ("integer_state", "weight_step_size", "activation_range")


@dataclass(frozen=True)
class Layer:
    """One layer as it was when recording began."""

    name: str
    module: Any  # an nn.Module with the protocol's methods
    kind: type[nn.Module]  # a module can be turned into another where it stands
    weight: nn.Parameter | None  # None where another library keeps the latent weight elsewhere
    state_method: Callable[[], Tensor]
    latent_method: Callable[[], Tensor] | None
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # of a dense tensor whose axes lie in memory as the integer states' do
    start: int  # its first weight's place among the weights of all layers
    step_shape: tuple[int, ...]  # of its step sizes, () or broadcast over the weight
    bits: int | None

    @property
    def slice(self) -> slice:
        """Its weights among those of all layers."""
        return slice(self.start, self.start + self.count)

    @property
    def count(self) -> int:
        """The number of its weights."""
        return math.prod(self.shape)

    @property
    def step_count(self) -> int:
        """The number of its step sizes."""
        return math.prod(self.step_shape)

    def view(self, flat: Tensor) -> Tensor:
        """Return its part of a flat buffer over the weights of all layers, as a view of its shape."""
        return flat.as_strided(self.shape, self.stride, flat.storage_offset() + self.start)

    def places(self, index: np.ndarray) -> np.ndarray:
        """Return where its weights of flat `index` stand in such a buffer."""
        at: np.ndarray = self.start + np.stack(np.unravel_index(index, self.shape), axis=-1) @ np.array(self.stride)
        return at

    def step_indices(self, index: np.ndarray) -> np.ndarray:
        """Return which of its step sizes each weight of flat `index` has."""
        owners = np.broadcast_to(np.arange(self.step_count).reshape(self.step_shape), self.shape)
        return owners[np.unravel_index(index, self.shape)]

    def latent_weight(self) -> Tensor | None:
        """Return the latent weight without its graph, or None where the layer does not show it."""
        weight = self.latent_method() if self.latent_method else self.weight
        return None if weight is None else weight.detach()

    def position(self) -> Tensor | None:
        """Return latent weight / step size, flat float32: bin edges lie at half integers. None where there is none."""
        latent = self.latent_weight() if type(self.module) is self.kind else None
        if latent is None or (step := self.module.weight_step_size().detach()).numel() != self.step_count:
            return None  # another number of step sizes ends recording with an error
        return torch.div(latent, step.reshape(self.step_shape)).float().reshape(-1)

    def parameters(self) -> list[nn.Parameter]:
        """Return what makes its states move when it is trained: its weight, or all it has where that is unknown."""
        return [self.weight] if self.weight is not None else list(self.module.parameters())


class WatchedLayers:
    """The layers of a model that follow the protocol, in the order of `model.named_modules()`.

    Raises ValueError when there is none.
    """

    def __init__(self, model: nn.Module):
        self.layers = find_layers(model)
        self.modules = [layer.module for layer in self.layers]
        self.weight_count = sum(layer.count for layer in self.layers)
        self.device = self.modules[0].weight_step_size().device
        names = {one.name.rsplit(".", n)[0] for one in self.layers for n in range(one.name.count(".") + 1)} - {""}
        modules = dict(model.named_modules(remove_duplicate=False))
        # (name, the parent's modules, key, module) of layers and all above: a look-up costs a tenth of `get_submodule`
        places = ((name, *name.rpartition(".")[::2]) for name in sorted(names))
        self._held = [(name, modules[parent]._modules, key, modules[name]) for name, parent, key in places]
        self.ranged = [i for i, module in enumerate(self.modules) if module.activation_range() is not None]
        self.per_channel = any(layer.step_count > 1 for layer in self.layers)
        self._step_layer = torch.cat([torch.full((layer.step_count,), i) for i, layer in enumerate(self.layers)])
        self._step_layer = self._step_layer.to(self.device)

    def read(self, out: Tensor) -> Tensor:
        """Fill `out` (weights of all layers,) int8 with the integer states; return `checked_step_sizes()`."""
        step_sizes = self.checked_step_sizes()
        self.integer_states(out)
        return step_sizes

    def checked_step_sizes(self) -> Tensor:
        """Return the weight step sizes of all layers one after the other, float32 (sum of step counts,).

        Raises ValueError, in one line that names the layer, when a layer or weight was replaced or moved since
        recording began, or a latent weight or step size is NaN or infinite.
        """
        self.check_identity()
        latents = [latent for layer in self.layers if (latent := layer.latent_weight()) is not None]
        sums = [latent.sum(dtype=torch.float32) for latent in latents]  # NaN and infinity stay what they are in a sum
        step_sizes = [module.weight_step_size().detach().reshape(-1) for module in self.modules]
        for layer, size in zip(self.layers, step_sizes, strict=True):
            if size.numel() != layer.step_count or size.device != self.device:
                had, has = f"{layer.step_count} step size(s) on {self.device}", f"{size.numel()} step size(s) on"
                raise ValueError(f"layer '{layer.name}' had {had}, has {has} {size.device}")
        every = torch.cat(step_sizes).float()
        if not torch.isfinite(torch.cat([torch.stack(sums), every]) if sums else every).all():
            for layer in self.layers:  # a sum of huge finite numbers can overflow: look again, number by number
                latent, step_size = layer.latent_weight(), layer.module.weight_step_size()
                if bad_count := 0 if latent is None else int((~torch.isfinite(latent)).sum()):
                    raise ValueError(
                        f"{bad_count} of {layer.count} weights of layer '{layer.name}' are NaN or infinite"
                    )
                if not torch.isfinite(step_size).all():
                    raise ValueError(f"the weight step size of layer '{layer.name}' is NaN or infinite")
        return every

    def check_identity(self) -> None:
        """Raise ValueError, in one line that names it, when a layer, its parent, class or weight was replaced."""
        for name, modules, key, module in self._held:
            if (now := modules.get(key)) is not module:
                became = f"{type(module).__name__} became {'nothing' if now is None else type(now).__name__}"
                raise ValueError(f"layer '{name}' was replaced during recording ({became})")
        for layer in self.layers:
            if type(layer.module) is not layer.kind:
                became = f"{layer.kind.__name__} became {type(layer.module).__name__}"
                raise ValueError(f"layer '{layer.name}' changed its class during recording ({became})")
            if layer.weight is not None and layer.module._parameters.get("weight") is not layer.weight:
                raise ValueError(f"the weight of layer '{layer.name}' was replaced by another during recording")

    def integer_states(self, out: Tensor) -> Tensor:
        """Fill `out` (weights of all layers,) int8 with their integer states, as they lie in memory, and return it."""
        for layer in self.layers:
            layer.view(out).copy_(layer.state_method())
        return out

    def step_size_rows(self, step_sizes: Tensor) -> dict[str, Tensor]:
        """Return each layer's mean and, where any is per channel, least and largest step size, float32 (layers,)."""
        if not self.per_channel:
            return {"step_size": step_sizes}
        empty, index = step_sizes.new_zeros(len(self.layers)), self._step_layer
        rows = {"step_size": "mean", "step_size_min": "amin", "step_size_max": "amax"}
        return {k: empty.scatter_reduce(0, index, step_sizes, how, include_self=False) for k, how in rows.items()}

    def clipping_ranges(self) -> dict[str, Tensor]:
        """Return both ends of each input quantizer in the units of the input, float32 (layers with one,)."""
        ends = [self.modules[i].activation_range() for i in self.ranged]
        low, high = (torch.stack([pair[side] for pair in ends]).detach() for side in (0, 1))
        return {"clip_low": low.float(), "clip_high": high.float()}

    def in_order(self, flat: Tensor) -> Tensor:
        """Return a copy of `flat` (weights of all layers,), given as they lie in memory, in the order of flat indices."""
        return torch.cat([layer.view(flat).reshape(-1) for layer in self.layers])

    def as_in_memory(self, flat: Tensor) -> Tensor:
        """Return a copy of `flat` as weights lie in memory, the inverse of `in_order`."""
        out = torch.empty_like(flat)
        for layer in self.layers:
            layer.view(out).copy_(flat[layer.slice].view(layer.shape))
        return out


def find_layers(model: nn.Module) -> list[Layer]:
    """Return the layers of `model` that have the protocol's methods; raise ValueError when there is none."""
    layers: list[Layer] = []
    for name, module in model.named_modules():
        if all(callable(getattr(module, method, None)) for method in PROTOCOL):
            layers.append(describe(name, module, sum(layer.count for layer in layers)))
    if not layers:
        raise ValueError(
            f"nothing to record: no layer of this {type(model).__name__} has {', '.join(f'{m}()' for m in PROTOCOL)}; "
            "quantize the model first (oscillab.quantize)"
        )
    return layers


def describe(name: str, module: Any, start: int) -> Layer:
    """Return the `Layer` of a module that follows the protocol; raise ValueError where it cannot be recorded."""
    if "weight" not in module._parameters and {"weight_orig", "weight_g"} & module._parameters.keys():
        raise ValueError(
            f"layer '{name}' makes its weight anew in each forward pass (pruning or weight norm by a hook), so it cannot "
            "be read after a step; use torch.nn.utils.parametrizations, or make it permanent (prune.remove)"
        )
    if not ((bits := getattr(module, "bits", None)) is None or isinstance(bits, int) and 1 <= bits <= 8):
        raise ValueError(
            f"layer '{name}' says that it has {bits!r} bits; the recorder takes whole numbers, 1 to 8, or None"
        )
    # our layers' second method leaves NaN to the recorder; what defines the first anew has states of its own
    homes = [next((one for one in (module, *type(module).__mro__) if name in vars(one)), None) for name in STATES]
    state_method = getattr(module, STATES[homes[0] is homes[1] is not None])
    states, weight, step_size = state_method(), module._parameters.get("weight"), module.weight_step_size()
    shape, parametrized = tuple(states.shape), parametrize.is_parametrized(module, "weight")
    return Layer(
        name=name,
        module=module,
        kind=type(module),
        weight=weight if weight is not None and tuple(weight.shape) == shape else None,
        state_method=state_method,
        latent_method=getattr(module, "latent_weight", (lambda: module.weight) if parametrized else None),
        shape=shape,
        stride=dense_stride(states),
        start=start,
        step_shape=step_shape(name, tuple(step_size.shape), shape),
        bits=bits,
    )


def step_shape(name: str, given: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how step sizes of shape `given` are broadcast over weights of `shape`; (C,) is one per output channel."""
    if math.prod(given) == 1:
        return ()
    broadcast = (*given, *[1] * (len(shape) - 1)) if len(given) == 1 else given
    if len(broadcast) != len(shape) or any(n not in (1, axis) for n, axis in zip(broadcast, shape, strict=True)):
        raise ValueError(
            f"layer '{name}' has step sizes of shape {given} for weights of shape {shape}; "
            "the recorder takes one per layer, one per output channel, or a shape that is broadcast over the weight"
        )
    return broadcast


def dense_stride(x: Tensor) -> tuple[int, ...]:
    """Return the stride of a dense tensor whose axes lie in memory in the order of those of `x`."""
    stride, length = [0] * x.ndim, 1
    for axis in sorted(range(x.ndim), key=lambda axis: (x.stride(axis), -axis)):  # the fastest first
        stride[axis], length = length, length * x.shape[axis]
    return tuple(stride)

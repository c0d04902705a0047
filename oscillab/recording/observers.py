"""Observe what trains around the weights: ranges of inputs, signs of gradients, the optimizer, other ranks."""

import math
import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from oscillab.recording.layers import WatchedLayers
from oscillab.recording.tracker import in_storage_order

SAMPLE_COUNT = 16_384  # inputs of a layer that are compared with the range in a forward; the standard error is < 0.4 %
QUANTIZERS = ("weight_quantizer", "input_quantizer")


class RangeObserver:
    """Lowest and highest input of each module and the share outside its clipping range, between `arm` and `row`.

    Only forwards in training mode with gradients enabled count. Lowest and highest are exact; the share is taken on a
    strided sample of about 16,000 inputs a forward, against the range in force during that forward. No host sync. The
    hook is a global one, there for these forwards only: the model itself is copied and pickled as ever.
    """

    def __init__(self, modules: list[nn.Module], device: torch.device):
        self._index = {module: i for i, module in enumerate(modules)}
        self._device = device
        self._handle: RemovableHandle | None = None
        self._looks: list[tuple[Any, ...]] = []  # (module, lowest, highest, sampled inputs that were clipped, sampled)

    def arm(self) -> None:
        """Look at forwards from now on."""
        if self._handle is None and self._index:
            self._handle = register_module_forward_pre_hook(self._look)

    def disarm(self) -> None:
        """Look at nothing any more; what was seen stays until `row` is read."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def row(self) -> dict[str, Tensor]:
        """Return what was seen since `arm`, (modules,) float32 each; NaN for a module without a forward. Forgets it."""
        count = len(self._index)
        low, high = (torch.full((count,), torch.nan, device=self._device) for _ in range(2))
        clipped, seen = torch.zeros(2, count, device=self._device)
        if self._looks:
            indices, lows, highs, clips, numbers = zip(*self._looks, strict=True)
            at = torch.tensor(indices, device=self._device)
            low.scatter_reduce_(0, at, torch.stack(lows).float(), "amin", include_self=False)
            high.scatter_reduce_(0, at, torch.stack(highs).float(), "amax", include_self=False)
            clipped.index_add_(0, at, torch.stack(clips).float())
            seen.index_add_(0, at, torch.tensor(numbers, dtype=torch.float32, device=self._device))
        self._looks = []
        return {"observed_low": low, "observed_high": high, "clipped_share": clipped / seen}  # 0 / 0 is NaN

    def _look(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if not (module in self._index and module.training and torch.is_grad_enabled() and inputs and inputs[0].numel()):
            return
        with torch.no_grad():
            if (ends := module.activation_range()) is not None:
                values = in_storage_order(inputs[0].detach())
                sample = values[:: sampling_stride(values.numel())].float().contiguous()  # compared twice, and summed
                clipped = ((sample < ends[0]) | (sample > ends[1])).sum()
                self._looks.append((self._index[module], *torch.aminmax(values), clipped, sample.numel()))


def sampling_stride(count: int) -> int:
    """Return a stride that takes about `SAMPLE_COUNT` of `count` values and shares no factor with `count`.

    Without a common factor it cannot keep step with rows or channels and meet one channel only.
    """
    stride = max(1, count // SAMPLE_COUNT)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


class GradientSigns:
    """The last sign of the gradient of every trained step size, and which of them change it.

    A step size whose gradient changes its sign at every other step moves the bin edges to and fro: weights flip that
    stand still themselves. A gradient that is zero, NaN or missing has no sign and changes nothing. `sides`: 0 where
    step sizes of weights are looked at, 1 where those of inputs are; empty for a model that is not trained.
    """

    def __init__(self, layers: WatchedLayers):
        both = [(side, i, trained(module, side)) for side in (0, 1) for i, module in enumerate(layers.modules)]
        found = [(side, i, parameter) for side, i, parameter in both if parameter is not None]
        self.sides = sorted({side for side, _, _ in found})
        self.trained = {(side, i) for side, i, _ in found}  # (side, layer)
        self._parameters = [p for _, _, p in found]
        self._none = [torch.zeros_like(p).reshape(-1) for p in self._parameters]
        places = [torch.full((p.numel(),), side * len(layers.layers) + i) for side, i, p in found]
        self._place = torch.cat(places).to(layers.device) if places else torch.zeros(0, dtype=torch.int64)
        self.last = torch.zeros(len(self._place), dtype=torch.int8, device=layers.device)
        self._changed = torch.zeros(2, len(layers.layers), dtype=torch.int32, device=layers.device)

    def sign_changes(self) -> Tensor:
        """Count each layer's step sizes whose gradient has another sign than the last one had, int32 (2, layers).

        Row 0 counts those of weights, row 1 those of inputs. Call it once a tick, before gradients are cleared.
        """
        self._changed.zero_()
        if not self._parameters:
            return self._changed
        pairs = zip(self._parameters, self._none, strict=True)
        gradients = torch.cat([none if p.grad is None else p.grad.reshape(-1) for p, none in pairs])
        sign = (gradients > 0).to(torch.int8) - (gradients < 0).to(torch.int8)  # NaN has none
        changed = sign * self.last == -1
        self.last = torch.where(sign != 0, sign, self.last)
        self._changed.view(-1).index_add_(0, self._place, changed.to(torch.int32))
        return self._changed


def trained(module: nn.Module, side: int) -> nn.Parameter | None:
    """Return the parameter of a layer's weight step size (side 0) or of its input's (1), where one is trained."""
    step_size = getattr(getattr(module, QUANTIZERS[side], None), "step_size", None)
    return step_size if isinstance(step_size, nn.Parameter) and step_size.requires_grad else None


class Ranks:
    """This process among those that train together; one alone where torch.distributed was not initialised.

    `every`: at how many ticks the ranks are compared; 0 never, and then this process records whatever its rank is.
    """

    def __init__(self, every: int):
        distributed = torch.distributed if torch.distributed.is_available() else None
        together = bool(every and distributed and distributed.is_initialized())
        self.count = torch.distributed.get_world_size() if together else 1
        self.rank = torch.distributed.get_rank() if together else 0
        self.every = every

    @property
    def records(self) -> bool:
        """Whether this process is the one that records."""
        return self.rank == 0

    def due(self, tick: int) -> bool:
        """Return whether the ranks are compared at this tick."""
        return self.count > 1 and tick % self.every == 0

    def compare(self, layers: WatchedLayers, states: Tensor, tick: int) -> None:
        """Raise ValueError, on every rank, where one differs from rank 0 in the integer states of a layer.

        Every rank has to call it at the same tick.
        """
        gathered: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(gathered, (tick, checksums(layers, states)))
        first_tick, first = gathered[0]
        for rank, (their_tick, theirs) in enumerate(gathered):
            if their_tick != first_tick:
                raise ValueError(
                    f"rank {rank} is at tick {their_tick}, rank 0 at {first_tick}: "
                    "the ranks must take the same steps, and record and resume together"
                )
            if names := [name for name in {**first, **theirs} if theirs.get(name) != first.get(name)]:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise ValueError(f"rank {rank} differs from rank 0 in the integer states of layer '{names[0]}'{more}")


def checksums(layers: WatchedLayers, states: Tensor) -> dict[str, int]:
    """Return the CRC-32 of each layer's integer states, in the order of flat indices, by the layer's name."""
    ordered = layers.in_order(states).cpu().numpy()
    return {layer.name: zlib.crc32(ordered[layer.slice].tobytes()) for layer in layers.layers}


def without_wrapper(model: nn.Module) -> nn.Module:
    """Return the model inside of a DistributedDataParallel, so that its layers have the model's names; others as is."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def hooked(optimizer: Any) -> Any:
    """Return the optimizer whose steps call hooks: the given one, or the one inside its wrapper (`.optimizer`).

    accelerate's wrapper, for one, inherits `register_step_post_hook` but never has what it registers with.
    """
    found = optimizer
    for _ in range(8):  # wrappers in wrappers
        own = not isinstance(found, torch.optim.Optimizer) or "_optimizer_step_post_hooks" in vars(found)
        if own and callable(getattr(found, "register_step_post_hook", None)):
            return found
        found = getattr(found, "optimizer", None)
    raise ValueError(f"optimizer must have register_step_post_hook(hook), {type(optimizer).__name__} has not")


def unowned(optimizer: Any, layers: WatchedLayers) -> tuple[list[str], list[str]]:
    """Return the names of layers whose weights, and whose step sizes, are to be trained, but not by `optimizer`.

    None where it has no parameter groups.
    Raises ValueError when it has parameter groups and none of them holds a recorded weight.
    """
    if not hasattr(optimizer, "param_groups"):
        return [], []
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(p) in owned for layer in layers.layers for p in layer.parameters()):
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) owns the weights of none of the {len(layers.layers)} layers; "
            "give record() the optimizer that trains this model, built after quantizing"
        )
    weights = [(one.name, one.parameters()) for one in layers.layers]
    sizes = [
        (one.name, [p for side in (0, 1) if (p := trained(one.module, side)) is not None]) for one in layers.layers
    ]

    def missed(trained: list[tuple[str, list[nn.Parameter]]]) -> list[str]:
        return [name for name, of in trained if any(p.requires_grad and id(p) not in owned for p in of)]

    return missed(weights), missed(sizes)


def skipped(optimizer: Any) -> bool:
    """Return whether a gradient scaler made a fused optimizer's step do nothing: a call, but no update."""
    return bool(getattr(optimizer, "found_inf", None))

"""Observe what makes bin edges move: ranges of inputs, signs of step-size gradients, positions between the edges."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from oscillab.recording.layers import Layer, WatchedLayers
from oscillab.recording.tracker import in_storage_order

SAMPLE_COUNT = 16_384  # inputs of a layer that are compared with the range in a forward; the standard error is < 0.4 %
QUANTIZERS = ("weight_quantizer", "input_quantizer")
CELLS_PER_BIN = 40  # an even number, so that no cell reaches across an edge


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
        if not (module in self._index and module.training and torch.is_grad_enabled()):
            return
        clipping_range = module.activation_range()
        if inputs and clipping_range is not None and inputs[0].numel():
            self._observe(self._index[module], inputs[0], clipping_range)

    @torch.no_grad()
    def _observe(self, index: int, x: Tensor, clipping_range: tuple[Tensor, Tensor]) -> None:
        values = in_storage_order(x.detach())
        sample = values[:: sampling_stride(values.numel())].float().contiguous()  # compared twice, and summed
        clipped = ((sample < clipping_range[0]) | (sample > clipping_range[1])).sum()
        self._looks.append((index, *torch.aminmax(values), clipped, sample.numel()))


def sampling_stride(count: int, sample_count: int = SAMPLE_COUNT) -> int:
    """Return a stride that takes about `sample_count` of `count` values and shares no factor with `count`.

    Without a common factor it cannot keep step with rows or channels and meet one channel only.

    >>> sampling_stride(16 * 64 * 40 * 40), sampling_stride(100)
    (101, 1)
    """
    stride = max(1, count // sample_count)
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


def limits_of(bits: int | None, states: Tensor) -> tuple[int, int]:
    """Return the lowest and highest state of a layer: of its bits, or of the fewest bits that hold its states.

    Signed unless a state is too large for that.

    >>> limits_of(4, torch.tensor([-8, 3])), limits_of(4, torch.tensor([0, 15])), limits_of(None, torch.tensor([-3, 2]))
    ((-8, 7), (0, 15), (-4, 3))
    """
    low, high = int(states.min()), int(states.max())
    if bits is None:
        bits = next(b for b in range(2, 33) if -(2 ** (b - 1)) <= low and high < 2 ** (b - 1))
    return (0, 2**bits - 1) if high >= 2 ** (bits - 1) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


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

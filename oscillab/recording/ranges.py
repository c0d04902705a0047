"""Does the input of a layer still fit the range that its quantizer clips to?

Looks at the forward passes of training right before a tick that records ranges, and at nothing else: a hook on every
module call that is there for these steps only. Nothing is attached to the model, so copying and pickling it stay as
they are.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

SAMPLE_COUNT = 16_384  # inputs of a layer that are compared with the range in a forward; the standard error is < 0.4 %


def in_storage_order(x: Tensor) -> Tensor:
    """All values of `x` as a flat tensor in the order of memory: a view where it is dense, a copy elsewhere.

    A reduction over a channels-last tensor is ten times slower than one over its memory (torch 2.13, CPU).
    """
    dense = x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return x.as_strided((x.numel(),), (1,)) if dense else x.reshape(-1)


def sampling_stride(count: int, sample_count: int = SAMPLE_COUNT) -> int:
    """A stride that takes about `sample_count` of `count` values and shares no factor with `count`.

    Without a common factor it cannot keep step with rows or channels and meet one channel only.

    >>> sampling_stride(16 * 64 * 40 * 40), sampling_stride(100)
    (101, 1)
    """
    stride = max(1, count // sample_count)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


class RangeObserver:
    """Lowest and highest input of each module and the share outside its clipping range, between `arm` and `row`.

    Only forwards in training mode with gradients enabled count. Lowest and highest are exact; the share is taken on a
    strided sample of about 16,000 inputs a forward, against the range in force during that forward. No host sync.
    """

    def __init__(self, modules: list[nn.Module], device: torch.device):
        self._index = {module: i for i, module in enumerate(modules)}
        self._device = device
        self._handle = None
        self._clear()

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
        """What was seen since `arm`, (modules,) float32 each; NaN for a module without a forward. Forgets it."""
        count = len(self._index)
        low, high = (torch.full((count,), torch.nan, device=self._device) for _ in range(2))
        clipped, seen = torch.zeros(2, count, device=self._device)
        if self._looks:
            indices, lows, highs, clips, numbers = zip(*self._looks, strict=True)
            at, clips = torch.tensor(indices, device=self._device), torch.stack(clips).float()
            low.scatter_reduce_(0, at, torch.stack(lows).float(), "amin", include_self=False)
            high.scatter_reduce_(0, at, torch.stack(highs).float(), "amax", include_self=False)
            clipped.index_add_(0, at, clips)
            seen.index_add_(0, at, torch.tensor(numbers, dtype=torch.float32, device=self._device))
        self._clear()
        return {"observed_low": low, "observed_high": high, "clipped_share": clipped / seen}  # 0 / 0 is NaN

    def _clear(self) -> None:
        self._looks: list[tuple] = []  # (module, lowest, highest, sampled inputs that were clipped, sampled inputs)

    @torch.no_grad()
    def _observe(self, index: int, x: Tensor, clipping_range: tuple[Tensor, Tensor]) -> None:
        values = in_storage_order(x.detach())
        sample = values[:: sampling_stride(values.numel())].float().contiguous()  # compared twice, and summed
        clipped = ((sample < clipping_range[0]) | (sample > clipping_range[1])).sum()
        self._looks.append((index, *torch.aminmax(values), clipped, sample.numel()))

    def _look(self, module: nn.Module, inputs: tuple) -> None:
        if not (module in self._index and module.training and torch.is_grad_enabled()):
            return
        clipping_range = module.activation_range()
        if inputs and clipping_range is not None and inputs[0].numel():
            self._observe(self._index[module], inputs[0], clipping_range)

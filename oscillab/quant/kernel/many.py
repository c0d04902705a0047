"""How are the weights of many layers passed over in one call?

A call of one layer takes a few microseconds and a detector has sixty layers, so that calls alone took longer than the passes.
Addresses are looked up anew at every call: a weight may have moved.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .calls import PLAIN, Grid, Kernel, kernel_in_use


class Stack:
    """The weights of many layers, each dense in memory, with step sizes of shape () or (C,).

    `strides`: how each layer's part of a flat buffer over all of them lies in memory; a weight that came to lie otherwise
    is not passed over here, and the methods give None or False.
    """

    def __init__(self, strides: Sequence[tuple[int, ...]]):
        self._strides, self._known, self._grids = list(strides), None, None

    def states(self, weights, outs, steps, floors, limits) -> tuple[Tensor, Tensor] | None:
        """(for each layer 0, or NaN where it holds NaN or infinity; the step sizes in use one after the other).

        Writes the integer states into the tensors `outs` (int8); `limits`: (low, high) of each.
        """
        kernel = self._kernel(weights, [*steps, *floors])
        if kernel is None or not self._lie_alike(outs):
            return None
        grids = self._grids_of(weights, steps, limits)
        probes, used = torch.empty(len(weights)), torch.empty(sum(step.numel() for step in steps))
        pointers = [addresses(tensors) for tensors in (weights, outs, steps, floors)]
        kernel.call("states_of_many", *pointers, probes, used, grids, ctypes.c_int64(len(weights)))
        return probes, used

    def place(self, weights, frozen, states, steps, used) -> bool:
        """Whether each weight where `frozen` (bool) was put to step size * state, `used` being all step sizes in use."""
        kernel = self._kernel(weights, [used])
        if kernel is None:
            return False
        grids = self._grids_of(weights, steps, None)
        pointers = [addresses(tensors) for tensors in (weights, frozen, states)]
        kernel.call("place_many", *pointers, used, grids, ctypes.c_int64(len(weights)))
        return True

    def release(self, gradients, frozen, states, to_steps, scales) -> bool:
        """Whether gradients became 0 where `frozen` (bool).

        The sums of gradient * state, times each layer's number of `scales`, are added to the step sizes' gradients `to_steps`.
        """
        kernel = self._kernel(gradients, to_steps)
        if kernel is None:
            return False
        grids = self._grids_of(gradients, to_steps, None)
        sums = torch.empty(max(step.numel() for step in to_steps))
        pointers = [addresses(tensors) for tensors in (gradients, frozen, states, to_steps)]
        kernel.call("release_many", *pointers, torch.tensor(scales), sums, grids, ctypes.c_int64(len(gradients)))
        return True

    def _kernel(self, weights, others) -> Kernel | None:
        plain = all(type(w) in PLAIN and w.dtype == torch.float32 and w.is_cpu for w in weights)
        if not (plain and self._lie_alike(weights) and all(map(_takes, others))):
            return None
        return kernel_in_use()

    def _lie_alike(self, tensors) -> bool:
        return [tensor.stride() for tensor in tensors] == self._strides

    def _grids_of(self, weights, steps, limits) -> ctypes.Array:
        sizes = [(weight.numel(), step.numel()) for weight, step in zip(weights, steps, strict=True)]
        if self._known != (sizes, limits):
            ends = limits or [(0, 0)] * len(sizes)
            grids = [Grid(rows, count // max(1, rows), 1, *end) for (count, rows), end in zip(sizes, ends, strict=True)]
            self._known, self._grids = (sizes, limits), (Grid * len(grids))(*grids)
        return self._grids


def gathered(tensors: Sequence[Tensor], index: np.ndarray, place: np.ndarray) -> Tensor | None:
    """The values of `tensors[index[i]]` at `place[i]` in their memory, float32 (n,); None where torch has to look them up."""
    kernel = kernel_in_use() if all(map(_takes_values, tensors)) else None
    if kernel is None:
        return None
    found = np.fromiter((tensor.data_ptr() for tensor in tensors), np.int64, len(tensors))[index] + 4 * place
    values = torch.empty(len(found))
    kernel.call("gather", torch.from_numpy(found), values, ctypes.c_int64(len(found)))
    return values


def addresses(tensors: Sequence[Tensor]) -> Tensor:
    """Where the tensors lie, as an array of pointers."""
    return torch.tensor([tensor.data_ptr() for tensor in tensors])


def _takes(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()


def _takes_values(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.is_cpu and type(tensor) in PLAIN

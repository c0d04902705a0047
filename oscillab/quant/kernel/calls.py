"""How is the quantizer computed in one pass over memory?

`kernel.c` does what `quant/lsq.py` does with torch's operations, in a third of the time: values and gradients to x are equal
to the last bit, sums to float32's rounding. It takes dense float32 and bfloat16 tensors of the CPU; for all else, and where
there is no compiler, torch computes. `OSCILLAB_KERNEL=0`, or `kernel_off()` within a block, leaves the kernel out.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from .build import shared_object

TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
BLOCK = 2048  # as in kernel.c
PLAIN = (Tensor, torch.nn.Parameter)  # another subclass may have no memory of its own
POINTER = ctypes.c_void_p

logger = logging.getLogger(__name__)
_off_count = 0  # of `kernel_off` blocks that are entered


class Grid(ctypes.Structure):
    """`grid` of kernel.c: the runs of x, the limits of the grid and of its inside, the factor of the sums."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "length", "threads")),
        *((name, ctypes.c_float) for name in ("low", "high", "lower", "upper", "gradient_scale")),
    ]


class Kernel:
    """The functions of a compiled `kernel.c`, by the type of x."""

    def __init__(self, path):
        library = ctypes.CDLL(str(path))  # lets other threads run while it computes
        self._forward = {dtype: _function(library, f"{name}_forward", 8) for dtype, name in TYPES.items()}
        self._backward = {dtype: _function(library, f"{name}_backward", 9) for dtype, name in TYPES.items()}

    def forward(self, x, step, floor, held, shift, low, high) -> tuple[Tensor, Tensor]:
        """(y in the memory format of x, the step sizes in use of the shape of `step`); see `lsq` for the rest."""
        y, used = torch.empty_like(x), torch.empty_like(step)
        grid = grid_of(x, step, low, high)
        arguments = [_address(tensor) for tensor in (x, y, step, floor, held, used, shift)]
        self._forward[x.dtype](*arguments, ctypes.byref(grid))
        return y, used

    def backward(self, x, upstream, used, shift, low, high, limits, scale) -> tuple[Tensor, Tensor, Tensor | None]:
        """The gradients to x, to the step size and, where there is one, to the shift."""
        if upstream.stride() != x.stride() or upstream.dtype != x.dtype or upstream._is_zerotensor():
            upstream = torch.empty_like(x).copy_(upstream)
        to_x, to_step = torch.empty_like(x), torch.empty_like(used)
        to_shift = None if shift is None else torch.empty_like(shift)
        grid = grid_of(x, used, low, high, *limits, scale)
        sums = torch.empty(2 * grid.rows * -(-grid.length // BLOCK), dtype=torch.float64)
        arguments = [_address(tensor) for tensor in (x, upstream, to_x, used, shift, to_step, to_shift, sums)]
        self._backward[x.dtype](*arguments, ctypes.byref(grid))
        return to_x, to_step, to_shift


def grid_of(x: Tensor, step: Tensor, *rest: float) -> Grid:
    """The `Grid` of a tensor and its step sizes."""
    rows = step.numel()
    return Grid(rows, x.numel() // max(1, rows), torch.get_num_threads(), *rest)


def _function(library, name: str, pointer_count: int):
    function = getattr(library, name)
    function.argtypes, function.restype = [POINTER] * pointer_count, None
    return function


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def kernel_for(x: Tensor, *others: Tensor | None, types=TYPES) -> Kernel | None:
    """The kernel where it computes `x` with a step size, floor and shift `others`; None where torch has to."""
    if x.dtype not in types or x.device.type != "cpu" or type(x) not in PLAIN or _off_count or not _dense(x):
        return None
    if not all(
        t is None or (t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous()) for t in others
    ):
        return None
    return kernel_in_use()


def kernel_in_use() -> Kernel | None:
    """The kernel, but None within `kernel_off()` and where torch traces or compiles."""
    if _off_count or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    return loaded()


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


@lru_cache
def loaded() -> Kernel | None:
    """The kernel, compiled where that is needed; None where `OSCILLAB_KERNEL` is 0 or this machine cannot."""
    if os.environ.get("OSCILLAB_KERNEL", "1").lower() in ("0", "off", "no", "false"):
        return None
    path = shared_object()
    if path is None:
        return None
    try:
        return Kernel(path)
    except (OSError, AttributeError) as error:
        logger.warning("%s does not load (%s): quantizers run on torch's own operations", path.name, error)
        return None


@contextmanager
def kernel_off() -> Iterator[None]:
    """Nothing; within the block every quantizer runs on torch's own operations, in every thread."""
    global _off_count
    _off_count += 1
    try:
        yield
    finally:
        _off_count -= 1

"""Compile kernel.c once with this machine's C compiler, and call it.

It does in one pass over memory what `lsq.py` does with torch's operations: values and gradients to x are equal to the
last bit, sums to float32's rounding. It takes dense float32 and bfloat16 tensors of the CPU; for all else, and where
there is no compiler, torch computes. `OSCILLAB_KERNEL=0`, or `kernel_off()` within a block, leaves it out.

The shared object lies in `OSCILLAB_CACHE`, else `oscillab` below `XDG_CACHE_HOME` or `~/.cache`. Its name holds a hash of
the source, the flags, the compiler and the processor; it appears whole or not at all, whoever else builds it meanwhile.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernel.c")
# values must equal torch's to the last bit: no -ffast-math, which some compilers have on. Nobody reads errno and traps
EXACT = ["-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS = ["-O3", "-std=c11", *EXACT, "-shared", "-fPIC"]
NATIVE: tuple[list[str], ...] = (["-march=native"], ["-mcpu=native"], [])
CHOICES = [(openmp, *native) for native in NATIVE for openmp in ("-fopenmp", "-fopenmp-simd")]  # the first that works
COMPILERS = ("cc", "gcc", "clang")
TIMEOUT = 60  # seconds

TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
BLOCK = 2048  # values of one sum, as in kernel.c
PLAIN = (Tensor, torch.nn.Parameter)  # another subclass may have no memory of its own

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

    def __init__(self, path: Path):
        library = ctypes.CDLL(str(path))  # lets other threads run while it computes
        self._functions: dict[tuple[str, torch.dtype], Callable[..., None]] = {}
        for (part, pointers), (dtype, name) in product((("forward", 8), ("backward", 9)), TYPES.items()):
            function = library[f"{name}_{part}"]
            function.argtypes, function.restype = [ctypes.c_void_p] * pointers, None
            self._functions[part, dtype] = function

    def _call(self, part: str, grid: Grid, x: Tensor, *others: Tensor | None) -> None:
        addresses = [None if tensor is None else tensor.data_ptr() for tensor in (x, *others)]
        self._functions[part, x.dtype](*addresses, ctypes.byref(grid))

    def forward(
        self, x: Tensor, step: Tensor, shift: Tensor | None, floor: Tensor | None, held: Tensor | None, *limits: int
    ) -> tuple[Tensor, Tensor]:
        """Return y, in the memory format of x, and the step sizes in use, of the shape of `step`: () or (C,)."""
        y, used = torch.empty_like(x), torch.empty_like(step)
        grid = _grid(x.numel(), step.numel(), torch.get_num_threads(), *limits)
        self._call("forward", grid, x, y, step, floor, held, used, shift)
        return y, used

    def backward(
        self, x: Tensor, upstream: Tensor, step: Tensor, shift: Tensor | None, *limits_and_scale: float
    ) -> list[Tensor]:
        """Return the gradients to x, to the step size and, where there is one, to the shift.

        `limits_and_scale`: low, high, between which two numbers x / s lies inside the grid, the factor of the sums.
        """
        if upstream.stride() != x.stride() or upstream.dtype != x.dtype or upstream._is_zerotensor():
            upstream = torch.empty_like(x).copy_(upstream)
        found = [torch.empty_like(tensor) for tensor in (x, step, shift) if tensor is not None]
        grid = _grid(x.numel(), step.numel(), torch.get_num_threads(), *limits_and_scale)
        sums = torch.empty(2 * grid.rows * -(-grid.length // BLOCK), dtype=torch.float64)
        to_x, to_step, to_shift = (*found, None)[:3]
        self._call("backward", grid, x, upstream, to_x, step, shift, to_step, to_shift, sums)
        return found


@lru_cache(4096)
def _grid(count: int, rows: int, threads: int, *rest: float) -> Grid:
    """Return the grid of `count` values with `rows` step sizes; making one takes a fifth of a small call."""
    return Grid(rows, count // max(1, rows), threads, *rest)


def kernel_for(x: Tensor, *others: Tensor | None) -> Kernel | None:
    """Return the kernel where it computes `x` with a step size, a shift and a floor `others`; None where torch has to."""
    if _off_count or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    if x.dtype not in TYPES or x.device.type != "cpu" or type(x) not in PLAIN:
        return None
    if not (x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))):
        return None
    given = [tensor for tensor in others if tensor is not None]
    if not all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in given):
        return None
    return loaded()


@lru_cache
def loaded() -> Kernel | None:
    """Return the kernel, compiled where that is needed; None where `OSCILLAB_KERNEL` is 0 or this machine cannot."""
    if os.environ.get("OSCILLAB_KERNEL", "1").lower() in ("0", "off", "no", "false"):
        return None
    path = shared_object()
    try:
        return Kernel(path) if path else None
    except (OSError, AttributeError) as error:
        logger.warning("%s does not load (%s): quantizers run on torch's own operations", path, error)
        return None


@contextmanager
def kernel_off() -> Iterator[None]:
    """Run every quantizer on torch's own operations within the block, in every thread."""
    global _off_count
    _off_count += 1
    try:
        yield
    finally:
        _off_count -= 1


def shared_object() -> Path | None:
    """Return the shared object of `kernel.c`, compiled where it is not there yet; None, and one line logged, if it cannot."""
    command = compiler()
    if command is None:
        logger.info("no C compiler (%s): quantizers run on torch's own operations", ", ".join(COMPILERS))
        return None
    try:
        about = os.stat(command[0])  # asking the compiler for its version takes ten times longer
        version = f"{about.st_size} {about.st_mtime_ns}"
        words = "\n".join([SOURCE.read_text(), *command, *FLAGS, str(CHOICES), version, processor()])
        path = cache_folder() / f"kernel-{hashlib.sha256(words.encode()).hexdigest()[:16]}.so"
        if not path.is_file():
            _compile(command, path)
        return path
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        logger.warning("kernel.c was not compiled (%s): quantizers run on torch's own operations", *reason or ["?"])
        return None


def compiler() -> list[str] | None:
    """Return the command of the machine's C compiler, `CC` where that is set; None where there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    found = [path for name in given[:1] or COMPILERS if (path := shutil.which(name))]
    return [found[0], *given[1:]] if found else None


def cache_folder() -> Path:
    """Return the folder of what was compiled, made where it is missing; one of this process alone where it cannot be."""
    own, caches = os.environ.get("OSCILLAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(own) if own else (Path(caches) if caches else Path.home() / ".cache") / "oscillab"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, a read-only one, or a file in the way
        pass
    return Path(tempfile.mkdtemp(prefix="oscillab-"))


def processor() -> str:
    """Return what this processor can do, in words: two machines of the same words run the same machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.lower().startswith(("model name", "flags", "features", "cpu part"))]
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(set(known))])


def _compile(command: list[str], path: Path) -> None:
    """Compile beside `path` and move the result there; raise CalledProcessError with what the compiler said."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        made = Path(folder) / path.name
        for choice in CHOICES:
            call = [*command, *FLAGS, *choice, str(SOURCE), "-o", str(made), "-lm"]
            done = subprocess.run(call, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                break
        done.check_returncode()
        os.replace(made, path)  # whoever comes second puts the same there

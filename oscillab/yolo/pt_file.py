"""Read a PyTorch file without running anything in it.

A `.pt` file is a zip archive of raw numbers, one entry a storage, and one pickle that says how they belong together.
Of Python's own steps only those that `torch.save` writes follow the pickle here.

`torch.load(weights_only=True)` with inert classes would read the same files. It is not used because a few bytes can make
it hash a nest of tuples for ever, because before torch 2.10 it could be made to corrupt memory (CVE-2026-24747; 2.6 is
allowed here), and because its list of allowed names belongs to the whole process.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 8 * 2**20  # a full YOLOv5x checkpoint needs under 1 MB; 8 MB are read in seconds

FLOATS = {"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16}
WHOLE = {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8}
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in (FLOATS | WHOLE | {"Bool": torch.bool}).items()}
INERT_PREFIXES = ("models.", "utils.", "ultralytics.", "torch.nn.modules.", "pathlib.", "argparse.")
INERT_NAMES = {
    *("__builtin__.set", "builtins.set", "__builtin__.getattr", "builtins.getattr", "_codecs.encode"),
    *("numpy.ndarray", "numpy.dtype", "torch.Size", "torch.device"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}
# The instructions that torch.save writes, as Python's own pickle machine follows them
STEPS = (
    *("PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "APPEND", "APPENDS"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "TUPLE"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
)
OLD, ONNX = tuple(b"\x80%c" % n for n in range(2, 6)), tuple(b"\x08%c\x12" % n for n in range(3, 16))
KINDS: dict[str, bytes | tuple[bytes, ...]] = {  # of files that are no archive, and how they start
    "is a Git LFS pointer in place of the file; `git lfs pull` fetches it": b"version https://git-lfs",
    "is a web page, no checkpoint: the download gave a login or an error page": (b"<!doctype", b"<html", b"<?xml"),
    "was cut short on its way, not a complete zip archive; fetch it again": b"pk",
    "was written by torch before 1.6, or by pickle; where you trust it, load it and torch.save it again": OLD,
    "is an ONNX file; oscillab.load_onnx opens those that oscillab wrote": ONNX,
    "is compressed by gzip; unpack it": b"\x1f\x8b",
    "is an HDF5 file, such as Keras writes": b"\x89hdf",
}
# What a damaged archive can bring up in zipfile, in pickle, or in a machine that runs out of stack
DAMAGE = (
    *(OSError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, pickle.UnpicklingError),
    *(MemoryError, RuntimeError, AssertionError),
)


def read(path: Path | str) -> Any:
    """Return what the PyTorch file at `path` holds; ValueError, one line that names the file, where it is none of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            storages = Storages(archive, Path(path).stat().st_size)
            return Reader(storages.entry("data.pkl", MAX_PICKLE_BYTES), storages.tensor).load()
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a folder; give a checkpoint in it, such as ema+qc.pt of a study's run"
    except zipfile.BadZipFile:
        reason = kind_of(path)
    except ValueError as error:
        reason = str(error)
    except DAMAGE as error:
        reason = f"damaged, or no PyTorch checkpoint ({type(error).__name__}: {error})"
    raise ValueError(f"{path}: {' '.join(reason.split()):.300}")


def kind_of(path: Path | str) -> str:
    """Say what a file that is no zip archive is instead, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(512)
    for words, starts in KINDS.items():
        if head.lstrip().lower().startswith(starts):
            return words
    if head[8:10] == b'{"':
        return "is a safetensors file; torch.save what safetensors.torch.load_file gives"
    return "not a complete zip archive as torch >= 1.6 writes it" if head else "is empty"


class Inert:
    """What a pickle names or makes but must not come to life: its name, its arguments, its state."""

    def __init__(self, name: str, arguments: tuple = ()):
        self.name = name
        self.arguments = arguments
        self.state: Any = None


def rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """Return a view of the flat tensor `storage`; ValueError where it reaches out of it or is larger than it."""
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        raise ValueError("a tensor's size and stride must be tuples of one length of at most 8")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError("a tensor's offset, size and stride must be whole numbers of at least 0")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError(f"a tensor of size {size} reaches out of its storage of {len(storage)} numbers")
    return storage.as_strided(size, stride, offset)


def plain_dict(pairs: Iterable[tuple] = ()) -> dict:
    """Return a dict of `pairs`, whose keys must be plain: hashing a nest of tuples can take for ever."""
    made = {}
    for key, value in pairs:
        if not isinstance(key, str | int | float | bytes | None):
            raise ValueError(f"a dict key must be a plain value, got {type(key).__name__}")
        made[key] = value
    return made


MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "collections.OrderedDict": plain_dict,
}


class Steps(dict):
    """What each instruction does, by its code; any other raises ValueError."""

    def __missing__(self, code: int) -> None:
        raise ValueError(f"pickle instruction {bytes([code])!r} has no place in a checkpoint")


class Reader(pickle._Unpickler):
    """Python's pickle machine, which makes nothing here but plain values, containers, tensors and `Inert` records.

    No name is imported; names that official checkpoints use become records, every other one is refused. Nothing is printed,
    hashed or compared before its type is known to be plain: a few bytes can describe a tuple whose text takes for ever.
    """

    stack: list  # typeshed does not know what the machine works with
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]
    dispatch = Steps({getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in STEPS})

    def __init__(self, program: bytes, storage: Callable[[Any], Tensor]):
        super().__init__(io.BytesIO(program))
        self.storage = storage

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the flat tensor of a storage."""
        return self.storage(pid)

    def find_class(self, module: str, name: str) -> Inert:
        """Return the record of that name; raises ValueError unless it is an allowed one."""
        full = f"{module}.{name}"
        if not (full in MAKERS or full in INERT_NAMES or full in DTYPES or full.startswith(INERT_PREFIXES)):
            raise ValueError(f"names the foreign object {full!r}, which has no place in a checkpoint; nothing was run")
        return Inert(full)

    def call(self) -> None:
        """Put what the named maker makes of its arguments on the stack, for any other name an inert record."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not (isinstance(called, Inert) and isinstance(arguments, tuple)):
            raise ValueError("only a named object can be called, with a tuple of arguments")
        maker = MAKERS.get(called.name)
        self.append(maker(*arguments) if maker else Inert(called.name, arguments))

    def set_state(self) -> None:
        """Keep an inert record's state; a dict's own attributes (torch's `_metadata`) are dropped."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Inert):
            made.state = state
        elif not isinstance(made, dict):
            raise ValueError(f"a {type(made).__name__} cannot take a state")

    def set_items(self, items: list | None = None) -> None:
        """Put `items`, keys and values in turn, into the dict on top of the stack."""
        items = self.pop_mark() if items is None else items
        if not isinstance(self.stack[-1], dict):
            raise ValueError(f"a {type(self.stack[-1]).__name__} cannot take items")
        self.stack[-1].update(plain_dict(zip(items[::2], items[1::2], strict=True)))

    dispatch |= {pickle.REDUCE[0]: call, pickle.NEWOBJ[0]: call, pickle.BUILD[0]: set_state}
    dispatch |= {pickle.SETITEMS[0]: set_items}
    dispatch |= {pickle.SETITEM[0]: lambda self: self.set_items([self.stack.pop(), self.stack.pop()][::-1])}


class Storages:
    """The raw numbers of an archive, after a check that it cannot unfold into more bytes than it has."""

    def __init__(self, archive: zipfile.ZipFile, size: int):
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        roots = [name.removesuffix("data.pkl") for name in names if name.split("/")[-1] == "data.pkl"]
        if len(roots) != 1:
            numpy = " (it is a NumPy archive)" * any(name.endswith(".npy") for name in names)
            raise ValueError(f"a PyTorch file holds one data.pkl, this one holds {len(roots)}{numpy}")
        self.archive, self.root = archive, roots[0]
        self.tensors: dict[tuple[str, torch.dtype], Tensor] = {}
        if any(name.startswith((f"{self.root}code/", f"{self.root}constants.pkl")) for name in names):
            raise ValueError("is a TorchScript archive; give the training checkpoint (.pt) that it was exported from")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("holds compressed entries, which torch.save never writes")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError(f"its entries claim more bytes than the {size} of the file")
        if f"{self.root}byteorder" in names and self.entry("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian; save it again on a machine that is")

    def entry(self, name: str, most: int | None = None) -> bytes:
        """Return the bytes of an entry, `most` of them, below the archive's root folder, whatever that is called."""
        size = self.archive.getinfo(self.root + name).file_size
        if most is not None and size > most:
            raise ValueError(f"its pickle must have at most {most} bytes, got {size}")
        return self.archive.read(self.root + name)

    def tensor(self, identity: tuple) -> Tensor:
        """Return the flat tensor that a persistent id ('storage', type, key, device, count) stands for."""
        kind, storage, key, _, count = identity
        dtype = DTYPES.get(storage.name)
        if kind != "storage" or dtype is None:
            raise ValueError(f"the storage type {storage.name!r} is unknown, allowed are {', '.join(DTYPES)}")
        if not (isinstance(key, str) and isinstance(count, int)):
            raise ValueError("a storage's key must be text and its length a whole number")
        if (key, dtype) not in self.tensors:
            data = bytearray(self.entry(f"data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"storage {key!r} must hold {count} numbers of {dtype}, got {len(data)} bytes")
            self.tensors[key, dtype] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.tensors[key, dtype]

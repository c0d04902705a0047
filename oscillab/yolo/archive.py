"""What does a PyTorch file hold?

A `.pt` file is a zip archive of raw numbers, one entry a storage, and one pickle that says how they belong together.
"""

import zipfile
from pathlib import Path

import torch

from .unpickle import Machine

MAX_PICKLE_BYTES = 8 * 2**20  # a full YOLOv5x checkpoint needs under 1 MB; 8 MB are read in seconds

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
# What a damaged archive can bring up in zipfile, in pickletools, or in a machine that runs out of stack.
DAMAGE = (
    *(OSError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(MemoryError, RuntimeError, AssertionError),
)


def read(path):
    """The content of the PyTorch file at `path`: plain values, containers, tensors and `Inert` records; nothing runs.

    Raises ValueError, one line that names the file, where it is missing, damaged, no such archive, a TorchScript
    archive, or names an object that has no place in a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            storages = Storages(archive, Path(path).stat().st_size)
            return Machine(storages.tensor, DTYPES).run(storages.pickle())
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a folder; give a checkpoint in it, such as ema+qc.pt of a study's run"
    except zipfile.BadZipFile as error:
        reason = f"not a complete zip archive as torch >= 1.6 writes it ({error})"
    except ValueError as error:
        reason = str(error)
    except DAMAGE as error:
        reason = f"damaged, or no PyTorch checkpoint ({type(error).__name__}: {error})"
    raise ValueError(f"{path}: {' '.join(reason.split()):.300}")


class Storages:
    """The raw numbers of an archive, after a check that it cannot unfold into more bytes than it has."""

    def __init__(self, archive, size):
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        roots = [name.removesuffix("data.pkl") for name in names if name.split("/")[-1] == "data.pkl"]
        if len(roots) != 1:
            raise ValueError(f"a PyTorch file holds one data.pkl, this one holds {len(roots)}")
        self.archive, self.root, self.tensors = archive, roots[0], {}
        if any(name.startswith((f"{self.root}code/", f"{self.root}constants.pkl")) for name in names):
            raise ValueError("is a TorchScript archive; give the training checkpoint (.pt) that it was exported from")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("holds compressed entries, which torch.save never writes")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError(f"its entries claim more bytes than the {size} of the file")
        if f"{self.root}byteorder" in names and self.bytes("byteorder") != b"little":
            raise ValueError("its numbers are not little-endian; save it again on a machine that is")

    def bytes(self, name):
        """The bytes of the entry `name` below the archive's root folder, whatever that is called."""
        return self.archive.read(self.root + name)

    def pickle(self):
        """The bytes of the pickle; raises ValueError for more than any checkpoint needs."""
        size = self.archive.getinfo(f"{self.root}data.pkl").file_size
        if size > MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle must have at most {MAX_PICKLE_BYTES} bytes, got {size}")
        return self.bytes("data.pkl")

    def tensor(self, identity):
        """The flat tensor that a persistent id ('storage', type, key, device, count) stands for."""
        kind, storage, key, _, count = identity
        dtype = DTYPES.get(storage.name)
        if kind != "storage" or dtype is None:
            raise ValueError(f"the storage type {storage.name!r} is unknown, allowed are {', '.join(DTYPES)}")
        if not (isinstance(key, str) and isinstance(count, int)):
            raise ValueError("a storage's key must be text and its length a whole number")
        if (key, dtype) not in self.tensors:
            data = bytearray(self.bytes(f"data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"storage {key!r} must hold {count} numbers of {dtype}, got {len(data)} bytes")
            self.tensors[key, dtype] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.tensors[key, dtype]

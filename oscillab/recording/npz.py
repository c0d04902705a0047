"""Write named arrays into one .npz file, and read what is left of it when it was cut short.

The file is what `numpy.savez_compressed` writes (a zip of .npy members) with a `meta.json` in front, so that numpy
alone opens it. A zip's table of contents stands at its end; without it the members are found one after the other.
"""

import contextlib
import io
import itertools
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

META = "meta.json"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT of the zip format, section 4.3.7
OLDEST = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same recording gives the same bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)


def write(path: Path | str, meta: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `meta` (of what JSON holds) and `arrays` (name -> ndarray) to a new file at `path`."""
    with zipfile.ZipFile(path, "w") as archive:
        members = ((f"{name}.npy", npy(array)) for name, array in arrays.items())
        for name, data in itertools.chain([(META, (json.dumps(meta) + "\n").encode())], members):
            info = zipfile.ZipInfo(name, OLDEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=4)


def npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def read(path: Path | str) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Return (meta, arrays, whether the file is whole) of a file that `write` made; meta is None where it is lost.

    Only plain arrays come to life: nothing in the file is run. Raises OSError where the file cannot be read at all.
    """
    data, archive = Path(path).read_bytes(), None
    with contextlib.suppress(*DAMAGED):
        archive = zipfile.ZipFile(io.BytesIO(data))
    scanned = {} if archive else dict(_scan(data))
    # the first edition appended to a file that was not finished, in folders 1/, 2/, ...
    names = [name for name in (archive.namelist() if archive else scanned) if "/" not in name]
    contents: dict[str, Any] = {}
    for name in names:
        with contextlib.suppress(*DAMAGED):
            member = archive.read(name) if archive else scanned[name]
            array = None if name == META else np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
            contents[name.removesuffix(".npy")] = json.loads(member) if name == META else array
    whole = archive is not None and len(contents) == len(names)
    return contents.pop(META, None), contents, whole


def _scan(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of what stands whole at the start of a zip without its table of contents."""
    at = 0
    while at + LOCAL_HEADER.size <= len(data):
        magic, _, _, method, _, _, crc, packed, _, name_length, extra_length = LOCAL_HEADER.unpack_from(data, at)
        start = at + LOCAL_HEADER.size + name_length + extra_length
        if magic != b"PK\x03\x04" or start + packed > len(data):
            return
        name = data[at + LOCAL_HEADER.size :][:name_length].decode("utf-8", "replace")
        try:
            content = zlib.decompress(data[start : start + packed], -15) if method else data[start : start + packed]
        except zlib.error:
            return
        if zlib.crc32(content) != crc:
            return
        yield name, content
        at = start + packed

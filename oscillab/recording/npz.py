"""Write named arrays into one .npz file, and read what is left of it when it was cut short.

The file is what `numpy.savez_compressed` writes (a zip of .npy members) with a `meta.json` in front, so that numpy
alone opens it. A zip's table of contents stands at its end; without it the members are found one after the other.
"""

import io
import itertools
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

META, MAGIC = "meta.json", b"PK\x03\x04"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT of the zip format, section 4.3.7
OLDEST = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same recording gives the same bytes
LEAST_LIMIT, MOST_RATIO = (
    2**26,
    150,
)  # what members may unpack to: so many bytes, or times the file (a network at rest: 130)


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

    Only plain arrays come to life: nothing in the file is run. Raises OSError where the file cannot be read at all, and
    ValueError where its members would unpack to far more than those of a recording do.
    """
    with open(path, "rb") as file:
        data = file.read(4)
        data += file.read() if data == MAGIC else b""
    members, indexed = _indexed(data), True
    if members is None:
        members, indexed = list(_scanned(data)), False
    # the first edition appended to a file that was not finished, in folders 1/, 2/, ...
    members = [member for member in members if "/" not in member.name]
    if (size := sum(member.size for member in members)) > max(LEAST_LIMIT, MOST_RATIO * len(data)):
        raise ValueError(f"{path}: no recording, its {len(data)} bytes would unpack to {size}")
    contents: dict[str, Any] = {}
    for member in members:
        with suppress(Exception):  # whatever a damaged file makes of a decoder
            content = _unpacked(data, member)
            contents[member.name.removesuffix(".npy")] = json.loads(content) if member.name == META else _array(content)
    whole = indexed and len(contents) == len(members)
    return contents.pop(META, None), contents, whole


class _Member(NamedTuple):
    name: str
    at: int  # where its local header begins
    method: int
    packed: int
    size: int
    crc: int


def _indexed(data: bytes) -> list[_Member] | None:
    """Return what the table of contents says; None where there is none."""
    try:
        found = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception:  # whatever a damaged file makes of it
        return None
    return [_Member(i.filename, i.header_offset, i.compress_type, i.compress_size, i.file_size, i.CRC) for i in found]


def _scanned(data: bytes) -> Iterator[_Member]:
    """Yield what stands whole at the start of a zip without its table of contents."""
    at = 0
    while at + LOCAL_HEADER.size <= len(data):
        magic, _, _, method, _, _, crc, packed, size, name_length, extra_length = LOCAL_HEADER.unpack_from(data, at)
        start = at + LOCAL_HEADER.size
        end = start + name_length + extra_length + packed
        if magic != MAGIC or end > len(data):
            return
        yield _Member(data[start : start + name_length].decode("utf-8", "replace"), at, method, packed, size, crc)
        at = end


def _unpacked(data: bytes, member: _Member) -> bytes:
    """Return a member's content; raise where it is damaged. What unpacks to more than it declares is not unpacked."""
    name_length, extra_length = LOCAL_HEADER.unpack_from(data, member.at)[-2:]
    start = member.at + LOCAL_HEADER.size
    name, start = data[start : start + name_length].decode("utf-8", "replace"), start + name_length + extra_length
    packed = data[start : start + member.packed]
    content = zlib.decompressobj(-15).decompress(packed, member.size + 1) if member.method else packed
    whole = len(content) == member.size and zlib.crc32(content) == member.crc
    if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or name != member.name or not whole:
        raise ValueError(f"{member.name} is damaged")
    return content


def _array(content: bytes) -> np.ndarray:
    """Return the array in the bytes of an .npy file; raise where they are not as many as its header says."""
    file = io.BytesIO(content)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, by_columns, dtype = header[np.lib.format.read_magic(file)](file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("an array of objects, or of another length than its header says")
    flat = np.frombuffer(content, dtype, offset=file.tell()).copy() if math.prod(shape) else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")

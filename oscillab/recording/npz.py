"""Write named arrays into one .npz file, and read what is left of it when it was cut short.

The file is what `numpy.savez_compressed` writes (a zip of .npy members) with a `meta.json` in front, so that numpy
alone opens it. A zip's table of contents stands at its end; without it the members are found one after the other.

What comes later can be appended in chunks: chunk k is a folder k/ of more .npy members, with a k/meta.json as the last.
A chunk that is not whole does not count, so that a process may die at any moment.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
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
        _add(archive, META, _as_json(meta))
        for name, array in arrays.items():
            _add(archive, f"{name}.npy", npy(array))


def append(
    path: Path | str, number: int, meta: Any, arrays: Mapping[str, np.ndarray], *, grown: Iterable[str] = ()
) -> None:
    """Append chunk `number` (1, 2, ...) to a file that `write` made: arrays named in `grown` get more rows, others anew.

    `meta` takes the place of the one before.
    """
    with zipfile.ZipFile(path, "a") as archive:
        for name, array in arrays.items():
            _add(archive, f"{number}/{name}.npy", npy(array), level=1)
        _add(archive, f"{number}/{META}", _as_json({"meta": meta, "members": list(arrays), "grown": list(grown)}))


def _add(archive: zipfile.ZipFile, name: str, data: bytes, *, level: int = 4) -> None:
    info = zipfile.ZipInfo(name, OLDEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data, compresslevel=level)


def _as_json(meta: Any) -> bytes:
    return (json.dumps(meta) + "\n").encode()


def npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def read(path: Path | str) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Return (meta, arrays, whether the file is whole) of a file that `write` made; meta is None where it is lost.

    Chunks are put together, up to the first that is not whole. Only plain arrays come to life: nothing in the file is
    run. Raises OSError where the file cannot be read at all.
    """
    data = Path(path).read_bytes()
    names: list[str] | None = None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members, names = _readable(archive), archive.namelist()
    except DAMAGED:
        members = dict(_scan(data))
    contents = {name: content for name, member in members.items() if (content := _parsed(name, member)) is not None}
    meta, arrays, used = _joined(contents)
    return meta, arrays, names is not None and len(names) == used


def _parsed(name: str, member: bytes) -> Any:
    """Return what a member holds: a mapping or an array; None where it is neither."""
    try:
        if name.endswith(META):
            return json.loads(member)
        return np.lib.format.read_array(io.BytesIO(member), allow_pickle=False) if name.endswith(".npy") else None
    except DAMAGED:
        return None


def _joined(contents: Mapping[str, Any]) -> tuple[Any, dict[str, np.ndarray], int]:
    """Return (meta, arrays, members used) of a file's readable members, with all chunks that are whole put together."""
    meta, number = contents.get(META), 1
    first = {name: content for name, content in contents.items() if "/" not in name and name != META}
    parts = {name.removesuffix(".npy"): [content] for name, content in first.items()}
    used = len(parts) + (meta is not None)
    while meta is not None and (chunk := contents.get(f"{number}/{META}")) is not None:
        arrays = {name: contents.get(f"{number}/{name}.npy") for name in chunk["members"]}
        if any(array is None for array in arrays.values()):
            break
        for name in arrays.keys() & parts.keys():  # one that the file's beginning has lost stays lost
            parts[name] = [*parts[name], arrays[name]] if name in chunk["grown"] else [arrays[name]]
        meta, used, number = chunk["meta"], used + len(arrays) + 1, number + 1
    return meta, {name: np.concatenate(each) if len(each) > 1 else each[0] for name, each in parts.items()}, used


def _readable(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Return name -> content of the members of an open zip whose check sums are right."""
    members = {}
    for name in archive.namelist():
        try:
            members[name] = archive.read(name)
        except DAMAGED:
            continue
    return members


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

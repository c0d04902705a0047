"""How do named arrays get into one file, and what is left of it when the file was cut short?

The file is what `numpy.savez_compressed` writes (a zip of .npy members) with a `meta.json` in front, so that numpy
alone opens it. A zip's table of contents stands at its end; without it the members are found one after the other.
"""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

META = "meta.json"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT of the zip format, section 4.3.7
OLDEST = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same recording gives the same bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)


def write(path, meta, arrays):
    """Write `meta` (of what JSON holds) and `arrays` (name -> ndarray) to a new file at `path`."""
    with zipfile.ZipFile(path, "w") as archive:
        members = {META: (json.dumps(meta) + "\n").encode()} | {f"{k}.npy": npy(array) for k, array in arrays.items()}
        for name, data in members.items():
            info = zipfile.ZipInfo(name, OLDEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=4)


def npy(array):
    """An array as the bytes of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def read(path):
    """(meta, arrays, whether the file is whole) of a file that `write` made; meta is None where it is lost.

    Only plain arrays come to life: nothing in the file is run. Raises OSError where the file cannot be read at all.
    """
    data = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members, names = readable(archive), archive.namelist()
    except DAMAGED:
        members, names = dict(scan(data)), None
    meta, arrays = None, {}
    for name, content in members.items():
        try:
            if name == META:
                meta = json.loads(content)
            elif name.endswith(".npy"):
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except DAMAGED:
            names = None
    return meta, arrays, names is not None and len(names) == len(members)


def readable(archive):
    """Name -> content of the members of an open zip whose check sums are right."""
    members = {}
    for name in archive.namelist():
        try:
            members[name] = archive.read(name)
        except DAMAGED:
            continue
    return members


def scan(data):
    """The (name, content) pairs that stand whole at the start of a zip without its table of contents."""
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

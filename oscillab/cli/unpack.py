"""How does an archive from a server become a folder, whole or not at all, and nowhere else?

Everything is unpacked beside its place first and moved there at the end. Each file is checked against the CRC-32 that the
archive holds of it while it is read.
"""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import PurePosixPath

from tqdm.auto import tqdm


def unpack(archive, root, folder, *, progress=True):
    """The number of files that now lie in `root/folder`, all that the zip `archive` holds.

    Raises ValueError, and leaves `root/folder` as it was, for a file that is no zip, a member that would land outside
    of `root/folder`, one that is a link, and one whose bytes do not have the CRC-32 that the archive holds; OSError
    where the disk has too little room.
    """
    staging = root / f".{folder}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = _checked(content, folder, archive.name)
            check_space(root, sum(member.file_size for member in members), f"unpacking {archive.name}")
            for member in tqdm(members, desc=f"unpack {archive.name}", unit="file", disable=not progress):
                _extract(content, member, staging / member.filename)
        _move(staging / folder, root / folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} is damaged: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(members)


def check_space(folder, needed, what):
    """None; raises OSError when the disk of `folder` (which need not exist yet) has fewer than `needed` bytes free."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(f"{what} needs {size_text(needed)} free in {folder}, {size_text(free)} are")


def size_text(count):
    """Bytes in words.

    >>> size_text(19_336_861_798), size_text(512)
    ('19.34 GB', '512 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} bytes"


def _checked(content, folder, name):
    """The archive's files, when every one of them belongs in `folder`."""
    members = [member for member in content.infolist() if not member.is_dir()]
    for member in members:
        parts = PurePosixPath(member.filename).parts
        inside = len(parts) > 1 and parts[0] == folder and ".." not in parts
        if not inside or "\\" in member.filename or ":" in member.filename:
            raise ValueError(
                f"{name} holds {member.filename!r}, which does not belong in {folder}/; nothing was unpacked"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{name} holds the link {member.filename!r}; only files are unpacked")
    if not members:
        raise ValueError(f"{name} holds no file")
    return members


def _extract(content, member, target):
    """None; reading to the end compares the CRC-32."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(member) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


def _move(source, target):
    """None; moves a folder to its place, file by file where that is there already."""
    if not target.exists():
        os.replace(source, target)
        return
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)

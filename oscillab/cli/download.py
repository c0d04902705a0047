"""The command `download`: fetch COCO 2017 and unpack it into the layout that `CocoFolder` reads.

What is complete is left as it is; what was interrupted goes on from `<archive>.part`. COCO publishes no checksums and serves
plain HTTP: an archive's size is checked against the server's, each file against its CRC-32. This finds damage, not a forgery.
"""

import http.client
import logging
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

import tyro

log = logging.getLogger(__name__)

BASE_URL = "http://images.cocodataset.org"
ARCHIVES = {  # the folder that each unpacks to -> its path on the server; the small ones first
    "annotations": "annotations/annotations_trainval2017.zip",
    "val2017": "zips/val2017.zip",
    "train2017": "zips/train2017.zip",
}
TIMEOUT, TRIES, PAUSE, CHUNK = 60, 5, 2.0, 2**20  # seconds, tries without a new byte, seconds between them, bytes


@dataclass(frozen=True)
class Download:
    """Fetch COCO 2017 (20 GB of archives; its pictures belong to their photographers, see cocodataset.org)."""

    dataset: Annotated[Literal["coco2017"], tyro.conf.Positional]
    """what to fetch"""
    folder: Annotated[Path, tyro.conf.Positional]
    """where it goes: annotations/, train2017/ and val2017/ appear in it; give it to --data afterwards"""
    splits: tuple[Literal["val2017", "train2017"], ...] = ("val2017", "train2017")
    """which images; val2017 alone is 0.8 GB"""
    base_url: str = BASE_URL
    """COCO's server, or a mirror with the same paths"""
    keep_archives: bool = False
    """do not remove an archive after it was unpacked"""
    progress: bool = True
    """show progress bars"""
    json: Path | None = None
    """also write what was fetched to this file"""


class Remote(NamedTuple):
    """A file on a server, as the server describes it."""

    url: str
    size: int  # bytes
    tag: str  # changes when the file does; empty where the server gives none


def download(options: Download) -> dict[str, Any]:
    """Fetch and unpack what is missing of COCO 2017; return the folder and what was fetched."""
    from oscillab.data.dataset import CocoFolder, image_folder

    root, shown = options.folder, options.progress
    if not options.base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, got {options.base_url}")
    if not options.splits:
        raise ValueError("splits must name one or more of val2017, train2017, got none")
    wanted = [name for name in ARCHIVES if name in ("annotations", *options.splits)]
    missing = [name for name in wanted if not is_complete(name, options)]
    remotes = {name: ask(f"{options.base_url.rstrip('/')}/{ARCHIVES[name]}") for name in missing}
    sizes = [remote.size for remote in remotes.values()]
    needed = sum(sizes) + (sum(sizes) if options.keep_archives else max(sizes, default=0))  # images do not shrink
    place = next(place for place in (root.absolute(), *root.absolute().parents) if place.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise OSError(f"coco2017 needs {needed / 1e9:.2f} GB free in {root}, {free / 1e9:.2f} GB are")
    for name, remote in remotes.items():
        path = fetch(remote, root / PurePosixPath(remote.url).name, progress=shown)
        there = image_folder(root, name)  # images/<split> is the other layout that CocoFolder reads
        unpack(path, there.parent if there.is_dir() else root, name, progress=shown)
        if not options.keep_archives:
            path.unlink()
    for split in options.splits if missing else ():
        CocoFolder(root, split)  # raises where an image is missing
    return {"folder": str(root), "fetched": ", ".join(missing) or "nothing, it was complete"}


def is_complete(name: str, options: Download) -> bool:
    """Tell whether everything of an archive is in the folder, downloaded by whomever."""
    from oscillab.data.dataset import CocoFolder, image_folder

    if name == "annotations":
        return all((options.folder / name / f"instances_{split}.json").is_file() for split in options.splits)
    try:
        CocoFolder(options.folder, name)
    except ValueError:
        return False
    return image_folder(options.folder, name).is_dir()


def ask(url: str) -> Remote:
    """Return the `Remote` behind `url`; raise OSError when it cannot be reached or does not tell its size."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT) as answer:
            headers = answer.headers
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"cannot download {url}: {error}; another server can be given with --base-url") from error
    if not (size := headers.get("Content-Length", "")).isdigit():
        raise OSError(f"cannot download {url}: the server does not tell the file's size (Content-Length)")
    return Remote(url, int(size), headers.get("ETag") or headers.get("Last-Modified") or "")


def fetch(remote: Remote, path: Path, *, progress: bool = True) -> Path:
    """Fetch a file to `path`, going on with what has arrived; raise OSError after `TRIES` tries without a new byte."""
    from tqdm.auto import tqdm

    if path.is_file():
        if (size := path.stat().st_size) != remote.size:
            raise ValueError(f"{path} has {size} bytes, {remote.url} has {remote.size}: move that file away")
        return path
    part, note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.tag")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not note.is_file() or note.read_text() != f"{remote.size} {remote.tag}":  # bytes of another file
        part.write_bytes(b"")
        note.write_text(f"{remote.size} {remote.tag}")
    best = arrived = part.stat().st_size
    stalled = 0
    with tqdm(total=remote.size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
        while arrived < remote.size:
            reason, arrived = receive(remote, part, bar), part.stat().st_size
            best, stalled = max(best, arrived), 0 if arrived > best else stalled + 1
            if stalled == TRIES:
                kept = f"{best} of {remote.size} bytes, which stay: run the command again to go on"
                raise OSError(f"{remote.url}: {reason}; {TRIES} tries brought nothing beyond {kept}")
            time.sleep(PAUSE * 2 ** (stalled - 1) if stalled else 0)
    os.replace(part, path)
    note.unlink(missing_ok=True)
    return path


def receive(remote: Remote, part: Path, bar: Any) -> str:
    """Append the bytes that one connection brings to `part`, never more than the file's; return why it ended."""
    begin = part.stat().st_size
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    if begin and remote.tag and not remote.tag.startswith("W/"):  # a weak tag does not vouch for bytes
        headers["If-Range"] = remote.tag
    try:
        with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT) as answer:
            if begin and not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                log.warning("%s: the server does not go on where the download stopped; it begins again", remote.url)
                begin = 0
            bar.n = begin
            with open(part, "ab" if begin else "wb") as file:
                while file.tell() < remote.size and (chunk := answer.read(min(CHUNK, remote.size - file.tell()))):
                    file.write(chunk)
                    bar.update(len(chunk))
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return "the connection ended early"


def unpack(archive: Path, root: Path, folder: str, *, progress: bool = True) -> None:
    """Unpack a zip into `root/folder`, whole or not at all; raise ValueError for one that is damaged or would write elsewhere.

    Everything is unpacked beside its place first, each file checked against its CRC-32. A refused archive is removed.
    """
    from tqdm.auto import tqdm

    staging = root / f".{folder}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for name, mode in ((member.filename, member.external_attr >> 16) for member in members):
                parts = PurePosixPath(name).parts
                if len(parts) < 2 or parts[0] != folder or {"..", "\\", ":"} & {*parts, *name}:
                    raise ValueError(f"{archive.name} holds {name!r}, which does not belong in {folder}/")
                if stat.S_ISLNK(mode):
                    raise ValueError(f"{archive.name} holds the link {name!r}; only files are unpacked")
            for member in tqdm(members, desc=f"unpack {archive.name}", unit="file", disable=not progress):
                content.extract(member, staging)  # reading to the end compares the CRC-32
        for source in [path for path in staging.rglob("*") if path.is_file()]:
            target = root / source.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        what = str(error) if type(error) is ValueError else f"{archive} is damaged: {error}"
        raise ValueError(f"{what}; the archive was removed, run the command again to fetch it anew") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)

"""How does a large file get here over a connection that breaks?

What has arrived stays in `<name>.part` and the next request asks for the rest (HTTP Range). Whether the server still has
the same file is told by its size and its tag (ETag, else Last-Modified), which stand in `<name>.part.json`.
"""

import contextlib
import errno
import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass

from tqdm.auto import tqdm

log = logging.getLogger(__name__)

TIMEOUT = 60  # seconds without a byte until a connection counts as broken
TRIES = 5  # in a row that bring nothing new, until the download ends with an error
PAUSE = 2.0  # seconds after a try that brought nothing; twice as long after each further one
CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class Remote:
    """A file on a server, as the server describes it."""

    url: str
    size: int  # bytes
    tag: str | None  # changes when the file does; None where the server gives none


def ask(url):
    """The `Remote` behind `url`; raises OSError when it cannot be reached or does not tell its size."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            headers = answer.headers
    except (OSError, http.client.HTTPException) as error:
        raise OSError(
            f"cannot download {url}: {_reason(error)}; another server can be given with --base-url"
        ) from error
    size = headers.get("Content-Length", "")
    if not size.isdigit() or not int(size):
        raise OSError(f"cannot download {url}: the server does not tell the file's size (Content-Length)")
    return Remote(url, int(size), headers.get("ETag") or headers.get("Last-Modified"))


def arrived(path):
    """How many bytes of the file at `path` are here already, whole or in part."""
    return next((place.stat().st_size for place in (path, _part(path)) if place.is_file()), 0)


def fetch(remote, path, *, progress=True):
    """`path`, which now holds the file of `remote`, of the size that the server told; goes on with what has arrived.

    Raises OSError after `TRIES` tries in a row without a new byte, or when the disk is full; what has arrived stays.
    """
    if path.is_file():
        return _whole(path, remote)
    _keep_only_of(remote, path)
    part, best, stalled = _part(path), arrived(path), 0
    bar = tqdm(total=remote.size, desc=path.name, unit="B", unit_scale=True, disable=not progress)
    with bar:
        while arrived(path) < remote.size:
            reason = _receive(remote, part, bar)
            stalled = 0 if arrived(path) > best else stalled + 1
            best = max(best, arrived(path))
            if stalled == TRIES:
                raise OSError(
                    f"{remote.url}: {reason}; {TRIES} tries brought nothing beyond {best} of {remote.size} bytes, which "
                    "stay: run the command again to go on"
                )
            time.sleep(PAUSE * 2 ** (stalled - 1) if stalled else 0)
    os.replace(part, path)
    _note(path).unlink(missing_ok=True)
    return path


def sha256_of(path, *, progress=True):
    """The SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    bar = tqdm(
        total=path.stat().st_size, desc=f"sha256 of {path.name}", unit="B", unit_scale=True, disable=not progress
    )
    with bar, open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def discard(path):
    """None; removes what is here of the file at `path`, whole or in part."""
    for place in (path, _part(path), _note(path)):
        place.unlink(missing_ok=True)


def _whole(path, remote):
    """`path`, a file that was there before, when its size is the server's."""
    if (size := path.stat().st_size) != remote.size:
        raise ValueError(f"{path} has {size} bytes, {remote.url} has {remote.size}: move that file away")
    return path


def _receive(remote, part, bar):
    """Why the connection ended, after as many bytes as came were added to `part`."""
    begin = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    if begin and remote.tag and not remote.tag.startswith("W/"):  # a weak tag does not vouch for bytes
        headers["If-Range"] = remote.tag
    try:
        with urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT) as answer:
            if begin and not _continues(answer, begin):
                log.warning("%s: the server does not go on where the download stopped; it begins again", remote.url)
                begin = 0
            _append(answer, part, begin, remote, bar)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            discard(part.with_suffix(""))
        return _reason(error)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(f"could not write {part}: {error.strerror}; what has arrived stays") from error
        return _reason(error)
    return "the connection ended early"


def _continues(answer, begin):
    """Whether the answer is the rest of the file from byte `begin` on, and not the whole file again."""
    return answer.status == http.client.PARTIAL_CONTENT and answer.headers.get("Content-Range", "").startswith(
        f"bytes {begin}-"
    )


def _append(answer, part, begin, remote, bar):
    """None; writes the answer's bytes to `part` from `begin` on, never more than the file's size."""
    bar.n = begin
    with open(part, "ab" if begin else "wb") as file:
        while begin < remote.size and (chunk := answer.read(min(CHUNK, remote.size - begin))):
            file.write(chunk)
            begin += len(chunk)
            bar.update(len(chunk))


def _keep_only_of(remote, path):
    """None; removes what has arrived of another file than `remote`, and notes which one the next bytes are of."""
    wanted = {name: value for name, value in asdict(remote).items() if name != "url"}  # a mirror may go on
    known = None
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(_note(path).read_text())
    if known != wanted:
        discard(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _note(path).write_text(json.dumps(wanted))


def _part(path):
    return path.with_name(f"{path.name}.part")


def _note(path):
    return path.with_name(f"{path.name}.part.json")


def _reason(error):
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"HTTP {error.code} {reason}" if isinstance(error, urllib.error.HTTPError) else str(reason)

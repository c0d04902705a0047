"""How does COCO 2017 get onto this disk?

`python -m oscillab download coco2017 DIR` fetches the archives from COCO's own server and unpacks them into the layout
that `CocoFolder` reads. What is complete is left as it is, and what was interrupted goes on.

COCO publishes no checksums and serves its archives over plain HTTP. So what is checked is each archive's size against
the server's, and each file in it against the CRC-32 that the archive holds: this finds whatever broke on the way, not a
forgery. The SHA-256 of what arrived is written down beside it; with `--sha256` one that you trust is demanded.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from oscillab.cli import transfer
from oscillab.cli.unpack import check_space, unpack
from oscillab.data.dataset import CocoFolder
from oscillab.train.config import RunOptions

BASE_URL = "http://images.cocodataset.org"
SPLITS = ("val2017", "train2017")  # the small one first: what is wrong with a folder or a server then shows early


@dataclass(frozen=True)
class Archive:
    """One of COCO's archives: where it lies on the server, and the folder that it unpacks to."""

    path: str
    folder: str

    @property
    def name(self):
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]


ANNOTATIONS = Archive("annotations/annotations_trainval2017.zip", "annotations")
PICTURES = {split: Archive(f"zips/{split}.zip", split) for split in SPLITS}


@dataclass(frozen=True)
class Download:
    """Fetch COCO 2017 (20 GB of archives; its pictures belong to their photographers, see cocodataset.org)."""

    dataset: Annotated[Literal["coco2017"], tyro.conf.Positional]
    """what to fetch"""
    folder: Annotated[Path, tyro.conf.Positional]
    """where it goes: annotations/, train2017/ and val2017/ appear in it; give it to --data afterwards"""
    splits: tuple[Literal["val2017", "train2017"], ...] = SPLITS
    """which pictures; val2017 alone is 0.8 GB"""
    base_url: str = BASE_URL
    """COCO's server, or a mirror with the same paths"""
    sha256: dict[str, str] = field(default_factory=dict)
    """demanded of an archive, as NAME DIGEST pairs: --sha256 val2017.zip 4f7e..."""
    keep_archives: bool = False
    """do not remove an archive after it was unpacked"""
    run: RunOptions = field(default_factory=RunOptions)


def download(options):
    """What was fetched, with its SHA-256, and the folder that now holds COCO 2017; nothing is done to what is complete."""
    check(options)
    wanted = [ANNOTATIONS, *(PICTURES[split] for split in SPLITS if split in options.splits)]
    missing = [archive for archive in wanted if not is_complete(archive, options)]
    remotes = {archive: transfer.ask(f"{options.base_url.rstrip('/')}/{archive.path}") for archive in missing}
    check_space(options.folder, room(options, remotes), options.dataset)
    fetched = {archive.name: fetch(options, archive, remote) for archive, remote in remotes.items()}
    for split in options.splits if fetched else ():
        CocoFolder(options.folder, split)  # raises where a picture is missing
    return {"folder": str(options.folder), "fetched": ", ".join(fetched) or "nothing, it was complete"} | fetched


def check(options):
    """Raise ValueError, before anything is fetched, for options that cannot be meant."""
    if not options.base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, got {options.base_url}")
    if not options.splits:
        raise ValueError(f"splits must name one or more of {', '.join(SPLITS)}, got none")
    names = [archive.name for archive in (ANNOTATIONS, *PICTURES.values())]
    for name, digest in options.sha256.items():
        if name not in names:
            raise ValueError(f"sha256 must be of one of {', '.join(names)}, got {name}")
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ValueError(f"sha256 of {name} must be 64 hexadecimal digits, got {digest}")


def is_complete(archive, options):
    """Whether everything that the archive holds for these splits is in the folder, downloaded by whomever."""
    root = options.folder
    if archive is ANNOTATIONS:
        return all((root / "annotations" / f"instances_{split}.json").is_file() for split in options.splits)
    if not any((root / place / archive.folder).is_dir() for place in (".", "images")):
        return False
    try:
        CocoFolder(root, archive.folder)
    except ValueError:
        return False
    return True


def room(options, remotes):
    """The bytes that the disk must have free, at the least.

    Pictures do not get smaller by unpacking, and an archive is removed only after it was unpacked.
    """
    left = [remote.size - transfer.arrived(options.folder / archive.name) for archive, remote in remotes.items()]
    beside = sum(left) if options.keep_archives else max(left, default=0)
    return sum(remote.size for remote in remotes.values()) + max(beside, 0)


def fetch(options, archive, remote):
    """The SHA-256 of an archive that was fetched, checked and unpacked."""
    path = transfer.fetch(remote, options.folder / archive.name, progress=options.run.progress)
    digest = transfer.sha256_of(path, progress=options.run.progress)
    demanded = options.sha256.get(archive.name)
    if demanded and digest != demanded.lower():
        transfer.discard(path)
        raise ValueError(f"{archive.name} has the SHA-256 {digest}, {demanded} was demanded; the archive was removed")
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")  # the form of sha256sum
    images = options.folder / "images"  # the other layout that CocoFolder reads
    root = images if (images / archive.folder).is_dir() else options.folder
    try:
        unpack(path, root, archive.folder, progress=options.run.progress)
    except ValueError as error:
        transfer.discard(path)
        raise ValueError(f"{error}; the archive was removed, run the command again to fetch it anew") from error
    if not options.keep_archives:
        path.unlink()
    return digest

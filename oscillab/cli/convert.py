"""The command `convert`: make a data set in YOLO's or Roboflow's layout readable."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Convert:
    """Write the annotation files of a data set in YOLO's layout (data.yaml) or Roboflow's as COCO's; images stay in place."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """the data set: data.yaml with images/ and labels/, or <split>/_annotations.coco.json"""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """the folder for annotations/instances_<split>.json, which --data names afterwards; it may be the same"""
    progress: bool = True
    """show a progress bar"""
    json: Path | None = None
    """also write what was found to this file"""


def convert(options: Convert) -> dict[str, Any]:
    """Return how much each split holds."""
    from oscillab.data.convert import convert as write

    found: dict[str, Any] = {"out": str(options.out)}
    for split, content in write(options.folder, options.out, progress=options.progress).items():
        images, objects, classes = (len(content[part]) for part in ("images", "annotations", "categories"))
        found[split] = f"{images} images, {objects} objects, {classes} classes"
    return found | {"next": f"oscillab check {options.out}"}

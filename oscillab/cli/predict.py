"""The command `predict`: draw what a detector finds into images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from oscillab.data.nms import Found

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # of the images of a folder


@dataclass(frozen=True)
class Predict:
    """Draw boxes and masks into images."""

    model: Annotated[Path, tyro.conf.Positional]
    """a checkpoint (.pt), official or oscillab's, or an exported .onnx"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """images of any size, or folders of them"""
    out: Path = Path("predictions")
    """the folder for the drawn images, each under its own name"""
    size: int | None = None
    """side of the square letterbox in pixels; None: the file's own where it is known, else 640 (scenes: give 160)"""
    conf: float = 0.25
    """score below which a box is not reported"""
    iou: float = 0.45
    """overlap with a better box of its class above which a box is dropped"""
    device: str = "cpu"
    """'cpu', 'cuda', 'cuda:1', ..."""
    threads: int = 1
    """torch threads"""
    json: Path | None = None
    """also write what was found to this file"""


def predict(options: Predict) -> dict[str, Any]:
    """Return what was found in each image, as text and as rows; the drawn images are in `options.out`."""
    import pandas as pd

    from oscillab.data.images import read_image, write_image
    from oscillab.data.nms import detect
    from oscillab.data.options import known_size
    from oscillab.export.reader import open_detector
    from oscillab.plot.images import paint_detections
    from oscillab.quant.exact import exact_or_float
    from oscillab.study.text import table_text
    from oscillab.train.config import RunOptions
    from oscillab.train.run import placed, prepare

    prepare(RunOptions(device=options.device, threads=options.threads))
    paths = image_paths(options.images, options.out)
    detector: Any = open_detector(options.model)
    model: Any = exact_or_float(placed(detector, options.device))
    size = options.size or known_size(model) or 640
    rows = []
    for path in paths:
        image = read_image(path)
        found = detect(model, image, size=size, conf=options.conf, iou=options.iou)
        painted = paint_detections(
            image, found.boxes, found.labels.tolist(), model.names, found.scores.tolist(), found.masks
        )
        write_image(painted, options.out / path.name)
        rows += rows_of(path.name, found, model.names)
    columns = ["image", "name", "score", "x1", "y1", "x2", "y2"]
    text = table_text(pd.DataFrame(rows, columns=columns)) if rows else "nothing found"
    return {"text": f"{text}\ndrawn in {options.out}", "images": len(paths), "found": rows, "out": str(options.out)}


def image_paths(given: tuple[Path, ...], out: Path) -> list[Path]:
    """Return the images that files and folders name; raise ValueError for none, a missing one and a name given twice."""
    paths = [path for place in given for path in _images_in(place)]
    if not paths:
        raise ValueError("predict needs at least one image")
    names = [path.name for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two images are called {twice!r}: their drawings would overwrite each other in {out}")
    return paths


def _images_in(place: Path) -> Iterator[Path]:
    if place.is_dir():
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"{place}: no image in this folder; images end in {', '.join(SUFFIXES)}")
        yield from found
    elif place.is_file():
        yield place
    else:
        raise ValueError(f"{place}: no such image")


def rows_of(image: str, found: "Found", names: list[str]) -> list[dict[str, Any]]:
    """Return one dictionary for each object found in an image."""
    boxes = found.boxes.round(1).tolist()
    return [
        {"image": image, "name": names[label], "score": round(float(score), 3)}
        | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        for box, score, label in zip(boxes, found.scores, found.labels, strict=True)
    ]

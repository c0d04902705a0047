"""What does a detector see in my own pictures?

The command `predict`: a checkpoint or an exported ONNX file, and pictures of any size; each is drawn again with the boxes and
masks that were found in it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
import tyro

from oscillab.data.batches import to_pixels
from oscillab.data.letterbox import letterbox
from oscillab.data.masks import mask_runs
from oscillab.data.places import Place
from oscillab.data.postprocess import detections
from oscillab.data.sample import decode_runs
from oscillab.io import atomic_write
from oscillab.plot.detections import paint_detections
from oscillab.plot.text import table_text
from oscillab.train.accuracy import as_measured
from oscillab.train.options import RunOptions, placed, prepare


@dataclass(frozen=True)
class Predict:
    """Draw boxes and masks into pictures."""

    model: Annotated[Path, tyro.conf.Positional]
    """a checkpoint (.pt), official or oscillab's, or an exported .onnx"""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """pictures of any size"""
    out: Path = Path("predictions")
    """the folder for the drawn pictures, each under its own name"""
    size: int | None = None
    """side of the square letterbox in pixels; None: the file's own where it is fixed, else 640 (scenes: give 160)"""
    conf: float = 0.25
    """score below which a box is not reported"""
    iou: float = 0.45
    """overlap with a better box of its class above which a box is dropped"""
    run: RunOptions = field(default_factory=RunOptions)


class Found(NamedTuple):
    """What a detector reports of one picture, best score first."""

    boxes: np.ndarray  # (n, 4) x1 y1 x2 y2 in pixels of the picture
    scores: np.ndarray  # (n,) in 0..1
    labels: np.ndarray  # (n,) index into the detector's names
    masks: np.ndarray | None  # (n, H, W) of 0 and 1, in the picture's size; None where the detector does not segment


def predict(options):
    """What was found in each picture, as text and as rows; the drawn pictures are in `options.out`."""
    prepare(options.run)
    if not options.images:
        raise ValueError("predict needs at least one picture")
    names = [path.name for path in options.images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(
            f"two pictures are called {twice!r}: their drawings would overwrite each other in {options.out}"
        )
    from oscillab.export.predictor import open_detector  # onnx is imported by whoever needs it alone

    model = as_measured(placed(open_detector(options.model), options.run.device))
    size = options.size or getattr(getattr(model, "facts", None), "size", None) or 640
    rows = []
    for path in options.images:
        image = read_picture(path)
        found = look_at(model, image, size=size, conf=options.conf, iou=options.iou)
        painted = paint_detections(image, found.boxes, found.labels, model.names, found.scores, found.masks)
        write_picture(painted, options.out / path.name)
        rows += rows_of(path.name, found, model.names)
    columns = ["picture", "name", "score", "x1", "y1", "x2", "y2"]
    text = table_text(pd.DataFrame(rows, columns=columns)) if rows else "nothing found"
    return {"text": f"{text}\ndrawn in {options.out}", "pictures": len(names), "found": rows, "out": str(options.out)}


def look_at(model, image, *, size=640, conf=0.25, iou=0.45):
    """The `Found` objects in a picture, uint8 RGB (H, W, 3), by a detector in eval mode, torch's or an ONNX file's.

    `size` is the side of the square letterbox in pixels, a multiple of the detector's largest stride.
    """
    square, ratio, pad = letterbox(image, size)
    pixels = to_pixels(torch.from_numpy(square).permute(2, 0, 1)[None], next(model.parameters()).device)
    with torch.no_grad():
        output = model(pixels)
    decoded, prototypes = output if isinstance(output, tuple) else (output, None)
    rows = detections(decoded, conf=conf, iou=iou, classes=model.classes)[0]
    height, width = image.shape[:2]
    place = Place(0, width, height, ratio, pad, (size, size))
    masks = None
    if prototypes is not None:
        planes = [decode_runs(runs) for runs in mask_runs(rows, prototypes[0].float().cpu().numpy(), place)]
        masks = np.stack(planes) if planes else np.zeros((0, height, width), np.uint8)
    return Found(place.boxes(rows)[:, :4], rows[:, 4], rows[:, 5].astype(int), masks)


def rows_of(picture, found, names):
    """One dictionary for each object found in a picture."""
    boxes = found.boxes.round(1).tolist()
    return [
        {"picture": picture, "name": names[label], "score": round(float(score), 3)}
        | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        for box, score, label in zip(boxes, found.scores, found.labels, strict=True)
    ]


def read_picture(path):
    """The picture at `path`, uint8 RGB (H, W, 3); raises ValueError where there is none."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such picture")
    data = np.fromfile(path, dtype=np.uint8)  # by bytes, since OpenCV does not open every path on every system
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise ValueError(f"{path}: cannot be read as a picture: it is no JPEG, PNG or other image")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def write_picture(image, path):
    """Nothing; writes a picture, uint8 RGB (H, W, 3), in the format that its name says, PNG where it says none."""
    suffix = path.suffix if path.suffix and cv2.haveImageWriter(path.name) else ".png"
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    with atomic_write(path if suffix == path.suffix else path.with_name(f"{path.name}.png")) as temporary:
        temporary.write_bytes(data.tobytes())

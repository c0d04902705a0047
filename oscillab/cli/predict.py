"""The commands `evaluate` and `predict`: measure COCO mAP of a detector, and draw what it finds into images."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from oscillab.data.options import DataOptions, DataSource, chosen_size
from oscillab.io import shipped
from oscillab.train.config import RunOptions

COLUMNS = ("image", "name", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Evaluate:
    """Measure COCO mAP."""

    weights: Path = field(default_factory=lambda: shipped("yolov5n-scenes.pt"))
    """a checkpoint, official or oscillab's, float or quantized, or an exported .onnx"""
    data: str = "scenes"
    """'scenes' or a folder in COCO's layout"""
    size: int | None = None
    """side of the square letterbox in pixels; None: the one that the detector was trained with, else 640"""
    held_out: int = 500
    """images, for scenes"""
    batch_size: int = 16
    """images at once"""
    device: str = "cpu"
    """'cpu', 'cuda', 'cuda:1', ...; under torchrun 'cuda' is a GPU for each process"""
    timeout: int = 600
    """under torchrun: seconds to wait for the other processes"""
    threads: int = 1
    """torch threads"""
    progress: bool = True
    """show a progress bar"""
    json: Path | None = None
    """also write what was measured to this file"""


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Return the measured mAP as a mapping; a quantized network's is that of its exact form."""
    from oscillab.data.evaluate import evaluate as measure
    from oscillab.export.reader import open_detector
    from oscillab.quant.exact import exact_or_float
    from oscillab.train.ddp import current_world
    from oscillab.train.run import placed, prepare

    prepare(RunOptions(device=options.device, threads=options.threads))
    model: Any = open_detector(options.weights)
    size = chosen_size(options.size or 0, options.data, model)
    source = DataSource(DataOptions(options.data, size, held_out=options.held_out))
    dataset = source.held_out(masks=model.task == "segment", model=model, source=options.weights)
    world, network = current_world(), exact_or_float(placed(model, options.device))
    shown = f"evaluate {options.weights.name}" if options.progress and world.is_main else False
    how: dict[str, Any] = {"size": size, "batch_size": options.batch_size, "progress": shown, "world": world}
    return measure(network, dataset, **how).summary()


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
    """side of the square letterbox in pixels; None: the one that the detector was trained with, else 640"""
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
    from oscillab.export.reader import open_detector
    from oscillab.plot.images import paint_detections
    from oscillab.quant.exact import exact_or_float
    from oscillab.study.text import table_text
    from oscillab.train.run import placed, prepare

    prepare(RunOptions(device=options.device, threads=options.threads))
    paths = image_paths(options.images, options.out)
    detector: Any = open_detector(options.model)
    model: Any = exact_or_float(placed(detector, options.device))
    size = chosen_size(options.size or 0, "images", model)
    rows = []
    for path in paths:
        image = read_image(path)
        found = detect(model, image, size=size, conf=options.conf, iou=options.iou)
        scores, labels = found.scores.tolist(), found.labels.tolist()
        painted = paint_detections(image, found.boxes, labels, model.names, scores, found.masks)
        write_image(painted, options.out / path.name)
        for label, score, box in zip(labels, scores, found.boxes.round(1).tolist(), strict=True):
            rows.append(dict(zip(COLUMNS, [path.name, model.names[label], round(score, 3), *box], strict=True)))
    text = table_text(pd.DataFrame(rows)) if rows else "nothing found"
    return {"text": f"{text}\ndrawn in {options.out}", "images": len(paths), "found": rows, "out": str(options.out)}


def image_paths(given: tuple[Path, ...], out: Path) -> list[Path]:
    """Return the images that files and folders name; raise ValueError for none, a missing one and a name given twice."""
    from oscillab.data.images import SUFFIXES

    paths = []
    for place in given:
        if not place.exists():
            raise ValueError(f"{place}: no such image")
        inside = (
            sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
        )
        if not inside:
            raise ValueError(f"{place}: no image in this folder; images end in {', '.join(SUFFIXES)}")
        paths += inside
    if not paths:
        raise ValueError("predict needs at least one image")
    if twice := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        raise ValueError(f"two images are called {twice[0]!r}: their drawings would overwrite each other in {out}")
    return paths

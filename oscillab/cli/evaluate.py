"""The command `evaluate`: measure COCO mAP of a checkpoint or an exported file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oscillab.data.options import DataOptions, DataSource, chosen_size
from oscillab.io import shipped
from oscillab.train.config import RunOptions


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
    world = current_world()
    size = chosen_size(options.size or 0, options.data, model)
    source = DataSource(DataOptions(options.data, size, held_out=options.held_out))
    dataset = source.held_out(masks=model.task == "segment", model=model, source=options.weights)
    return measure(
        exact_or_float(placed(model, options.device)),
        dataset,
        size=size,
        batch_size=options.batch_size,
        progress=options.progress and world.is_main,
        world=world,
    ).summary()

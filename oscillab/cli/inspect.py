"""What do the commands `models` and `inspect` print: which detectors there are, and what a file holds?"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from oscillab.cli.export import inspect_onnx
from oscillab.quant import QuantSpec
from oscillab.study.text import table_text
from oscillab.train.config import RunOptions
from oscillab.yolo import checkpoint, zoo


@dataclass(frozen=True)
class Models:
    """List the detectors: parameters, GFLOPs at 640 pixels, the published mAP and its source."""

    run: RunOptions = field(default_factory=RunOptions)


def models(options):
    """The list as text and as rows, for 80 classes."""
    rows = [
        {
            "name": entry.name,
            "task": entry.task,
            "parameters": entry.parameters,
            "GFLOPs": round(entry.gflops, 1),
            "box mAP %": entry.published.box_map,
            "mask mAP %": entry.published.mask_map,
            "at pixels": entry.published.size,
            "source": entry.published.source,
        }
        for entry in map(zoo.entry, zoo.MODELS)
    ]
    return {"text": table_text(pd.DataFrame(rows)), "models": rows}


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint or an exported file is, without running anything in it."""

    file: Annotated[Path, tyro.conf.Positional]
    """an official checkpoint, one of oscillab's, or an .onnx file that `export` wrote"""
    size: int | None = None
    """pixels, for an .onnx file's costs; None: its own size where it is fixed, else 640"""
    run: RunOptions = field(default_factory=RunOptions)


SHOWN = ("bits", "first_last_bits", "weight_granularity", "activation")  # of how a network is quantized


def inspect(options):
    """What a checkpoint holds, also where it is none of the zoo's; bytes and costs of an exported file."""
    if options.file.suffix == ".onnx":
        return inspect_onnx(options.file, options.size)
    found = checkpoint.inspect(options.file)
    parameters = sum(
        tensor.numel()
        for name, tensor in found.state.items()
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var", "anchors", "anchor_grid"))
    )
    anchors = () if found.anchors is None else found.anchors
    quant = asdict(QuantSpec.from_dict(found.quant)) if found.quant else {}
    return {
        "file": options.file.name,
        "model": found.name or f"none of the zoo's: {zoo.foreign(found) or 'a network that nothing here names'}",
        "classes": found.classes,
        "names": ", ".join(found.names or []),
        "strides": ", ".join(str(int(stride)) for stride in found.strides) if found.name else "",
        "anchors": "; ".join(" ".join(f"{side:g}" for side in level.flatten()) for level in anchors),
        "parameters": parameters,
        "epoch": found.epoch,
        "quantized": found.quant is not None,
        **{name.replace("_", " "): value for name, value in quant.items() if name in SHOWN},
    }

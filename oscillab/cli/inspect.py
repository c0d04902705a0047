"""The commands `models` and `inspect`: list the detectors, and say what a file or a run's folder holds."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Models:
    """List the detectors: parameters, GFLOPs at 640 pixels, the published mAP and its source."""

    json: Path | None = None
    """also write the list to this file"""


def models(options: Models) -> dict[str, Any]:
    """Return the list as text and as rows, for 80 classes."""
    import pandas as pd

    from oscillab.study.text import table_text
    from oscillab.yolo import zoo

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
    """Say what a file or a run's folder is, without running anything in it."""

    file: Annotated[Path, tyro.conf.Positional]
    """a checkpoint, official or oscillab's, an .onnx file that `export` wrote, a recording (.npz), or the folder of a run"""
    size: int | None = None
    """pixels, for an .onnx file's costs; None: its own size where it is fixed, else 640"""
    json: Path | None = None
    """also write what was found to this file"""


SHOWN = ("bits", "first_last_bits", "weight_granularity", "activation")  # of how a network is quantized


def inspect(options: Inspect) -> dict[str, Any]:
    """Return what a file holds, whichever of the kinds it is; of a folder, what each of its files holds, in short."""
    from oscillab.cli.export import inspect_onnx

    path = options.file
    if path.is_dir():
        return inspect_folder(path)
    if path.suffix == ".onnx":
        return inspect_onnx(path, options.size)
    return inspect_recording(path) if path.suffix == ".npz" else inspect_checkpoint(path)


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, also where it is none of the zoo's."""
    from oscillab.quant import QuantSpec
    from oscillab.yolo import checkpoint, zoo

    found = checkpoint.inspect(path)
    parameters = sum(
        tensor.numel()
        for name, tensor in found.state.items()
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var", "anchors", "anchor_grid"))
    )
    quant = asdict(QuantSpec.from_dict(found.quant)) if found.quant else {}
    return {
        "file": path.name,
        "model": found.name or f"none of the zoo's: it {zoo.misfit(found)}",
        "classes": found.classes,
        "names": ", ".join(found.names or []),
        "image size": found.size,
        "strides": ", ".join(str(int(stride)) for stride in found.strides) if found.name else "",
        "anchors": "; ".join(
            " ".join(f"{side:g}" for side in level.flatten())
            for level in (() if found.anchors is None else found.anchors)
        ),
        "parameters": parameters,
        "epoch": found.epoch,
        "notes": "; ".join(found.notes),
        "quantized": found.quant is not None,
        **{name.replace("_", " "): value for name, value in quant.items() if name in SHOWN},
    }


def inspect_recording(path: Path) -> dict[str, Any]:
    """Return how much a recording holds, and how often its weights flipped."""
    from oscillab.recording.recording import Recording
    from oscillab.recording.tables import flip_rate, oscillating_share

    found = Recording.open(path)
    return {
        "file": path.name,
        "kind": "a recording",
        "layers": len(found.layer_names),
        "weights": int(found.weight_count),
        "steps": int(found.steps[-1]) if len(found.steps) else 0,
        "flips per weight and step": float(flip_rate(found)),
        "oscillating share": float(oscillating_share(found)),
    }


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Return what each checkpoint and recording of a run's folder is, in a line each."""
    found: dict[str, Any] = {"folder": str(folder)}
    for path in sorted(folder.glob("*.pt")):
        if path.name != "last.pt":
            held = inspect_checkpoint(path)
            found[path.name] = f"{held['model']}, {held['classes']} classes, {held.get('bits', 32)} bit"
    for path in sorted(folder.glob("*.npz")):
        held = inspect_recording(path)
        found[path.name] = (
            f"{held['steps']} steps, {held['flips per weight and step']:.3%} of the weights flip in a step"
        )
    if len(found) == 1:
        raise ValueError(f"{folder} holds no checkpoint and no recording: give a file, or the folder of a run")
    return found

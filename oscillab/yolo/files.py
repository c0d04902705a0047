"""How does a detector, float or quantized, get into a file and back?"""

from dataclasses import asdict
from pathlib import Path

import torch

from oscillab.io import atomic_write
from oscillab.quant import QuantSpec, quantize
from oscillab.quant.fold import corrections, insert
from oscillab.yolo import archive, zoo

FORMAT, VERSION = "oscillab", 1


def contents(model):
    """What a file says of a detector: plain containers and tensors, which any safe reader takes."""
    spec = getattr(model, "quant_spec", None)
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": model.name,
        "classes": model.classes,
        "names": list(model.names),
        "quant": None if spec is None else asdict(spec),
        "corrected": bool(corrections(model)),
        "model": model.state_dict(),
    }


def save(model, path, *, half=False, **extra):
    """The path of the file that now holds the detector, written whole or not at all.

    `half`: floats in half precision, half the size. `extra`: more entries of plain containers and tensors.
    """
    entries = contents(model) | extra
    if half:
        entries["model"] = {k: v.half() if v.is_floating_point() else v for k, v in entries["model"].items()}
    with atomic_write(path) as temporary:
        torch.save(entries, temporary)
    return Path(path)


def restore(entries, *, source="the checkpoint"):
    """The quantized detector that the entries of a file describe, in eval mode."""
    model = zoo.build(entries["name"], classes=entries["classes"])
    model.names = list(entries["names"])
    quantize(model, QuantSpec.from_dict(entries["quant"]), None)
    if entries.get("corrected"):
        insert(model)
    try:
        model.load_state_dict(entries["model"])
    except RuntimeError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())[:200]}") from error
    return model.eval()


def load(path):
    """A detector in eval mode, from an official checkpoint or from one of oscillab's own, float or quantized.

    `.names`, `.anchors` (3, 3, 2) in pixels and `.strides` come with it. Nothing in the file is run.
    Raises ValueError in one line that names the file and what is wrong with it.
    """
    if Path(path).suffix == ".onnx":
        raise ValueError(f"{path}: an ONNX file is opened with oscillab.load_onnx(path)")
    content = archive.read(path)
    if not (isinstance(content, dict) and content.get("format") == FORMAT and content.get("quant")):
        return zoo.load(path)
    if content.get("version", 0) > VERSION:
        raise ValueError(
            f"{path}: written by a newer oscillab (format {content['version']}, this one reads up to {VERSION})"
        )
    return restore(content, source=path)


def open_detector(path):
    """What detects, in eval mode: an exported ONNX file as a `Predictor`, every other file as `load` reads it."""
    if Path(path).suffix != ".onnx":
        return load(path)
    from oscillab.export.predictor import load_onnx  # onnx is read in by whoever needs it, and by nobody else

    return load_onnx(path)

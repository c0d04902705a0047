"""What does the command `export` do, and what does `inspect` say of the file that it writes?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro

from oscillab.study.text import lines, table_text
from oscillab.train.config import RunOptions
from oscillab.train.run import prepare
from oscillab.yolo import checkpoint

# Of a run's folder, the network to take: the best that is there
NETWORKS = ("ema+qc.pt", "ema.pt", "lsq+qc.pt", "lsq.pt")
MEGA, KILO = 1e6, 1024


@dataclass(frozen=True)
class Export:
    """Write a detector as an ONNX file, a quantized one with 4-bit weights."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """a checkpoint, or the folder of a run: its ema+qc.pt, ema.pt, lsq+qc.pt or lsq.pt, the first that is there"""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.onnx")]
    """the .onnx file to write"""
    opset: int = 21
    """of ONNX's operators, 21 (the first with 4-bit integers) to 27"""
    size: int | None = None
    """side of the square images in pixels; None: any multiple of the largest stride, chosen at each call"""
    form: Literal["exact", "qdq"] | None = None
    """of a quantized network; exact (the default): convolutions sum integer states, every program gives torch's bits; qdq:
    scaled values, as compilers expect"""
    run: RunOptions = field(default_factory=RunOptions)


def export(options):
    """What was written, as a mapping; the file is at `options.out`."""
    from oscillab.export.write import export_onnx

    prepare(options.run)
    path = network_of(options.source)
    if options.out.suffix != ".onnx":
        raise ValueError(f"the file to write must end in .onnx, got {options.out}")
    written = export_onnx(checkpoint.load(path), options.out, opset=options.opset, size=options.size, form=options.form)
    return {"network": str(path), "out": str(options.out)} | facts_of_export(written)


def network_of(source):
    """The checkpoint that `source` means: itself, or the best network in a run's folder."""
    if not source.is_dir():
        return source
    found = next((source / name for name in NETWORKS if (source / name).is_file()), None)
    if found is None:
        raise ValueError(f"{source} holds none of {', '.join(NETWORKS)}: give a checkpoint, or the folder of a QAT run")
    return found


def facts_of_export(written):
    """What a user wants to know of an `Exported` file, as a mapping."""
    from oscillab.export.cost import cost

    layers = cost(written.path).layers
    return {
        "bytes": written.byte_count,
        "weight bytes": sum(layer.bytes for layer in layers),
        "in FP32": sum(layer.float_bytes for layer in layers),
        "form": written.form,
        "QC layers folded now": written.folded_corrections,
        "batch norms kept": ", ".join(written.kept) or "none",
        "layers without exact form": ", ".join(written.rounded) or "none",
    }


def inspect_onnx(path, size=None):
    """What an exported file holds, what it costs and what is left in floats, as text and as rows."""
    from oscillab.export.cost import RUNTIME, cost
    from oscillab.export.reader import read

    facts, found = read(path)[1], cost(path, size=size)
    layers = pd.DataFrame(found.layers)
    total = layers[["weights", "bytes", "float_bytes", "macs", "bops"]].sum()
    head = {
        "file": Path(path).name,
        "model": facts.name,
        "classes": len(facts.names),
        "image size": facts.size or f"any multiple of {max(facts.strides)}; costs are for {found.size}",
        "scales": facts.scales,
        "form": facts.form,
        "storage": facts.storage,
        "file bytes": found.file_bytes,
        "weight bytes": f"{total.bytes} of {total.float_bytes} in FP32 ({total.bytes / total.float_bytes:.1%})",
        "GMACs": total.macs / 1e9,
        "GBOPs": f"{total.bops / 1e9:.4g} of {total.macs * 32**2 / 1e9:.4g} in FP32 ({total.bops / total.macs / 32**2:.1%})",
    }
    parts = [lines(head), layer_table(layers), width_table(layers), kind_table(found.kinds), RUNTIME]
    return {"text": "\n\n".join(parts), **head, "layers": layers.to_dict("records")}


def layer_table(layers):
    """The layers' costs as text."""
    shown = layers[["layer", "weights", "bits", "stored_bits"]].assign(
        KB=(layers["bytes"] / KILO).round(1),
        MMACs=(layers["macs"] / MEGA).round(1),
        MBOPs=(layers["bops"] / MEGA).round(0).astype(int),
    )
    return table_text(shown.rename(columns={"stored_bits": "stored in"}))


def width_table(layers):
    """Operations by bit width as text."""
    sums = layers.groupby("bits")[["weights", "macs", "bops"]].sum()
    share = (100 * sums / sums.sum()).round(1).add_prefix("% of ")
    return table_text(share.reset_index())


def kind_table(kinds):
    """What is computed besides, as text."""
    shown = pd.DataFrame(kinds).rename(
        columns={"kind": "operation", "operations": "nodes", "numbers": "million numbers"}
    )
    return table_text(shown.assign(**{"million numbers": (shown["million numbers"] / MEGA).round(2)}))

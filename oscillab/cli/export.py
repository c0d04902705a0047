"""The command `export`: write a detector as an ONNX file; and what `inspect` says of such a file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

log = logging.getLogger(__name__)

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
    json: Path | None = None
    """also write the facts of the file to this file"""


def export(options: Export) -> dict[str, Any]:
    """Write the file at `options.out` and return what is in it."""
    from oscillab.export.cost import cost
    from oscillab.export.write import export_onnx
    from oscillab.train.config import RunOptions
    from oscillab.train.run import prepare
    from oscillab.yolo import checkpoint

    prepare(RunOptions())
    path = network_of(options.source)
    if options.out.suffix != ".onnx":
        raise ValueError(f"the file to write must end in .onnx, got {options.out}")
    written = export_onnx(checkpoint.load(path), options.out, opset=options.opset, size=options.size, form=options.form)
    layers = cost(written.path).layers
    found: dict[str, Any] = {"network": str(path), "out": str(options.out), "bytes": written.byte_count}
    found |= {
        "weight bytes": sum(layer.bytes for layer in layers),
        "in FP32": sum(layer.float_bytes for layer in layers),
    }
    found |= {"form": written.form, "QC layers folded now": written.folded_corrections}
    found["batch norms kept"] = ", ".join(written.kept) or "none"
    return found | {"layers without exact form": ", ".join(written.rounded) or "none"}


def network_of(source: Path) -> Path:
    """Return the checkpoint that `source` means: itself, or the best network in a run's folder."""
    if not source.is_dir():
        return source
    for found in (source / name for name in NETWORKS if (source / name).is_file()):
        start = source / f"{found.stem.partition('+')[0]}.pt"
        if not start.is_file() or found.stat().st_mtime >= start.stat().st_mtime:
            return found
        log.warning("%s is older than %s, which it should come from: it is left out", found, start.name)
    raise ValueError(f"{source} holds none of {', '.join(NETWORKS)}: give a checkpoint, or the folder of a QAT run")


def inspect_onnx(path: Path, size: int | None = None) -> dict[str, Any]:
    """Return what an exported file holds, what it costs and what is left in floats, as text and as rows."""
    import pandas as pd

    from oscillab.export.cost import RUNTIME, cost
    from oscillab.export.reader import read
    from oscillab.study.text import lines, table_text

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
    costs = layers[["layer", "weights", "bits", "stored_bits"]].rename(columns={"stored_bits": "stored in"})
    costs["KB"], costs["MMACs"] = (layers["bytes"] / KILO).round(1), (layers["macs"] / MEGA).round(1)
    costs["MBOPs"] = (layers["bops"] / MEGA).round(0).astype(int)
    widths = layers.groupby("bits")[["weights", "macs", "bops"]].sum()
    widths = (100 * widths / widths.sum()).round(1).add_prefix("% of ").reset_index()
    kinds = pd.DataFrame(found.kinds).set_axis(["operation", "nodes", "million numbers"], axis=1)
    kinds["million numbers"] = (kinds["million numbers"] / MEGA).round(2)
    text = "\n\n".join([lines(head), *map(table_text, (costs, widths, kinds)), RUNTIME])
    return {"text": text, **head, "layers": layers.to_dict("records")}

"""How does a trained network become a file that another program runs?

`export_onnx` folds QC, writes the integer states that training ended with, and lets ONNX's own checker read the whole
of it before the file takes its place. `export_float` writes the float network the same way, to compare with.
"""

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

import oscillab
from oscillab.io import atomic_write
from oscillab.quant import is_quantized, quant_layers, quantizers
from oscillab.quant.exact import exact
from oscillab.quant.fold import corrections, fold
from oscillab.yolo.graph import Detector

from .convolution import PerChannel, PerTensor
from .facts import FORMS, OPSETS, SCALES, Facts, storage_in_words
from .graph import Graph
from .heads import emit_head
from .layers import emit_layer
from .requantize import MULTIPLIER_BITS, FixedPoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    byte_count: int
    kept: list[str]  # layers whose BatchNorm or factor stays an operation of its own: a ratio is not positive
    folded_corrections: int  # QC layers that were still unfolded
    form: str  # exact, or qdq, whose sums each program rounds in its own order
    fixed_point: list[FixedPoint] = field(repr=False, default_factory=list)  # of scales="per_tensor", a layer each


def export_onnx(model, path, *, opset=21, size=None, form=None, scales="per_channel", multiplier_bits=16):
    """The `Exported` file at `path` that holds a quantized `Detector`, which stays as it is.

    Input `images` (N, 3, H, W), floats in 0..1, N free; output `decoded` (N, boxes, 5 + C [+ 32]) and, for segmentation,
    `prototypes` (N, 32, H / 4, W / 4), as the detector gives them in eval mode. `size` fixes H = W; None leaves both free
    in multiples of the largest stride. `opset`: 21..27. `form`: "exact" convolves integer states and scales their sums, so
    that every program gives what `oscillab.exact(model)` gives, bit for bit; "qdq" scales states before they are convolved,
    as compilers expect it. `scales`: "per_channel", or "per_tensor" with multipliers of `multiplier_bits` (4..16) bits for
    hardware that takes no other (`requantize.py`), which is always "qdq". Raises ValueError for a float or an uncalibrated
    network, a module without translation, and values that are not allowed.
    """
    form = chosen_form(form, scales)
    if multiplier_bits not in MULTIPLIER_BITS:
        raise ValueError(
            f"multiplier_bits must be {MULTIPLIER_BITS[0]}..{MULTIPLIER_BITS[-1]}, got {multiplier_bits!r}"
        )
    network, folded = quantized_copy(model)
    way = PerChannel() if scales == "per_channel" else PerTensor(multiplier_bits)
    bits = {name: layer.bits for name, layer in quant_layers(network).items()}
    written = exact(network) if form == "exact" else network
    proto = build(written, way, opset, size, {"scales": scales, "form": form, "bits": bits})
    return Exported(*write(proto, path), way.kept, folded, form, getattr(way, "layers", []))


def chosen_form(form, scales):
    """The form that is meant, "exact" where nothing was said and it can be; raises ValueError where the two do not go together."""
    if scales not in SCALES[:2]:
        raise ValueError(f"scales must be one of {', '.join(SCALES[:2])}, got {scales!r}")
    possible = FORMS if scales == "per_channel" else FORMS[1:]
    if form is not None and form not in possible:
        raise ValueError(f"form must be {' or '.join(possible)} with scales {scales!r}, got {form!r}")
    return form or possible[0]


def export_float(model, path, *, opset=21, size=None):
    """The `Exported` file at `path` of a float `Detector`, its BatchNorms folded; input and outputs as `export_onnx`."""
    if not isinstance(model, Detector) or is_quantized(model):
        raise ValueError("export_float takes a float detector; a quantized one goes to export_onnx")
    network = copy.deepcopy(model).cpu().float().eval()
    way = PerChannel()
    proto = build(network, way, opset, size, {"scales": "float", "form": "qdq", "bits": {}})
    return Exported(*write(proto, path), [], 0, "qdq")


def quantized_copy(model):
    """A copy in eval mode, in single precision, on the CPU, with QC folded, and how many QC layers were not."""
    if not isinstance(model, Detector):
        raise ValueError(f"only a detector of oscillab's zoo can be exported, got {type(model).__name__}")
    if not is_quantized(model):
        raise ValueError(
            f"this {model.name} is a float network: quantize and train it first (`oscillab qat`), or write its float graph "
            "(`oscillab export --fp32`, export_float)"
        )
    for name, quantizer in quantizers(model).items():
        if not quantizer.calibrated:
            raise ValueError(f"quantizer {name!r} is not calibrated: call calibrate(model, batches) and train first")
        if not quantizer.enabled:
            raise ValueError(f"quantizer {name!r} is switched off: the network would be exported half float")
    network = copy.deepcopy(model).cpu().float().eval()
    unfolded = len(corrections(network))
    if unfolded:
        logger.info("QC was still unfolded in %d layers and is folded in the file; the model stays as it is", unfolded)
        network = fold(network)
    return network, unfolded


def build(network, way, opset, size, kind):
    """The checked ModelProto of a network in eval mode; `kind`: the entries scales, form and bits of its metadata."""
    if opset not in OPSETS:
        raise ValueError(f"opset must be {OPSETS[0]}..{OPSETS[-1]}, got {opset!r}")
    stride = max(network.strides)
    if size is not None and (size < stride or size % stride):
        raise ValueError(f"size must be a multiple of the largest stride {stride}, or None for any, got {size!r}")
    graph = Graph()
    outputs = emit_rows(graph, way, network)
    facts = Facts(
        name=network.name,
        task=network.task,
        names=list(network.names),
        strides=[int(stride) for stride in network.strides],
        anchors=network.anchors.tolist(),
        size=size,
        storage=storage_in_words(kind["bits"], kind["scales"]),
        **kind,
    )
    graph = graph.finish(
        network.name, [value("images", "batch", 3, *image_sides(size))], value_infos(network, outputs, size)
    )
    return checked(graph, opset, facts)


def emit_rows(graph, way, network):
    """The names of the network's outputs: every row of its layer table, in order."""
    maps = {-1: "images"}
    for index, (source, layer) in enumerate(zip(network.sources, network.model, strict=True)):
        inputs = [maps[s] for s in source] if isinstance(source, tuple) else maps[source]
        emit = emit_head if layer is network.head else emit_layer
        maps[index] = emit(graph, way, f"model.{index}", layer, inputs)
    return maps[index]


def image_sides(size):
    """Height and width as ONNX has them: numbers, or names where they are free."""
    return ("height", "width") if size is None else (size, size)


def value_infos(network, outputs, size):
    """The value infos of the outputs."""
    head = network.head
    boxes = (
        "boxes" if size is None else sum(head.anchors.shape[1] * (size // stride) ** 2 for stride in network.strides)
    )
    shapes = [("batch", boxes, head.outputs)]
    if len(outputs) > 1:
        sides = ("mask_height", "mask_width") if size is None else (size // 4, size // 4)
        shapes.append(("batch", head.coefficients, *sides))
    return [value(name, *shape) for name, shape in zip(outputs, shapes, strict=True)]


def value(name, *shape):
    """The value info of a float tensor."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def checked(graph, opset, facts):
    """The ModelProto of a graph, which ONNX's checker has read in full, shapes and types inferred."""
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph, opset_imports=imports, producer_name="oscillab", producer_version=oscillab.__version__
    )
    model.ir_version = helper.find_min_ir_version_for(imports)
    helper.set_model_props(model, facts.entries())
    onnx.checker.check_model(model, full_check=True)
    return model


def write(model, path):
    """The path of the file that now holds the ModelProto, whole or not at all, and its size in bytes."""
    data = model.SerializeToString()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return Path(path), len(data)

"""Write a detector as an ONNX file.

QC is folded, integer states are stored as they are, and ONNX's own checker reads the whole before the file takes its place.
"""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import oscillab
from oscillab.io import atomic_write
from oscillab.quant import is_quantized, quant_layers, quantizers
from oscillab.quant.exact import exact
from oscillab.quant.fold import corrections, fold
from oscillab.yolo.graph import Detector

from .cost import Cost, cost
from .graph import Graph
from .layers import emit_head, emit_layer
from .reader import FORMS, OPSETS, Facts, integer_states, storage_in_words

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    byte_count: int
    kept: list[str]  # layers whose BatchNorm or factor stays an operation of its own: a ratio is not positive
    folded_corrections: int  # QC layers that were still unfolded
    rounded: list[str]  # layers of an exact file without exact form, whose sums each program rounds in its own order
    form: str  # exact; qdq, whose sums each program rounds in its own order; float

    def cost(self, *, size: int | None = None) -> Cost:
        """Return what the file holds and what an image of its own size, or of `size` (640) pixels, takes to run."""
        return cost(self.path, size=size)

    def integer_states(self) -> dict[str, np.ndarray]:
        """Return the stored integer states of every quantized layer, by name."""
        return integer_states(self.path)


def export_onnx(
    model: Detector, path: Path | str, *, opset: int = 21, size: int | None = None, form: str | None = None
) -> Exported:
    """Write a quantized `Detector`, or a float one as a float graph, to `path`; the model stays as it is.

    Input `images` (N, 3, H, W), floats in 0..1, N free; output `decoded` (N, boxes, 5 + C [+ 32]) and, for segmentation,
    `prototypes` (N, 32, H / 4, W / 4), as the detector gives them in eval mode. `size` fixes H = W; None leaves both free
    in multiples of the largest stride. `opset`: 21..27. `form` of a quantized network: "exact" (None) convolves integer
    states and scales their sums, so that every program gives what `oscillab.exact(model)` gives, bit for bit up to the
    decoding, but for layers that it warns of (with an offset, or sums past 2^24); "qdq" scales states first, as compilers
    expect it. Raises ValueError for what has no translation: uncalibrated quantizers, unknown modules, infinite numbers.
    """
    network, folded = checked_copy(model)
    quantized = is_quantized(network)
    if form is not None and (form not in FORMS or not quantized):
        raise ValueError(f"form must be {' or '.join(FORMS)}, of a quantized network, got {form!r}")
    form = (form or FORMS[0]) if quantized else "float"
    bits = {name: layer.bits for name, layer in quant_layers(network).items()}
    written: Any = exact(network) if form == "exact" else network
    rounded = list(quant_layers(written)) if form == "exact" else []
    if rounded:
        logger.warning("%d layers have no exact form, programs round their sums differently: %s", len(rounded), rounded)
    graph, proto = build(written, opset, size, form, bits)
    data = proto.SerializeToString()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return Exported(Path(path), len(data), graph.kept, folded, rounded, form)


def checked_copy(model: Detector) -> tuple[Detector, int]:
    """Return a copy in eval mode, in single precision, on the CPU, with QC folded, and how many QC layers were not."""
    if not isinstance(model, Detector):
        raise ValueError(f"only a detector of oscillab's zoo can be exported, got {type(model).__name__}")
    for name, quantizer in quantizers(model).items():
        if not quantizer.calibrated:
            raise ValueError(f"quantizer {name!r} is not calibrated: call calibrate(model, batches) and train first")
        if not quantizer.enabled:
            raise ValueError(f"quantizer {name!r} is switched off: the network would be exported half float")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name!r} holds numbers that are not finite: such a network cannot be exported")
    network = copy.deepcopy(model).cpu().float().eval()
    unfolded = len(corrections(network))
    if unfolded:
        logger.info("QC was still unfolded in %d layers and is folded in the file; the model stays as it is", unfolded)
        fold(network)
    return network, unfolded


def build(network: Any, opset: int, size: int | None, form: str, bits: dict[str, int]) -> tuple[Graph, onnx.ModelProto]:
    """Return the graph of a `Detector` in eval mode and its ModelProto, which ONNX's checker has read in full."""
    if opset not in OPSETS:
        raise ValueError(f"opset must be {OPSETS[0]}..{OPSETS[-1]}, got {opset!r}")
    stride = max(network.strides)
    if size is not None and (size < stride or size % stride):
        raise ValueError(f"size must be a multiple of the largest stride {stride}, or None for any, got {size!r}")
    graph = Graph()
    outputs = value_infos(network, emit_rows(graph, network), size)
    sides: tuple[Any, Any] = ("height", "width") if size is None else (size, size)
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        graph.finish(network.name, [value("images", "batch", 3, *sides)], outputs),
        opset_imports=imports,
        producer_name="oscillab",
        producer_version=oscillab.__version__,
        ir_version=helper.find_min_ir_version_for(imports),
    )
    own = network.name, network.task, list(network.names), list(map(int, network.strides)), network.anchors.tolist()
    kind = ("per_channel", form) if bits else ("float", "qdq")
    facts = Facts(*own, size, kind[0], bits, storage_in_words(bits), kind[1])
    helper.set_model_props(proto, facts.entries())
    onnx.checker.check_model(proto, full_check=True)
    return graph, proto


def emit_rows(graph: Graph, network: Detector) -> list[str]:
    """Add every row of the network's layer table, in order, and return the names of its outputs."""
    maps: dict[int, Any] = {-1: "images"}
    for index, (source, layer) in enumerate(zip(network.sources, network.model, strict=True)):
        inputs = [maps[s] for s in source] if isinstance(source, tuple) else maps[source]
        emit = emit_head if layer is network.head else emit_layer
        maps[index] = emit(graph, f"model.{index}", layer, inputs)
    return maps[index]


def value_infos(network: Detector, outputs: list[str], size: int | None) -> list[onnx.ValueInfoProto]:
    """Return the value infos of the outputs."""
    head = network.head
    per_cell = head.anchors.shape[1]
    boxes = "boxes" if size is None else sum(per_cell * (size // stride) ** 2 for stride in network.strides)
    sides = ("mask_height", "mask_width") if size is None else (size // 4, size // 4)
    shapes = [("batch", boxes, head.outputs), ("batch", head.coefficients, *sides)]
    return [value(name, *shape) for name, shape in zip(outputs, shapes, strict=False)]


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    """Return the value info of a float tensor."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

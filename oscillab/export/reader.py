"""Read an ONNX file that oscillab wrote: its metadata, its integer states, and a `Predictor` that runs it.

Everything that can be wrong with a file is looked at before onnxruntime does. The metadata are plain text: classes,
anchors, image size, and how many bits each layer has where the type that stores it has more.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from oscillab.yolo.checkpoint import load
from oscillab.yolo.graph import Detector, check_image_size

from .graph import states_of

FORMAT, VERSION = "oscillab", 1
OPSETS = range(21, 28)  # 21 is the first with 4-bit integers, 27 the last that onnxruntime 1.32 runs
FORMS = ("exact", "qdq")


@dataclass(frozen=True)
class Facts:
    """The entries of the metadata."""

    name: str  # of the model, as the zoo has it
    task: str  # detect or segment
    names: list[str]  # of the classes
    strides: list[int]  # pixels per cell of each level
    anchors: list  # (levels, anchors, 2) in pixels
    size: int | None  # side of the square images in pixels; None: any multiple of the largest stride
    scales: str  # per_channel; float for a network that is not quantized
    bits: dict[str, int]  # of the weights and of the input of each quantized layer
    storage: str  # what lies in which type, in words
    form: str = "qdq"  # whether convolutions sum integer states (exact) or their values; files of before have no entry

    def entries(self) -> dict[str, str]:
        """Return the metadata as texts."""
        own = {key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(self).items()}
        return {"format": FORMAT, "version": str(VERSION), **own}


# What each entry is
KINDS: dict[str, Any] = {"name": str, "task": str, "names": list, "strides": list, "anchors": list, "size": int | None}
KINDS |= {"scales": str, "bits": dict, "storage": str}


def read_facts(entries: dict[str, str]) -> Facts:
    """Return the `Facts` in metadata; raises ValueError that says what is missing or wrong."""
    if entries.get("format") != FORMAT:
        raise ValueError("it was not written by oscillab, its metadata lacks format=oscillab")
    missing = [key for key in ("version", *KINDS) if key not in entries]
    if missing:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    version = read_entry("version", entries["version"], int)
    if version > VERSION:
        raise ValueError(f"it was written by a newer oscillab (format {version}, this one reads up to {VERSION})")
    values = {key: read_entry(key, entries[key], kind) for key, kind in KINDS.items()}
    return Facts(**values, form=entries.get("form", "qdq"))


def read_entry(key: str, text: str, kind: Any) -> Any:
    """Return the value of a metadata entry, of that type; raises ValueError where the text holds none."""
    if kind is str:
        return text
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        value = NotImplemented  # of no kind
    if not isinstance(value, kind):
        raise ValueError(f"its metadata cannot be read: {key} is {text[:40]!r}")
    return value


def storage_in_words(bits: dict[str, int]) -> str:
    """Say what lies in which type, for the bits of each layer."""
    stored = {width: 4 if width <= 4 else 8 for width in sorted(set(bits.values()))}
    words = [f"{width}-bit states {{}}in {held}-bit integers" for width, held in stored.items()]
    return "; ".join(text.format("are stored " * (text is words[0])) for text in words) or "weights are 32-bit floats"


def read(path: Path | str) -> tuple[onnx.ModelProto, Facts]:
    """Return the ModelProto at `path` and its metadata; ValueError where it is no whole ONNX file of oscillab's."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"{path}: is no ONNX file, or was cut short ({len(data):,} bytes)") from error
    problem = find_problem(proto)
    if problem:
        raise ValueError(f"{path}: {problem}")
    try:
        onnx.checker.check_model(proto)
        return proto, read_facts({entry.key: entry.value for entry in proto.metadata_props})
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split()):.200}") from error


def find_problem(proto: onnx.ModelProto) -> str | None:
    """Return what is wrong with a ModelProto, in words; None if nothing is."""
    if not proto.graph.node:
        return "holds no network: it is no ONNX file, or was cut short"
    if "oscillab" not in (proto.producer_name, *(entry.value for entry in proto.metadata_props)):
        return f"it was not written by oscillab but by {proto.producer_name or 'a program that gives no name'}"
    opset = next((entry.version for entry in proto.opset_import if not entry.domain), None)
    if opset not in OPSETS:
        return f"its opset must be {OPSETS[0]}..{OPSETS[-1]}, got {'none' if opset is None else opset}"
    outside = next((t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL), None)
    if outside:
        return f"tensor {outside!r} lies in another file, which is not read"
    known = {"", *(value.name for value in (*proto.graph.initializer, *proto.graph.input))}
    for node in proto.graph.node:
        missing = next((name for name in node.input if name not in known), None)
        if missing is not None:
            return f"tensor {missing!r}, which {node.op_type} {node.name} reads, is missing".replace("  ", " ")
        known.update(node.output)
    return None


def integer_states(path: Path | str) -> dict[str, np.ndarray]:
    """Return layer -> the integer states of its weights, int8 in their shape, as the file at `path` stores them."""
    proto, facts = read(path)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    return {layer: states_of(tensors[f"{layer}.weight"]) for layer in facts.bits}


class Predictor(nn.Module):
    """A detector in an ONNX file, with a `Detector`'s call and attributes in eval mode; it runs in onnxruntime, on the CPU."""

    def __init__(self, path: Path | str, *, threads: int | None = None):
        super().__init__()
        proto, facts = read(path)
        self.facts, self.path, self.size = facts, str(path), facts.size
        self.name, self.task, self.names, self.strides = facts.name, facts.task, facts.names, tuple(facts.strides)
        # A Parameter, so that whoever asks a network for its device and its precision gets an answer.
        self.anchors = nn.Parameter(torch.tensor(facts.anchors), requires_grad=False)
        self.session = open_session(proto, path, threads)
        self.width = proto.graph.output[0].type.tensor_type.shape.dim[2].dim_value  # of a row of the output
        self.eval()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.names)

    @property
    def coefficients(self) -> int:
        """The number of mask coefficients of a box, 0 without masks."""
        return self.width - 5 - self.classes

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the torch model gives in eval mode for `images` (N, 3, H, W), floats in 0..1."""
        check_image_size(images, max(self.strides))
        size, given = self.size, tuple(images.shape[2:])
        if size is not None and given != (size, size):
            raise ValueError(f"{self.path} was written for images of {size}x{size} pixels, got {given[0]}x{given[1]}")
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        outputs = [torch.from_numpy(array) for array in self.session.run(None, {"images": pixels})]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def extra_repr(self) -> str:
        """Return what the file holds, in words."""
        size = "any size" if self.size is None else f"{self.size} pixels"
        return f"{self.name}, {self.classes} classes, {size}, {self.facts.storage}"


def load_onnx(path: Path | str, *, threads: int | None = None) -> Predictor:
    """Return the `Predictor` in the ONNX file at `path`, on `threads` threads (None: as many as torch has).

    Raises ValueError, one line that names the file, where it is damaged or not oscillab's.
    """
    try:
        return Predictor(path, threads=threads)
    except (IndexError, TypeError, RuntimeError) as error:  # metadata or outputs that fit no detector
        raise ValueError(f"{path}: is damaged ({' '.join(str(error).split()):.150})") from error


def open_session(proto: onnx.ModelProto, path: Path | str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Return the onnxruntime session of a ModelProto."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise ValueError(f"{path}: onnxruntime cannot run it: {' '.join(str(error).split()):.200}") from error


def open_detector(path: Path | str) -> Detector | Predictor:
    """Return what detects, in eval mode: an exported ONNX file as a `Predictor`, every other file as a `Detector`."""
    return load_onnx(path) if Path(path).suffix == ".onnx" else load(path)

"""What is in an ONNX file, and is it whole?

Everything that can be wrong with a file is looked at before onnxruntime does, so that an error is one line that says what.
"""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from .facts import OPSETS, read_facts
from .storage import states_of


def read(path):
    """The ModelProto at `path`; raises ValueError where it is no whole ONNX file that this program can run."""
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
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split()):.200}") from error
    return proto


def find_problem(proto):
    """What is wrong with a ModelProto, in words; None if nothing is."""
    if not proto.graph.node:
        return "holds no network: it is no ONNX file, or was cut short"
    opset = next((entry.version for entry in proto.opset_import if not entry.domain), None)
    if opset not in OPSETS:
        return f"its opset must be {OPSETS[0]}..{OPSETS[-1]}, got {'none' if opset is None else opset}"
    outside = next((t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL), None)
    if outside:
        return f"tensor {outside!r} lies in another file, which is not read"
    known = {tensor.name for tensor in proto.graph.initializer} | {value.name for value in proto.graph.input} | {""}
    for node in proto.graph.node:
        missing = next((name for name in node.input if name not in known), None)
        if missing is not None:
            return f"tensor {missing!r}, which {node.op_type} {node.name} reads, is missing".replace("  ", " ")
        known.update(node.output)
    return None


def facts_of(proto, path):
    """The `Facts` of a ModelProto."""
    try:
        return read_facts({entry.key: entry.value for entry in proto.metadata_props})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def integer_states(path):
    """Layer -> the integer states of its weights, int8 in their shape, as the file at `path` stores them."""
    proto = read(path)
    layers = facts_of(proto, path).bits
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    return {layer: states_of(tensors[f"{layer}.weight"]) for layer in layers}

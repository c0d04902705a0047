"""Collect the nodes and constants of an ONNX graph, integers of any width included.

ONNX has whole numbers of 4, 8 and 16 bits. States of 2 to 4 bits lie in INT4 or UINT4, two in a byte, the lower half
first; states of 5 to 8 bits in INT8 or UINT8. A 3-bit weight thus takes 4 bits in a file, and the file says so.
"""

from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

INTEGERS: dict[tuple[int, bool], int] = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}
STORED_BITS: dict[int, int] = {element: bits for (bits, _), element in INTEGERS.items()}


class Graph:
    """Nodes in the order in which they run, and constants by name.

    A node's output is a name; whoever reads it gives that name. Names that people look for (a layer's weights, its
    quantized input, its output) are the layer's own; others are numbered.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.kept: list[str] = []  # layers whose BatchNorm or factor stays an operation of its own

    def add(
        self, operator: str, inputs: list[str], *, output: str | None = None, name: str | None = None, **attributes: Any
    ) -> str:
        """Add a node and return the name of its output."""
        given = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [given], name=name, **attributes))
        return given

    def split(self, x: str, parts: str, count: int) -> list[str]:
        """Split `x` along its last axis and return the names of the `count` parts."""
        names = [f"v{len(self.nodes)}.{part}" for part in range(count)]
        self.nodes.append(helper.make_node("Split", [x, parts], names, axis=-1))
        return names

    def constant(self, name: str, value: Any) -> str:
        """Add a TensorProto or an array, floats in single precision, and return `name`. Equal names are one constant.

        Raises ValueError for numbers that are not finite.
        """
        if not isinstance(value, TensorProto):
            array = np.asarray(value)
            with np.errstate(over="ignore"):  # what is too large is refused below
                array = array.astype(np.float32) if array.dtype == np.float64 else array
            if not np.isfinite(array).all():
                raise ValueError(f"{name!r} holds numbers that are not finite: such a network cannot be exported")
            value = numpy_helper.from_array(array, name)
        known = self.constants.setdefault(name, value)
        if known.SerializeToString() != value.SerializeToString():
            raise ValueError(f"two different constants of the graph are called {name!r}")
        return name

    def operator_of(self, name: str) -> str | None:
        """Return the operator whose node gives the value of that name; None for an input."""
        return next((node.op_type for node in reversed(self.nodes) if name in node.output), None)

    def finish(self, name: str, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> GraphProto:
        """Return the GraphProto with those inputs and outputs."""
        return helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))


def element_type(bits: int, *, signed: bool = True) -> int:
    """Return ONNX's number of the smallest type that holds states of `bits` (2..8) bits.

    >>> TensorProto.DataType.Name(element_type(3)), TensorProto.DataType.Name(element_type(8, signed=False))
    ('INT4', 'UINT8')
    """
    return INTEGERS[4 if bits <= 4 else 8, signed]


def limits(element: int) -> tuple[int, int]:
    """Return the lowest and the highest whole number of an integer type.

    >>> limits(TensorProto.INT4), limits(TensorProto.UINT8)
    ((-8, 7), (0, 255))
    """
    bits, signed = next(key for key, value in INTEGERS.items() if value == element)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def integer_tensor(name: str, states: np.ndarray, element: int) -> TensorProto:
    """Return the TensorProto of whole numbers, packed as ONNX has it; ValueError where one does not fit the type."""
    low, high = limits(element)
    if states.size and (states.min() < low or states.max() > high):
        kind = TensorProto.DataType.Name(element)
        raise ValueError(f"{name}: states {states.min()}..{states.max()} do not fit {kind}, which holds {low}..{high}")
    return numpy_helper.from_array(np.asarray(states).astype(helper.tensor_dtype_to_np_dtype(element)), name)


def states_of(tensor: TensorProto) -> np.ndarray:
    """Return the whole numbers of an integer TensorProto as int8 (uint8 for UINT8), in its shape."""
    return numpy_helper.to_array(tensor).astype(np.uint8 if tensor.data_type == TensorProto.UINT8 else np.int8)


def byte_count(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's values take in the file."""
    if tensor.data_type in STORED_BITS:
        return -(-int(np.prod(tensor.dims)) * STORED_BITS[tensor.data_type] // 8)
    return numpy_helper.to_array(tensor).nbytes

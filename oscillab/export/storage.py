"""How do integer states of any width get into ONNX's types, and back?

ONNX has whole numbers of 4, 8 and 16 bits. States of 2 to 4 bits lie in INT4 or UINT4, two in a byte, the lower half
first; states of 5 to 8 bits in INT8 or UINT8. A 3-bit weight thus takes 4 bits in a file, and the file says so.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

INTEGERS = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}
STORED_BITS = {element_type: bits for (bits, _), element_type in INTEGERS.items()}


def element_type(bits, *, signed=True):
    """ONNX's number of the smallest type that holds states of `bits` (2..8) bits.

    >>> TensorProto.DataType.Name(element_type(3)), TensorProto.DataType.Name(element_type(8, signed=False))
    ('INT4', 'UINT8')
    """
    return INTEGERS[4 if bits <= 4 else 8, signed]


def limits(element):
    """The lowest and the highest whole number of an integer type.

    >>> limits(TensorProto.INT4), limits(TensorProto.UINT8)
    ((-8, 7), (0, 255))
    """
    bits, signed = next(key for key, value in INTEGERS.items() if value == element)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def integer_tensor(name, states, element):
    """The TensorProto of whole numbers, packed as ONNX has it; raises ValueError where one does not fit the type."""
    low, high = limits(element)
    if states.size and (states.min() < low or states.max() > high):
        kind = TensorProto.DataType.Name(element)
        raise ValueError(f"{name}: states {states.min()}..{states.max()} do not fit {kind}, which holds {low}..{high}")
    return numpy_helper.from_array(np.asarray(states).astype(helper.tensor_dtype_to_np_dtype(element)), name)


def states_of(tensor):
    """The whole numbers of an integer TensorProto as int8 (uint8 for UINT8), in its shape."""
    wide = np.uint8 if tensor.data_type == TensorProto.UINT8 else np.int8
    return numpy_helper.to_array(tensor).astype(wide)


def byte_count(tensor):
    """The bytes that a tensor's values take in the file."""
    if tensor.data_type in STORED_BITS:
        return -(-int(np.prod(tensor.dims)) * STORED_BITS[tensor.data_type] // 8)
    return numpy_helper.to_array(tensor).nbytes

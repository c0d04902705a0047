"""The growing graph: unique names, shared constants, and integer states packed into bytes worked out by hand."""

import numpy as np
import pytest
from onnx import TensorProto

from oscillab.export.graph import Graph, byte_count, element_type, integer_tensor, limits, states_of


def test_names_are_unique_and_constants_shared():
    """Oracle: ONNX's rule that every value has one maker; equal constants of one name are one tensor."""
    graph = Graph()
    a = graph.add("Relu", ["x"])
    parts = graph.split(a, graph.constant("parts", np.int64([1, 2])), 2)
    b = graph.add("Relu", [a], output="y")
    assert len({a, b, *parts}) == 4 and b == "y"
    assert graph.constant("parts", np.int64([1, 2])) == "parts" and len(graph.constants) == 1
    assert [graph.operator_of(name) for name in ("x", a, parts[1])] == [None, "Relu", "Split"]


def test_one_name_means_one_constant_in_single_precision():
    """Oracle: a second tensor under a taken name would silently replace the first; ONNX's number 1 is FLOAT."""
    graph = Graph()
    graph.constant("s", 0.5)
    with pytest.raises(ValueError, match="two different constants of the graph are called 's'"):
        graph.constant("s", 0.25)
    assert [graph.constants[graph.constant(str(v), v)].data_type for v in (0.5, np.float64([1, 2]))] == [1, 1]


def test_four_bits_lie_two_in_a_byte_the_lower_half_first():
    """Oracle: two's complement by hand: -8 is 8, 7 is 7, -1 is 15 (f), 0 is 0, 3 is 3; the last half is empty."""
    tensor = integer_tensor("w", np.int8([-8, 7, -1, 0, 3]), TensorProto.INT4)
    assert tensor.raw_data == bytes([0x78, 0x0F, 0x03])
    assert byte_count(tensor) == 3 and list(tensor.dims) == [5]


TYPES = [(4, True, -8, 7), (4, False, 0, 15), (8, True, -128, 127), (8, False, 0, 255)]


@pytest.mark.parametrize("bits, signed, low, high", TYPES)
def test_every_state_of_a_type_comes_back(bits, signed, low, high):
    """Oracle: packing and unpacking are each other's inverse, for each number that the type has."""
    element = element_type(bits, signed=signed)
    states = np.arange(low, high + 1)[:-1].reshape(-1, 3)  # an odd number of them, in two dimensions
    assert limits(element) == (low, high)
    assert np.array_equal(states_of(integer_tensor("w", states, element)), states)


@pytest.mark.parametrize("bits, stored", [(2, 4), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_widths_between_take_the_next_type(bits, stored):
    """Oracle: ONNX has 4 and 8 bits, nothing between."""
    assert limits(element_type(bits)) == (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1)
    with pytest.raises(ValueError, match=r"w: states 0..8 do not fit INT4, which holds -8..7"):
        integer_tensor("w", np.array([0, 8]), TensorProto.INT4)

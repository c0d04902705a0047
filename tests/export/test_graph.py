"""The growing graph: names are unique, constants are shared where they are equal."""

import numpy as np
import pytest

from oscillab.export.graph import Graph


def test_names_are_unique_and_constants_shared():
    """Oracle: ONNX's rule that every value has one maker; equal constants of one name are one tensor."""
    graph = Graph()
    a = graph.add("Relu", ["x"])
    parts = graph.add("Split", [a, graph.constant("parts", np.int64([1, 2]))], outputs=2)
    b = graph.add("Relu", [a], output="y")
    assert len({a, b, *parts}) == 4 and b == "y"
    assert graph.constant("parts", np.int64([1, 2])) == "parts" and len(graph.constants) == 1
    assert [graph.operator_of(name) for name in ("x", a, parts[1])] == [None, "Relu", "Split"]


def test_one_name_means_one_constant():
    """Oracle: a second tensor under a name that is taken would silently replace the first."""
    graph = Graph()
    graph.constant("s", 0.5)
    with pytest.raises(ValueError, match="two different constants of the graph are called 's'"):
        graph.constant("s", 0.25)


def test_floats_are_single_precision():
    """Oracle: the type of the constant as ONNX numbers it (1 is FLOAT)."""
    graph = Graph()
    assert [graph.constants[graph.constant(str(v), v)].data_type for v in (0.5, np.float64([1, 2]))] == [1, 1]

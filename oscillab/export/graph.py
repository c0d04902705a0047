"""What is an ONNX graph while it grows?

Nodes in the order in which they run, and constants by name. A node's output is a name; whoever reads it gives that name.
Names that people look for (a layer's weights, its quantized input, its output) are the layer's own; others are numbered.
"""

import numpy as np
from onnx import helper, numpy_helper


class Graph:
    """Nodes and constants, collected; `add` and `constant` give back the name of what they made."""

    def __init__(self):
        self.nodes = []
        self.constants = {}

    def add(self, operator, inputs, *, output=None, name=None, outputs=1, **attributes):
        """The name of the output of a new node (a list of names if `outputs` is above 1)."""
        names = [output or self._fresh()] if outputs == 1 else [self._fresh(i) for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, name, value):
        """The name of a constant: a TensorProto, or an array, floats in single precision. Equal names are one constant."""
        if isinstance(value, (float, np.floating)) or getattr(value, "dtype", None) == np.float64:
            value = np.float32(value)
        tensor = numpy_helper.from_array(np.asarray(value), name) if not hasattr(value, "SerializeToString") else value
        known = self.constants.setdefault(name, tensor)
        if known.SerializeToString() != tensor.SerializeToString():
            raise ValueError(f"two different constants of the graph are called {name!r}")
        return name

    def operator_of(self, name):
        """The operator whose node gives the value of that name; None for an input."""
        return next((node.op_type for node in reversed(self.nodes) if name in node.output), None)

    def finish(self, name, inputs, outputs):
        """The GraphProto with those inputs and outputs, value infos."""
        return helper.make_graph(self.nodes, name, inputs, outputs, list(self.constants.values()))

    def _fresh(self, part=0):
        """A name that no other value has."""
        return f"v{len(self.nodes)}" if part == 0 else f"v{len(self.nodes)}.{part}"

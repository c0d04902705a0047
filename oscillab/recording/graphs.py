"""Which weights does a graph quantize, when it has no layers any more?

torchao's pt2e turns a network into a graph of single operations. `record(graph_weights(graph), optimizer)` finds the
fake-quantize modules in it that depend on parameters alone, and shows each to the recorder as a layer.
"""

import torch
from torch import nn

from oscillab.recording.adapters import adapt


def graph_weights(graph: torch.fx.GraphModule) -> nn.Module:
    """The quantized weights of a graph prepared by torchao's pt2e, as a module to give to `record`.

    Its children are named after the weights, dots replaced by underscores. A weight that is scaled by its batch norm
    before it is quantized counts as scaled. The graph itself stays as it is. Raises ValueError when there is none.
    """
    found = nn.Module()
    for node in graph.graph.nodes:
        is_quantizer = node.op == "call_module" and hasattr(graph.get_submodule(node.target), "quant_min")
        if is_quantizer and (names := sources(node.args[0])):
            name = max(names, key=lambda n: graph.get_parameter(n).numel())
            found.add_module(name.replace(".", "_"), GraphWeight(graph, node, names))
    if not list(found.children()):
        raise ValueError("this graph quantizes no weight; prepare it first (prepare_qat_pt2e)")
    return adapt(found)


class GraphWeight(nn.Module):
    """One quantized weight of a graph: `weight` as it is before rounding, `weight_fake_quant` what rounds it."""

    def __init__(self, graph, node, names):
        super().__init__()
        self.weight_fake_quant = graph.get_submodule(node.target)
        self.sources = nn.ParameterList(graph.get_parameter(name) for name in names)
        self.value = lambda: evaluate(graph, node.args[0])

    @property
    def weight(self):
        """The weight as the graph hands it to the quantizer."""
        return self.value()


def sources(node) -> list[str]:
    """The names of the parameters that a node of a graph is computed from; empty where it depends on the input."""
    before = [*walk(node)]
    if any(each.op not in ("get_attr", "call_function") for each in before):
        return []
    return [each.target for each in before if each.op == "get_attr" and is_parameter(each)]


def walk(node):
    """A node of a graph and all that it is computed from."""
    yield node
    for each in node.all_input_nodes:
        yield from walk(each)


def is_parameter(node) -> bool:
    """Whether a `get_attr` node of a graph reads a parameter."""
    return node.target in dict(node.graph.owning_module.named_parameters())


def evaluate(graph, node):
    """The value of a node that depends on parameters and buffers alone."""
    if node.op == "get_attr":
        module, _, name = node.target.rpartition(".")
        return getattr(graph.get_submodule(module), name)
    take = lambda each: evaluate(graph, each)  # noqa: E731
    return node.target(*torch.fx.map_arg(node.args, take), **torch.fx.map_arg(node.kwargs, take))

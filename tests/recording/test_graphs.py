"""The weights in a graph of torchao's pt2e, against the graph's own fake-quantize modules."""

import pytest
import torch
from torch import nn

from oscillab.recording.graphs import graph_weights
from oscillab.recording.recorder import record

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def graph():
    """A convolution with batch norm and one without, prepared for QAT with weights per channel."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason="torchao is not installed")
    xnnpack = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer", reason="torchao has no XNNPACK quantizer")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    exported = torch.export.export(model, (IMAGES,)).module()
    prepared = pt2e.prepare_qat_pt2e(exported, xnnpack.XNNPACKQuantizer().set_global(config))
    prepared(IMAGES)
    return prepared


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_weights_of_a_graph(graph):
    """Oracle: what each fake-quantize module gave in the graph's own forward pass, divided by its scale; then flips."""
    given = {}
    for name, module in graph.named_modules():
        if hasattr(module, "fake_quant_enabled"):
            module.register_forward_hook(lambda m, inputs, output, name=name: given.__setitem__(name, output.detach()))
            module.disable_observer()
    view = graph_weights(graph)
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    graph(IMAGES)
    graph.load_state_dict(before)  # the running variance moved, and with it the weights that are scaled by it
    layers = dict(view.named_children())
    assert set(layers) == {"0_weight", "3_weight"}
    for layer in layers.values():
        name = next(n for n, m in graph.named_modules() if m is layer.weight_fake_quant)
        states = given[name] / layer.weight_fake_quant.scale.reshape(-1, 1, 1, 1)
        torch.testing.assert_close(layer.integer_state().float(), states, rtol=0, atol=1e-3)
        assert layer.integer_state().unique().numel() > 20 and layer.bits == 8
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.5)
    with record(view, optimizer) as recorder:
        for _ in range(4):
            graph(IMAGES).square().mean().backward()
            optimizer.step()
        assert recorder.recording()["layer_flip_count"].sum() > 0


def test_a_graph_without_quantizers():
    """Oracle: the sentence a user reads."""
    plain = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 2, 1)))
    with pytest.raises(ValueError, match="this graph quantizes no weight"):
        graph_weights(plain)

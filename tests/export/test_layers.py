"""Blocks in ONNX against the torch blocks themselves, and what is refused."""

import pytest
import torch
from torch import nn

from oscillab.export.convolution import PerChannel
from oscillab.export.layers import emit_layer
from oscillab.yolo import blocks

torch.manual_seed(0)
# Sums of up to 200 products in single precision, in another order
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PARTS = [
    *(nn.SiLU(), nn.LeakyReLU(0.1), nn.ReLU(), nn.Sigmoid(), nn.Identity(), nn.Upsample(scale_factor=2)),
    *(nn.MaxPool2d(3, 2, 1), blocks.Pool(6), blocks.Pool(6, 5, 1), blocks.Upsample(6)),
]
BLOCKS = [
    *(blocks.Conv(6, 4, 3, 2), blocks.Bottleneck(6), blocks.Bottleneck(6, False), blocks.C3(6, 8, 2)),
    *(blocks.SPPF(6, 8), blocks.SPPCSPC(6, 4), blocks.RepConv(6, 6), nn.Sequential(nn.BatchNorm2d(6), nn.SiLU())),
]


@pytest.mark.parametrize("layer", [*PARTS, *BLOCKS], ids=lambda layer: type(layer).__name__)
def test_layers_compute_what_torch_computes(layer, run_graph):
    """Oracle: the torch layer in eval mode, with BatchNorm statistics that are not those of a new network, at odd sizes."""
    generator = torch.Generator().manual_seed(1)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    x = torch.randn(2, 6, 11, 13, generator=generator)
    with torch.no_grad():
        wanted = layer.eval()(x)
    y, _ = run_graph(lambda graph, name: emit_layer(graph, PerChannel(), "a", layer, name), x)
    torch.testing.assert_close(y, wanted, **CLOSE)


def test_a_list_of_maps_is_joined_in_its_order(run_graph):
    """Oracle: torch.cat."""
    x = torch.randn(1, 2, 3, 3)

    def emit(graph, name):
        return emit_layer(graph, PerChannel(), "a", blocks.Concat([2, 2]), [graph.add("Relu", [name]), name])

    assert torch.equal(run_graph(emit, x)[0], torch.cat((x.relu(), x), 1))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Calling(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x)


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Hardswish()

    def forward(self, x):
        return self.act(x)


@pytest.mark.parametrize("layer, message", [
    (Unknown(), r"layer 'a.act' cannot be exported: Hardswish is none of Identity, LeakyReLU, MaxPool2d"),
    (nn.Hardswish(), r"layer 'a' \(Hardswish\) cannot be exported: it calls hardswish"),
    (Calling(), r"layer 'a' \(Calling\) cannot be exported: it calls fft_fft"),
    (Branching(), r"layer 'a' \(Branching\) cannot be exported: symbolically traced variables cannot be used"),
    (nn.MaxPool2d(3, dilation=2), "neither dilation nor ceil_mode"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "nearest, by a whole factor"),
    (nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")), "layer 'a.0': padding must be zeros"),
])  # fmt: skip
def test_what_has_no_translation_is_refused_by_name(layer, message, run_graph):
    """Oracle: one line that names the layer and what is not known."""
    with pytest.raises(ValueError, match=message) as caught:
        run_graph(lambda graph, name: emit_layer(graph, PerChannel(), "a", layer, name), torch.zeros(1, 6, 9, 9))
    assert "\n" not in str(caught.value)

"""Blocks in ONNX against torch, decoding against the official code, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.export.layers import emit_layer
from oscillab.export.write import export_onnx
from oscillab.provenance import SHIPPED
from oscillab.yolo import blocks, checkpoint

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
    y, _ = run_graph(lambda graph, name: emit_layer(graph, "a", layer, name), x)
    torch.testing.assert_close(y, wanted, **CLOSE)


def test_a_list_of_maps_is_joined_in_its_order(run_graph):
    """Oracle: torch.cat."""
    x = torch.randn(1, 2, 3, 3)

    def emit(graph, name):
        return emit_layer(graph, "a", blocks.Concat([2, 2]), [graph.add("Relu", [name]), name])

    assert torch.equal(run_graph(emit, x)[0], torch.cat((x.relu(), x), 1))


def custom(forward):
    """A layer with that forward pass."""
    return type("Custom", (nn.Module,), {"forward": lambda self, x: forward(x)})()


@pytest.mark.parametrize("layer, message", [
    (nn.Sequential(nn.Hardswish()), r"layer 'a.0' cannot be exported: Hardswish is none of Identity, LeakyReLU, MaxPool2d"),
    (nn.Hardswish(), r"layer 'a' \(Hardswish\) cannot be exported: it calls hardswish"),
    (custom(torch.fft.fft), r"layer 'a' \(Custom\) cannot be exported: it calls fft_fft"),
    (custom(lambda x: x if x.sum() > 0 else -x), r"layer 'a' \(Custom\) cannot be exported: symbolically traced variables"),
    (nn.MaxPool2d(3, dilation=2), "neither dilation nor ceil_mode"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "nearest, by a whole factor"),
    (nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")), "layer 'a.0': padding must be zeros"),
])  # fmt: skip
def test_what_has_no_translation_is_refused_by_name(layer, message, run_graph):
    """Oracle: one line that names the layer and what is not known."""
    with pytest.raises(ValueError, match=message) as caught:
        run_graph(lambda graph, name: emit_layer(graph, "a", layer, name), torch.zeros(1, 6, 9, 9))
    assert "\n" not in str(caught.value)


def test_decoded_outputs_are_the_official_ones(shared, tmp_path, outputs_of):
    """Oracle: the recorded output of the official code, real weights on a real picture; 1e-3 pixels at most."""
    path = export_onnx(checkpoint.load(shared / "coco" / "yolov5n.pt"), tmp_path / "float.onnx").path
    official = np.load(shared / "oracle" / "real-yolov5n.npz")
    given = outputs_of(path, torch.from_numpy(official["pixels"]).float() / 255)[0]
    torch.testing.assert_close(given, torch.from_numpy(official["decoded"]), rtol=1e-4, atol=1e-3)


def test_masks_are_the_official_ones(shared, tmp_path, outputs_of):
    """Oracle: as above. These weights were rounded to half precision, which alone moves boxes by 0.03 pixels and the rest
    by 0.001 (root mean square)."""
    path = export_onnx(checkpoint.load(shared / "coco" / "yolov5n-seg-fused.pt"), tmp_path / "float.onnx").path
    official = np.load(shared / "oracle" / "real-yolov5n-seg.npz")
    decoded, prototypes = outputs_of(path, torch.from_numpy(official["pixels"]).float() / 255)
    difference = decoded - torch.from_numpy(official["decoded"])
    for part, limit in ((slice(0, 4), 0.03), (slice(4, 85), 1e-4), (slice(85, 117), 1e-3)):
        assert difference[..., part].square().mean().sqrt() < limit
    assert (prototypes - torch.from_numpy(official["proto"])).square().mean().sqrt() < 1e-3


@pytest.mark.parametrize("name", ["shipped", "yolov7-tiny-deploy", "yolov7-tiny"])
@pytest.mark.parametrize("height, width", [(64, 96), (96, 32)])
def test_free_sizes_need_not_be_square(name, height, width, images, calibrated, tmp_path, outputs_of):
    """Oracle: the torch network, to a hundredth of a pixel; columns and rows may not be mixed up, batches neither."""
    model = checkpoint.load(SHIPPED) if name == "shipped" else calibrated(name)
    images = images[:2, :, :height, :width].contiguous()
    path = export_onnx(model, tmp_path / "float.onnx").path
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(path, images)[0], model(images), rtol=1e-4, atol=1e-2)

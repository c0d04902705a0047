"""Oracles: the network before folding, the official outputs, the official counts after folding, refusals in words."""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import zoo
from oscillab.yolo.graph import fuse, is_fused

# Parameters after the official fusing, which leaves YOLOv7-seg its offsets and factors; here they go too.
FUSED = {
    "yolov5n": 1_867_405,
    "yolov5s": 7_225_885,
    "yolov5m": 21_172_173,
    "yolov5l": 46_533_693,
    "yolov5x": 86_705_005,
    "yolov5n-seg": 1_986_637,
    "yolov5s-seg": 7_611_485,
    "yolov5m-seg": 21_971_597,
    "yolov5l-seg": 47_894_397,
    "yolov5x-seg": 88_774_445,
    "yolov7-tiny": 6_219_709,
    "yolov7-tiny-deploy": 6_219_709,
    "yolov7": 36_905_341,
    "yolov7-deploy": 36_905_341,
    "yolov7-seg": 38_268_602 - (256 + 512 + 1024) - 3 * 255,
}


def lively(name, classes=3):
    """A model in float64 and eval mode whose BatchNorms and implicit numbers are random, not at their start."""
    torch.manual_seed(0)
    model = zoo.build(name, classes).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.8, 1.6), layer.bias.normal_(0, 0.1)
                layer.running_mean.normal_(0, 0.1), layer.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-seg", "yolov7-tiny", "yolov7", "yolov7-seg"])
def test_a_fused_network_computes_the_same(name):
    """Oracle: the network before, in float64, in both modes; rounding alone is left, 1e-9 of pixels."""
    model = lively(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(1, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(x), fuse(model)(x)
        pairs = zip(expected, found, strict=True) if model.task == "segment" else [(expected, found)]
        for first, second in pairs:
            torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_network_has_the_official_number_of_parameters(name):
    """Oracle: the official counts; no BatchNorm and no implicit number is left."""
    fused = zoo.blueprint(name, 80, fused=True)
    assert sum(p.numel() for p in fused.parameters()) == FUSED[name]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in fused.modules())
    assert is_fused(fused) and not is_fused(zoo.blueprint(name, 80))


def test_fused_keys_are_official(shared):
    """Oracle: the layout of real fused weights, in their order, and the official name of a merged RepConv."""
    real = torch.load(shared / "coco" / "yolov5n-seg-fused.pt", weights_only=True)
    found = zoo.blueprint("yolov5n-seg", 80, fused=True).state_dict()
    assert [(key, value.shape) for key, value in found.items()] == [(key, value.shape) for key, value in real.items()]
    assert "model.102.rbr_reparam.weight" in zoo.blueprint("yolov7", 80, fused=True).state_dict()


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7"])
def test_the_official_output_survives_folding(name, shared, rule, filled):
    """Oracle: the official code's output of the training graph; 1e-4 relative, in float32."""
    expected = np.load(shared / "oracle" / f"{name}.npz")["decoded"]
    with torch.no_grad():
        found = fuse(filled(name))(torch.from_numpy(rule.image())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_folded_is_refused():
    """Oracle: the message names what was given."""

    class Quantized(nn.Conv2d):
        pass

    model = zoo.build("yolov7-tiny", 1)
    with pytest.raises(ValueError, match="this yolov7-tiny is fused already"):
        fuse(fuse(model))
    model.model[5].conv.__class__ = Quantized
    with pytest.raises(ValueError, match="only a float network can be folded, but layer 'model.5.conv' is a Quant"):
        fuse(model)

"""Oracles: the official networks' key lists, shapes, counts, layer tables and outputs."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import zoo

# parameters, state_dict keys, Conv2d: from the official code at 80 classes
COUNTS = {
    "yolov7-tiny": (6_228_762, 344, 58),
    "yolov7-tiny-deploy": (6_227_101, 338, 58),
    "yolov7": (37_622_682, 566, 95),
    "yolov7-deploy": (37_620_125, 560, 95),
    "yolov7-seg": (38_292_218, 565, 95),
}
# The official table of the released YOLOv7-tiny is recorded; the training graph's head has more parameters.
TABLES = {"yolov7-tiny-deploy": "yolov7-tiny", "yolov7": "yolov7", "yolov7-seg": "yolov7-seg"}


def on_meta(name):
    """The model without memory for its weights."""
    with torch.device("meta"):
        return zoo.build(name)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_official(name):
    """Oracle: the counts that the official code gives."""
    model = on_meta(name)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    assert (sum(p.numel() for p in model.parameters()), len(model.state_dict()), convolutions) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_state_dict_keys_shapes_types_and_order_are_official(name, shared):
    """Oracle: the layout of the official state_dict."""
    layout = json.loads((shared / "oracle" / "keys" / f"{name}.json").read_text())
    assert [[key, list(value.shape), str(value.dtype)] for key, value in on_meta(name).state_dict().items()] == layout


@pytest.mark.parametrize("name", TABLES)
def test_every_row_reads_what_the_official_one_reads(name, shared):
    """Oracle: the official layer table: of each row its number, the rows it reads, and its parameters."""
    lines = (shared / "oracle" / "layers" / f"{TABLES[name]}.txt").read_text().splitlines()
    model = on_meta(name)
    rows = [line for line in lines if not line.startswith("save")]
    assert len(rows) == len(model.model)
    for index, (line, source, layer) in enumerate(zip(rows, model.sources, model.model, strict=True)):
        before = line.split(" -> ")[0].rsplit(maxsplit=2)  # number and sources, kind, parameters
        read = json.loads(before[0].split(maxsplit=1)[1])
        absolute = [s if s >= 0 else index + s for s in (read if isinstance(read, list) else [read])]
        assert list(source if isinstance(source, tuple) else (source,)) == absolute
        assert sum(p.numel() for p in layer.parameters()) == int(before[2])


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7-tiny-deploy", "yolov7"])
def test_decoded_outputs_equal_the_official_ones(name, shared, rule, filled):
    """Oracle: the official code's output for the same weights; 1e-4 relative, where float32 gives about 4e-7."""
    expected = np.load(shared / "oracle" / f"{name}.npz")["decoded"]
    with torch.no_grad():
        found = filled(name)(torch.from_numpy(rule.image())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7-seg"])
def test_every_parameter_gets_a_gradient(name):
    """Oracle: none may be left out of the graph but the factors of YOLOv7-seg, which are idle in the official code."""
    torch.manual_seed(0)
    model = zoo.build(name, 2).train()
    outputs = model(torch.rand(2, 3, 32, 32))
    raw = [*outputs[0], outputs[1]] if model.task == "segment" else outputs
    sum(x.square().mean() for x in raw).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ([f"model.105.im.{level}.implicit" for level in range(3)] if model.task == "segment" else [])


def test_the_end_layers_are_convolutions_of_the_model():
    """Oracle: the facts: the first convolution and the three 1x1 convolutions of the last row."""
    for name, last in (("yolov7-tiny", 77), ("yolov7", 105), ("yolov7-seg", 105)):
        model = on_meta(name)
        assert model.end_layers == ["model.0.conv", *(f"model.{last}.m.{level}" for level in range(3))]
        assert all(isinstance(model.get_submodule(layer), nn.Conv2d) for layer in model.end_layers)


def test_yolov7_has_anchors_of_its_own():
    """Oracle: the published anchor sizes."""
    assert zoo.build("yolov7-tiny").anchors.flatten().tolist() == zoo.build("yolov5n").anchors.flatten().tolist()
    own = [12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401]
    assert zoo.build("yolov7", 1).anchors.flatten().tolist() == own

"""Oracles: the official networks: keys, shapes, counts, layer tables, outputs and costs; the published figures."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import tables, zoo
from oscillab.yolo.zoo import PUBLISHED, count_gflops, count_parameters, entry

# parameters, state_dict keys, Conv2d: from the official code at 80 classes
COUNTS = {
    "yolov5n": (1_872_157, 349, 60),
    "yolov5s": (7_235_389, 349, 60),
    "yolov5m": (21_190_557, 481, 82),
    "yolov5l": (46_563_709, 613, 104),
    "yolov5x": (86_749_405, 745, 126),
    "yolov5n-seg": (1_991_549, 367, 63),
    "yolov5s-seg": (7_621_277, 367, 63),
    "yolov5m-seg": (21_990_397, 499, 85),
    "yolov5l-seg": (47_924_957, 631, 107),
    "yolov5x-seg": (88_819_517, 763, 129),
    "yolov7-tiny": (6_228_762, 344, 58),
    "yolov7-tiny-deploy": (6_227_101, 338, 58),
    "yolov7": (37_622_682, 566, 95),
    "yolov7-deploy": (37_620_125, 560, 95),
    "yolov7-seg": (38_292_218, 565, 95),
}
ROW_PARAMETERS = [
    *(1760, 4672, 4800, 18560, 29184, 73984, 156928, 295424, 296448, 164608, 33024, 0, 0, 90880, 8320, 0, 0),
    *(22912, 36992, 0, 74496, 147712, 0, 296448, 115005),
]


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


def test_every_row_has_the_official_number_of_parameters():
    """Oracle: the official layer tables of YOLOv5n and YOLOv5n-seg, whose heads alone differ."""
    for name, head in (("yolov5n", 115_005), ("yolov5n-seg", 234_397)):
        counts = [sum(p.numel() for p in row.parameters()) for row in on_meta(name).model]
        assert counts == [*ROW_PARAMETERS[:-1], head]


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s", "yolov7-tiny", "yolov7-tiny-deploy", "yolov7"])
def test_decoded_outputs_equal_the_official_ones(name, shared, rule, filled):
    """Oracle: the official code's output for the same weights; 1e-4 relative, where float32 gives about 4e-7."""
    expected = np.load(shared / "oracle" / f"{name}.npz")["decoded"]
    with torch.no_grad():
        found = filled(name)(torch.from_numpy(rule.image())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_segmentation_outputs_equal_the_official_ones(shared, rule, filled):
    """Oracle: the official code's decoded boxes, mask coefficients and prototypes for the same weights, as above."""
    expected = np.load(shared / "oracle" / "yolov5n-seg.npz")
    with torch.no_grad():
        decoded, prototypes = filled("yolov5n-seg")(torch.from_numpy(rule.image()))
    np.testing.assert_allclose(decoded.numpy(), expected["decoded"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prototypes.numpy(), expected["proto"], rtol=1e-4, atol=1e-6)


def test_widths_and_depths_round_as_the_official_ones():
    """Oracle: by hand: 80 / 8 is whole, 0.33 * 6 = 1.98, 1.33 * 9 = 11.97; a depth of 1 stays 1."""
    assert [tables.scaled_width(64, w) for w in (0.25, 0.5, 0.75, 1.0, 1.25)] == [16, 32, 48, 64, 80]
    assert [tables.scaled_depth(n, 0.33) for n in (1, 3, 6, 9)] == [1, 1, 2, 3]
    assert [tables.scaled_depth(n, 1.33) for n in (1, 3, 6, 9)] == [1, 4, 8, 12]


# parameters, state_dict keys, Conv2d: from the official code at 80 classes
# The official table of the released YOLOv7-tiny is recorded; the training graph's head has more parameters.
TABLES = {"yolov7-tiny-deploy": "yolov7-tiny", "yolov7": "yolov7", "yolov7-seg": "yolov7-seg"}


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


# Billions of operations at 640 x 640 as the official code prints them: as built, and fused.
GFLOPS = {
    "yolov5n": (4.6, 4.5),
    "yolov5s": (16.6, 16.4),
    "yolov5m": (49.2, 48.9),
    "yolov5l": (109.6, 109.0),
    "yolov5x": (206.3, 205.5),
    "yolov5n-seg": (7.2, 7.1),
    "yolov5s-seg": (26.6, 26.4),
    "yolov5m-seg": (71.3, 70.8),
    "yolov5l-seg": (148.4, 147.7),
    "yolov5x-seg": (266.6, 265.7),
    "yolov7-tiny": (13.9, 13.7),
    "yolov7-tiny-deploy": (13.9, 13.7),
    "yolov7": (106.5, 104.5),
    "yolov7-deploy": (106.5, 104.5),
    "yolov7-seg": (144.0, 143.2),
}


@pytest.mark.parametrize("name", GFLOPS)
def test_operations_are_official(name):
    """Oracle: the official code's figures, as printed, to one place."""
    assert round(entry(name).gflops, 1) == GFLOPS[name][0]


@pytest.mark.parametrize("name", GFLOPS)
def test_operations_of_fused_networks_are_official(name):
    """Oracle: the official code's figures, as printed, to one place."""
    assert round(count_gflops(zoo.blueprint(name, 80, fused=True)), 1) == GFLOPS[name][1]


def test_operations_grow_with_the_pixels():
    """Oracle: every layer is a convolution, so that half the side is a quarter of the cost; no hook stays behind."""
    model = zoo.blueprint("yolov5n", 80)
    assert count_gflops(model, 320) == pytest.approx(count_gflops(model) / 4)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_every_model_has_its_row():
    """Oracle: the zoo's names in their order; parameters by the official code; published figures by their source."""
    rows = [entry(name) for name in zoo.MODELS]
    assert [row.name for row in rows] == list(zoo.MODELS) == list(PUBLISHED) == list(GFLOPS)
    table = {row.name: row for row in rows}
    assert (table["yolov5n"].parameters, table["yolov7-deploy"].parameters) == (1_872_157, 37_620_125)
    assert count_parameters(zoo.build("yolov5n")) == 1_872_157
    assert table["yolov5s-seg"].published == (37.6, 31.7, 640, "YOLOv5 v7.0 README")
    assert table["yolov7-tiny"].published[:3] == (35.2, None, 416)
    assert [row.task for row in rows if row.published.mask_map] == ["segment"] * 6
    assert entry("yolov7") == table["yolov7"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yolov9",), "unknown model 'yolov9', allowed are yolov5n, yolov5s, .*, yolov7-deploy, yolov7-seg"),
        (("yolov5n", 0), r"classes must be a whole number 1\.\.100000, got 0"),
        (("yolov5n", 2.0), r"classes must be a whole number 1\.\.100000, got 2.0"),
        (("yolov5n", True), r"classes must be a whole number 1\.\.100000, got True"),
        (("yolov5n", 3, ["a", "b"]), r"names must hold one name per class \(3\), got 2"),
        (("yolov5n", 10**9), r"classes must be a whole number 1\.\.100000, got 1000000000"),
    ],
)
def test_build_says_what_is_allowed(arguments, message):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=message):
        zoo.build(*arguments[:2], names=(*arguments, None, None)[2])

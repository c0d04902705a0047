"""Oracles: the official networks' key lists, shapes, counts and outputs."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import v5, zoo

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


@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
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
    assert [v5.scaled_width(64, w) for w in (0.25, 0.5, 0.75, 1.0, 1.25)] == [16, 32, 48, 64, 80]
    assert [v5.scaled_depth(n, 0.33) for n in (1, 3, 6, 9)] == [1, 1, 2, 3]
    assert [v5.scaled_depth(n, 1.33) for n in (1, 3, 6, 9)] == [1, 4, 8, 12]

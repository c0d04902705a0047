"""Bytes and operations of a file, against hand-worked layers and the published cost of YOLOv5n."""

import pytest

from oscillab.export.cost import cost
from oscillab.export.write import export_onnx
from oscillab.provenance import SHIPPED
from oscillab.yolo import checkpoint, zoo


def test_hand_worked_layers(trained):
    """Oracle: by hand, at 160 pixels. model.0 has 16·3·6·6 weights of 8 bits on 80² places; model.1 32·16·3·3 of 4 bits on
    40²; each with a scale and a bias for every channel and an input scale, 4 bytes each."""
    run = trained(4)
    layers = {layer.layer: layer for layer in cost(run.path, size=160).layers}
    first, second = layers["model.0.conv"], layers["model.1.conv"]
    assert (first.weights, first.bits, first.macs, first.bops) == (1728, 8, 1728 * 6400, 1728 * 6400 * 64)
    assert (second.weights, second.bits, second.macs) == (4608, 4, 4608 * 1600) and second.bops == 16 * second.macs
    assert first.bytes == 1728 + 4 * (16 + 16 + 1) and second.bytes == 4608 // 2 + 4 * (32 + 32 + 1)
    assert second.float_bytes == 4 * (4608 + 32)
    layer = next(layer for layer in cost(trained(3).path).layers if layer.layer == "model.1.conv")
    assert (layer.bits, layer.stored_bits, layer.bops) == (3, 4, 9 * layer.macs)  # 3-bit states lie in INT4


def test_published_operations(tmp_path):
    """Oracle: the YOLOv5 README's 4.5 GFLOPs at 640 pixels, two for a multiplication with addition."""
    path = export_onnx(zoo.build("yolov5n").eval(), tmp_path / "float.onnx").path
    found = cost(path)
    assert found.size == 640 and abs(2 * sum(layer.macs for layer in found.layers) / 1e9 - 4.5) < 0.05
    assert {layer.bits for layer in found.layers} == {32}


def test_every_byte_of_the_file_is_counted(trained, tmp_path):
    """Oracle: the size of the file; what is no layer's (graph, names, metadata) is below a tenth of it."""
    found, path = cost(trained(4).path), trained(4).path
    assert found.file_bytes == path.stat().st_size
    rest = found.file_bytes - sum(layer.bytes for layer in found.layers)
    assert 0 < found.other_bytes == rest < 0.1 * found.file_bytes
    floats = cost(export_onnx(checkpoint.load(SHIPPED), tmp_path / "float.onnx").path).layers
    assert sum(layer.bytes for layer in floats) == sum(layer.float_bytes for layer in floats)  # no scale, no BatchNorm


def test_sizes_that_do_not_fit_are_named(trained, tmp_path):
    """Oracle: the stride, and a fixed file's own size."""
    with pytest.raises(ValueError, match="size must be a multiple of the largest stride 32, got 100"):
        cost(trained(4).path, size=100)
    fixed = export_onnx(trained(4).model, tmp_path / "fixed.onnx", size=96).path
    assert cost(fixed).size == 96
    with pytest.raises(ValueError, match="was written for images of 96 pixels, got size 160"):
        cost(fixed, size=160)


def test_yolov5n_has_what_its_table_says(trained, tmp_path):
    """Oracle: the layer table. 57 SiLUs of 6 nodes each, 1 + 2 + 3 + 1 shortcuts; 60 inputs become states and floats again,
    and 60 sums get a ratio and a shift; 13 joins (8 C3, 4 rows, SPPF), 3 poolings, 2 enlargements; no BatchNorm is left. In
    the other form a SiLU has 2 nodes, and ratio and shift are in the convolution."""
    run = trained(4)
    kinds = {kind.kind: kind for kind in cost(run.path, size=160).kinds}
    other = cost(export_onnx(run.model, tmp_path / "qdq.onnx", form="qdq").path, size=160).kinds
    assert {kind.kind: kind.operations for kind in other}["activation function"] == 114
    assert "scale and shift" not in [kind.kind for kind in other]
    counts = {name: kind.operations for name, kind in kinds.items()}
    assert counts.pop("decoding") > 0
    assert counts == {
        "floats to states and back": 120,
        "convolution": 60,
        "activation function": 342,
        "scale and shift": 120,
        "shortcut": 7,
        "pooling, joining, enlarging": 18,
    }
    # channels · places: one at stride 4, two at 8, three at 16, one at 32
    assert kinds["shortcut"].numbers == 16 * 40**2 + 2 * 32 * 20**2 + 3 * 64 * 10**2 + 128 * 5**2

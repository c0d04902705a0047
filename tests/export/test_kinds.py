"""What is left in floats, against the parts of YOLOv5n that are known."""

from oscillab.export.cost import cost
from oscillab.export.write import export_onnx


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


def test_what_a_way_out_adds_is_seen(trained, tmp_path):
    """Oracle: two operations a layer for multipliers and biases; a limit on either side of a signed 3-bit grid."""
    path = export_onnx(trained(3).model, tmp_path / "model.onnx", scales="per_tensor").path
    counts = {kind.kind: kind.operations for kind in cost(path, size=64).kinds}
    assert counts["scale and shift"] == 120 and counts["limits of the grid"] == 2 * 56

"""Agreement of file and torch model, and that a file which computes something else is found out."""

import onnx
import pytest

from oscillab.export.agreement import compare
from oscillab.export.write import export_onnx


@pytest.mark.parametrize("bits", [4, 3])
def test_a_trained_network_agrees_to_rounding(bits, trained, images):
    """Oracle: the issue's limits: raw outputs within 1e-4, states differ nowhere but next to a bin edge, and those are few."""
    run = trained(bits)
    found = compare(run.model, run.path, images)
    assert found.raw_difference < 1e-4 and found.differing_elsewhere_count == 0
    assert found.differing_share <= found.near_edge_share < 1e-3
    assert found.state_count > 1_000_000


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov5n-seg"])
@pytest.mark.parametrize("bits", [4, 3])
def test_other_networks_agree_to_rounding(name, bits, calibrated, images, tmp_path):
    """Oracle: as above, with learned offsets and factors, leaky ReLUs, poolings in a row, and prototypes."""
    model = calibrated(name, bits=bits)
    written = export_onnx(model, tmp_path / "model.onnx")
    found = compare(model, written.path, images[:1])
    assert found.raw_difference < 1e-4 and found.differing_elsewhere_count == 0 and found.near_edge_share < 1e-3


@pytest.mark.parametrize("name, change", [("model.17.cv3.conv.weight", 1), ("model.4.cv1.conv.shift", 0.05)])
def test_a_changed_file_is_found_out(name, change, trained, images, tmp_path):
    """Oracle: one byte of weights, or one shift, is not what was trained; a comparison that misses it is worth nothing."""
    run = trained(4)
    model = onnx.load(run.path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = bytearray(tensor.raw_data)
    values[3] ^= 0x44 if change == 1 else 0x01
    tensor.raw_data = bytes(values)
    onnx.save(model, tmp_path / "changed.onnx")
    found = compare(run.model, tmp_path / "changed.onnx", images[:1])
    assert found.differing_elsewhere_count > 0 or found.raw_difference > 1e-4


def test_the_second_way_out_stays_close(trained, images, tmp_path):
    """Oracle: the torch model; with 16-bit multipliers at most one state in a thousand may differ, with 6 bits more do."""
    run = trained(4)
    shares = []
    for bits in (16, 6):
        path = export_onnx(run.model, tmp_path / "model.onnx", scales="per_tensor", multiplier_bits=bits).path
        shares.append(compare(run.model, path, images[:1]).differing_share)
    assert shares[0] < 1e-3 < shares[1]

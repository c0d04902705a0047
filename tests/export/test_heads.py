"""Decoding in ONNX against what the official code gave, and against torch at sizes that are not square."""

import numpy as np
import pytest
import torch

from oscillab.export.write import export_float
from oscillab.provenance import SHIPPED
from oscillab.yolo import checkpoint


def test_decoded_outputs_are_the_official_ones(shared, tmp_path, outputs_of):
    """Oracle: the recorded output of the official code, real weights on a real picture; 1e-3 pixels at most."""
    path = export_float(checkpoint.load(shared / "coco" / "yolov5n.pt"), tmp_path / "float.onnx").path
    official = np.load(shared / "oracle" / "real-yolov5n.npz")
    given = outputs_of(path, torch.from_numpy(official["pixels"]).float() / 255)[0]
    torch.testing.assert_close(given, torch.from_numpy(official["decoded"]), rtol=1e-4, atol=1e-3)


def test_masks_are_the_official_ones(shared, tmp_path, outputs_of):
    """Oracle: as above. These weights were rounded to half precision, which alone moves boxes by 0.03 pixels and the rest
    by 0.001 (root mean square)."""
    path = export_float(checkpoint.load(shared / "coco" / "yolov5n-seg-fused.pt"), tmp_path / "float.onnx").path
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
    path = export_float(model, tmp_path / "float.onnx").path
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(path, images)[0], model(images), rtol=1e-4, atol=1e-2)

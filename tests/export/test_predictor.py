"""The predictor beside the torch model: the same call, the same attributes, the same mAP, one-line errors."""

import pytest
import torch

from oscillab.data.evaluate import evaluate
from oscillab.data.scenes import Scenes
from oscillab.export.predictor import load_onnx
from oscillab.export.write import export_onnx
from oscillab.quant.exact import exact, exact_or_float


def test_same_attributes_and_outputs_as_the_torch_model(trained, images):
    """Oracle: the torch model in its exact form, to 1e-3 pixels, and as trained but for boxes that a state at an edge moved."""
    run = trained(4)
    predictor = load_onnx(run.path)
    for name in ("name", "task", "names", "classes", "strides"):
        assert getattr(predictor, name) == getattr(run.model, name)
    assert torch.equal(predictor.anchors, run.model.anchors)
    with torch.no_grad():
        given, wanted, trained_model = predictor(images), exact(run.model)(images), run.model(images)
    assert given.shape == wanted.shape and (given - wanted).abs().max() < 1e-3
    assert ((given - trained_model).abs() > 1e-3).float().mean() < 0.05


@pytest.mark.parametrize("bits", [4, 3])
def test_map_is_that_of_the_torch_model(bits, trained):
    """Oracle: the torch model's mAP on 48 scenes, to its last digit but one: no box may have moved by a pixel's hundredth."""
    run, scenes = trained(bits), Scenes(48, split="val", size=96)
    torch_map, onnx_map = (evaluate(model, scenes).map for model in (exact_or_float(run.model), load_onnx(run.path)))
    assert torch_map > 0.05 and abs(torch_map - onnx_map) <= 1e-5


def test_masks_come_in_a_tuple(calibrated, images, tmp_path):
    """Oracle: the torch model's shapes, and its prototypes."""
    model = calibrated("yolov5n-seg", bits=4)
    predictor = load_onnx(export_onnx(model, tmp_path / "seg.onnx").path)
    with torch.no_grad():
        given, wanted = predictor(images), exact(model)(images)
    assert [x.shape for x in given] == [x.shape for x in wanted] and predictor.coefficients == 32
    assert torch.equal(given[1], wanted[1])


def test_sizes_that_do_not_fit_are_named(trained, tmp_path):
    """Oracle: the stride for a free file, the file's own size for a fixed one."""
    run = trained(4)
    with pytest.raises(ValueError, match=r"H and W multiples of 32, got \(1, 3, 96, 100\)"):
        load_onnx(run.path)(torch.zeros(1, 3, 96, 100))
    fixed = load_onnx(export_onnx(run.model, tmp_path / "fixed.onnx", size=96).path)
    with pytest.raises(ValueError, match="fixed.onnx was written for images of 96x96 pixels, got 64x96"):
        fixed(torch.zeros(1, 3, 64, 96))


def test_it_prints_what_it_is(trained):
    """Oracle: the sentence that a user reads."""
    assert "yolov5n, 10 classes, any size, 3-bit states are stored in 4-bit integers" in repr(
        load_onnx(trained(3).path)
    )

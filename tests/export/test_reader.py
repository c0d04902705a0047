"""Files read back: metadata, a predictor beside the torch model, and one line for what is damaged or foreign."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from oscillab.data.evaluate import evaluate
from oscillab.data.scenes import Scenes
from oscillab.export.reader import Facts, integer_states, load_onnx, read_facts
from oscillab.export.write import export_onnx
from oscillab.quant.exact import exact

FACTS = Facts("yolov5n", "detect", ["a", "b"], [8, 16], [[[1.0, 2.0]]], None, "per_channel", {"x": 3}, "words")


@pytest.mark.parametrize("change, message", [
    ({"format": "other"}, "was not written by oscillab"),
    ({"version": "2"}, "a newer oscillab .format 2"),
    ({"version": "x"}, "cannot be read"),
    ({"names": None, "bits": None}, "lacks names, bits"),
    ({"anchors": "[["}, "cannot be read"),
    ({"strides": "7"}, "cannot be read: strides"),
])  # fmt: skip
def test_damage_is_named(change, message):
    """Oracle: one line for each way in which metadata can be wrong; unchanged, they are texts and come back."""
    assert all(isinstance(text, str) for text in FACTS.entries().values()) and read_facts(FACTS.entries()) == FACTS
    entries = {key: text for key, text in (FACTS.entries() | change).items() if text is not None}
    with pytest.raises(ValueError, match=message):
        read_facts(entries)


def refused(path):
    """The sentence with which a file is refused."""
    with pytest.raises(ValueError) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_file_cut_short_is_refused_wherever_it_was_cut(trained, tmp_path):
    """Oracle: whatever is missing at the end, the file is not whole; each hundredth of it, and the last bytes singly."""
    data, path = trained(4).path.read_bytes(), tmp_path / "cut.onnx"
    lengths = [*range(0, len(data), len(data) // 100), *range(len(data) - 40, len(data), 7)]
    for length in lengths:
        path.write_bytes(data[:length])
        refused(path)


def change(model, what):
    """Spoil an ONNX model in one way."""
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "model.3.conv.weight")
    if what == "missing":
        model.graph.initializer.remove(weight)
    elif what == "short":
        weight.raw_data = weight.raw_data[:-8]
    elif what == "elsewhere":
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="elsewhere")
    else:
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", what)] if what else [])
    return model.SerializeToString()


def foreign():
    """An ONNX file of somebody else."""
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


@pytest.mark.parametrize("make, said", [
    (lambda model: change(model, "missing"), "tensor 'model.3.conv.weight', which DequantizeLinear reads, is missing"),
    (lambda model: change(model, "short"), "model.3.conv.weight"),
    (lambda model: change(model, "elsewhere"), "lies in another file, which is not read"),
    (lambda model: change(model, 13), "its opset must be 21..27, got 13"),
    (lambda model: change(model, 28), "its opset must be 21..27, got 28"),
    (lambda model: change(model, None), "its opset must be 21..27, got none"),
    (lambda model: b"no network", "is no ONNX file, or was cut short"),
    (lambda model: foreign(), "not written by oscillab"),
    (lambda model: None, "no such file"),
])  # fmt: skip
def test_damaged_and_foreign_files_are_refused(make, said, trained, tmp_path):
    """Oracle: what was spoilt, by name, in one line."""
    data, path = make(onnx.load(trained(4).path)), tmp_path / "given.onnx"
    if data is not None:
        path.write_bytes(data)
    assert said in refused(path)


def test_integer_states_come_in_the_networks_order(trained):
    """Oracle: the layers' shapes and limits."""
    run = trained(3)
    states = integer_states(run.path)
    assert states["model.1.conv"].shape == (32, 16, 3, 3) and states["model.1.conv"].dtype == np.int8
    assert min(array.min() for name, array in states.items() if name not in run.model.end_layers) >= -4


def test_same_attributes_and_outputs_as_the_torch_model(trained, images):
    """Oracle: the torch model in its exact form, to 1e-3 pixels, and as trained but for boxes that a state at an edge moved."""
    run = trained(4)
    predictor = load_onnx(run.path)
    for name in ("name", "task", "names", "classes", "strides"):
        assert getattr(predictor, name) == getattr(run.model, name)
    assert torch.equal(predictor.anchors, run.model.anchors)
    assert "yolov5n, 10 classes, any size, 4-bit states are stored in 4-bit integers" in repr(predictor)
    with torch.no_grad():
        given, wanted, trained_model = predictor(images), exact(run.model)(images), run.model(images)
    assert given.shape == wanted.shape and (given - wanted).abs().max() < 1e-3
    assert ((given - trained_model).abs() > 1e-3).float().mean() < 0.05


@pytest.mark.parametrize("bits", [4, 3])
def test_map_is_that_of_the_torch_model(bits, trained):
    """Oracle: the torch model's mAP on 48 scenes, to its last digit but one: no box may have moved by a pixel's hundredth."""
    run, scenes = trained(bits), Scenes(48, split="val", size=96)
    torch_map, onnx_map = (evaluate(model, scenes).map for model in (exact(run.model), load_onnx(run.path)))
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

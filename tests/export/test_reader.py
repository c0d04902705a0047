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


def test_entries_are_texts_and_come_back():
    """Oracle: reading is the inverse of writing; ONNX's metadata holds texts alone."""
    entries = FACTS.entries()
    assert all(isinstance(text, str) for text in entries.values())
    assert read_facts(entries) == FACTS


@pytest.mark.parametrize("change, message", [
    ({"format": "other"}, "was not written by oscillab"),
    ({"version": "2"}, "a newer oscillab .format 2"),
    ({"version": "x"}, "cannot be read"),
    ({"names": None, "bits": None}, "lacks names, bits"),
    ({"anchors": "[["}, "cannot be read"),
    ({"strides": "7"}, "cannot be read: strides"),
])  # fmt: skip
def test_damage_is_named(change, message):
    """Oracle: one line for each way in which metadata can be wrong."""
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


def test_a_missing_tensor_is_named(trained, tmp_path):
    """Oracle: the name of the tensor that was taken out, and what reads it."""
    model, path = onnx.load(trained(4).path), tmp_path / "missing.onnx"
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "model.3.conv.weight"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, path)
    assert "tensor 'model.3.conv.weight', which DequantizeLinear reads, is missing" in refused(path)


def test_a_tensor_with_too_few_values_is_refused(trained, tmp_path):
    """Oracle: onnx's checker, in one line."""
    model, path = onnx.load(trained(4).path), tmp_path / "short.onnx"
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "model.3.conv.weight")
    weight.raw_data = weight.raw_data[:-8]
    onnx.save(model, path)
    assert "model.3.conv.weight" in refused(path)


@pytest.mark.parametrize("opset, said", [(13, "got 13"), (28, "got 28"), (None, "got none")])
def test_another_opset_is_named(opset, said, trained, tmp_path):
    """Oracle: the opset that the file says, and those that are read."""
    model, path = onnx.load(trained(4).path), tmp_path / "opset.onnx"
    del model.opset_import[:]
    if opset:
        model.opset_import.append(helper.make_opsetid("", opset))
    path.write_bytes(model.SerializeToString())
    assert f"its opset must be 21..27, {said}" in refused(path)


def test_foreign_files_are_refused(trained, tmp_path):
    """Oracle: no file, a file that is no ONNX, an ONNX file of somebody else, and one that points to another file."""
    assert "no such file" in refused(tmp_path / "nowhere.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    assert "is no ONNX file, or was cut short" in refused(text)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    foreign = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["x2"])], "g", [info], []),
                                opset_imports=[helper.make_opsetid("", 21)])  # fmt: skip
    onnx.save(foreign, text)
    assert "not written by oscillab" in refused(text)
    model = onnx.load(trained(4).path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")
    text.write_bytes(model.SerializeToString())
    assert "lies in another file, which is not read" in refused(text)


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


def test_it_prints_what_it_is(trained):
    """Oracle: the sentence that a user reads."""
    assert "yolov5n, 10 classes, any size, 3-bit states are stored in 4-bit integers" in repr(
        load_onnx(trained(3).path)
    )

"""Damaged and foreign files: each gives one line that names the file and what is wrong."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oscillab.export.predictor import load_onnx
from oscillab.export.reading import integer_states


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

"""Whole files: what they hold, what they compute, how large they are, and what cannot be exported."""

import copy
import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from oscillab.export.reader import OPSETS, integer_states
from oscillab.export.write import export_onnx
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quant_layers, quantize
from oscillab.quant.exact import exact
from oscillab.quant.fold import fold, insert_corrections
from oscillab.yolo import checkpoint, zoo


@pytest.mark.parametrize("bits", [4, 3])
def test_every_weight_is_the_recorders_integer_state(bits, trained, tmp_path):
    """Oracle: the recording of the run, value for value; QC, folded afterwards, may not move one of them."""
    run = trained(bits)
    recording, weights = run.recording, integer_states(run.path)
    assert list(weights) == [layer["name"] for layer in recording.layers]
    for name, states in weights.items():
        assert np.array_equal(states.ravel(), recording["integer_state"][recording.weights_of(name)])
    before = integer_states(export_onnx(run.recorded, tmp_path / "before.onnx").path)
    assert all(np.array_equal(states, weights[name]) for name, states in before.items())


@pytest.mark.parametrize("bits", [4, 3])
def test_weights_lie_in_four_bits_and_ends_in_eight(bits, trained):
    """Oracle: onnx's own type numbers; the ends are the first and the three predicting convolutions."""
    run = trained(bits)
    types = {t.name: t.data_type for t in onnx.load(run.path).graph.initializer if t.name.endswith(".weight")}
    ends = {f"{name}.weight" for name in run.model.end_layers}
    assert {name for name, kind in types.items() if kind == TensorProto.INT8} == ends
    assert {kind for name, kind in types.items() if name not in ends} == {TensorProto.INT4}
    facts = {entry.key: entry.value for entry in onnx.load(run.path).metadata_props}
    assert facts["storage"].startswith(f"{bits}-bit states are stored in 4-bit integers; 8-bit")


def test_a_sixth_of_the_float_file(trained, shared, images, tmp_path):
    """Oracle: the issue's limit, 0.16 of the FP32 file, graph and metadata counted in both; the official YOLOv5n of 80
    classes has an 8-bit head four times as large."""
    whole = export_onnx(checkpoint.load(SHIPPED), tmp_path / "float.onnx")
    assert trained(4).path.stat().st_size <= 0.16 * whole.byte_count
    assert whole.byte_count == (tmp_path / "float.onnx").stat().st_size > 4 * 1_767_808  # its weights alone
    model = checkpoint.load(shared / "coco" / "yolov5n.pt")
    whole = export_onnx(model, tmp_path / "float.onnx")
    small = export_onnx(quantize(model, QuantSpec(bits=4), [images]), tmp_path / "small.onnx")
    assert small.byte_count <= 0.16 * whole.byte_count


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_gives_the_same(opset, trained, images, tmp_path, outputs_of):
    """Oracle: the file of opset 21, bit for bit, and the number that the file says."""
    run = trained(4)
    path = export_onnx(run.model, tmp_path / "model.onnx", opset=opset).path
    assert onnx.load(path).opset_import[0].version == opset
    assert torch.equal(outputs_of(path, images)[0], outputs_of(run.path, images)[0])


def test_the_whole_file_passes_onnx_own_checks(trained):
    """Oracle: onnx's checker with shape inference, once more from the file; names and shapes as the docstring promises."""
    run = trained(3)
    onnx.checker.check_model(str(run.path), full_check=True)
    graph = onnx.load(run.path).graph
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    assert [v.name for v in (*graph.input, *graph.output)] == ["images", "decoded"]
    assert dims == [["batch", 3, "height", "width"], ["batch", "boxes", 15]]


def test_a_fixed_size_is_in_the_shapes(trained, images, tmp_path, outputs_of):
    """Oracle: 3 (12² + 6² + 3²) = 567 boxes at 96 pixels; batches stay free; outputs are those of the free file."""
    run = trained(4)
    path = export_onnx(run.model, tmp_path / "fixed.onnx", size=96).path
    shape = onnx.load(path).graph.output[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 567)
    for count in (1, 4):
        assert torch.equal(outputs_of(path, images[:count])[0], outputs_of(run.path, images[:count])[0])


def test_the_model_stays_as_it_is(trained, tmp_path):
    """Oracle: every entry of the state_dict, and every mode, as before the export."""
    model = copy.deepcopy(trained(4).model).train()
    before = copy.deepcopy(model.state_dict())
    export_onnx(model, tmp_path / "model.onnx")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_unfolded_qc_is_folded_and_said(trained, images, tmp_path, outputs_of, caplog):
    """Oracle: the file of the network that was folded before, bit for bit; the sentence names how many layers there were."""
    model = insert_corrections(copy.deepcopy(trained(4).recorded))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "correction" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    with caplog.at_level(logging.INFO):
        written = export_onnx(model, tmp_path / "unfolded.onnx")
    assert written.folded_corrections == 60 and "QC was still unfolded in 60 layers" in caplog.text
    export_onnx(fold(model), tmp_path / "folded.onnx")
    assert (tmp_path / "unfolded.onnx").read_bytes() == (tmp_path / "folded.onnx").read_bytes()


def spoilt(model, name, number):
    """A copy of a detector with one entry, or an attribute of a module, set to another number."""
    model = copy.deepcopy(model)
    if name in model.state_dict():
        model.state_dict()[name].view(-1)[:1] = number
    else:
        setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], number)
    return model


def infinite():
    """A float network of finite numbers that folding makes infinite."""
    model = zoo.build("yolov5n", classes=2)
    model.model[3].bn.weight.data.fill_(3e38)
    model.model[3].conv.weight.data.fill_(1e3)
    return model


@pytest.mark.parametrize("make, options, message", [
    (lambda _: zoo.build("yolov5n", classes=2), {"form": "exact"}, "form must be exact or qdq, of a quantized network"),
    (lambda _: quantize(zoo.build("yolov5n", classes=2), QuantSpec(), None), {},
     "quantizer 'model.0.conv.weight_quantizer' is not calibrated"),
    (lambda _: torch.nn.Conv2d(1, 1, 1), {}, "only a detector of oscillab's zoo can be exported, got Conv2d"),
    (lambda model: spoilt(model, "model.1.conv.input_quantizer.enabled", False), {},
     "'model.1.conv.input_quantizer' is switched off"),
    (lambda _: infinite(), {}, "'model.3.conv.weight' holds numbers that are not finite"),
    (copy.copy, {"size": 100}, "size must be a multiple of the largest stride 32, or None for any, got 100"),
    (copy.copy, {"size": 0}, "size must be a multiple .* got 0"),
    (copy.copy, {"opset": 20}, r"opset must be 21..27, got 20"),
    (copy.copy, {"opset": 28}, r"opset must be 21..27, got 28"),
    (copy.copy, {"form": "float"}, "form must be exact or qdq, of a quantized network, got 'float'"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(make, options, message, trained, tmp_path):
    """Oracle: one line that says what was wrong, what was given and what is allowed; no file is left."""
    with pytest.raises(ValueError, match=message) as caught:
        export_onnx(make(trained(4).model), tmp_path / "model.onnx", **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.2.cv1.conv.weight", "model.2.cv1.bn.running_var", "model.24.m.1.bias",
                                  "model.3.conv.input_quantizer.step_size"])  # fmt: skip
@pytest.mark.parametrize("form", ["exact", "qdq"])
def test_numbers_that_are_not_finite_are_refused_by_name(name, number, form, trained, tmp_path):
    """Oracle: the tensor that was spoilt: a cast to integers would hide it. No file is left."""
    with pytest.raises(ValueError, match=f"{name}.* not finite"):
        export_onnx(spoilt(trained(4).model, name, number), tmp_path / "model.onnx", form=form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spec", [{"weight_granularity": "per_channel"}, {"activation": "unsigned"}, {"bits": 2}])
def test_other_grids_export_too(spec, calibrated, images, tmp_path, outputs_of):
    """Oracle: the exact form in torch, on any processor: equal states give equal boxes but for the decoding's rounding."""
    model = calibrated("yolov5n", **spec)
    written = export_onnx(model, tmp_path / "model.onnx")
    with torch.no_grad():
        found = outputs_of(written.path, images[:1])[0]
        torch.testing.assert_close(found, exact(model)(images[:1]), rtol=1e-5, atol=1e-3)
    assert written.rounded == []


@pytest.mark.parametrize("spec, count", [
    ({"activation": "affine", "init": "lsq"}, 60), ({"bits": 8, "activation": "unsigned"}, 4),
])  # fmt: skip
def test_layers_without_exact_form_are_named(spec, count, calibrated, images, tmp_path, outputs_of, caplog):
    """Oracle: by hand: an offset in every layer, or 255 · Σ|w| past 2^24 in four; there programs may round apart, so that
    the states of the weights are compared, and each kind of layer by itself in test_convolution."""
    model = calibrated("yolov5n", **spec)
    written = export_onnx(model, tmp_path / "model.onnx")
    assert len(written.rounded) == count and f"{count} layers have no exact form" in caplog.text
    states = integer_states(written.path)
    assert all(np.array_equal(states[name], one.integer_state().numpy()) for name, one in quant_layers(model).items())
    assert outputs_of(written.path, images[:1])[0].isfinite().all()

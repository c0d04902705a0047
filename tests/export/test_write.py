"""Whole files: what they hold, what they compute, how large they are, and what cannot be exported."""

import copy
import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from oscillab.export.facts import OPSETS
from oscillab.export.reading import integer_states
from oscillab.export.write import export_float, export_onnx
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quantize
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
    export_onnx(run.recorded, tmp_path / "before.onnx")
    assert all(
        np.array_equal(states, weights[name]) for name, states in integer_states(tmp_path / "before.onnx").items()
    )


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


def test_a_sixth_of_the_float_file_of_the_scenes_network(trained, tmp_path):
    """Oracle: the issue's limit, 0.16 of the FP32 file, graph and metadata counted in both."""
    whole = export_float(checkpoint.load(SHIPPED), tmp_path / "float.onnx")
    assert trained(4).path.stat().st_size <= 0.16 * whole.byte_count
    assert whole.byte_count == (tmp_path / "float.onnx").stat().st_size > 4 * 1_767_808  # its weights alone


def test_a_sixth_of_the_float_file_of_the_official_network(shared, images, tmp_path):
    """Oracle: the same limit for the official YOLOv5n of 80 classes, whose 8-bit head is four times as large."""
    model = checkpoint.load(shared / "coco" / "yolov5n.pt")
    whole = export_float(model, tmp_path / "float.onnx")
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


def test_the_second_way_out_keeps_one_scale_per_tensor(trained, tmp_path):
    """Oracle: every DequantizeLinear of the file has a scalar scale; the folded QC of the head is in its multipliers."""
    run = trained(4)
    written = export_onnx(run.model, tmp_path / "model.onnx", scales="per_tensor")
    model = onnx.load(written.path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [tensors[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(scales) == 4 * 60 and all(not scale.dims for scale in scales)
    assert len(written.fixed_point) == 60 and max(layer.multiplier_error for layer in written.fixed_point) < 2**-14
    assert len(np.unique(numpy_helper.to_array(tensors["model.24.m.0.multiplier"]))) > 1


def uncalibrated():
    return quantize(zoo.build("yolov5n", classes=2), QuantSpec(), None)


@pytest.mark.parametrize("make, options, message", [
    (lambda: zoo.build("yolov5n", classes=2), {}, "is a float network: quantize and train it first"),
    (uncalibrated, {}, "quantizer 'model.0.conv.weight_quantizer' is not calibrated"),
    (lambda: torch.nn.Conv2d(1, 1, 1), {}, "only a detector of oscillab's zoo can be exported, got Conv2d"),
    (None, {"size": 100}, "size must be a multiple of the largest stride 32, or None for any, got 100"),
    (None, {"size": 0}, "size must be a multiple .* got 0"),
    (None, {"opset": 20}, r"opset must be 21..27, got 20"),
    (None, {"opset": 28}, r"opset must be 21..27, got 28"),
    (None, {"scales": "float"}, "scales must be one of per_channel, per_tensor, got 'float'"),
    (None, {"form": "float"}, "form must be exact or qdq with scales 'per_channel', got 'float'"),
    (None, {"form": "exact", "scales": "per_tensor"}, "form must be qdq with scales 'per_tensor', got 'exact'"),
    (None, {"multiplier_bits": 17}, "multiplier_bits must be 4..16, got 17"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(make, options, message, trained, tmp_path):
    """Oracle: one line that says what was wrong, what was given and what is allowed; no file is left."""
    model = make() if make else trained(4).model
    with pytest.raises(ValueError, match=message) as caught:
        export_onnx(model, tmp_path / "model.onnx", **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_switched_off_quantizer_is_refused(trained, tmp_path):
    """Oracle: such a network computes in floats where its file would not."""
    model = copy.deepcopy(trained(4).model)
    model.model[1].conv.input_quantizer.enabled = False
    with pytest.raises(ValueError, match=r"'model.1.conv.input_quantizer' is switched off"):
        export_onnx(model, tmp_path / "model.onnx")


def test_export_float_refuses_a_quantized_network(trained, tmp_path):
    """Oracle: its weights are not what it computes with."""
    with pytest.raises(ValueError, match="export_float takes a float detector"):
        export_float(trained(4).model, tmp_path / "model.onnx")


def test_other_grids_export_too(calibrated, images, tmp_path, outputs_of):
    """Oracle: the torch network, for LSQ+ offsets, per-channel weights, and unsigned 8 bits all through."""
    variants = [
        {"activation": "affine", "init": "lsq"},
        {"weight_granularity": "per_channel"},
        {"bits": 8, "activation": "unsigned"},
    ]
    for spec in variants:
        model = calibrated("yolov5n", **spec)
        path = export_onnx(model, tmp_path / "model.onnx").path
        with torch.no_grad():
            difference = (outputs_of(path, images[:1])[0] - model(images[:1])).abs()
        assert difference.mean() < 1e-2, spec  # one state that differs at an edge moves few boxes by little

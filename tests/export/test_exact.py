"""The exact form: whole sums, the same bits in torch, in its other kernels, in any batch, and in onnxruntime."""

import copy

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from oscillab.export.reader import open_session, read
from oscillab.export.write import export_onnx
from oscillab.quant import QuantConv2d, QuantSpec
from oscillab.quant.exact import ExactConv2d, ExactSiLU, exact, has_exact_form
from oscillab.quant.fold import fold, insert_corrections


def layer(*, channels=3, positive=False, **spec):
    """A calibrated QuantConv2d of a padded, strided 3x3 kernel with a bias, a BatchNorm with a negative slope, an input."""
    torch.manual_seed(0)
    spec = QuantSpec(**spec)
    conv = QuantConv2d(channels, 6, 3, stride=2, padding=1, bits=spec.bits, spec=spec).eval()
    bn = nn.BatchNorm2d(6).eval()
    bn.weight.data.copy_(torch.tensor([1.5, -1.0, 0.0, 2.0, 0.1, 1.0]))
    bn.bias.data.normal_(), bn.running_mean.normal_()
    x = torch.randn(2, channels, 9, 7)
    x = x.abs() if positive else x
    conv.weight_quantizer.calibrate(conv.weight.detach())
    conv.input_quantizer.calibrate(x)
    return conv, bn, 1.5 * x


GRIDS = [{}, {"bits": 3}, {"bits": 8, "positive": True}, {"bits": 2}, {"weight_granularity": "per_channel"}]


@pytest.mark.parametrize("grid", GRIDS)
def test_a_convolution_is_a_whole_sum_times_a_ratio_plus_a_shift(grid):
    """Oracle: the sums in 64-bit whole numbers, the map after them in numpy's single precision, to the last bit; and the
    layer and the BatchNorm as they were trained, within what rounding may cost."""
    conv, bn, x = layer(**grid)
    one = ExactConv2d(conv, bn)
    states = one.states(x)
    assert torch.equal(states * one.states.step_size, conv.input_quantizer(x))
    sums = nn.functional.conv2d(states.double(), conv.integer_state().double(), stride=2, padding=1).long().numpy()
    y = one(x)
    assert np.array_equal(y.numpy(), sums.astype(np.float32) * one.ratio.numpy() + one.shift.numpy())
    with torch.no_grad():
        torch.testing.assert_close(y, bn(conv(x)), rtol=1e-5, atol=2e-6)


def test_silu_is_silu():
    """Oracle: torch's in double precision, to three units in the last place; far out it is 0 and x, as it should be."""
    x = torch.linspace(-30, 30, 100_001)
    wanted = nn.functional.silu(x.double())
    assert ((ExactSiLU()(x).double() - wanted).abs() <= 3 * 2.0**-24 * wanted.abs()).all()
    far = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    torch.testing.assert_close(ExactSiLU()(far), torch.tensor([0.0, 0.0, 100.0, 1e4]))


def raw(network, images):
    """The raw outputs of each level, (N, A·(5 + C [+ 32]), H, W), and the prototypes, of a detector in eval mode."""
    network.head.training = True  # this module's flag alone: what is below it stays in eval mode
    with torch.no_grad():
        output = network(images)
    network.head.training = False
    levels, rest = (output[0], list(output[1:])) if isinstance(output, tuple) else (output, [])
    return [x.permute(0, 1, 4, 2, 3).flatten(1, 2) for x in levels] + rest


def same(first, second):
    """Whether two lists of tensors are equal bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("bits", [4, 3])
def test_kernels_threads_and_batches_do_not_matter(bits, trained, images):
    """Oracle: one of them, for the others; as trained, the network's kernels differ in the last digit."""
    model = trained(bits).model
    network = exact(model)
    wanted, plain = raw(network, images), raw(model, images)
    last = images.contiguous(memory_format=torch.channels_last)  # which other kernels take
    assert same(raw(copy.deepcopy(network).to(memory_format=torch.channels_last), last), wanted)
    assert not same(raw(copy.deepcopy(model).to(memory_format=torch.channels_last), last), plain)
    ones = [raw(network, images[k : k + 1]) for k in range(len(images))]
    assert same(map(torch.cat, zip(*ones, strict=True)), wanted)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert same(raw(network, images), wanted)
    finally:
        torch.set_num_threads(threads)


def same_in_onnxruntime(model, path, images):
    """Whether every raw output, and the prototypes, of the exact form and of the file at `path` are equal bit for bit."""
    names = [*(f"raw.{level}" for level in range(len(model.strides))), *["prototypes"] * (model.task == "segment")]
    proto, _ = read(path)
    new = set(names) - {output.name for output in proto.graph.output}
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(new))
    given = open_session(proto, path).run(names, {"images": images.numpy()})
    return same(map(torch.from_numpy, given), raw(exact(model), images))


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov5n-seg"])
def test_other_networks_give_the_same_bits_in_onnxruntime(name, bits, calibrated, images, tmp_path):
    """Oracle: as above, with learned offsets and factors, leaky ReLUs, poolings in a row, and prototypes."""
    model = calibrated(name, bits=bits)
    assert same_in_onnxruntime(model, export_onnx(model, tmp_path / "model.onnx").path, images)


@pytest.mark.parametrize("bits", [4, 3])
def test_a_trained_network_gives_the_same_bits_in_onnxruntime_and_qdq_others(bits, trained, images, tmp_path):
    """Oracle: onnxruntime, every raw output of four scenes; a test that finds two roundings equal finds anything equal."""
    run = trained(bits)
    assert same_in_onnxruntime(run.model, run.path, images)
    assert not same_in_onnxruntime(run.model, export_onnx(run.model, tmp_path / "qdq.onnx", form="qdq").path, images)


def test_the_model_stays_as_it_is_and_qc_is_folded_in_the_copy(trained, images):
    """Oracle: the state_dict as before; the exact form of the network that was folded before, bit for bit."""
    model = insert_corrections(copy.deepcopy(trained(4).recorded))
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if "correction" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    before = copy.deepcopy(model.state_dict())
    network = exact(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert same(raw(network, images), raw(exact(fold(model)), images))


def test_qc_that_cannot_be_folded_stays(trained, images):
    """Oracle: the network as it is, whose head has a negative factor and no BatchNorm to take it, but for states at an edge."""
    model = insert_corrections(copy.deepcopy(trained(4).recorded))
    model.head.m[0].correction_scale.data.fill_(-0.5)
    with torch.no_grad():
        apart = [(a - b).abs() > 1e-3 for a, b in zip(raw(exact(model), images), raw(model, images), strict=True)]
    assert torch.cat([each.flatten() for each in apart]).float().mean() < 0.05


def off(conv):
    conv.input_quantizer.enabled = False
    return conv


@pytest.mark.parametrize("make, has", [
    (lambda: layer()[0], True),
    (lambda: layer(activation="affine")[0], False),
    (lambda: off(layer()[0]), False),
    (lambda: QuantConv2d(3, 6, 3), False),  # not calibrated
    (lambda: layer()[0].half(), False),
    (lambda: layer()[0].double(), True),
    (lambda: layer(bits=8, positive=True, channels=64)[0], True),
    (lambda: layer(bits=8, positive=True, channels=8192)[0], False),  # 255 · Σ|w| passes 2^24
])  # fmt: skip
def test_what_has_an_exact_form(make, has):
    """Oracle: by hand, what single precision holds and what is known of the grids."""
    assert has_exact_form(make()) is has


def test_what_has_none_stays_and_a_float_network_is_refused(calibrated):
    """Oracle: the network itself, whose offsets make every convolution one without exact form; but for its SiLUs."""
    network = exact(calibrated("yolov5n", activation="affine", init="lsq"))
    kinds = {type(module) for module in network.modules()}
    assert QuantConv2d in kinds and ExactConv2d not in kinds and nn.BatchNorm2d in kinds
    with pytest.raises(ValueError, match="only a quantized network has an exact form, got a float Conv2d"):
        exact(nn.Conv2d(1, 1, 1))

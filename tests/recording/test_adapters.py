"""Do other libraries' layers show the recorder the integers that these libraries themselves use?

Brevitas and torchao are no dependencies: where they are absent, their tests are skipped.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from oscillab.quant import Quantizer
from oscillab.recording.adapters import adapt, release
from oscillab.recording.recorder import record
from oscillab.recording.tables import layers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Rounding(nn.Module):
    """A user's own quantizer: s * round(w / s) within -4..3, straight through."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, weight):
        quantized = (weight / self.scale).round().clamp(-4, 3) * self.scale
        return weight + (quantized - weight).detach()


def recorded(model, *, steps=6, learning_rate=0.5):
    """The recording of a few steps towards noise, and the integer states that each layer had after every one."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    model.train()
    with record(model, optimizer) as recorder:
        for seed in range(steps):
            output = model(IMAGES)
            noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            (output - noise).square().mean().backward()
            optimizer.step()
        return recorder.recording()


def check_recording(recording, model, names):
    """Names and last states are the layers' own, something flipped, and the table has a row for each layer."""
    assert list(recording.layer_names) == names
    states = [dict(model.named_modules())[name].integer_state().flatten() for name in names]
    assert recording["integer_state"].tolist() == torch.cat(states).tolist()
    assert recording["layer_flip_count"].sum() > 0
    assert layers(recording)["layer"].tolist() == names


@pytest.fixture
def brevitas():
    """The library's layers."""
    return pytest.importorskip("brevitas.nn", reason="Brevitas is not installed")


@pytest.mark.parametrize("granularity", ["PerTensor", "PerChannel"])
def test_brevitas_convolution(brevitas, granularity):
    """Oracle: Brevitas' own `.int()`, scale and activation quantizer; the last grid point of an input of 100 and -100."""
    quant = pytest.importorskip("brevitas.quant")
    weights = getattr(quant, f"Int8Weight{granularity}Float")
    layer = brevitas.QuantConv2d(
        3, 6, 3, weight_bit_width=4, weight_quant=weights, input_quant=quant.Int8ActPerTensorFloat, input_bit_width=5
    )
    model = nn.Sequential(layer, brevitas.QuantReLU(), brevitas.QuantConv2d(6, 2, 1, weight_bit_width=3))
    model.train()(IMAGES)
    model.eval()
    adapt(model)
    assert torch.equal(layer.integer_state(), layer.quant_weight().int()) and layer.bits == 4
    assert layer.integer_state().unique().numel() > 8
    step_size = layer.weight_step_size()
    assert step_size.shape == (() if granularity == "PerTensor" else (6,))
    torch.testing.assert_close(step_size.flatten(), layer.quant_weight().scale.flatten())
    low, high = layer.activation_range()
    ends = layer.input_quant(torch.tensor([-100.0, 100.0]))
    torch.testing.assert_close(torch.stack([low, high]), getattr(ends, "value", ends))
    assert model[2].activation_range() is None and model[2].bits == 3
    check_recording(recorded(model), model, ["0", "2"])


def test_brevitas_unsigned_weights(brevitas):
    """Oracle: Brevitas' own integers less its zero point: 0 is where the weight is 0, as in all other layers."""
    quant = pytest.importorskip("brevitas.quant")
    layer = brevitas.QuantConv2d(3, 6, 3, weight_bit_width=5, weight_quant=quant.ShiftedUint8WeightPerTensorFloat)
    adapt(layer)
    expected = layer.quant_weight().int().int() - layer.quant_weight().zero_point.int()
    assert torch.equal(layer.integer_state().int(), expected)


@pytest.fixture
def quantization():
    """torch.ao's module."""
    return pytest.importorskip("torch.ao.quantization", reason="this torch has no torch.ao.quantization")


@pytest.mark.parametrize("scheme", [torch.per_tensor_symmetric, torch.per_channel_symmetric])
def test_torch_ao_convolution(scheme, quantization):
    """Oracle: what the layer's own fake-quantize module gives, divided by its own scale."""
    qat = pytest.importorskip("torch.ao.nn.qat")
    kind = "PerChannelMinMax" if scheme == torch.per_channel_symmetric else "MovingAverageMinMax"
    observer = getattr(quantization, f"{kind}Observer")
    grid = {"quant_min": -8, "quant_max": 7, "dtype": torch.qint8, "qscheme": scheme}
    weight = quantization.FakeQuantize.with_args(observer=observer, **grid)
    config = quantization.QConfig(activation=quantization.default_fake_quant, weight=weight)
    model = nn.Sequential(qat.Conv2d(3, 6, 3, qconfig=config))
    model.train()(IMAGES)
    layer = adapt(model)[0]
    layer.weight_fake_quant.disable_observer()
    scale = layer.weight_fake_quant.scale
    given = layer.weight_fake_quant(layer.weight) / scale.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(layer.integer_state().float(), given, rtol=0, atol=1e-5)
    assert layer.integer_state().min() >= -8 and layer.integer_state().unique().numel() > 8 and layer.bits == 4
    assert layer.weight_step_size().numel() == (6 if scheme == torch.per_channel_symmetric else 1)
    assert layer.activation_range() is None
    check_recording(recorded(model, learning_rate=5.0), model, ["0"])


def test_reading_leaves_an_observer_alone(quantization):
    """Oracle: an invariant; the observer and the scale after reading are those before, the layer in training mode."""
    qat = pytest.importorskip("torch.ao.nn.qat")
    layer = qat.Conv2d(3, 6, 3, qconfig=quantization.get_default_qat_qconfig("fbgemm"))
    layer.train()(IMAGES)
    adapt(layer)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.weight.data.mul_(3)
    layer.integer_state(), layer.weight_step_size()
    after = layer.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items() if name != "weight")


def test_torch_ao_fused_with_batch_norm(quantization):
    """Oracle: the fused layer's own fake-quantize module on its weight times gamma / std."""
    fused = pytest.importorskip("torch.ao.nn.intrinsic.qat")
    layer = fused.ConvBn2d(3, 6, 3, qconfig=quantization.get_default_qat_qconfig("fbgemm"))
    layer.bn.running_var.uniform_(0.5, 2)
    layer.train()(IMAGES)
    layer.eval()
    layer.weight_fake_quant.disable_observer()
    adapt(layer)
    scaled = layer.weight * (layer.bn.weight / (layer.bn.running_var + layer.bn.eps).sqrt()).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(layer.latent_weight(), scaled)
    given = layer.weight_fake_quant(scaled) / layer.weight_fake_quant.scale.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(layer.integer_state().float(), given, rtol=0, atol=1e-4)


@pytest.fixture
def torchao():
    """The library's module of quantization-aware training."""
    return pytest.importorskip("torchao.quantization.qat", reason="torchao is not installed")


def torchao_linear(torchao, **granularity):
    config = torchao.IntxFakeQuantizeConfig(dtype=torch.int4, is_symmetric=True, **granularity)
    return torchao.FakeQuantizedLinear(8, 6, False, None, config)


def test_torchao_linear(torchao):
    """Oracle: what the layer's own fake quantizer gives, divided by its own scale, for weights that moved since the last
    forward pass."""
    model = nn.Sequential(torchao_linear(torchao, granularity="per_channel"))
    layer = adapt(model)[0]
    layer.weight.data.mul_(1.5)
    given = layer.weight_fake_quantizer(layer.weight) / layer.weight_fake_quantizer.scale
    torch.testing.assert_close(layer.integer_state().float(), given, rtol=0, atol=1e-4)
    assert layer.weight_step_size().shape == (6,) and layer.integer_state().unique().numel() > 8
    check_recording(recorded(model, learning_rate=5.0), model, ["0"])


def test_torchao_groups_are_refused(torchao):
    """Oracle: the sentence a user reads, and a layer left as it was."""
    layer = torchao_linear(torchao, group_size=4)
    with pytest.raises(ValueError, match="has 12 step sizes for 6 output channels; the recorder takes one"):
        adapt(layer)
    assert not hasattr(layer, "integer_state")


def parametrized(*quantizers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    for layer, quantizer in zip((model[0], model[2]), quantizers, strict=True):
        parametrize.register_parametrization(layer, "weight", quantizer)
    return model


def test_parametrized_weights():
    """Oracle: clip(round(w / s)) of the original weight, by hand; from a user's quantizer and from this project's."""
    own = Quantizer(3)
    own.calibrate(torch.linspace(-0.4, 0.3, 50))
    model = adapt(parametrized(Rounding(0.05), own))
    for layer, step_size in ((model[0], torch.tensor(0.05)), (model[2], own.step_size.detach())):
        latent = layer.parametrizations.weight.original
        expected = (latent / step_size).round().clamp(-4, 3)
        assert torch.equal(layer.integer_state().float(), expected) and layer.latent_weight() is latent
        assert torch.equal(layer.weight_step_size(), step_size) and layer.activation_range() is None
    check_recording(recorded(model), model, ["0", "2"])


def test_only_the_last_parametrization_counts():
    """Oracle: by hand; the latent weight of a doubled, then rounded weight is twice the original."""
    layer = parametrized(Rounding(0.05), Rounding(0.05))[0]
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)

    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(layer, "weight", Double())
    with pytest.raises(ValueError, match="no layer of this"):
        adapt(layer)
    parametrize.register_parametrization(layer, "weight", Rounding(0.05))
    adapt(layer)
    doubled = 2 * layer.parametrizations.weight.original
    assert torch.equal(layer.latent_weight(), doubled)
    assert torch.equal(layer.integer_state().float(), (doubled / 0.05).round().clamp(-4, 3))


def test_copies_show_their_own_weights():
    """Oracle: an invariant; a copy of an adapted model reads the copy's weights, not the original's."""
    model = adapt(parametrized(Rounding(0.05), Rounding(0.05)))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].parametrizations.weight.original.fill_(0.1)
    assert (other[0].integer_state() == 2).all() and not (model[0].integer_state() == 2).all()


def test_released_is_as_before():
    """Oracle: an invariant; attributes of every module, keys of the state_dict and the output."""
    model = parametrized(Rounding(0.05), Rounding(0.05))
    attributes, output = [set(vars(module)) for module in model.modules()], model(IMAGES)
    assert list(adapt(model).state_dict()) == list(parametrized(Rounding(0.05), Rounding(0.05)).state_dict())
    assert torch.equal(model(IMAGES), output)
    release(model)
    assert [set(vars(module)) for module in model.modules()] == attributes


def test_layers_that_have_the_methods_are_left_alone(fakes):
    """Oracle: the sentence a user reads; a layer that follows the protocol needs no adapter and gets none."""
    net = fakes.Net([[1, 2]])
    with pytest.raises(ValueError, match="no layer of this FakeNet is of a known kind"):
        adapt(net)


def test_states_beyond_eight_bits():
    """Oracle: the sentence a user reads; 300 states above 0 do not fit."""

    class Fine(Rounding):
        def forward(self, weight):
            return weight.detach() / weight.detach().abs().max() * 300 * self.scale

    model = parametrized(Fine(0.05), Rounding(0.05))
    with pytest.raises(ValueError, match="layer '0' has states .*, the recorder takes -128..127"):
        adapt(model)
    assert not hasattr(model[0], "integer_state")


class PerChannel(nn.Module):
    """A user's own quantizer with a scale of any shape, which it broadcasts over the weight as `shape` says."""

    def __init__(self, scale, shape):
        super().__init__()
        self.scale, self.shape = nn.Parameter(scale), shape

    def forward(self, weight):
        scale = self.scale.reshape(self.shape)
        return weight + ((weight / scale).round().clamp(-8, 7) * scale - weight).detach()


@pytest.mark.parametrize("given", [(1, 5, 1, 1), (5,), (5, 1)])
@pytest.mark.parametrize("out", [6, 5])
def test_step_sizes_lie_along_the_axis_of_the_layer(given, out):
    """Oracle: round(w / s) by hand, one step size per *second* axis, square weights among them; recorded as they are."""
    torch.manual_seed(0)
    layer, scale = nn.ConvTranspose2d(out, 5, 3), torch.linspace(0.02, 0.1, 5)
    parametrize.register_parametrization(layer, "weight", PerChannel(scale.reshape(given), (1, 5, 1, 1)))
    model = adapt(nn.Sequential(layer))
    latent = layer.parametrizations.weight.original.detach()
    expected = (latent / scale.reshape(1, 5, 1, 1)).round().clamp(-8, 7)
    assert torch.equal(layer.integer_state().float(), expected) and len(expected.unique()) > 8
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, optimizer, trajectories=1000) as recorder:
        pass
    recording = recorder.recording()
    per_weight = scale.reshape(1, 5, 1, 1).expand(latent.shape).flatten()
    assert recording["sample_step_size"][0].tolist() == per_weight.tolist() and recording.layers[0]["step_count"] == 5
    position = np.clip(np.floor(40 * (latent.flatten() / per_weight).numpy()) + 9 * 40, 0, 17 * 40 - 1).astype(int)
    assert recording["position_count"].tolist() == np.bincount(position, minlength=17 * 40).tolist()


def test_brevitas_transposed_convolution(brevitas):
    """Oracle: Brevitas' own integers, per-channel scales along the second axis of a square weight."""
    quant = pytest.importorskip("brevitas.quant")
    layer = brevitas.QuantConvTranspose2d(16, 16, 3, weight_bit_width=4, weight_quant=quant.Int8WeightPerChannelFloat)
    adapt(layer)
    assert torch.equal(layer.integer_state(), layer.quant_weight().int()) and layer.integer_state().abs().max() <= 8


@pytest.mark.parametrize("axis", [0, 1])
def test_torch_ao_says_its_axis(axis, quantization):
    """Oracle: what the fake-quantize module gives, by its scale along the axis that it names."""
    observer = quantization.PerChannelMinMaxObserver
    ends = {"quant_min": -8, "quant_max": 7, "dtype": torch.qint8, "qscheme": torch.per_channel_symmetric}
    grid = quantization.FakeQuantize(observer=observer, ch_axis=axis, **ends)
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    layer.weight_fake_quant = grid
    grid(layer.weight)
    grid.disable_observer()
    adapt(layer)
    scale = grid.scale.reshape((6, 1) if axis == 0 else (1, 6))
    torch.testing.assert_close(layer.integer_state().float(), (grid(layer.weight) / scale).detach(), rtol=0, atol=1e-4)


def test_weights_that_are_no_multiples_are_refused():
    """Oracle: one line that names the layer: a quantizer with an offset has no whole states."""

    class Shifted(Rounding):
        def forward(self, weight):
            return super().forward(weight) + 0.4 * self.scale

    with pytest.raises(ValueError, match="^the weights of layer '0' are no whole multiples of its step sizes"):
        adapt(parametrized(Shifted(0.05), Rounding(0.05)))

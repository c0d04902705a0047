"""Does quantizing a network keep all that it does not quantize, and does the network train, resume and run elsewhere?"""

import copy
import io
import logging
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from oscillab.quant import QuantConv2d, QuantSpec, held_step_sizes, is_quantized, quant_layers, quantize, step_sizes
from oscillab.quant.lsq import lsq

SPECS = [
    QuantSpec(),
    QuantSpec(bits=3, weight_granularity="per_channel", gradient_mask="rounded", init="lsq"),
    QuantSpec(bits=2, activation="unsigned", gradient_scale=False),
    QuantSpec(activation="affine"),
]


def train(model, optimizer, batches, wanted=0):
    """The losses of one step for each batch."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = (model(batch) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("spec", SPECS)
def test_forward_is_the_convolution_of_the_quantized_tensors(network, batches, spec):
    """Oracle: torch's own convolution of lsq(x) and lsq(w), for a grouped, dilated, reflecting layer."""
    layer = quant_layers(quantize(network, spec, batches))["3"]
    x = torch.randn(2, 8, 9, 9)
    grid_x, grid_w = layer.input_quantizer, layer.weight_quantizer
    quantized = lsq(x, grid_x.step_size, grid_x.low, grid_x.high, offset=grid_x.offset)
    weight = lsq(layer.weight, grid_w.step_size, grid_w.low, grid_w.high)
    padded = functional.pad(quantized, (2, 2, 2, 2), mode="reflect")
    expected = functional.conv2d(padded, weight, groups=4, dilation=2)
    torch.testing.assert_close(layer(x), expected)


def test_protocol_of_the_recorder(network, batches):
    """Oracle: the quantized weight is the integer state times the step size; ranges are levels times step size."""
    for spec in SPECS:
        for layer in quant_layers(quantize(copy.deepcopy(network), spec, batches)).values():
            states, step_size = layer.integer_state(), layer.weight_step_size()
            assert states.dtype == torch.int8 and states.shape == layer.weight.shape
            assert -(2 ** (layer.bits - 1)) <= states.min() and states.max() <= 2 ** (layer.bits - 1) - 1
            shape = (layer.out_channels, 1, 1, 1) if spec.weight_granularity == "per_channel" else ()
            weight = layer.weight_quantizer(layer.weight)
            assert torch.equal(weight.detach(), states * step_size.view(shape))
            low, high = layer.activation_range()
            assert low.ndim == high.ndim == 0 and low < high
            assert high - low == pytest.approx((2**layer.bits - 1) * layer.input_quantizer.step_size.item(), rel=1e-5)


def test_the_same_objects_are_kept(network, batches):
    """Oracle: identity of modules and Parameters, hooks, BatchNorm's class. Images in 0..1 are unsigned, SiLU is signed."""
    parameters, modules = dict(network.named_parameters()), dict(network.named_modules())
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    calls = []
    network[3].register_forward_hook(lambda *_: calls.append(1))
    model = quantize(network, QuantSpec(), batches)
    assert model is network and is_quantized(model) and calls == [1, 1]  # the batches passed it
    for name, parameter in parameters.items():
        assert dict(model.named_parameters())[name] is parameter
    for name, module in modules.items():
        assert model.get_submodule(name) is module
    assert all(isinstance(layer, nn.Conv2d) for layer in quant_layers(model).values())
    assert type(model[1]) is nn.BatchNorm2d
    image, silu = model[0].input_quantizer, model[3].input_quantizer
    assert (image.low, image.high, silu.low, silu.high) == (0, 255, -8, 7)
    before = model[3].weight.detach().clone()
    train(model, optimizer, batches)  # the optimizer of the float network
    assert not torch.equal(before, model[3].weight)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize(
    ("of", "bad"), [("weight", "nan"), ("weight", "inf"), ("step size", "nan"), ("step size", "-inf")]
)
def test_values_without_an_integer_state_are_refused(network, batches, granularity, of, bad):
    """Oracle: the message, and a scale that leaves the layer as it was; the int8 of a NaN would be a number."""
    layer = quantize(network, QuantSpec(weight_granularity=granularity), batches)[3]
    (layer.weight if of == "weight" else layer.weight_quantizer.step_size).data.view(-1)[0] = float(bad)
    before = copy.deepcopy(layer.state_dict())
    for call in (layer.integer_state, lambda: layer.scale_output(torch.full((8,), 2.0))):
        with pytest.raises(ValueError, match=f"the layer's {of} holds nan or inf, which has no integer state"):
            call()
    for name, value in before.items():
        torch.testing.assert_close(layer.state_dict()[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("spec", "ends", "bits"),
    [
        (QuantSpec(), None, [8, 4, 4, 4, 8]),
        (QuantSpec(bits=3), ["0", "6.one", "8"], [8, 3, 8, 3, 8]),
        (QuantSpec(first_last_bits=4), None, [4] * 5),  # the paper's 4-bit*
    ],
)
def test_ends_have_their_own_bits(network, spec, ends, bits):
    """Oracle: first and last by module order, or the names that the model gives."""
    if ends:
        network.end_layers = ends
    assert [layer.bits for layer in quant_layers(quantize(network, spec, None)).values()] == bits


def test_step_sizes_are_all_and_named_as_parameters(network, batches):
    """Oracle: the parameters that quantizing added, by name."""
    for spec, each in ((QuantSpec(), 2), (QuantSpec(activation="affine"), 3)):
        model = copy.deepcopy(network)
        before = set(dict(model.named_parameters()))
        found = step_sizes(quantize(model, spec, batches))
        added = {name: value for name, value in model.named_parameters() if name not in before}
        assert found.keys() == added.keys() and len(found) == 5 * each
        assert all(found[name] is added[name] for name in found)
    assert step_sizes(nn.Conv2d(3, 4, 1)) == {}


@pytest.mark.parametrize("spec", SPECS)
def test_every_parameter_gets_a_gradient(network, batches, spec):
    """Oracle: gradients are there, finite and not all zero, after one backward pass."""
    model = quantize(network, spec, batches)
    model(batches[0]).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    trained = [value.grad.abs().sum() for name, value in step_sizes(model).items() if "weight_quantizer" in name]
    assert all(total > 0 for total in trained)


def test_a_convolution_alone_and_one_built_directly(batches):
    """Oracle: identity of the root module; a QuantConv2d built by hand equals one that was turned."""
    conv = nn.Conv2d(3, 4, 3)
    assert quantize(conv, QuantSpec(), batches) is conv and list(quant_layers(conv)) == [""]
    assert set(step_sizes(conv)) == {"weight_quantizer.step_size", "input_quantizer.step_size"}
    built = QuantConv2d(3, 4, 3, bits=8)
    built.load_state_dict(conv.state_dict())
    assert torch.equal(built(batches[0]), conv(batches[0]))


def test_held_step_sizes_are_counted_and_warned_of_once(network, batches, caplog):
    """Oracle: one quantizer held in 2 training steps and in an evaluation, which does not count; one warning."""
    model = quantize(network, QuantSpec(), batches)
    assert held_step_sizes(model) == {}
    with torch.no_grad():
        model[3].weight_quantizer.step_size.fill_(-0.1)
    for _ in range(2):
        assert torch.isfinite(model(batches[0])).all()
    model.eval()(batches[0])
    with caplog.at_level(logging.WARNING):
        assert held_step_sizes(model) == {"3.weight_quantizer": 2} == held_step_sizes(model)
    assert [record.getMessage() for record in caplog.records] == [
        "step size of 3.weight_quantizer fell to its floor and was held positive in 2 training steps"
    ]
    assert (model[3].weight_step_size() > 0) and held_step_sizes(nn.ReLU()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, r"^bits must be 2\.\.8, got 1$"),
        ({"bits": 4.0}, r"^bits must be 2\.\.8, got 4\.0$"),
        ({"bits": "4"}, r"^bits must be 2\.\.8, got '4'$"),
        ({"first_last_bits": 9}, r"^first_last_bits must be 2\.\.8, got 9$"),
        ({"weight_granularity": "row"}, "weight_granularity must be one of per_tensor, per_channel, got 'row'"),
        ({"activation": "relu"}, "activation must be one of symmetric, unsigned, affine, got 'relu'"),
        ({"init": "max"}, "init must be one of mse, lsq, got 'max'"),
        ({"gradient_scale": 0.5}, "gradient_scale must be True or False, got 0.5"),
    ],
)
def test_a_spec_that_is_not_allowed(options, message):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=message):
        QuantSpec(**options)


def test_networks_that_cannot_be_quantized(network, fresh, batches):
    """Oracle: the messages; a failed call leaves no quantizer behind."""

    class Standardized(nn.Conv2d):
        """A convolution with a forward of its own."""

    for model, message in (
        (nn.Linear(3, 4), "model has no nn.Conv2d to quantize, got Linear"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), Standardized(4, 4, 1)), "layer '1' must be a plain nn.Conv2d, got Standard"),
        (quantize(network, QuantSpec(), batches), r"model is already quantized \(5 layers\)"),
    ):
        before = repr(model)
        with pytest.raises(ValueError, match=message):
            quantize(model, QuantSpec(), batches)
        assert repr(model) == before
    named = fresh()
    named.end_layers = ["0", "head"]
    with pytest.raises(ValueError, match="end_layers must name convolutions, got 'head'; there are 0, 3, 6.one"):
        quantize(named, QuantSpec(), batches)


def test_a_spec_from_a_file_of_an_earlier_version():
    """Oracle: the fields that such a file holds; ends_bits is what first_last_bits was called."""
    fields = {"bits": 3, "ends_bits": 5, "activation": "affine", "share_inputs": False}
    assert QuantSpec.from_dict(fields) == QuantSpec(bits=3, first_last_bits=5, activation="affine")


@pytest.mark.parametrize("spec", SPECS)
def test_copies_and_files_give_the_same_network(network, fresh, batches, spec):
    """Oracle: an invariant, outputs equal to the bit; the file goes through torch's safe loader into a bare structure."""
    model = quantize(network.eval(), spec, batches)
    assert not any(module.training for module in model.modules())  # quantizers too
    expected = model(batches[0])
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = quantize(fresh().eval(), spec, None)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(batches[0]), expected)
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    train(loaded, torch.optim.SGD(loaded.parameters(), 0.1), batches)
    assert torch.equal(model(batches[0]), expected)  # nothing is shared with the copy


def test_resuming_gives_the_uninterrupted_run(network, fresh, batches):
    """Oracle: an invariant, the same losses and weights to the bit."""
    images = list(torch.rand(6, 4, 3, 16, 16, generator=torch.Generator().manual_seed(3)))
    model = quantize(network, QuantSpec(), batches)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train(model, optimizer, images[:3])
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = train(model, optimizer, images[3:])
    resumed = quantize(fresh(), QuantSpec(), None)
    resumed.load_state_dict(kept[0])
    second = torch.optim.Adam(resumed.parameters(), 1e-2)
    second.load_state_dict(kept[1])
    assert train(resumed, second, images[3:]) == expected
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_lowers_the_loss(network, batches):
    """Oracle: the aim. A 2-bit network learns to copy its float original better than it starts."""
    wanted = copy.deepcopy(network).eval()(batches[0]).detach()
    model = quantize(network, QuantSpec(bits=2), batches).eval()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    errors = train(model, optimizer, batches[:1] * 60, wanted)
    assert sum(errors[-5:]) / 5 < 0.75 * errors[0]


def test_autocast_keeps_the_quantizers_in_float32(network, batches):
    """Oracle: the float32 pass; bfloat16 has 8 bits of precision, so outputs agree to a few per cent of their size."""
    model = quantize(network, QuantSpec(), batches)
    seen = {}
    model[3].input_quantizer.register_forward_hook(lambda _, inputs, y: seen.update(input=inputs[0].dtype, y=y.dtype))
    model[3].weight_quantizer.register_forward_hook(lambda _, inputs, y: seen.update(weight=y.dtype))
    expected = model(batches[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(batches[0])
        y.float().square().mean().backward()
    assert seen["weight"] == torch.float32 and seen["y"] == seen["input"]
    assert y.dtype == torch.bfloat16
    assert (y - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert all(value.grad.dtype == torch.float32 for value in step_sizes(model).values())
    assert all(torch.isfinite(value.grad).all() for value in model.parameters())


def test_channels_last_and_float64(network, batches):
    """Oracle: the contiguous float32 network; sums in another order differ by rounding alone."""
    model = quantize(network, QuantSpec(), batches).eval()
    expected = model(batches[0])
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    y = last(batches[0].to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y = model.double()(batches[0].double())
    assert y.dtype == torch.float64  # a value at a bin edge may fall to the other side, hence the mean
    assert (y - expected).abs().mean() < 1e-3 * expected.abs().mean()

"""The controls change what they say and nothing else; output errors are the differences themselves."""

import copy

import pytest
import torch

from oscillab.data.batches import to_pixels
from oscillab.quant import Quantizer
from oscillab.quant.fold import corrections, fold, insert_corrections
from oscillab.train.config import TrainSpec
from oscillab.train.layer_errors import layer_errors, output_errors
from oscillab.train.remedies.controls import bn_affine, correct_bias, pixels, reestimate_bn, soft_rounded, soft_rounding
from oscillab.yolo.loss import DetectionLoss

IMAGES = [torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


def changed(model, before):
    """The names of the tensors that are not as they were."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("biases", [False, True])
def test_bn_tuning_trains_batch_norm_alone(quantized, batches, biases):
    """Oracle: set equality of names; weights, step sizes, statistics and flags are as before, bit for bit; the loss on
    the pictures that it saw falls."""
    loss, batch = DetectionLoss(quantized), next(batches.epoch(0))
    norms = {name: m for name, m in quantized.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}

    def value():
        quantized.train()
        for norm in norms.values():
            norm.eval()
        with torch.no_grad():
            return loss(quantized(to_pixels(batch.images)), batch.targets, 64)[0].item()

    first, before = value(), copy.deepcopy(quantized.state_dict())
    flags = [p.requires_grad for p in quantized.parameters()]
    spec = TrainSpec(epochs=3, learning_rate=1e-2, warmup_steps=0, weight_decay=0.1)
    bn_affine(quantized, batches, spec=spec, biases=biases, progress=False)
    allowed = {f"{norm}.{what}" for norm in norms for what in ("weight", "bias")}
    assert changed(quantized, before) == allowed | ({f"model.24.m.{i}.bias" for i in range(3)} if biases else set())
    assert [p.requires_grad for p in quantized.parameters()] == flags and not quantized.training
    assert value() < first


def test_bias_correction_leaves_no_mean_error(tiny, same):
    """Oracle: the definition; on the same pictures no channel has a mean error, each layer in the sight of the others'
    corrections, and no weight, step size or running statistic changed. Its own latent weights give the same, bit for bit."""
    model = tiny()
    other, plain = copy.deepcopy(model), copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, Quantizer):
            module.enabled = False
    before = copy.deepcopy(model.state_dict())
    assert max(abs(row["error_mean"]) for row in output_errors(plain, model, IMAGES, at="batch_norm")) > 0.02
    correct_bias(model, IMAGES, float_model=plain)
    assert max(abs(row["error_mean"]) for row in output_errors(plain, model, IMAGES, at="batch_norm")) < 1e-5
    assert list(model.state_dict()) == list(before) and changed(model, before) == {"1.bias", "4.bias", "6.bias"}
    assert all(p.requires_grad for p in model.parameters())
    assert same(correct_bias(other, IMAGES), model)


def test_pixels_go_on_to_the_next_epoch(detector, batches):
    """Oracle: arithmetic; six batches of a data set of four are its four and the first two of the next pass."""
    given = list(pixels(detector, batches, 6))
    assert len(given) == 6 and all(batch.shape == (4, 3, 64, 64) for batch in given)
    torch.testing.assert_close(given[4], next(batches.epoch(1)).images.float() / 255)


def noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 3, 5, 5, generator=generator) * 2 + 1 for _ in range(count)]


@pytest.fixture
def network():
    """Batch norm, convolution, batch norm, with statistics, affine and momentum of their own, in mixed modes."""
    torch.manual_seed(0)
    norms = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(4, momentum=0.03)
    model = torch.nn.Sequential(norms[0], torch.nn.Conv2d(3, 4, 3), norms[1]).train()
    for batch in noise(3, seed=9):
        model(batch * 5)
    model[2].eval()
    return model


def test_statistics_are_averages_that_training_would_show(network):
    """Oracle: sums; the first norm's mean and unbiased variance are the averages over three batches; the second's those of
    its input when the first normalizes with the batch's own statistics."""
    given, affine = noise(3), (network[0].weight, network[0].bias)
    firsts = [torch.nn.functional.batch_norm(batch, None, None, *affine, training=True) for batch in given]
    reestimate_bn(network, given)
    for norm, inputs in ((network[0], given), (network[2], map(network[1], firsts))):
        flat = [batch.transpose(0, 1).flatten(1) for batch in inputs]
        mean, variance = torch.stack([x.mean(1) for x in flat]).mean(0), torch.stack([x.var(1) for x in flat]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_nothing_but_the_statistics_changes(network):
    """Oracle: an invariant; weights, affine, counts, momenta and modes are as before, and a norm that no batch reaches."""
    network[0].unused = torch.nn.BatchNorm2d(2)
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    reestimate_bn(network, noise(2))
    assert changed(network, before) == {f"{i}.running_{what}" for i in (0, 2) for what in ("mean", "var")}
    assert [module.training for module in network.modules()] == modes and not all(modes)
    assert (network[0].momentum, network[2].momentum) == (0.1, 0.03)


def test_no_more_batches_than_asked_for(network, same):
    """Oracle: the first two batches alone, bit for bit; and no third is drawn from the data."""
    other, drawn = copy.deepcopy(network), iter(noise(4))
    reestimate_bn(network, drawn, count=2)
    assert same(network, reestimate_bn(other, noise(2))) and len(list(drawn)) == 2


@pytest.mark.parametrize("given, error", [([], "images is empty"), ([*noise(1), torch.zeros(1, 7, 5, 5)], None)])
def test_an_error_leaves_the_statistics_alone(network, given, error):
    """Oracle: the state before, bit for bit, not-a-number and negative zero included, in the same tensors; with no
    batch at all and with a second batch of wrong channels."""
    network[0].running_mean[:2] = torch.tensor([float("nan"), -0.0])
    before = {name: (t.data_ptr(), t.numpy().tobytes()) for name, t in network.state_dict().items()}
    with pytest.raises(ValueError if error else RuntimeError, match=error):
        reestimate_bn(network, given)
    assert before == {name: (t.data_ptr(), t.numpy().tobytes()) for name, t in network.state_dict().items()}
    assert network[0].momentum == 0.1 and network[0].training


def grid_of(*, bits=3, step_size=0.5, offset=None, **options):
    quantizer = Quantizer(bits, **options)
    quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    with torch.no_grad():
        quantizer.step_size.fill_(step_size)
        if offset is not None:
            quantizer.offset.fill_(offset)
    return quantizer


def test_soft_rounding_by_hand():
    """Oracle: by hand at k = 0.45, in bins: 0.3 and 1.4 are rounded, 0.46 and 1.52 are not, 9 and -9 are the limits; on an
    affine grid the values are offset + s * state."""
    x = 0.5 * torch.tensor([0.3, 1.4, 0.46, 1.52, 9.0, -9.0])
    expected = 0.5 * torch.tensor([0.0, 1.0, 0.46, 1.52, 3.0, -4.0])
    torch.testing.assert_close(soft_rounded(x, grid_of()), expected)
    x = -0.2 + 0.5 * torch.tensor([0.3, 0.5, 9.0, -9.0])
    grid = grid_of(offset=-0.2, affine=True, per_sample=True)
    torch.testing.assert_close(soft_rounded(x, grid), -0.2 + 0.5 * torch.tensor([0.0, 0.5, 7.0, 0.0]))


@pytest.mark.parametrize("spec", [{}, {"weight_granularity": "per_channel", "activation": "affine"}])
@torch.no_grad()
def test_half_a_bin_is_hard_rounding(tiny, spec):
    """Oracle: the network as it is, bit for bit; nothing is farther than half a bin from a grid value."""
    model = tiny(**spec)
    expected = model(IMAGES[0])
    with soft_rounding(model, k=0.5):
        assert torch.equal(model(IMAGES[0]), expected)


@torch.no_grad()
def test_zero_only_clips(tiny):
    """Oracle: the float network on weights within the grid; with unrounded activations too where no limit is met."""
    model, outputs = tiny(bits=8), []
    for layer in (model[0], model[3], model[6]):
        layer.weight.clamp_(*layer.weight_quantizer.clipping_range())
        layer.input_quantizer.step_size.mul_(4)  # so that no input reaches the limits
    for enabled in (False, True):
        for layer in (model[0], model[3], model[6]):
            layer.weight_quantizer.enabled = layer.input_quantizer.enabled = enabled
        with soft_rounding(model, k=0.0):  # lets what is switched off stay off
            outputs.append(model(IMAGES[0]))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_part_alone(tiny):
    """Oracle: with activations rounded as ever, the first layer's output is its convolution with softened weights."""
    layer = (model := tiny())[0]
    weight, given = soft_rounded(layer.weight, layer.weight_quantizer, 0.3), layer.input_quantizer(IMAGES[0])
    with soft_rounding(model, k=0.3, parts=("weights",)):
        torch.testing.assert_close(layer(IMAGES[0]), torch.nn.functional.conv2d(given, weight, layer.bias))


@torch.no_grad()
def test_the_block_leaves_nothing_behind(tiny):
    """Oracle: the output before, bit for bit, after a block that ended in an error; float weights where a grid is off."""
    model = tiny()
    before = model(IMAGES[0])
    with pytest.raises(KeyError), soft_rounding(model):
        assert not torch.equal(model(IMAGES[0]), before)
        model[0].weight_quantizer.enabled = False
        assert torch.equal(model[0].weight_quantizer(model[0].weight), model[0].weight)
        model[0].weight_quantizer.enabled = True
        raise KeyError
    assert torch.equal(model(IMAGES[0]), before) and not any(module._forward_hooks for module in model.modules())


def test_one_layer_by_hand(tiny):
    """Oracle: the first layer's outputs subtracted: mean and variance of each channel over both batches, and over all of
    them, with the share of the channel means."""
    layer = (model := tiny())[0]
    with torch.no_grad():
        expected = torch.cat([torch.nn.functional.conv2d(x, layer.weight, layer.bias) for x in IMAGES])
        error = torch.cat([layer(x) for x in IMAGES]) - expected
    every = output_errors(None, model, IMAGES)
    rows = [row for row in every if row["layer"] == "0"]
    assert [row["channel"] for row in rows] == list(range(8))
    for name, x in (("error", error), ("float", expected)):
        assert [row[f"{name}_mean"] for row in rows] == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-4, abs=1e-7)
        variance = x.var((0, 2, 3), unbiased=False).tolist()
        assert [row[f"{name}_variance"] for row in rows] == pytest.approx(variance, rel=1e-4, abs=1e-7)
    found, squares = layer_errors(every)[0], error.square().mean()
    summed = {"error_mean": error.mean(), "error_variance": error.var(unbiased=False)}
    summed["mean_share"] = error.mean((0, 2, 3)).square().mean() / squares
    summed["signal_to_noise"] = 10 * torch.log10(expected.var(unbiased=False) / squares)
    for name, value in summed.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-4), name


def test_a_float_model_misses_nothing(tiny):
    """Oracle: invariants; a copy with its quantizers off has no error against the float network, to the last bit; every
    module is in the mode that it had, and no hook left behind."""
    model = tiny().train()
    model[1].eval()
    other = copy.deepcopy(model)
    for module in other.modules():
        if hasattr(module, "enabled"):
            module.enabled = False
    rows = output_errors(None, other, IMAGES)
    assert {row["layer"] for row in rows} == {"0", "3", "6"} and len(rows) == 8 + 8 + 4
    assert all(row["error_mean"] == row["error_variance"] == 0 for row in rows)
    assert output_errors(other, model, IMAGES) == output_errors(None, model, IMAGES)
    assert [module.training for module in model] == [True, False, True, True, True, True, True]
    assert not any(module._forward_hooks for module in model.modules())


def test_before_and_after_folding(tiny):
    """Oracle: an invariant; behind batch norm a correction has the same errors folded and unfolded (to rounding)."""
    model = tiny()
    for module in model.modules():
        if hasattr(module, "input_quantizer"):
            module.input_quantizer.enabled = False  # else a last-digit difference becomes a bin further on
    plain = copy.deepcopy(model)
    insert_corrections(model)
    with torch.no_grad():
        for corrected in corrections(model).values():
            corrected.correction_shift.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(3))
    before = output_errors(plain, model, IMAGES, at="batch_norm")
    after = output_errors(plain, fold(model), IMAGES, at="batch_norm")
    for a, b in zip(before, after, strict=True):
        assert (a["layer"], a["channel"]) == (b["layer"], b["channel"])
        assert a["error_mean"] == pytest.approx(b["error_mean"], abs=1e-5)
    assert max(abs(row["error_mean"]) for row in before) > 0.1

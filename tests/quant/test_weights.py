"""Do the passes over latent weights give what torch's operations give, in any memory format?"""

from contextlib import nullcontext

import pytest
import torch

from oscillab.quant import QuantSpec, quant_layers, quantize
from oscillab.quant.kernel import kernel_off
from oscillab.quant.many import ReadMany
from oscillab.quant.weights import bin_distances, place_frozen, release_frozen, state_bytes

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def switched(off):
    """The kernel off, or nothing."""
    return kernel_off() if off else nullcontext()


def case(layout, channels, seed=0):
    """Weights (5, 4, 3, 3), half of them at bin edges or limits, and step sizes 0-d or (5,)."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.tensor(0.25) if channels is None else torch.tensor([0.25, 0.5, 0.125, 1.0, 0.0625])
    each = step if step.ndim == 0 else step.view(-1, 1, 1, 1)
    bins = torch.randint(-24, 24, (5, 4, 3, 3), generator=generator) / 2
    bins = torch.where(
        torch.rand(bins.shape, generator=generator) < 0.5, bins, 5 * torch.randn(bins.shape, generator=generator)
    )
    return (bins * each).contiguous(memory_format=layout), step, each


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize("off", [False, True])
def test_states_and_distances(layout, channels, off):
    """Oracle: round and clamp of torch, written out; equal to the last bit with and without the kernel."""
    weight, step, each = case(layout, channels)
    states = (weight / each).round().clamp(-8, 7)
    distances = weight.clamp(-8 * each, 7 * each) - states * each
    with switched(off):
        mine = state_bytes(weight, step, -8, 7), bin_distances(weight, step, -8, 7)
    assert mine[0].dtype == torch.int8 and torch.equal(mine[0].float(), states) and torch.equal(mine[1], distances)
    assert mine[0].stride() == mine[1].stride() == weight.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize("off", [False, True])
def test_frozen_weights(layout, channels, off):
    """Oracle: `torch.where`, and sums in float64 (float32's rounding of at most 36 terms of up to 8 times 4)."""
    weight, step, each = case(layout, channels)
    gradient = torch.randn(weight.shape).contiguous(memory_format=layout)
    frozen = (torch.rand(weight.shape) < 0.4).contiguous(memory_format=layout)
    state = (torch.randint(-8, 8, weight.shape) * frozen).to(torch.int8).contiguous(memory_format=layout)
    placed, released = torch.where(frozen, state * each, weight), torch.where(frozen, 0.0, gradient)
    terms = gradient.double() * state
    expected = terms.sum() if channels is None else terms.flatten(1).sum(1)
    with switched(off):
        place_frozen(weight, frozen, state, step)
        sums = release_frozen(gradient, frozen, state, step)
    assert torch.equal(weight, placed) and torch.equal(gradient, released)
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("spec", [QuantSpec(), QuantSpec(weight_granularity="per_channel", activation="affine")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_layers_at_once_answer_as_each_does(network, batches, spec, layout):
    """Oracle: each layer's own answers; a floor that holds a step size and a NaN among the weights are seen alike."""
    model = quantize(network.to(memory_format=layout), spec, batches)
    layers = list(quant_layers(model).values())
    with torch.no_grad():
        layers[1].weight_quantizer.step_size.fill_(-1.0)
    many = ReadMany(layers, [layer.weight.stride() for layer in layers])
    step_sizes = torch.cat([layer.weight_step_size().reshape(-1) for layer in layers])
    ends = [torch.stack(side) for side in zip(*(layer.activation_range() for layer in layers), strict=True)]
    for off in (False, True):
        outs = [torch.zeros_like(layer.weight, dtype=torch.int8) for layer in layers]
        with switched(off):
            probes, used = many.read(outs)
            assert all(map(torch.equal, many.activation_ranges(), ends))
        assert probes.isfinite().all() and torch.equal(used, step_sizes)
        assert all(torch.equal(out, layer.integer_state()) for out, layer in zip(outs, layers, strict=True))
    for bad in (float("nan"), float("inf")):
        with torch.no_grad():
            layers[2].weight[0, 0, 0, 0] = bad
        for off in (False, True):
            outs = [torch.zeros(layer.weight.shape, dtype=torch.int8) for layer in layers]
            with switched(off):
                finite = many.read(outs)[0].isfinite()
            assert finite.tolist() == [i != 2 for i in range(len(layers))]

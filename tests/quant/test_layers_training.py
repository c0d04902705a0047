"""Does a quantized network train, resume, and run in other precisions and layouts?"""

import copy
import io
import pickle

import pytest
import torch

from oscillab.quant import QuantSpec, quantize, step_sizes

SPECS = [
    QuantSpec(),
    QuantSpec(bits=3, weight_granularity="per_channel", gradient_mask="rounded", init="lsq"),
    QuantSpec(bits=2, activation="unsigned", gradient_scale=False),
    QuantSpec(activation="affine"),
]


def train(model, optimizer, batches):
    """The losses of one step for each batch."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("spec", SPECS)
def test_copies_and_files_give_the_same_network(network, fresh, batches, spec):
    """Oracle: an invariant, outputs equal to the bit; the file goes through torch's safe loader into a bare structure."""
    model = quantize(network, spec, batches).eval()
    expected = model(batches[0])
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = quantize(fresh().eval(), spec, None)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(other(batches[0]), expected)
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
    teacher = copy.deepcopy(network).eval()
    model = quantize(network, QuantSpec(bits=2), batches).eval()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        error = (model(batches[0]) - teacher(batches[0]).detach()).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
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

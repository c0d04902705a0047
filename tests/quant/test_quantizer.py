"""Does a quantizer keep what it was calibrated to, wherever it is carried?"""

import pytest
import torch

from oscillab.quant import Quantizer
from oscillab.quant.step_size_init import lsq_step_size, mse_step_size


def values(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def calibrated(bits=4, x=None, **options):
    quantizer = Quantizer(bits, **options)
    quantizer.calibrate(values(4, 50) if x is None else x)
    return quantizer


def test_sign_follows_the_data():
    """Oracle: rule A1. Signed where a negative value is seen, else unsigned; a lowest value given counts too."""
    assert (calibrated(signed=None).low, calibrated(signed=None).high) == (-8, 7)
    positive = calibrated(signed=None, x=values(50).abs())
    assert (positive.low, positive.high) == (0, 15)
    quantizer = Quantizer(4, signed=None)
    quantizer.calibrate(values(50).abs(), lowest=-0.01)
    assert quantizer.low == -8
    assert calibrated(signed=False).low == 0
    assert calibrated(signed=None, affine=True).limits.tolist() == [0, 15]


def test_initial_step_sizes():
    """Oracle: the pure functions, per tensor and per channel; by hand, 1, 2, 3 lie 0, 1, 2 above the lowest of them."""
    x = values(4, 5, 3, 3)
    assert torch.equal(calibrated(x=x).step_size, mse_step_size(x.flatten(), -8, 7))
    assert torch.equal(calibrated(x=x, init="lsq").step_size, lsq_step_size(x.flatten(), 7))
    assert torch.equal(calibrated(x=x, channels=4).step_size, mse_step_size(x.flatten(1), -8, 7))
    assert torch.equal(calibrated(x=x, channels=4, init="lsq").step_size, lsq_step_size(x.flatten(1), 7))
    affine = calibrated(affine=True, init="lsq", x=torch.tensor([1.0, 2.0, 3.0]))
    assert affine.offset.item() == 1 and affine.step_size.item() == pytest.approx(2 / 15**0.5)


def test_clipping_range_by_hand():
    """Oracle: the largest and the smallest value that the quantizer puts out."""
    far = torch.tensor([-1e6, 1e6])
    for options in ({"signed": None}, {"signed": False}, {"affine": True}):
        quantizer = calibrated(**options)
        low, high = quantizer.clipping_range()
        assert low.ndim == 0 and not low.requires_grad
        torch.testing.assert_close(quantizer(far), torch.stack([low, high]))
    low, high = calibrated(channels=4).clipping_range()
    assert low.shape == high.shape == (4,)


def test_gradient_scale_counts_what_shares_a_step_size():
    """Oracle: 1 / sqrt(N * Qp) times the gradient without it; N is a weight's values (of a channel), or a picture's."""
    for shape, options, count in (
        ((4, 50), {}, 200),
        ((4, 50), {"channels": 4}, 50),
        ((4, 2, 5, 5), {"per_sample": True}, 50),
    ):
        x = values(*shape)
        plain, scaled = calibrated(x=x, gradient_scale=False, **options), calibrated(x=x, **options)
        for quantizer in (plain, scaled):
            quantizer(x).square().sum().backward()
        torch.testing.assert_close(scaled.step_size.grad, plain.step_size.grad * (count * 7) ** -0.5)


@pytest.mark.parametrize("channels", [None, 4])
def test_all_zeros_give_a_usable_grid(channels):
    """Oracle: a range of 1 and no nan; a channel of zeros leaves the others as they are."""
    x = values(4, 50)
    x[1] = 0
    quantizer = calibrated(channels=channels, x=x if channels else torch.zeros(4, 50))
    assert (quantizer.step_size > 0).all() and torch.isfinite(quantizer(x)).all()
    constant = calibrated(affine=True, x=torch.full((50,), 0.5))
    assert constant.offset == 0.5 and constant.step_size > 0
    if channels:
        torch.testing.assert_close(quantizer.step_size[1].item(), 1 / 7)
        torch.testing.assert_close(quantizer.step_size[2], mse_step_size(x[2], -8, 7))


@pytest.mark.parametrize("channels", [None, 4])
def test_a_step_size_that_fell_is_held_counted_and_comes_back(channels):
    """Oracle: outputs stay those of the floor while it is negative; gradient descent on an error lifts it again."""
    x = values(4, 50)
    quantizer = calibrated(channels=channels, x=x)
    first, floor = quantizer.step_size.detach().clone(), quantizer.floor.clone()
    with torch.no_grad():
        quantizer.step_size.view(-1)[0] = -0.05
    assert torch.equal(quantizer.effective_step_size().view(-1)[0], floor.view(-1)[0])
    optimizer = torch.optim.Adam([quantizer.step_size], 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        error = (quantizer(x) - x).square().mean()
        assert torch.isfinite(error)
        error.backward()
        optimizer.step()
    assert 0 < quantizer.held.max() < 200
    torch.testing.assert_close(quantizer.step_size, first, rtol=0.2, atol=0)
    before = quantizer.held.max().clone()
    with torch.no_grad():
        quantizer.step_size.view(-1)[0] = -1
    quantizer.eval()(x)
    assert quantizer.held.max() == before  # evaluation is no training step


def test_limits_survive_averaging_and_dtypes():
    """Oracle: -8..7 and 0..255, whatever float type the state_dict went through."""
    for bits, x in ((4, values(50)), (8, values(50).abs())):
        quantizer = calibrated(bits, x=x, signed=None)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            state = {name: value.to(dtype) for name, value in quantizer.state_dict().items()}
            state["limits"] = state["limits"] * 0.999  # as an average in float arithmetic may leave it
            other = Quantizer(bits, signed=None)
            other.load_state_dict(state)
            assert (other.low, other.high) == (quantizer.low, quantizer.high)


def test_errors_say_what_is_allowed():
    """Oracle: the messages."""
    for use in (lambda q: q(values(3)), Quantizer.clipping_range, Quantizer.effective_step_size):
        with pytest.raises(ValueError, match="not calibrated: call calibrate"):
            use(Quantizer(4))
    for bad in (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")]), torch.zeros(0)):
        with pytest.raises(ValueError, match="calibration needs finite values, got"):
            Quantizer(4).calibrate(bad)
    with pytest.raises(RuntimeError, match=r"a quantizer of 3 bits cannot take the grid -8\.\.7"):
        Quantizer(3).load_state_dict(calibrated(4).state_dict())

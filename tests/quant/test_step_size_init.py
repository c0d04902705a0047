"""Does a quantizer start from the step size that it says it starts from?"""

import pytest
import torch

from oscillab.quant.lsq import bin_limits
from oscillab.quant.step_size_init import lsq_step_size, mse_range, mse_step_size, sample, squared_error


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_squared_error_by_hand():
    """Oracle: arithmetic on paper. 0.6 -> 0.5 and 2.2 -> 1.5 (clipped) at s = 0.5, 3 bit: 0.1^2 + 0.7^2 = 0.5."""
    assert squared_error(torch.tensor([0.6, 2.2]), torch.tensor(0.5), -4, 3).item() == pytest.approx(0.5)
    shifted = squared_error(torch.tensor([1.6, 3.2]), torch.tensor(0.5), -4, 3, torch.tensor(1.0))
    assert shifted.item() == pytest.approx(0.5)


def test_lsq_step_size_by_hand():
    """Oracle: 2 <|v|> / sqrt(Qp): |v| has the mean 1, Qp = 7; per channel the means are 1 and 2."""
    assert lsq_step_size(torch.tensor([-1.0, 1.0, 0.5, -1.5]), 7).item() == pytest.approx(2 / 7**0.5)
    rows = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    torch.testing.assert_close(lsq_step_size(rows, 7), torch.tensor([2 / 7**0.5, 4 / 7**0.5]))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_values_on_a_grid_give_that_grid(bits, signed):
    """Oracle: a closed form, no error is less than none."""
    low, high = bin_limits(bits, signed)
    values = torch.arange(low, high + 1, dtype=torch.float64) * 0.37
    assert mse_step_size(values, low, high).item() == pytest.approx(0.37, rel=1e-6)


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (3, True), (4, True), (8, True), (4, False)])
def test_mse_step_size_is_the_best_of_a_dense_search(bits, signed):
    """Oracle: 4000 candidates tried one by one.

    The grid is 0.6 % wide, which costs a smooth error less than 0.1 %; at 8 bit the error of 3000 values is jagged.
    """
    low, high = bin_limits(bits, signed)
    values = gaussian(3000) if signed else gaussian(3000).abs()
    dense = torch.linspace(0.002, 1.05, 4000, dtype=torch.float64) * values.abs().max() / high
    best = min(squared_error(values, s, low, high).item() for s in dense)
    found = squared_error(values, mse_step_size(values, low, high), low, high).item()
    assert found <= (1.005 if bits == 8 else 1.001) * best


def test_mse_step_size_of_channels_equals_each_alone():
    """Oracle: an invariant, batched equals single; the channels differ in spread by a factor of 100."""
    rows = gaussian(5, 400) * torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0], dtype=torch.float64).view(5, 1)
    together = mse_step_size(rows, -8, 7)
    alone = torch.stack([mse_step_size(row, -8, 7) for row in rows])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("spread", [1, 2, 4])
def test_mse_range_of_silu_values_beats_the_symmetric_grid(spread):
    """Oracle: a dense search over both ends, and the symmetric and the unsigned grid, which spend levels or clip."""
    values = torch.nn.functional.silu(gaussian(4000) * spread)
    step_size, offset = mse_range(values, 15)
    error = squared_error(values, step_size, 0, 15, offset).item()
    lowers, uppers = torch.linspace(-0.3, 0.1, 33), torch.linspace(0.15, 1, 120) * values.max()
    best = min(squared_error(values, (b - a) / 15, 0, 15, a).item() for a in lowers for b in uppers)
    assert error <= 1.02 * best
    assert -0.3 <= offset.item() < 0  # the lowest value of SiLU is -0.278
    for low, high in ((-8, 7), (0, 15)):
        assert error < 0.8 * squared_error(values, mse_step_size(values, low, high), low, high).item()


def test_sample_draws_the_same_values_each_time_and_leaves_the_global_generator_alone():
    """Oracle: an invariant."""
    values = torch.arange(10_000)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = sample(values, 500), sample(values, 500)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, second) and first.shape == (500,) and len(first.unique()) > 450
    assert sample(values[:300], 500).shape == (300,)
    assert sample(values.view(4, 2500), 100).shape == (4, 100)

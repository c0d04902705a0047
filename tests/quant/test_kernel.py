"""Does the compiled kernel give the values and gradients of torch's operations?"""

import math
from contextlib import nullcontext

import pytest
import torch

from oscillab.quant import QuantSpec, quantize
from oscillab.quant.kernel import kernel_for, kernel_off, loaded
from oscillab.quant.lsq import bin_limits, integer_state

pytestmark = pytest.mark.skipif(loaded() is None, reason="no kernel: there is no C compiler, or OSCILLAB_KERNEL is 0")

SHAPES = [(1,), (15,), (4, 3), (2049,), (8, 2047), (3, 5, 7, 9), (8, 32, 1, 1), (0, 4)]  # beside blocks of 2048


def values(shape, step, high, seed=0):
    """Values of all sizes, a good part of them exact bin edges and limits of the grid, some zeros and infinities.

    No negative subnormal: beside the limit 0 it counts as inside, as it does where such numbers are flushed (lsq.py).
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * step * high
    edges = torch.randint(-3 * high, 3 * high, shape, generator=generator) / 2 * step
    x = torch.where(torch.rand(shape, generator=generator) < 0.3, edges, x)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, 1e-40, 3e38, -3e38])
    picked = special[torch.randint(0, len(special), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.05, picked, x)


def bits_of(x):
    """The memory of `x` as integers, so that the sign of a zero counts."""
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def by_torch(x, step, offset, low, high, upstream, rounded):
    """Values, gradients to x, and in double precision each value's terms of the step's and the offset's gradients."""
    work, step = (x.float() if offset is None else x.float() - offset), step.view(-1, *[1] * (x.ndim - 1))
    quotient = work / step
    state = quotient.round().clamp(low, high)
    y = state * step if offset is None else state * step + offset
    compared = quotient.round() if rounded else quotient
    inside = (compared >= low) & (compared <= high)
    to_x = torch.where(inside, upstream, torch.zeros(()).to(x.dtype))
    slope = state.double() - torch.where(inside, work, 0.0).double() / step.double()
    return y.to(x.dtype), to_x, upstream.double() * slope, upstream.double() * ~inside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [None, -0.37])
@pytest.mark.parametrize("mask", ["unrounded", "rounded"])
@pytest.mark.parametrize(("bits", "signed"), [(2, True), (3, False), (4, True), (8, False)])
def test_equals_the_operations_of_torch(plain_gradients, dtype, shift, mask, bits, signed):
    """Oracle: torch's division, round and clamp, written out above; equal bits, the sign of zeros included.

    Of the sums: float32 within a block of 2048 in at least 4 partial sums, hence at most 512 roundings of 2**-24 of the
    terms' absolute sum, and 2 more for each term.
    """
    low, high = bin_limits(bits, signed)
    offset = None if shift is None else torch.tensor(shift)
    for shape in SHAPES:
        for step in [torch.tensor(0.13)] + [torch.linspace(0.05, 0.4, shape[0])] * (shape[0] > 1):
            x = values(shape, 0.13, high).to(dtype)
            upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            assert kernel_for(x, step, offset) is not None
            options = {"offset": offset, "gradient_mask": mask, "gradient_scale": 0.5}
            got = plain_gradients(x, step, low, high, upstream=upstream, **options)
            y, to_x, step_terms, offset_terms = by_torch(x, step, offset, low, high, upstream, mask == "rounded")
            assert torch.equal(bits_of(got[0]), bits_of(y))
            assert torch.equal(got[1], to_x)
            for total, terms in ((got[2], step_terms), *([(got[3], offset_terms)] if shift is not None else [])):
                expected = terms.sum() if total.ndim == 0 else terms.flatten(1).sum(1) if terms.ndim > 1 else terms
                size = terms.abs().sum().item()
                assert ((total.double() - 0.5 * expected).abs() <= 514 * 2**-24 * size).all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_sum_is_more_exact_than_one_of_torch(plain_gradients, layout):
    """Oracle: the sum in float64 of 400,000 terms: within 2**-22 of their absolute sum, which no block's rounding passes."""
    x = torch.randn(8, 32, 40, 40, generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)) + 0.1
    if layout == "channels_last":
        x, upstream = (t.to(memory_format=torch.channels_last) for t in (x, upstream))
    terms = by_torch(x, torch.tensor(0.2), None, -8, 7, upstream, False)[2]
    got = plain_gradients(x, torch.tensor(0.2), -8, 7, upstream=upstream)[2]
    assert abs(got.item() - terms.sum().item()) <= 2**-22 * terms.abs().sum().item()


def test_nan_stays_nan(plain_gradients):
    """Oracle: torch's: a NaN among the values is NaN after rounding, and makes the step's gradient NaN."""
    x = torch.linspace(-1, 1, 100)
    x[37] = math.nan
    y, _, to_step = plain_gradients(x, torch.tensor(0.2), -4, 3, upstream=torch.ones(100))
    expected = integer_state(x, torch.tensor(0.2), -4, 3) * 0.2
    assert torch.equal(y.isnan(), expected.isnan()) and y.isnan().sum() == 1 and to_step.isnan()
    y, *_ = plain_gradients(torch.ones(5), torch.tensor(math.nan), -4, 3, upstream=torch.ones(5))
    assert y.isnan().all()


@pytest.mark.parametrize("shape", [(), (6,)])
def test_two_threads_give_the_same_bits(plain_gradients, shape):
    """Oracle: an invariant, the result of one thread: blocks are summed in their own order."""
    x = torch.randn(6, 31, 33, 35, generator=torch.Generator().manual_seed(4))
    step, upstream = torch.full(shape, 0.3), torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    one = plain_gradients(x, step, -4, 3, upstream=upstream)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = plain_gradients(x, step, -4, 3, upstream=upstream)
    finally:
        torch.set_num_threads(threads)
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first, second)


def test_what_the_kernel_does_not_take(plain_gradients):
    """Oracle: its own list: other types, odd strides, other devices, subclasses and blocks in which it is off."""
    x, step = torch.randn(4, 6, 5, 5), torch.tensor(0.2)
    assert kernel_for(x, step) and kernel_for(torch.nn.Parameter(x), step) and kernel_for(x.bfloat16(), step)
    assert kernel_for(x.to(memory_format=torch.channels_last), step, None)
    for other in (x.double(), x.half(), x[:, ::2], x.transpose(1, 3), x.to("meta"), x.as_subclass(Marked)):
        assert kernel_for(other, step) is None
    assert kernel_for(x, step.double()) is None and kernel_for(x, torch.ones(8)[::2]) is None
    with kernel_off():
        assert kernel_for(x, step) is None
    assert kernel_for(x, step)


class Marked(torch.Tensor):
    """A tensor of another class."""


@pytest.mark.parametrize("spec", [QuantSpec(), QuantSpec(weight_granularity="per_channel", activation="affine")])
def test_a_step_is_the_same_with_and_without(network, batches, spec):
    """Oracle: an invariant, the network on torch's operations: equal outputs and weight gradients to the last bit.

    Convolutions see equal bits and hand them on. Gradients of step sizes and offsets are sums in another order, whose
    terms cancel: 1e-3 of the value, or 1e-5 of the largest.
    """
    model, seen = quantize(network, spec, batches), []
    for context in (nullcontext(), kernel_off()):
        model.zero_grad()
        with context:
            y = model(batches[0])
        y.square().sum().backward()
        seen.append({name: p.grad for name, p in model.named_parameters()} | {"y": y.detach()})
    largest = max(g.abs().max().item() for name, g in seen[1].items() if "quantizer" in name)
    for name, mine in seen[0].items():
        if "quantizer" in name:
            torch.testing.assert_close(mine, seen[1][name], rtol=1e-3, atol=1e-5 * largest)
        else:
            assert torch.equal(mine, seen[1][name]), name

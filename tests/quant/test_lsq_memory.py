"""Does the quantizer give the same numbers whatever memory its tensors lie in?"""

import pytest
import torch

from oscillab.quant.lsq import lsq


def layouts():
    """One tensor's values in several memory layouts, by name."""
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(5))
    wide, tall = torch.zeros(2, 12, 5, 7), torch.zeros(2, 6, 10, 7)
    wide[:, ::2], tall[:, :, ::2] = x, x
    return {
        "channels_last": x.to(memory_format=torch.channels_last),
        "slice": wide[:, ::2],
        "rows": tall[:, :, ::2],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "channels_last_slice": wide.to(memory_format=torch.channels_last)[:, ::2],
        "contiguous": x,
    }


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("shift", [None, torch.tensor(-0.3)])
def test_memory_layout_changes_nothing(gradients, name, shift):
    """Oracle: an invariant against the contiguous tensor; the sum over another order may differ by float32 rounding."""
    x, s = layouts()[name], torch.tensor(0.3)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    expected = gradients(layouts()["contiguous"], s, -4, 3, upstream=upstream, offset=shift)
    for given in (upstream, upstream.to(memory_format=torch.channels_last)):
        leaf, step_size = x.detach().requires_grad_(), s.clone().requires_grad_()
        y = lsq(leaf, step_size, -4, 3, offset=shift)
        grad_x, grad_s = torch.autograd.grad(y, (leaf, step_size), given)
        assert torch.equal(y, expected[0]) and torch.equal(grad_x, expected[1])
        torch.testing.assert_close(grad_s, expected[2], rtol=1e-5, atol=1e-5)
        if name in ("channels_last", "contiguous", "transposed"):
            assert y.stride() == x.stride()


def test_a_gradient_without_memory_of_its_own(gradients):
    """Oracle: the gradient of a sum (a tensor of stride 0) equals an upstream gradient of ones."""
    x, s = torch.randn(2, 3, 4, 4), torch.tensor(0.3, requires_grad=True)
    lsq(x, s, -4, 3).sum().backward()
    expected = gradients(x, s, -4, 3, upstream=torch.ones_like(x))[2]
    torch.testing.assert_close(s.grad, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", [None, torch.tensor(-0.3)])
def test_half_precision_is_computed_in_float32(gradients, dtype, shift):
    """Oracle: the float32 result of the same values, rounded once at the end."""
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(8)).to(dtype)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    s = torch.tensor(0.11)
    half = gradients(x, s, -8, 7, upstream=upstream, offset=shift)
    single = gradients(x.float(), s, -8, 7, upstream=upstream.float(), offset=shift)
    assert half[0].dtype == half[1].dtype == dtype and half[2].dtype == torch.float32
    assert torch.equal(half[0], single[0].to(dtype)) and torch.equal(half[1], single[1].to(dtype))
    for mine, expected in zip(half[2:], single[2:], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_nothing_asks_for_a_value(shape):
    """Oracle: tensors on the meta device have no values, so that reading one (a synchronisation on a GPU) raises."""
    x = torch.randn(4, 3, 8, 8, device="meta", requires_grad=True)
    s = torch.ones(shape, device="meta", requires_grad=True)
    held, floor = torch.zeros(shape, dtype=torch.long, device="meta"), torch.ones(shape, device="meta")
    y = lsq(x, s, -4, 3, floor=floor, held=held)
    y.backward(torch.ones(y.shape, device="meta"))
    assert x.grad.shape == x.shape and s.grad.shape == s.shape
    with pytest.raises(RuntimeError):
        s.sum().item()  # the oracle itself

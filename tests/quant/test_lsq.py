"""Does the quantizer's function have LSQ's values and gradients, whatever memory it reads and keeps?"""

import pytest
import torch
from torch import nn

from oscillab.quant import QuantConv2d, QuantSpec, quant_layers, quantize
from oscillab.quant.kernel import kernel_off, loaded
from oscillab.quant.lsq import bin_limits, integer_state, lsq, recomputed
from oscillab.quant.step_size_init import mse_step_size

MASKS = ("unrounded", "rounded")
needs_kernel = pytest.mark.skipif(loaded() is None, reason="no kernel: there is no C compiler, or OSCILLAB_KERNEL is 0")


def away_from_edges(x, step_size, margin=1e-4):
    """`x` with every value nearer than `margin` bins to a bin edge moved by three margins."""
    quotient = x / step_size
    distance = ((quotient - 0.5).round() + 0.5 - quotient).abs()
    return torch.where(distance < margin, x + 3 * margin * step_size, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("mask", "to_weights", "to_step_size"), [("unrounded", [1, 2, 0, 0], -7.6), ("rounded", [1, 2, 3, 4], -0.2)]
)
def test_four_weights_by_hand(gradients, dtype, mask, to_weights, to_step_size):
    """Oracle: arithmetic on paper, 3 bit (-4..3), s = 0.5, upstream gradient g = 1, 2, 3, 4.

        w                      0.6    -0.9     1.7    -2.2
        w / s                  1.2    -1.8     3.4    -4.4
        round, clip              1      -2       3      -4
        q(w) = s * that        0.5    -1.0     1.5    -2.0

    Unrounded mask: 3.4 > 3 and -4.4 < -4 lie outside.
        dL/dw = 1, 2, 0, 0
        dq/ds = 1 - 1.2, -2 + 1.8, 3, -4 = -0.2, -0.2, 3, -4
        dL/ds = 1 * -0.2 + 2 * -0.2 + 3 * 3 + 4 * -4 = -0.2 - 0.4 + 9 - 16 = -7.6
    Rounded mask: round(3.4) = 3 and round(-4.4) = -4 lie inside.
        dL/dw = 1, 2, 3, 4
        dq/ds = -0.2, -0.2, 3 - 3.4, -4 + 4.4 = -0.2, -0.2, -0.4, 0.4
        dL/ds = -0.2 - 0.4 - 1.2 + 1.6 = -0.2
    """
    w, s = torch.tensor([0.6, -0.9, 1.7, -2.2], dtype=dtype), torch.tensor(0.5, dtype=dtype)
    assert integer_state(w, s, -4, 3).tolist() == [1, -2, 3, -4]
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype)
    y, grad_w, grad_s = gradients(w, s, -4, 3, upstream=upstream, gradient_mask=mask)
    assert y.tolist() == [0.5, -1.0, 1.5, -2.0]
    assert grad_w.tolist() == to_weights
    assert grad_s.item() == pytest.approx(to_step_size, rel=1e-5)  # 1.7 / 0.5 is rounded in float32
    assert grad_w.dtype == grad_s.dtype == dtype
    scaled = gradients(w, s, -4, 3, upstream=upstream, gradient_mask=mask, gradient_scale=12**-0.5)  # N * Qp = 4 * 3
    assert torch.equal(scaled[1], grad_w) and scaled[2].item() == pytest.approx(to_step_size / 12**0.5, rel=1e-5)


def test_limits_of_the_grid_belong_to_it(gradients):
    """Oracle: the definition, at w / s equal to both limits and one bin edge beyond; ties go to the even integer."""
    w, s = torch.tensor([-4.0, 3.0, -4.5, 3.5, -4.5001, 3.4999]), torch.tensor(1.0)
    ones = torch.ones(6)
    assert gradients(w, s, -4, 3, upstream=ones)[1].tolist() == [1, 1, 0, 0, 0, 0]
    assert gradients(w, s, -4, 3, upstream=ones, gradient_mask="rounded")[1].tolist() == [1, 1, 1, 0, 0, 1]
    zero = torch.tensor([0.0, -0.1, -0.5, -0.6, 15.0, 15.4])
    assert gradients(zero, s, 0, 15, upstream=ones)[1].tolist() == [1, 0, 0, 0, 1, 0]
    assert gradients(zero, s, 0, 15, upstream=ones, gradient_mask="rounded")[1].tolist() == [1, 1, 1, 0, 1, 1]
    narrow = torch.tensor([-3.5, -3.4, 2.5, 2.6])
    assert gradients(narrow, s, -3, 2, upstream=ones[:4], gradient_mask="rounded")[1].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_rounded_mask_equals_the_op_of_torch(gradients, bits, signed):
    """Oracle: torch._fake_quantize_learnable_per_tensor_affine; it multiplies by 1 / s: no values at bin edges."""
    low, high = bin_limits(bits, signed)
    generator = torch.Generator().manual_seed(bits)
    s = torch.tensor(0.13)
    x = away_from_edges(torch.randn(4000, generator=generator) * s * high * 0.8, s)
    upstream = torch.randn(4000, generator=generator)
    y, grad_x, grad_s = gradients(x, s, low, high, upstream=upstream, gradient_mask="rounded")

    x_, s_ = x.clone().requires_grad_(), s.view(1).clone().requires_grad_()
    theirs = torch._fake_quantize_learnable_per_tensor_affine(x_, s_, torch.zeros(1), low, high, 1.0)
    their_x, their_s = torch.autograd.grad(theirs, (x_, s_), upstream)
    torch.testing.assert_close(y, theirs.detach())
    assert torch.equal(grad_x, their_x)
    scale = (upstream.abs() * high).sum().item()
    assert abs(grad_s.item() - their_s.item()) <= 1e-6 * scale  # two orders of a float32 sum


def surrogate(x, s, offset, low, high, held, inside):
    """q(x) with the rounding error `held` (in bins) and the mask fixed: what straight-through differentiates."""
    quotient = (x - offset) / s
    limit = torch.where(quotient < 0.5 * (low + high), float(low), float(high)).to(x)
    return s * torch.where(inside, quotient + held, limit) + offset


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("bits", "signed", "shift"), [(2, True, 0.0), (4, True, 0.0), (8, True, 0.0), (3, False, -0.3)]
)
def test_gradients_equal_finite_differences(gradients, mask, bits, signed, shift):
    """Oracle: central differences in float64 of s * (clip(x / s) + held rounding error) + offset.

    Straight-through means: the rounding error round(x / s) - x / s is a constant, the rest is differentiated as it is.
    The surrogate is linear in s piece by piece, so a step of 1e-6 is exact to rounding (1e-16 / 1e-6 = 1e-10 a value).
    """
    low, high = bin_limits(bits, signed)
    generator = torch.Generator().manual_seed(7)
    s, offset = torch.tensor(0.21, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)
    x = torch.randn(500, generator=generator, dtype=torch.float64) * s * high
    upstream = torch.randn(500, generator=generator, dtype=torch.float64)
    quotient = (x - offset) / s
    compared = quotient.round() if mask == "rounded" else quotient
    fixed = low, high, quotient.round() - quotient, (compared >= low) & (compared <= high)
    assert 0 < fixed[3].sum() < 500  # both cases occur

    y, grad_x, grad_s, grad_offset = gradients(x, s, low, high, upstream=upstream, offset=offset, gradient_mask=mask)
    torch.testing.assert_close(y, surrogate(x, s, offset, *fixed), rtol=0, atol=1e-12)
    h = 1e-6
    along_x = (surrogate(x + h, s, offset, *fixed) - surrogate(x - h, s, offset, *fixed)) / (2 * h)
    along_s = (surrogate(x, s + h, offset, *fixed) - surrogate(x, s - h, offset, *fixed)) / (2 * h)
    along_offset = (surrogate(x, s, offset + h, *fixed) - surrogate(x, s, offset - h, *fixed)) / (2 * h)
    torch.testing.assert_close(grad_x, upstream * along_x, rtol=0, atol=1e-7)
    torch.testing.assert_close(grad_s, (upstream * along_s).sum(), rtol=0, atol=1e-5)
    torch.testing.assert_close(grad_offset, (upstream * along_offset).sum(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
def test_gradients_obey_the_scaling_law(gradients, mask):
    """Oracle: an invariant (Euler). q(a x, a s) = a q(x, s), hence <g, q> = <dL/dx, x> + <dL/ds, s>."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, 3, 3, generator=generator, dtype=torch.float64)
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    for s in (torch.tensor(0.2, dtype=torch.float64), torch.linspace(0.1, 0.4, 6, dtype=torch.float64)):
        y, grad_x, grad_s = gradients(x, s, -4, 3, upstream=upstream, gradient_mask=mask)
        assert grad_s.shape == s.shape
        torch.testing.assert_close((upstream * y).sum(), (grad_x * x).sum() + (grad_s * s).sum())


def test_per_channel_equals_each_channel_alone(gradients):
    """Oracle: an invariant, batched equals single."""
    generator = torch.Generator().manual_seed(4)
    x, upstream = torch.randn(2, 5, 7, 3, 3, generator=generator)
    s = torch.linspace(0.1, 0.6, 5)
    together = gradients(x, s, -8, 7, upstream=upstream)
    for c in range(5):
        alone = gradients(x[c], s[c], -8, 7, upstream=upstream[c])
        for all_channels, one in zip(together, alone, strict=True):
            torch.testing.assert_close(all_channels[c], one)
        assert torch.equal(integer_state(x, s, -8, 7)[c], integer_state(x[c], s[c], -8, 7))


def test_masks_differ_on_two_percent_of_the_weights_and_in_the_sign_of_the_gradient(gradients):
    """Oracle: a published observation. At the squared-error optimal 3-bit step size of Gaussian weights about 2 % of
    the weights lie between the two masks, and the gradient of the squared error to the step size has opposite signs.
    """
    w = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = mse_step_size(w, -4, 3)
    upstream = 2 * (integer_state(w, s, -4, 3) * s - w)
    _, unrounded_w, unrounded_s = gradients(w, s, -4, 3, upstream=upstream)
    _, rounded_w, rounded_s = gradients(w, s, -4, 3, upstream=upstream, gradient_mask="rounded")
    share = (unrounded_w != rounded_w).double().mean().item()
    assert 0.015 < share < 0.03
    assert unrounded_s.item() < -500 and rounded_s.item() > 500


def test_a_held_step_size_acts_as_its_floor_and_keeps_its_gradient(gradients):
    """Oracle: the same call with the floor in the step size's place, per tensor and per channel."""
    x = torch.randn(2, 9, generator=torch.Generator().manual_seed(10))
    upstream = torch.ones_like(x)
    for given, floor, expected, count in (
        (torch.tensor(-0.5), torch.tensor(0.1), torch.tensor(0.1), 1),
        (torch.tensor([0.0, 0.3]), torch.tensor([0.1, 0.1]), torch.tensor([0.1, 0.3]), [1, 0]),
        (torch.tensor(0.1), torch.tensor(0.1), torch.tensor(0.1), 0),
    ):
        held = torch.zeros(given.shape, dtype=torch.long)
        got = gradients(x, given, -4, 3, upstream=upstream, floor=floor, held=held)
        for mine, theirs in zip(got, gradients(x, expected, -4, 3, upstream=upstream), strict=True):
            assert torch.equal(mine, theirs)
        assert held.tolist() == count and (got[2] != 0).all()


def test_errors_say_what_is_allowed():
    """Oracle: the messages."""
    x, s = torch.zeros(4, 2), torch.tensor(0.1, requires_grad=True)
    with pytest.raises(ValueError, match="gradient_mask must be one of unrounded, rounded, got 'both'"):
        lsq(x, s, -4, 3, gradient_mask="both")
    with pytest.raises(ValueError, match=r"step_size must be 0-d or \(4,\) for this x, got shape \(3,\)"):
        lsq(x, torch.ones(3), -4, 3)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(lsq(x, s, -4, 3).sum(), s, create_graph=True)


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
    strided = torch.empty(2, 6, 10, x.shape[3])[:, :, ::2].copy_(upstream)
    for given in (upstream, upstream.to(memory_format=torch.channels_last), strided):
        y, grad_x, grad_s, *_ = gradients(x, s, -4, 3, upstream=given, offset=shift)
        assert torch.equal(y, expected[0]) and torch.equal(grad_x, expected[1])
        torch.testing.assert_close(grad_s, expected[2], rtol=1e-5, atol=1e-5)
        if name in ("channels_last", "contiguous", "transposed"):
            assert y.stride() == x.stride()


def test_a_gradient_without_memory_of_its_own(gradients):
    """Oracle: the gradient of a sum (a tensor of stride 0) equals an upstream gradient of ones."""
    x, s = torch.randn(2, 3, 4, 4), torch.tensor(0.3)
    expected = gradients(x, s, -4, 3, upstream=torch.ones_like(x))[2]
    torch.testing.assert_close(gradients(x, s, -4, 3, upstream=torch.ones(()).expand(x.shape))[2], expected)


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


def kept_bytes(model, x):
    """What the forward pass keeps for the backward pass, without parameters and buffers, each memory once."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # the tensor itself, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


def chain():
    """Convolutions, batch norms and activations as detectors stack them."""
    parts = [nn.Conv2d(3, 16, 3, padding=1)]
    for _ in range(4):
        parts += [nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*parts)


@needs_kernel
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_quantized_network_keeps_what_the_float_one_keeps(layout):
    """Oracle: the float network's bytes, the five quantized weights, and a number for each of ten step sizes.

    By torch's operations it is the outputs of the quantizers more: a third and the weights.
    """
    model, x = chain().to(memory_format=layout), torch.rand(4, 3, 32, 32).contiguous(memory_format=layout)
    before = kept_bytes(model, x)
    quantize(model, QuantSpec(), [x])
    weights = sum(layer.weight.nbytes for layer in quant_layers(model).values())
    assert kept_bytes(model, x) <= before + weights + 10 * 4
    with kernel_off():
        assert kept_bytes(model, x) > 1.25 * before


@needs_kernel
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_equal_those_with_everything_kept(mode, autocast):
    """Oracle: an invariant, the same convolution outside `recomputed`, to the last bit."""
    torch.manual_seed(0)
    layer = QuantConv2d(8, 12, 3, padding=1, padding_mode=mode, bits=4)
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    layer.weight_quantizer.calibrate(layer.weight.detach())
    layer.input_quantizer.calibrate(x.detach())
    parameters = [x, *layer.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        remade = layer(x)
        inputs, weight = layer.input_quantizer(x), layer.weight_quantizer(layer.weight)
        kept = layer._conv_forward(inputs, weight, layer.bias)
    assert torch.equal(remade, kept)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(layer(x), kept)
    for mine, theirs in zip(*(torch.autograd.grad(y.sum(), parameters) for y in (remade, kept)), strict=True):
        assert torch.equal(mine, theirs)


@needs_kernel
def test_only_the_output_itself_is_made_again():
    """Oracle: d(y^2) = 2 y, whatever of y is kept: itself, a view of its beginning, or the same memory in another shape."""
    for view in (lambda y: y, lambda y: y[:2], lambda y: y.reshape(3, 4), lambda y: y.t()):
        x, step = torch.randn(4, 3, requires_grad=True), torch.tensor(1.0)
        y = lsq(x, step, -128, 127)
        with recomputed(y):
            z = view(y)
            squares = z * z
        (gradient,) = torch.autograd.grad(squares.sum(), y)
        expected = torch.zeros_like(y)
        view(expected).copy_(2 * view(y))
        assert torch.equal(gradient, expected)


@needs_kernel
def test_an_input_that_changed_is_noticed():
    """Oracle: autograd's own error for a kept tensor that was written to: no wrong gradient comes out."""
    x = torch.randn(4, 3)
    leaf, step = torch.randn(4, 3, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    inner = leaf * 1
    y = lsq(inner, step, -8, 7)
    with recomputed(y):
        z = y * y
    inner.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (z * x).sum().backward()

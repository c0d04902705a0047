"""Does folding follow the data, whatever the order of the modules, and what becomes of BatchNorms in the exact form?"""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant import QuantSpec, quant_layers, quantize
from oscillab.quant.exact import channel_map, exact, folded_scale
from oscillab.quant.fold import corrections, fold, following_bns, insert_corrections


class Net(nn.Module):
    """Convolutions made before their batch norms, an activation between, or one batch norm for two convolutions."""

    def __init__(self, kind, width=8):
        super().__init__()
        self.kind = kind
        self.c1, self.c2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, width, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(width)

    def forward(self, x):
        if self.kind == "between":
            return self.bn2(self.c2(self.bn1(self.c1(x).relu()).relu()))
        if self.kind == "shared":
            return self.bn1(self.c2(self.bn1(self.c1(x)).relu()))
        if self.kind == "used_twice":
            h = self.c1(x)
            return self.bn2(self.c2(self.bn1(h).relu() + h))
        return self.bn2(self.c2(self.bn1(self.c1(x)).relu()))


def corrected(kind, width=8):
    """A quantized network in eval mode with statistics of its own and factors that are not the identity."""
    torch.manual_seed(0)
    model, x = Net(kind, width), torch.rand(2, 3, 12, 12)
    for _ in range(3):
        model(x)
    insert_corrections(quantize(model, QuantSpec(), [x]).eval())
    with torch.no_grad():
        for module in corrections(model).values():
            module.correction_scale.fill_(1.2)
            module.correction_shift.fill_(0.1)
    return model, x


@pytest.mark.parametrize(
    ("kind", "width"), [("plain", 8), ("plain", 6), ("between", 8), ("shared", 8), ("used_twice", 8)]
)
def test_folding_changes_no_output(kind, width):
    """Oracle: an invariant, the output before. States of c2 follow the same inputs, hence float32 rounding alone."""
    model, x = corrected(kind, width)
    before = model(x)
    torch.testing.assert_close(fold(model)(x), before, rtol=1e-4, atol=1e-4)


def test_which_bn_follows():
    """Oracle: the forward methods above."""
    for kind, c1, c2 in (
        ("plain", "bn1", "bn2"),
        ("between", None, "bn2"),
        ("shared", None, None),
        ("used_twice", None, "bn2"),
    ):
        model = Net(kind)
        bns = following_bns(model)
        assert [bns.get(conv) for conv in (model.c1, model.c2)] == [name and getattr(model, name) for name in (c1, c2)]


def test_values_that_are_not_finite_are_named_and_nothing_changes():
    """Oracle: the layer whose weight, step size or factor was spoiled; the factors are all still there."""
    for spoil, said in (
        (lambda m: m.c2.conv.weight, "layer 'c2.conv': its weight holds nan or inf"),
        (lambda m: m.c1.conv.input_quantizer.step_size, "layer 'c1.conv': its input's step size holds nan"),
        (lambda m: m.c2.correction_shift, "cannot fold c2: its scale or shift holds nan or inf"),
    ):
        model, _ = corrected("plain")
        spoil(model).data.fill_(float("nan"))
        with pytest.raises(ValueError, match=said):
            fold(model)
        assert len(corrections(model)) == 2
    model = fold(corrected("plain")[0])
    model.c1.weight.data[0] = float("inf")
    with pytest.raises(ValueError, match="layer 'c1': its weight holds nan or inf, which has no integer state"):
        exact(model)


def test_hooks_that_the_exact_form_would_lose_are_refused():
    """Oracle: the module that carries the hook; one on a module that stays is kept."""
    model, x = corrected("plain")
    fold(model)
    handle = quant_layers(model)["c2"].weight_quantizer.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="would lose the forward hook of module 'c2.weight_quantizer'"):
        exact(model)
    handle.remove()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    exact(model)(x)
    assert seen == [1]


def test_hand_worked_batch_norm():
    """Oracle: gamma 2, var 3, eps 1: slope 2 / 2 = 1; bias 0.25, mean 0.5, beta 3: 3 + 1 · (0.25 − 0.5); times 4."""
    conv, bn = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in ((conv.bias, 0.25), (bn.weight, 2), (bn.bias, 3), (bn.running_var, 3), (bn.running_mean, 0.5)):
        tensor.data.fill_(value)
    assert channel_map(conv, bn, np.array([4.0])) == (4.0, 4 * 2.75)


@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_the_modules_compute(bias):
    """Oracle: torch's convolution and BatchNorm in float64, negative and zero gammas included."""
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 5, 3, bias=bias).double(), nn.BatchNorm2d(5).double().eval()
    bn.weight.data.copy_(torch.tensor([1.5, -1, 0, 1e-3, 2]))
    bn.running_mean.normal_(), bn.running_var.uniform_(0.1, 2), bn.bias.data.normal_()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    ratio, shift = (torch.from_numpy(v).view(1, -1, 1, 1) for v in channel_map(conv, bn))
    plain = nn.functional.conv2d(x, conv.weight)
    torch.testing.assert_close(ratio * plain + shift, bn(conv(x)), rtol=1e-12, atol=1e-12)


def test_scale_takes_positive_ratios_alone():
    """Oracle: the product; a sign, a zero, and what single precision cannot hold have no scale."""
    step = torch.tensor(0.5)
    assert folded_scale(step, np.array([1.0, 2.0])).tolist() == [0.5, 1.0]
    assert folded_scale(step, np.array([2.0, 2.0])).shape == ()
    assert folded_scale(torch.tensor([0.5, 0.25]), np.array([1.0, 2.0])) == np.float32(0.5)
    for ratio in (-1.0, 0.0, 1e-42):
        assert folded_scale(step, np.array([1.0, ratio])) is None

"""Output errors against the differences themselves, and what folding leaves of them."""

import copy

import pytest
import torch

from oscillab.quant.fold import corrections, fold, insert_corrections
from oscillab.train.layer_errors import layer_errors, output_errors

IMAGES = [torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


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

"""Measure by how much each layer's output misses the float network's, and which part of that is a constant.

An error's mean over a channel can be subtracted (bias correction, QC's shift); its variance cannot.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.quant import eval_mode, quantizers_off
from oscillab.quant.fold import CorrectedConv2d, following_bns
from oscillab.quant.hooks import Hooks
from oscillab.quant.lsq import check_choice

COLUMNS = ("error_mean", "error_variance", "float_mean", "float_variance")
AT = ("convolution", "batch_norm")
Rows = list[dict[str, Any]]


@torch.no_grad()
def output_errors(
    float_model: nn.Module | None, model: nn.Module, images: Iterable[Tensor], *, at: str = "convolution"
) -> Rows:
    """Return rows for a DataFrame, one per layer and channel: how the quantized network's outputs miss the float one's.

    `float_model`: the float network, with the same layer names; None is `model` itself with its quantizers off.
    `images`: float tensors (N, 3, H, W), pixels in 0..1. Errors include what earlier layers passed on. `at`: the output of each
    "convolution" (with an unfolded correction), or of the "batch_norm" behind it where there is one, which sees a folded
    correction and new statistics too. Columns: `layer`, `channel` and `COLUMNS`, in units of the output; an error is
    quantized - float. Both models run in eval mode. Raises ValueError when a layer is missing or nothing came.
    """
    check_choice("at", at, AT)
    reference = model if float_model is None else float_model
    theirs, ours = watched_modules(reference, at=at), watched_modules(model, at=at)
    if missing := sorted(set(ours) - set(theirs)):
        raise ValueError(f"the float model must have the quantized one's layers, it lacks {missing[0]}")
    sums: dict[str, Any] = dict.fromkeys(ours, 0)
    for batch in images:
        with eval_mode(reference), quantizers_off(reference) if float_model is None else nullcontext():
            expected = outputs_of(reference, {name: theirs[name] for name in ours}, batch)
        with eval_mode(model):
            given = outputs_of(model, ours, batch)
        for name in given:
            sums[name] = sums[name] + _moments(expected[name], given[name])
    if not any(torch.is_tensor(total) for total in sums.values()):
        raise ValueError("images is empty: at least one float tensor (N, 3, H, W) is needed")
    rows: Rows = []
    for name, total in sums.items():
        error, error_square, output, output_square = total[1:] / total[0]
        variance, float_variance = error_square - error.square(), output_square - output.square()
        each = torch.stack([error, variance.clamp(min=0), output, float_variance.clamp(min=0)], 1).tolist()  # (C, 4)
        rows += [{"layer": name, "channel": i} | dict(zip(COLUMNS, row, strict=True)) for i, row in enumerate(each)]
    return rows


def layer_errors(rows: Rows) -> Rows:
    """Sum `output_errors` up, one row per layer.

    Columns: `layer`; `error_mean`, `error_variance` over all its values; `mean_share` (of the squared error, what
    subtracting each channel's mean would remove); `signal_to_noise` (decibel, float variance over squared error).
    """
    summed = []
    for name, channels in groupby(rows, itemgetter("layer")):
        each = torch.tensor([[row[key] for key in COLUMNS] for row in channels], dtype=torch.float64)
        mean, variance, output, output_variance = each.T.contiguous()
        squares = mean.square() + variance
        signal = (output_variance + output.square()).mean() - output.mean().square()
        found = {"layer": name, "error_mean": float(mean.mean())}
        found["error_variance"] = float(squares.mean() - mean.mean().square())
        found["mean_share"] = float(mean.square().sum() / squares.sum()) if squares.any() else 0.0
        summed.append(found | {"signal_to_noise": float(10 * torch.log10(signal / squares.mean()))})
    return summed


def watched_modules(model: nn.Module, *, at: str) -> dict[str, nn.Module]:
    """Return the module whose output is looked at, by the name of the convolution that it belongs to."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        corrected = isinstance(found.get(name.rpartition(".")[0]), CorrectedConv2d)  # then its convolution is within
        if isinstance(module, (nn.Conv2d, CorrectedConv2d)) and not corrected:
            found[name] = module
    if at == "convolution":
        return found
    bns = following_bns(model)
    return {name: bns.get(module, module) for name, module in found.items()}


def outputs_of(model: nn.Module, modules: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Tensor]:
    """Return the outputs of `modules`, by their names there, for one batch of images."""
    seen: dict[str, Tensor] = {}
    with Hooks() as hooks:
        for name, module in modules.items():
            hooks.after(module, lambda module, inputs, output, name=name: seen.__setitem__(name, output.detach()))
        model(batch)
    return seen


def _moments(expected: Tensor, given: Tensor) -> Tensor:
    """Return count and per-channel sums of error, error squared, output and output squared, (5, C) float64."""
    error, each = given - expected, (0, *range(2, given.ndim))
    count = torch.full((given.shape[1],), given.numel() / given.shape[1], dtype=torch.float64, device=given.device)
    sums = [x.sum(each, dtype=torch.float64) for x in (error, error.square(), expected, expected.square())]
    return torch.stack([count, *sums])

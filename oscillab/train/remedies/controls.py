"""Repair a network after training, as functions to loop over.

Would something simpler than QC have done? Train the batch norms' own scale and shift for as long as QC trains its factors
(the same class of functions, where a convolution has a batch norm behind it); measure their running statistics anew, since
an oscillating weight changes its layer's output from step to step (2203.11086); subtract each channel's mean error; round
softly. Each control is called as control(model, batches, spec=, choices=, progress=) and returns the model, changed in place.
"""

import copy
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from oscillab.data.batches import to_pixels
from oscillab.quant import Quantizer, eval_mode, quant_layers, quantizers_off
from oscillab.quant.fold import CorrectedConv2d, corrections, fold, insert_corrections
from oscillab.quant.hooks import Hooks
from oscillab.quant.lsq import along_channels
from oscillab.train.config import TrainSpec
from oscillab.train.correction import PAPER_SPEC, correct, training_only
from oscillab.train.layer_errors import outputs_of, watched_modules
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import build_loss

BN_BATCH_COUNT = 50  # batches whose statistics are averaged, as the code of 2203.11086 has it
BIAS_BATCH_COUNT = 4  # batches whose mean error bias correction subtracts
KINDS = {"weights": "weight_quantizer", "activations": "input_quantizer"}


def qc(model: nn.Module, batches: Any, **options: Any) -> nn.Module:
    """Train QC, with the options of `correct`, and fold it."""
    return fold(correct(model, batches, **options))


def bn_affine(
    model: nn.Module,
    batches: Any,
    *,
    spec: TrainSpec = PAPER_SPEC,
    biases: bool = False,
    progress: bool = True,
    **_: Any,
) -> nn.Module:
    """Train the batch norms' weight and bias and nothing else; running statistics stay fixed.

    `batches`, `spec`: as for `correct`, so that the two compare. `biases`: train the convolutions' biases too, which is
    what the detection convolutions have in place of a batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no batch norm to tune")
    chosen: list[Any] = [parameter for norm in norms for parameter in norm.parameters()]
    if biases:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        chosen += [module.bias for module in convolutions if module.bias is not None]
    spec = replace(spec, weight_decay=0.0)
    loss = build_loss(model)  # type: ignore[arg-type]  # a Detector
    with training_only(model, chosen):
        return Trainer(model, loss, batches, spec, bn_fixed=True, title="BN affine", progress=progress).fit()


def bn_reestimation(model: nn.Module, batches: Any, **_: Any) -> nn.Module:
    """Measure the batch norms' statistics anew on `BN_BATCH_COUNT` training batches."""
    return reestimate_bn(model, pixels(model, batches, BN_BATCH_COUNT))


@torch.no_grad()
def reestimate_bn(model: nn.Module, images: Iterable[Tensor], *, count: int = BN_BATCH_COUNT) -> nn.Module:
    """Set each running mean and variance to the average over `count` batches (in place); return the model.

    `images`: float tensors (N, 3, H, W), pixels in 0..1, of training data; all of them where there are fewer. Only
    batch norm is in training mode meanwhile. Everything but the running statistics stays as it is, and on an error
    they too. Raises ValueError without batch norm or batches. Source: the code of 2203.11086.
    """
    measured = copy.deepcopy(model).eval()
    both: Iterable[Any] = zip(model.modules(), measured.modules(), strict=True)
    pairs = [pair for pair in both if isinstance(pair[0], _BatchNorm) and pair[0].track_running_stats]
    if not pairs:
        raise ValueError(f"this {type(model).__name__} has no batch norm with running statistics")
    for _, found in pairs:
        found.train().reset_running_stats()
        found.momentum = None  # PyTorch's word for a plain average over batches
    for batch in islice(images, count):
        measured(batch)
    reached = [(norm, found) for norm, found in pairs if found.num_batches_tracked]
    if not reached:
        raise ValueError("images is empty: re-estimation needs at least one float tensor (N, 3, H, W)")
    for norm, found in reached:
        norm.running_mean.copy_(found.running_mean)
        norm.running_var.copy_(found.running_var)
    return model


def bias_correction(model: nn.Module, batches: Any, **_: Any) -> nn.Module:
    """Subtract each channel's mean error against the network's own quantizers off, on `BIAS_BATCH_COUNT` batches."""
    return correct_bias(model, pixels(model, batches, BIAS_BATCH_COUNT))


@torch.no_grad()
def correct_bias(model: nn.Module, images: Iterable[Tensor], *, float_model: nn.Module | None = None) -> nn.Module:
    """Subtract each channel's mean output error against the float network and fold it (in place); return the model.

    `images`: float tensors (N, 3, H, W), which are joined to one batch; some tens of training images. `float_model`:
    the float network; None is `model` itself with its quantizers off, which after QAT is the nearer reference. Layers
    are corrected in the order in which they run, each seeing what the ones before it now give (empirical bias
    correction of 1906.04721). The shift goes where QC's goes: into batch norm, or the bias.
    """
    if not (batches := list(images)):
        raise ValueError("images is empty: bias correction needs at least one float tensor (N, 3, H, W)")
    batch, reference = torch.cat(batches), model if float_model is None else float_model
    with eval_mode(reference), quantizers_off(reference):
        outputs = outputs_of(reference, watched_modules(reference, at="convolution"), batch)
    expected = {name: output.mean((0, 2, 3)) for name, output in outputs.items()}  # (C_out,) each

    with training_only(model, ()), eval_mode(model):
        insert_corrections(model, parts=("shift",))
        names = {module: name for name, module in corrections(model).items()}

        def subtract(corrected: CorrectedConv2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            error = output.mean((0, 2, 3)) - expected[names[corrected]]
            corrected.correction_shift.copy_(-error)
            return output - error.view(1, -1, 1, 1)

        try:
            with Hooks() as hooks:
                for module in names:
                    hooks.after(module, subtract)
                model(batch)
        finally:
            fold(model)
    return model


def pixels(model: nn.Module, batches: Any, given: int) -> Iterator[Tensor]:
    """Yield `given` training batches as float pixels on the model's device, going on to the next epoch where one is short."""
    device = next(model.parameters()).device
    for batch in islice(chain.from_iterable(map(batches.epoch, count())), given):
        yield to_pixels(batch.images, device)


def soften(model: nn.Module, batches: Any = None, **_: Any) -> nn.Module:
    """Let `model` round softly (`soft_rounding`) from now on."""
    soft_rounding(model)
    return model


def soft_rounding(model: nn.Module, k: float = 0.45, *, parts: Collection[str] = tuple(KINDS)) -> Hooks:
    """Let `model` round only what is nearer than `k` bins to a grid value, until the hooks are closed, as by a with block.

    Where that raises the mAP, the side of a bin's edge that weights ended on was an accident of the last step (2311.05109).
    `k`: 0.45 is the paper's, 0.5 rounds everything as ever, 0 nothing (the limits stay). `parts`: the quantizers of
    "weights", of "activations" or both. What passes carries no gradient. Raises ValueError for a model without quantizers.
    """
    if not 0 <= k <= 0.5:
        raise ValueError(f"k must be in 0 <= k <= 0.5 bins, got {k}")
    if not parts or set(parts) - set(KINDS):
        raise ValueError(f"parts must be among {', '.join(KINDS)}, got {', '.join(parts) or 'none'}")
    layers = quant_layers(model).values()
    if not layers:
        raise ValueError(f"soft rounding needs a quantized model, this {type(model).__name__} has no quantized layer")

    def instead(quantizer: Quantizer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return soft_rounded(inputs[0], quantizer, k) if quantizer.enabled else output

    hooks = Hooks()
    for layer in layers:
        for part in parts:
            hooks.after(getattr(layer, KINDS[part]), instead)
    return hooks


@torch.no_grad()
def soft_rounded(x: Tensor, quantizer: Quantizer, k: float = 0.45) -> Tensor:
    """Return s * clip(sr(x / s), u, v) with sr(x) = round(x) where |x - round(x)| <= k, else x (2311.05109)."""
    work = x if x.dtype == torch.float64 else x.float()
    offset: Any = 0.0 if quantizer.offset is None else quantizer.offset
    step = along_channels(quantizer.effective_step_size(), work)
    position = (work - offset) / step
    rounded = position.round()
    soft = torch.where((position - rounded).abs() <= k, rounded, position)
    return (soft.clamp(quantizer.low, quantizer.high) * step + offset).to(x.dtype)

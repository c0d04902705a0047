"""Repair a network after training, as functions to loop over.

Would something simpler than QC have done? Three controls: train the batch norms' own scale and shift for as long as QC
trains its factors (the same class of functions, where a convolution has a batch norm behind it); measure their running
statistics anew, since an oscillating weight changes its layer's output from step to step, so that a running average
describes no network at all (2203.11086); subtract each channel's mean error without training anything. Each control is
called as control(model, batches, spec=, choices=, progress=), changes the model in place and returns it; `oscillab.methods`
lists them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count as counted
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from oscillab.data.batches import to_pixels
from oscillab.quant import eval_mode, quantizers_off
from oscillab.quant.fold import PARTS, CorrectedConv2d, corrections, fold, insert_corrections
from oscillab.quant.hooks import Hooks
from oscillab.train.config import TrainSpec
from oscillab.train.correction import AS_PAPER, PAPER_SPEC, Choices, correct, training_only
from oscillab.train.layer_errors import outputs_of, watched_modules
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import build_loss

BN_BATCH_COUNT = 50  # batches whose statistics are averaged, as the code of 2203.11086 has it
BIAS_BATCH_COUNT = 4  # batches whose mean error bias correction subtracts
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Pairs = list[tuple[Tensor, Tensor]]  # each statistic and what it was


def qc(
    model: nn.Module,
    batches: Any,
    *,
    spec: TrainSpec = PAPER_SPEC,
    choices: Choices = AS_PAPER,
    progress: bool = True,
    parts: Iterable[str] = PARTS,
    granularity: str = "per_channel",
) -> nn.Module:
    """Train QC and fold it."""
    options: dict[str, Any] = {"parts": parts, "granularity": granularity, "choices": choices, "progress": progress}
    return fold(correct(model, batches, spec=spec, **options))


def bn_affine(
    model: nn.Module,
    batches: Any,
    *,
    spec: TrainSpec = PAPER_SPEC,
    biases: bool = False,
    loss: Callable[..., Any] | None = None,
    progress: bool = True,
    **_: Any,
) -> nn.Module:
    """Train the batch norms' weight and bias and nothing else; running statistics stay fixed.

    `batches`, `spec`, `loss`: as for `correct`, so that the two compare. `biases`: train the convolutions' biases too,
    which is what the detection convolutions have in place of a batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no batch norm to tune")
    chosen: list[Any] = [parameter for norm in norms for parameter in norm.parameters()]
    if biases:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        chosen += [module.bias for module in convolutions if module.bias is not None]
    spec = replace(spec, weight_decay=0.0)
    loss = loss or build_loss(model)  # type: ignore[arg-type]  # a Detector where no loss is given
    with training_only(model, chosen):
        return Trainer(model, loss, batches, spec, bn_fixed=True, title="BN affine", progress=progress).fit()


def bn_reestimation(model: nn.Module, batches: Any, **_: Any) -> nn.Module:
    """Measure the batch norms' statistics anew on `BN_BATCH_COUNT` training batches."""
    reestimate_bn(model, pixels(model, batches, BN_BATCH_COUNT))
    return model


@torch.no_grad()
def reestimate_bn(model: nn.Module, images: Iterable[Tensor], *, count: int = BN_BATCH_COUNT) -> nn.Module:
    """Set each running mean and variance to the average over `count` batches (in place); return the model.

    `images`: float tensors (N, 3, H, W), pixels in 0..1, of training data; all of them where there are fewer. Only
    batch norm is in training mode meanwhile. Everything but the running statistics stays as it is. Raises ValueError
    without batch norm or batches; on any error the statistics are as before. Source: the code of 2203.11086.
    """
    norms = batch_norms(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    before = [[(getattr(norm, name), getattr(norm, name).clone()) for name in STATISTICS] for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a plain average over batches
        for batch in islice(images, count):
            model(batch)
        _keep_untouched(norms, before)
    except BaseException:
        for pairs in before:
            _restore(pairs)
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that keep running statistics; raise ValueError when there is none."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no batch norm with running statistics")
    return norms


def _keep_untouched(norms: list[_BatchNorm], before: list[Pairs]) -> None:
    """Put counts of batches back, and norms that no batch reached; raise ValueError where no batch came."""
    reached = [bool(norm.num_batches_tracked) for norm in norms]
    if not any(reached):
        raise ValueError("images is empty: re-estimation needs at least one float tensor (N, 3, H, W)")
    for was_reached, pairs in zip(reached, before, strict=True):
        _restore(pairs[-1:] if was_reached else pairs)


def _restore(pairs: Pairs) -> None:
    for buffer, before in pairs:
        buffer.copy_(before)


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
    batch = torch.cat(batches)
    expected = channel_means(model if float_model is None else float_model, batch)

    with training_only(model, ()), eval_mode(model):
        insert_corrections(model, parts=("shift",))
        names = {module: name for name, module in corrections(model).items()}

        def subtract(corrected: CorrectedConv2d, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            error = output.mean((0, 2, 3)) - expected[names[corrected]]  # (C_out,)
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


def channel_means(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Return the mean output (C_out,) of each convolution of the float network, its quantizers off, by name."""
    with eval_mode(model), quantizers_off(model):
        outputs = outputs_of(model, watched_modules(model, at="convolution"), batch)
    return {name: output.mean((0, 2, 3)) for name, output in outputs.items()}


def pixels(model: nn.Module, batches: Any, count: int) -> Iterator[Tensor]:
    """Yield `count` training batches as float pixels on the model's device, going on to the next epoch where one is short."""
    device, given = next(model.parameters()).device, 0
    for epoch in counted():
        for batch in batches.epoch(epoch):
            if given == count:
                return
            yield to_pixels(batch.images, device)
            given += 1

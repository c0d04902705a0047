"""Measure the batch norms' running statistics anew, as the network is now.

Do they still describe the network that QAT ended with? An oscillating weight changes its layer's output from step to step,
so that a running average describes no network at all (2203.11086).
"""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_COUNT = 50  # as the code of 2203.11086 has it
Pairs = list[tuple[Tensor, Tensor]]  # each statistic and what it was
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@torch.no_grad()
def reestimate_bn(model: nn.Module, images: Iterable[Tensor], *, count: int = BATCH_COUNT) -> nn.Module:
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

"""Round softly at evaluation: leave values near a bin's edge unrounded (2311.05109).

What would the network give if the weights at the edge of a bin were not forced to either side? Where that raises the mAP of
a trained network, the side that its weights ended on was an accident of the last step.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.quant import Quantizer, quant_layers
from oscillab.quant.hooks import Hooks
from oscillab.quant.lsq import along_channels

KINDS = {"weights": "weight_quantizer", "activations": "input_quantizer"}


@contextmanager
def soft_rounding(model: nn.Module, k: float = 0.45, *, parts: Collection[str] = tuple(KINDS)) -> Iterator[nn.Module]:
    """Let `model` round only what is nearer than `k` bins to a grid value, within the block.

    `k`: 0.45 is the paper's, 0.5 rounds everything as ever, 0 rounds nothing (the limits stay). `parts`: the
    quantizers of "weights", of "activations" or both. For evaluation: what passes carries no gradient. Raises
    ValueError for a model without quantizers.
    """
    with Hooks() as hooks:
        attach(hooks, model, k, parts)
        yield model


def attach(hooks: Hooks, model: nn.Module, k: float, parts: Collection[str]) -> None:
    """Add the hooks of `soft_rounding`."""
    if not 0 <= k <= 0.5:
        raise ValueError(f"k must be in 0 <= k <= 0.5 bins, got {k}")
    if not parts or set(parts) - set(KINDS):
        raise ValueError(f"parts must be among {', '.join(KINDS)}, got {', '.join(parts) or 'none'}")
    layers = quant_layers(model).values()
    if not layers:
        raise ValueError(f"soft rounding needs a quantized model, this {type(model).__name__} has no quantized layer")

    def instead(quantizer: Quantizer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return soft_rounded(inputs[0], quantizer, k) if quantizer.enabled else output

    for layer in layers:
        for part in parts:
            hooks.after(getattr(layer, KINDS[part]), instead)


def soften(model: nn.Module, batches: Any = None, *, k: float = 0.45, **_: Any) -> nn.Module:
    """Let `model` round softly from now on (in place) and return it; called as every control is."""
    attach(Hooks(), model, k, tuple(KINDS))
    return model


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

"""What would the network give if the weights at the edge of a bin were not forced to either side?

Soft rounding at evaluation (2311.05109): values near a bin's edge pass unrounded. Where that raises the
mAP of a trained network, the side that its weights ended on was an accident of the last step.
"""

from contextlib import contextmanager

import torch

from oscillab.quant import quant_layers
from oscillab.quant.lsq import along_channels

PARTS = ("weights", "activations")


@contextmanager
def soft_rounding(model, k=0.45, *, parts=PARTS):
    """`model`, which within the block rounds only what is nearer than `k` bins to a grid value.

    `k`: 0.45 is the paper's, 0.5 rounds everything as ever, 0 rounds nothing (the limits stay). `parts`: the
    quantizers of "weights", of "activations" or both. For evaluation: what passes carries no gradient. Raises
    ValueError for a model without quantizers.
    """
    if not 0 <= k <= 0.5:
        raise ValueError(f"k must be in 0 <= k <= 0.5 bins, got {k}")
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(parts) or 'none'}")
    layers = quant_layers(model).values()
    if not layers:
        raise ValueError(f"soft rounding needs a quantized model, this {type(model).__name__} has no quantized layer")
    kinds = {"weights": "weight_quantizer", "activations": "input_quantizer"}
    chosen = [getattr(layer, kinds[part]) for layer in layers for part in parts]

    def instead(quantizer, inputs, output):
        return soft_rounded(inputs[0], quantizer, k) if quantizer.enabled else output

    handles = [quantizer.register_forward_hook(instead) for quantizer in chosen]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def soft_rounded(x, quantizer, k=0.45):
    """s * clip(sr(x / s), u, v) with sr(x) = round(x) where |x - round(x)| <= k, else x (2311.05109)."""
    work = x if x.dtype == torch.float64 else x.float()
    offset = 0.0 if quantizer.offset is None else quantizer.offset
    step = along_channels(quantizer.positive_step_size(), work)
    position = (work - offset) / step
    rounded = position.round()
    soft = torch.where((position - rounded).abs() <= k, rounded, position)
    return (soft.clamp(quantizer.low, quantizer.high) * step + offset).to(x.dtype)

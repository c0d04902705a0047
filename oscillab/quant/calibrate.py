"""Calibrate quantizers: find the ranges that weights and activations take.

Every layer's range comes from activations of the float network, so that the order of the layers does not matter. A layer
keeps a sample of its input and the exact minimum.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import Hooks
from .quantizer import Quantizer
from .step_size_init import sample

LIKELY_MAX = 16.0  # normalized images stay below it, images in 0..255 hardly ever
BATCH_SAMPLE_COUNT = 2**14  # values kept of one layer's input in one batch

logger = logging.getLogger(__name__)


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return every quantizer in `model` by its module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


@contextmanager
def quantizers_off(model: nn.Module) -> Iterator[nn.Module]:
    """Make `model` the float network within the block: its quantizers hand their inputs through."""
    on = [module for module in quantizers(model).values() if module.enabled]
    try:
        for module in on:
            module.enabled = False
        yield model
    finally:
        for module in on:
            module.enabled = True


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode within the block; after it each module is in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Observer:
    """A sample of the values that pass, and the smallest of them all; a forward pre-hook."""

    def __init__(self, name: str):
        self.name = name
        self.samples: list[Tensor] = []
        self.lowest = float("inf")

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach()
        lowest, highest = (value.item() for value in x.aminmax())
        if not abs(lowest) + abs(highest) < float("inf"):
            ends = f"lowest {lowest}, highest {highest}"
            raise ValueError(f"layer {self.name!r}: its input holds nan or inf during calibration ({ends})")
        self.lowest = min(self.lowest, lowest)
        self.samples.append(sample(x.flatten(), BATCH_SAMPLE_COUNT))


def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Fill the quantizers of `model`: weights from themselves, activations from `batches` through the float network.

    `batches` gives float tensors (N, 3, H, W), images in 0..1. Batch norm statistics and training flags stay as they
    are. A layer that no batch reaches stays uncalibrated, with a warning. Raises ValueError, naming the layer, where a
    value is not finite, and where there is no batch.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(getattr(m, "input_quantizer", None), Quantizer)}
    if not layers:
        raise ValueError("model has no quantized layer to calibrate: call quantize(model, spec, batches) first")
    for name, layer in layers.items():  # first, so that a weight that is not finite is named before what it spoils
        _fill(layer.weight_quantizer, f"layer {name!r}: weight", layer.weight)
    observers = _observe(model, layers, batches)
    for name, layer in layers.items():
        if seen := observers[name].samples:
            _fill(layer.input_quantizer, f"layer {name!r}: input", torch.cat(seen), observers[name].lowest)
        else:
            logger.warning("layer %r was not reached by the calibration batches and stays uncalibrated", name)
    return model


def _observe(model: nn.Module, layers: dict[str, nn.Module], batches: Iterable[Tensor]) -> dict[str, _Observer]:
    """Return what each layer's input held while the float network saw every batch."""
    observers = {name: _Observer(name) for name in layers}
    like = next(model.parameters())
    highest: list[float] = []
    with Hooks() as hooks, quantizers_off(model), eval_mode(model), torch.no_grad():
        for name, layer in layers.items():
            hooks.before(layer, observers[name])
        for batch in batches:
            if not (isinstance(batch, Tensor) and batch.is_floating_point() and batch.ndim == 4 and batch.numel()):
                given = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
                raise ValueError(f"batches must give float tensors (N, 3, H, W) of images in 0..1, got {given}")
            model(batch.to(like))
            highest.append(float(batch.max()))
    if not highest:
        raise ValueError("batches is empty: calibration needs at least one float tensor (N, 3, H, W)")
    if max(highest) > LIKELY_MAX:
        logger.warning("calibration images reach %g, images in 0..1 are expected: divide them by 255", max(highest))
    return observers


def _fill(quantizer: Quantizer, name: str, values: Tensor, lowest: float | None = None) -> None:
    """Calibrate one quantizer, and name it where that fails."""
    try:
        quantizer.calibrate(values.detach(), lowest=lowest)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error

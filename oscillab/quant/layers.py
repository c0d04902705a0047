"""Turn the convolutions of a network into quantized ones (`QuantSpec`, `QuantConv2d`, `quantize`).

A convolution is turned where it stands: the same module object, hence the same Parameters, hooks, device and flags, and
two quantizers more. An optimizer built before still owns the weights.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .calibrate import calibrate, quantizers
from .lsq import GRADIENT_MASKS, along_channels, check_bits, check_choice, integer_state, recomputed
from .quantizer import Quantizer
from .step_size_init import INITS

GRANULARITIES = ("per_tensor", "per_channel")
ACTIVATIONS = ("symmetric", "unsigned", "affine")
RENAMED = {"ends_bits": "first_last_bits"}  # of `QuantSpec` in files that were written before

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantSpec:
    """How a network is quantized; raises ValueError for a value that is not allowed."""

    bits: int = 4  # of weights and of each convolution's input
    first_last_bits: int = 8  # of the first and the last layers; the paper's 4-bit* is first_last_bits=4
    weight_granularity: str = "per_tensor"  # the paper's; per_channel gives each output channel a step size
    activation: str = "symmetric"  # signed where calibration sees a negative value, as N-code has it, else unsigned
    init: str = "mse"  # as Nagel et al.; lsq is the formula of LSQ
    gradient_mask: str = "unrounded"  # LSQ's paper; rounded is what most libraries do
    gradient_scale: bool = True  # LSQ's 1 / sqrt(N * Qp); Adam hardly notices it

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_bits(self.first_last_bits, "first_last_bits")
        check_choice("weight_granularity", self.weight_granularity, GRANULARITIES)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("init", self.init, INITS)
        check_choice("gradient_mask", self.gradient_mask, GRADIENT_MASKS)
        if not isinstance(self.gradient_scale, bool):
            raise ValueError(f"gradient_scale must be True or False, got {self.gradient_scale!r}")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "QuantSpec":
        """Return the spec that `dataclasses.asdict` made these fields of, in this version or an earlier one."""
        if fields.get("share_inputs"):
            raise ValueError("share_inputs=True is no more: oscillab 0.1 quantized this network and can load it")
        return cls(**{RENAMED.get(name, name): value for name, value in fields.items() if name != "share_inputs"})


class QuantConv2d(nn.Conv2d):
    """A convolution of quantized weights with a quantized input; `weight` and `bias` keep their names."""

    def __init__(self, *args: Any, bits: int = 4, spec: QuantSpec | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._insert(bits, spec or QuantSpec(bits=bits))

    def _insert(self, bits: int, spec: QuantSpec) -> None:
        """Add the two quantizers, uncalibrated, on the weight's device and in its dtype and mode."""
        same: dict[str, Any] = {name: getattr(spec, name) for name in ("init", "gradient_mask", "gradient_scale")}
        channels = self.out_channels if spec.weight_granularity == "per_channel" else None
        signed = False if spec.activation == "unsigned" else None
        weight = Quantizer(bits, channels=channels, **same)
        activation = Quantizer(bits, signed=signed, affine=spec.activation == "affine", per_sample=True, **same)
        self.bits = bits
        self.weight_quantizer = weight.to(self.weight).train(self.training)
        self.input_quantizer = activation.to(self.weight).train(self.training)

    @classmethod
    def from_float(cls, conv: nn.Conv2d, *, bits: int, spec: QuantSpec) -> "QuantConv2d":
        """Turn `conv` itself into a QuantConv2d that is not calibrated yet, and return it."""
        conv.__class__ = cls
        layer = cast("QuantConv2d", conv)
        layer._insert(bits, spec)
        return layer

    def to_float(self) -> nn.Conv2d:
        """Turn this module back into the nn.Conv2d that it was, and return it."""
        del self.weight_quantizer, self.input_quantizer, self.bits
        plain: nn.Conv2d = self
        plain.__class__ = nn.Conv2d
        return plain

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the quantized input and weights, (N, C_out, H, W)."""
        inputs, weight = self.input_quantizer(x), self.weight_quantizer(self.weight)
        with recomputed(inputs):  # weights are few: to make them again costs more than to keep them
            y: Tensor = self._conv_forward(inputs, weight, self.bias)
        return y

    def integer_state(self) -> Tensor:
        """Return the integer state of every weight, int8, of the weight's shape.

        Raises ValueError where a weight or the step size is NaN or infinite: int8 would hide it.
        """
        for what, values in (("weight", self.weight), ("step size", self.weight_quantizer.step_size)):
            if not torch.isfinite(values).all():
                raise ValueError(f"the layer's {what} holds nan or inf, which has no integer state")
        return self.unchecked_integer_state()

    def unchecked_integer_state(self) -> Tensor:
        """Return the same without a look at the values, for a recorder, which has looked at those of all layers at once."""
        grid = self.weight_quantizer
        return integer_state(self.weight, grid.effective_step_size(), grid.low, grid.high).to(torch.int8)

    def weight_step_size(self) -> Tensor:
        """Return the step size of the weights as the forward pass uses it, 0-d or (out_channels,), without gradient."""
        return self.weight_quantizer.effective_step_size()

    def activation_range(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest value of the input's grid, 0-d, in the units of the input."""
        return self.input_quantizer.clipping_range()

    @torch.no_grad()
    def scale_output(self, scale: Tensor) -> None:
        """Multiply what the weights give by the positive `scale` (out_channels,), in place and exactly, not the bias.

        The step size becomes per-channel and every integer state stays what it was (as in 2311.05109).
        """
        grid = self.weight_quantizer
        states = self.integer_state()
        grid.scale_steps(scale)
        self.weight.mul_(along_channels(scale, self.weight))
        moved = self.integer_state() != states  # by rounding, at a bin edge
        exact = states * along_channels(grid.effective_step_size(), states)
        self.weight.copy_(torch.where(moved, exact, self.weight))

    def extra_repr(self) -> str:
        """Return the convolution's own words and the bits."""
        return f"{super().extra_repr()}, bits={self.bits}"


def quantize(model: nn.Module, spec: QuantSpec, batches: Iterable[Tensor] | None) -> nn.Module:
    """Turn every nn.Conv2d of `model` into a QuantConv2d, in place, calibrate it on `batches` and return the model.

    `batches` gives float tensors (N, 3, H, W), images in 0..1; None leaves the quantizers uncalibrated, for a
    state_dict or for `calibrate` to fill. The ends are `model.end_layers` where the model names them, else the first
    and the last convolution. Batch norm is left alone. On ValueError (a model without convolutions or already
    quantized, no batch, values that are not finite) the model is as it was.
    """
    if is_quantized(model):
        raise ValueError(f"model is already quantized ({len(quant_layers(model))} layers); quantize a float model")
    convolutions, ends = _convolutions(model)
    layers = {
        name: QuantConv2d.from_float(conv, bits=spec.first_last_bits if name in ends else spec.bits, spec=spec)
        for name, conv in convolutions.items()
    }
    setattr(model, "quant_spec", spec)  # noqa: B010  # a plain attribute of any module: what a file needs to say of the structure
    try:
        return model if batches is None else calibrate(model, batches)
    except BaseException:  # Ctrl-C as well: half a calibration is no model
        for layer in layers.values():
            layer.to_float()
        del model.quant_spec
        raise


def _convolutions(model: nn.Module) -> tuple[dict[str, nn.Conv2d], set[str]]:
    """Return every convolution by its module name, in module order, and the names of the first and the last ones."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not found:
        raise ValueError(f"model has no nn.Conv2d to quantize, got {type(model).__name__}")
    for name, module in found.items():
        if type(module) is not nn.Conv2d:
            raise ValueError(f"layer {name!r} must be a plain nn.Conv2d, got {type(module).__name__}")
    ends = set(getattr(model, "end_layers", [next(iter(found)), next(reversed(found))]))
    if unknown := sorted(ends - found.keys()):
        raise ValueError(f"model.end_layers must name convolutions, got {unknown[0]!r}; there are {', '.join(found)}")
    return found, ends


def quant_layers(model: nn.Module) -> dict[str, QuantConv2d]:
    """Return every QuantConv2d in `model` by its module name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantConv2d)}


def is_quantized(model: nn.Module) -> bool:
    """Return whether `model` holds a QuantConv2d."""
    return any(isinstance(module, QuantConv2d) for module in model.modules())


def check_finite(model: nn.Module) -> None:
    """Raise ValueError, naming the layer, where a weight, bias or step size has no integer state: NaN or infinite."""
    for name, layer in quant_layers(model).items():
        values = {"weight": layer.weight, "bias": layer.bias, "step size": layer.weight_quantizer.step_size}
        for what, tensor in (values | {"input's step size": layer.input_quantizer.step_size}).items():
            if tensor is not None and not torch.isfinite(tensor).all():
                raise ValueError(f"layer {name!r}: its {what} holds nan or inf, which has no integer state")


def step_sizes(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every step size and offset by the name that model.named_parameters() has."""
    own = {id(parameter) for module in quantizers(model).values() for parameter in module.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}


def held_step_sizes(model: nn.Module) -> dict[str, int]:
    """Return in how many training steps each step size had to be held positive, by quantizer name, those alone that were.

    Logs one warning per quantizer. Synchronises with the device, so it is for once an epoch and not for every step.
    """
    found = quantizers(model)
    counts = torch.stack([module.held.max() for module in found.values()]).tolist() if found else []
    held = {name: count for name, count in zip(found, counts, strict=True) if count}
    for name, count in held.items():
        if not found[name].warned:
            logger.warning("step size of %s fell to its floor and was held positive in %d training steps", name, count)
            found[name].warned = True
    return held

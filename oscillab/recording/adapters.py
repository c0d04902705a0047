"""Show layers of other libraries to the recorder.

`record(adapt(model), optimizer)`: each layer that is known here gets the recorder's three methods (see `layers.py`), as
attributes of its own; its forward pass, parameters and state_dict stay as they are. Known are layers of Brevitas, layers
with a fake-quantize module of torch.ao or torchao, and weights under `torch.nn.utils.parametrize`. No library is
imported: a layer is known by what it has. A layer of your own needs no adapter, only the three methods.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Range = tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Adapter:
    """How one kind of layer is read; each function takes the module."""

    knows: Callable[[Any], bool]
    quantized_weight: Callable[[Any], Tensor]  # as the forward pass uses it, whole multiples of the step size
    step_size: Callable[[Any], Tensor]  # one, one per channel, or of a shape that is broadcast over the weight
    bits: Callable[[Any], int | None] = lambda module: None  # None: the fewest that hold the states
    latent_weight: Callable[[Any], Tensor] = lambda module: module.weight
    activation_range: Callable[[Any], Range] = lambda module: None  # none, or not the same from batch to batch
    channel_axis: Callable[[Any], int | None] = lambda module: None  # of step sizes (channels,), where it is said

    def attributes(self, module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return what the recorder asks a layer for, by name; `shape` is that of its step sizes over the weight."""

        def integer_state(module: nn.Module) -> Tensor:
            states = self.quantized_weight(module).detach() / self.step_size(module).detach().reshape(shape)
            return states.round().to(torch.int8)

        def weight_step_size(module: nn.Module) -> Tensor:
            step = self.step_size(module).detach().reshape(shape)
            return step.reshape(-1) if step.ndim and len(step) > 1 else step

        functions = {"integer_state": integer_state, "weight_step_size": weight_step_size}
        functions |= {name: getattr(self, name) for name in ("activation_range", "latent_weight")}
        methods = {name: MethodType(function, module) for name, function in functions.items()}
        bits = None if hasattr(module, "bits") else self.bits(module)
        return methods if bits is None else methods | {"bits": bits}


def brevitas_range(module: Any) -> Range:
    """Return both ends of the grid of a Brevitas layer's input quantizer, where it has one of its own."""
    grid = module.input_quant
    if not grid.is_quant_enabled:
        return None
    levels, scale, zero = 2 ** grid.bit_width(), grid.scale().detach(), grid.zero_point().detach()
    low, high = (-levels / 2, levels / 2 - 1) if grid.is_signed else (0 * levels, levels - 1)
    if grid.is_narrow_range:
        low, high = (low + 1, high) if grid.is_signed else (low, high - 1)
    return ((low - zero) * scale).reshape(()), ((high - zero) * scale).reshape(())


def fused_weight(module: Any) -> Tensor:
    """Return a torch.ao layer's weight, times what the batch norm makes of it where the two are fused (ConvBn2d)."""
    weight: Tensor = module.weight
    if (norm := getattr(module, "bn", None)) is None:
        return weight
    slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    scaled: Tensor = weight * slope.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled


def fake_quantized(module: Any) -> Tensor:
    """Return a torch.ao layer's weight as its fake-quantize module rounds it, the module's observer left alone."""
    weight, grid = fused_weight(module), module.weight_fake_quant
    scale, zero = grid.scale.detach(), grid.zero_point.detach().to(torch.int32)
    if scale.numel() == 1:
        ends = grid.quant_min, grid.quant_max
        return torch.fake_quantize_per_tensor_affine(weight, scale.reshape(()), zero.reshape(()), *ends)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, grid.ch_axis, grid.quant_min, grid.quant_max)


def fresh_scale(module: Any) -> Tensor:
    """Return the scale of torchao's quantizer for the weights as they are now; each call of it finds a new one."""
    module.weight_fake_quantizer(module.weight)
    scale: Tensor = module.weight_fake_quantizer.scale
    return scale


def last_step(module: Any) -> Any:
    """Return the last parametrization of a weight, None where there is none."""
    return module.parametrizations["weight"][-1] if parametrize.is_parametrized(module, "weight") else None


def own_step_size(module: Any) -> Any:
    """Return the `step_size` or `scale` of the last parametrization of a weight, None where it has neither."""
    return getattr(last_step(module), "step_size", getattr(last_step(module), "scale", None))


def before_last(module: Any) -> Tensor:
    """Return a weight before its last parametrization."""
    value: Tensor = module.parametrizations["weight"].original
    for step in list(module.parametrizations["weight"])[:-1]:
        value = step(value)
    return value


BREVITAS = Adapter(
    knows=lambda m: hasattr(m, "quant_weight") and bool(getattr(m.weight_quant, "is_quant_enabled", False)),
    quantized_weight=lambda m: m.quant_weight().value,
    step_size=lambda m: m.quant_weight().scale,
    bits=lambda m: int(m.weight_quant.bit_width()),
    activation_range=brevitas_range,
)
TORCH_AO = Adapter(  # its step size is the one of the forward pass before
    knows=lambda m: hasattr(getattr(m, "weight_fake_quant", None), "quant_min") and hasattr(m, "weight"),
    quantized_weight=fake_quantized,
    step_size=lambda m: m.weight_fake_quant.scale,
    bits=lambda m: int(m.weight_fake_quant.quant_max - m.weight_fake_quant.quant_min).bit_length(),
    latent_weight=fused_weight,
    channel_axis=lambda m: int(m.weight_fake_quant.ch_axis),
)
TORCHAO = Adapter(
    knows=lambda m: hasattr(getattr(m, "weight_fake_quantizer", None), "config") and hasattr(m, "weight"),
    quantized_weight=lambda m: m.weight_fake_quantizer(m.weight),
    step_size=fresh_scale,
)
PARAMETRIZED = Adapter(
    knows=lambda m: own_step_size(m) is not None,
    quantized_weight=lambda m: m.weight,
    step_size=own_step_size,
    bits=lambda m: getattr(last_step(m), "bits", None),
    latent_weight=before_last,
)
ADAPTERS = (BREVITAS, TORCH_AO, TORCHAO, PARAMETRIZED)


@torch.no_grad()
def adapt(model: nn.Module) -> nn.Module:
    """Make the quantized layers of `model` ready for `record`, in place; `release` takes the methods off again.

    Copies and state_dicts work meanwhile; to pickle the model as a whole, release it first. Raises ValueError, and
    leaves the model as it was, when no layer is known or the recorder cannot hold one: step sizes that are not one per
    layer or per channel, states beyond 8 bits, or a step size that no forward pass has set yet.
    """
    modules = [pair for pair in model.named_modules() if not callable(getattr(pair[1], "integer_state", None))]
    known = [(name, module, one) for name, module in modules for one in ADAPTERS if one.knows(module)]
    if not known:
        raise ValueError(
            f"no layer of this {type(model).__name__} is of a known kind (Brevitas, torch.ao or torchao fake "
            "quantization, a parametrized weight); give your layers the three methods of oscillab.recording.layers"
        )
    try:
        for name, module, adapter in known:
            attributes = adapter.attributes(module, checked_shape(name, module, adapter))
            vars(module).update(attributes, adapted=tuple(attributes))
    except ValueError:
        release(model)
        raise
    return model


def release(model: nn.Module) -> nn.Module:
    """Take the methods that `adapt` gave its layers off `model`, in place."""
    for module in model.modules():
        for name in vars(module).pop("adapted", ()):
            del vars(module)[name]
    return model


def checked_shape(name: str, module: nn.Module, adapter: Adapter) -> tuple[int, ...]:
    """Return how a layer's step sizes lie over its weight; raise ValueError when the recorder cannot hold them.

    Where the layer does not say which axis (channels,) step sizes belong to, it is the one that gives whole states.
    """
    quantized, step = adapter.quantized_weight(module), adapter.step_size(module)
    shapes = list(step_shapes(tuple(step.shape), tuple(quantized.shape), adapter.channel_axis(module)))
    if not shapes:
        raise ValueError(
            f"layer {name!r} has {step.numel()} step sizes for {quantized.shape[0]} output channels; the recorder "
            "takes one per layer or one per channel"
        )
    ratios = [quantized / step.reshape(shape) for shape in shapes]
    allowed = [1e-3 + torch.finfo(ratio.dtype).eps * ratio.abs().max() for ratio in ratios]  # of their rounding
    whole = [bool((ratio - ratio.round()).abs().max() <= most) for ratio, most in zip(ratios, allowed, strict=True)]
    states = ratios[whole.index(True) if any(whole) else 0].round()
    if not bool(torch.isfinite(states).all()) or states.min() < -128 or states.max() > 127:
        raise ValueError(
            f"layer {name!r} has states {states.min():g}..{states.max():g}, the recorder takes -128..127 (8 bits); "
            "where its step size was never set, run one forward pass first"
        )
    if not any(whole):
        raise ValueError(
            f"the weights of layer {name!r} are no whole multiples of its step sizes, of shape {tuple(step.shape)} for "
            f"weights of shape {tuple(quantized.shape)}: it is not known which weight has which"
        )
    return shapes[whole.index(True)]


def step_shapes(given: tuple[int, ...], shape: tuple[int, ...], axis: int | None) -> Iterator[tuple[int, ...]]:
    """Yield how step sizes of shape `given` may lie over weights of `shape`; `axis` where the layer says it."""
    count = torch.Size(given).numel()
    if count == 1:
        yield ()
    elif len(given) == len(shape) > 1:
        if all(n in (1, own) for n, own in zip(given, shape, strict=True)) and count in shape:
            yield given
    else:
        for at in range(len(shape)) if axis is None else (axis,):
            if count == shape[at]:
                yield tuple(count if i == at else 1 for i in range(len(shape)))

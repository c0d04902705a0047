"""How does the recorder look into the layers of other libraries?

`record(adapt(model), optimizer)`: each layer that is known here gets the recorder's three methods (see `watched.py`),
as attributes of its own; its forward pass, parameters and state_dict stay as they are. Known are layers of Brevitas,
layers with a fake-quantize module of torch.ao or torchao, and weights under `torch.nn.utils.parametrize`. No library is imported: a layer is known by what it has. A layer of your own needs no adapter, only
the three methods.
"""

from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Adapter:
    """What an adapter says of a module that it `knows`: its quantized weight, its step size, and what may be left out."""

    @staticmethod
    def activation_range(module: nn.Module) -> tuple[Tensor, Tensor] | None:
        """None: the layer has no quantizer for its input, or one that does not stay the same from batch to batch."""
        return None

    @staticmethod
    def latent_weight(module: nn.Module) -> Tensor:
        """The weight before rounding."""
        return module.weight

    @staticmethod
    def bits(module: nn.Module) -> int | None:
        """The bits of the weights; None lets the recorder take the fewest that hold the states."""
        return None

    @classmethod
    def attributes(cls, module: nn.Module) -> dict:
        """What the recorder asks a layer for, by name: methods of the module, and its bits where they are known."""

        def integer_state(module: nn.Module) -> Tensor:
            return states_of(cls.quantized_weight(module), cls.step_size(module)).to(torch.int8)

        def weight_step_size(module: nn.Module) -> Tensor:
            return flat(cls.step_size(module).detach())

        functions = {"integer_state": integer_state, "weight_step_size": weight_step_size}
        functions |= {"activation_range": cls.activation_range, "latent_weight": cls.latent_weight}
        methods = {name: MethodType(function, module) for name, function in functions.items()}
        bits = None if hasattr(module, "bits") else cls.bits(module)
        return methods if bits is None else methods | {"bits": bits}


class Brevitas(Adapter):
    """`brevitas.nn.QuantConv2d`, `QuantLinear` and the like."""

    @staticmethod
    def knows(module):
        return hasattr(module, "quant_weight") and getattr(module.weight_quant, "is_quant_enabled", False)

    @staticmethod
    def quantized_weight(module):
        return module.quant_weight().value

    @staticmethod
    def step_size(module):
        return module.quant_weight().scale

    @staticmethod
    def bits(module):
        return int(module.weight_quant.bit_width())

    @staticmethod
    def activation_range(module):
        """The grid of the input quantizer, where the layer has one of its own."""
        grid = module.input_quant
        if not grid.is_quant_enabled:
            return None
        levels, scale, zero = 2 ** grid.bit_width(), grid.scale().detach(), grid.zero_point().detach()
        low, high = (-levels / 2, levels / 2 - 1) if grid.is_signed else (0 * levels, levels - 1)
        if grid.is_narrow_range:
            low, high = (low + 1, high) if grid.is_signed else (low, high - 1)
        return ((low - zero) * scale).reshape(()), ((high - zero) * scale).reshape(())


class FakeQuantized(Adapter):
    """torch.ao's QAT layers, with a `weight_fake_quant`; the step size is the one of the forward pass before."""

    @staticmethod
    def knows(module):
        return hasattr(getattr(module, "weight_fake_quant", None), "quant_min") and hasattr(module, "weight")

    @classmethod
    def quantized_weight(cls, module):
        return fake_quantized(cls.latent_weight(module), module.weight_fake_quant)

    @staticmethod
    def step_size(module):
        return module.weight_fake_quant.scale

    @staticmethod
    def bits(module):
        grid = module.weight_fake_quant
        return (grid.quant_max - grid.quant_min).bit_length()

    @staticmethod
    def latent_weight(module):
        """The weight, times what the batch norm makes of it where the two are fused (ConvBn2d)."""
        norm = getattr(module, "bn", None)
        if norm is None:
            return module.weight
        slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return module.weight * slope.reshape(-1, *[1] * (module.weight.ndim - 1))


class TorchAo(Adapter):
    """torchao's `FakeQuantizedLinear`, whose quantizer finds its step size anew in every forward pass."""

    @staticmethod
    def knows(module):
        return hasattr(getattr(module, "weight_fake_quantizer", None), "config") and hasattr(module, "weight")

    @staticmethod
    def quantized_weight(module):
        return module.weight_fake_quantizer(module.weight)

    @classmethod
    def step_size(cls, module):
        cls.quantized_weight(module)  # sets the step size of the weights as they are now
        return module.weight_fake_quantizer.scale


class Parametrized(Adapter):
    """A weight whose last parametrization is a quantizer with a `step_size` or a `scale`."""

    @staticmethod
    def knows(module):
        if not parametrize.is_parametrized(module, "weight"):
            return False
        last = module.parametrizations["weight"][-1]
        return hasattr(last, "step_size") or hasattr(last, "scale")

    @staticmethod
    def quantized_weight(module):
        return module.weight

    @staticmethod
    def step_size(module):
        last = module.parametrizations["weight"][-1]
        return last.step_size if hasattr(last, "step_size") else last.scale

    @staticmethod
    def bits(module):
        return getattr(module.parametrizations["weight"][-1], "bits", None)

    @staticmethod
    def latent_weight(module):
        """The weight before its last parametrization."""
        *earlier, _ = module.parametrizations["weight"]
        value = module.parametrizations["weight"].original
        for step in earlier:
            value = step(value)
        return value


ADAPTERS = (Brevitas, FakeQuantized, TorchAo, Parametrized)


@torch.no_grad()
def adapt(model: nn.Module) -> nn.Module:
    """`model` itself, its quantized layers ready for `record`; `release` takes the methods off again.

    Copies and state_dicts work meanwhile; to pickle the model as a whole, release it first. Raises ValueError, and
    leaves the model as it was, when no layer is known or the recorder cannot hold one: more than one step size per
    output channel, states beyond 8 bits, or a step size that no forward pass has set yet.
    """
    known = {name: (module, adapter) for name, module in model.named_modules() if (adapter := adapter_for(module))}
    if not known:
        raise ValueError(
            f"no layer of this {type(model).__name__} is of a known kind (Brevitas, torch.ao or torchao fake "
            "quantization, a parametrized weight); give your layers the three methods of oscillab.recording.watched"
        )
    try:
        for name, (module, adapter) in known.items():
            check(name, module, adapter)
            vars(module).update(attributes := adapter.attributes(module), adapted=tuple(attributes))
    except ValueError:
        release(model)
        raise
    return model


def release(model: nn.Module) -> nn.Module:
    """`model` itself without the methods that `adapt` gave its layers."""
    for module in model.modules():
        for name in vars(module).pop("adapted", ()):
            del vars(module)[name]
    return model


def adapter_for(module: nn.Module) -> type[Adapter] | None:
    """The adapter that knows a module; None for other modules and for those that have the methods already."""
    if callable(getattr(module, "integer_state", None)):
        return None
    return next((adapter for adapter in ADAPTERS if adapter.knows(module)), None)


def check(name: str, module: nn.Module, adapter: type[Adapter]) -> None:
    """Raise ValueError when the recorder cannot hold what a layer says of itself."""
    quantized, step_size = adapter.quantized_weight(module), adapter.step_size(module)
    if step_size.numel() not in (1, quantized.shape[0]):
        raise ValueError(
            f"layer {name!r} has {step_size.numel()} step sizes for {quantized.shape[0]} output channels; the recorder "
            "takes one per layer or one per output channel"
        )
    states = states_of(quantized, step_size)
    if not bool(torch.isfinite(states).all()) or states.abs().max() > 128 or states.max() > 127:
        raise ValueError(
            f"layer {name!r} has states {states.min():g}..{states.max():g}, the recorder takes -128..127 (8 bits); "
            "where its step size was never set, run one forward pass first"
        )


def fake_quantized(weight: Tensor, grid: nn.Module) -> Tensor:
    """`weight` as a fake-quantize module of torch.ao or torchao rounds it, its observer left alone."""
    scale, zero, limits = grid.scale.detach(), grid.zero_point.detach(), (grid.quant_min, grid.quant_max)
    if scale.numel() == 1:
        zero = zero.to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(weight, scale.reshape(()), zero.reshape(()), *limits)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero.to(torch.int32), grid.ch_axis, *limits)


def states_of(quantized: Tensor, step_size: Tensor) -> Tensor:
    """The integer states of quantized weights, 0 where they are 0; `step_size` is one, or one per output channel."""
    step = step_size.detach()
    step = step.reshape(()) if step.numel() == 1 else step.reshape(-1, *[1] * (quantized.ndim - 1))
    return (quantized.detach() / step).round()


def flat(step_size: Tensor) -> Tensor:
    """A step size as 0-d, or (C,)."""
    return step_size.reshape(()) if step_size.numel() == 1 else step_size.reshape(-1)

"""Ask what oscillation comes from, with two remedies of the ablation: Q-EMA, and step sizes that stop late in training.

`QEma` rounds a latent weight to that one of its two neighbours on the grid that is nearer to the weight's moving average
(TetraJet, 2502.20853). Unlike the paper's average, which is passive, this one feeds back into training; unlike freezing, it
lets a weight go that truly moves. With `ScaleFreezing` (asked for by OFQ, 2302.02210, and by Fig. 2 of 2311.05109) weights
can still flip, but no longer because the step size moved all bin edges of a layer under them.
"""

from collections.abc import Collection
from typing import Any, Self

import torch
from torch import Tensor, nn

from oscillab.quant import QuantConv2d, step_sizes
from oscillab.quant.lsq import along_channels, integer_state
from oscillab.train.ema import decay_for
from oscillab.train.remedies import Remedy, check_share

PARTS = {"weights": "weight_quantizer.", "activations": "input_quantizer."}
ALL = tuple(PARTS)


class QEmaConv2d(QuantConv2d):
    """A QuantConv2d whose weights are rounded as their average says; the buffer `weight_average` holds it."""

    weight_average: Tensor

    @classmethod
    def from_quantized(cls, conv: QuantConv2d) -> "QEmaConv2d":
        """Turn `conv` into one of these, its average at its weight (in place)."""
        conv.__class__ = cls
        conv.register_buffer("weight_average", conv.weight.detach().clone())
        return conv  # type: ignore[return-value]  # its class was changed

    def to_quantized(self) -> QuantConv2d:
        """Turn this module back, with each weight moved into the bin that was decided for it (in place)."""
        with torch.no_grad():
            decided, plain = self._decided(), self._plain()
            step = along_channels(self.weight_step_size(), self.weight)
            self.weight.copy_(torch.where(decided == plain, self.weight, decided * step))
        del self.weight_average
        self.__class__ = QuantConv2d  # type: ignore[assignment]  # as above
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the quantized input with the weights as rounded by their average."""
        return self._conv_forward(self.input_quantizer(x), self._quantized_weight(), self.bias)

    def integer_state(self) -> Tensor:  # what the recorder, an `Ema` and evaluation see
        """Return the integer state of every weight as the forward pass uses it, int8, of the weight's shape."""
        return self._decided().to(torch.int8)

    def _quantized_weight(self) -> Tensor:
        """Return s * state; straight through to w as LSQ has it, and to s the state minus w / s."""
        grid = self.weight_quantizer
        if not grid.enabled:
            return self.weight
        decided, step_size = self._decided(), torch.maximum(grid.step_size, grid.floor)
        slow = step_size * grid._gradient_scale(self.weight)
        step = along_channels(slow + (step_size - slow).detach(), self.weight)  # the step size, LSQ's scaled gradient
        straight = grid(self.weight) + step * (decided - self._plain())
        return _Instead.apply(straight, decided * along_channels(grid.effective_step_size(), self.weight))

    @torch.no_grad()
    def _decided(self) -> Tensor:
        """Return clip(round(average / s), floor(w / s), ceil(w / s)), within the grid."""
        grid = self.weight_quantizer
        position = self.weight / along_channels(grid.effective_step_size(), self.weight)
        average = integer_state(self.weight_average, grid.effective_step_size(), grid.low, grid.high)
        return average.clamp_(position.floor(), position.ceil()).clamp_(grid.low, grid.high)

    def _plain(self) -> Tensor:
        grid = self.weight_quantizer
        return integer_state(self.weight, grid.effective_step_size(), grid.low, grid.high)


class _Instead(torch.autograd.Function):
    """`value` in the forward pass, `x` in the backward pass: x + (value - x) loses the last digit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class QEma(Remedy):
    """Rounds every weight as its moving average says.

    `decay`: of the average, 0.998 in the paper's runs of some 100,000 steps; None takes `decay_for`'s share of the run.
    Attach it before an `Ema` is built (which must have the averages too). `finalize` the model, and the average, before
    anything that comes after training: saving, correcting, soft rounding.
    """

    def __init__(self, model: nn.Module, optimizer: Any, total_steps: int, *, decay: float | None = None):
        self.decay = decay_for(total_steps) if decay is None else decay
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in 0 <= decay < 1, got {decay}")
        super().__init__(model, optimizer, total_steps)

    def attach(self) -> Self:
        """Switch the remedy on: every layer gets its average."""
        for layer in self.layers:
            QEmaConv2d.from_quantized(layer)
        return super().attach()

    def after_step(self) -> None:
        """Update every average once."""
        averages: list[Any] = [layer.weight_average for layer in self.layers]
        torch._foreach_lerp_(averages, [layer.weight for layer in self.layers], 1 - self.decay)

    def finalize(self, model: Any) -> Any:
        """Turn every QEmaConv2d of the model, a copy or an average of it back into a QuantConv2d (in place)."""
        for module in list(model.modules()):
            if isinstance(module, QEmaConv2d):
                module.to_quantized()
        return model


class ScaleFreezing(Remedy):
    """Holds every step size (and offset) from `begin` of the run on, to the bit.

    `parts`: the step sizes of "weights", of "activations" or both. `remove` lets them learn again.
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, total_steps: int, *, begin: float = 0.75, parts: Collection[str] = ALL
    ):
        if not parts or set(parts) - set(PARTS):
            raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(parts) or 'none'}")
        self.begin, self.parts = check_share("begin", begin), tuple(parts)
        self.held: list[nn.Parameter] = []
        super().__init__(model, optimizer, total_steps)

    def attach(self) -> Self:
        """Switch the remedy on."""
        self.after_step()
        return super().attach()

    def after_step(self) -> None:
        """Hold the step sizes when `begin` has come."""
        if self.held or self.share < self.begin:
            return
        chosen = [p for name, p in step_sizes(self.model).items() if any(PARTS[part] in name for part in self.parts)]
        self.held = [parameter for parameter in chosen if parameter.requires_grad]
        for parameter in self.held:
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer leaves alone what has no gradient, momentum or not

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        super().load_state_dict(state)
        self._release()
        self.after_step()

    def remove(self) -> None:
        """Switch the remedy off: the step sizes learn again."""
        super().remove()
        self._release()

    def _release(self) -> None:
        for parameter in self.held:
            parameter.requires_grad_(True)
        self.held = []

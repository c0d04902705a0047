"""Act against oscillations during training: what all remedies share.

A remedy needs no other place in the training loop than the loss: within a block, or between `attach` and `remove`, it counts
the optimizer's steps itself and acts right before and after them.
"""

import logging
import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from oscillab.quant import quant_layers
from oscillab.recording.observers import hooked, skipped

log = logging.getLogger(__name__)


class Remedy:
    """Training without a remedy; subclasses say what happens before and after a step, and to the loss.

    Attach it after the optimizer was built, and before an `Ema`. It acts ahead of other hooks of the optimizer (a recorder
    sees what the next forward pass sees), whose wrappers it looks through, and leaves out steps that a gradient scaler
    skipped. A context manager: leaving the block takes the hooks off.
    """

    def __init__(self, model: nn.Module, optimizer: Any, total_steps: int):
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        self.layers = list(quant_layers(model).values())
        if not self.layers:
            raise ValueError(f"a remedy needs a quantized model, this {type(model).__name__} has no quantized layer")
        self.model, self.optimizer, self.total_steps, self.step_count = model, hooked(optimizer), total_steps, 0
        self._handles: list[Any] = []

    @property
    def share(self) -> float:
        """How much of the run is over, 0..1."""
        return min(1.0, self.step_count / self.total_steps)

    def loss(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Return the loss to train with, in place of `loss`."""
        return loss

    def before_step(self) -> None:
        """Act with every gradient in place, without recording a graph."""

    def after_step(self) -> None:
        """Act when the weights have moved and `step_count` counts the step, without recording a graph."""

    def finalize(self, model: Any) -> Any:
        """Turn the model, a copy or an average of it into plain layers of the same integer states (in place)."""
        return model

    def attach(self) -> Self:
        """Switch the remedy on."""
        warn_untrained(self.model, self.optimizer)
        after = self.optimizer.register_step_post_hook(self._after)
        self.optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)  # as prepend does for module hooks
        self._handles = [self.optimizer.register_step_pre_hook(self._before), after]
        return self

    def remove(self) -> None:
        """Switch the remedy off; what it did to the model stays."""
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run needs to continue, in tensors and plain containers."""
        return {"step_count": self.step_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`; the model's own state is loaded first."""
        self.step_count = int(state["step_count"])

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        self.before_step()

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        if not skipped(self.optimizer):
            self.step_count += 1
            self.after_step()


def warn_untrained(model: nn.Module, optimizer: Any) -> None:
    """Log a warning where parameters that need gradients are not the optimizer's, such as step sizes made after it."""
    owned = {id(parameter) for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if missing := [name for name, parameter in trained if id(parameter) not in owned]:
        text = "%d of %d parameters are not in the optimizer and stay as they are (%s): build it after quantize"
        log.warning(text, len(missing), len(trained), missing[-1])


def cosine_between(start: float, end: float, share: float, *, begin: float = 0.25) -> float:
    """Return the value at `share` (0..1) of a run: `start` until `begin`, then half a cosine to `end` (code of 2203.11086)."""
    if share <= begin:
        return start
    relative = min(1.0, (share - begin) / (1 - begin))
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * relative))


def check_share(name: str, value: float) -> float:
    """Return `value` where it is a share of a run, 0 to below 1; raise ValueError otherwise."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in 0 <= {name} < 1 (a share of the run), got {value}")
    return value

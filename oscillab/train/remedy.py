"""What do all remedies share, so that an ablation is a loop over a list?

A remedy is built from (model, optimizer, total_steps) and needs no other place in the training loop than the loss. It
counts the optimizer's steps itself, acts right before and after them, and can be removed at any time.
"""

import torch

from oscillab.quant import quant_layers


class Remedy:
    """Training without a remedy; subclasses say what happens before and after a step, and to the loss.

    Build it after the optimizer, and before an `Ema`. It acts ahead of other hooks of the optimizer (a recorder sees
    what the next forward pass sees). A context manager: leaving the block takes the hooks off.
    """

    def __init__(self, model, optimizer, total_steps):
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}")
        self.layers = list(quant_layers(model).values())
        if not self.layers:
            raise ValueError(f"a remedy needs a quantized model, this {type(model).__name__} has no quantized layer")
        self.model, self.total_steps, self.step_count = model, total_steps, 0
        before = optimizer.register_step_pre_hook(self._before)
        after = optimizer.register_step_post_hook(self._after)
        optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)  # what prepend does for module hooks
        self._handles = [before, after]

    @property
    def share(self):
        """How much of the run is over, 0..1."""
        return min(1.0, self.step_count / self.total_steps)

    def loss(self, loss):
        """The loss to train with, in place of `loss`."""
        return loss

    def before_step(self):
        """Called with every gradient in place, without recording a graph."""

    def after_step(self):
        """Called when the weights have moved and `step_count` counts the step, without recording a graph."""

    def settle(self, model):
        """The model (in place) as one that needs the remedy no more: plain layers, the same integer states."""
        return model

    def remove(self):
        """Switch the remedy off for good; what it did to the model stays."""
        for handle in self._handles:
            handle.remove()

    def state_dict(self):
        """What a later run needs to continue, in tensors and plain containers."""
        return {"step_count": self.step_count}

    def load_state_dict(self, state):
        """Continue from `state`, made by `state_dict`; the model's own state is loaded first."""
        self.step_count = int(state["step_count"])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()

    def _before(self, *_):
        with torch.no_grad():
            self.before_step()

    def _after(self, *_):
        self.step_count += 1
        with torch.no_grad():
            self.after_step()

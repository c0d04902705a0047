"""Register hooks on many modules and remove all of them at the end of a block, whatever happens in it."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn


class Hooks(ExitStack):
    """A context manager whose hooks are gone after the block.

    >>> import torch
    >>> layer = nn.Identity()
    >>> with Hooks() as hooks:
    ...     hooks.before(layer, lambda module, inputs: print("input", inputs[0].item()))
    ...     hooks.after(layer, lambda module, inputs, output: print("output", output.item()))
    ...     _ = layer(torch.tensor(2.0))
    input 2.0
    output 2.0
    >>> _ = layer(torch.tensor(3.0))
    """

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook(module, inputs)` before each forward pass of `module`; what it returns replaces the inputs."""
        self.callback(module.register_forward_pre_hook(hook).remove)

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook(module, inputs, output)` after each forward pass; what it returns replaces the output."""
        self.callback(module.register_forward_hook(hook).remove)


def is_hooked(model: nn.Module) -> bool:
    """Return whether a hook looks at the forward pass of a module, of all modules or of one of the model's."""
    if nn.modules.module._has_any_global_hook():
        return True
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

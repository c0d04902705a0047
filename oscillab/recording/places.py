"""Is every layer still the one that recording began with?"""

from collections.abc import Sequence

from torch import nn


class Places:
    """Where the recorded layers and the modules above them hang, and what hung there when recording began.

    `layers` are the `Layer`s of `watched.py`.
    """

    def __init__(self, model: nn.Module, layers: Sequence):
        self._layers = layers
        self._hung = hung(model, {layer.name for layer in layers})

    def check(self) -> None:
        """Raise ValueError, in one line that names it, when a layer, its class or its weight was replaced."""
        for name, modules, key, module in self._hung:
            if modules.get(key) is not module:
                became = f"{kind(module)} became {kind(modules.get(key))}"
                raise ValueError(f"layer '{name}' was replaced during recording ({became})")
        for layer in self._layers:
            if type(layer.module) is not layer.kind:
                became = f"{layer.kind.__name__} became {kind(layer.module)}"
                raise ValueError(f"layer '{layer.name}' changed its class during recording ({became})")
            if layer.weight is not None and layer.module._parameters.get("weight") is not layer.weight:
                raise ValueError(f"the weight of layer '{layer.name}' was replaced by another during recording")


def hung(model: nn.Module, names: set[str]) -> list[tuple[str, dict, str, nn.Module]]:
    """Where each layer and each module above it hangs: (name, the parent's modules, key, module).

    A look-up here is ten times cheaper than `get_submodule`, and sees a swapped block as well as a swapped layer.
    """
    wanted = {name.rsplit(".", n)[0] for name in names for n in range(name.count(".") + 1)} - {""}
    modules = dict(model.named_modules(remove_duplicate=False))
    found = []
    for name in sorted(wanted):
        parent, _, key = name.rpartition(".")
        found.append((name, modules[parent]._modules, key, modules[name]))
    return found


def kind(module) -> str:
    """The class of a module in words."""
    return "nothing" if module is None else type(module).__name__

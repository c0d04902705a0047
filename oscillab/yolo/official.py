"""Find the tensors, classes and constants of a network in what an official file holds: a pickled module, or tensors."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from .pt_file import Inert

# Bounds on what is walked, far above any real network: a few bytes of pickle can describe a tree without end
MAX_MODULES = 10_000  # YOLOv5x has 567
MAX_DEPTH = 16  # YOLOv5x has 5
MAX_OWN_TENSORS = 100  # of one module; a BatchNorm has 5
MAX_KEY = 500  # characters

PLACES = ("ema", "model", "state_dict", "model_state_dict")  # of a network in a file, the averaged weights preferred
COUNTERS = ("total_ops", "total_params")  # buffers that the thop package leaves in a network


def read_official(content: Any) -> dict[str, Any]:
    """Return the fields of a `Checkpoint` from the content of a file that oscillab did not write."""
    content = content if isinstance(content, dict) else {"model": content}
    if {"model", "trainer"} <= content.keys():
        raise ValueError("is the state of an interrupted run; go on with it by --resume")
    epoch = plain(content.get("epoch"), int)
    found_in = (content[place] for place in PLACES if content.get(place) is not None)
    model = next((value for value in found_in if not isinstance(value, dict) or value), content)
    if isinstance(model, dict):
        return {"epoch": epoch, **read_tensors(model)}
    if not (isinstance(model, Inert) and isinstance(model.state, dict) and "_modules" in model.state):
        raise ValueError("holds no network: neither a pickled module under 'ema' or 'model' nor a state_dict")
    modules = list(islice(walk(model), MAX_MODULES + 1))
    if len(modules) > MAX_MODULES:
        raise ValueError(f"its network must have at most {MAX_MODULES} modules")
    found = read_tensors({key: tensor for prefix, module in modules for key, tensor in own_tensors(prefix, module)})
    names, notes = class_names(model.state.get("names"))
    stride, strides = model.state.get("stride"), {}
    if isinstance(stride, Tensor) and stride.ndim == 1 and len(stride) <= 8:
        strides = {"strides": tuple(int(pixels) for pixels in stride)}
    return {
        **found,
        "classes": plain(model.state.get("nc"), int),
        "names": names,
        "notes": found["notes"] + notes,
        "epoch": epoch,
        **read_modules(module for _, module in modules),
        **strides,
    }


def read_tensors(state: Any) -> dict[str, Any]:
    """Return the tensors under the names that the network itself gives them, and notes on what was changed."""
    state, notes = dict(tensors(state)), list[str]()
    counters = [key for key in state if key.split(".")[-1] in COUNTERS]
    if counters:
        notes.append(f"{len(counters)} counters of operations, left by thop, are left out")
        state = {key: tensor for key, tensor in state.items() if key not in counters}
    while state and all(key.startswith("module.") for key in state):  # of DataParallel, which may be wrapped twice
        notes.append("'module.' before its keys, from parallel training, is left out")
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return {"state": state, "notes": tuple(notes)}


def walk(module: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (prefix of its keys, record) of a pickled module and of all below it, in the order of `state_dict()`."""
    if depth > MAX_DEPTH or len(prefix) > MAX_KEY:
        raise ValueError(f"its modules must be at most {MAX_DEPTH} deep, with keys of at most {MAX_KEY} characters")
    yield prefix, module
    for name, child in module.state["_modules"].items():
        yield from walk(child, f"{prefix}{name}.", depth + 1)


def own_tensors(prefix: str, module: Any) -> list[tuple[str, Tensor]]:
    """Return (key, tensor) of a pickled module's own parameters and of the buffers that a state_dict holds."""
    left_out = module.state.get("_non_persistent_buffers_set")
    left_out = left_out.arguments[0] if isinstance(left_out, Inert) and left_out.arguments else ()
    parameters, buffers = module.state["_parameters"], module.state["_buffers"]
    if len(parameters) + len(buffers) + len(left_out) > MAX_OWN_TENSORS:
        raise ValueError(f"a module must have at most {MAX_OWN_TENSORS} tensors of its own")
    both = (*parameters.items(), *buffers.items())
    return [(prefix + name, tensor) for name, tensor in both if isinstance(tensor, Tensor) and name not in left_out]


def read_modules(modules: Iterable[Any]) -> dict[str, Any]:
    """Return what the pickled modules tell beyond their tensors: classes, activations, constants of BatchNorm."""
    activations, kinds = set(), set()
    pairs: set[tuple[float, float]] = set()
    for module in modules:
        kind = module.name.split(".")[-1]
        kinds.add(module.name)
        if ".activation." in module.name:
            activations.add(kind)
        if kind == "BatchNorm2d":
            pair = module.state["eps"], module.state["momentum"]
            pairs.update({pair} if all(isinstance(value, float) for value in pair) else ())
    bn = pairs.pop() if len(pairs) == 1 else None
    return {"activations": frozenset(activations), "bn": bn, "kinds": frozenset(kinds)}


def plain(value: Any, kind: type) -> Any:
    """Return `value`, which must be None or a `kind`."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"holds a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def tensors(state: Any) -> dict[str, Tensor]:
    """Return `state` after a check that it maps names to tensors."""
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError("holds no network: expected a state_dict, a mapping of names to tensors")
    return state


def class_names(names: Any) -> tuple[list[str] | None, tuple[str, ...]]:
    """Return the class names from a list, or from a dict by class number (as text, too), and notes on names given up."""
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names, key=int)]
        except (TypeError, ValueError):
            return None, ("its class names have no numbers to order them by; numbers are used",)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return list(names), ()
    return None, () if names is None else ("its class names are not all text; numbers are used",)

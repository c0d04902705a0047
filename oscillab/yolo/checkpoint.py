"""Which network does a checkpoint hold: its weights, classes, anchors and strides?

Read are official YOLOv5 and YOLOv7 files (a pickled module, full or stripped), this project's own, and plain
`state_dict`s. Nothing in a file is run (`unpickle.py`), and nothing in it is taken for plain before it is looked at.
"""

from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from . import archive
from .heads import COEFFICIENTS
from .unpickle import Inert

FORMAT = "oscillab"
CLASSIFIERS = (".Classify", ".ClassificationModel")

# Bounds on what is walked, far above any real network: a few bytes of pickle can describe a tree without end.
MAX_MODULES = 10_000  # YOLOv5x has 567
MAX_DEPTH = 16  # YOLOv5x has 5
MAX_OWN_TENSORS = 100  # of one module; a BatchNorm has 5
MAX_KEY = 500  # characters


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about its network."""

    path: str
    state: dict[str, Tensor]  # as state_dict() gives it, in its order and precision
    name: str | None = None  # a name of the zoo, where the file tells (or `zoo.inspect` finds) it
    classes: int | None = None
    names: list[str] | None = None  # of the classes
    anchors: Tensor | None = None  # (levels, anchors, 2) in pixels
    strides: tuple[int, ...] = (8, 16, 32)
    epoch: int | None = None  # -1 in official files whose training is over
    quant: dict | None = None  # the QuantSpec's fields of a quantized network
    activations: frozenset[str] = frozenset()  # class names; empty where only tensors were saved
    bn: tuple[float, float] | None = None  # eps and momentum of its BatchNorms, where the file holds one pair
    kinds: frozenset[str] = frozenset()  # dotted names of its modules' classes; empty where only tensors were saved

    @property
    def fused(self):
        """Whether its BatchNorms are folded into the convolutions."""
        return not any(key.endswith("running_mean") for key in self.state)


def read(path):
    """The `Checkpoint` at `path`. Raises ValueError, one line that names the file, where it holds none."""
    content = archive.read(path)
    try:
        facts = read_own(content) if is_own(content) else read_official(content)
        return Checkpoint(path=str(path), **facts | read_head(facts))
    except archive.DAMAGE as error:
        reason = f"its network is malformed ({type(error).__name__}: {error})"
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{path}: {' '.join(reason.split()):.300}")


def foreign(found):
    """What kind of network outside the zoo a `Checkpoint` holds, in words, None where nothing tells."""
    levels = [len(tensor) for key, tensor in found.state.items() if key.endswith(".anchors") and tensor.ndim == 3]
    if any(kind.startswith("ultralytics.") for kind in found.kinds) or any(".dfl." in key for key in found.state):
        return "a network of the ultralytics package (YOLOv8 and later, or YOLOv5u)"
    classifies = any(kind.endswith(CLASSIFIERS) for kind in found.kinds)
    if classifies or any(key.endswith(".linear.weight") for key in found.state):
        return "a classification network, which predicts no boxes"
    if len(found.strides) == 4 or 4 in levels:
        return "a P6 network, with a fourth level of stride 64"
    return None


def is_own(content):
    """Whether `content` is a checkpoint of this project."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_own(content):
    """The fields of a `Checkpoint` from this project's own format, version 1."""
    if content.get("version") != 1:
        raise ValueError("its format version must be 1; a newer oscillab may have written it")
    kinds = {"name": str, "classes": int, "epoch": int, "quant": dict}
    fields = {key: plain(content.get(key), kind) for key, kind in kinds.items()}
    return {"state": tensors(content["model"]), "names": class_names(content.get("names")), **fields}


def read_official(content):
    """The fields of a `Checkpoint` from an official file's content, the averaged weights (`ema`) preferred."""
    content = content if isinstance(content, dict) else {"model": content}
    epoch = plain(content.get("epoch"), int)
    model = content.get("ema") or content.get("model") or content
    if isinstance(model, dict):
        return {"state": tensors(model), "epoch": epoch}
    if not (isinstance(model, Inert) and isinstance(model.state, dict) and "_modules" in model.state):
        raise ValueError("holds no network: neither a pickled module under 'ema' or 'model' nor a state_dict")
    modules = list(islice(walk(model), MAX_MODULES + 1))
    if len(modules) > MAX_MODULES:
        raise ValueError(f"its network must have at most {MAX_MODULES} modules")
    return {
        "state": {key: tensor for prefix, module in modules for key, tensor in own_tensors(prefix, module)},
        "classes": plain(model.state.get("nc"), int),
        "names": class_names(model.state.get("names")),
        "epoch": epoch,
        **read_modules(module for _, module in modules),
        **read_strides(model.state.get("stride")),
    }


def walk(module, prefix="", depth=0):
    """(prefix of its keys, record) of a pickled module and of all below it, in the order of `state_dict()`."""
    if depth > MAX_DEPTH or len(prefix) > MAX_KEY:
        raise ValueError(f"its modules must be at most {MAX_DEPTH} deep, with keys of at most {MAX_KEY} characters")
    yield prefix, module
    for name, child in module.state["_modules"].items():
        yield from walk(child, f"{prefix}{name}.", depth + 1)


def own_tensors(prefix, module):
    """(key, tensor) of a pickled module's own parameters and of the buffers that a state_dict holds."""
    left_out = module.state.get("_non_persistent_buffers_set")
    left_out = left_out.arguments[0] if isinstance(left_out, Inert) and left_out.arguments else ()
    parameters, buffers = module.state["_parameters"], module.state["_buffers"]
    if len(parameters) + len(buffers) + len(left_out) > MAX_OWN_TENSORS:
        raise ValueError(f"a module must have at most {MAX_OWN_TENSORS} tensors of its own")
    both = (*parameters.items(), *buffers.items())
    return [(prefix + name, tensor) for name, tensor in both if isinstance(tensor, Tensor) and name not in left_out]


def read_modules(modules):
    """What the pickled modules tell beyond their tensors: their classes, activations and constants of BatchNorm."""
    activations, pairs, kinds = set(), set(), set()
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


def read_strides(stride):
    """The strides, where the pickled attribute is a tensor of a few."""
    found = isinstance(stride, Tensor) and stride.ndim == 1 and len(stride) <= 8
    return {"strides": tuple(int(pixels) for pixels in stride)} if found else {}


def plain(value, kind):
    """`value`, which must be None or a `kind`."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"holds a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def tensors(state):
    """`state`, after a check that it maps names to tensors."""
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError("holds no network: expected a state_dict, a mapping of names to tensors")
    return state


def class_names(names):
    """The class names as a list of str from the list or the dict by class index that files hold, None without any."""
    names = [names[index] for index in sorted(names)] if isinstance(names, dict) else names
    return list(names) if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else None


def read_head(facts):
    """The anchors, and the number of classes unless the file told it, from the head's tensors."""
    found = {}
    strides = facts.get("strides", Checkpoint.strides)
    coefficients = COEFFICIENTS if any(".proto." in key for key in facts["state"]) else 0
    for key, tensor in facts["state"].items():
        if key.endswith(".anchors") and tensor.ndim == 3 and len(tensor) == len(strides):
            found["anchors"] = tensor.float() * tensor.new_tensor(strides).float().view(-1, 1, 1)
        if key.endswith(".m.0.bias") and facts.get("classes") is None:
            found["classes"] = len(tensor) // 3 - 5 - coefficients
    return found

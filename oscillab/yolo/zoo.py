"""Which detectors are there, and how does a name or a file become one?"""

import logging
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import nn

from . import checkpoint, v5, v7
from .fuse import fuse
from .graph import Detector

logger = logging.getLogger(__name__)

# name -> function(classes) that gives the layer table
MODELS = {
    **{f"yolov5{size}": partial(v5.rows, size) for size in v5.SIZES},
    **{f"yolov5{size}-seg": partial(v5.rows, size, segment=True) for size in v5.SIZES},
    "yolov7-tiny": partial(v7.tiny_rows, "training"),
    "yolov7-tiny-deploy": partial(v7.tiny_rows, "deploy"),
    "yolov7": partial(v7.rows, "training"),
    "yolov7-deploy": partial(v7.rows, "deploy"),
    "yolov7-seg": partial(v7.rows, "segment"),
}
MAX_CLASSES = 100_000


def build(name, classes=80, *, names=None):
    """A new `Detector` called `name` for `classes` classes, with PyTorch's own random start and the official biases.

    `names` are the classes' names (their numbers if None). Raises ValueError for an unknown name, for a number of
    classes outside 1..100000, and for a number of names other than `classes`.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, allowed are {', '.join(MODELS)}")
    if not isinstance(classes, int) or isinstance(classes, bool) or not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"classes must be a whole number 1..{MAX_CLASSES}, got {classes!r}")
    names = [str(index) for index in range(classes)] if names is None else list(names)
    if len(names) != classes:
        raise ValueError(f"names must hold one name per class ({classes}), got {len(names)}")
    return Detector(name, MODELS[name](classes), names=names)


def load(path):
    """The float `Detector` in the checkpoint at `path`, in eval mode and float32, with its own classes and anchors.

    Official and own files are read without running anything in them (`checkpoint.py`). A file whose BatchNorms are
    folded gives a fused network (`fuse.fuse`), with a warning, as such a one cannot be trained well. Raises
    ValueError, one line that names the file, the key and the remedy, for a file that does not fit a model of the zoo
    entirely.
    """
    found = inspect(path)
    if found.quant is not None:
        raise ValueError(f"{path}: holds a quantized network, open it with oscillab.load(path)")
    if found.name is None:
        raise ValueError(f"{path}: {misfit(found)}")
    problem = difference(found, found.name)
    if problem is not None:
        raise ValueError(f"{path}: says that it holds {found.name}, but {problem}")
    names = found.names
    if names is not None and len(names) != found.classes:
        logger.warning("%s: %d names for %d classes, numbers are used", path, len(names), found.classes)
        names = None
    model = build(found.name, found.classes, names=names)
    if found.fused:
        logger.warning("%s: its BatchNorms are folded away: good to evaluate and to export, not to train", path)
        model = fuse(model)
    model.load_state_dict(found.state)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and found.bn is not None:
            layer.eps, layer.momentum = found.bn
    return model.eval()


def inspect(path):
    """The `Checkpoint` at `path`, with the `name` of the model that its weights fit where the file tells none."""
    found = checkpoint.read(path)
    if found.name is not None:
        return found
    return replace(found, name=next((name for name in MODELS if difference(found, name) is None), None))


def difference(found, name):
    """The first way in which a `Checkpoint` differs from the model called `name`, in words; None if it fits."""
    try:
        wanted = layout(name, found.classes, found.fused)
    except ValueError as error:
        return str(error)
    model = blueprint(name, found.classes, fused=found.fused)
    given = {key: tuple(tensor.shape) for key, tensor in found.state.items()}
    for key, shape in wanted.items():
        if key not in given:
            return f"key {key!r} is missing"
        if given[key] != shape:
            return f"key {key!r} has shape {given[key]}, expected {shape}"
    left_over = next((key for key in given if key not in wanted), None)
    if left_over is not None:
        return f"key {left_over!r} is left over"
    if tuple(found.strides) != model.strides:
        return f"its strides are {found.strides}, expected {model.strides}"
    own = {type(layer).__name__ for layer in model.modules() if ".activation" in type(layer).__module__}
    if found.activations and found.activations != own:
        return f"its activation is {', '.join(sorted(found.activations))}, expected {', '.join(sorted(own))}"
    return None


def misfit(found):
    """Why a `Checkpoint` fits no model of the zoo, and what would, in words."""
    remedy = f"Give a checkpoint of one of {', '.join(MODELS)}"
    foreign = checkpoint.foreign(found)
    if foreign is not None:
        return f"holds {foreign}. {remedy}"
    classes = found.classes if found.classes in range(1, MAX_CLASSES + 1) else 80

    def shared_count(name):
        wanted = layout(name, classes, found.fused)
        return sum(wanted.get(key) == tuple(tensor.shape) for key, tensor in found.state.items())

    nearest = max(MODELS, key=shared_count)
    problem = difference(replace(found, classes=classes), nearest)
    return f"its weights fit no model of the zoo; nearest is {nearest}, but {problem}. {remedy}"


@lru_cache(maxsize=128)
def layout(name, classes, fused):
    """The keys and shapes of the weights of the model called `name`, a dict in their order."""
    model = blueprint(name, classes, fused=fused)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@lru_cache(maxsize=128)
def blueprint(name, classes, *, fused=False):
    """The model called `name` without memory for its weights (on the meta device), to compare shapes with."""
    with torch.device("meta"):
        model = build(name, classes).eval()
        return fuse(model) if fused else model

"""Build the detectors of the zoo by name, and say what is known of each: size, cost, published accuracy."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from oscillab.quant.hooks import Hooks

from . import tables
from .blocks import Upsample
from .graph import Detector, Row, fuse

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

# name -> function(classes) that gives the layer table
MODELS: dict[str, Callable[[int], list[Row]]] = {
    **{f"yolov5{size}": partial(tables.v5_rows, size) for size in tables.SIZES},
    **{f"yolov5{size}-seg": partial(tables.v5_rows, size, segment=True) for size in tables.SIZES},
    "yolov7-tiny": partial(tables.v7_tiny_rows, "training"),
    "yolov7-tiny-deploy": partial(tables.v7_tiny_rows, "deploy"),
    "yolov7": partial(tables.v7_rows, "training"),
    "yolov7-deploy": partial(tables.v7_rows, "deploy"),
    "yolov7-seg": partial(tables.v7_rows, "segment"),
}
MAX_CLASSES = 100_000
# Kinds of networks outside the zoo, by what is in a key of theirs
FOREIGN = {
    ".dfl.": "a network of the ultralytics package (YOLOv8 and later, or YOLOv5u)",
    ".linear.weight": "a classification network, which predicts no boxes",
    ".module_list.": "a Darknet-style network (YOLOv3 or YOLOv4)",
    ".head.cls_preds.": "a YOLOX network",
    ".bbox_head.": "a network of MMDetection",
    ".transformer.": "a transformer, such as DETR",
    ".backbone.body.": "a detector of torchvision",
    ".layer1.0.conv1.": "a ResNet, which predicts no boxes",
}
GFLOPS_SIZE = 640  # pixels, the side of the square image that costs are quoted for
COSTS = {nn.BatchNorm2d: 8, Upsample: 2}  # operations per number of the output


def build(name: str, classes: int = 80, *, names: Iterable[str] | None = None) -> Detector:
    """Return a new `Detector` called `name`, with PyTorch's own random start and the official biases.

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


@lru_cache(maxsize=128)
def blueprint(name: str, classes: int, *, fused: bool = False) -> Detector:
    """Return the model called `name` without memory for its weights (on the meta device), to compare shapes with."""
    with torch.device("meta"):
        model = build(name, classes).eval()
        return fuse(model) if fused else model


@lru_cache(maxsize=128)
def layout(name: str, classes: int, fused: bool) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of the weights of the model called `name`, in their order."""
    return {key: tuple(tensor.shape) for key, tensor in blueprint(name, classes, fused=fused).state_dict().items()}


def difference(found: "Checkpoint", name: str) -> str | None:
    """Return the first way in which a checkpoint differs from the model called `name`, in words; None if it fits."""
    try:
        wanted = layout(name, found.classes or 0, found.fused)
    except ValueError as error:
        return str(error)
    model = blueprint(name, found.classes or 0, fused=found.fused)
    given = {key: tuple(tensor.shape) for key, tensor in found.state.items()}
    for key, shape in wanted.items():
        if key not in given:
            return f"key {key!r} is missing"
        if given[key] != shape:
            return f"key {key!r} has shape {given[key]}, expected {shape}"
    for key in given:
        if key not in wanted:
            return f"key {key!r} is left over"
    if tuple(found.strides) != model.strides:
        return f"its strides are {found.strides}, expected {model.strides}"
    own = {type(layer).__name__ for layer in model.modules() if ".activation" in type(layer).__module__}
    if found.activations and found.activations != own:
        return f"its activation is {', '.join(sorted(found.activations))}, expected {', '.join(sorted(own))}"
    return None


def misfit(found: "Checkpoint") -> str:
    """Say why a checkpoint fits no model of the zoo, and what would."""
    remedy = f"Give a checkpoint of one of {', '.join(MODELS)}"
    kind = foreign(found)
    if kind is not None:
        return f"holds {kind}. {remedy}"
    classes = found.classes if found.classes in range(1, MAX_CLASSES + 1) else 80

    def shared_count(name: str) -> int:
        wanted = layout(name, classes or 80, found.fused)
        return sum(wanted.get(key) == tuple(tensor.shape) for key, tensor in found.state.items())

    nearest = max(MODELS, key=shared_count)
    problem = difference(replace(found, classes=classes), nearest)
    return f"its weights fit no model of the zoo; nearest is {nearest}, but {problem}. {remedy}"


def foreign(found: "Checkpoint") -> str | None:
    """Return what kind of network outside the zoo a checkpoint holds, in words; None where nothing tells."""
    levels = [len(tensor) for key, tensor in found.state.items() if key.endswith(".anchors") and tensor.ndim == 3]
    if any(kind.startswith("ultralytics.") for kind in found.kinds):
        return FOREIGN[".dfl."]
    if any(kind.endswith((".Classify", ".ClassificationModel")) for kind in found.kinds):
        return FOREIGN[".linear.weight"]
    if len(found.strides) == 4 or 4 in levels:
        return "a P6 network, with a fourth level of stride 64"
    return next((words for part, words in FOREIGN.items() if any(part in f".{key}" for key in found.state)), None)


class Published(NamedTuple):
    """An accuracy on COCO val2017 as its authors report it."""

    box_map: float  # percent, mean over the IoU thresholds 0.50, 0.55 … 0.95
    mask_map: float | None  # percent, of the masks; None without masks
    size: int  # pixels
    source: str


V5, V7, U7 = "YOLOv5 v7.0 README", "YOLOv7 README", "YOLOv7 README of seg/ in branch u7"
V5_BOXES = {"n": 28.0, "s": 37.4, "m": 45.4, "l": 49.0, "x": 50.7}
V5_MASKS = {"n": (27.6, 23.4), "s": (37.6, 31.7), "m": (45.0, 37.1), "l": (49.0, 39.9), "x": (50.7, 41.4)}
PUBLISHED = {
    **{f"yolov5{size}": Published(box, None, 640, V5) for size, box in V5_BOXES.items()},
    **{f"yolov5{size}-seg": Published(box, mask, 640, V5) for size, (box, mask) in V5_MASKS.items()},
    # Its authors give no figure at 640 pixels.
    **dict.fromkeys(("yolov7-tiny", "yolov7-tiny-deploy"), Published(35.2, None, 416, "YOLOv7 issue 106, an author")),
    **dict.fromkeys(("yolov7", "yolov7-deploy"), Published(51.2, None, 640, V7)),
    "yolov7-seg": Published(49.6, 40.5, 640, U7),
}


class Entry(NamedTuple):
    """What is known of a model of the zoo, for 80 classes."""

    name: str
    task: str  # detect or segment
    parameters: int
    gflops: float  # at 640 pixels, every BatchNorm counted
    published: Published


@lru_cache
def entry(name: str) -> Entry:
    """Return the `Entry` of the model called `name`, worked out from the network; ValueError for an unknown name."""
    model = blueprint(name, 80)
    return Entry(name, model.task, count_parameters(model), count_gflops(model), PUBLISHED[name])


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned numbers in a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gflops(model: nn.Module, size: int = GFLOPS_SIZE) -> float:
    """Return the billions of operations for one image of `size` x `size` pixels, of a network on the meta device.

    As the authors' counter has it: two for a multiplication with addition in a convolution, `COSTS`, nothing for the rest.
    """
    counts: list[int] = []

    def add(layer: Any, _: Any, output: Tensor) -> None:
        per_number = 2 * layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else COSTS[type(layer)]
        counts.append(per_number * output.numel())

    with Hooks() as hooks, torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, *COSTS)):
                hooks.after(layer, add)
        model(torch.empty(1, 3, size, size, device="meta"))
    return sum(counts) / 1e9

"""What is known of each detector of the zoo: its size, its cost, and the accuracy that its authors report?"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from . import zoo
from .blocks import Upsample

GFLOPS_SIZE = 640  # pixels, the side of the square image that costs are quoted for


class Published(NamedTuple):
    """An accuracy on COCO val2017 as its authors report it."""

    box_map: float  # percent, mean over the IoU thresholds 0.50, 0.55 … 0.95
    mask_map: float | None  # percent, of the masks; None without masks
    size: int  # pixels
    source: str


V5, V7, U7 = "YOLOv5 v7.0 README", "YOLOv7 README", "YOLOv7 README of seg/ in branch u7"
PUBLISHED = {
    "yolov5n": Published(28.0, None, 640, V5),
    "yolov5s": Published(37.4, None, 640, V5),
    "yolov5m": Published(45.4, None, 640, V5),
    "yolov5l": Published(49.0, None, 640, V5),
    "yolov5x": Published(50.7, None, 640, V5),
    "yolov5n-seg": Published(27.6, 23.4, 640, V5),
    "yolov5s-seg": Published(37.6, 31.7, 640, V5),
    "yolov5m-seg": Published(45.0, 37.1, 640, V5),
    "yolov5l-seg": Published(49.0, 39.9, 640, V5),
    "yolov5x-seg": Published(50.7, 41.4, 640, V5),
    # Its authors give no figure at 640 pixels.
    **dict.fromkeys(("yolov7-tiny", "yolov7-tiny-deploy"), Published(35.2, None, 416, "YOLOv7 issue 106, an author")),
    **dict.fromkeys(("yolov7", "yolov7-deploy"), Published(51.2, None, 640, V7)),
    "yolov7-seg": Published(49.6, 40.5, 640, U7),
}


class Entry(NamedTuple):
    """One row of the catalogue, for 80 classes."""

    name: str
    task: str  # detect or segment
    parameters: int
    gflops: float  # at 640 pixels, every BatchNorm counted
    published: Published


def entries():
    """One `Entry` for each model of the zoo, in its order; sizes and costs are worked out from the networks."""
    return [entry(name) for name in zoo.MODELS]


@lru_cache
def entry(name):
    """The `Entry` of the model called `name`. Raises ValueError for an unknown name."""
    model = zoo.blueprint(name, 80)
    return Entry(name, model.task, count_parameters(model), count_gflops(model), PUBLISHED[name])


def count_parameters(model):
    """The number of learned numbers in a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_gflops(model, size=GFLOPS_SIZE):
    """Billions of operations for one image of `size` x `size` pixels, of a network on the meta device.

    As the authors' counter has it: two for a multiplication with addition in a convolution, eight for a number that
    passes a BatchNorm, two for one that an enlargement makes, nothing for the rest.
    """
    count = 0

    def add(layer, _, output):
        nonlocal count
        per_number = 2 * layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else COSTS[type(layer)]
        count += per_number * output.numel()

    counted = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, *COSTS))]
    hooks = [layer.register_forward_hook(add) for layer in counted]
    try:
        with torch.no_grad():
            model(torch.empty(1, 3, size, size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return count / 1e9


COSTS = {nn.BatchNorm2d: 8, Upsample: 2}  # per number of the output
